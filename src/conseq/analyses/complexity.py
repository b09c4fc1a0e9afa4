"""What a model costs: parameters, time per epoch, ranking speed, memory (ECL-SR Table 4).

The paper prints parameters, training time per epoch and users ranked per second. The encoder that is served is counted
beside all that is trained: heads, generators and extractors do not serve.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import mean, median
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from conseq.analyses.subject import Subject
from conseq.config import settings
from conseq.data.log import InteractionLog
from conseq.data.sequences import Sequences
from conseq.data.splits import HeldOut, Split
from conseq.encoders.encoder import Scorer
from conseq.evaluation.ranks import top_items
from conseq.methods.method import Method
from conseq.run.config import RunConfig
from conseq.run.runner import build
from conseq.training.records import read_metrics
from conseq.training.trainer import Stopped, Trainer, evaluating


@settings
class ComplexityConfig:
    """How speed and memory are measured."""

    batch_size: Annotated[int, Field(ge=1)] = 256
    """Users ranked at a time."""
    k: Annotated[int, Field(ge=1)] = 20
    """Items listed for each."""
    seconds: Annotated[float, Field(gt=0)] = 5.0
    """How long ranking is measured; at least one batch."""
    batches: Annotated[int, Field(ge=0)] = 1
    """Training batches whose memory is measured; 0: none, and nothing is built for training."""


@dataclass(frozen=True)
class Speed:
    """How fast users are ranked: encoded, scored against the whole catalogue, their history left out, the best listed.

    Attributes:
        users_per_second: Users ranked over the time that it took.
        users: Users ranked, some of them more than once where the time allowed it.
        batch_size: Users at a time.
        k: Items listed for each.
    """

    users_per_second: float
    users: int
    batch_size: int
    k: int


@dataclass(frozen=True)
class Epochs:
    """How long the epochs of a run took, without validation.

    Attributes:
        count: Epochs trained.
        mean: Seconds.
        median: Seconds; less than the mean where some epochs do more (refreshed importances, clusters).
        total: Seconds.
    """

    count: int
    mean: float
    median: float
    total: float


@dataclass(frozen=True)
class Complexity:
    """What a model costs.

    Attributes:
        encoder_parameters: Numbers in the encoder that is served, its item table included.
        item_parameters: Numbers in the item table, padding and mask included.
        trained_parameters: Numbers that training moves; None where the experiment is not known or not built.
        epochs: Time of training; None for a bundle without its run.
        speed: Of ranking.
        ranking_bytes: Most memory held at once by the tensors of one batch's ranking, the model not counted.
        training_bytes: The same for training batches (activations, gradients, the optimizer's state, and what is
            computed before the first epoch); None where not measured.
        device: Where speed and memory were measured.
        threads: Threads of the processor that computed.
    """

    encoder_parameters: int
    item_parameters: int
    trained_parameters: int | None
    epochs: Epochs | None
    speed: Speed
    ranking_bytes: int
    training_bytes: int | None
    device: str
    threads: int

    def record(self) -> dict[str, Any]:
        """Gives everything as JSON values."""
        epochs = None if self.epochs is None else dict(vars(self.epochs))
        return {**vars(self), "epochs": epochs, "speed": dict(vars(self.speed))}


def of_subject(subject: Subject, config: ComplexityConfig) -> Complexity:
    """Gives what a stored model costs.

    Args:
        subject: The model.
        config: How it is measured.

    Returns:
        The costs.

    Raises:
        ValueError: if the experiment does not fit the log.
    """
    encoder, held_out = subject.encoder, subject.split.test
    trained = training_bytes = None
    experiment = subject.experiment if config.batches else None
    if experiment is not None:
        trained, training_bytes = training(
            experiment, subject.split, subject.log, batches=config.batches, device=subject.device
        )
    users = torch.randperm(len(held_out.users), generator=torch.Generator().manual_seed(0))[: config.batch_size]
    batch = held_out.histories.select(users)
    return Complexity(
        encoder_parameters=parameters(encoder),
        item_parameters=parameters(encoder.items),
        trained_parameters=trained,
        epochs=None if subject.folder is None else epochs(read_metrics(subject.folder / "metrics.jsonl")),
        speed=ranking_speed(encoder, held_out, batch_size=config.batch_size, k=config.k, seconds=config.seconds),
        ranking_bytes=peak_memory(lambda: _rank(encoder, held_out.users[users], batch, config.k), subject.device),
        training_bytes=training_bytes,
        device=_name(subject.device),
        threads=torch.get_num_threads(),
    )


def parameters(module: nn.Module) -> int:
    """Gives how many numbers the parameters of ``module`` hold, each shared one once."""
    return sum(one.numel() for one in module.parameters())


def epochs(records: list[dict[str, Any]]) -> Epochs | None:
    """Gives how long epochs took, from the records of ``metrics.jsonl``; None where there are none."""
    seconds = [float(one["seconds"]) for one in records]
    return Epochs(len(seconds), mean(seconds), median(seconds), sum(seconds)) if seconds else None


def ranking_speed(
    scorer: Scorer,
    held_out: HeldOut,
    *,
    batch_size: int,
    k: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Speed:
    """Gives how many users are ranked in a second, once warm.

    Users of like length share a batch; the batches come in random order, so that those that fit into the time speak
    for all.

    Args:
        scorer: The model, on its device.
        held_out: Users and histories.
        batch_size: Users at a time.
        k: Items listed for each.
        seconds: How long it is measured; at least one batch.
        clock: Gives the time in seconds.

    Returns:
        The speed.
    """
    order = torch.argsort(held_out.histories.lengths, descending=True, stable=True)
    parts = torch.split(order, batch_size)
    shuffled = torch.randperm(len(parts), generator=torch.Generator().manual_seed(0)).tolist()
    batches = [(held_out.users[parts[n]], held_out.histories.select(parts[n])) for n in shuffled]
    _rank(scorer, *batches[0], k)
    done, begun = 0, clock()
    spent = 0.0
    while spent < seconds or not done:
        for users, histories in batches:
            _rank(scorer, users, histories, k)
            done += len(users)
            spent = clock() - begun
            if spent >= seconds:
                break
    return Speed(done / spent, done, batch_size, k)


def training(
    config: RunConfig, split: Split, log: InteractionLog, *, batches: int, device: torch.device
) -> tuple[int, int]:
    """Gives how many numbers training moves, and the bytes of memory that it takes beyond them.

    The method is built as a run would build it, trains for some batches, and is forgotten; the caller's random
    numbers are not moved.

    Args:
        config: The experiment.
        split: ``log`` as it was cut.
        log: Gives the outside ids of the items.
        batches: Training batches, at least 1; of the first epoch, if it has as many.
        device: Where to train.

    Returns:
        Numbers, and bytes.

    Raises:
        ValueError: if the experiment does not fit the log.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        method = build(config, split, device, item_ids=log.item_ids)
        groups = method.groups().values()
        moved = {id(one): one.numel() for part in groups for one in part.parameters() if one.requires_grad}
        held = peak_memory(lambda: _train(method, config, batches), device)
    return sum(moved.values()), held


def peak_memory(work: Callable[[], object], device: torch.device) -> int:
    """Gives the most memory that tensors made during ``work`` hold at once, in bytes.

    On a GPU it is what torch's allocator counted beyond what was held before; on a CPU what torch's profiler saw
    allocated and freed, which other libraries' memory is not part of.

    Args:
        work: What is measured.
        device: Where it computes.

    Returns:
        Bytes, at least 0.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    results = seen.profiler.kineto_results if seen.profiler is not None else None
    events = [] if results is None else [one for one in results.events() if one.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


@dataclass
class _StopAfter:
    """A watcher that stops training after some batches."""

    batches: int
    trainer: Trainer | None = field(default=None)

    def batch_done(self, epoch: int, batch: int, n_batches: int) -> None:
        """Stops where it is time to."""
        if self.trainer is not None and batch >= min(self.batches, n_batches):
            self.trainer.interrupted = True

    def epoch_done(self, record: dict[str, Any]) -> None:
        """Nothing is recorded."""

    def rewind(self, epoch: int) -> None:
        """There is nothing to forget."""


def _train(method: Method[Any], config: RunConfig, batches: int) -> None:
    watcher = _StopAfter(batches)
    # An epoch that is over before it is stopped asks for a validation, which is not what is measured.
    watcher.trainer = Trainer(method, config.training, lambda encoder: {config.training.metric: 0.0}, watcher=watcher)
    with suppress(Stopped):
        watcher.trainer.fit()


def _rank(scorer: Scorer, users: Tensor, histories: Sequences, k: int) -> Tensor:
    """Gives each user's best items, on the CPU, so that a GPU's work is over when it returns."""
    where = next((one.device for one in (*scorer.parameters(), *scorer.buffers())), torch.device("cpu"))
    with evaluating(scorer):
        moved = histories.to(where)
        return top_items(scorer.scores(users.to(where), moved), k, excluded=moved).cpu()


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
