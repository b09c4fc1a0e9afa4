"""Who is told how training goes, and what a signal does meanwhile."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Literal

from conseq.evaluation.metrics import parse as parse_metric
from conseq.run.config import RunConfig
from conseq.training.records import EpochLines, MetricsFile, ProgressBar, TensorBoard, Watchers
from conseq.training.trainer import Trainer, Watcher

Show = Literal["bar", "lines", "nothing"]


def watchers(
    config: RunConfig, folder: Path | None, *, show: Show, tensorboard: bool
) -> tuple[Watcher, ProgressBar | None]:
    """Gives who is told how training goes, and the bar among them, if it is shown.

    Args:
        config: The experiment.
        folder: The run's folder, which gets ``metrics.jsonl``; None: nothing is written.
        show: Progress on standard error.
        tensorboard: Whether TensorBoard events are written into the folder, too.

    Returns:
        The watcher for the trainer, and the bar, which must be closed; None where there is none.
    """
    metric, epochs = str(parse_metric(config.training.metric)), config.training.epochs
    watchers: list[Watcher] = []
    bar = ProgressBar(metric, epochs) if show == "bar" else None
    if bar is not None:
        watchers.append(bar)
    elif show == "lines":
        watchers.append(EpochLines(metric, epochs))
    if folder is not None:
        watchers.append(MetricsFile(folder / "metrics.jsonl"))
        if tensorboard:
            watchers.append(TensorBoard(folder / "tensorboard"))
    return Watchers(watchers), bar


@contextmanager
def finishing_the_step(trainer: Trainer) -> Iterator[None]:
    """Lets the first Ctrl-C (or SIGTERM) finish the step and save; the second one stops at once.

    Args:
        trainer: Is told of the first one, unless it has no folder to save to.

    Yields:
        Nothing; after the block signals do what they did before it.
    """
    if trainer.folder is None:
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if trainer.interrupted:
            raise KeyboardInterrupt
        trainer.interrupted = True
        print("\nfinishing the step and saving; interrupt again to stop at once", file=sys.stderr, flush=True)

    with handling(ask):
        yield


@contextmanager
def handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Gives SIGINT and SIGTERM to a handler; outside of the main thread, where none can be set, to nobody else.

    Args:
        handler: Takes the signal's number and the frame that it interrupts.

    Yields:
        Nothing; after the block the signals do what they did before it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, before in earlier.items():
            signal.signal(number, before)
