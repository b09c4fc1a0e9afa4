"""The rate of this machine's matrix products at the shapes of SASRec, width 64.

The yardstick for the share of the possible that training reaches: floating-point operations per second of
plain float32 products into memory that is already there, forward and both products of the backward pass.

    python benchmarks/matmul_rate.py
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import torch

SHAPES = {
    "attention": (64, 64),
    "feed_forward": (64, 256),
    "scores": (64, 12_101),
}
"""Inner and outer width of the products: a projection of attention, the first half of the feed-forward
layer, the scores of Beauty's items."""


def rates(rows: int, inner: int, outer: int, *, seconds: float) -> dict[str, float]:
    """Gives the GFLOP/s of ``[rows, inner] x [inner, outer]`` and of its two backward products.

    Args:
        rows: Tokens in the batch.
        inner: Width of what is multiplied.
        outer: Width of the result.
        seconds: For how long each product is repeated.

    Returns:
        ``forward``, ``input_gradient``, ``weight_gradient`` and ``all`` (the three together).
    """
    x, weight, y = torch.randn(rows, inner), torch.randn(outer, inner), torch.randn(rows, outer)
    into_y, into_x, into_weight = torch.empty_like(y), torch.empty_like(x), torch.empty_like(weight)
    took = {
        "forward": _seconds_each(lambda: torch.mm(x, weight.T, out=into_y), seconds),
        "input_gradient": _seconds_each(lambda: torch.mm(y, weight, out=into_x), seconds),
        "weight_gradient": _seconds_each(lambda: torch.mm(y.T, x, out=into_weight), seconds),
    }
    giga = 2 * rows * inner * outer / 1e9
    return {name: giga / each for name, each in took.items()} | {"all": 3 * giga / sum(took.values())}


def _seconds_each(product: Callable[[], object], seconds: float) -> float:
    """Gives the time of one call in the fastest of several batches of calls.

    The fastest, because a yardstick must not depend on what else the machine does.
    """
    product()
    calls = 1
    while (once := _seconds_of(product, calls)) < 0.01:
        calls *= 2
    batches = max(3, int(seconds / once))
    return min(_seconds_of(product, calls) for _ in range(batches)) / calls


def _seconds_of(product: Callable[[], object], calls: int) -> float:
    # CPU seconds of a single thread do not count the time in which another process had the core.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    started = clock()
    for _ in range(calls):
        product()
    return clock() - started


def main() -> int:
    """Prints a JSON object with one row per number of threads, number of tokens and shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 256, 1_500, 12_800])
    parser.add_argument("--seconds", type=float, default=0.2, help="time spent on each product")
    options = parser.parse_args()
    table: list[dict[str, object]] = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        for name, (inner, outer) in SHAPES.items():
            for rows in options.rows:
                measured = rates(rows, inner, outer, seconds=options.seconds)
                gflops = {kind: round(rate, 1) for kind, rate in measured.items()}
                product = f"[{rows},{inner}]x[{inner},{outer}]"
                table.append({"threads": threads, "layer": name, "product": product, **gflops})
    print(json.dumps({"torch": torch.__version__, "unit": "GFLOP/s, float32", "rows": table}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
