"""The model so far of a run that is not finished."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from conseq.data.log import InteractionLog
from conseq.run.config import RunConfig, from_record, read_experiment
from conseq.run.folder import CONFIG, read_config
from conseq.run.runner import build, data_record
from conseq.run.saving import save_encoder
from conseq.training import checkpoint

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Snapshot:
    """What was written, and how far the run had come.

    Attributes:
        best_epoch: The epoch whose weights were written: of those validated so far the best.
        epochs: Epochs that were over.
        metric: What validation picks by.
        value: Its value at ``best_epoch``.
    """

    best_epoch: int
    epochs: int
    metric: str
    value: float


def snapshot(run: Path, log: InteractionLog, out: Path) -> Snapshot:
    """Writes the bundle of a run that is not finished: the weights of the best epoch so far.

    The run is only read. It may go on meanwhile, and ends as it would have. The test part is left alone.

    Args:
        run: The run's folder.
        log: What it is trained on.
        out: Where the bundle goes; an older one there is replaced.

    Returns:
        How far the run had come.

    Raises:
        FileNotFoundError: if ``run`` is no run, or has saved nothing yet.
        FileExistsError: if ``out`` is a file, or holds anything besides a bundle.
        ValueError: if the run is finished, has validated no epoch yet, is in a first stage or of another log, or its
            folder is damaged; if ``out`` is inside it.
    """
    config = _config(run)
    _check(run, data_record(log)["hash"], out)
    path = run / CHECKPOINT
    try:
        state = checkpoint.load(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{run} has saved nothing yet: there is no {CHECKPOINT}") from None
    stopping, epochs = state["stopping"], int(state["epoch"]) - 1
    if not state["best"]:
        raise ValueError(
            f"{run}: no epoch that counts was validated yet ({epochs} of {config.training.epochs} are over)"
        )
    with torch.random.fork_rng([]):
        method = build(config, config.split.cut(log), torch.device("cpu"), item_ids=log.item_ids)
    if epochs <= method.first_epochs < config.training.epochs:
        raise ValueError(
            f"{run}: the first stage of {type(method).__name__} goes on until epoch {method.first_epochs}, and what it "
            f"trains is not the model yet ({epochs} are over)"
        )
    try:
        method.load_state_dict(state["best"])
    except RuntimeError as error:
        raise ValueError(f"{path}: belongs to another configuration: {error}") from None
    method.eval()
    found = Snapshot(int(stopping["best_epoch"]), epochs, config.training.metric, float(stopping["best"]))
    unfinished = {"epochs": epochs, "of": config.training.epochs}
    save_encoder(method.encoder, config, log, out, best_epoch=found.best_epoch, metrics={}, unfinished=unfinished)
    return found


def _check(run: Path, data_hash: str, out: Path) -> None:
    """Refuses another log than the run's, a finished run, and a place inside it."""
    own = read_config(run).get("data", {}).get("hash")
    if own != data_hash:
        raise ValueError(
            f"{run} is trained on another log: its hash there is {str(own)[:12]}…, that of the log given is "
            f"{data_hash[:12]}…"
        )
    if (run / "bundle").is_dir():
        raise ValueError(f"{run} is finished; its bundle is {run / 'bundle'}")
    if out.resolve() == run.resolve() or run.resolve() in out.resolve().parents:
        raise ValueError(f"{out} is inside the run's own folder, which is only read; choose another place")


def _config(run: Path) -> RunConfig:
    path = run / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{run} is not the folder of a run: there is no {CONFIG}")
    return from_record(read_experiment(path), source=str(path))
