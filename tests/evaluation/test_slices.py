"""Metrics of parts of the users and of the targets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from conseq.data.sequences import Sequences
from conseq.data.splits import HeldOut
from conseq.evaluation.slices import slices

RANKS = np.array([2.0, 1.0, 3.0, 6.0])


def cases(parts: dict[str, dict[str, float]]) -> dict[str, float]:
    return {part: values["cases"] for part, values in parts.items()}


def test_users_are_parted_by_the_length_of_their_history(held_out: HeldOut) -> None:
    found = slices(held_out, RANKS, ["HR@1"], lengths=(1, 2, 4))["history"]
    assert found == {
        "<=1": {"cases": 1, "HR@1": 0},
        "2": {"cases": 2, "HR@1": 0.5},
        ">4": {"cases": 1, "HR@1": 0},
    }


def test_users_are_parted_by_whether_the_tie_rule_chose_their_target(held_out: HeldOut) -> None:
    found = slices(held_out, RANKS, ["HR@2"])["time tie"]
    assert found == {"yes": {"cases": 2, "HR@2": 0.5}, "no": {"cases": 2, "HR@2": 0.5}}


def test_targets_are_parted_by_whether_they_are_repeats(held_out: HeldOut) -> None:
    found = slices(held_out, RANKS, ["HR@2"])["repeat"]
    assert found == {"yes": {"cases": 1, "HR@2": 0}, "no": {"cases": 3, "HR@2": 2 / 3}}


def test_targets_are_parted_by_their_popularity_and_never_seen_ones_stand_apart(held_out: HeldOut) -> None:
    counts = np.array([7, 6, 3, 1, 0, 0])  # targets 2, 1, 1, 6
    found = slices(held_out, RANKS, ["MRR"], counts=counts, popularities=(0, 6, 20))["popularity"]
    assert found == {
        "0": {"cases": 1, "MRR": 1 / 6},
        "1-6": {"cases": 1, "MRR": 1 / 2},
        "7-20": {"cases": 2, "MRR": (1 + 1 / 3) / 2},
    }


def test_the_parts_of_each_cut_make_up_the_whole(held_out: HeldOut) -> None:
    whole = {"HR@2": 0.5, "MRR": float((1 / RANKS).mean())}
    for parts in slices(held_out, RANKS, list(whole), counts=np.arange(6)).values():
        assert sum(cases(parts).values()) == 4
        for name, value in whole.items():
            total = sum(values["cases"] * values[name] for values in parts.values())
            assert abs(total / 4 - value) < 1e-12


def test_of_several_targets_each_is_a_case_of_a_target_cut_and_each_user_one_of_a_user_cut(
    held_out: HeldOut,
) -> None:
    several = replace(held_out, targets=Sequences.from_lists([[2, 1], [1], [1, 5], [6]]))
    found = slices(several, np.array([1.0, 9.0, 1.0, 3.0, 9.0, 1.0]), ["Recall@2"])
    # The repeats are item 1 of user 0 (rank 9) and of user 2 (rank 3).
    assert found["repeat"] == {"yes": {"cases": 2, "Recall@2": 0}, "no": {"cases": 4, "Recall@2": 3 / 4}}
    assert found["time tie"] == {"yes": {"cases": 2, "Recall@2": 1}, "no": {"cases": 2, "Recall@2": 0.25}}


def test_of_a_log_without_times_no_tie_is_claimed(held_out: HeldOut) -> None:
    assert "time tie" not in slices(replace(held_out, timed=False), RANKS, ["HR@2"])
