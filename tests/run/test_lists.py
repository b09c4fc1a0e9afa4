"""Lists that something else made are judged to the numbers of the model that made them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from conseq.cli.main import main
from conseq.data.log import InteractionLog
from conseq.data.readers import read
from conseq.data.splits import Split
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.encoder import Scorer
from conseq.encoders.sasrec import SASRecConfig
from conseq.evaluation.lists import read_lists
from conseq.evaluation.ranks import top_items
from conseq.nn.items import ItemTable
from conseq.run import runner
from conseq.run.config import from_record
from conseq.run.lists import judge_lists
from conseq.run.runner import History, judge
from conseq.run.splitting import ByTime, ByUser, LeaveOneOut, Splitting
from conseq.serving.bundle import save_bundle

N_ITEMS = 60


@pytest.fixture
def events(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    rows = [
        (f"u{user}", f"i{item}", 1000 * place + user)
        for user in range(50)
        for place, item in enumerate(rng.integers(N_ITEMS, size=rng.integers(4, 12)) // (1 if user % 3 else 10))
    ]
    path = tmp_path / "events.csv"
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(path)
    return path


@pytest.fixture
def log(events: Path) -> InteractionLog:
    return read(events)


def model(n_items: int) -> Scorer:
    torch.manual_seed(0)
    return SASRecConfig(width=8, layers=1, heads=1, max_length=8)(ItemTable(n_items, 8)).eval()


def lists_of(scorer: Scorer, split: Split, log: InteractionLog, k: int, history: History) -> pl.DataFrame:
    """The best items of every judged user, shuffled: the ranks tell the order."""
    held = split.test
    with torch.no_grad():
        scores = scorer.scores(held.users, held.histories)
    best = top_items(scores, k, excluded=held.histories if history == "exclude" else None)
    rows = [
        (log.user_ids.ids[user], log.item_ids.ids[item - 1], rank)
        for user, items in zip(held.users.tolist(), best.tolist(), strict=True)
        for rank, item in enumerate(items, 1)
    ]
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "rank"], orient="row")
    return table.sample(fraction=1.0, shuffle=True, seed=1)


@pytest.mark.parametrize("history", ["exclude", "keep"])
@pytest.mark.parametrize("cut", [LeaveOneOut(), ByTime(), ByUser()], ids=lambda cut: str(cut.name))
def test_the_lists_of_a_model_get_its_metrics(cut: Splitting, history: History, log: InteractionLog) -> None:
    split, scorer = cut.cut(log), model(log.n_items)
    own = judge(scorer, split, history=history)
    found = judge_lists(read_lists(lists_of(scorer, split, log, 20, history)), log, history=history, cut=cut, name="it")
    assert (found.model, found.protocol, found.held_out) == ("it", own.protocol, own.held_out)
    asked = [name for name in own.metrics if name != "MRR" and int(name.partition("@")[2]) <= 20]
    assert len(asked) >= 9
    assert set(found.metrics) == set(asked)
    for name in asked:
        assert found.metrics[name] == pytest.approx(own.metrics[name], abs=1e-12), name
        assert all(found.floors[floor].get(name) == own.floors[floor].get(name) for floor in own.floors)
    for which, parts in own.slices.items():
        for part, values in parts.items():
            assert found.slices[which][part]["cases"] == values["cases"]
            assert found.slices[which][part]["NDCG@20"] == pytest.approx(values["NDCG@20"], abs=1e-12)
            assert "MRR" not in found.slices[which][part]
    assert found.counts["unreachable"] == own.counts["unreachable"]
    assert found.counts["list_length"] == 20


def test_with_the_history_excluded_what_follows_a_seen_item_moves_up(
    log: InteractionLog, capsys: pytest.CaptureFixture[str]
) -> None:
    split, scorer = LeaveOneOut().cut(log), model(log.n_items)
    whole = read_lists(lists_of(scorer, split, log, N_ITEMS, "keep"))
    own, found = judge(scorer, split, history="exclude"), judge_lists(whole, log, history="exclude")
    assert found.metrics["NDCG@20"] == pytest.approx(own.metrics["NDCG@20"], abs=1e-12)
    assert found.metrics["HR@50"] > found.metrics["HR@20"] > 0
    said = capsys.readouterr().err
    seen = sum(len(set(one)) for one in split.test.histories.to_lists())
    assert f"{seen:,} listed items are in their user's history: they are taken out" in said


def test_who_has_no_list_and_what_no_list_holds_is_missed_and_told(
    log: InteractionLog, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = LeaveOneOut().cut(log).test.targets.ids.tolist()
    table = pl.DataFrame({"user_id": log.user_ids.ids, "item_id": [log.item_ids.ids[one - 1] for one in targets]})
    perfect = judge_lists(read_lists(table), log, history="keep")
    assert perfect.metrics["HR@1"] == perfect.metrics["NDCG@1"] == 1.0
    half = judge_lists(read_lists(table.head(25)), log, history="keep")
    assert half.metrics["HR@1"] == 0.5
    assert (half.counts["users"], half.counts["users_without_list"]) == (50, 25)
    assert "25 of the 50 users who are judged have no list; their targets count as misses" in capsys.readouterr().err

    more = pl.DataFrame({"user_id": ["u0"] * 9, "item_id": [one for one in log.item_ids.ids if one != table[0, 1]][:9]})
    short = judge_lists(read_lists(pl.concat([table, more])), log, history="keep")
    assert set(short.floors["popularity"]) == {"HR@5", "HR@10", "NDCG@5", "NDCG@10"}
    assert short.counts["short_lists"] == 49
    assert "49 users have fewer than 10 items" in capsys.readouterr().err


def test_lists_without_anything_seen_are_told_of_the_other_protocol(
    log: InteractionLog, capsys: pytest.CaptureFixture[str]
) -> None:
    split, scorer = LeaveOneOut().cut(log), model(log.n_items)
    lists = read_lists(lists_of(scorer, split, log, 10, "exclude"))
    judge_lists(lists, log, history="exclude")
    assert "note" not in capsys.readouterr().err
    judge_lists(lists, log, history="keep")
    assert "no list holds an item of its user's history" in capsys.readouterr().err


def test_lists_that_say_nothing_about_who_is_judged_are_refused(log: InteractionLog) -> None:
    held = set(ByUser().cut(log).test.users.tolist())
    other = next(user for row, user in enumerate(log.user_ids.ids) if row not in held)
    with pytest.raises(ValueError, match=r"none of the 1 lists is of one of the 5 users who are judged"):
        judge_lists(read_lists(pl.DataFrame({"user": [other], "item": ["i1"]})), log, history="keep", cut=ByUser())
    seen = [log.item_ids.ids[one[0] - 1] for one in LeaveOneOut().cut(log).test.histories.to_lists()]
    with pytest.raises(ValueError, match="every listed item is in its user's history"):
        judge_lists(read_lists(pl.DataFrame({"user": log.user_ids.ids, "item": seen})), log, history="exclude")
    with pytest.raises(ValueError, match="history"):
        judge_lists(read_lists(pl.DataFrame({"user": ["u0"], "item": ["i1"]})), log, history="hide")  # type: ignore[arg-type]


def test_the_command_judges_and_its_evaluation_is_compared_with_runs(
    events: Path, log: InteractionLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = {
        "encoder": {"name": "sasrec", "width": 8, "layers": 1, "heads": 1, "max_length": 8},
        "training": {"epochs": 2, "batch_size": 16},
    }
    outcome = runner.run(from_record(tables, source="test"), log, folder=tmp_path / "run")
    lists_of(outcome.encoder.eval(), outcome.split, log, 20, "keep").write_parquet(tmp_path / "theirs.parquet")
    asked = [str(tmp_path / "theirs.parquet"), str(events), "--history", "keep"]
    assert main(["evaluate-lists", *asked, "--out", str(tmp_path / "judged"), "--like", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert "theirs: test, leave_one_out, history kept, pessimistic ties" in shown
    assert main(["evaluate-lists", *asked, "--name", "mine", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["model"] == "mine"
    assert record["metrics"]["HR@20"] == outcome.evaluations["keep"].metrics["HR@20"]

    pair = [str(tmp_path / "run"), str(tmp_path / "judged"), "--history", "keep"]
    assert main(["compare", *pair, "--json", "--resamples", "100"]) == 0
    found = json.loads(capsys.readouterr().out)["comparisons"]
    assert {(one["first"], one["second"]) for one in found} == {("next_item", "theirs")}
    assert all(one["difference"]["value"] == 0 for one in found)
    for metric in ("NDCG@21", "MRR"):
        assert main(["compare", *pair, "--metrics", metric]) == 2
        assert f"{metric} needs more than the 20 items of the lists 'theirs'" in capsys.readouterr().err
    assert main(["compare", str(tmp_path / "run"), str(tmp_path), "--history", "keep"]) == 2
    assert "is not the folder of a run" in capsys.readouterr().err

    # Other lists of the same name are told apart by their folders; none is written over anything else.
    lists_of(outcome.encoder.eval(), outcome.split, log, 10, "keep").write_parquet(tmp_path / "theirs.parquet")
    assert main(["evaluate-lists", *asked, "--out", str(tmp_path / "again")]) == 0
    capsys.readouterr()
    assert main(["compare", *pair[:2], str(tmp_path / "again"), *pair[2:], "--json", "--metrics", "HR@10"]) == 0
    found = json.loads(capsys.readouterr().out)["comparisons"]
    assert [one["second"] for one in found] == [f"theirs ({tmp_path / one})" for one in ("judged", "again")]
    for out, told in (("run", "run holds a run"), ("judged", "holds the evaluation of 'theirs', not of 'mine'")):
        before = sorted((one, one.read_bytes()) for one in (tmp_path / out).glob("evaluation-*"))
        assert main(["evaluate-lists", *asked, "--name", "mine", "--out", str(tmp_path / out)]) == 2
        assert told in capsys.readouterr().err
        assert before == sorted((one, one.read_bytes()) for one in (tmp_path / out).glob("evaluation-*"))
    assert main(["compare", *pair[:2], "--history", "exclude"]) == 2
    told = "judged holds no evaluation of the test part with history exclude, only test-leave_one_out-keep-pessimistic"
    assert told in capsys.readouterr().err


def test_a_cut_off_that_some_lists_do_not_reach_is_told(
    events: Path, log: InteractionLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scorer, split = model(log.n_items), LeaveOneOut().cut(log)
    table = lists_of(scorer, split, log, 20, "keep")
    table.filter((pl.col("rank") <= 10) | (pl.col("user_id") == "u3")).write_csv(tmp_path / "most.csv")
    table.write_csv(tmp_path / "all.csv")
    for name in ("all", "most"):
        asked = [str(tmp_path / f"{name}.csv"), str(events), "--history", "keep", "--out", str(tmp_path / name)]
        assert main(["evaluate-lists", *asked]) == 0
    capsys.readouterr()
    pair = ["compare", str(tmp_path / "all"), str(tmp_path / "most"), "--history", "keep"]
    assert main([*pair, "--metrics", "HR@10", "HR@20"]) == 0
    assert capsys.readouterr().err == "note: HR@20: some lists of most are shorter; what they lack is no hit\n"


def test_what_is_left_out_of_lists_is_counted(log: InteractionLog, capsys: pytest.CaptureFixture[str]) -> None:
    table = lists_of(model(log.n_items), LeaveOneOut().cut(log), log, 10, "keep")
    other = pl.DataFrame({"user_id": ["new", "u1"], "item_id": ["i1", "never"], "rank": [1, 0]})
    judge_lists(read_lists(pl.concat([table, other])), log, history="keep", unknown="drop")
    said = capsys.readouterr().err
    assert "1 of the 51 lists are of users whom the log does not have" in said
    assert "1 listed items are not in the log: they are taken out, and what follows moves up" in said
    with pytest.raises(
        ValueError, match=r"the log has none of the 1 listed items, such as 'never'; its own are called"
    ):
        judge_lists(read_lists(other.tail(1)), log, history="keep", unknown="drop")


@pytest.mark.parametrize("split", ["leave_one_out", "by_time", "by_user"])
@pytest.mark.parametrize("history", ["keep", "exclude"])
def test_what_is_recommended_before_the_test_part_is_judged_as_the_run_was(
    split: str, history: str, events: Path, log: InteractionLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = {
        "encoder": {"name": "sasrec", "width": 8, "layers": 1, "heads": 1, "max_length": 8},
        "split": {"name": split},
        "training": {"epochs": 1, "batch_size": 16},
    }
    outcome = runner.run(from_record(tables, source="test"), log, folder=tmp_path / "run")
    run, lists = str(tmp_path / "run"), str(tmp_path / "lists.jsonl")
    seen = ["--include-seen"] if history == "keep" else []
    asked = ["recommend", run, "--log", str(events), "--before", "test", *seen, "-k", "20"]
    assert main([*asked, "--out", lists]) == 0
    assert main(["evaluate-lists", lists, str(events), "--history", history, "--like", run, "--json"]) == 0
    captured = capsys.readouterr()
    found, own = json.loads(captured.out), outcome.evaluations["keep" if history == "keep" else "exclude"]
    assert "users_without_list" not in found["counts"]
    assert {name for name in found["metrics"] if name.startswith("NDCG@")} == {"NDCG@5", "NDCG@10", "NDCG@20"}
    for name, value in found["metrics"].items():
        if not name.startswith("MeanPopularity"):
            assert value == pytest.approx(own.metrics[name], abs=1e-12), name
    # Without it the whole history is read, the test item included.
    judged = [log.user_ids.ids[user] for user in outcome.split.test.users.tolist()]
    assert set(pl.read_ndjson(lists)["user_id"]) == set(judged)
    assert main([*asked[:4], "-k", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + log.n_users


def test_a_model_with_vectors_of_users_gives_no_lists_to_judge(
    events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "bpr", str(events), "--run", str(tmp_path / "bpr"), "--epochs", "1", "--quiet"]) == 0
    assert main(["recommend", str(tmp_path / "bpr"), "--before", "test", "--log", str(events)]) == 2
    assert "--before is not of a model with a vector for each user" in capsys.readouterr().err


def test_lists_from_another_log_than_the_models_are_told_of(
    events: Path, log: InteractionLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = {"encoder": {"name": "sasrec", "width": 8, "layers": 1, "heads": 1}, "training": {"epochs": 1}}
    runner.run(from_record(tables, source="test"), log, folder=tmp_path / "run")
    table = pl.read_csv(events)
    table.filter(pl.col("timestamp") < pl.col("timestamp").max().over("user_id")).write_csv(tmp_path / "less.csv")
    asked = ["recommend", str(tmp_path / "run"), "--before", "test", "-k", "1", "--log"]
    assert main([*asked, str(events)]) == 0
    assert "another log" not in capsys.readouterr().err
    # Items that only the last interactions had are unknown to nobody: the log is smaller, not other.
    assert main([*asked, str(tmp_path / "less.csv")]) == 0
    assert "note: the model was trained on another log" in capsys.readouterr().err

    # Two moments that the settings name hold out the same of every log.
    moments = {"name": "by_time", "validation_from": 3000, "test_from": 4000}
    runner.run(from_record({**tables, "split": moments}, source="test"), log, folder=tmp_path / "dated")
    assert main(["recommend", str(tmp_path / "dated"), *asked[2:], str(tmp_path / "less.csv")]) == 0
    assert "another log" not in capsys.readouterr().err


def test_before_is_of_a_log_and_of_a_model_that_knows_its_cut(
    events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    settings = SASRecConfig(width=8, layers=1, heads=1, max_length=8)
    save_bundle(settings(ItemTable(2, 8)), settings, Vocabulary(["i1", "i2"], start=1), tmp_path / "bundle", {})
    asked = ["recommend", str(tmp_path / "bundle"), "--before", "test"]
    assert main([*asked, "--history", "i1"]) == 2
    assert "--before is of a log; give it with --log" in capsys.readouterr().err
    assert main([*asked, "--log", str(events)]) == 2
    assert "its record does not say how the log was cut" in capsys.readouterr().err


def test_one_way_to_cut_the_log_is_named(events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lists.csv").write_text("user,item\nu1,i1\n")
    asked = ["evaluate-lists", str(tmp_path / "lists.csv"), str(events), "--history", "keep"]
    assert main([*asked, "--slicing", "by_time", "--like", str(tmp_path)]) == 2
    assert "--like and --slicing both say how the log is cut" in capsys.readouterr().err
    assert main([*asked, "--like", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
