"""Trained models before their weights are read: what they are called, what made them, and which log is theirs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conseq.report.logs import KnownLogs
from conseq.report.sources import dataset_of
from conseq.run.config import SECTIONS, START, from_record
from conseq.run.folder import read_config
from conseq.serving.bundle import read_manifest
from conseq.study.records import Record

_CONFIG = "config.json"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A model on disk.

    Attributes:
        path: As it was named: a run's folder, or a bundle.
        folder: The folder of the run, where the bundle lies in one; else the bundle.
        name: As it is called, another name for each model of a report.
        dataset: The name of its log; of the folder that holds it where the log is not there.
        log: What its log is called among those that are there; None where it is not.
        missing: What is left out because the log is not there; empty where it is, or where no logs were given.
        provenance: What the bundle tells of its origin.
        code: What made the run, as it wrote itself: commit and machine, once for each time that they changed.
        record: What is recorded of the run; None: no record tells of it.
        digest: Of its settings; empty where it tells of none.
    """

    path: Path
    folder: Path
    name: str
    dataset: str
    log: str | None
    missing: str
    provenance: Mapping[str, Any]
    code: tuple[Mapping[str, Any], ...]
    record: Record | None
    digest: str

    @property
    def bundle(self) -> Path:
        """The folder of the bundle."""
        return self.folder / "bundle" if _is_run(self.folder) else self.folder

    @property
    def data_hash(self) -> str | None:
        """The hash of the data that it was trained on; None where it is not told."""
        return section(self.provenance, "data").get("hash")


def stored(paths: Sequence[Path], logs: KnownLogs | None, records: Sequence[Record] = ()) -> list[Stored]:
    """Gives the models of some folders, without their weights.

    The log of a model is the one that is called as the folder that holds the run (``runs/beauty/iclrec-…``) where that
    one has the hash that the bundle tells of, or else another one with that hash.

    Args:
        paths: Folders of runs, and bundles.
        logs: Where the logs are; None: nowhere.
        records: Records, some of them perhaps of these runs.

    Returns:
        The models in their order, with names that differ.

    Raises:
        FileNotFoundError: if there is no bundle.
        ValueError: if a manifest, or a log that is called as a model's folder, is damaged.
    """
    known = {(one["config_hash"], one["data_hash"]): one for one in records}
    return _told_apart([_stored(path, logs, known) for path in paths])


def section(provenance: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Gives a section of what a bundle tells of its origin; empty where there is none."""
    found = provenance.get(name)
    return dict(found) if isinstance(found, Mapping) else {}


def _stored(path: Path, logs: KnownLogs | None, known: Mapping[tuple[str, str], Record]) -> Stored:
    inside = path.name == "bundle" and _is_run(path.parent)
    folder = path.parent if inside else path
    manifest = read_manifest(folder)
    told = manifest.provenance
    called, wanted, digest = folder.resolve().parent.name, section(told, "data").get("hash"), _digest(told)
    log = None if logs is None else logs.trained_on(called, wanted)
    dataset = log or dataset_of(folder, section(told, "data"))
    method, seed = section(told, "method").get("name", manifest.encoder.name), section(told, "training").get("seed")
    return Stored(
        path=path,
        folder=folder,
        name=f"{method} on {dataset}" + ("" if seed is None else f", seed {seed}"),
        dataset=dataset,
        log=log,
        missing="" if logs is None or log is not None else _missing(logs, called, wanted),
        provenance=told,
        code=_code(folder),
        record=known.get((digest, str(wanted))),
        digest=digest,
    )


def _missing(logs: KnownLogs, called: str, wanted: str | None) -> str:
    left_out = "users, histories and titles are left out"
    if wanted is None:
        return f"{logs.root} has no log called {called!r}, and the model does not say which data it is of: {left_out}"
    other = f"the log called {called!r} is another one, and " if logs.has(called) else ""
    return f"{other}no log in {logs.root} has the hash of its data, {wanted[:12]}: {left_out}"


def _is_run(folder: Path) -> bool:
    return (folder / _CONFIG).exists()


def _code(folder: Path) -> tuple[Mapping[str, Any], ...]:
    if not _is_run(folder):
        return ()
    return tuple(read_config(folder).get("code") or ())


def _digest(provenance: Mapping[str, Any]) -> str:
    tables = {name: provenance[name] for name in (*SECTIONS, START) if name in provenance}
    try:
        return from_record(tables, source="the bundle").digest if set(SECTIONS) <= set(tables) else ""
    except ValueError:  # settings of an earlier version say what they are, but not to this one
        return ""


_APART: tuple[Callable[[Stored], str], ...] = (
    lambda one: f"config {one.digest}" if one.digest else "",
    lambda one: f"data {one.data_hash[:8]}" if one.data_hash else "",
    lambda one: one.path.name,
    lambda one: one.path.as_posix(),
)


def _told_apart(found: Sequence[Stored]) -> list[Stored]:
    """Gives models with names that say how those of one name differ."""
    done = list(found)
    for say in _APART:
        count = Counter(one.name for one in done)
        said = {name: {say(one) for one in done if one.name == name} for name, n in count.items() if n > 1}
        done = [
            replace(one, name=f"{one.name}, {say(one)}") if len(said.get(one.name, ())) > 1 and say(one) else one
            for one in done
        ]
    return done
