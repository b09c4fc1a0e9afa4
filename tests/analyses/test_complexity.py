"""Costs: numbers counted once, time by a clock that is known, memory by tensors whose size is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from conseq.analyses.complexity import (
    ComplexityConfig,
    epochs,
    of_subject,
    parameters,
    peak_memory,
    ranking_speed,
    training,
)
from conseq.analyses.subject import subject_of
from conseq.data.log import InteractionLog
from conseq.data.splits import leave_one_out
from conseq.encoders.encoder import Scorer
from conseq.run.config import RunConfig, from_record
from conseq.training.records import read_metrics

CPU = torch.device("cpu")
QUICK = ComplexityConfig(seconds=0.01)


def test_a_shared_parameter_is_counted_once() -> None:
    first = nn.Linear(3, 4)
    second = nn.Linear(3, 4, bias=False)
    second.weight = first.weight
    assert parameters(nn.ModuleList([first, second])) == 3 * 4 + 4


def test_time_of_epochs_by_hand() -> None:
    found = epochs([{"seconds": 1.0}, {"seconds": 2.0}, {"seconds": 9.0}])
    assert found is not None
    assert (found.count, found.mean, found.median, found.total) == (3, 4.0, 2.0, 12.0)
    assert epochs([]) is None


def ticks(step: float) -> Callable[[], float]:
    def all_ticks() -> Iterator[float]:
        now = 100.0
        while True:
            yield now
            now += step

    clock = all_ticks()
    return lambda: next(clock)


@pytest.mark.parametrize(("seconds", "batches"), [(0.1, 1), (2.0, 4), (3.4, 7)])
def test_speed_is_users_over_the_time_that_their_batches_took(
    seconds: float, batches: int, log: InteractionLog, after: Callable[[int], Scorer]
) -> None:
    test = leave_one_out(log).test  # 40 users: five batches of eight
    found = ranking_speed(after(12), test, batch_size=8, k=3, seconds=seconds, clock=ticks(0.5))
    assert found.users == 8 * batches
    assert found.users_per_second == pytest.approx(8 / 0.5)


def test_every_user_is_ranked_before_one_is_ranked_again(
    log: InteractionLog, after: Callable[[int], Scorer], monkeypatch: pytest.MonkeyPatch
) -> None:
    test, scorer, asked = leave_one_out(log).test, after(12), []
    plain = scorer.scores

    def listening(users: torch.Tensor, histories: object) -> torch.Tensor:
        asked.append(users.tolist())
        return plain(users, histories)  # type: ignore[arg-type]

    monkeypatch.setattr(scorer, "scores", listening)
    ranking_speed(scorer, test, batch_size=7, k=3, seconds=2.9, clock=ticks(0.5))  # 6 batches: 5 of 7, one of 5
    assert sorted(user for batch in asked[1:] for user in batch) == list(range(40))


def test_memory_is_what_is_held_at_once() -> None:
    def one_after_the_other() -> None:
        for _ in range(5):
            held = torch.empty(1_000_000)
            del held

    def together() -> list[torch.Tensor]:
        return [torch.empty(1_000_000) for _ in range(5)]

    assert peak_memory(one_after_the_other, CPU) == pytest.approx(4_000_000, rel=0.01)
    assert peak_memory(together, CPU) == pytest.approx(20_000_000, rel=0.01)


def test_memory_held_before_is_not_counted() -> None:
    before = torch.ones(1_000_000)
    assert peak_memory(before.sum, CPU) < 100_000


def test_training_moves_the_extractors_too_and_leaves_the_callers_random_numbers(
    log: InteractionLog, config: RunConfig
) -> None:
    mclrec = from_record({**config.record(), "method": {"name": "mclrec"}}, source="test")
    split = leave_one_out(log)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    plain, _ = training(config, split, log, batches=1, device=CPU)
    more, _ = training(mclrec, split, log, batches=1, device=CPU)
    assert torch.equal(torch.rand(2), expected)
    width, inner, table, places = 8, 32, 14 * 8, 6 * 8
    norm = 2 * width
    block = 4 * (width * width + width) + 2 * norm + width * inner + inner + inner * width + width
    assert plain == table + places + norm + block
    assert more > plain


def test_memory_of_training_grows_with_the_batch(log: InteractionLog, config: RunConfig) -> None:
    held = [
        training(
            replace(config, training=replace(config.training, batch_size=size)),
            leave_one_out(log),
            log,
            batches=1,
            device=CPU,
        )[1]
        for size in (4, 40)
    ]
    assert held[1] > 2 * held[0] > 0


def test_training_for_more_batches_than_an_epoch_has_ends_with_the_epoch(
    log: InteractionLog, config: RunConfig
) -> None:
    numbers, held = training(config, leave_one_out(log), log, batches=1000, device=CPU)
    assert numbers > 0
    assert held > 0


def test_a_runs_costs_are_of_its_encoder_its_epochs_and_its_method(run: Path, log: InteractionLog) -> None:
    found = of_subject(subject_of(run, log), QUICK)
    assert found.item_parameters == 14 * 8
    assert found.encoder_parameters == found.trained_parameters
    recorded = [one["seconds"] for one in read_metrics(run / "metrics.jsonl")]
    assert found.epochs is not None
    assert found.epochs.total == pytest.approx(sum(recorded))
    assert found.ranking_bytes >= 40 * 12 * 4  # all users' scores of all items are there at once
    assert found.training_bytes is not None
    assert found.speed.batch_size == 256
    record = json.loads(json.dumps(found.record()))
    assert record["speed"]["users"] == found.speed.users
    assert record["device"] == "cpu"


def test_a_bundle_by_itself_has_no_epochs_and_without_batches_nothing_is_built(run: Path, log: InteractionLog) -> None:
    found = of_subject(subject_of(run / "bundle", log), replace(QUICK, batches=0))
    assert found.epochs is None
    assert (found.trained_parameters, found.training_bytes) == (None, None)
