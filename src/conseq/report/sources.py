"""What a report is made of: records, and the folders of trained models."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conseq.run.config import own_encoder
from conseq.run.folder import CONFIG, read_config
from conseq.serving.bundle import is_bundle
from conseq.study.folders import ASIDE, LOGS
from conseq.study.records import Record, Told, identity, is_finished, read_records, record_of
from conseq.study.specification import Table, load_table
from conseq.tuning.search import SEARCH

_OF_RUNS = frozenset({"runs", "run", "tuned", "models", "bundles", ""})


@dataclass(frozen=True)
class Sources:
    """What was found.

    Attributes:
        records: Of all files of records, and of finished runs that no file tells of.
        models: Folders of finished runs and bundles.
    """

    records: list[Record]
    models: list[Path]


def collect(inputs: Sequence[Path], say: Callable[[str], None]) -> Sources:
    """Gives the records and the models of some files and folders.

    Args:
        inputs: Files of records (``.jsonl``), run folders, bundles, or folders that hold any of them.
        say: Takes a line about each run that is left out.

    Returns:
        What was found, in the order of inputs and names.

    Raises:
        FileNotFoundError: if an input does not exist.
        ValueError: if an input holds nothing of use, or a damaged record.
    """
    files: list[Path] = []
    folders: list[Path] = []
    for path in inputs:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; expected records (.jsonl), a run's folder or a bundle")
        own = ([path], []) if path.is_file() else _inside(path)
        if not any(own):
            raise ValueError(f"{path} holds neither records (.jsonl) nor runs nor bundles")
        files += own[0]
        folders += own[1]
    records = [record for file in dict.fromkeys(files) for record in read_records(file)]
    known = {identity(one) for one in records}
    models = [folder for folder in dict.fromkeys(folders) if _is_whole(folder, say)]
    whole = []
    for folder in models:
        try:
            record = _record(folder, say) if (folder / CONFIG).exists() else None
        except ValueError as error:  # of another version, damaged, or of a method that is not there
            say(f"{folder} is left out: {error}")
            continue
        whole.append(folder)
        if record is not None and identity(record) not in known:
            records.append(record)
    return Sources(records, whole)


def tables_of(experiments: Path | None) -> list[Table]:
    """Gives the papers' tables under a folder, by study and data set; none where there is no folder."""
    if experiments is None:
        return []
    if not experiments.is_dir():
        raise FileNotFoundError(f"{experiments} is no folder; expected that of the papers' tables")
    return [load_table(file) for file in sorted(experiments.glob("*/*/*.toml"))]


def _inside(root: Path) -> tuple[list[Path], list[Path]]:
    """Gives the files of records and the models under a folder; a run is not looked into."""
    files, folders = [], []
    for place, names, found in os.walk(root):
        folder = Path(place)
        if CONFIG in found or is_bundle(folder):
            folders.append(folder)
            names.clear()
            continue
        # What was put aside, and what processes wrote, is nothing to show.
        names[:] = sorted(set(names) - {ASIDE, LOGS})
        if SEARCH in found:  # of the trials of a search, the winner alone is judged
            folders += [run for run in sorted((folder / "trials").glob("*")) if is_finished(run)]
            names.clear()
            continue
        files += [file for name in sorted(found) if name.endswith(".jsonl") and _may_be_records(file := folder / name)]
    return files, folders


def _may_be_records(file: Path) -> bool:
    """Gives whether a file that nobody named may hold records: not where its first line is JSON of another kind."""
    try:
        with file.open(encoding="utf-8") as stream:
            first = json.loads(stream.readline())
    except (OSError, UnicodeDecodeError):
        return False
    except ValueError:  # a damaged line of a record is told when it is read
        return True
    return isinstance(first, dict) and bool({"config_hash", "metrics"} & first.keys())


def _is_whole(folder: Path, say: Callable[[str], None]) -> bool:
    """Gives whether a folder is a bundle or that of a finished run."""
    whole = not (folder / CONFIG).exists() or is_finished(folder)
    if not whole:
        say(f"{folder} is left out: its run is not finished")
    return whole


def _record(folder: Path, say: Callable[[str], None]) -> Record | None:
    """Gives the record of a finished run; None where it was made before runs told of their code."""
    written = read_config(folder)
    if "code" not in written:
        say(f"{folder}: the model alone is shown; its run did not record what code made it")
        return None
    told = Told(
        study="",
        row=_called(written["method"]["name"], written["encoder"]["name"]),
        variant="",
        preset="",
        dataset=dataset_of(folder, written.get("data")),
        history=written["training"]["history"],
    )
    return record_of(folder, told)


def _called(method: str, encoder: str) -> str:
    """Gives what to call a run that no table names: its method, and the encoder where that is not the usual one."""
    usual = method != "next_item" and encoder == own_encoder(method)
    return method if usual else f"{method} ({encoder})"


def dataset_of(folder: Path, data: Mapping[str, Any] | None) -> str:
    """Gives what the data of a run are called.

    Args:
        folder: The run's folder, or that of a bundle.
        data: What the run says of its log.

    Returns:
        The name of the folder around it, or around the search that it belongs to (``runs/beauty/iclrec-…``); where that
        is one that folders of runs are usually called, the name of the log's file.
    """
    folder = folder.resolve()
    search = folder.parent.parent
    name = search.parent.name if (search / SEARCH).is_file() else folder.parent.name
    if name not in _OF_RUNS:
        return name
    source = (data or {}).get("source") or {}
    file = str(source.get("name") or "") if isinstance(source, Mapping) else ""
    stem = file.partition(".")[0] if source and source.get("format") != "table" else ""
    return stem or name
