"""Which settings come next: they follow from those before, stay in the space, and learn."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from conseq.tuning import Space, space_of
from conseq.tuning.samplers import Sampler, suggest

Before = list[tuple[dict[str, Any], float | None]]
SPACE = space_of(
    {
        "encoder": {"dropout": {"low": 0.1, "high": 0.5, "step": 0.1}, "layers": {"low": 1, "high": 4}},
        "training": {
            "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
            "betas": [[0.9, 0.99], [0.9, 0.999]],
        },
    },
    source="space",
)


def trials(count: int, sampler: Sampler, seed: int = 0, before: Before | None = None, space: Space = SPACE) -> Before:
    found = list(before or [])
    while len(found) < count:
        values = suggest(space, sampler, seed, found)
        assert values is not None
        found.append((values, value(values)))
    return found


def value(values: dict[str, Any]) -> float | None:
    """Best with four layers; fails with one."""
    return None if values["encoder.layers"] == 1 else values["encoder.layers"] - values["encoder.dropout"]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_what_comes_next_follows_from_what_was(sampler: Sampler) -> None:
    whole = trials(25, sampler)

    assert trials(25, sampler, before=whole[:13]) == whole
    assert trials(25, sampler, seed=100) != whole
    assert len({str(values) for values, _ in whole}) > 20


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_every_value_is_one_of_the_space(sampler: Sampler) -> None:
    found = [values for values, _ in trials(40, sampler)]

    assert {one["encoder.dropout"] for one in found} <= {0.1, 0.2, 0.3, 0.4, 0.5}
    assert {one["encoder.layers"] for one in found} <= {1, 2, 3, 4}
    assert all(isinstance(one["encoder.layers"], int) for one in found)
    assert all(1e-4 <= one["training.learning_rate"] <= 1e-1 for one in found)
    assert sorted({tuple(one["training.betas"]): one["training.betas"] for one in found}.values()) == [
        [0.9, 0.99],
        [0.9, 0.999],
    ]
    for one in found:
        SPACE.config(one)


def test_two_seeds_have_no_trial_in_common() -> None:
    first, second = ({str(values) for values, _ in trials(12, "random", seed=seed)} for seed in (0, 1))

    assert len(first) == len(second) == 12
    assert not first & second


def test_a_range_of_logarithms_is_drawn_evenly_over_them() -> None:
    found = [values["training.learning_rate"] for values, _ in trials(60, "random")]

    assert 0.15 < sum(one < 1e-3 for one in found) / 60 < 0.55  # a third of it


def test_tpe_learns_of_what_was_found() -> None:
    found = [values["encoder.layers"] for values, _ in trials(40, "tpe")]

    assert found[20:].count(4) > 2 * found[:10].count(4)
    assert found[20:].count(4) >= 10
    assert found[20:].count(1) <= 3  # which fail


def test_a_grid_ends() -> None:
    small = space_of({"encoder": {"layers": [1, 2], "dropout": [0.1, 0.2]}}, source="space")

    found = trials(4, "grid", space=small)

    assert [list(values.values()) for values, _ in found] == [[1, 0.1], [1, 0.2], [2, 0.1], [2, 0.2]]
    assert suggest(small, "grid", 0, found) is None


def test_without_optuna_a_grid_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    small = space_of({"encoder": {"layers": [1, 2]}}, source="space")

    assert suggest(small, "grid", 0, []) == {"encoder.layers": 1}
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'conseq\[tune\]', or take sampler grid"):
        suggest(small, "tpe", 0, [])
