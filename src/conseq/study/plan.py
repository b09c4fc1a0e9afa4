"""What a study still has to run, and about how long that takes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from conseq.analyses import analysis
from conseq.run.config import RunConfig
from conseq.study.asked import Asked, outdated
from conseq.study.folders import is_of_log
from conseq.study.logs import Logs, Origin
from conseq.study.records import Record, Told, is_finished, stale
from conseq.study.specification import Row, Table
from conseq.training.config import TrainingConfig

State = Literal["recorded", "stale", "finished", "begun", "to run", "no data"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run that a table asks for.

    Attributes:
        row: The row that it answers.
        config: The experiment, with its seed.
        data: The log, or the one that it is prepared from; None where it is not there.
        folder: The run's folder.
        state: Whether it is recorded, finished but not recorded, begun, or still to run; ``stale`` is recorded by
            other code or other settings.
        record: The record, where there is one.
        seconds: An estimate of how long it takes; 0 where nothing is to do, None where nothing like it was recorded.
        asked: The analysis of the row that is to be made; None where there is none, or it is recorded.
        start: The folder of the run that this one starts from; None where it starts at random.
        start_seconds: How much of ``seconds`` is that run's: rows that start from one run share it.
        data_hash: The log's hash; None where it is not there.
        origin: How the log is prepared from ``data``; None where it is that.
    """

    row: Row
    config: RunConfig
    data: Path | None
    folder: Path
    state: State
    record: Record | None
    seconds: float | None
    asked: Asked | None = None
    start: Path | None = None
    start_seconds: float = 0.0
    data_hash: str | None = None
    origin: Origin | None = None

    @property
    def told(self) -> Told:
        """What the record needs to know beside the run's folder."""
        row = self.row
        return Told(row.study, row.name, row.variant, str(row.preset), row.dataset, row.history)

    @property
    def to_do(self) -> bool:
        """Whether there is something to run or to record."""
        return self.state in {"finished", "begun", "to run", "stale"}


def plan(
    tables: Sequence[Table], logs: Logs, records: Sequence[Record], *, seeds: int, runs: Path, again: bool = False
) -> list[Job]:
    """Gives the runs of some tables, the cheapest first; one that answers several rows is told once for each.

    Args:
        tables: The tables.
        logs: Where the data are.
        records: What is recorded already.
        seeds: How many seeds of each row.
        runs: The folder of the runs' folders.
        again: Whether stale records are replaced by new runs.

    Returns:
        The jobs.
    """
    jobs = [
        _job(row, config, logs, records, runs=runs, again=again)
        for table in tables
        for row in table.rows
        for config in row.seeded(seeds)
    ]
    return sorted(jobs, key=lambda job: (job.seconds is None, job.seconds or 0.0))


def _job(row: Row, config: RunConfig, logs: Logs, records: Sequence[Record], *, runs: Path, again: bool) -> Job:
    facts = logs.facts(row.dataset)
    data_hash = None if facts is None else str(facts["hash"])
    folder = _folder(runs, row, config)
    start = _folder(runs, row, config.start) if isinstance(config.start, RunConfig) else None
    record = find(records, config, row.dataset, data_hash)
    again = again and facts is not None
    anew = record is not None and again and stale(record, config) != ""
    asked = row.asked if record is None or anew or _lacks(row.asked, record, config, again=again) else None
    state: State
    if record is not None and not anew and asked is None:
        state = "recorded"
    elif facts is None:
        state = "no data"
    elif anew:
        state = "stale"
    elif not is_of_log(folder, data_hash):
        state = "to run"
    elif is_finished(folder):
        state = "finished"
    else:
        state = "begun" if (folder / "checkpoint.pt").exists() else "to run"
    job = Job(
        row=row,
        config=config,
        data=logs.path(row.dataset),
        folder=folder,
        state=state,
        record=record,
        seconds=None,
        asked=asked,
        start=start,
        data_hash=data_hash,
        origin=logs.origins.get(row.dataset),
    )
    return job if facts is None else _estimated(job, records, int(facts["interactions"]))


def _estimated(job: Job, records: Sequence[Record], interactions: int) -> Job:
    """Gives a job with about how long it takes."""
    own = _seconds(job, records, interactions)
    before = _start_seconds(job, records, interactions)
    total = None if own is None or before is None else own + before
    return replace(job, seconds=total, start_seconds=before or 0.0)


def _start_seconds(job: Job, records: Sequence[Record], interactions: int) -> float | None:
    """Gives about how long the run takes that a job starts from, 0 where there is none or it is there already."""
    start = job.config.start
    if job.state not in {"to run", "begun", "stale"} or job.start is None or not isinstance(start, RunConfig):
        return 0.0
    own_log = is_of_log(job.start, job.data_hash)
    if own_log and is_finished(job.start):
        return 0.0
    done = _epochs_done(job.start) if own_log else 0
    return estimate(start, records, job.row.dataset, interactions, done=done)


def _seconds(job: Job, records: Sequence[Record], interactions: int) -> float | None:
    """Gives about how long a job's own run and analysis take; None where that cannot be told."""
    config, dataset = job.config, job.row.dataset
    times: list[float | None] = []
    if job.state in {"to run", "begun", "stale"}:
        done = _epochs_done(job.folder) if job.state == "begun" else 0
        times.append(estimate(config, records, dataset, interactions, done=done))
    if job.asked is not None and analysis(job.asked.name).trains:
        # A model for each group takes about as long as the run: the groups make up the log.
        times.append(estimate(config, records, dataset, interactions))
    known = [one for one in times if one is not None]
    return sum(known) if len(known) == len(times) else None


def _folder(runs: Path, row: Row, config: RunConfig) -> Path:
    return runs / row.dataset / f"{config.method_name.split(':')[-1]}-{config.digest}"


def _lacks(asked: Asked | None, record: Record, config: RunConfig, *, again: bool) -> bool:
    """Gives whether a record lacks what a row asks for, or is to have it anew."""
    found = None if asked is None else asked.of(record)
    return asked is not None and (found is None or (again and outdated(found, record, config) != ""))


def find(records: Sequence[Record], config: RunConfig, dataset: str, data_hash: str | None) -> Record | None:
    """Gives the record of an experiment on a log; the newest line where there are several.

    Args:
        records: The records.
        config: The experiment.
        dataset: The log's name.
        data_hash: The log's hash; None: any version of it.

    Returns:
        The record, or None.
    """
    digest = config.digest
    for record in reversed(records):
        same_data = record["dataset"] == dataset and data_hash in {None, record["data_hash"]}
        if record["config_hash"] == digest and same_data:
            return record
    return None


def estimate(
    config: RunConfig, records: Sequence[Record], dataset: str, interactions: int, *, done: int = 0
) -> float | None:
    """Gives how long a run may take: the epochs that are left times the seconds of one, as the most similar runs had.

    Args:
        config: The experiment.
        records: The records.
        dataset: The log's name.
        interactions: Its size.
        done: Epochs that the run has behind it.

    Returns:
        Seconds of wall time, on the machines of those records; of another log in proportion to the interactions.
        None where no run of the method is recorded.
    """
    same = [one for one in records if one["method"] == config.method_name and one["epochs"]]
    loss = getattr(config.method, "loss", "")
    for key, value in (
        ("instances", config.training.instances),
        ("encoder", config.encoder_name),
        ("loss", loss),
        ("dataset", dataset),
    ):
        same = [one for one in same if one[key] == value] or same
    if not same:
        return None
    # An epoch passes once over the log, whatever the number of epochs; a total of seconds says nothing of it.
    epoch = statistics.median(
        (one["seconds"] + one.get("validation_seconds", 0.0))
        / one["epochs"]
        * interactions
        / one["data"]["interactions"]
        for one in same
    )
    return float(epoch * max(_last_epoch(config.training, same) - done, 1))


def _last_epoch(training: TrainingConfig, same: Sequence[Record]) -> float:
    """Gives the epoch at which training may end: the best one of similar runs and the patience, within the limits."""
    if training.patience is None:
        return training.epochs
    best = statistics.median(float(one.get("best_epoch") or one["epochs"]) for one in same)
    return min(max(best + training.patience * training.every, training.not_before, 1), training.epochs)


def _epochs_done(folder: Path) -> int:
    file = folder / "metrics.jsonl"
    return len(file.read_text(encoding="utf-8").splitlines()) if file.exists() else 0
