"""``conseq recommend``."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from conseq.cli import recommend
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.sasrec import SASRecConfig
from conseq.nn.items import ItemTable
from conseq.serving.bundle import save_bundle
from conseq.serving.export import export_table
from conseq.serving.recommender import Recommender

IDS = ["a", "b", "c d", "007", "é"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = SASRecConfig(width=8, layers=1, max_length=4)
    ids = Vocabulary(IDS, start=1)
    save_bundle(config(ItemTable(5, 8)), config, ids, tmp_path / "bundle", {}, counts=[1, 5, 2, 4, 3])
    return tmp_path / "bundle"


def _json(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, Any]:
    assert recommend.run([*map(str, argv), "--json"]) == 0
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    return shown


def test_one_history_gives_one_json_object(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = _json(capsys, bundle, "--history", "a 007 stranger", "-k", 10)
    expected = Recommender.load(bundle).recommend(["a", "007"], k=10).to_dicts()
    assert shown == {"k": 10, "dropped": 1, "empty": [], "recommendations": expected}
    assert [one["rank"] for one in shown["recommendations"]] == [1, 2, 3]


def test_a_user_without_a_history_is_given_as_an_empty_one(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for empty in (("--history", ""), ("--history-json", "[]")):
        shown = _json(capsys, bundle, *empty, "--on-empty", "popular", "-k", 1)
        assert [one["rank"] for one in shown["recommendations"]] == [1]


def test_ids_with_spaces_are_given_as_json(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = _json(capsys, bundle, "--history-json", '["c d", "é"]', "-k", 2)
    expected = Recommender.load(bundle).recommend(["c d", "é"], k=2).to_dicts()
    assert shown["recommendations"] == expected


def test_exclude_candidates_and_seen_items_are_obeyed(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stock").write_text("c d\na\n007\n", encoding="utf-8")
    options = ("--candidates", f"@{tmp_path / 'stock'}", "--exclude", '["c d"]')
    shown = _json(capsys, bundle, "--history", "a", *options)["recommendations"]
    assert [one["item_id"] for one in shown] == ["007"]
    shown = _json(capsys, bundle, "--history", "a", *options, "--include-seen")["recommendations"]
    assert {one["item_id"] for one in shown} == {"a", "007"}


def test_a_file_of_histories_gives_a_list_for_each(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "h.jsonl").write_text('["a"]\n["c d"]\n[]\n', encoding="utf-8")
    shown = _json(capsys, bundle, "--histories", tmp_path / "h.jsonl", "-k", 2, "--on-empty", "popular")
    model = Recommender.load(bundle)
    assert shown["recommendations"][:2] == model.recommend([["a"], ["c d"]], k=2).to_dicts()
    assert [one["item_id"] for one in shown["recommendations"][2]] == ["b", "007"]


def test_a_file_of_histories_is_printed_as_a_table(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "h.txt").write_text("a b 007 é\na zzz\n", encoding="utf-8")
    assert recommend.run([str(bundle), "--histories", str(tmp_path / "h.txt"), "-k", "2"]) == 0
    shown = capsys.readouterr()
    rows = list(csv.DictReader(shown.out.splitlines()))
    assert [(row["history"], row["rank"]) for row in rows] == [("1", "1"), ("2", "1"), ("2", "2")]
    assert rows[0]["item_id"] == "c d"
    assert "left out of the histories: 1" in shown.err


def test_one_history_is_printed_best_first(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert recommend.run([str(bundle), "--history", "a", "-k", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    expected = Recommender.load(bundle).recommend(["a"], k=3)
    assert [line.split(maxsplit=2)[2] for line in lines] == expected.ids.tolist()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "log.csv").write_text("user,item,time\nu 1,a,1\nu 1,é,2\n007,b,1\n007,new,2\n", encoding="utf-8")
    return tmp_path / "log.csv"


def test_every_user_of_a_log_gets_rows(
    bundle: Path, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = Recommender.load(bundle).recommend_table({"u 1": ["a", "é"], "007": ["b"]}, 2)
    assert recommend.run([str(bundle), "--log", str(log), "-k", "2"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["user_id"], row["item_id"], int(row["rank"])) for row in rows] == expected.select(
        "user_id", "item_id", "rank"
    ).rows()
    for name, of in (("r.parquet", pl.read_parquet), ("r.csv", pl.read_csv), ("r.jsonl", pl.read_ndjson)):
        assert recommend.run([str(bundle), "--log", str(log), "-k", "2", "--out", str(tmp_path / name)]) == 0
        shown = capsys.readouterr()
        assert shown.out == ""
        assert f"4 recommendations written to {tmp_path / name}" in shown.err
        assert "unknown items left out of the histories: 1\n" in shown.err
        found = of(tmp_path / name)
        assert found.columns == ["user_id", "item_id", "score", "rank"]
        assert found.get_column("score").to_list() == pytest.approx(expected.get_column("score").to_list())
        assert found.get_column("rank").to_list() == [1, 2, 1, 2]


def test_chosen_users_of_a_log_as_one_json_object(bundle: Path, log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = _json(capsys, bundle, "--log", log, "--users", '["007"]', "-k", 2, "--exclude", "a")
    assert shown == {
        "k": 2,
        "dropped": 1,
        "empty": [],
        "recommendations": {"007": Recommender.load(bundle).recommend(["b"], 2, exclude=["a"]).to_dicts()},
    }
    assert _json(capsys, bundle, "--log", log, "--users", "007 007", "-k", 2, "--exclude", "a") == shown
    with pytest.raises(KeyError, match="'u' is not among the 2 users"):
        recommend.run([str(bundle), "--log", str(log), "--users", "u"])


def test_a_user_without_a_known_item_is_named(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,time\nu,a,1\nv,elsewhere,1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="user 'v' has no item that the model knows"):
        recommend.run([str(bundle), "--log", str(tmp_path / "log.csv")])


def test_who_has_no_known_item_is_said_whatever_is_done_about_it(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user,item,time\nu,a,1\nv,elsewhere,1\nw,a,1\nw,elsewhere,2\n", encoding="utf-8")
    shown = _json(capsys, bundle, "--log", log, "--on-empty", "popular", "-k", 1)
    assert (shown["dropped"], shown["empty"]) == (2, ["v"])
    assert shown["recommendations"]["v"][0]["item_id"] == "b"
    for answer, words in (("popular", "answered with what is popular"), ("blank", "left without an answer")):
        recommend.run([str(bundle), "--log", str(log), "--on-empty", answer])
        assert f"histories without a known item: 1, {words}\n" in capsys.readouterr().err
    (tmp_path / "h.txt").write_text("a\nelsewhere\n", encoding="utf-8")
    shown = _json(capsys, bundle, "--histories", tmp_path / "h.txt", "--on-empty", "blank")
    assert shown["empty"] == [1]


def test_a_table_tells_which_scores_are_of_popularity(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "h.txt").write_text("a\n\n")
    (tmp_path / "log.csv").write_text("user,item,time\nu,a,1\nv,elsewhere,1\n")
    for given, who in ((("--histories", "h.txt"), "12"), (("--log", "log.csv"), "uv")):
        asked = [str(bundle), given[0], str(tmp_path / given[1]), "-k", "1"]
        recommend.run([*asked, "--on-empty", "popular"])
        header, *rows = csv.reader(capsys.readouterr().out.splitlines())
        assert header[2:] == ["score", "rank", "source"]
        assert [(row[0], row[4]) for row in rows] == [(who[0], "model"), (who[1], "popularity")]
        recommend.run([*asked, "--on-empty", "blank"])
        assert capsys.readouterr().out.splitlines()[0].endswith("item_id,score,rank")


def test_who_gets_fewer_items_than_asked_is_counted_with_the_reasons(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user,item,time\nu,a,1\nv,b,1\nw,elsewhere,2\n", encoding="utf-8")
    asked = [str(bundle), "--log", str(log), "--on-empty", "blank"]
    for options, told in {
        ("--candidates", "a", "-k", "1"): "1 of 3 users got fewer than 1 items, 1 of them none: of the 5 items of the "
        "model, those of the history and all but the candidates are left out",
        ("--exclude", "é", "-k", "4"): "2 of 3 users got fewer than 4 items, 0 of them none: of the 5 items of the "
        "model, those of the history and those of --exclude are left out",
        ("--include-seen", "-k", "9"): "2 of 3 users got fewer than 9 items, 0 of them none: the model has 5 items",
        ("--include-seen", "-k", "5", "--json"): "",
        ("-k", "4"): "",
    }.items():
        recommend.run([*asked, *options])
        notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
        assert notes == ([f"note: {told}"] if told else [])
    recommend.run([str(bundle), "--history", "a", "--candidates", "a"])
    assert "note: 1 of 1 histories got fewer than 10 items, 1 of them none: of the 5" in capsys.readouterr().err


def test_users_of_a_table_get_their_own_candidates(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, own = tmp_path / "log.csv", tmp_path / "own.csv"
    log.write_text("user,item,time\nu,a,1\nv,b,1\nw,a,2\n", encoding="utf-8")
    own.write_text("user_id,item_id,shelf\nv,é,1\nu,b,1\nv,007,2\nu,a,3\ngone,a,1\n", encoding="utf-8")
    asked = [str(bundle), "--log", str(log), "-k", "2", "--candidates-by-user", str(own)]
    assert recommend.run(asked) == 0
    shown = capsys.readouterr()
    rows = [(row["user_id"], row["item_id"]) for row in csv.DictReader(shown.out.splitlines())]
    best = Recommender.load(bundle).recommend(["b"], 2, candidates=["é", "007"]).ids.tolist()
    assert rows == [("u", "b"), ("v", best[0]), ("v", best[1])]
    assert f"note: 1 of the 3 users in {own} are not among those of the log, and are passed over" in shown.err
    assert "note: 1 of 2 users got fewer than 2 items, 0 of them none" in shown.err
    with pytest.raises(KeyError, match="candidates: 'w' is without an entry"):
        recommend.run([*asked, "--users", "w"])


def test_a_table_of_candidates_is_refused_with_a_count_of_what_the_model_does_not_know(
    bundle: Path, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.csv"
    asked = [str(bundle), "--log", str(log), "-k", "2", "--candidates-by-user", str(own)]
    own.write_text("user_id,item_id\n007,x\n007,a\n007,y\n", encoding="utf-8")
    told = f"the model does not know 2 of the 3 items in {own}, such as 'x'"
    with pytest.raises(ValueError, match=re.escape(f"--candidates-by-user: {told}; --unknown drop leaves them out")):
        recommend.run(asked)
    assert recommend.run([*asked, "--unknown", "drop"]) == 0
    shown = capsys.readouterr()
    assert f"note: {told}: they are left out" in shown.err
    assert [row.split(",")[:2] for row in shown.out.splitlines()[1:]] == [["007", "a"]]
    own.write_text("user_id,item_id\n007,x\n", encoding="utf-8")
    with pytest.raises(ValueError, match="the model knows none of its 1 items, such as 'x'"):
        recommend.run([*asked, "--unknown", "drop"])
    own.write_text("user_id,item_id\nnobody,a\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"1 of the 1 users in .* are not among those of the log: there is nobody"):
        recommend.run(asked)


def test_a_file_that_cannot_be_written_is_said_before_anything_is_computed_or_by_its_name(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.csv").mkdir()
    monkeypatch.setattr(Recommender, "load", lambda *_: pytest.fail("loaded"))
    with pytest.raises(IsADirectoryError, match=r"r.csv is a folder"):
        recommend.run([str(bundle), "--history", "a", "--out", str(tmp_path / "r.csv")])

    def full(*_: object) -> None:
        raise OSError("File too large (os error 27)")

    monkeypatch.setattr(pl.DataFrame, "write_ndjson", full)
    with pytest.raises(OSError, match=r"r.jsonl: cannot be written: File too large"):
        export_table(pl.DataFrame({"a": [1]}), tmp_path / "r.jsonl")
    assert [one.name for one in tmp_path.iterdir() if "jsonl" in one.name] == []


def test_histories_can_be_answered_in_a_file(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "h.jsonl").write_text('["a"]\n[]\n["c d"]\n', encoding="utf-8")
    options = ["--histories", str(tmp_path / "h.jsonl"), "-k", "1", "--on-empty", "blank"]
    assert recommend.run([str(bundle), *options, "--out", str(tmp_path / "r.csv")]) == 0
    found = pl.read_csv(tmp_path / "r.csv")
    model = Recommender.load(bundle)
    assert found.select("history", "item_id", "rank").rows() == [
        (1, model.recommend(["a"], 1).ids[0], 1),
        (3, model.recommend(["c d"], 1).ids[0], 1),
    ]
    capsys.readouterr()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--history", "a", "--users", "u"], "--users are of a log"),
        (["--history", "a", "--candidates-by-user", "c.csv"], "--candidates-by-user is of the users of a log"),
        (["--log", "l", "--candidates-by-user", "c.csv", "--candidates", "a"], "and takes no --candidates"),
        (["--history", "a", "--out", "r.csv", "--json"], "give --out, which writes a file, or --json"),
        (["--history", "a", "--out", "r.xls"], r"r.xls: cannot tell the format from the name; known: .parquet, .csv"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(bundle: Path, options: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recommend.run([str(bundle), *options])


@pytest.mark.parametrize(
    "given", [[], ["--history", "a", "--history-json", "[]"], ["--history", "", "--history-json", "[]"]]
)
def test_exactly_one_way_of_giving_histories_is_needed(bundle: Path, given: list[str]) -> None:
    with pytest.raises(ValueError, match="give one of --history, --history-json, --histories, --log"):
        recommend.run([str(bundle), *given])


def test_an_empty_history_is_an_error(bundle: Path) -> None:
    with pytest.raises(ValueError, match=r"history 0 \(counted from 0\) has no known item"):
        recommend.run([str(bundle), "--history-json", "[]"])


def test_an_unknown_item_is_an_error_on_request(bundle: Path) -> None:
    with pytest.raises(KeyError, match="'zzz'"):
        recommend.run([str(bundle), "--history", "a zzz", "--unknown", "error"])


def test_what_is_wrong_in_a_file_of_histories_is_named_by_its_line(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "h.txt"
    file.write_text("a b\n\na zzz\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"h\.txt, line 2: no known item; leave it out"):
        recommend.run([str(bundle), "--histories", str(file)])
    with pytest.raises(ValueError, match=r"h\.txt, line 3: 'zzz' is not among the 5 known items$"):
        recommend.run([str(bundle), "--histories", str(file), "--unknown", "error", "--on-empty", "blank"])
    with pytest.raises(KeyError, match="exclude: 'typo' is not among"):
        recommend.run([str(bundle), "--histories", str(file), "--unknown", "error", "--exclude", "typo"])


@pytest.mark.parametrize("given", ["", "[]", " "])
def test_no_candidates_are_an_error_and_not_all_items(bundle: Path, given: str) -> None:
    with pytest.raises(ValueError, match="candidates: none of them is a known item"):
        recommend.run([str(bundle), "--history", "a", "--candidates", given])


def test_items_to_exclude_that_the_model_does_not_know_are_told(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recommend.run([str(bundle), "--history", "a", "-k", "1", "--exclude", "a,é 007"])
    told = capsys.readouterr().err
    assert "note: the model does not know 1 of the 2 items of --exclude: 'a,é' (ids are separated by spaces" in told
    recommend.run([str(bundle), "--history", "a", "-k", "1", "--exclude", "é 007"])
    assert capsys.readouterr().err == ""
