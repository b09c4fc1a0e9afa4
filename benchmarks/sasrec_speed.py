"""SASRec on Beauty, conseq beside RecBole: an epoch, a full ranking, memory, and where conseq's time goes.

    python benchmarks/sasrec_speed.py                          windows of RecBole's epoch, one thread
    python benchmarks/sasrec_speed.py --recbole-steps 0        its whole epoch
    python benchmarks/sasrec_speed.py --epochs 5 --curve --recbole-steps 0      and the quality after each pass

The sides run in turn, ``--rounds`` times; the table holds medians. Where RecBole cannot run, conseq is
measured alone, and the output says why.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from measure import Measured, alternate, machine, medians
from recbole_sasrec import CHANGES, beauty, environment, environments, worker

HERE = Path(__file__).resolve().parent

INSTANCES = {"prefixes": "256 prefixes", "whole": "256 histories, all their prefixes in one pass"}
"""The two ways of batching, and what a batch holds."""

RECBOLE = "RecBole 1.2.1"


def commands(options: argparse.Namespace, data: Path, recbole: Path | None) -> dict[str, list[str]]:
    """Gives the command of each side by name.

    Args:
        options: The command line.
        data: The log.
        recbole: The Python of RecBole's environment; None: without it.

    Returns:
        The commands, without the threads.
    """
    curve = ["--curve"] if options.curve else []
    seed = ["--seed", str(options.seed)]
    sides: dict[str, list[str]] = {}
    if recbole is not None:
        amount = {"epochs": options.epochs, "steps": options.recbole_steps, "windows": options.recbole_windows}
        sides[RECBOLE] = [*worker(recbole, data, **amount), *seed, "--evaluate", "1", *curve]
    for instances in options.instances:
        script = [sys.executable, str(HERE / "conseq_worker.py"), "--data", str(data), "--instances", instances]
        script += ["--epochs", str(options.epochs), "--precision", options.precision]
        sides[f"conseq, {instances}"] = [*script, *seed, *curve]
    return sides


def row(name: str, threads: int, runs: Sequence[Measured], base: Mapping[str, float] | None) -> dict[str, object]:
    """Gives the table's row of one side.

    Args:
        name: The side.
        threads: What it used.
        runs: Its measurements.
        base: RecBole's medians; None where it did not run.

    Returns:
        Medians, and how many times less than RecBole.
    """
    middle = medians(runs)
    instances = name.partition(", ")[2] or "prefixes"
    found: dict[str, object] = {"": name, "threads": threads, "a batch": INSTANCES[instances]}
    columns = {
        "steps": "steps",
        "epoch CPU s": "epoch.cpu_s",
        "epoch wall s": "epoch.wall_s",
        "training peak MiB": "epoch.peak_mib",
        "ranking CPU s": "evaluation.cpu_s",
        "ranking peak MiB": "evaluation.peak_mib",
        "HR@20": "metrics.HR@20",
        "NDCG@20": "metrics.NDCG@20",
    }
    found |= {title: middle[key] for title, key in columns.items() if key in middle}
    if base is not None:
        for title in ("epoch CPU s", "training peak MiB", "ranking CPU s", "ranking peak MiB"):
            found[f"{title}: times less"] = base[columns[title]] / middle[columns[title]]
    return found


def phases(name: str, threads: int, runs: Sequence[Measured]) -> list[dict[str, object]]:
    """Gives where an epoch's CPU seconds go, in the last run of a side of conseq."""
    rows = runs[-1].reported.get("phases", [])
    assert isinstance(rows, list)
    return [{"": name, "threads": threads, **each} for each in rows]


def setting(options: argparse.Namespace, runs: Mapping[str, Sequence[Measured]]) -> dict[str, object]:
    """Gives what the table's figures mean."""
    said: dict[str, object] = {
        "setting": "Beauty, leave-one-out, width 64, 2 layers, 2 heads, inner width 256, length 50, "
        "dropout 0.5, full softmax, Adam 0.001, batches of 256",
        "epoch": "one pass over 131,413 next items, without evaluation",
        "ranking": "22,363 test users against 12,101 items, history kept; metrics after "
        f"{options.epochs} pass(es), where RecBole trained whole epochs",
        "rounds": f"{options.rounds}, in turn; medians",
    }
    if RECBOLE in runs:
        timed = runs[RECBOLE][0].reported.get("timed")
        said["RecBole's epoch"] = f"scaled: {timed}" if timed else "timed whole"
        said["changes to run RecBole"] = list(CHANGES)
    return said


def main() -> int:
    """Measures all sides and prints a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--instances", nargs="+", choices=list(INSTANCES), default=list(INSTANCES))
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="conseq's")
    parser.add_argument("--recbole-steps", type=int, default=40, help="steps in a window; 0: whole epochs")
    parser.add_argument("--recbole-windows", type=int, default=3)
    parser.add_argument("--no-recbole", action="store_true")
    parser.add_argument("--curve", action="store_true", help="also the test metrics after each epoch")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        data = beauty()
    except FileNotFoundError as reason:
        print(json.dumps({"skipped": str(reason)}))
        return 0
    report: dict[str, object] = {"machine": machine()}
    recbole = None
    if not options.no_recbole:
        try:
            recbole = environment(environments() / "recbole")
        except (ValueError, subprocess.CalledProcessError) as reason:
            report["without RecBole"] = str(reason)
    rows: list[dict[str, object]] = []
    where: list[dict[str, object]] = []
    runs: dict[str, list[Measured]] = {}
    details: dict[str, object] = {}
    for threads in options.threads:
        sides = commands(options, data, recbole)
        timed = {name: [*command, "--threads", str(threads)] for name, command in sides.items()}
        runs = alternate(timed, threads=threads, rounds=options.rounds)
        base = medians(runs[RECBOLE]) if RECBOLE in runs else None
        for name, each in runs.items():
            rows.append(row(name, threads, each, base))
            where += phases(name, threads, each)
            details[f"{name}, {threads} threads"] = [{**one.reported, "load": one.load} for one in each]
    print(json.dumps({**report, **setting(options, runs), "rows": rows, "phases": where, "runs": details}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
