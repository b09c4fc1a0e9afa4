"""One run: cut the log, train, judge, and leave everything in a folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from conseq.data.log import InteractionLog
from conseq.data.splits import Split
from conseq.data.train_set import TrainSet
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.encoder import Encoder, Scorer
from conseq.evaluation.evaluator import evaluate
from conseq.evaluation.metrics import parse as parse_metric
from conseq.evaluation.ranks import Protocol
from conseq.evaluation.result import Evaluation
from conseq.evaluation.tables import LEFT_OUT
from conseq.methods.method import Method
from conseq.run.config import RunConfig, method_class, one_of, shown_name
from conseq.run.folder import claimed
from conseq.run.saving import data_record, digest, save_encoder
from conseq.run.stages import say_before_training, say_what_the_pick_lacks
from conseq.run.starting import begin, check_made_by, weights_of
from conseq.run.trying import SettingsError, check_own_parts, of_the_settings
from conseq.run.watching import Show, finishing_the_step, watchers
from conseq.serving.bundle import encoder_name
from conseq.training.trainer import Stopped, Trainer

History = Literal["exclude", "keep"]
DEVICES = ("cpu", "cuda")

LEAVE_ONE_OUT_NOTE = (
    "note: leave-one-out lets training see what other users did after a judged user's target; "
    "split by_time does not (it is the papers' protocol all the same)"
)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a finished run gives.

    Attributes:
        config: The experiment.
        encoder: With the weights of the best epoch.
        split: The log as it was cut.
        best_epoch: The epoch that validation picked; 0 where none was validated.
        epochs: Epochs trained.
        evaluations: The test part judged with history excluded and kept.
        folder: The run's folder; None where nothing was written.
    """

    config: RunConfig
    encoder: Encoder
    split: Split
    best_epoch: int
    epochs: int
    evaluations: dict[History, Evaluation]
    folder: Path | None


@dataclass(frozen=True)
class Fitted:
    """What a training gives whose test part was left alone.

    Attributes:
        best_epoch: The epoch that validation picked.
        epochs: Epochs trained.
        value: The validation metric of that epoch.
        interrupted: Whether Ctrl-C (or SIGTERM) came when nothing was left to train.
    """

    best_epoch: int
    epochs: int
    value: float
    interrupted: bool = False


def fit(
    config: RunConfig,
    log: InteractionLog,
    *,
    folder: Path | None = None,
    start: Path | None = None,
    show: Show = "nothing",
) -> Fitted:
    """Trains as ``config`` says and does not touch the test part; :func:`run` goes on with its folder and judges.

    Args:
        config: The experiment.
        log: What to learn from.
        folder: The run's folder: configuration, metrics, checkpoint. None: nothing is written.
        start: As of :func:`run`.
        show: Progress on standard error.

    Returns:
        What validation found.

    Raises:
        ValueError: as :func:`run`, as do the others; an :class:`SettingsError` where the settings are the reason.
        BlockingIOError: if another process is at work in the folder.
        FloatingPointError: if the loss, or a score in validation, is not finite.
        Stopped: after Ctrl-C, with the state saved.
    """
    with _training(config, log, folder, start, show=show) as (_, _, trainer):
        stopping = trainer.stopping
        return Fitted(stopping.best_epoch, trainer.epoch - 1, stopping.best, trainer.interrupted)


def run(
    config: RunConfig,
    log: InteractionLog,
    *,
    folder: Path | None = None,
    start: Path | None = None,
    show: Show = "nothing",
    tensorboard: bool = False,
) -> Outcome:
    """Trains as ``config`` says and judges the best epoch on the test part, once, at the end.

    A folder that holds the same run, unfinished, is gone on with; the result is that of a run that was never
    interrupted.

    Args:
        config: The experiment.
        log: What to learn from.
        folder: The run's folder: configuration, metrics, checkpoint, evaluations, bundle. None: nothing is written.
        start: The bundle (or the run) whose weights ``config.start`` names; where that is an experiment, its run.
        show: Progress on standard error.
        tensorboard: Also write TensorBoard events into the folder.

    Returns:
        The outcome.

    Raises:
        ValueError: if the folder holds another run, or the experiment fits neither the log nor what it starts from.
        BlockingIOError: if another process is at work in the folder.
        FloatingPointError: if the loss, or a score in validation, is not finite.
        Stopped: after Ctrl-C, with the state saved.
    """
    with _training(config, log, folder, start, show=show, tensorboard=tensorboard) as (method, split, trainer):
        both: tuple[History, History] = ("exclude", "keep")
        name = shown_name(config.method_name, type(method.encoder).__name__)
        evaluations = {history: judge(method.encoder, split, history=history, name=name) for history in both}
        outcome = Outcome(
            config, method.encoder, split, trainer.stopping.best_epoch, trainer.epoch - 1, evaluations, folder
        )
        if folder is not None:
            for evaluation in evaluations.values():
                evaluation.save(folder)
            save(outcome, log, folder / "bundle")
    return outcome


@contextmanager
def _training(
    config: RunConfig,
    log: InteractionLog,
    folder: Path | None,
    start: Path | None,
    *,
    show: Show,
    tensorboard: bool = False,
) -> Iterator[tuple[Method[Any], Split, Trainer]]:
    """Trains, and holds the folder while what it gives (the method with the weights of the best epoch) is judged."""
    one_of(get_args(Show), show, name="show")
    parse_metric(config.training.metric)
    split = config.split.cut(log)
    device = resolve_device(config.training.device)
    # Training seeds torch's global generators, and dropout draws from them: the caller gets back what he had.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        with of_the_settings():
            method = build(config, split, device, item_ids=log.item_ids)
            check_own_parts(method)
        say_before_training(method, config.method, config.training)
        _begin(method, config, log, start, show=show)
        if folder is not None:
            encoder_name(config.encoder)  # of an encoder that no bundle can name it is said before the training
        with nullcontext() if folder is None else claimed(folder, config, data_record(log), gpu=gpu_name(device)):
            if split.name == "leave_one_out" and show != "nothing":
                print(LEAVE_ONE_OUT_NOTE, file=sys.stderr)
            trainer = _trained(method, config, split, folder, show=show, tensorboard=tensorboard)
            say_what_the_pick_lacks(method, trainer.stopping.best_epoch, config.training.epochs)
            yield method, split, trainer


def build(config: RunConfig, split: Split, device: torch.device, *, item_ids: Vocabulary | None = None) -> Method[Any]:
    """Gives the method on its device, with initial weights drawn from the experiment's seed.

    Args:
        config: The experiment.
        split: Gives the training sequences.
        device: Where training happens.
        item_ids: Outside ids of the items, for methods that read facts about items.

    Returns:
        The method.

    Raises:
        ValueError: if the catalogue has a single item, or the method does not fit the experiment.
    """
    training = config.training
    if split.n_items < 2:
        raise ValueError("the log has a single item, so there is no next item to choose; a catalogue needs at least 2")
    torch.manual_seed(training.seed)
    train = TrainSet(
        split.train,
        split.train_users,
        split.n_items,
        instances=training.instances,
        max_length=config.encoder.max_length,
        windows=training.windows,
        item_ids=item_ids,
    )
    make = method_class(config.method_name)[0]
    # Methods are constructed as Method(config, train, backbone); the base class leaves the first to them.
    method: Method[Any] = make(config.method, train.to(device), config.encoder)  # type: ignore[arg-type,call-arg]
    return method.to(device)


def _begin(method: Method[Any], config: RunConfig, log: InteractionLog, start: Path | None, *, show: Show) -> None:
    """Gives the encoder the weights that the experiment starts from, if it does."""
    if isinstance(config.start, RunConfig):
        check_made_by(start, config.start, data_record(log)["hash"])
    else:
        _check_weights(config.start, start)
    if start is None:
        return
    known_items = begin(method.encoder, config.encoder, log.item_ids, start)
    if show != "nothing":
        print(f"starting from {start}, which knows {known_items:,} of {log.n_items:,} items", file=sys.stderr)


def _check_weights(asked: str | None, start: Path | None) -> None:
    found = None if start is None else weights_of(start)
    if found != asked:
        wanted, given = (f"the weights {one[:12]}…" if one else "random weights" for one in (asked, found))
        raise ValueError(
            f"the experiment starts from {wanted}, and was given {given}; name the bundle or the run that has them as "
            "start (--start in a shell), or begin another run"
        )


def judge(
    scorer: Scorer,
    split: Split,
    *,
    history: History,
    part: Literal["validation", "test"] = "test",
    lists: bool = True,
    ks: Sequence[int] = (),
    name: str = "",
) -> Evaluation:
    """Gives how ``scorer`` ranks the held-out items, with the floors beside it.

    Args:
        scorer: The model.
        split: The log as it was cut.
        history: Whether items of the user's history are candidates.
        part: The held-out part.
        lists: Whether coverage and mean popularity of the recommended lists are computed too.
        ks: Cut-offs of the metrics; none: 5, 10 and 20, where users are held out 50, too.
        name: What tables call the model; none: by its class.

    Returns:
        The evaluation; its ``counts`` also say what the cut left out.
    """
    ks = ks or ((5, 10, 20, 50) if split.name == "by_user" else (5, 10, 20))
    held = split.validation if part == "validation" else split.test
    asked = protocol(split, history=history, part=part)
    found = evaluate(scorer, held, asked, ks=ks, train=split.train, lists=lists)
    told = {name.removeprefix(f"{part}_"): count for name, count in split.notes.items() if count}
    counts = found.counts | {one: told[one] for one in LEFT_OUT if one in told}
    return replace(found, model=name or found.model, counts=counts)


def protocol(split: Split, *, history: History, part: Literal["validation", "test"]) -> Protocol:
    """Gives the protocol of judging a part of ``split``; equal scores count against the model."""
    return Protocol(split=part, slicing=split.name, history=history, ties="pessimistic")  # type: ignore[arg-type]


def save(outcome: Outcome, log: InteractionLog, folder: Path) -> None:
    """Writes the bundle that serves the outcome's encoder.

    Args:
        outcome: A finished run.
        log: What it was trained on; gives the outside ids.
        folder: Where the bundle goes.
    """
    metrics = {str(one.protocol): one.metrics for one in outcome.evaluations.values()}
    save_encoder(outcome.encoder, outcome.config, log, folder, best_epoch=outcome.best_epoch, metrics=metrics)


def resolve_device(name: str) -> torch.device:
    """Gives the device called ``name``; ``auto`` is a GPU where there is one.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:1``, …, or ``auto``.

    Returns:
        The device.

    Raises:
        ValueError: if there is no such device, or training on it could not be resumed exactly.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.partition(":")[0] not in DEVICES:
        # Elsewhere the state of the random generator is not in the checkpoint.
        raise ValueError(f"device {name!r} cannot be used; expected auto, cpu, cuda, or a GPU by its number, as cuda:1")
    try:
        return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None


def gpu_name(device: torch.device) -> str:
    """Gives the name of a GPU; empty for the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def _validation(encoder: Encoder, split: Split, config: RunConfig) -> dict[str, float]:
    asked = parse_metric(config.training.metric)
    held = protocol(split, history=config.training.history, part="validation")
    found = evaluate(encoder, split.validation, held)
    return {**found.metrics, str(asked): found.value(str(asked))}


def _trained(
    method: Method[Any], config: RunConfig, split: Split, folder: Path | None, *, show: Show, tensorboard: bool
) -> Trainer:
    """Gives the trainer at its end, with the weights of the best epoch in the method."""
    watcher, bar = watchers(config, folder, show=show, tensorboard=tensorboard)
    trainer = Trainer(
        method, config.training, lambda encoder: _validation(encoder, split, config), folder=folder, watcher=watcher
    )
    try:
        with finishing_the_step(trainer):
            trainer.resume()
            with of_the_settings():
                trainer.fit()
    finally:
        if bar is not None:
            bar.close()
    return trainer


__all__ = [
    "LEAVE_ONE_OUT_NOTE",
    "Fitted",
    "Outcome",
    "SettingsError",
    "Show",
    "Stopped",
    "build",
    "data_record",
    "digest",
    "fit",
    "judge",
    "run",
    "save",
]
