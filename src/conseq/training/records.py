"""What a run leaves behind while it trains: ``metrics.jsonl``, TensorBoard events, progress for the eye."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from conseq.data.files import atomic_write, naming
from conseq.training.trainer import Watcher


class Watchers:
    """Several watchers as one."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self.watchers = list(watchers)

    def batch_done(self, epoch: int, batch: int, n_batches: int) -> None:
        """Tells each."""
        for one in self.watchers:
            one.batch_done(epoch, batch, n_batches)

    def epoch_done(self, record: dict[str, Any]) -> None:
        """Tells each."""
        for one in self.watchers:
            one.epoch_done(record)

    def rewind(self, epoch: int) -> None:
        """Tells each."""
        for one in self.watchers:
            one.rewind(epoch)


class MetricsFile:
    """One JSON object per epoch, in a file of lines.

    Args:
        path: The file; it is appended to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def batch_done(self, epoch: int, batch: int, n_batches: int) -> None:
        """Nothing is recorded per batch."""

    def epoch_done(self, record: dict[str, Any]) -> None:
        """Appends the record."""
        with naming(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())  # before the checkpoint of the epoch: a power cut leaves no epoch without its line

    def rewind(self, epoch: int) -> None:
        """Drops the lines of later epochs, which a killed process may have left (the last may be cut short)."""
        if not self.path.exists():
            return
        kept = [json.dumps(record) for record in read_metrics(self.path) if record["epoch"] <= epoch]
        atomic_write(self.path, "".join(line + "\n" for line in kept))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Gives the records of a metrics file; a last line that was cut short by a kill is left out.

    Args:
        path: The file; none gives no records.

    Returns:
        A record per epoch.

    Raises:
        ValueError: if another line than the last is damaged.
    """
    if not path.exists():
        return []
    records, lines = [], path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: not a JSON object: {line[:80]!r}") from None
    return records


class TensorBoard:
    """Scalars of every epoch for TensorBoard.

    Args:
        folder: Where the events go.

    Raises:
        ModuleNotFoundError: if the package tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter  # noqa: PLC0415  (an extra, and slow to import)
        except ModuleNotFoundError:
            raise ModuleNotFoundError("TensorBoard events need the extra: pip install 'conseq[tensorboard]'") from None
        self.folder = folder
        self.make = SummaryWriter
        self.writer: Any = None

    def batch_done(self, epoch: int, batch: int, n_batches: int) -> None:
        """Nothing is recorded per batch."""

    def epoch_done(self, record: dict[str, Any]) -> None:
        """Writes terms and metrics."""
        writer = self.writer = self.writer or self.make(str(self.folder))
        for kind in ("terms", "metrics"):
            for name, value in record.get(kind, {}).items():
                writer.add_scalar(f"{kind}/{name}", value, record["epoch"])
        writer.flush()

    def rewind(self, epoch: int) -> None:
        """Makes TensorBoard forget later epochs."""
        if epoch == 0 and not self.folder.exists():
            return
        self.writer = self.make(str(self.folder), purge_step=epoch + 1)


class EpochLines:
    """A line per epoch, for logs and pipes.

    Args:
        metric: The validation metric that is shown.
        epochs: Most epochs.
        stream: Where lines go; standard error where None.
    """

    def __init__(self, metric: str, epochs: int, stream: TextIO | None = None) -> None:
        self.metric = metric
        self.epochs = epochs
        self.stream = stream

    def batch_done(self, epoch: int, batch: int, n_batches: int) -> None:
        """Nothing is shown per batch."""

    def epoch_done(self, record: dict[str, Any]) -> None:
        """Prints the line."""
        print(self.line(record), file=self.stream or sys.stderr, flush=True)

    def line(self, record: dict[str, Any]) -> str:
        """Gives the line of a record."""
        still = record.get("without_gradient", ())
        parts = [f"epoch {record['epoch']}/{self.epochs}"]
        parts += [f"{k} {v:.4f}{' (no gradient)' if k in still else ''}" for k, v in record["terms"].items()]
        if "metrics" in record:
            parts.append(f"validation {self.metric} {record['metrics'][self.metric]:.4f}")
            parts.append(f"best epoch {record['best_epoch']}")
        return "  ".join([*parts, f"{record['seconds']:.1f} s"])

    def rewind(self, epoch: int) -> None:
        """Says where training goes on."""
        if epoch:
            print(f"resuming after epoch {epoch}", file=self.stream or sys.stderr, flush=True)


class ProgressBar(EpochLines):
    """A bar for the current epoch with the remaining time, above it a line per epoch.

    Args:
        metric: The validation metric that is shown.
        epochs: Most epochs.
    """

    def __init__(self, metric: str, epochs: int) -> None:
        super().__init__(metric, epochs)
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("of the epoch, at most {task.fields[left]} for all"),
            console=Console(stderr=True),
            transient=True,
        )
        self.task: TaskID | None = None
        self.begun = time.monotonic()
        self.seen = 0

    def batch_done(self, epoch: int, batch: int, n_batches: int) -> None:
        """Moves the bar."""
        if self.task is None:
            self.progress.start()
            self.task = self.progress.add_task("", total=n_batches, epoch=epoch, left="?")
        self.seen += 1
        each = (time.monotonic() - self.begun) / self.seen
        left = each * ((self.epochs - epoch + 1) * n_batches - batch)
        self.progress.update(self.task, completed=batch, total=n_batches, epoch=epoch, left=_duration(left))

    def epoch_done(self, record: dict[str, Any]) -> None:
        """Prints the epoch's line above the bar."""
        self.progress.console.print(self.line(record), highlight=False)

    def close(self) -> None:
        """Takes the bar away."""
        self.progress.stop()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
