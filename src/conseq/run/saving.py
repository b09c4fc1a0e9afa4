"""The bundle of a trained encoder, and what it tells of where it comes from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from conseq.data.log import InteractionLog
from conseq.encoders.encoder import Encoder
from conseq.run.config import RunConfig
from conseq.run.provenance import versions
from conseq.serving.bundle import save_bundle


def save_encoder(
    encoder: Encoder,
    config: RunConfig,
    log: InteractionLog,
    folder: Path,
    *,
    best_epoch: int,
    metrics: Mapping[str, Mapping[str, float]],
    **more: Any,
) -> None:
    """Writes the bundle that serves an encoder.

    Args:
        encoder: The encoder.
        config: The experiment that it is of.
        log: What it was trained on; gives the outside ids.
        folder: Where the bundle goes.
        best_epoch: The epoch of the weights.
        metrics: Of the test part, by protocol.
        **more: What else the bundle tells, as JSON values.
    """
    provenance = {
        **config.record(),
        "data": data_record(log),
        "versions": versions(),
        "best_epoch": best_epoch,
        "metrics": dict(metrics),
        **more,
    }
    counts = np.bincount(log.items, minlength=log.n_items + 1)[1:]
    save_bundle(encoder, config.encoder, log.item_ids, folder, provenance, counts=counts)


def data_record(log: InteractionLog) -> dict[str, Any]:
    """Gives what identifies a log in a run's record."""
    counts = {"users": log.n_users, "items": log.n_items, "interactions": len(log)}
    source = log.manifest.get("source")
    return {"source": source, "hash": log.manifest.get("data_hash") or digest(log), **counts}


def digest(log: InteractionLog) -> str:
    """Gives the SHA-256 of a log that was made in a program: of its sequences, times and outside ids."""
    found = hashlib.sha256()
    for array in (log.items, log.offsets, log.times):
        if array is not None:
            found.update(np.ascontiguousarray(array).data)
    for ids in (log.user_ids, log.item_ids):
        found.update(json.dumps(ids.ids).encode())
    return found.hexdigest()
