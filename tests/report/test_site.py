from __future__ import annotations

import copy
import json
import re
import shutil
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from conseq.report import report
from conseq.report.pages import Page, Section
from conseq.report.site import write_pages
from conseq.report.statement import Statement
from conseq.report.style import Picture

Write = Callable[[Path, list[dict[str, Any]]], Path]


class Read(HTMLParser):
    """What a page consists of, as a browser would read it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" not in self.inside:
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, experiments: Path, all_records: list[dict[str, Any]], write_lines: Write
) -> Path:
    root = tmp_path_factory.mktemp("report")
    write_lines(root / "results" / "paper" / "table1.jsonl", all_records)
    return report([root / "results"], root / "site", experiments=experiments).parent


def pages(site: Path) -> dict[str, Read]:
    return {path.name: Read(path.read_text(encoding="utf-8")) for path in sorted(site.glob("*.html"))}


def test_a_report_has_a_page_for_each_study_and_data_set(site: Path) -> None:
    assert set(pages(site)) == {"index.html", "study-paper-table1.html", "study-ours-stand.html", "data-toy.html"}


def test_every_link_leads_somewhere(site: Path) -> None:
    found = pages(site)
    links = [(name, one["href"]) for name, page in found.items() for one in page.all("a")]
    links += [(name, one["src"]) for name, page in found.items() for one in page.all("img")]
    assert len(links) > 20
    for page, link in links:
        file, _, anchor = link.partition("#")
        assert not file or (site / file).is_file(), f"{page}: {link}"
        if anchor:
            assert anchor in found[file or page].ids, f"{page}: {link}"


def test_every_page_is_reached_from_the_first(site: Path) -> None:
    found = pages(site)
    reached = {one["href"].partition("#")[0] for one in found["index.html"].all("a")} - {""}
    assert reached == set(found) - {"index.html"}


def test_nothing_is_fetched_from_elsewhere_and_nothing_runs(site: Path) -> None:
    for path in site.rglob("*"):
        if path.suffix in {".html", ".svg"}:
            text = path.read_text(encoding="utf-8")
            addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w[^\"'\s<>]*", text))
            assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}, path.name
            assert "<script" not in text.lower()
            assert not re.search(r"<[^>]+\son\w+=", text)


def test_titles_and_notes_are_text_whatever_they_hold(site: Path) -> None:
    page = pages(site)["study-paper-table1.html"]
    assert not page.all("script")
    assert not page.all("b")
    assert "<script>document.title = 'broken'</script> must be text" in page.text
    assert "Table 1: <b>methods</b> & more" in page.text


def test_every_table_has_its_protocol(site: Path) -> None:
    count = 0
    for name, page in pages(site).items():
        protocols = {attributes["id"] for attributes in page.all("dl") if "data-protocol" in attributes}
        for table in page.all("table"):
            assert table["aria-describedby"] in protocols, name
            count += 1
        for image in page.all("img"):
            assert image["aria-describedby"] in protocols, name
    assert count > 10


def test_a_protocol_stands_before_the_numbers_and_says_what_they_depend_on(site: Path) -> None:
    text = (site / "study-paper-table1.html").read_text(encoding="utf-8")
    first = text[text.index("data-protocol") : text.index("<tbody")]
    said = re.findall(r"<dt>([^<]+)</dt>", first)
    expected = ["data", "split", "history", "ties", "loss", "instances", "encoder", "preset", "seeds", "commit"]
    assert said[: len(expected)] == expected
    assert {"machine", "versions"} <= set(said)


def test_every_figure_has_words_and_numbers_behind_it(site: Path) -> None:
    for page in pages(site).values():
        figures, images = page.all("figure"), page.all("img")
        assert len(figures) == len(images) == len(page.all("figcaption")) == len(page.all("details"))
        assert all(len(one["alt"]) > 40 for one in images)
        for image in images:
            name = Path(image["src"]).stem
            lines = (site / "numbers" / f"{name}.csv").read_text(encoding="utf-8").splitlines()
            assert lines[0].startswith("# data: toy")
            assert len(lines) > 2


def test_ids_of_a_page_differ(site: Path) -> None:
    for page in pages(site).values():
        assert len(page.ids) == len(set(page.ids))


@pytest.fixture(scope="module")
def twofold(
    tmp_path_factory: pytest.TempPathFactory, experiments: Path, all_records: list[dict[str, Any]], write_lines: Write
) -> Path:
    """A report on a study with two tables on one data set, one for each treatment of the history."""
    root = tmp_path_factory.mktemp("twofold")
    shutil.copytree(experiments, root / "experiments")
    folder = root / "experiments" / "paper" / "table1"
    text = (folder / "toy.toml").read_text(encoding="utf-8")
    other = text.replace('history = "exclude"', 'history = "keep"').replace("Table 1: ", "Table 1, kept: ")
    (folder / "toy.kept.toml").write_text(other, encoding="utf-8")
    for name in ("more.toml", "more.kept.toml"):
        (folder / name).write_text(text.replace('dataset = "toy"', 'dataset = "more"'), encoding="utf-8")
    lines = write_lines(root / "all.jsonl", all_records)
    return report([lines], root / "site", experiments=root / "experiments").parent


def test_two_tables_on_one_data_set_have_figures_and_places_of_their_own(twofold: Path) -> None:
    page = pages(twofold)["study-paper-table1.html"]
    assert len(page.ids) == len(set(page.ids))
    assert {"toy", "toy-kept"} <= set(page.ids)
    assert "toy, history excluded" in page.text
    assert "toy, history kept" in page.text
    images = [one["src"] for one in page.all("img")]
    assert len(images) == len(set(images))
    told = {}
    for image in images:
        name = Path(image).stem
        if name.endswith("-bars-1"):
            told[name] = (twofold / "numbers" / f"{name}.csv").read_text(encoding="utf-8").partition("\n")[0]
    assert sorted(re.findall(r"history: \w+", " ".join(told.values()))) == ["history: excluded", "history: kept"]


def test_the_first_page_leads_to_each_of_two_tables_on_one_data_set(twofold: Path) -> None:
    links = [one["href"] for one in pages(twofold)["index.html"].all("a")]
    assert {"study-paper-table1.html#toy", "study-paper-table1.html#toy-kept"} <= set(links)


def test_a_study_names_all_its_titles_and_each_missing_data_set_once(twofold: Path) -> None:
    text = pages(twofold)["study-paper-table1.html"].text
    assert "A paper (2022). Table 1, kept: <b>methods</b> & more; Table 1: <b>methods</b> & more." in text
    assert "Not run yet on: more." in text


def test_figures_of_one_name_are_refused(tmp_path: Path) -> None:
    picture = Picture(
        name="a", title="t", svg="<svg></svg>", alt="", caption="", protocol=Statement(()), columns=("x",), rows=((1,),)
    )  # fmt: skip
    found = [Page("index.html", "R", "", "", "", (Section("a", "A", pictures=(picture,)),))]
    found.append(Page("b.html", "B", "K", "", "", (Section("b", "B", pictures=(picture,)),)))
    with pytest.raises(ValueError, match=r"of several figures: a$"):
        write_pages(found, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_the_first_page_counts_verdicts(site: Path) -> None:
    text = pages(site)["index.html"].text
    # 11 cells: 4 rows of 2 and 3 points, without the floor; of those 2 impossible, 2 not run, 2 closed.
    found = re.search(r"paper/table1 A paper \(2022\): Table 1: <b>methods</b> & more toy excluded 11 ([\d· ]+)", text)
    assert found is not None
    reached, above, below, impossible, none, not_run, closed, stale = (
        0 if one == "·" else int(one) for one in found[1].split()[:8]
    )
    assert (impossible, none, not_run, closed, stale) == (2, 0, 2, 2, 0)
    assert reached + above + below == 5


def test_the_same_records_give_the_same_bytes(
    tmp_path: Path, site: Path, experiments: Path, records: list[dict[str, Any]], write_lines: Write
) -> None:
    lines = write_lines(tmp_path / "all.jsonl", records)
    one, two = site, report([lines], tmp_path / "site", experiments=experiments).parent
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(two) for path in two.rglob("*") if path.is_file())
    assert all((one / file).read_bytes() == (two / file).read_bytes() for file in files)


def test_without_records_the_page_says_so(tmp_path: Path, write_lines: Write) -> None:
    first = report([write_lines(tmp_path / "none.jsonl", [])], tmp_path / "site")
    page = Read(first.read_text(encoding="utf-8"))
    assert "nothing has been run yet" in page.text
    assert not page.all("table")
    assert not page.all("h2")


def test_records_outside_any_table_have_their_curves_on_the_page_of_their_data(
    tmp_path: Path, records: list[dict[str, Any]], write_lines: Write
) -> None:
    site = report([write_lines(tmp_path / "all.jsonl", records)], tmp_path / "site").parent
    assert set(pages(site)) == {"index.html", "data-toy.html"}
    page = pages(site)["data-toy.html"]
    assert "Runs outside the papers' tables" in page.text
    assert any("curves" in one["src"] for one in page.all("img"))


def test_runs_on_several_versions_of_a_log_stand_apart(
    tmp_path: Path, records: list[dict[str, Any]], write_lines: Write
) -> None:
    other = copy.deepcopy(records)
    for record in other:
        record["data_hash"] = "bead" * 16
        for side in record["both"].values():
            for parts in side["slices"].values():
                for part in parts.values():
                    part["cases"] = 77.0
    site = report([write_lines(tmp_path / "all.jsonl", records + other)], tmp_path / "site").parent
    page = pages(site)["data-toy.html"]
    headings = re.findall(r"<h2>([^<]*)</h2>", (site / "data-toy.html").read_text(encoding="utf-8"))
    assert headings[0] == "All runs, leave_one_out, data feedfeed"
    assert [one for one in headings if one.endswith("data beadbead")] == [
        one.replace("feedfeed", "beadbead") for one in headings if one.endswith("data feedfeed")
    ]
    assert len(page.ids) == len(set(page.ids))
    for path in (site / "numbers").iterdir():
        protocol, _, rows = path.read_text(encoding="utf-8").partition("\n")
        version = re.search(r"data hash: (\w+)", protocol)
        assert version is not None
        assert version[1] == ("beadbeadbead" if "bead" in path.name else "feedfeedfeed")
        if "-history-exclude" in path.name:
            assert (",77," in rows) == ("bead" in path.name)


def test_a_report_replaces_an_older_one_and_nothing_else(
    tmp_path: Path, records: list[dict[str, Any]], write_lines: Write
) -> None:
    lines = write_lines(tmp_path / "all.jsonl", records[:1])
    site = report([lines], tmp_path / "site").parent
    assert report([lines], site).is_file()
    (site / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds other files"):
        report([lines], site)
    assert (site / "notes.txt").read_text() == "mine"


def test_missing_and_useless_inputs_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist; expected records"):
        report([tmp_path / "nowhere"], tmp_path / "site")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds neither records"):
        report([tmp_path / "empty"], tmp_path / "site")
    (tmp_path / "bad.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"bad.jsonl, line 1: the record lacks study, row, method"):
        report([tmp_path / "bad.jsonl"], tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in sys.modules if one.startswith("conseq.report.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'conseq\[report\]'"):
        report([tmp_path], tmp_path / "site")


def test_the_list_of_files_is_that_of_the_folder(site: Path) -> None:
    told = json.loads((site / "report.json").read_text(encoding="utf-8"))
    found = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert set(told["files"]) | {"report.json"} == found


def test_a_folder_that_must_not_be_replaced_is_told_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("x")
    monkeypatch.setattr("conseq.report.site.collect", lambda *_: pytest.fail("read"))
    with pytest.raises(FileExistsError, match="mine holds other files"):
        report([tmp_path], tmp_path / "mine")
