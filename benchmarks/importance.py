"""What one update of EC4SRec's importances costs on Beauty's training prefixes, by encoder and explanation.

An update explains every next item of the training part by every item before it: 131,413 prefixes, 1.1 million
pairs. The weights are random: only the last digits of the cost depend on them.

    python benchmarks/importance.py                              the default explanation, SASRec
    python benchmarks/importance.py --thorough                   every explanation and encoder that go together
    python benchmarks/importance.py --users 2000                 a sample of users, with the cost scaled by its pairs
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from conseq.data.readers import read
from conseq.data.splits import leave_one_out
from conseq.data.train_set import TrainSet
from conseq.encoders.caser import CaserConfig
from conseq.encoders.encoder import Backbone, Encoder
from conseq.encoders.gru4rec import GRU4RecConfig
from conseq.encoders.sasrec import SASRecConfig
from conseq.nn.items import ItemTable
from conseq.signals.importance import Explainer, Importance
from measure import machine, metered
from recbole_sasrec import beauty

ENCODERS: dict[str, Backbone[Encoder]] = {
    "sasrec": SASRecConfig(),
    "sasrec, positions from the end": SASRecConfig(positions="end"),
    "gru4rec": GRU4RecConfig(),
    "caser": CaserConfig(),
}

QUICK = [("sasrec", Explainer())]
"""What EC4SRec's paper does."""

THOROUGH = [
    *QUICK,
    ("sasrec", Explainer(differenced="logit")),
    ("sasrec", Explainer(differenced="top_logit")),
    ("sasrec", Explainer("saliency")),
    ("sasrec", Explainer("integrated_gradients", steps=20)),
    ("sasrec", Explainer("attention")),
    ("sasrec, positions from the end", Explainer()),
    ("gru4rec", Explainer()),
    ("caser", Explainer()),
]


def sample(data: Path, users: int | None) -> tuple[TrainSet, int]:
    """Gives prefixes of the training part of a sample of users, and the pairs of the whole training part.

    Args:
        data: The log.
        users: How many users; all where None.

    Returns:
        Examples of at most 50 items, and how many pairs of a prefix and one of its items there are in all.
    """
    split = leave_one_out(read(data))
    rows = torch.arange(len(split.train))
    whole = TrainSet(split.train, split.train_users, split.n_items, instances="prefixes", max_length=50)
    pairs = int((whole.end - whole.start).sum())
    if users is not None:
        rows = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:users].sort().values
    some, owners = split.train.select(rows), split.train_users[rows]
    return TrainSet(some, owners, split.n_items, instances="prefixes", max_length=50), pairs


def shortened(train: TrainSet, length: int) -> TrainSet:
    """Gives the same examples for an encoder that reads ``length`` items."""
    return TrainSet(
        train.sequences, train.sequence_users, train.n_items, instances="prefixes", max_length=min(50, length)
    )


def row(name: str, explainer: Explainer, train: TrainSet, scale: float) -> dict[str, object]:
    """Gives the cost of one update.

    Args:
        name: The encoder.
        explainer: The explanation.
        train: The examples.
        scale: What the cost is multiplied by, for a sample.

    Returns:
        The table's row.
    """
    config = ENCODERS[name]
    torch.manual_seed(0)
    encoder = config(ItemTable(train.n_items, config.width, std=0.1)).eval()
    importance = Importance(shortened(train, config.max_length), explainer)
    _, usage = metered(lambda: importance.refresh(encoder))
    steps = f", {explainer.steps} steps" if explainer.explanation == "integrated_gradients" else ""
    return {
        "encoder": name,
        "explanation": explainer.explanation + steps,
        "differenced": "" if explainer.explanation == "attention" else explainer.differenced,
        "prefixes": len(train),
        "CPU s": round(usage.cpu_s * scale, 1),
        "wall s": round(usage.wall_s * scale, 1),
        "peak MiB": round(usage.peak_mib),
    }


def main() -> int:
    """Measures the updates and prints a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, help="a sample of so many users")
    parser.add_argument("--thorough", action="store_true", help="every explanation and encoder that go together")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        data = beauty()
    except FileNotFoundError as reason:
        print(json.dumps({"skipped": str(reason)}))
        return 0
    train, pairs = sample(data, options.users)
    scale = pairs / int((train.end - train.start).sum())
    rows = []
    for name, explainer in THOROUGH if options.thorough else QUICK:
        rows.append(row(name, explainer, train, scale))
        print(rows[-1], file=sys.stderr)
    setting = f"Beauty, leave-one-out, prefixes of at most 50 items, width 64, {pairs} pairs of prefix and item"
    if options.users is not None:
        setting += f"; costs of {options.users} users, scaled by {scale:.2f}"
    print(json.dumps({"machine": machine(), "setting": setting, "threads": options.threads, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
