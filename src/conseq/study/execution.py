"""Runs the jobs of a plan: each in a process and a folder of its own, resumable, within a budget of time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from conseq.analyses import analyse
from conseq.data.files import atomic_write
from conseq.data.readers import read
from conseq.run.provenance import code_hash, cores
from conseq.study.plan import Job
from conseq.study.records import Record, identity, read_records, record_of, write_records

Say = Callable[[str], None]
_POLL = 0.2
_PATIENCE = 60.0  # seconds that a process has to save its state after it was asked to stop


@dataclass
class Executed:
    """What became of the jobs.

    Attributes:
        records: Of the runs that finished.
        stopped: Jobs that were begun and stopped with their state saved, or not begun at all, for lack of time.
        failed: Jobs whose process failed, with the last line that it wrote, or that could not be recorded.
    """

    records: list[Record] = field(default_factory=list)
    stopped: list[Job] = field(default_factory=list)
    failed: list[tuple[Job, str]] = field(default_factory=list)


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    log: Path


def execute(
    jobs: Sequence[Job], results: Path, *, processes: int = 1, budget: float | None = None, say: Say = print
) -> Executed:
    """Runs what is to do, and records it.

    A record is written as soon as its run is finished. Ctrl-C, or the end of the budget, lets every process save its
    state; the same call goes on from there.

    Args:
        jobs: The plan.
        results: The folder of the records.
        processes: How many runs go side by side; they share the cores.
        budget: Seconds after which nothing goes on; None: no limit. A run whose estimate does not fit into what is
            left is begun all the same if nothing else is running: it can be resumed.
        say: Takes a line of progress.

    Returns:
        What became of the jobs.
    """
    waiting = _once(job for job in jobs if job.to_do)
    done = Executed()
    running: list[_Running] = []
    deadline = None if budget is None else time.monotonic() + budget
    try:
        with _interruptible():
            while waiting or running:
                while waiting and len(running) < processes and not _over(deadline):
                    job = waiting.pop(0)
                    if job.state == "finished":
                        _recorded_or_failed(job, jobs, results, done, say)
                    else:
                        running.append(_start(job, processes))
                        say(f"begins: {_named(job)} in {job.folder}")
                if _over(deadline):
                    break
                time.sleep(_POLL)
                running = [one for one in running if not _ended(one, jobs, results, done, say)]
    except KeyboardInterrupt:
        say("stopping: every run saves its state")
    finally:  # whatever went wrong here, no run is left without anybody who waits for it
        done.stopped += _stop(running) + waiting
    return done


@contextmanager
def _interruptible() -> Iterator[None]:
    """Lets SIGTERM stop the runs as Ctrl-C does, and Ctrl-C even where a shell in the background ignores it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    earlier = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _once(jobs: Iterable[Job]) -> list[Job]:
    """Gives each run once, though it may answer several rows."""
    found: dict[Path, Job] = {}
    for job in jobs:
        found.setdefault(job.folder, job)
    return list(found.values())


def _over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


def _start(job: Job, processes: int) -> _Running:
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    if job.state == "stale":
        _put_aside(job)
    data = _log_of(job)
    experiment = job.folder.with_name(f"{job.folder.name}.json")
    atomic_write(experiment, json.dumps(job.config.record(), indent=1) + "\n")
    log = job.folder.with_name(f"{job.folder.name}.log")
    threads = max(1, cores() // processes)
    command = [
        *(sys.executable, "-m", "conseq.cli.main", "train", job.config.method_name, str(data)),
        *("--experiment", str(experiment.resolve()), "--run", str(job.folder.resolve()), "--json"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    with log.open("ab") as stream:
        # A table of items that an experiment names lies beside the log.
        # A session of its own: Ctrl-C reaches this process alone, which then asks each run to save.
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=stream,
            env=environment,
            cwd=data if data.is_dir() else data.parent,
            start_new_session=True,
        )
    return _Running(job, process, log)


def _put_aside(job: Job) -> None:
    """Renames the folder of a run that other code made; one that this code began is gone on with."""
    config = job.folder / "config.json"
    if not config.exists():
        return
    made_by = json.loads(config.read_text(encoding="utf-8")).get("code", [])
    if {one["hash"] for one in made_by} != {code_hash(job.config)}:
        aside = f"{job.folder.name}.{made_by[-1]['hash'] if made_by else 'old'}"
        job.folder.rename(job.folder.with_name(aside))


def _ended(one: _Running, jobs: Sequence[Job], results: Path, done: Executed, say: Say) -> bool:
    status = one.process.poll()
    if status is None:
        return False
    if status == 0:
        _recorded_or_failed(one.job, jobs, results, done, say)
    else:
        lines = one.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [f"status {status}"]
        done.failed.append((one.job, lines[-1]))
        say(f"failed: {_named(one.job)}: {lines[-1]} (all of it in {one.log})")
    return True


def _recorded_or_failed(job: Job, jobs: Sequence[Job], results: Path, done: Executed, say: Say) -> None:
    """Records a finished run; where that fails, the other runs go on and the next call tries again."""
    try:
        _finish(job, jobs, results, done, say)
    except (OSError, ValueError, KeyError) as error:
        done.failed.append((job, f"{type(error).__name__}: {error}"))
        say(f"finished but not recorded: {_named(job)}: {error}")


def _finish(job: Job, jobs: Sequence[Job], results: Path, done: Executed, say: Say) -> None:
    """Records a finished run, with the analyses that its rows ask for."""
    record = record_of(job.folder, job.told)
    file, earlier = _recorded(results, record)
    file = file or results / f"{job.row.study}.jsonl"
    if earlier is not None:
        record |= {name: earlier[name] for name in ("study", "row", "variant", "preset")}
        if record["code_hash"] == earlier["code_hash"]:
            record["analyses"] |= earlier["analyses"]
    for other in jobs:
        if other.folder == job.folder and other.row.analysis is not None:
            record["analyses"][other.row.analysis["name"]] = _analysed(other)
    write_records(file, [record])
    done.records.append(record)
    say(f"done: {_named(job)}, {record['epochs']} epochs in {record['seconds']:.0f} s; recorded in {file}")


def _recorded(results: Path, record: Record) -> tuple[Path | None, Record | None]:
    """Gives the record of the same run, and its file: a run that answers several tables is recorded once."""
    for file in sorted(results.rglob("*.jsonl")):
        for one in read_records(file):
            if identity(one) == identity(record):
                return file, one
    return None, None


def _analysed(job: Job) -> dict[str, Any]:
    """Gives what the row of a finished run asks for; files that its settings name lie beside the log."""
    settings = {**(job.row.analysis or {})}
    name = settings.pop("name")
    data = _log_of(job)
    if isinstance(settings.get("items"), str):
        settings["items"] = str((data if data.is_dir() else data.parent) / settings["items"])
    return analyse(name, settings, job.folder, read(str(data)), history=job.row.history)


def _log_of(job: Job) -> Path:
    if job.data is None:
        raise FileNotFoundError(f"{_named(job)}: its log is not there")
    return job.data.resolve()


def _stop(running: Sequence[_Running]) -> list[Job]:
    for one in running:
        one.process.send_signal(signal.SIGINT)
    for one in running:
        try:
            one.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            one.process.kill()
    return [one.job for one in running]


def _named(job: Job) -> str:
    preset = f", {job.row.preset}" if job.row.preset else ""
    return f"{job.row.study} {job.row.dataset}: {job.row.name}{preset}, seed {job.config.training.seed}"
