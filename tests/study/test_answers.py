"""What stands in a table: of experiments that changed, of rows without a run, of floors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conseq.run.config import RunConfig, from_record
from conseq.run.splitting import ByTime
from conseq.study.answers import Answer, answers, newest_last, of_row
from conseq.study.choosing import chosen
from conseq.study.logs import Logs
from conseq.study.page import results_page
from conseq.study.plan import plan
from conseq.study.records import Record
from conseq.study.specification import Row, Table, load_table
from conseq.study.tables import answers_text, as_json, cells, protocol, unprinted

Made = Callable[..., Record]

BY_USER = """
paper = "A paper"
title = "Table 2: by user"
dataset = "toy"
history = "keep"

[[row]]
name = "POPRec"
floor = "popularity"

[[row]]
name = "SASRec"
experiment = "next_item/toy.paper.toml"
preset = "paper"
split = { name = "by_user" }
"""


@pytest.fixture
def table_by_user(experiments: Path) -> Table:
    (experiments / "paper/table2").mkdir()
    (experiments / "paper/table2/toy.toml").write_text(BY_USER)
    return load_table(experiments / "paper/table2/toy.toml")


def earlier(row: Row, width: int = 4, *, seed: int = 3) -> RunConfig:
    """Gives the experiment that a row's file told before."""
    assert row.config is not None
    told = row.config.record()
    told["encoder"] |= {"width": width}
    told["training"] |= {"seed": seed}
    return from_record(told, source="a test")


def first(table: Table, records: list[Record]) -> list[Answer]:
    return answers(replace(table, rows=table.rows[:1]), records)


def test_a_result_of_an_experiment_that_changed_is_shown_as_stale_and_planned_to_run(
    table: Table, made: Made, data: Path, tmp_path: Path
) -> None:
    row = table.rows[0]
    old = made(row, config=earlier(row))
    found = first(table, [old])
    assert [(one.metric, one.ours, one.n) for one in found] == [("HR@10", 0.2, 1), ("NDCG@10", 0.10308, 1)]
    assert {one.stale for one in found} == {"the experiment changed"}
    assert "below; stale: the experiment changed" in answers_text(table, [old])
    page = results_page([table], [old])
    assert "| SASRec | paper | HR@10 | 0.5000 | 0.2000 |" in page
    assert "below; stale: the experiment changed |" in page
    jobs = plan([replace(table, rows=(row,))], Logs(data), [old], seeds=1, runs=tmp_path / "runs")
    assert [(job.state, job.record) for job in jobs] == [("to run", None)]


def test_of_earlier_experiments_the_newest_is_shown_with_all_its_seeds(table: Table, made: Made) -> None:
    row = table.rows[0]
    oldest = [made(row, config=earlier(row, 2, seed=seed)) for seed in (3, 4, 5)]
    newer = [made(row, config=earlier(row, 4, seed=seed), commit=str(seed)) for seed in (3, 4)]
    other_log = made(row, config=earlier(row, 4, seed=5), data_hash="beef")
    found = first(table, [*oldest, other_log, *newer])[0]
    assert (found.n, found.commits) == (2, ("3", "4"))
    now = made(row, commit="now")
    assert first(table, [now, *newer])[0].commits == ("now",)
    assert first(table, [now, *newer])[0].stale == ""


def test_a_printed_number_below_zero_is_reached_too(table: Table, made: Made) -> None:
    row = replace(table.rows[0], cells={"HR@10": -0.5})
    record = made(row)
    for side in record["both"].values():
        side["metrics"]["HR@10"] = -0.51
    (found,) = answers(replace(table, rows=(row,)), [record])
    assert found.verdict == "reached"
    assert cells(found)[2] == "-0.0100 (-2.0%)"


def test_a_mean_over_seeds_is_of_one_version_of_the_log(table: Table, made: Made) -> None:
    row = table.rows[0]
    seeds = list(row.seeded(3))
    old = [made(row, config=one, data_hash="beef") for one in seeds]
    new = [made(row, config=one, commit=str(place)) for place, one in enumerate(seeds[:2])]
    found = first(table, [*old, *new])[0]
    assert (found.n, found.commits) == (2, ("0", "1"))
    found = first(table, [*new, *old])[0]
    assert (found.n, found.commits) == (3, ("0123456789",))
    # Of seed 0 the newest record is of the one log, the newest of all is of the other.
    found = first(table, [*old, new[0], made(row, config=seeds[1], data_hash="beef", commit="last")])[0]
    assert (found.n, found.commits) == (3, ("0123456789", "last"))


def test_the_page_of_results_keeps_versions_of_a_log_apart(table: Table, made: Made) -> None:
    row = table.rows[0]
    seeds = list(row.seeded(2))
    page = results_page([table], [made(row, config=seeds[0], data_hash="beef"), made(row, config=seeds[1])])
    assert "**toy (data beef), test, leave_one_out, history kept among the candidates**" in page
    assert "**toy (data feed), test, leave_one_out, history kept among the candidates**" in page
    assert page.count("| next_item | paper | cross_entropy, whole | 1 | 0.1000 |") == 4


@pytest.mark.parametrize("key", ["study", "row", "preset", "dataset"])
def test_a_result_of_another_row_does_not_take_the_place_of_an_experiment_that_changed(
    table: Table, made: Made, key: str
) -> None:
    row = table.rows[0]
    found = first(table, [{**made(row, config=earlier(row)), key: "other"}])
    assert {(one.ours, one.verdict) for one in found} == {(None, "not run")}


def test_a_row_without_a_run_shows_what_is_printed_why_it_cannot_be_and_what_to_know_of_it(
    table: Table, made: Made
) -> None:
    sasrec, binary, bpr, *rest = table.rows
    binary = replace(binary, impossible="NDCG@5 > HR@5", note="in bold [sic]")
    bpr = replace(bpr, impossible="HR@5 > HR@10", cells={"HR@5": 0.2, "HR@10": 0.1, "HR@10 sd": 0.01})
    told = replace(table, rows=(sasrec, binary, bpr, *rest), note="Of another log.")
    text = " ".join(answers_text(told, [made(sasrec)]).replace("│", " ").split())
    assert "SASRec, binary paper HR@10 0.5000 not run; impossible in print: NDCG@5 > HR@5" in text
    assert "BPR HR@5 0.2000 not run: not among the methods; impossible in print: HR@5 > HR@10" in text
    assert "HR@10 0.1000 ± 0.0100 not run; impossible in print" in text
    assert text.endswith("note: Of another log. note on SASRec, binary (paper): in bold [sic]")
    page = results_page([told], [made(sasrec)])
    assert "| SASRec, binary | paper | 0.5000 |  | not run; impossible in print: NDCG@5 > HR@5 |" in page
    why = "not run: not among the methods; impossible in print: HR@5 > HR@10"
    assert f"| BPR |  | 0.1000 ± 0.0100 | 0.2000 | {why} |" in page
    assert "Of another log." in page
    assert "Of single rows: SASRec, binary (paper): in bold [sic]." in page
    shown = as_json([told], [])["tables"][0]
    assert shown["note"] == "Of another log."
    assert [one["note"] for one in shown["cells"] if one["impossible"] == "NDCG@5 > HR@5"] == ["in bold [sic]"]


def test_what_is_not_in_print_has_one_line_with_both_treatments_of_the_history(table: Table, made: Made) -> None:
    printed, bare = table.rows[0], replace(table.rows[1], cells={})
    same_name = replace(bare, name=printed.name)
    own = replace(table, rows=(printed, same_name))
    records = [made(printed), *(made(bare, config=config) for config in bare.seeded(2))]
    for number, one in enumerate(records[1:]):
        one["both"]["keep"]["metrics"]["HR@5"] = 0.2 + 0.02 * number
        one["both"]["exclude"]["metrics"]["HR@5"] = 0.3
    wide = unprinted(answers(own, records))
    assert wide.has(same_name)
    assert not wide.has(printed)
    assert wide.head[:5] == ("row", "preset", "n", "best epoch", "HR@5")
    (line,) = wide.lines
    best = f"{records[1]['best_epoch']} of {records[1]['epochs']}"
    assert line[:5] == (printed.name, "paper", "2", f"{best}, {best}", "0.2100 ± 0.0141 / 0.3000 ± 0.0000")
    page = results_page([own], records)
    assert "| " + " | ".join(line) + " |" in page
    assert "0.2100" in answers_text(own, records)
    assert page.count("no number in print |") == 0
    assert f"| {printed.name} | paper | HR@10 | 0." in page


def test_why_a_printed_number_cannot_be_stands_once_for_each_row(table: Table, made: Made) -> None:
    row = replace(table.rows[0], impossible="NDCG@5 > HR@5")
    own = replace(table, rows=(row,))
    for shown in (answers_text(own, [made(row)]), results_page([own], [made(row)]), answers_text(own, [])):
        assert shown.count("impossible in print: NDCG@5 > HR@5") == 1
        assert "impossible in print" in shown.partition("NDCG@5 > HR@5")[2]


def test_a_row_with_neither_run_nor_printed_numbers_is_named(table: Table, made: Made) -> None:
    closed = replace(table.rows[2], cells={})
    own = replace(table, rows=(table.rows[0], closed, *table.rows[-1:]))
    page = results_page([own], [made(table.rows[0])])
    assert "Cannot be run: BPR (not among the methods)." in page
    assert "Not run yet: SASRec, dropout = 0.2 (paper)." in page
    assert "printed" not in page.partition("### ")[2]
    assert "not run: not among the methods" in answers_text(own, [])


def floor_of(table: Table, records: list[Record]) -> dict[str, float | None]:
    return {one.metric: one.ours for one in answers(table, records) if one.row.floor is not None}


def test_a_floor_is_of_the_split_of_its_table(table: Table, table_by_user: Table, made: Made) -> None:
    one_out, by_user = made(table.rows[0]), made(table_by_user.rows[1])
    for records in ([one_out, by_user], [by_user, one_out]):
        assert floor_of(table, records) == {"HR@10": 0.2}
        assert floor_of(table_by_user, records) == {
            "Recall@20": 0.2, "NDCG@20": 0.1, "HR@20": 0.3, "Recall@50": 0.3, "NDCG@50": 0.09, "HR@50": 0.4,
        }  # fmt: skip
    # The part of a table that a user asks for may hold the floor alone.
    part = chosen([table_by_user], row="POPRec")[0]
    assert floor_of(part, [one_out, by_user])["Recall@20"] == 0.2
    assert "by_user" in protocol(part)
    assert set(floor_of(table_by_user, [one_out]).values()) == {None}
    assert "Recall@20" in floor_of(table_by_user, [])


def test_a_floor_is_of_the_log_that_the_other_rows_were_trained_on(table: Table, made: Made) -> None:
    def of_log(data_hash: str, value: float, row: Row, **more: Any) -> Record:
        record = copy.deepcopy(made(row, data_hash=data_hash, **more))
        record["both"]["keep"]["floors"]["popularity"]["HR@10"] = value
        return record

    own = of_log("feed", 0.11, table.rows[0])
    other = of_log("beef", 0.12, table.rows[0], config=earlier(table.rows[0]), study="another/table")
    assert floor_of(table, [other, own]) == floor_of(table, [own, other]) == {"HR@10": 0.11}
    assert floor_of(table, [other]) == {"HR@10": 0.12}


def test_the_log_at_hand_is_the_newest_whatever_file_its_record_is_in(table: Table, made: Made) -> None:
    row = table.rows[0]
    today, before = made(row, data_hash="today"), made(row, data_hash="before")
    records = newest_last([today, before], {"toy": {"hash": "today"}})
    assert [one["data_hash"] for one in records] == ["before", "today"]
    assert newest_last([today, before], {"toy": None}) == [today, before]
    [(_, shown)] = of_row(row, records)
    assert shown["data_hash"] == "today"


def test_one_seed_on_two_devices_is_one_seed_on_the_page(table: Table, made: Made) -> None:
    row = table.rows[0]
    assert row.config is not None
    other = replace(row.config, training=replace(row.config.training, device="cpu"))
    page = results_page([], [made(row), made(row, config=other)])
    assert "| next_item | paper | cross_entropy, whole | 1 |" in page


def test_other_settings_of_a_cut_are_another_cut(table: Table, made: Made) -> None:
    row = table.rows[0]
    assert row.config is not None
    one, two = (replace(row.config, split=ByTime(shares=shares)) for shares in ((0.7, 0.8), (0.8, 0.9)))
    page = results_page([], [made(row, config=one), made(row, config=two)])
    assert "**toy, test, by_time (shares 0.7 and 0.8), history kept among the candidates**" in page
    assert "**toy, test, by_time (shares 0.8 and 0.9), history kept among the candidates**" in page
