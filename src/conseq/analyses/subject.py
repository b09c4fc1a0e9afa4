"""What is analysed: a stored model, with the log that it is asked about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from conseq.data.log import InteractionLog
from conseq.data.splits import Split
from conseq.encoders.encoder import Encoder
from conseq.run.config import SECTIONS, START, RunConfig, from_record, read_experiment
from conseq.run.judging import cut_of, forget_other_users, renumber, tell_of_other_log
from conseq.run.runner import resolve_device
from conseq.serving.bundle import Bundle, load_bundle

Slicing = Literal["leave_one_out", "by_time", "by_user"]


@dataclass(frozen=True, eq=False)
class Subject:
    """A stored model and a log in the model's own numbering.

    Attributes:
        path: What was named: a run's folder, or a bundle.
        folder: The run's folder; None for a bundle by itself.
        bundle: The model, on its device.
        log: The log.
        split: The log as it was cut.
        device: Where to compute.
    """

    path: Path
    folder: Path | None
    bundle: Bundle
    log: InteractionLog
    split: Split
    device: torch.device

    @property
    def encoder(self) -> Encoder:
        """The model."""
        return self.bundle.encoder

    @property
    def experiment(self) -> RunConfig | None:
        """The experiment that made the model; None where nothing tells of it (published weights).

        Raises:
            ValueError: if what is told is no experiment of this version.
        """
        if self.folder is not None:
            source = self.folder / "config.json"
            return from_record(read_experiment(source), source=str(source))
        told: Mapping[str, Any] = {
            key: self.bundle.provenance[key] for key in (*SECTIONS, START) if key in self.bundle.provenance
        }
        if not set(SECTIONS) <= set(told):
            return None
        return from_record(told, source=f"{self.path}: the record of the experiment")


def subject_of(
    path: Path | str,
    log: InteractionLog,
    *,
    slicing: Slicing | None = None,
    unknown: Literal["error", "drop"] = "error",
    device: str = "auto",
) -> Subject:
    """Gives the model at ``path`` with ``log`` as its own numbering and its own cut have it.

    Args:
        path: A run's folder, or a bundle.
        log: The log, in any numbering.
        slicing: How the log is cut; None: as the model's record says, leave-one-out where it says nothing.
        unknown: What to do with items that the model does not know.
        device: Where to compute.

    Returns:
        The subject.

    Raises:
        FileNotFoundError: if there is no model.
        ValueError: if the log has unknown items and ``unknown`` is ``error``.
    """
    path = Path(path)
    is_run = (path / "config.json").exists()
    where = resolve_device(device)
    bundle = load_bundle(path, where)
    forget_other_users(bundle, log)
    own = renumber(log, bundle.item_ids, unknown=unknown)
    cut = cut_of(bundle, slicing)
    tell_of_other_log(bundle.provenance, cut, log)
    return Subject(path, path if is_run else None, bundle, own, cut.cut(own), where)
