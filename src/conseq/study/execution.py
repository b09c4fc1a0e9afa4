"""Runs the jobs of a plan, trainings and analyses, each in a process of its own, resumable, within a budget of time."""

from __future__ import annotations

import itertools
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

from conseq.data.files import atomic_write
from conseq.run.config import RunConfig
from conseq.run.provenance import code_hash, cores
from conseq.study.asked import Asked
from conseq.study.child import STOPPED
from conseq.study.plan import Job
from conseq.study.records import Record, identity, is_finished, read_records, record_of, write_records

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
class _Work:
    """What is left to do in a run's folder, one process at a time: analyses of one run may share what they train."""

    job: Job
    to_train: bool
    to_record: bool
    analyses: list[Asked]

    @property
    def left(self) -> bool:
        return self.to_train or self.to_record or bool(self.analyses)

    def give_up(self) -> None:
        self.to_train = self.to_record = False
        self.analyses = []


@dataclass
class _Running:
    work: _Work
    process: subprocess.Popen[bytes]
    log: Path
    asked: Asked | None  # None: it trains
    folder: Path  # of the run that is worked on: the job's own, or the one that this starts from


def execute(
    jobs: Sequence[Job], results: Path, *, processes: int = 1, budget: float | None = None, say: Say = print
) -> Executed:
    """Runs what is to do, and records it.

    A record is written as soon as its run is finished, and again after each analysis. Ctrl-C, or the end of the
    budget, lets every process save its state; the same call goes on from there.

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
    waiting = _works(jobs)
    done = Executed()
    running: list[_Running] = []
    deadline = None if budget is None else time.monotonic() + budget
    try:
        with _interruptible():
            while waiting or running:
                while len(running) < processes and not _over(deadline):
                    work = _next(waiting, running)
                    if work is None:
                        break
                    if work.to_record and not work.to_train:
                        _recorded_or_failed(work, results, done, say)
                    if work.left:
                        running.append(_start(work, processes, say))
                if _over(deadline):
                    break
                time.sleep(_POLL)
                ended = [one for one in running if _ended(one, results, done, say)]
                running = [one for one in running if one not in ended]
                waiting = [one.work for one in ended if one.work.left] + waiting
    except KeyboardInterrupt:
        say("stopping: every run saves its state")
    finally:  # whatever went wrong here, no run is left without anybody who waits for it
        done.stopped += _stop(running) + [work.job for work in waiting]
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


def _works(jobs: Iterable[Job]) -> list[_Work]:
    """Gives each run once, though it may answer several rows, with all analyses that these ask for."""
    found: dict[Path, _Work] = {}
    for job in jobs:
        if job.to_do:
            work = found.setdefault(job.folder, _Work(job, job.state != "finished", to_record=True, analyses=[]))
            if job.asked is not None and job.asked.key not in {one.key for one in work.analyses}:
                work.analyses.append(job.asked)
    return list(found.values())


def _over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


def _start(work: _Work, processes: int, say: Say) -> _Running:
    """Starts what comes next: a training, or else the first of the analyses."""
    job = work.job
    if job.state == "stale" and work.to_train:
        _put_aside(job.folder, job.config)
    logs = job.folder.parent / "logs"  # a pattern of folders of runs does not match what is in there
    logs.mkdir(parents=True, exist_ok=True)
    data = _log_of(job)
    asked, folder = None, job.folder
    if work.to_train:
        config, folder = _to_train(job)
        request = logs / f"{folder.name}.json"
        atomic_write(request, json.dumps(config.record(), indent=1) + "\n")
        told = ["train", str(request.resolve()), str(data), str(folder.resolve())]
        if folder != job.folder:
            say(f"begins: what {_named(job)} starts from, in {folder}")
        else:
            told += [] if job.start is None else [str(job.start.resolve())]
            say(f"begins: {_named(job)} in {folder}")
    else:
        asked = work.analyses[0]
        request = logs / f"{folder.name}.analysis.json"
        atomic_write(request, json.dumps(_section(asked, job, data), indent=1) + "\n")
        out = _found_by(job)
        told = ["analyse", str(request.resolve()), str(data), str(folder.resolve()), str(out.resolve())]
        say(f"analyses: {_named(job)}: {asked.key}")
    log = logs / f"{folder.name}.log"
    threads = max(1, cores() // processes)
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    with log.open("ab") as stream:
        # A table of items that an experiment names lies beside the log.
        # A session of its own: Ctrl-C reaches this process alone, which then asks each run to save.
        process = subprocess.Popen(
            [sys.executable, "-m", "conseq.study.child", str(os.getpid()), *told],
            stdout=subprocess.DEVNULL,
            stderr=stream,
            env=environment,
            cwd=data if data.is_dir() else data.parent,
            start_new_session=True,
        )
    return _Running(work, process, log, asked, folder)


def _to_train(job: Job) -> tuple[RunConfig, Path]:
    """Gives the run that comes next: the one that the job's starts from, until that is finished; then its own."""
    start = job.config.start
    if job.start is not None and isinstance(start, RunConfig):
        _put_aside(job.start, start)
        if not is_finished(job.start):
            return start, job.start
    return job.config, job.folder


def _next(waiting: list[_Work], running: Sequence[_Running]) -> _Work | None:
    """Takes the first work out of those waiting whose runs nobody trains: two may start from the same one."""
    busy = {one.folder for one in running}
    for work in waiting:
        if not busy & {work.job.folder, *([work.job.start] if work.to_train and work.job.start else [])}:
            waiting.remove(work)
            return work
    return None


def _section(asked: Asked, job: Job, data: Path) -> dict[str, Any]:
    """Gives what a row asks of a finished run; files that its settings name lie beside the log."""
    settings = dict(asked.given)
    if isinstance(settings.get("items"), str):
        settings["items"] = str((data if data.is_dir() else data.parent) / settings["items"])
    return {
        "analysis": {"name": asked.name, **settings},
        "history": job.row.history if asked.history is None else asked.history,
    }


def _found_by(job: Job) -> Path:
    """Gives where the process of an analysis leaves its result."""
    return job.folder.parent / "logs" / f"{job.folder.name}.found.json"


def _put_aside(folder: Path, asked: RunConfig) -> None:
    """Moves the folder of a run that other code made; one that this code began is gone on with."""
    config = folder / "config.json"
    if not config.exists():
        return
    made_by = json.loads(config.read_text(encoding="utf-8")).get("code", [])
    if {one["hash"] for one in made_by} != {code_hash(asked)}:
        aside = folder.parent / "aside"
        aside.mkdir(exist_ok=True)
        stem = f"{folder.name}.{made_by[-1]['hash'] if made_by else 'old'}"
        names = (stem if number == 1 else f"{stem}.{number}" for number in itertools.count(1))
        folder.rename(next(aside / name for name in names if not (aside / name).exists()))


def _ended(one: _Running, results: Path, done: Executed, say: Say) -> bool:
    """Gives whether a process has ended; takes note of what it did."""
    status = one.process.poll()
    if status is None:
        return False
    work = one.work
    if status == STOPPED:
        done.stopped.append(work.job)
        work.give_up()
    elif status != 0:
        lines = one.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [f"status {status}"]
        about = _named(work.job) if one.asked is None else f"{_named(work.job)}: {one.asked.key}"
        done.failed.append((work.job, lines[-1]))
        say(f"failed: {about}: {lines[-1]} (all of it in {one.log})")
        if one.asked is None:
            work.give_up()
        else:
            work.analyses.remove(one.asked)
    elif one.folder != work.job.folder:
        say(f"done: what {_named(work.job)} starts from")
    elif one.asked is None:
        work.to_train = False
        _recorded_or_failed(work, results, done, say)
    else:
        work.analyses.remove(one.asked)
        _recorded_or_failed(work, results, done, say, made=one.asked)
    return True


def _recorded_or_failed(work: _Work, results: Path, done: Executed, say: Say, *, made: Asked | None = None) -> None:
    """Records a finished run, or its analysis; where that fails, the others go on and the next call tries again."""
    try:
        if made is None:
            _finish(work.job, results, done, say)
        else:
            _add(made, work.job, results, done, say)
        work.to_record = False
    except (OSError, ValueError, KeyError) as error:
        work.give_up()
        done.failed.append((work.job, f"{type(error).__name__}: {error}"))
        say(f"finished but not recorded: {_named(work.job)}: {error}")


def _finish(job: Job, results: Path, done: Executed, say: Say) -> None:
    """Records a finished run; the analyses of an earlier record of it are kept where the same code made that."""
    record = record_of(job.folder, job.told)
    file, earlier = _recorded(results, record)
    file = file or results / f"{job.row.study}.jsonl"
    if earlier is not None:
        record |= {name: earlier[name] for name in ("study", "row", "variant", "preset")}
        if record["code_hash"] == earlier["code_hash"]:
            record["analyses"] |= earlier["analyses"]
    write_records(file, [record])
    done.records.append(record)
    say(f"done: {_named(job)}, {record['epochs']} epochs in {record['seconds']:.0f} s; recorded in {file}")


def _add(asked: Asked, job: Job, results: Path, done: Executed, say: Say) -> None:
    """Puts what an analysis found into the record of its run."""
    out = _found_by(job)
    found = json.loads(out.read_text(encoding="utf-8"))
    file, record = _recorded(results, record_of(job.folder, job.told))
    if file is None or record is None:
        raise KeyError(f"no record of the run under {results}")
    record = {**record, "analyses": {**record["analyses"], asked.key: found}}
    write_records(file, [record])
    out.unlink()
    done.records = [record if identity(one) == identity(record) else one for one in done.records]
    say(f"done: {_named(job)}: {asked.key}; recorded in {file}")


def _recorded(results: Path, record: Record) -> tuple[Path | None, Record | None]:
    """Gives the record of the same run, and its file: a run that answers several tables is recorded once."""
    for file in sorted(results.rglob("*.jsonl")):
        for one in read_records(file):
            if identity(one) == identity(record):
                return file, one
    return None, None


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
    return [one.work.job for one in running]


def _named(job: Job) -> str:
    preset = f", {job.row.preset}" if job.row.preset else ""
    return f"{job.row.study} {job.row.dataset}: {job.row.name}{preset}, seed {job.config.training.seed}"
