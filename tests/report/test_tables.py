from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conseq.report.addresses import slugs
from conseq.report.pages import Answered, answered, study_pages
from conseq.report.results import Result, results
from conseq.report.tables import Group, NumberTable, against_paper, all_runs, beside, unanswered, without_paper
from conseq.run.config import RunConfig
from conseq.run.splitting import ByTime
from conseq.study.specification import Table, load_table

Make = Callable[..., dict[str, Any]]
Experiment = Callable[..., RunConfig]
Set = Callable[[str, float], None]


@pytest.fixture
def put(records: list[dict[str, Any]]) -> Set:
    """Gives all seeds of a row an HR@20 of ``value`` ± 0.001, and of the first seed more."""

    def of(row: str, value: float) -> None:
        for record, change in zip((one for one in records if one["row"] == row), (0.001, -0.001), strict=True):
            record["both"]["exclude"]["metrics"]["HR@20"] = value + change

    return of


def compared(experiments: Path, records: list[dict[str, Any]], name: str = "paper/table1") -> Answered:
    (found,) = answered([load_table(experiments / name / "toy.toml")], records)
    return found


def against(experiments: Path, records: list[dict[str, Any]]) -> NumberTable:
    found = compared(experiments, records)
    table = against_paper(found.table, found.answers, found.own, found.floors)
    assert table is not None
    return table


def line(table: NumberTable, heading: str, metric: str) -> list[str]:
    (group,) = (one for one in table.groups if one.heading == heading)
    (row,) = (one for one in group.rows if one[0].text == metric)
    return [cell.text for cell in row]


def group_of(table: NumberTable, heading: str) -> Group:
    return next(one for one in table.groups if one.heading == heading)


@pytest.mark.parametrize(
    ("ours", "verdict", "difference"),
    [
        (0.1029, "≈ reached", "+0.0029 (+2.9 %)"),
        (0.0971, "≈ reached", "−0.0029 (−2.9 %)"),  # noqa: RUF001
        (0.1031, "▲ above", "+0.0031 (+3.1 %)"),
        (0.0960, "▼ below", "−0.0040 (−4.0 %)"),  # noqa: RUF001
    ],
)
def test_a_cell_says_paper_ours_verdict_difference_and_runs(
    experiments: Path, records: list[dict[str, Any]], put: Set, ours: float, verdict: str, difference: str
) -> None:
    put("SASRec", ours)
    found = line(against(experiments, records), "SASRec", "HR@20")
    # The spread of x + 0.001 and x - 0.001 is 0.001 √2.
    assert found == ["HR@20", "0.1000", f"{ours:.4f} ± 0.0014", verdict, difference, "2"]


def test_a_cell_that_cannot_be_is_no_goal(experiments: Path, records: list[dict[str, Any]], put: Set) -> None:
    put("without windows", 0.2)
    table = against(experiments, records)
    assert line(table, "without windows", "HR@20")[3] == "✗ impossible in print"
    assert (
        "the printed numbers cannot be right: NDCG@20 < HR@20 / log2(21)" in group_of(table, "without windows").details
    )


def test_a_floor_answers_the_row_of_a_floor(experiments: Path, records: list[dict[str, Any]]) -> None:
    found = line(against(experiments, records), "PopRec", "HR@20")
    expected = records[0]["both"]["exclude"]["floors"]["popularity"]["HR@20"]
    assert found[2] == f"{expected:.4f}"


def test_rows_without_a_run_stand_apart_with_the_reason(experiments: Path, records: list[dict[str, Any]]) -> None:
    found = compared(experiments, records)
    headings = {group.heading for group in against(experiments, records).groups}
    assert not headings & {"BPR", "not run"}
    table = unanswered(found.table, found.answers)
    assert table is not None
    assert [group.heading for group in table.groups] == ["not run", "BPR"]
    assert [cell.text for cell in group_of(table, "BPR").rows[0]] == ["□ closed", "0.0200", "0.0100"]
    assert group_of(table, "BPR").details == ("closed: matrix factorization is not among the methods",)
    assert [cell.text for cell in group_of(table, "not run").rows[0]] == ["○ not run", "0.3000", "0.2000"]


def test_without_any_record_only_printed_numbers_are_left(experiments: Path) -> None:
    found = compared(experiments, [])
    assert against_paper(found.table, found.answers, found.own, []) is None
    table = unanswered(found.table, found.answers)
    assert table is not None
    assert dict(table.protocol.parts)["source"] == "A paper (2022)"


def test_a_row_of_other_code_is_shown_as_stale(experiments: Path, records: list[dict[str, Any]]) -> None:
    for record in records:
        if record["row"] == "SASRec":
            record["code_hash"] = "000000000000"
    table = against(experiments, records)
    assert group_of(table, "SASRec").stale == "the code changed"
    assert group_of(table, "without windows").stale == ""


def test_a_row_whose_experiment_changed_shows_what_was_run_before(
    experiments: Path, records: list[dict[str, Any]]
) -> None:
    for record in records:
        if record["row"] == "SASRec":
            training = {**record["config"]["training"], "batch_size": 999}
            record["config"] = {**record["config"], "training": training}
            record["config_hash"] = f"{record['seed']:012d}"
    table = against(experiments, records)
    assert group_of(table, "SASRec").stale == "the experiment changed"
    assert line(table, "SASRec", "HR@20")[5] == "2"
    assert group_of(table, "without windows").stale == ""


def test_a_row_says_what_sets_it_apart_and_the_protocol_what_all_share(
    experiments: Path, records: list[dict[str, Any]]
) -> None:
    table = against(experiments, records)
    assert dict(table.protocol.parts)["preset"] == "paper"
    assert group_of(table, "SASRec").details == ("seeds 0, 1; epochs 20; 42 s of training each",)


@pytest.mark.parametrize("history", ["keep", "exclude"])
def test_a_table_without_printed_numbers_has_a_line_for_each_model(
    experiments: Path, records: list[dict[str, Any]], history: str
) -> None:
    found = compared(experiments, records, "ours/stand")
    table = without_paper(found.table, found.own, history)
    assert table is not None
    first = group_of(table, "SASRec")
    value = [one["both"][history]["metrics"]["HR@5"] for one in records if one["row"] == "SASRec"]
    assert table.columns[:2] == ("model", "HR@5")
    assert first.rows[0][0].text == "n = 2"
    assert first.rows[0][1].text.startswith(f"{sum(value) / 2:.4f} ± ")
    assert dict(table.protocol.parts)["history"] == {"keep": "kept", "exclude": "excluded"}[history]
    assert table.title.endswith({"keep": ", history kept", "exclude": ", history excluded"}[history])


def test_floors_and_sasrec_stand_beside(records: list[dict[str, Any]]) -> None:
    table = beside(results(records), "exclude", "toy")
    assert table is not None
    headings = [group.heading for group in table.groups]
    assert headings[:2] == ["popularity (floor)", "own history (floor)"]
    assert len(headings) == 2 + len(results(records))


@pytest.fixture
def apart(tmp_path: Path, experiments: Path) -> Table:
    """The paper's table, but under a split by user."""
    root = tmp_path / "experiments"
    shutil.copytree(experiments, root)
    base = (root / "next_item" / "toy.toml").read_text(encoding="utf-8")
    (root / "next_item" / "toy.toml").write_text(f'{base}\n[split]\nname = "by_user"\n', encoding="utf-8")
    return load_table(root / "paper" / "table1" / "toy.toml")


def with_floor(record: dict[str, Any], value: float) -> dict[str, Any]:
    """Gives a record whose floors have an HR@20 of ``value``."""
    for side in record["both"].values():
        for floor in side["floors"].values():
            floor["HR@20"] = value
    return record


def floors_of(table: NumberTable) -> dict[str, str]:
    place = table.columns.index("HR@20")
    return {group.heading: group.rows[0][place].text for group in table.groups if "(floor)" in group.heading}


def only(table: Table, name: str) -> RunConfig:
    (config,) = next(row for row in table.rows if row.name == name).seeded(1)
    return config


def test_beside_a_table_stands_what_was_judged_under_its_split_and_on_its_log(
    apart: Table, make_record: Make, experiment: Experiment
) -> None:
    config = only(apart, "SASRec")
    other = replace(config, training=replace(config.training, batch_size=9))
    records = [
        with_floor(make_record(experiment(0)), 0.1),
        with_floor(make_record(other, data_hash="bead" * 16), 0.2),
        with_floor(make_record(config), 0.5),
    ]
    (page,) = study_pages(answered([apart], records), results(records), slugs())
    (table,) = (one for one in page.sections[0].tables if one.title.startswith("Floors and SASRec"))
    assert dict(table.protocol.parts)["split"] == "by_user, test part"
    assert dict(table.protocol.parts)["data hash"] == "feedfeedfeed"
    assert floors_of(table) == {"popularity (floor)": "0.5000", "own history (floor)": "0.5000"}


def test_floors_stand_beside_where_sasrec_was_not_run_under_the_split(
    apart: Table, make_record: Make, experiment: Experiment
) -> None:
    row = next(one for one in apart.rows if one.name == "SASRec")
    assert row.config is not None
    other = replace(row, config=replace(experiment(method={"name": "cl4srec"}), split=row.config.split))
    apart = replace(apart, rows=(other, *apart.rows[1:]))
    records = [with_floor(make_record(experiment(0)), 0.1), with_floor(make_record(only(apart, "SASRec")), 0.3)]
    (page,) = study_pages(answered([apart], records), results(records), slugs())
    (table,) = (one for one in page.sections[0].tables if one.title == "Floors on toy; SASRec was not run")
    assert dict(table.protocol.parts)["split"] == "by_user, test part"
    assert set(floors_of(table).values()) == {"0.3000"}


def test_floors_beside_are_those_of_the_runs_that_the_protocol_tells_of(
    make_record: Make, experiment: Experiment
) -> None:
    other = with_floor(make_record(experiment(0, method={"name": "cl4srec"}), data_hash="bead" * 16), 0.1)
    table = beside(results([other, with_floor(make_record(experiment(0)), 0.2)]), "exclude", "toy")
    assert table is not None
    assert dict(table.protocol.parts)["data hash"] == "feedfeedfeed"
    assert set(floors_of(table).values()) == {"0.2000"}


def test_a_floor_that_answers_a_row_is_of_the_log_of_the_other_rows(
    experiments: Path, records: list[dict[str, Any]], make_record: Make, experiment: Experiment
) -> None:
    later = with_floor(make_record(experiment(0, batch_size=9), data_hash="bead" * 16), 0.9)
    found = line(against(experiments, [*records, later]), "PopRec", "HR@20")
    assert found[2] == f"{records[0]['both']['exclude']['floors']['popularity']['HR@20']:.4f}"


def test_a_table_of_floors_alone_has_the_protocol_of_the_run_that_they_are_of(
    experiments: Path, make_record: Make, experiment: Experiment
) -> None:
    apart = experiment(0, method={"name": "cl4srec"})
    older, newer = (
        with_floor(make_record(apart, data_hash=word * 16), value) for word, value in (("bead", 0.1), ("feed", 0.2))
    )
    table = against(experiments, [older, newer])
    assert line(table, "PopRec", "HR@20")[2] == "0.2000"
    assert dict(table.protocol.parts)["data hash"] == "feedfeedfeed"


def test_floors_of_several_logs_or_splits_are_told_apart(
    apart: Table, make_record: Make, experiment: Experiment
) -> None:
    records = [
        with_floor(make_record(experiment(0)), 0.1),
        with_floor(make_record(experiment(1), data_hash="bead" * 16), 0.2),
        with_floor(make_record(only(apart, "SASRec")), 0.3),
    ]
    table = all_runs(results(records), "exclude", "toy")
    told = {heading: value for heading, value in floors_of(table).items() if heading.startswith("popularity")}
    assert told == {
        "popularity (floor), leave_one_out, data feedfeed": "0.1000",
        "popularity (floor), leave_one_out, data beadbead": "0.2000",
        "popularity (floor), by_user, data feedfeed": "0.3000",
    }


def test_all_runs_stand_with_the_best_first(make_record: Make, experiment: Experiment) -> None:
    worse, better = make_record(experiment(0)), make_record(experiment(0, batch_size=64))
    for record, value in ((worse, 0.1), (better, 0.2)):
        record["both"]["keep"]["metrics"]["NDCG@20"] = value
    found: list[Result] = results([worse, better])
    table = all_runs(found, "keep", "toy")
    assert [group.rows[0][-1].text for group in table.groups[2:]] == ["0.2000", "0.1000"]


def test_floors_of_cuts_with_other_settings_are_told_apart(make_record: Make, experiment: Experiment) -> None:
    cuts = [ByTime(shares=shares) for shares in ((0.7, 0.8), (0.8, 0.9))]
    found = results([make_record(replace(experiment(0), split=cut)) for cut in cuts])
    headings = floors_of(all_runs(found, "exclude", "toy"))
    assert "popularity (floor), by_time (shares 0.7 and 0.8)" in headings
    assert "popularity (floor), by_time (shares 0.8 and 0.9)" in headings
