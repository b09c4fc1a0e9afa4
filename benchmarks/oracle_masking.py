"""Does it help to know what not to mask? CL4SRec's loss with three ways of masking, on a log whose causes are known.

EC4SRec's Table 1, on a synthetic log (`conseq.data.synthetic`) in which a trigger brings about a later item. Two
views of each history, both with the share ``--masked`` of its items masked:

* random: any of them (every item counts alike);
* oracle: never the trigger of the next item;
* occlusion: the least important, as EC4SRec finds out by itself; random until the first update.

The three differ in the importances alone: model, loss, number of masked items and seeds are the same.

    python benchmarks/oracle_masking.py --seeds 0 1 2 3 4
    python benchmarks/oracle_masking.py --seeds 0 --epochs 20
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

import numpy as np
import torch
from torch import Tensor

from conseq.data.splits import Split, leave_one_out
from conseq.data.synthetic import Truth, synthetic
from conseq.data.train_set import TrainSet
from conseq.encoders.encoder import Encoder
from conseq.encoders.sasrec import SASRecConfig
from conseq.evaluation.evaluator import evaluate
from conseq.evaluation.ranks import Protocol
from conseq.methods.ec4srec import EC4SRec, EC4SRecConfig
from conseq.training.config import TrainingConfig
from conseq.training.trainer import Trainer

ARMS = ("random", "oracle", "occlusion")
METRICS = ("HR@3", "NDCG@3", "HR@10", "NDCG@10")


def true_importance(train: TrainSet, truth: Truth, offsets: Tensor) -> Tensor:
    """Gives 1 for the item of each example's history that brought its next item about, 0 for the others.

    Args:
        train: The examples, of the training part of the log.
        truth: The causes.
        offsets: int64 ``[U + 1]``, the log's.

    Returns:
        float, one number per item of each example's history.
    """
    batch = train.batch(torch.arange(len(train)))
    begin = offsets[batch.users]
    first = begin + train.start - train.sequences.offsets[train.row]  # places in the log
    target = begin + train.end - train.sequences.offsets[train.row]
    cause = torch.from_numpy(truth.causes)[target]
    place = first[batch.history.rows] + batch.history.positions
    return (place == cause[batch.history.rows]).float()


def method(arm: str, options: argparse.Namespace, train: TrainSet, truth: Tensor, seed: int) -> EC4SRec:
    """Gives CL4SRec's loss with the masks of an arm.

    Args:
        arm: One of ``ARMS``.
        options: The command line.
        train: The examples.
        truth: What :func:`true_importance` gave.
        seed: Of the weights.

    Returns:
        The method.
    """
    apart = max(1, options.epochs // (options.updates + 1))
    config = EC4SRecConfig(
        operators=("mask",),
        unimportant=options.masked,
        positive_views=options.contrast,
        negative_views=0.0,
        supervised=0.0,
        contrast=options.contrast,
        same_target=0.0,
        mask=options.masked,
        explanation="occlusion" if arm == "occlusion" else "given",
        update_epochs=tuple(apart * number for number in range(1, options.updates + 1)),
    )
    torch.manual_seed(seed)
    backbone = SASRecConfig(width=options.width, max_length=train.max_length, dropout=0.2, attention_dropout=0.2)
    made = EC4SRec(config, train, backbone)
    if arm != "occlusion":
        made.importance.put(truth if arm == "oracle" else torch.zeros_like(truth))
    return made


def judged(encoder: Encoder, split: Split, part: str) -> dict[str, float]:
    """Gives the metrics of a held-out part; items of the history are no candidates, since none repeats."""
    held = split.validation if part == "validation" else split.test
    protocol = Protocol(
        split="validation" if part == "validation" else "test",
        slicing="leave_one_out",
        history="exclude",
        ties="pessimistic",
    )
    return evaluate(encoder, held, protocol, ks=(3, 10)).metrics


def run(seed: int, options: argparse.Namespace) -> list[dict[str, object]]:
    """Gives a row for each arm: the test metrics of the epoch that validation picked."""
    log, truth = synthetic(
        n_users=options.users,
        n_items=options.items,
        n_intents=8,
        mean_length=options.length,
        follow=0.95,
        switch=0.3,
        seed=seed,
    )
    split = leave_one_out(log)
    train = TrainSet(
        split.train, split.train_users, split.n_items, instances=options.instances, max_length=options.max_length
    )
    known = true_importance(train, truth, torch.from_numpy(np.asarray(log.offsets)))
    training = TrainingConfig(
        epochs=options.epochs,
        batch_size=options.batch,
        instances=options.instances,
        learning_rate=options.rate,
        patience=None,
        metric="NDCG@10",
        every=options.every,
        seed=seed,
    )
    rows: list[dict[str, object]] = []
    for arm in ARMS:
        begun = time.process_time()
        one = method(arm, options, train, known, seed)
        trainer = Trainer(one, training, lambda encoder: judged(encoder, split, "validation"))
        trainer.fit()
        found = judged(one.encoder, split, "test")
        row = {"seed": seed, "masking": arm, **{name: round(found[name], 4) for name in METRICS}}
        row |= {"best epoch": trainer.stopping.best_epoch, "CPU s": round(time.process_time() - begun, 1)}
        print(row, file=sys.stderr)
        rows.append(row)
    return rows


def summary(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Gives mean and standard deviation over the seeds of each arm, and of its difference to random masking."""
    found: list[dict[str, object]] = []
    by_arm = {arm: [row for row in rows if row["masking"] == arm] for arm in ARMS}
    for arm, own in by_arm.items():
        line: dict[str, object] = {"masking": arm, "seeds": len(own)}
        for name in METRICS:
            values = [float(str(row[name])) for row in own]
            gains = [value - float(str(other[name])) for value, other in zip(values, by_arm["random"], strict=True)]
            line[name] = _mean_and_spread(values)
            line[f"{name} - random"] = _mean_and_spread(gains)
        found.append(line)
    return found


def _mean_and_spread(values: list[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.4f} ± {spread:.4f}"


def main() -> int:
    """Trains the three arms with each seed and prints a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of log, weights, views and dropout")
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--items", type=int, default=300)
    parser.add_argument("--length", type=float, default=13.0, help="mean interactions of a user")
    parser.add_argument("--max-length", type=int, default=20, help="items that are read")
    parser.add_argument("--masked", type=float, default=0.6, help="share of a history's items that are masked")
    parser.add_argument("--contrast", type=float, default=2.0, help="weight of the contrast")
    parser.add_argument("--updates", type=int, default=3, help="of the importances, for occlusion")
    parser.add_argument("--instances", choices=["prefixes", "whole"], default="prefixes")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--every", type=int, default=2, help="epochs from one validation to the next")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=3e-3, help="learning rate")
    parser.add_argument("--width", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for seed in options.seeds for row in run(seed, options)]
    print(json.dumps({"settings": vars(options), "rows": summary(rows), "runs": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
