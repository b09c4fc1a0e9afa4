from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from conseq.report.charts import Bars, Labels, Series, bar_chart, line_chart
from conseq.report.comparisons import ablation
from conseq.report.curves import learning_curves
from conseq.report.groups import representatives, slice_table, slices, user_groups
from conseq.report.measures import measures
from conseq.report.pages import answered
from conseq.report.results import Result, by_settings, result_of, results
from conseq.report.spectrum import spectra
from conseq.report.style import COLOURS, LINES, MARKERS, look, plain, wrapped
from conseq.report.sweeps import robustness, sensitivity
from conseq.report.tables import row_key
from conseq.run.config import RunConfig
from conseq.study.specification import load_table

Make = Callable[..., dict[str, Any]]
Experiment = Callable[..., RunConfig]
LABELS = Labels("x, s", "y")


@pytest.fixture
def found(records: list[dict[str, Any]]) -> list[Result]:
    return by_settings(results(records))[0]


def texts(svg: str) -> list[str]:
    return ["".join(one.itertext()) for one in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_same_chart_gives_the_same_bytes() -> None:
    series = [Series("a", (1.0, 2.0), (0.1, 0.2), (0.01, None)), Series("b", (1.0, 2.0), (0.2, 0.1), look=1)]
    assert line_chart(series, LABELS) == line_chart(series, LABELS)
    bars = [Bars("ours", (0.1, None), (0.01, None))]
    labels = Labels("x", "", ("a", "b"))
    assert bar_chart(bars, labels, printed=[0.2, None]) == bar_chart(bars, labels, printed=[0.2, None])


def test_letters_of_a_chart_are_text_and_nothing_in_them_is_markup() -> None:
    name = "<script>alert('x')</script> & $5 $\\alpha$ \x07\n日本"
    svg = line_chart([Series(name, (1.0, 2.0), (0.1, 0.2))], LABELS)
    assert "<script" not in svg
    assert {"x, s", "y"} <= set(texts(svg))
    shown = " ".join(texts(svg))
    assert "<script>alert('x')</script> & $5 $\\alpha$" in shown
    assert "日本" in shown


def test_a_chart_names_no_address_but_those_of_its_language() -> None:
    svg = line_chart([Series("a", (1.0, 100.0), (0.1, 0.2))], LABELS, lines=[("popularity", 0.05)])
    addresses = set(re.findall(r"https?://[^\"'\s<>]+", svg))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert svg.startswith("<svg")


def test_series_are_told_apart_by_more_than_colour() -> None:
    assert len({look(number).marker for number in range(7)}) == len(MARKERS) == 7
    assert len({str(look(number).line) for number in range(7)}) == len(LINES) == 7
    assert len({look(number).hatch for number in range(7)}) == len({look(n).colour for n in range(7)}) == len(COLOURS)


def test_text_is_cut_and_put_on_one_line() -> None:
    assert plain("a\n b\tc\x00d") == "a b c d"
    assert plain("abcdef", 4) == "abc…"
    assert wrapped("one two three four", 8) == "one two\nthree …"
    assert wrapped("a invasive=Substitution (Mask)", 21) == "a\ninvasive=Substitutio…"


def test_a_learning_curve_adds_up_the_seconds_of_epochs(make_record: Make, experiment: Experiment) -> None:
    points = [
        {"epoch": 1, "seconds": 2.0, "metrics": {"NDCG@20": 0.1}},
        {"epoch": 2, "seconds": 3.0, "metrics": {}},
        {"epoch": 3, "seconds": 4.0, "metrics": {"NDCG@20": 0.3}},
    ]
    by_epoch, by_seconds = learning_curves(results([make_record(experiment(7), row="A", curve=points)]), "c")
    assert by_epoch.rows == by_seconds.rows == (("A", 7, 1, 2.0, 0.1), ("A", 7, 3, 9.0, 0.3))
    assert "0.3000 at epoch 3 after 9 s" in by_seconds.alt
    assert dict(by_epoch.protocol.parts)["split"] == "leave_one_out, validation part"
    assert "training time in seconds" in texts(by_seconds.svg)


def test_curves_of_another_validation_metric_stand_in_another_figure(make_record: Make, experiment: Experiment) -> None:
    other = [{"epoch": 1, "seconds": 2.0, "metrics": {"HR@10": 0.1}}]
    kept = experiment(0, history="keep")
    records = [make_record(experiment(0)), make_record(experiment(0, batch_size=9), curve=other), make_record(kept)]
    assert len(learning_curves(results(records), "c")) == 2 * 3


def test_many_models_are_shared_out_over_figures(make_record: Make, experiment: Experiment) -> None:
    records = [make_record(experiment(0, batch_size=number)) for number in range(1, 9)]
    pictures = learning_curves(results(records), "c")
    assert len(pictures) == 4  # 4 and 4 models, by epoch and by seconds
    assert len({one.name for one in pictures}) == 4
    assert sum(len({row[0] for row in one.rows}) for one in pictures if one.name.endswith("epoch")) == 8


def test_ablation_bars_hold_the_papers_numbers_and_ours(experiments: Path, records: list[dict[str, Any]]) -> None:
    (one,) = answered([load_table(experiments / "paper" / "table1" / "toy.toml")], records)
    (picture,) = ablation(one.table, one.answers, list(one.own.values()), "a")
    rows = {row[0]: row for row in picture.rows}
    assert set(rows) == {"SASRec", "without windows"}
    ours = [record["both"]["exclude"]["metrics"]["NDCG@20"] for record in records if record["row"] == "SASRec"]
    assert rows["SASRec"][2:4] == ("excluded", 0.05)
    assert rows["SASRec"][4] == pytest.approx(sum(ours) / 2)
    assert "printed in the paper" in texts(picture.svg)


def test_bars_and_curves_show_what_the_papers_figure_shows(
    experiments: Path, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    file = shutil.copytree(experiments, tmp_path / "experiments") / "paper" / "table1" / "toy.toml"
    text = file.read_text(encoding="utf-8").replace('dataset = "toy"', 'dataset = "toy"\nmetric = "HR@5"')
    # Whatever is printed would decide what is shown; where nothing is, all of the usual metrics are.
    file.write_text("\n".join(one for one in text.splitlines() if not one.startswith("cells")), encoding="utf-8")
    (one,) = answered([load_table(file)], records)
    assert one.table.metric == "HR@5"
    own = list(one.own.values())
    for (picture,) in (ablation(one.table, one.answers, own, "a"), sensitivity(one.table, one.answers, own, "s")):
        assert "HR@5, test" in texts(picture.svg)
    ours = [record["both"]["exclude"]["metrics"]["HR@5"] for record in records if record["row"] == "SASRec"]
    (picture,) = ablation(one.table, one.answers, own, "a")
    rows = {(row[0], row[2]): row for row in picture.rows}
    assert rows["SASRec", "excluded"][4] == pytest.approx(sum(ours) / 2)
    # Nothing is printed, so that no protocol is the table's own: both have bars.
    kept = [record["both"]["keep"]["metrics"]["HR@5"] for record in records if record["row"] == "SASRec"]
    assert rows["SASRec", "kept"][4] == pytest.approx(sum(kept) / 2)
    assert {"history excluded", "history kept"} <= {text.strip() for text in texts(picture.svg)}
    assert dict(picture.protocol.parts)["history"] == "as the marks say"


def test_nothing_stands_at_an_axis_that_has_no_label(experiments: Path, records: list[dict[str, Any]]) -> None:
    (one,) = answered([load_table(experiments / "paper" / "table1" / "toy.toml")], records)
    (picture,) = ablation(one.table, one.answers, list(one.own.values()), "a")
    assert "?" not in texts(picture.svg)
    assert "NDCG@20, test" in texts(picture.svg)
    named = bar_chart([Bars("ours", (0.1,), (None,))], Labels("x", "length", ("a",)))
    assert "length" in texts(named)


def test_one_row_alone_makes_no_ablation(experiments: Path, records: list[dict[str, Any]]) -> None:
    some = [one for one in records if one["row"] == "SASRec"]
    (one,) = answered([load_table(experiments / "paper" / "table1" / "toy.toml")], some)
    assert ablation(one.table, one.answers, list(one.own.values()), "a") == []


def test_a_sweep_is_a_curve_over_its_values(experiments: Path, records: list[dict[str, Any]]) -> None:
    (one,) = answered([load_table(experiments / "paper" / "table1" / "toy.toml")], records)
    (picture,) = sensitivity(one.table, one.answers, list(one.own.values()), "s")
    assert [row[1:3] for row in picture.rows] == [("0.0005", 0.04), ("0.002", 0.05), ("0.03", 0.03)]
    assert "SASRec, paper" in texts(picture.svg)
    assert {"0.0005", "0.002", "0.03"} <= set(texts(picture.svg))
    assert "learning rate (training.learning_rate)" in texts(picture.svg)


def test_rows_that_are_points_make_a_curve_and_no_bars(experiments: Path, tmp_path: Path, make_record: Make) -> None:
    file = shutil.copytree(experiments, tmp_path / "experiments") / "paper" / "table1" / "toy.toml"
    head = 'paper = "P"\ntitle = "T"\ndataset = "toy"\nhistory = "keep"\n'
    row = (
        '[[row]]\nname = "M x {0}"\npreset = "ours"\n'
        'point = {{ curve = "M", setting = "weight, times", value = {0} }}\n'
        'method = {{ name = "cl4srec", contrast = {1} }}\n'
    )
    base = '[[row]]\nname = "SASRec"\npreset = "ours"\nmethod = { name = "next_item" }\n'
    weights = {"0": 0.0, "3": 0.3, "0.1": 0.01}
    file.write_text(head + base + "".join(row.format(*one) for one in weights.items()), encoding="utf-8")
    table = load_table(file)
    assert not any(one.swept for one in table.rows)
    records = [make_record(one.config, row=one.name) for one in table.rows if one.config]
    (one,) = answered([table], records)
    own = list(one.own.values())
    (picture,) = sensitivity(table, one.answers, own, "s")
    assert {row[1] for row in picture.rows} == {"0", "0.1", "3"}
    shown = [text.strip() for text in texts(picture.svg)]
    # A logarithm has no 0: the values stand side by side, ascending.
    assert [text for text in shown if text in {"0", "0.1", "3"}][:3] == ["0", "0.1", "3"]
    assert {"weight, times", "M", "SASRec"} <= set(shown)
    assert "floor: popularity" not in shown
    assert ablation(table, one.answers, own, "a") == []


def test_noise_gives_the_value_and_the_loss(found: list[Result]) -> None:
    value, loss = robustness(found, "n")
    assert [row[1] for row in value.rows] == [0.0, 0.1, 0.2]
    assert [row[2] for row in loss.rows] == pytest.approx([0.0, 10.0, 20.0])
    assert "random items inserted, % of the history" in texts(loss.svg)
    assert dict(value.protocol.parts)["history"] == "kept"


def test_of_a_metric_that_is_0_nothing_can_be_lost(found: list[Result]) -> None:
    nothing = copy.deepcopy([record for one in found for record in one.records if "noise" in record["analyses"]])
    for point in (one for record in nothing for one in record["analyses"]["noise"]["points"]):
        point["metrics"] = dict.fromkeys(point["metrics"], 0.0)
        point["loss"] = dict.fromkeys(point["loss"], None)
    (value,) = robustness(results(nothing), "n")
    assert {row[2] for row in value.rows} == {0.0}


@pytest.mark.parametrize(("key", "told"), [("groups", "for all users"), ("groups_apart", "for each group")])
def test_groups_say_how_they_were_trained(found: list[Result], key: str, told: str) -> None:
    (picture,) = user_groups(found, key, "g")
    assert told in picture.caption
    assert [row[1:3] for row in picture.rows] == [("<=5", 300), ("6-8", 400), (">8", 300)]


def test_groups_of_users_of_other_logs_stand_in_other_figures(records: list[dict[str, Any]]) -> None:
    other = copy.deepcopy(records)
    for record in other:
        record["data_hash"] = "bead" * 16
        for analysis in record["analyses"].values():
            for group in analysis.get("groups", []):
                group["judged"] = 5
    one, two = user_groups(by_settings(results(records + other))[0], "groups", "g")
    assert (one.name, two.name) == ("g-groups-beadbead-keep-1", "g-groups-feedfeed-keep-1")
    assert [row[2] for row in one.rows] == [5, 5, 5]
    assert [row[2] for row in two.rows] == [300, 400, 300]
    assert dict(one.protocol.parts)["data hash"] == "beadbeadbead"


def test_slices_stand_in_a_table_and_for_each_method_in_a_figure(found: list[Result]) -> None:
    table = slice_table(found, "history", "exclude")
    assert table is not None
    assert table.columns[1:] == tuple(f"{part} (200 cases)" for part in ("<=5", "6-10", "11-20", "21-50", ">50"))
    assert len(table.groups) == len(found)
    some = representatives(found)
    assert len(some) == 1
    (picture,) = slices(some, "history", "exclude", "p")
    assert len(picture.rows) == 5


def test_a_stale_result_stands_for_its_method_only_where_there_is_no_other(
    make_record: Make, experiment: Experiment
) -> None:
    stale = [make_record(experiment(seed), row="SASRec", code_hash="000000000000") for seed in range(3)]
    fresh = make_record(experiment(0, batch_size=9), row="SASRec", variant="smaller batches")
    assert representatives(results(stale))[0].stale
    (chosen,) = representatives(results([*stale, fresh]))
    assert chosen.label == "SASRec, smaller batches"
    assert not chosen.stale


def test_a_cut_with_one_part_is_not_shown(make_record: Make, experiment: Experiment) -> None:
    record = make_record(experiment(0))
    record["both"]["keep"]["slices"]["repeat"] = {"no": {"cases": 1000.0, "NDCG@20": 0.1}}
    found = results([record])
    assert slices(found, "repeat", "keep", "p") == []
    assert slice_table(found, "repeat", "keep") is None


def test_a_spectrum_has_a_line_for_each_seed(found: list[Result]) -> None:
    items, users = spectra(found, "s")
    assert [row[3] for row in items.rows if row[1] == 0] == [1.0, 0.5, 0.25, 0.125]
    assert {row[1] for row in items.rows} == {0, 1}
    assert "user vectors" in users.title


def test_analyses_that_are_numbers_are_tables(found: list[Result]) -> None:
    spread, cost, meaning = measures(found, {"representations", "complexity", "purity"})
    assert [cell.text for cell in spread.groups[0].rows[1]][-1] == "0.8000 ± 0.0000"
    assert [cell.text for cell in cost.groups[0].rows[0]] == ["n = 2", "3,000", "–", "1.50", "5,000", "2", "–"]  # noqa: RUF001
    assert [cell.text for cell in meaning.groups[0].rows[0]][1:3] == ["0.4000", "0.2500"]
    assert measures(found, set()) == []


def test_views_are_a_table_by_pairs_of_kinds(found: list[Result]) -> None:
    some = copy.deepcopy([record for one in found for record in one.records])
    for number, record in enumerate(some):
        pairs = {"random 1, random 2": {"value": 0.5, "others": 1.5 + number / 10}}
        record["analyses"]["views"] = {"pairs": pairs, "kinds": {}}
    (table,) = measures(results(some), {"views"})
    assert [cell.text for cell in table.groups[0].rows[0]][:2] == ["random 1, random 2", "0.5000 ± 0.0000"]
    assert dict(table.protocol.parts)["split"].endswith("training part")
    assert measures(found, {"views"}) == []


def test_what_models_cost_is_told_with_the_machine_of_each_number(
    found: list[Result], records: list[dict[str, Any]]
) -> None:
    (cost,) = measures(found, {"complexity"})
    assert "Epochs: as the runs took them in training, each on its own machine (a processor, 2 cores)." in cost.note
    assert "Ranking and memory: measured later, on cpu, 1 threads;" in cost.note
    for record in records:
        record.pop("machine")
    (cost,) = measures(by_settings(results(records))[0], {"complexity"})
    assert "each on its own machine (not recorded)" in cost.note


@pytest.mark.parametrize("both_first", [True, False])
def test_positive_pairs_that_one_result_alone_has_are_a_dash_for_the_others(
    found: list[Result], *, both_first: bool
) -> None:
    (record,) = next(one for one in found if one.first["analyses"]).records[:1]
    alignment = {"same_target": {"value": 0.75, "pairs": 9}, "dropout": {"value": 0.25, "pairs": 9}}
    whole, part = (copy.deepcopy(record) for _ in range(2))
    whole["analyses"]["representations"]["alignment"] = alignment
    part["analyses"]["representations"]["alignment"] = {"dropout": {"value": 0.5, "pairs": 9}}
    both = [result_of([whole], label="both"), result_of([part], label="dropout alone")]
    (table,) = measures(both if both_first else both[::-1], {"representations"})
    assert table.columns[-2:] == ("alignment, same next item", "alignment, two dropout masks")
    told = {group.heading: [cell.text for cell in group.rows[1]][-2:] for group in table.groups}
    assert told == {"both": ["0.7500", "0.2500"], "dropout alone": ["\N{EN DASH}", "0.5000"]}


def test_an_analysis_with_other_settings_stands_in_a_figure_of_its_own(records: list[dict[str, Any]]) -> None:
    for record in records:
        for key, value in list(record["analyses"].items()):
            if value["analysis"] == "groups":
                other = copy.deepcopy(value)
                other["protocol"]["history"] = "exclude"
                record["analyses"][key.replace("keep", "exclude")] = other
    excluded, kept = by_settings(results(records))
    (picture,) = user_groups(excluded, "groups", "g")
    assert dict(picture.protocol.parts)["history"] == "excluded"
    (picture,) = user_groups(kept, "groups", "g")
    assert dict(picture.protocol.parts)["history"] == "kept"
    assert (len(robustness(excluded, "n")), len(robustness(kept, "n"))) == (2, 0)


def test_a_row_shows_the_analysis_that_it_asks_for_and_no_other(
    experiments: Path, records: list[dict[str, Any]]
) -> None:
    (one,) = answered([load_table(experiments / "ours" / "stand" / "toy.toml")], records)
    found = {row.name: set(one.own[row_key(row)].first["analyses"]) for row in one.table.rows}
    assert found["SASRec"] == {"noise"}
    assert found["SASRec by groups"] == {"groups"}


def test_a_figure_without_its_analysis_is_left_out(make_record: Make, experiment: Experiment) -> None:
    found = results([make_record(experiment(0))])
    assert robustness(found, "n") == spectra(found, "s") == user_groups(found, "groups", "g") == []
    assert measures(found, {"representations", "complexity", "purity"}) == []
