"""What an epoch of every method costs beside SASRec, and where the time of a step goes.

Each method runs with the settings of its experiment file, `released` where there is one. A measurement is a fresh
process; inside it, windows of random batches of the method and of SASRec (`next_item` with the same loss, instances,
batch size and, where it is a SASRec, encoder; MCLSR, whose sampled items a batch shares, beside the full softmax)
alternate over the same examples, round by round. An epoch is what `begin_epoch` cost plus the window's cost scaled to
all batches of an epoch, which have equal numbers of examples.

    python benchmarks/methods.py                           Beauty where it is there, else a synthetic log
    python benchmarks/methods.py --data synthetic --only cl4srec duorec
    python benchmarks/methods.py --batches 0 --rounds 3    whole epochs instead of windows
    python benchmarks/methods.py --out methods.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conseq.run.provenance import commit
from measure import Measured, machine, measure

HERE = Path(__file__).resolve().parent
EXPERIMENTS = HERE.parent / "experiments"

NOTES = {
    "CPU s": "user and system seconds of an epoch, one thread, the median of the rounds",
    "times SASRec": "ratio of both within a round, the median of the rounds",
    "wall s, 2 threads": "of an epoch; says nothing where other work runs on the machine",
    "peak MiB": "largest resident memory of a fresh process up to the end of the method's first window, "
    "interpreter, libraries and log included",
    "before MiB": "what of it was there before the method was made",
    "tokens": "items that encoders read in an epoch, thousands: each item and mask of each history and view, "
    "each time that it is encoded",
    "tokens per CPU s": "thousands",
}
"""What the columns mean."""


INSTEAD = ("toys", "beauty", "sports")
"""Logs of like histories, whose experiment files stand in for those that a method does not have."""


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        name: In the table.
        method: Its folder of experiments.
        path: The experiment.
        stage: One of the stages that methods_worker.py knows.
    """

    name: str
    method: str
    path: Path
    stage: str = ""


def cases(dataset: str, experiments: Path = EXPERIMENTS) -> list[Case]:
    """Gives what is measured: a case for each method, more for those that change on the way.

    Args:
        dataset: Whose experiment files are read where a method has one.
        experiments: A folder for each method.

    Returns:
        The cases.
    """
    found: list[Case] = []
    for folder in sorted(one for one in experiments.iterdir() if one.is_dir()):
        name, released, paper = folder.name, _file(folder, dataset, "released"), _file(folder, dataset, "paper")
        usual = released or paper
        if usual is None:
            continue
        if name == "ec4srec" and paper is not None:
            found.append(Case("ec4srec (SSL), explained", name, usual, "explained"))
            found.append(Case("ec4srec (combined), explained", name, paper, "explained"))
            found.append(Case("ec4srec, an update", name, paper, "update"))
        elif name == "ecl_sr":
            found.append(Case("ecl_sr, generator trained", name, usual, "trained"))
            found.append(Case("ecl_sr, generator frozen", name, usual, "frozen"))
        elif name in ("s3rec", "dssrec"):
            found.append(Case(f"{name}, pretraining", name, usual))  # afterwards it is SASRec
        else:
            found.append(Case(name, name, usual))
    return found


def _file(folder: Path, dataset: str, preset: str) -> Path | None:
    """Gives a method's experiment of a preset: that of the dataset, or else of the next best; None: no such."""
    known = {one.name.partition(".")[0]: one for one in sorted(folder.glob(f"*.{preset}.toml"))}
    return next((known[name] for name in (dataset, *INSTEAD, *known) if name in known), None)


def log_of(data: str | None) -> str:
    """Gives the log to measure on: what was asked for, or Beauty where it is there, or the word ``synthetic``."""
    if data is not None:
        return data
    shared = Path(os.environ.get("CONSEQ_SHARED", HERE.parents[1] / "shared"))
    beauty = shared / "data" / "beauty" / "interactions.parquet"
    return str(beauty) if beauty.exists() else "synthetic"


def run(case: Case, threads: int, options: argparse.Namespace) -> Measured:
    """Gives the measurement of a case by a fresh process."""
    command = [sys.executable, str(HERE / "methods_worker.py"), "--experiment", str(case.path), "--stage", case.stage]
    command += ["--data", options.data, "--threads", str(threads), "--batches", str(options.batches)]
    command += ["--rounds", str(options.rounds), "--users", str(options.users)]
    command += ["--profile", str(options.profile if threads == 1 else 0)]
    return measure(command, threads=threads)


def row(case: Case, one: Mapping[str, Any], two: Mapping[str, Any] | None) -> dict[str, object]:
    """Gives the table's row of a case.

    Args:
        case: What was measured.
        one: What the worker reported with one thread.
        two: With two; None where that was not asked for.

    Returns:
        The row.
    """
    found: dict[str, object] = {"": case.name, "settings": case.path.stem, "batches": one.get("batches", "")}
    found |= {"CPU s": one["cpu_s"], "SASRec's": one["sasrec"]["cpu_s"]}
    found["times SASRec"] = one.get("ratio", one["cpu_s"] / one["sasrec"]["cpu_s"])
    if two is not None:
        found["wall s, 2 threads"] = two["wall_s"]
    found |= {"peak MiB": round(one["peak_mib"]), "before MiB": round(one["before_mib"])}
    if "tokens" in one:
        found |= {"tokens": round(one["tokens"] / 1e3), "tokens per CPU s": one["tokens"] / one["cpu_s"] / 1e3}
    return found


def shares(case: Case, one: Mapping[str, Any]) -> dict[str, object]:
    """Gives the row of the profile's table: percent of a step by kind of work, those that the method has."""
    profile = one["profile"]["shares"]
    return {"": case.name, **{f"{kind} %": round(100 * share, 1) for kind, share in profile.items()}}


def setting(options: argparse.Namespace, reports: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """Gives what the table's figures mean."""
    about = reports[0]["log"]
    log = Path(options.data).parent.name if options.data != "synthetic" else "synthetic log"
    window = f"windows of {options.batches} random batches, scaled to an epoch" if options.batches else "whole epochs"
    said: dict[str, object] = {
        "log": f"{log}: {about['users']} users, {about['items']} items, {about['interactions']} interactions",
        "rounds": f"{options.rounds}, method and SASRec in turn; {window}",
        "versions": reports[0]["versions"],
        "commit": commit(),
    }
    sampled = {report["scaled from"] for report in reports if report.get("scaled from")}
    if sampled:
        said["the update is scaled from"] = ", ".join(sampled)
    return {**said, "columns": NOTES}


def main() -> int:
    """Measures the chosen cases and prints a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a log, or the word synthetic; Beauty where it is there")
    parser.add_argument("--dataset", default="beauty", help="whose experiment files are read where there are such")
    parser.add_argument("--only", nargs="+", help="methods, by name")
    parser.add_argument("--stage", nargs="+", help="of those, only these stages")
    parser.add_argument("--batches", type=int, default=12, help="of a window; 0: all of an epoch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--users", type=int, default=0, help="whose prefixes an update explains; 0: all, for a minute")
    parser.add_argument("--profile", type=int, default=12, help="steps that are profiled; 0: none")
    parser.add_argument(
        "--one-thread",
        action="store_true",
        help="leave the runs with two threads out: on a busy machine their threads wait for one another for minutes",
    )
    parser.add_argument("--out", type=Path, help="a file for the JSON object")
    options = parser.parse_args()
    options.data = log_of(options.data)
    known = cases(options.dataset)
    chosen = [one for one in known if not options.only or one.method in options.only]
    chosen = [one for one in chosen if not options.stage or one.stage in options.stage]
    if not chosen:
        parser.error(f"nothing to measure; methods: {', '.join(dict.fromkeys(one.method for one in known))}")
    rows, where, details = [], [], {}
    for case in chosen:
        runs = {threads: run(case, threads, options) for threads in ((1,) if options.one_thread else (1, 2))}
        reports: dict[int, Mapping[str, Any]] = {threads: one.reported for threads, one in runs.items()}
        rows.append(row(case, reports[1], reports.get(2)))
        print(rows[-1], file=sys.stderr, flush=True)
        if "profile" in reports[1]:
            where.append(shares(case, reports[1]))
        details[case.name] = {str(threads): {**one.reported, "load": one.load} for threads, one in runs.items()}
    said = setting(options, [one["1"] for one in details.values()])
    record = {"machine": machine(), **said, "rows": rows, "a step": where, "runs": details}
    if options.out is not None:
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
