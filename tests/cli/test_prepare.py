from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conseq.cli.main import main
from conseq.data.prepared import load

CSV = "uid,item,ts\na,x,3\na,y,1\nb,x,2\nb,y,2\nc,x,1\n"


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.csv"
    path.write_text(CSV)
    return path


def test_prepare_shows_the_guess_the_filters_and_the_ties(
    events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", str(events), str(tmp_path / "out"), "--k-core", "2", "1", "--repeats", "last"]) == 0
    shown = capsys.readouterr().out
    assert "user   column 'uid' (guessed from its name)" in shown
    assert "filter k_core, users >= 2, items >= 1 (rounds: 1)" in shown
    assert "-> 2 users, 2 items, 4 interactions" in shown
    assert "for 0.0% of the users with three or more a tie decides which is the last" in shown
    assert f"written to {tmp_path / 'out'}" in shown
    log = load(tmp_path / "out")
    assert log.item_ids.decode(log.items) == ["y", "x", "x", "y"]


def test_json_prints_the_manifest_and_nothing_else(
    events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", str(events), str(tmp_path / "out"), "--json", "--time", "-", "--user", "uid"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest == load(tmp_path / "out").manifest
    assert manifest["source"]["columns"] == {
        "user": {"name": "uid", "guessed": False},
        "item": {"name": "item", "guessed": True},
        "time": None,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--user", "nobody"], "no column 'nobody' for the user; found 'uid', 'item', 'ts'"),
        (["--k-core", "9"], "nothing is left"),
        (["--k-core", "-1"], "k_core (--k-core) is a number of interactions"),
        (["--format", "jsonl"], "line 1: not JSON"),
    ],
)
def test_a_mistake_is_one_line_on_standard_error_and_status_2(
    events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["prepare", str(events), str(tmp_path / "out"), *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("conseq prepare: ")
    assert message in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_content_is_not_overwritten(
    events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", str(events), str(tmp_path)]) == 2
    assert "holds other files" in capsys.readouterr().err
    assert events.read_text() == CSV


def test_an_unknown_option_ends_with_status_2(events: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["prepare", str(events), str(tmp_path / "out"), "--k-cor", "2"])
    assert ended.value.code == 2


def test_help_needs_no_polars_and_no_torch() -> None:
    code = (
        "import sys\nfrom conseq.cli.main import main\n"
        "try:\n    main(['prepare', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'polars', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--k-core" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("options", [[], ["--k-core", "1"]])
@pytest.mark.parametrize("place", [0, 1, 3, 4])
def test_several_files_are_one_log_wherever_the_options_stand(options: list[str], place: int, tmp_path: Path) -> None:
    names = []
    for user in "abc":
        (tmp_path / f"{user}.csv").write_text(f"uid,item,ts\n{user},x,1\n{user},y,2\n")
        names.append(str(tmp_path / f"{user}.csv"))
    names.append(str(tmp_path / "out"))
    assert main(["prepare", *names[:place], *options, "--json", *names[place:]]) == 0
    log = load(tmp_path / "out")
    assert (log.n_users, log.n_items, len(log)) == (3, 2, 6)
    files = json.loads((tmp_path / "out/manifest.json").read_text())["source"]["files"]
    assert [one["name"] for one in files] == ["a.csv", "b.csv", "c.csv"]


def test_the_last_file_is_not_written_over_where_the_folder_is_forgotten(
    events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "more.csv").write_text(CSV)
    (tmp_path / "most.csv").write_text(CSV)
    assert main(["prepare", str(events), str(tmp_path / "more.csv"), str(tmp_path / "most.csv")]) == 2
    assert str(tmp_path / "most.csv") in capsys.readouterr().err
    assert (tmp_path / "most.csv").read_text() == CSV


def test_a_misspelt_option_beside_several_files_is_named(
    events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["prepare", str(events), str(events), str(tmp_path / "out"), "--kcore", "2"])
    assert ended.value.code == 2
    assert "--kcore" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_among_several_files_is_refused_in_words(
    events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "more").mkdir()
    assert main(["prepare", str(events), str(tmp_path / "more"), str(tmp_path / "out")]) == 2
    assert f"{tmp_path / 'more'}: of a log in several places each is a file" in capsys.readouterr().err


def test_files_beside_the_process_are_recorded_by_its_folder(
    events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "more.csv").write_text(CSV.replace("a,", "c,"))
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", "events.csv", "more.csv", "out"]) == 0
    source = json.loads((tmp_path / "out/manifest.json").read_text())["source"]
    assert source["name"] == f"{tmp_path.name} (2 files)"
