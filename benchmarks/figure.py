"""The README's picture: quality after each pass against the CPU seconds that the passes took.

    python benchmarks/figure.py benchmarks/curves.json docs/assets/time-to-quality.svg

The JSON file holds a list of curves: ``label``, ``cpu_s`` (total after each pass) and ``ndcg`` (NDCG@20 on the test
part, history kept). It is written by hand from what ``sasrec_speed.py --curve`` prints.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import ScalarFormatter

# Okabe and Ito's palette: told apart by readers who do not see red and green alike.
COLOURS = ["#000000", "#0072B2", "#E69F00"]
MARKERS = ["s", "o", "^"]


def draw(curves: list[dict[str, Any]], path: Path) -> None:
    """Writes the picture as SVG."""
    plt.rcParams["svg.fonttype"] = "none"
    plt.rcParams["svg.hashsalt"] = "conseq"
    figure, axes = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
    for curve, colour, marker in zip(curves, COLOURS, MARKERS, strict=False):
        axes.plot(curve["cpu_s"], curve["ndcg"], color=colour, marker=marker, label=curve["label"])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("CPU seconds of training, one thread (passes 1 to 3, then the epoch that validation picked)")
    axes.set_ylabel("NDCG@20, test, history kept")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Draws the curves of a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", type=Path)
    parser.add_argument("picture", type=Path)
    arguments = parser.parse_args()
    draw(json.loads(arguments.curves.read_text()), arguments.picture)


if __name__ == "__main__":
    main()
