"""Recommending from a bundle: histories per second in batches, and the latency of one history.

SASRec with random weights at the size of Beauty (12,101 items, width 64, two layers, length 50); histories as long as
Beauty's (5 to 204 items, 8.9 on average). The weights do not matter to the cost.

    python benchmarks/serving.py
    python benchmarks/serving.py --items 200000 --histories 2000
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from conseq.data.vocabulary import Vocabulary
from conseq.encoders.sasrec import SASRecConfig
from conseq.nn.items import ItemTable
from conseq.serving.bundle import save_bundle
from conseq.serving.recommender import Recommender
from measure import metered

WIDTH, SHORTEST, MEAN, LONGEST = 64, 5, 8.9, 204
WARM_UP, ROUNDS = 512, 3


def histories(n: int, n_items: int, seed: int) -> list[list[str]]:
    """Gives random histories with lengths spread as Beauty's: at least 5, geometric above."""
    rng = np.random.default_rng(seed)
    lengths = np.minimum(SHORTEST - 1 + rng.geometric(1 / (MEAN - SHORTEST + 1), n), LONGEST)
    return [[f"item-{one}" for one in rng.integers(0, n_items, length)] for length in lengths]


def bundle(folder: Path, n_items: int) -> None:
    """Writes a bundle with random weights."""
    config = SASRecConfig(width=WIDTH)
    ids = Vocabulary([f"item-{one}" for one in range(n_items)], start=1)
    save_bundle(config(ItemTable(n_items, WIDTH)), config, ids, folder, {"method": "random weights"})


def batch_row(name: str, ask: Callable[[], object], n: int) -> dict[str, object]:
    """Gives the cost of answering ``n`` histories at once: the median of several rounds."""
    usages = sorted((metered(ask)[1] for _ in range(ROUNDS)), key=lambda usage: usage.cpu_s)
    usage = usages[ROUNDS // 2]
    return {
        "what": name,
        "histories": n,
        "histories_per_s": round(n / usage.wall_s),
        "histories_per_cpu_s": round(n / usage.cpu_s),
        "peak_mib": round(usage.peak_mib),
    }


def latency_row(model: Recommender, asked: list[list[str]]) -> dict[str, object]:
    """Gives the median and the 95th percentile of the time to answer one history."""
    took = []
    for history in asked:
        started = time.perf_counter()
        model.recommend(history, k=10)
        took.append((time.perf_counter() - started) * 1e3)
    p50, p95 = np.percentile(took, [50, 95])
    return {
        "what": "one history at a time",
        "histories": len(asked),
        "p50_ms": round(float(p50), 2),
        "p95_ms": round(float(p95), 2),
    }


def stream(given: list[list[str]], times: int) -> Iterator[list[str]]:
    """Gives the histories ``times`` over, one by one."""
    for _ in range(times):
        yield from given


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=12_101, help="size of the catalogue")
    parser.add_argument("--histories", type=int, default=5_000, help="histories of a batch")
    parser.add_argument("--single", type=int, default=300, help="histories asked for one at a time")
    options = parser.parse_args()
    torch.manual_seed(0)
    asked = histories(options.histories, options.items, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        bundle(Path(folder) / "bundle", options.items)
        model, loading = metered(lambda: Recommender.load(Path(folder) / "bundle"))
    few = [f"item-{one}" for one in range(0, options.items, max(1, options.items // 1000))]
    model.recommend(asked[:WARM_UP], k=10)
    n = len(asked)
    rows = [
        batch_row("batch, k 10, seen excluded", lambda: model.recommend(asked, k=10), n),
        batch_row("batch, k 100", lambda: model.recommend(asked, k=100), n),
        batch_row(f"batch, k 10, {len(few)} candidates", lambda: model.recommend(asked, k=10, candidates=few), n),
        batch_row("stream of 5 x as many", lambda: model.recommend(stream(asked, 5), k=10), 5 * n),
        latency_row(model, asked[: options.single]),
    ]
    report = {
        "items": options.items,
        "threads": torch.get_num_threads(),
        "load_s": round(loading.wall_s, 3),
        "rows": rows,
    }
    for row in rows:
        print(row, file=sys.stderr)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
