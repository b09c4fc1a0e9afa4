"""CPU seconds, wall seconds and peak memory of commands, alone or side by side.

Needs nothing but the standard library, so that it runs in any environment that a benchmark makes.

    python benchmarks/measure.py --threads 1 "python a.py"
    python benchmarks/measure.py --threads 1 --rounds 3 "python a.py" "python b.py"

With two commands the runs alternate (A, B, A, B, ...), so that both meet the same state of the machine,
and the medians and their ratio B / A are given. A command may print a JSON object as the last line of its
standard output: its numbers are kept beside the measured ones and join the medians and ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
)


@dataclass(frozen=True)
class Usage:
    """What a piece of work cost.

    Attributes:
        cpu_s: User and system seconds, over all threads (and, of a command, all its descendants).
        wall_s: Seconds on the clock.
        peak_mib: Largest resident memory, MiB (of a command: of its largest process).
    """

    cpu_s: float
    wall_s: float
    peak_mib: float


@dataclass(frozen=True)
class Measured:
    """One run of a command.

    Attributes:
        usage: What it cost.
        load: The machine's load average over one minute, before and after.
        reported: The JSON object on the last line of its standard output; empty where there is none.
    """

    usage: Usage
    load: tuple[float, float]
    reported: dict[str, object]


def measure(command: Sequence[str], *, threads: int, environment: Mapping[str, str] | None = None) -> Measured:
    """Gives the cost of one run of ``command`` with ``threads`` threads.

    Call it from a small process: Linux counts the memory of the calling process at the moment of the
    start as the command's own.

    Args:
        command: The program and its arguments. Its standard error is passed on.
        threads: What the thread variables of the usual numeric libraries are set to.
        environment: Further variables.

    Returns:
        The measurement.

    Raises:
        ValueError: if ``threads`` is not positive.
        subprocess.CalledProcessError: if the command fails; ``output`` is what it printed.
        KeyboardInterrupt: passed on, after the command was ended.
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1, found {threads}")
    variables = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), **(environment or {})}
    load_before, started = os.getloadavg()[0], time.perf_counter()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as printed:
        process = subprocess.Popen(list(command), stdout=printed, env=variables)
        try:
            _, status, used = os.wait4(process.pid, 0)
        except KeyboardInterrupt:
            process.kill()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - started
        printed.seek(0)
        output = printed.read()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(command), output)
    usage = Usage(used.ru_utime + used.ru_stime, wall, _mebibytes(used.ru_maxrss))
    return Measured(usage, (load_before, os.getloadavg()[0]), last_json(output))


def metered(work: Callable[[], T]) -> tuple[T, Usage]:
    """Gives what ``work()`` gives, and what it cost inside this process.

    The peak memory is that during the work where the system can reset it (Linux), else of the process so far.

    Args:
        work: Called once.

    Returns:
        Its result and its cost.
    """
    _reset_peak()
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    usage = Usage(time.process_time() - cpu, time.perf_counter() - wall, _peak_mib())
    return result, usage


def alternate(commands: Mapping[str, Sequence[str]], *, threads: int, rounds: int) -> dict[str, list[Measured]]:
    """Gives the measurements of several commands, run in turn ``rounds`` times.

    Args:
        commands: Commands by name.
        threads: As in :func:`measure`.
        rounds: How often each is run.

    Returns:
        The measurements by name, in the order of the rounds.
    """
    runs: dict[str, list[Measured]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            runs[name].append(measure(command, threads=threads))
    return runs


def medians(runs: Sequence[Measured]) -> dict[str, float]:
    """Gives the median of every number that all ``runs`` have, by dotted name."""
    flat = [{**numbers(asdict(run.usage)), **numbers(run.reported)} for run in runs]
    shared = [name for name in flat[0] if all(name in one for one in flat)]
    return {name: statistics.median(one[name] for one in flat) for name in shared}


def ratios(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """Gives ``second / first`` of every number that both have, where the first is not zero."""
    return {name: second[name] / first[name] for name in first if name in second and first[name]}


def numbers(values: Mapping[str, object], prefix: str = "") -> dict[str, float]:
    """Gives the numbers within nested mappings, by dotted name; not those in lists."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found.update(numbers(value, f"{prefix}{name}."))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{prefix}{name}"] = float(value)
    return found


def last_json(output: str) -> dict[str, object]:
    """Gives the JSON object on the last line of ``output``, or an empty one."""
    lines = output.strip().splitlines()
    if not lines or not lines[-1].startswith("{"):
        return {}
    try:
        value: dict[str, object] = json.loads(lines[-1])
    except json.JSONDecodeError:
        return {}
    return value


def machine() -> dict[str, object]:
    """Gives what the figures depend on: processor, cores, memory, system, Python."""
    model = platform.processor()
    described = Path("/proc/cpuinfo")
    if described.exists():
        names = [line for line in described.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def _mebibytes(maxrss: int) -> float:
    """Gives ``ru_maxrss`` in MiB: it counts KiB, on macOS bytes."""
    return maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _reset_peak() -> None:
    """Makes the peak resident memory start again from what is resident now, where the system can."""
    switch = Path("/proc/self/clear_refs")
    if switch.exists():
        switch.write_text("5")


def _peak_mib() -> float:
    """Gives the peak resident memory since the last reset, MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    return _mebibytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def main() -> int:
    """Measures the one or two commands given, and prints a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="+", help="one command, or two to compare, each as one quoted word")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1, help="how often each command is run")
    options = parser.parse_args()
    if len(options.commands) > 2:
        parser.error(f"one or two commands, found {len(options.commands)}")
    commands = {name: shlex.split(text) for name, text in zip("ab", options.commands, strict=False)}
    runs = alternate(commands, threads=options.threads, rounds=options.rounds)
    middle = {name: medians(each) for name, each in runs.items()}
    record: dict[str, object] = {"threads": options.threads, "machine": machine(), "median": middle}
    if len(commands) == 2:
        record["b_over_a"] = ratios(middle["a"], middle["b"])
    record["runs"] = {name: [asdict(one) for one in each] for name, each in runs.items()}
    print(json.dumps(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
