"""``conseq demo``: the main job, from a log to recommendations, on a built-in synthetic log."""

from __future__ import annotations

import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

TRAINING = (
    "--instances whole --batch-size 128 --epochs 30 --patience 5 --every 2 --metric NDCG@10 --encoder.dropout 0.2"
)


@dataclass(frozen=True)
class Options:
    """Write a synthetic log, prepare it, train SASRec on it, judge it, and recommend from it."""

    folder: Path | None = None
    """Where everything goes and stays; a temporary folder that is removed where not given."""
    users: int = 2000
    """Users of the synthetic log."""
    seed: int = 0
    """Of the synthetic log."""


def run(argv: list[str]) -> int:
    """Runs the commands that a user would give, each shown before it runs."""
    options = tyro.cli(Options, prog="conseq demo", args=argv)
    if options.folder is not None:
        return _demo(options.folder, options)
    with tempfile.TemporaryDirectory(prefix="conseq-demo-") as folder:
        return _demo(Path(folder), options)


def _demo(folder: Path, options: Options) -> int:
    from conseq.data.files import atomic_write
    from conseq.data.synthetic import synthetic, write_csv

    log, _ = synthetic(n_users=options.users, seed=options.seed)
    events = folder / "events.csv"
    with tempfile.TemporaryDirectory(prefix="conseq-demo-") as own:
        write_csv(log, Path(own) / events.name)
        content = (Path(own) / events.name).read_bytes()
    if events.exists() and events.read_bytes() != content:
        raise ValueError(f"{events} is there already and is not the demo's log; choose another --folder")
    atomic_write(events, content)
    print(f"a synthetic log of {log.n_users} users, {log.n_items} items, {len(log)} interactions: {events}", flush=True)
    rows = log.items[log.offsets[0] : log.offsets[1]]
    history = " ".join(log.item_ids.decode(rows[-6:]))
    data, run_folder = folder / "prepared", folder / "run"
    commands = [
        ["prepare", str(events), str(data), "--k-core", "5"],
        ["train", "next_item", str(data), "--run", str(run_folder), *TRAINING.split()],
        ["evaluate", str(run_folder), str(data), "--history", "exclude"],
        ["recommend", str(run_folder / "bundle"), "--history", history, "-k", "5"],
    ]
    return max(_show(command) for command in commands)


def _show(command: list[str]) -> int:
    from conseq.cli.main import main

    print(f"\n$ conseq {shlex.join(command)}", flush=True)
    status = main(command)
    sys.stdout.flush()
    return status
