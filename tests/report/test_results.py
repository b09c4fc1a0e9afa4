from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conseq.report.results import estimate, in_parts, main_metric, ordered_parts, result_of, results
from conseq.run.config import RunConfig

Make = Callable[..., dict[str, Any]]
Experiment = Callable[..., RunConfig]


def with_metric(record: dict[str, Any], value: float) -> dict[str, Any]:
    record["both"]["exclude"]["metrics"]["NDCG@20"] = value
    return record


def test_seeds_of_one_experiment_are_one_result_with_mean_and_spread(make_record: Make, experiment: Experiment) -> None:
    records = [
        with_metric(make_record(experiment(seed)), value) for seed, value in ((2, 0.25), (0, 0.125), (1, 0.1875))
    ]
    (found,) = results(records)
    assert found.seeds == (0, 1, 2)
    told = found.estimate("NDCG@20", "exclude")
    assert told is not None
    assert (told.mean, told.n) == (0.1875, 3)
    assert told.spread == pytest.approx(0.0625)  # deviations -1/16, 0, 1/16 over n - 1 = 2


def test_the_last_record_of_an_experiment_and_seed_counts(make_record: Make, experiment: Experiment) -> None:
    config = experiment(0)
    old, new = with_metric(make_record(config), 0.1), with_metric(make_record(config), 0.2)
    (found,) = results([old, new])
    told = found.estimate("NDCG@20", "exclude")
    assert told is not None
    assert (told.mean, told.spread, told.n) == (0.2, None, 1)


def test_a_metric_that_one_seed_lacks_has_no_mean(make_record: Make, experiment: Experiment) -> None:
    first, second = make_record(experiment(0)), make_record(experiment(1))
    del second["both"]["exclude"]["metrics"]["HR@5"]
    (found,) = results([first, second])
    assert found.estimate("HR@5", "exclude") is None
    assert "HR@5" not in found.metrics("exclude")
    assert found.estimate("HR@5", "keep") is not None


def test_other_settings_and_other_data_are_other_results(make_record: Make, experiment: Experiment) -> None:
    config = experiment(0)
    other = experiment(0, batch_size=64)
    found = results([make_record(config), make_record(other), make_record(config, dataset="b", data_hash="b" * 64)])
    assert len(found) == 3


def test_results_of_one_name_are_told_apart_by_what_differs(make_record: Make, experiment: Experiment) -> None:
    loss = {"loss": "binary_cross_entropy"}
    records = [
        make_record(experiment(0), row="SASRec"),
        make_record(experiment(0, method=loss), row="SASRec"),
        make_record(experiment(0, batch_size=64), row="SASRec", preset="paper"),
    ]
    labels = {one.label for one in results(records)}
    assert labels == {"SASRec, ours, cross entropy", "SASRec, ours, binary cross entropy", "SASRec, paper"}


def test_a_label_names_the_method_where_the_row_does_not(make_record: Make, experiment: Experiment) -> None:
    config = experiment(0)
    assert result_of([make_record(config, row="(C) only ICL", method="iclrec")]).label == "iclrec: (C) only ICL"
    assert result_of([make_record(config, row="ECL-SR", method="ecl_sr")]).label == "ECL-SR"


def test_a_result_is_stale_where_the_code_is_another(make_record: Make, experiment: Experiment) -> None:
    fresh, old = make_record(experiment(0)), make_record(experiment(1), code_hash="000000000000")
    assert result_of([fresh]).stale == ""
    found = result_of([fresh, old])
    assert found.stale == "the code changed"
    assert found.shown.endswith("[stale]")


def test_metrics_stand_in_the_order_of_their_cut_offs(make_record: Make, experiment: Experiment) -> None:
    record = make_record(experiment(0))
    record["both"]["keep"]["metrics"] = dict.fromkeys(("MRR", "HR@10", "NDCG@5", "HR@5", "HR@20"), 0.1)
    assert result_of([record]).metrics("keep") == ["HR@5", "NDCG@5", "HR@10", "HR@20", "MRR"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["11-20", "21-50", "6-10", "<=5", ">50"], ["<=5", "6-10", "11-20", "21-50", ">50"]),
        (["0", "1-5", "21-100", "6-20", ">100"], ["0", "1-5", "6-20", "21-100", ">100"]),
        (["yes", "no"], ["no", "yes"]),
    ],
)
def test_parts_stand_in_the_order_of_their_numbers(given: list[str], expected: list[str]) -> None:
    assert ordered_parts(given) == expected


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (6, [6]), (7, [3, 4]), (13, [4, 4, 5])])
def test_figures_share_models_evenly(count: int, sizes: list[int]) -> None:
    parts = in_parts(list(range(count)), 6)
    assert [len(part) for part in parts] == sizes
    assert [one for part in parts for one in part] == list(range(count))


def test_nothing_and_a_gap_have_no_estimate() -> None:
    assert estimate([]) is None
    assert estimate([0.1, None]) is None


def test_the_metric_of_a_figure_is_ndcg_at_20_where_there_is_that() -> None:
    assert main_metric(["HR@5", "NDCG@10", "NDCG@20"]) == "NDCG@20"
    assert main_metric(["HR@3"]) == "HR@3"
    assert main_metric([]) is None


def test_one_seed_on_two_devices_is_one_seed(make_record: Make, experiment: Experiment) -> None:
    (found,) = results([make_record(experiment(0)), make_record(experiment(0, device="cpu"))])
    assert found.seeds == (0,)
    assert found.first["config"]["training"]["device"] == "cpu"
