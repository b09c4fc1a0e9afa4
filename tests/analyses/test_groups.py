"""Groups of users by length: who is in them, what a joint model and models of their own reach."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conseq.analyses.groups import groups, groups_apart, log_of_users, members_of, statistics
from conseq.data.log import InteractionLog
from conseq.data.readers import read
from conseq.data.splits import HeldOut, leave_one_out
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.encoder import Scorer
from conseq.evaluation.evaluator import evaluate
from conseq.run import runner
from conseq.run.config import RunConfig
from conseq.run.runner import protocol


def log_of(lengths: list[int], n_items: int = 12) -> InteractionLog:
    """Users who walk round the catalogue, each from another item."""
    items = [(user + step) % n_items + 1 for user, length in enumerate(lengths) for step in range(length)]
    return InteractionLog(
        np.array(items, dtype=np.int32),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.arange(len(items), dtype=np.int64),
        Vocabulary([f"u{user}" for user in range(len(lengths))], start=0),
        Vocabulary([f"i{item}" for item in range(n_items)], start=1),
        {"source": "made in the test", "data_hash": "of the whole"},
    )


LENGTHS = [5, 3, 6, 8, 9, 11, 5, 7, 4, 10]


def test_a_group_ends_with_its_edge() -> None:
    found = members_of(log_of(LENGTHS), (5, 8))
    assert {name: np.flatnonzero(mask).tolist() for name, mask in found.items()} == {
        "<=5": [0, 1, 6, 8],
        "6-8": [2, 3, 7],
        ">8": [4, 5, 9],
    }


def test_a_group_of_one_length_is_named_by_it_and_one_of_nobody_is_left_out() -> None:
    assert list(members_of(log_of([5, 6, 20]), (5, 6, 8))) == ["<=5", "6", ">8"]


@pytest.mark.parametrize("edges", [(), (8, 5), (5, 5)])
def test_edges_that_do_not_ascend_are_refused(edges: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="edges of groups must ascend"):
        members_of(log_of(LENGTHS), edges)


def test_counts_of_a_group_are_those_of_its_users() -> None:
    log = log_of([2, 3], n_items=10)  # items 1 2 and 2 3 4
    assert statistics(log, np.array([True, False]), "two") == {
        "name": "two",
        "users": 1,
        "items": 2,
        "interactions": 2,
        "sparsity": 1 - 2 / 10,
    }
    assert statistics(log, np.array([True, True]), "all")["items"] == 4


def test_a_groups_metrics_are_those_of_its_users_alone(after: Callable[[int], Scorer]) -> None:
    log = log_of([*LENGTHS, 12, 12])
    split, scorer = leave_one_out(log), after(12)
    noisy = replace(split.test, targets=split.test.targets.replace((split.test.targets.ids * 5) % 12 + 1))
    split = replace(split, test=noisy)  # targets that the scorer does not know
    found = groups(scorer, split, log, history="keep", edges=(5, 8))
    how = protocol(split, history="keep", part="test")
    members = members_of(log, (5, 8))
    for group in found.groups:
        rows = torch.from_numpy(np.flatnonzero(members[group.name][split.test.users.numpy()]))
        test = split.test
        part = HeldOut(test.users[rows], test.histories.select(rows), test.targets.select(rows), test.tied[rows])
        alone = evaluate(scorer, part, how, train=split.train)
        assert group.metrics == pytest.approx(alone.metrics)
        assert group.floors == {name: pytest.approx(one) for name, one in alone.floors.items()}
        assert group.judged == len(rows)
    whole = evaluate(scorer, split.test, how).metrics
    judged = [group.judged for group in found.groups]
    assert len({group.metrics["MRR"] for group in found.groups}) > 1
    for name, value in whole.items():
        assert np.average([group.metrics[name] for group in found.groups], weights=judged) == pytest.approx(value)


def test_users_who_are_not_judged_are_counted_without_metrics(after: Callable[[int], Scorer]) -> None:
    log = log_of([2, 2, 7, 8])
    found = groups(after(12), leave_one_out(log), log, history="keep", edges=(2, 8))
    assert [(one.users, one.judged, bool(one.metrics)) for one in found.groups] == [(2, 0, False), (2, 2, True)]


def test_the_log_of_some_users_keeps_the_catalogue_and_is_another_log() -> None:
    log = log_of([2, 3, 1])
    part = log_of_users(log, np.array([True, False, True]), note="some")
    assert part.items.tolist() == [1, 2, 3]
    assert part.offsets.tolist() == [0, 2, 3]
    assert part.times is not None
    assert part.times.tolist() == [0, 1, 5]
    assert part.user_ids.ids == ["u0", "u2"]
    assert part.item_ids == log.item_ids
    assert runner.data_record(part)["hash"] != runner.data_record(log)["hash"] == "of the whole"


def test_models_of_their_own_are_those_of_runs_on_each_groups_log(config: RunConfig, tmp_path: Path) -> None:
    log = log_of([5] * 20 + [9] * 15)
    found = groups_apart(config, log, history="keep", edges=(5, 8), folder=tmp_path)
    assert [(one.name, one.users, one.judged) for one in found.groups] == [("<=5", 20, 20), (">8", 15, 15)]
    for group, members in zip(found.groups, members_of(log, (5, 8)).values(), strict=True):
        outcome = runner.run(config, log_of_users(log, members, note=""))
        assert group.metrics == outcome.evaluations["keep"].metrics
        assert group.floors == outcome.evaluations["keep"].floors
        assert (group.epochs, group.best_epoch) == (outcome.epochs, outcome.best_epoch)
        assert outcome.encoder.n_items == 12
    assert sorted(one.name for one in tmp_path.iterdir()) == ["over-8", "up-to-5"]
    again = groups_apart(config, log, history="keep", edges=(5, 8), folder=tmp_path)
    assert again.record() == found.record()


def test_the_record_is_json_and_says_whether_models_are_apart(after: Callable[[int], Scorer]) -> None:
    log = log_of(LENGTHS)
    found = groups(after(12), leave_one_out(log), log, history="exclude")
    record = json.loads(json.dumps(found.record()))
    assert (record["apart"], record["edges"], record["protocol"]["history"]) == (False, [5, 8], "exclude")
    assert [one["name"] for one in record["groups"]] == ["<=5", "6-8", ">8"]


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "users", "interactions"),
    [
        ("sports", [11416, 14209, 9973], [57080, 95564, 143693]),
        ("yelp", [8076, 11109, 11246], [40380, 75082, 200892]),
    ],
)
def test_the_groups_of_the_real_logs_are_those_of_mclrec_table_5(
    name: str, users: list[int], interactions: list[int], real_data: Path
) -> None:
    log = read(real_data / name / "interactions.parquet")
    found = [statistics(log, members, group) for group, members in members_of(log, (5, 8)).items()]
    assert [one["users"] for one in found] == users
    assert [one["interactions"] for one in found] == interactions
    printed = {"sports": [0.9997, 0.9996, 0.9992], "yelp": [0.9998, 0.9997, 0.9991]}[name]
    assert [round(one["sparsity"], 4) for one in found] == printed
