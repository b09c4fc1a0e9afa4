"""Measures one stage of one method, beside SASRec with the same loss and instances; started by methods.py.

Prints a JSON object. The process holds nothing but the method when its memory is read; SASRec is made after that,
and from then on windows of both alternate, over the same examples.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from conseq.data.readers import read
from conseq.data.splits import Split
from conseq.data.synthetic import synthetic
from conseq.data.train_set import TrainSet
from conseq.encoders.encoder import Encoder, TokenEncoder
from conseq.methods.ec4srec import EC4SRec
from conseq.run.config import RunConfig, from_record, read_experiment
from conseq.run.runner import build
from conseq.signals.importance import Importance
from conseq.training.trainer import Trainer, evaluating
from measure import Usage, metered
from methods_profile import step_profile

WARM_UP = 3
"""Batches before the first window."""

STAGES = {
    "": "an epoch",
    "explained": "an epoch after an update of the importances",
    "update": "an update of the importances",
    "trained": "an epoch while the generator is trained",
    "frozen": "an epoch after the generator is frozen",
}
"""What is measured."""


@dataclass(frozen=True)
class Window:
    """Some batches of a round.

    Attributes:
        begin: What ``begin_epoch`` cost.
        batches: What the updates of the batches cost.
        share: How many times the batches are those of an epoch.
        tokens: Tokens encoded in the epoch that they stand for.
    """

    begin: Usage
    batches: Usage
    share: float
    tokens: float

    @property
    def cpu_s(self) -> float:
        """CPU seconds of the epoch."""
        return self.begin.cpu_s + self.batches.cpu_s / self.share

    @property
    def wall_s(self) -> float:
        """Wall seconds of the epoch."""
        return self.begin.wall_s + self.batches.wall_s / self.share


class Side:
    """A method in training, window by window.

    Args:
        config: The experiment.
        split: The log, cut.
    """

    def __init__(self, config: RunConfig, split: Split) -> None:
        self.method = build(config, split, torch.device("cpu"))
        self.trainer = Trainer(self.method, config.training, lambda encoder: {})
        self.n_batches = self.method.train_set.n_batches(config.training.batch_size)
        self.epoch = 1

    def step(self, rows: Tensor) -> None:
        """Makes the updates of the batch of examples ``rows``, as the trainer does."""
        batch = self.method.train_set.batch(rows)
        with self.trainer._precision():
            for group, terms in self.method.updates(batch, self.trainer.rng):
                self.trainer._step(group, terms)

    def steps(self, examples: list[Tensor]) -> None:
        """Makes the updates of some batches."""
        for rows in examples:
            self.step(rows)

    def begin(self) -> None:
        """Begins the next epoch, as the trainer does."""
        with evaluating(self.method):
            self.method.begin_epoch(self.epoch, self.trainer.rng)
        self.method.train()
        self.epoch += 1

    def window(self, examples: list[Tensor]) -> Window:
        """Gives the cost of the beginning of an epoch and of batches of it."""
        with counted(self.method) as tokens:
            _, begin = metered(self.begin)
            before = tokens[0]
            _, batches = metered(lambda: self.steps(examples))
        share = len(examples) / self.n_batches
        return Window(begin, batches, share, before + (tokens[0] - before) / share)


@contextmanager
def counted(method: torch.nn.Module) -> Iterator[list[int]]:
    """Counts, inside the block, the tokens that the encoders of a method are given: items, of every view and pass."""
    tokens, inside = [0], [False]

    def counting(function: Callable[..., Any], place: int) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if inside[0]:
                return function(*arguments, **named)
            inside[0] = True
            try:
                tokens[0] += arguments[place].ids.numel()
                return function(*arguments, **named)
            finally:
                inside[0] = False

        return call

    encoders = [one for one in method.modules() if isinstance(one, Encoder)]
    places = [(one, name, place) for one in encoders for name, place in (("forward", 0), ("states", 0))]
    places += [(one, "contextualize", 1) for one in encoders if isinstance(one, TokenEncoder)]
    places += [(one, "_embed", 1) for one in encoders]  # SASRec's, where a method asks for some of its states alone
    places = [(one, name, place) for one, name, place in places if hasattr(one, name)]
    for one, name, place in places:
        setattr(one, name, counting(getattr(one, name), place))
    try:
        yield tokens
    finally:
        for one, name, _ in places:
            delattr(one, name)


def experiment(path: Path, stage: str) -> RunConfig:
    """Gives the experiment of a file, with the generator frozen or not as the stage has it."""
    record = read_experiment(path)
    if stage in ("trained", "frozen"):
        record["method"]["freeze_after"] = int(stage == "frozen")
    record["training"] |= {"device": "cpu"}
    return from_record(record, source=str(path))


def baseline(config: RunConfig) -> RunConfig:
    """Gives plain next-item training of SASRec with the loss, the instances and the batches of ``config``.

    Where the method's encoder is another one, SASRec has its width and length; where the method shares sampled items
    among the targets of a batch, which plain training cannot, the loss is over the whole catalogue.
    """
    record = config.record()
    names = ("loss", "negatives", "calibration", "log_q")
    method = {name: record["method"][name] for name in names if name in record["method"]}
    if record["method"].get("shared_negatives"):
        method = {"loss": "cross_entropy"}
    encoder = record["encoder"]
    if config.encoder_name != "sasrec":
        encoder = {"name": "sasrec", "width": config.encoder.width, "max_length": config.encoder.max_length}
    return from_record({**record, "method": {"name": "next_item", **method}, "encoder": encoder}, source="baseline")


def cut(config: RunConfig, data: str, users: int) -> tuple[Split, dict[str, int]]:
    """Gives the log as the experiment cuts it, and what it is; ``data`` is a path, or ``synthetic``."""
    log = synthetic(n_users=users, seed=0)[0] if data == "synthetic" else read(data)
    about = {"users": log.n_users, "items": log.n_items, "interactions": len(log)}
    return config.split.cut(log), about


def update(config: RunConfig, split: Split, options: argparse.Namespace) -> dict[str, object]:
    """Gives the cost of an update of the importances, over a sample of users scaled by its pairs.

    A pair is an item and a prefix that it is in. Weights are random: the cost does not depend on them.
    """
    side = Side(config, split)
    whole = side.method.train_set
    pairs = int((whole.end - whole.start).sum())
    count = min(options.users, len(whole.sequences)) or len(whole.sequences)
    rows = torch.randperm(len(whole.sequences), generator=torch.Generator().manual_seed(0))[:count].sort().values
    training = config.training
    some = TrainSet(
        whole.sequences.select(rows),
        whole.sequence_users[rows],
        whole.n_items,
        instances=training.instances,
        max_length=whole.max_length,
    )
    assert isinstance(side.method, EC4SRec)
    importance = Importance(some, side.method.importance.explainer)
    _, usage = metered(lambda: importance.refresh(side.method.encoder))
    scale = pairs / int((some.end - some.start).sum())
    return {
        "cpu_s": usage.cpu_s * scale,
        "wall_s": usage.wall_s * scale,
        "peak_mib": usage.peak_mib,
        "scaled from": f"{count} users" if scale > 1 else "",
        "sasrec": _baseline_alone(config, split, options),
    }


def _baseline_alone(config: RunConfig, split: Split, options: argparse.Namespace) -> dict[str, float]:
    side = Side(baseline(config), split)
    draws = drawn(side, options)
    side.begin()
    side.steps(next(draws)[:WARM_UP])
    windows = [side.window(next(draws)) for _ in range(options.rounds)]
    return {"cpu_s": statistics.median(one.cpu_s for one in windows)}


def drawn(side: Side, options: argparse.Namespace) -> Iterator[list[Tensor]]:
    """Gives the examples of window after window: random batches without repetition inside a window."""
    generator = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(len(side.method.train_set), generator=generator)
        whole = order.tensor_split(side.n_batches)
        yield list(whole[: options.batches or None])


def measured(config: RunConfig, split: Split, options: argparse.Namespace) -> dict[str, object]:
    """Gives the cost of an epoch, in turn with SASRec, and the profile of a step."""
    side = Side(config, split)
    if options.stage == "explained":
        assert isinstance(side.method, EC4SRec)
        scores = torch.rand(side.method.importance.scores.shape, generator=torch.Generator().manual_seed(0))
        side.method.importance.put(scores)
    draws = drawn(side, options)
    side.begin()  # the first one may cost more than those that follow: it warms up, too
    side.steps(next(draws)[:WARM_UP])
    first = side.window(next(draws))
    peak = max(first.begin.peak_mib, first.batches.peak_mib)
    other = Side(baseline(config), split)
    other.begin()
    other.steps(next(draws)[:WARM_UP])
    windows: list[tuple[Window, Window]] = []
    for _ in range(options.rounds):
        examples = next(draws)
        windows.append((side.window(examples), other.window(examples)))
    report: dict[str, object] = {
        "peak_mib": peak,
        "batches": side.n_batches,
        "rounds": [{"cpu_s": a.cpu_s, "wall_s": a.wall_s, "sasrec_cpu_s": b.cpu_s} for a, b in windows],
        "tokens": statistics.median(a.tokens for a, _ in windows),
        "begin_cpu_s": statistics.median(a.begin.cpu_s for a, _ in windows),
        "cpu_s": statistics.median(a.cpu_s for a, _ in windows),
        "wall_s": statistics.median(a.wall_s for a, _ in windows),
        "ratio": statistics.median(a.cpu_s / b.cpu_s for a, b in windows),
        "wall_ratio": statistics.median(a.wall_s / b.wall_s for a, b in windows),
        "sasrec": {
            "cpu_s": statistics.median(b.cpu_s for _, b in windows),
            "tokens": statistics.median(b.tokens for _, b in windows),
        },
    }
    if options.profile:
        examples = next(draws)
        report["profile"] = step_profile(
            lambda number: side.step(examples[number]), min(options.profile, len(examples))
        )
    return report


def main() -> int:
    """Measures and prints a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", type=Path, required=True)
    parser.add_argument("--stage", choices=list(STAGES), default="")
    parser.add_argument("--data", required=True, help="a log, or the word synthetic")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batches", type=int, required=True, help="of a window; 0: all of an epoch")
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--users", type=int, default=0, help="whose prefixes an update explains; 0: all")
    parser.add_argument("--profile", type=int, default=0, help="steps that are profiled")
    parser.add_argument("--synthetic-users", type=int, default=2500)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = experiment(options.experiment, options.stage)
    split, about = cut(config, options.data, options.synthetic_users)
    _, before = metered(lambda: None)
    work = update if options.stage == "update" else measured
    report = work(config, split, options)
    versions = {name: metadata.version(name) for name in ("conseq", "torch", "numpy", "faiss-cpu")}
    print(json.dumps({"versions": versions, "log": about, "before_mib": before.peak_mib, **report}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
