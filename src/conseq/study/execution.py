"""Runs the jobs of a plan, trainings and analyses, each in a process of its own, resumable, within a budget of time."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from conseq.cores import SHARED_CORES, cores
from conseq.data.files import atomic_write
from conseq.run.config import RunConfig
from conseq.run.watching import handling
from conseq.study.asked import Asked
from conseq.study.child import STOPPED
from conseq.study.equal_code import EQUAL_CODE, read_equal_code
from conseq.study.folders import LOGS, is_of_code, is_of_log, put_aside
from conseq.study.logs import prepared
from conseq.study.plan import Job
from conseq.study.records import Record, alone, identity, is_finished, read_records, record_of, write_records

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
        interrupted: Whether it was asked to stop, by Ctrl-C or SIGTERM.
    """

    records: list[Record] = field(default_factory=list)
    stopped: list[Job] = field(default_factory=list)
    failed: list[tuple[Job, str]] = field(default_factory=list)
    interrupted: bool = False


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
    found: Path  # where an analysis leaves its result


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
        budget: Seconds after which nothing goes on; None: no limit. What was begun can be gone on with.
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
                    if work.left and (started := _started(work, results, processes, done, say)) is not None:
                        running.append(started)
                if _over(deadline):
                    break
                time.sleep(_POLL)
                ended = [one for one in running if _ended(one, results, done, say)]
                running = [one for one in running if one not in ended]
                waiting = [one.work for one in ended if one.work.left] + waiting
    except KeyboardInterrupt:
        say("stopping: every run saves its state")
        done.interrupted = True
    finally:  # whatever went wrong here, no run is left without anybody who waits for it
        done.stopped += _stop(running) + [work.job for work in waiting]
    return done


@contextmanager
def _interruptible() -> Iterator[None]:
    """Lets SIGTERM stop the runs as Ctrl-C does, and Ctrl-C even where a shell in the background ignores it."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with handling(stop):
        yield


def _works(jobs: Iterable[Job]) -> list[_Work]:
    """Gives each run once, though it may answer several rows, with all analyses that these ask for."""
    found: dict[Path, _Work] = {}
    for job in jobs:
        if job.to_do:
            to_train = job.state != "finished"
            # A finished run that is recorded is asked for an analysis alone: its record may be newer than its folder.
            work = found.setdefault(job.folder, _Work(job, to_train, to_train or job.record is None, analyses=[]))
            if job.asked is not None and job.asked.key not in {one.key for one in work.analyses}:
                work.analyses.append(job.asked)
    return list(found.values())


def _over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


def _started(work: _Work, results: Path, processes: int, done: Executed, say: Say) -> _Running | None:
    """Starts what comes next, or tells why it cannot be started: the other runs go on."""
    try:
        if work.to_train:
            _make_room(work.job, read_equal_code(results / EQUAL_CODE))
        return _start(work, processes, say)
    except (OSError, ValueError, KeyError) as error:
        work.give_up()
        done.failed.append((work.job, f"{type(error).__name__}: {error}"))
        say(f"failed: {_named(work.job)}: {error}")
        return None


def _make_room(job: Job, equal: Mapping[str, set[str]]) -> None:
    """Puts aside what was made of another version of the log, and of other code where that is to be replaced."""
    start = job.config.start
    replaced = job.state == "stale" and not is_of_code(job.folder, job.config, equal)
    if replaced or not is_of_log(job.folder, job.data_hash):
        put_aside(job.folder)
    if job.start is None or not isinstance(start, RunConfig) or (job.folder / "checkpoint.pt").exists():
        return  # weights that a run began with have no say in how it goes on
    if not is_of_log(job.start, job.data_hash) or not is_of_code(job.start, start, equal):
        put_aside(job.start)


def _start(work: _Work, processes: int, say: Say) -> _Running:
    """Starts what comes next: a training, or else the first of the analyses."""
    job = work.job
    logs = job.folder.parent / LOGS  # a pattern of folders of runs does not match what is in there
    logs.mkdir(parents=True, exist_ok=True)
    data = _log_of(job)
    asked, folder, out = None, job.folder, logs / "none"
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
        # Two studies may ask different things of one run at the same time.
        stem = f"{folder.name}.{hashlib.sha256(asked.key.encode()).hexdigest()[:8]}.{os.getpid()}"
        request, out = logs / f"{stem}.analysis.json", logs / f"{stem}.found.json"
        atomic_write(request, json.dumps(_section(asked, job, data), indent=1) + "\n")
        told = ["analyse", str(request.resolve()), str(data), str(folder.resolve()), str(out.resolve())]
        say(f"analyses: {_named(job)}: {asked.key}")
    log = logs / f"{folder.name}.log"
    with log.open("ab") as stream:
        # A table of items that an experiment names lies beside the log.
        # A session of its own: Ctrl-C reaches this process alone, which then asks each run to save.
        process = subprocess.Popen(
            [sys.executable, "-m", "conseq.study.child", str(os.getpid()), *told],
            stdout=subprocess.DEVNULL,
            stderr=stream,
            env=_environment(os.environ, processes),
            cwd=_beside(job, data),
            start_new_session=True,
        )
    return _Running(work, process, log, asked, folder, out)


def _environment(own: Mapping[str, str], processes: int) -> dict[str, str]:
    """Gives the environment of one of several processes, which work in another folder than this one."""
    paths = [str(Path(one).resolve()) for one in own.get("PYTHONPATH", "").split(os.pathsep) if one]
    threads = str(max(1, cores() // processes))
    if own.get("OMP_NUM_THREADS") == own.get(SHARED_CORES):  # the command line's choice for itself, and not the user's
        own = {name: value for name, value in own.items() if name != "OMP_NUM_THREADS"}
    return {"OMP_NUM_THREADS": threads, **own, **({"PYTHONPATH": os.pathsep.join(paths)} if paths else {})}


def _to_train(job: Job) -> tuple[RunConfig, Path]:
    """Gives the run that comes next: the one that the job's starts from, until that is finished; then its own."""
    start = job.config.start
    if job.start is not None and isinstance(start, RunConfig) and not is_finished(job.start):
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
        settings["items"] = str(_beside(job, data) / settings["items"])
    return {
        "analysis": {"name": asked.name, **settings},
        "history": job.row.history if asked.history is None else asked.history,
    }


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
        about = _named(work.job) if one.asked is None else f"{_named(work.job)}: {one.asked.key}"
        why = _last_words(one.log, status)
        done.failed.append((work.job, why))
        say(f"failed: {about}: {why} (all of it in {one.log})")
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
        _recorded_or_failed(work, results, done, say, made=one)
    return True


def _last_words(log: Path, status: int) -> str:
    if status < 0:  # what it wrote last is of its work, not of its end
        name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
        return f"killed by {name}" + (", as a system that lacks memory does" if name == "SIGKILL" else "")
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else f"status {status}"


def _recorded_or_failed(work: _Work, results: Path, done: Executed, say: Say, *, made: _Running | None = None) -> None:
    """Records a finished run, or its analysis; where that fails, the others go on and the next call tries again."""
    try:
        with alone(results / "records"):  # what one reads, merges and writes no other changes meanwhile
            if made is None or made.asked is None:
                _finish(work.job, results, done, say)
            else:
                _add(made.asked, made.found, work.job, results, done, say)
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


def _add(asked: Asked, out: Path, job: Job, results: Path, done: Executed, say: Say) -> None:
    """Puts what an analysis found into the record of its run."""
    found = json.loads(out.read_text(encoding="utf-8"))
    if (found["analysis"], found["settings"]) != (asked.name, json.loads(json.dumps(asked.settings))):
        raise ValueError(f"{out} holds {found['analysis']} with {found['settings']}; expected {asked.key}")
    own = record_of(job.folder, job.told)
    file, record = _recorded(results, own)
    if file is None or record is None:
        raise KeyError(f"no record of the run under {results}")
    if own["both"] != record["both"]:
        raise ValueError(
            f"the run in {job.folder} is not the one that {file} records: its metrics differ. Move the folder away, "
            "and the same command trains it anew"
        )
    record = {**record, "analyses": {**record["analyses"], asked.key: found}}
    write_records(file, [record])
    for used in (out, out.with_name(out.name.replace(".found.", ".analysis."))):
        used.unlink(missing_ok=True)
    done.records = [record if identity(one) == identity(record) else one for one in done.records]
    say(f"done: {_named(job)}: {asked.key}; recorded in {file}")


def _recorded(results: Path, record: Record) -> tuple[Path | None, Record | None]:
    """Gives the record of the same run, and its file: a run that answers several tables is recorded once.

    Where it stands in several files all the same, that is the last of them, which is the one that is read.
    """
    found: tuple[Path | None, Record | None] = (None, None)
    for file in sorted(results.rglob("*.jsonl")):
        for one in read_records(file):
            if identity(one) == identity(record):
                found = file, one
    return found


def _log_of(job: Job) -> Path:
    if job.data is None:
        raise FileNotFoundError(f"{_named(job)}: its log is not there")
    if job.origin is None:
        return job.data.resolve()
    return prepared(job.data, job.origin, job.folder.parent, job.data_hash).resolve()


def _beside(job: Job, data: Path) -> Path:
    """Gives the folder in which the files lie that a run's settings name: that of the log as it was given."""
    given = data if job.origin is None or job.data is None else job.data.resolve()
    return given if given.is_dir() else given.parent


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
