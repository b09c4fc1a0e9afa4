"""Trains and evaluates conseq's SASRec on Beauty, with the cost of each phase; started by sasrec_speed.py.

Prints one JSON object, of the same shape as recbole_worker.py's, with the phases of a training step beside it.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from conseq.data.readers import read
from conseq.data.splits import Split
from conseq.encoders.encoder import Encoder
from conseq.encoders.sasrec import SASRecConfig
from conseq.evaluation.evaluator import evaluate
from conseq.evaluation.ranks import Protocol
from conseq.methods.next_item import NextItemConfig
from conseq.run.config import RunConfig
from conseq.run.runner import build
from conseq.run.splitting import LeaveOneOut
from conseq.training.config import TrainingConfig
from conseq.training.trainer import Trainer
from matmul_rate import rates
from measure import Usage, metered

PHASES = ("batching", "encoder forward", "softmax", "backward", "optimizer")

COUNTED_BATCHES = 4
"""Batches over which operations are counted; scaled to the epoch by its tokens, the softmax by its next items."""

KEPT = Protocol(split="test", slicing="leave_one_out", history="keep", ties="pessimistic")
EXCLUDED = Protocol(split="test", slicing="leave_one_out", history="exclude", ties="pessimistic")


class Phases:
    """Adds up a clock over named phases; a phase inside another one belongs to the outer.

    Args:
        clock: Anything that rises, such as CPU seconds or operations done.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.total = dict.fromkeys(PHASES, 0.0)
        self.inside = False

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts the block as ``name``."""
        if self.inside:
            yield
            return
        self.inside, begun = True, self.clock()
        try:
            yield
        finally:
            self.total[name] += self.clock() - begun
            self.inside = False

    def wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Gives ``function``, whose calls count as ``name``."""

        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            with self.phase(name):
                return function(*arguments, **named)

        return call

    def each(self, name: str, iterator: Iterator[Any]) -> Iterator[Any]:
        """Gives what ``iterator`` gives; the making of each element counts as ``name``."""
        while True:
            with self.phase(name):
                element = next(iterator, None)
            if element is None:
                return
            yield element


@contextmanager
def observed(trainer: Trainer, phases: Phases) -> Iterator[None]:
    """Counts the trainer's phases while the block runs; ``trainer`` itself stays as it is."""
    encoder, batches = trainer.method.encoder, trainer.train.batches
    places: list[tuple[Any, str, Any]] = [
        (trainer.train, "batches", lambda *args: phases.each("batching", batches(*args))),
        (encoder, "forward", phases.wrapped("encoder forward", encoder.forward)),
        (encoder, "states", phases.wrapped("encoder forward", encoder.states)),
        (trainer.method, "prediction", _Called(phases, trainer.method.prediction)),
        (torch.autograd, "backward", phases.wrapped("backward", torch.autograd.backward)),
    ]
    for optimizer in trainer.optimizers.values():
        places.append((optimizer, "step", phases.wrapped("optimizer", optimizer.step)))
    earlier = [(place, name, place.__dict__.get(name)) for place, name, _ in places]
    for place, name, counted in places:
        setattr(place, name, counted)
    try:
        yield
    finally:
        for place, name, value in earlier:
            if value is None:
                delattr(place, name)
            else:
                setattr(place, name, value)


class _Called:
    """The method's prediction, counted as the softmax."""

    def __init__(self, phases: Phases, prediction: Any) -> None:
        self.prediction = prediction
        self.call = phases.wrapped("softmax", prediction)

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)


class EpochClock:
    """A watcher that notes what the training part of each epoch cost."""

    def __init__(self) -> None:
        self.epochs: list[Usage] = []
        self.losses: list[float] = []
        self.curve: list[dict[str, float]] = []
        self.start()

    def start(self) -> None:
        """An epoch begins now."""
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def batch_done(self, epoch: int, batch: int, n_batches: int) -> None:
        """Notes the time since the start after the last batch."""
        if batch == n_batches:
            spent = Usage(time.process_time() - self.cpu, time.perf_counter() - self.wall, 0.0)
            self.epochs.append(spent)

    def epoch_done(self, record: dict[str, Any]) -> None:
        """Notes loss and metrics; the next epoch begins."""
        self.losses.append(record["terms"]["next_item"])
        self.curve.append({name: value for name, value in record["metrics"].items() if name != "HR@1"})
        seconds = self.epochs[-1].cpu_s
        print(f"epoch {record['epoch']}: {seconds:.1f} CPU s, {self.curve[-1]}", file=sys.stderr, flush=True)
        self.start()

    def rewind(self, epoch: int) -> None:
        """Notes nothing."""


def experiment(instances: str, epochs: int, seed: int, precision: str) -> RunConfig:
    """Gives the setting of the comparison: that of recbole_worker.py in conseq's words."""
    encoder = SASRecConfig(
        width=64, layers=2, heads=2, max_length=50, hidden=256, block="bert", dropout=0.5, attention_dropout=0.5
    )
    training = TrainingConfig(
        metric="HR@1",
        instances=instances,  # type: ignore[arg-type]
        batch_size=256,
        epochs=epochs,
        learning_rate=1e-3,
        patience=None,
        seed=seed,
        device="cpu",
        precision=precision,  # type: ignore[arg-type]
    )
    method = NextItemConfig(loss="cross_entropy")
    return RunConfig(
        method_name="next_item",
        method=method,
        encoder_name="sasrec",
        encoder=encoder,
        split=LeaveOneOut(),
        training=training,
    )


def train(config: RunConfig, split: Split, *, curve: bool) -> tuple[Trainer, dict[str, object]]:
    """Gives the trained trainer and the cost of an epoch, by phase.

    Args:
        config: The setting.
        split: The log, cut.
        curve: Whether the test part is judged after each epoch (for the record; no epoch is chosen by it).

    Returns:
        The trainer, and the report.
    """
    clock, phases = EpochClock(), Phases(time.process_time)
    rising = itertools.count(1)

    def validate(encoder: Encoder) -> dict[str, float]:
        # By HR@1, which is the count of epochs here, each epoch is better than the one before, so that the last
        # one's weights stay, as on the other side. And what happens here is no phase of training.
        phases.inside = True
        metrics = evaluate(encoder, split.test, KEPT).metrics if curve else {}
        phases.inside = False
        return {**metrics, "HR@1": float(next(rising))}

    trainer = Trainer(build(config, split, torch.device("cpu")), config.training, validate, watcher=clock)
    with observed(trainer, phases):
        clock.start()
        _, usage = metered(trainer.fit)
    epoch = {
        "cpu_s": statistics.median(one.cpu_s for one in clock.epochs),
        "wall_s": statistics.median(one.wall_s for one in clock.epochs),
        "peak_mib": usage.peak_mib,
    }
    operations, tokens, targets = count(config, split)
    epochs = len(clock.epochs)
    cost = {name: total / epochs for name, total in phases.total.items()}
    cost["other"] = sum(one.cpu_s for one in clock.epochs) / epochs - sum(cost.values())
    report: dict[str, object] = {
        "scaled": False,
        "steps": trainer.train.n_batches(config.training.batch_size),
        "epoch": epoch,
        "loss": clock.losses,
        "tokens": tokens,
        "next_items": targets,
        "tokens_per_cpu_s": tokens / epoch["cpu_s"],
        "next_items_per_cpu_s": targets / epoch["cpu_s"],
        "phases": shares(cost, operations),
    }
    if curve:
        report["curve"] = clock.curve
    return trainer, report


def count(config: RunConfig, split: Split) -> tuple[dict[str, float], int, int]:
    """Gives the multiplications and additions in matrix products of an epoch, by phase; its tokens and targets.

    Args:
        config: The setting.
        split: The log, cut.

    Returns:
        Floating-point operations by phase, tokens read, next items asked for.
    """
    trainer = Trainer(build(config, split, torch.device("cpu")), config.training, lambda encoder: {})
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _addmm_operations})
    phases = Phases(lambda: float(counter.get_total_flops()))
    order = torch.Generator().manual_seed(config.training.seed)
    trainer.method.train()
    sizes = []
    with observed(trainer, phases):
        for number, batch in enumerate(trainer.train.batches(config.training.batch_size, order)):
            sizes.append((batch.history.ids.numel(), batch.next_ids.numel()))
            if number >= COUNTED_BATCHES:
                continue
            with counter:
                for group, terms in trainer.method.updates(batch, trainer.rng):
                    trainer._step(group, terms)
    tokens, targets = (sum(column) for column in zip(*sizes, strict=True))
    some_tokens, some_targets = (sum(column) for column in zip(*sizes[:COUNTED_BATCHES], strict=True))
    scale = dict.fromkeys(PHASES, tokens / some_tokens) | {"softmax": targets / some_targets}
    return {name: total * scale[name] for name, total in phases.total.items()}, tokens, targets


def _addmm_operations(_: Any, a: Sequence[int], b: Sequence[int], **named: Any) -> int:
    """Gives the operations of ``addmm_``, which torch's counter does not know, from the shapes."""
    return 2 * a[0] * a[1] * b[1]


def shares(cost: dict[str, float], operations: dict[str, float]) -> list[dict[str, object]]:
    """Gives, for each phase, its CPU seconds, its share, and the share of the measured matrix-product rate.

    The rate is measured now, at the shapes of the phase, forward and backward as the phase has them.

    Args:
        cost: CPU seconds of an epoch by phase.
        operations: Floating-point operations in matrix products of an epoch by phase.

    Returns:
        A row per phase, and one for the whole epoch.
    """
    layer = rates(1_500, 64, 256, seconds=0.1)
    yardstick = {
        "encoder forward": layer["forward"],
        "backward": 2 / (1 / layer["input_gradient"] + 1 / layer["weight_gradient"]),
        "softmax": rates(64, 64, 12_101, seconds=0.1)["all"],
    }
    rows: list[dict[str, object]] = []
    possible, total, done = 0.0, sum(cost.values()), 0.0
    for name, seconds in cost.items():
        row: dict[str, object] = {"phase": name, "cpu_s": seconds, "share": seconds / total}
        if name in yardstick and seconds:
            giga = operations[name] / 1e9
            possible, done = possible + giga / yardstick[name], done + giga
            row |= {"GFLOP": giga, "GFLOP/s": giga / seconds, "rate": yardstick[name]}
            row["share of rate"] = giga / seconds / yardstick[name]
        rows.append(row)
    whole = {"phase": "epoch", "cpu_s": total, "share": 1.0, "GFLOP": done, "GFLOP/s": done / total}
    return [*rows, {**whole, "rate": done / possible, "share of rate": possible / total}]


def judge(encoder: Encoder, split: Split) -> dict[str, object]:
    """Gives the test metrics with the history kept, as RecBole computes them, and with it excluded, and the cost."""
    kept, usage = metered(lambda: evaluate(encoder, split.test, KEPT))
    excluded, other_usage = metered(lambda: evaluate(encoder, split.test, EXCLUDED))
    return {
        "evaluation": asdict(usage),
        "metrics": kept.metrics,
        "evaluation_excluded": asdict(other_usage),
        "metrics_excluded": excluded.metrics,
    }


def main() -> int:
    """Runs all phases and prints a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--instances", choices=["prefixes", "whole"], required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--curve", action="store_true")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = experiment(options.instances, options.epochs, options.seed, options.precision)
    split, usage = metered(lambda: config.split.cut(read(options.data)))
    record: dict[str, object] = {"torch": torch.__version__, "prepare": asdict(usage)}
    record |= {"test_users": len(split.test.users)}
    trainer, report = train(config, split, curve=options.curve)
    record |= report | judge(trainer.method.encoder, split)
    print(json.dumps(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
