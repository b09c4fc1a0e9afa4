"""SASRec of RecBole 1.2.1 on Beauty: cost of an epoch over prefixes and of a full ranking.

RecBole gets an environment of its own (``benchmarks/.envs/recbole``, or under ``$CONSEQ_BENCH_ENVS``), made
at the first run. ``CHANGES`` lists all that is done so that it runs; its own files stay as published.

    python benchmarks/recbole_sasrec.py --threads 1 --epochs 1
    python benchmarks/recbole_sasrec.py --threads 1 --steps 60 --windows 3

An epoch has 514 steps and takes minutes. ``--steps`` times windows of consecutive steps of one shuffled
epoch and scales the median window to the whole epoch; the output says ``"scaled": true``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import venv
from dataclasses import asdict
from pathlib import Path

from measure import machine, measure

HERE = Path(__file__).resolve().parent

PINS = (
    "recbole==1.2.1",
    "numpy==1.23.5",
    "pandas==1.5.3",
    "scipy==1.10.1",
    "scikit-learn==1.2.2",
    "colorlog==4.7.2",
    "colorama==0.4.4",
    "tqdm==4.67.1",
    "pyyaml==6.0.2",
    "texttable==1.7.0",
    "tensorboard==2.18.0",
    "protobuf==5.29.3",
    "absl-py==2.1.0",
    "packaging==24.2",
    "joblib==1.4.2",
    "threadpoolctl==3.5.0",
    "python-dateutil==2.9.0.post0",
    "pytz==2024.2",
    "six==1.17.0",
)
"""Everything in RecBole's environment but torch and what torch needs."""

TORCH = ("torch", "torchgen", "functorch", "nvidia", "triton")
"""Packages of the present environment that RecBole's is given as they are, where they exist."""

TORCH_NEEDS = (
    "filelock",
    "fsspec",
    "jinja2",
    "markupsafe",
    "mpmath",
    "networkx",
    "setuptools",
    "sympy",
    "typing_extensions",
)
"""What torch imports, taken over in the present versions."""

CHANGES = (
    "numpy 1.23.5, because RecBole uses names that later ones removed (np.float, np.float_); "
    "pandas 1.5.3, scipy 1.10.1 and scikit-learn 1.2.2, because later ones need a later numpy",
    "installed without ray, thop, plotly, tabulate and psutil, which its quick start, FLOP counter, "
    "tuning and printout of the environment import; hence its Config, create_dataset, "
    "data_preparation, SASRec and Trainer are called directly, as its run_recbole calls them",
    "torch is the very build that conseq runs on, linked from the present environment",
    "the weights in memory are evaluated, none are saved and loaded again: torch >= 2.6 refuses to "
    "load its checkpoints",
)
"""All that was done so that RecBole runs."""


def environment(folder: Path) -> Path:
    """Gives the Python of RecBole's environment, which is made where it is missing or of other pins.

    Args:
        folder: Where the environment is or shall be.

    Returns:
        The path of its interpreter.

    Raises:
        ValueError: if this is not Python 3.11. Where pip fails, its error is passed on.
    """
    if sys.version_info[:2] != (3, 11):
        found = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise ValueError(f"RecBole needs numpy 1.23, whose last wheels are for Python 3.11; this is Python {found}")
    python, record = folder / "bin" / "python", folder / "made.json"
    wanted = json.dumps([*PINS, f"torch=={importlib.metadata.version('torch')}", *_torch_needs()])
    if record.exists() and record.read_text() == wanted:
        return python
    venv.create(folder, clear=True, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--only-binary", ":all:", *PINS, *_torch_needs()], check=True, stdout=sys.stderr)
    _link_torch(folder / "lib" / "python3.11" / "site-packages")
    record.write_text(wanted)
    return python


def _torch_needs() -> list[str]:
    """Gives the pins of what torch imports, in the versions of the present environment."""
    return [f"{name}=={importlib.metadata.version(name)}" for name in TORCH_NEEDS]


def _link_torch(packages: Path) -> None:
    """Makes the present environment's torch importable from the folder ``packages``."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        raise ValueError("no torch in the present environment: install conseq first")
    source = Path(found.origin).parents[1]
    described = [one.name for one in source.glob("torch-*.dist-info")]
    for name in [*TORCH, *described]:
        if (source / name).exists():
            (packages / name).symlink_to(source / name)


def worker(python: Path, data: Path, *, epochs: int = 1, steps: int = 0, windows: int = 3) -> list[str]:
    """Gives the command of recbole_worker.py, without threads, seed and evaluation."""
    amount = {"--epochs": epochs, "--steps": steps, "--windows": windows}
    numbers = [word for name, value in amount.items() for word in (name, str(value))]
    return [str(python), str(HERE / "recbole_worker.py"), "--data", str(data), *numbers]


def environments() -> Path:
    """Gives the folder of the benchmarks' environments."""
    return Path(os.environ.get("CONSEQ_BENCH_ENVS", HERE / ".envs"))


def beauty() -> Path:
    """Gives the path of Beauty as text, one "user item item ..." line per user.

    Returns:
        The path.

    Raises:
        FileNotFoundError: if it is not there.
    """
    shared = Path(os.environ.get("CONSEQ_SHARED", HERE.parents[1] / "shared"))
    path = shared / "data" / "beauty" / "Beauty.txt"
    if not path.exists():
        raise FileNotFoundError(f"no Beauty log at {path}; set CONSEQ_SHARED to the folder that holds data/")
    return path


def main() -> int:
    """Makes the environment, measures RecBole once per number of threads, and prints a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--epochs", type=int, default=1, help="whole epochs; not used with --steps")
    parser.add_argument("--steps", type=int, default=0, help="time windows of so many steps instead of epochs")
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--no-evaluation", action="store_true")
    parser.add_argument("--curve", action="store_true", help="also the test metrics after each epoch")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        data, python = beauty(), environment(environments() / "recbole")
    except (FileNotFoundError, ValueError, subprocess.CalledProcessError) as reason:
        print(json.dumps({"skipped": str(reason)}))
        return 0
    command = worker(python, data, epochs=options.epochs, steps=options.steps, windows=options.windows)
    command += ["--seed", str(options.seed), "--evaluate", str(int(not options.no_evaluation))]
    command += ["--curve"] if options.curve else []
    rows = []
    for threads in options.threads:
        measured = measure([*command, "--threads", str(threads)], threads=threads)
        process = {"process": asdict(measured.usage), "load": measured.load}
        rows.append({"threads": threads, **measured.reported, **process})
    print(json.dumps({"machine": machine(), "changes": CHANGES, "runs": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
