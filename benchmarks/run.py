"""Runs the benchmarks and prints what they measured; ``make bench`` calls it.

Writes ``benchmarks/out/bench.json`` (everything) and ``benchmarks/out/bench.md`` (the tables). A benchmark
that lacks its data or its environment is left out, with the reason; one that fails is named and makes the
exit status 1 after the others have run.

    python benchmarks/run.py
    python benchmarks/run.py --only sasrec matmul
    python benchmarks/run.py --thorough
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from measure import Measured, machine, measure

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Benchmark:
    """A script of this folder that prints a JSON object as its last line.

    The object may say ``"skipped": reason``. Its lists of objects are shown as tables, its plain values above them;
    what is nested deeper is only in the JSON file.

    Attributes:
        name: What ``--only`` calls it.
        title: What it answers.
        script: Its file name.
        quick: Arguments of the usual run.
        thorough: Arguments of the long one.
        threads: What its process may use.
    """

    name: str
    title: str
    script: str
    quick: str = ""
    thorough: str = ""
    threads: int = 2


BENCHMARKS = (
    Benchmark("matmul", "Matrix products per second at SASRec's shapes", "matmul_rate.py", "--seconds 0.1"),
    Benchmark(
        "sasrec",
        "SASRec on Beauty: an epoch and a full ranking, conseq beside RecBole",
        "sasrec_speed.py",
        "--rounds 1 --recbole-steps 40",
        "--rounds 3",
    ),
    Benchmark(
        "methods",
        "Every method beside SASRec: an epoch, memory, and where a step's time goes",
        "methods.py",
        "--batches 4 --rounds 2 --users 500 --profile 4",
        "--batches 0 --rounds 3",
    ),
    Benchmark("prepare", "Preparing a log from a file", "prepare.py"),
    Benchmark("serving", "Recommending from a bundle", "serving.py"),
    Benchmark("http", "The service under load: requests answered in batches, and one by one", "serving_http.py"),
)


@dataclass(frozen=True)
class Outcome:
    """What became of a benchmark.

    Attributes:
        benchmark: Which one.
        measured: Its cost and its report; None where it was skipped or failed.
        skipped: Why it was left out; empty where it was not.
        failed: How it failed; empty where it did not.
    """

    benchmark: Benchmark
    measured: Measured | None = None
    skipped: str = ""
    failed: str = ""


def outcome(benchmark: Benchmark, *, thorough: bool) -> Outcome:
    """Gives what became of ``benchmark``, run now."""
    script = HERE / benchmark.script
    if not script.exists():
        return Outcome(benchmark, skipped=f"no {benchmark.script}")
    arguments = shlex.split(benchmark.thorough if thorough else benchmark.quick)
    try:
        measured = measure([sys.executable, str(script), *arguments], threads=benchmark.threads)
    except subprocess.CalledProcessError as error:
        return Outcome(benchmark, failed=f"exit status {error.returncode}; see its messages above")
    if "skipped" in measured.reported:
        return Outcome(benchmark, skipped=str(measured.reported["skipped"]))
    if not measured.reported:
        return Outcome(benchmark, failed=f"{benchmark.script} printed no JSON object as its last line")
    return Outcome(benchmark, measured)


def markdown(outcomes: Sequence[Outcome]) -> str:
    """Gives the report of all ``outcomes``."""
    about = ", ".join(f"{name} {value}" for name, value in machine().items())
    parts = ["# Benchmarks", about]
    for each in outcomes:
        parts.append(f"## {each.benchmark.title}")
        if each.measured is None:
            parts.append(f"skipped: {each.skipped}" if each.skipped else f"FAILED: {each.failed}")
            continue
        report, usage = each.measured.reported, each.measured.usage
        parts += _tables(report)
        load = "{:.1f} before, {:.1f} after".format(*each.measured.load)
        parts.append(f"`{each.benchmark.script}`: {usage.cpu_s:.0f} CPU s, {usage.wall_s:.0f} s; load average {load}.")
    return "\n\n".join(parts) + "\n"


def _tables(report: Mapping[str, object]) -> list[str]:
    """Gives a report's plain values as one list, and each of its lists of objects as a table."""
    plain: list[str] = []
    tables: list[str] = []
    for name, value in report.items():
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            tables.append(table(value))
        elif isinstance(value, list):
            plain += [f"* {name}: {one}" for one in value]
        elif isinstance(value, dict) and any(isinstance(one, dict | list) for one in value.values()):
            continue  # details, for the JSON file
        elif isinstance(value, dict):
            plain.append(f"* {name}: " + ", ".join(f"{key} {_cell(one)}" for key, one in value.items()))
        else:
            plain.append(f"* {name}: {_cell(value)}")
    return [*(["\n".join(plain)] if plain else []), *tables]


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Gives ``rows`` as a markdown table; the columns are all names that occur, in order."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [
        columns,
        ["---"] * len(columns),
        *([_cell(row.get(name, "")) for name in columns] for row in rows),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    """Gives a value as short text: numbers with four significant digits."""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1_000 else f"{value:.4g}"
    return str(value).replace("|", "\\|")


def main() -> int:
    """Runs the chosen benchmarks, writes the two files and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[one.name for one in BENCHMARKS], help="run just these")
    parser.add_argument("--thorough", action="store_true", help="whole epochs and several rounds: hours")
    parser.add_argument("--out", type=Path, default=HERE / "out")
    options = parser.parse_args()
    chosen = [one for one in BENCHMARKS if not options.only or one.name in options.only]
    outcomes = []
    for one in chosen:
        print(f"{one.name}: {one.title} ...", file=sys.stderr, flush=True)
        outcomes.append(outcome(one, thorough=options.thorough))
    text = markdown(outcomes)
    options.out.mkdir(parents=True, exist_ok=True)
    record = {"machine": machine(), "benchmarks": [asdict(one) for one in outcomes]}
    (options.out / "bench.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (options.out / "bench.md").write_text(text, encoding="utf-8")
    print(text)
    return 1 if any(one.failed for one in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
