"""Whose test items are they? Popularity judged on a log as it is, and with the order inside equal times drawn anew.

Popularity learns nothing and has no seed: on the same test items every implementation finds the same number. A printed
popularity that this log does not give says that the table was made with other test items, however equal the counts of
users, items and interactions are; one that it gives once equal times are put into another order says why.

    python benchmarks/tie_order.py sports/interactions.parquet --draws 5
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from typing import TYPE_CHECKING

from conseq.data.log import InteractionLog
from conseq.data.readers import read
from conseq.data.splits import leave_one_out
from conseq.encoders.floors import Popularity
from conseq.evaluation.evaluator import evaluate
from conseq.evaluation.ranks import Protocol

if TYPE_CHECKING:
    from conseq.data.readers import Readable

METRICS = ("HR@10", "HR@20", "NDCG@10", "NDCG@20")


def popularity(log: InteractionLog, history: str) -> dict[str, float]:
    """Gives the metrics of popularity on the last items of ``log``, equal scores against it."""
    split = leave_one_out(log)
    protocol = Protocol(split="test", slicing="leave_one_out", history=history, ties="pessimistic")  # type: ignore[arg-type]
    model = Popularity.from_train(split.train, split.n_items)
    found = evaluate(model, split.test, protocol, ks=(10, 20)).metrics
    return {name: found[name] for name in METRICS}


def measure(source: Readable, draws: int, history: str) -> dict[str, object]:
    """Gives popularity as the log is, and mean and standard deviation over ``draws`` orders of equal times."""
    log = read(source)
    found = [popularity(read(source, ties="random", tie_seed=seed), history) for seed in range(draws)]
    last = log.offsets[1:] - 1
    assert log.times is not None
    return {
        "history": history,
        "last item at the time of the one before it": float((log.times[last] == log.times[last - 1]).mean()),
        "as it is": popularity(log, history),
        "drawn anew": {name: statistics.fmean(one[name] for one in found) for name in METRICS},
        "standard deviation": {name: statistics.stdev([one[name] for one in found]) for name in METRICS},
    }


def main() -> int:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", help="a log with times")
    parser.add_argument("--draws", type=int, default=5, help="orders that are drawn, at least 2")
    parser.add_argument("--history", choices=("exclude", "keep"), default="keep")
    options = parser.parse_args()
    print(json.dumps(measure(options.log, options.draws, options.history), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
