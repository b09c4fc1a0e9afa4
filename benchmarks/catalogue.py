"""What a batch of SASRec costs by the size of the catalogue: full softmax beside losses over sampled items.

Each measurement is a process of its own. A batch holds 256 histories of 9 items, so 2,048 next items; items are drawn
with power-law popularity. The first batches, in which memory is taken and Adam's state made, are a warm-up.

    python benchmarks/catalogue.py
    python benchmarks/catalogue.py --items 12000 1000000 --batches 5
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import cast

from measure import measure, metered

LOSSES = {
    "cross_entropy": 1,
    "sampled_softmax": 256,
    "binary_cross_entropy": 1,
}
"""Losses, with the number of sampled items for each target."""
HISTORIES, LENGTH, WARM_UP = 256, 9, 2


def one(n_items: int, loss: str, batches: int) -> dict[str, float]:
    """Gives the cost of a batch and the largest memory of the process, the warm-up left out."""
    import numpy as np  # noqa: PLC0415  (the measuring process must stay small)
    import torch  # noqa: PLC0415

    from conseq.data.sequences import Sequences  # noqa: PLC0415
    from conseq.data.train_set import TrainSet  # noqa: PLC0415
    from conseq.encoders.sasrec import SASRecConfig  # noqa: PLC0415
    from conseq.methods.next_item import NextItem, NextItemConfig  # noqa: PLC0415
    from conseq.training.config import TrainingConfig  # noqa: PLC0415
    from conseq.training.trainer import Trainer  # noqa: PLC0415

    rng = np.random.default_rng(0)
    n_users = HISTORIES * (WARM_UP + batches)
    drawn = 1 + (n_items * rng.random(n_users * LENGTH) ** 3).astype(np.int64)
    histories = Sequences.from_lists(drawn.reshape(n_users, LENGTH).tolist())
    train = TrainSet(histories, torch.arange(n_users), n_items, instances="whole", max_length=50)
    torch.manual_seed(0)
    method = NextItem(NextItemConfig(loss=loss, negatives=LOSSES[loss]), train, SASRecConfig())  # type: ignore[arg-type]
    trainer = Trainer(method, TrainingConfig(), lambda encoder: {})
    method.train()

    def steps(first: int, last: int) -> None:
        for start in range(first * HISTORIES, last * HISTORIES, HISTORIES):
            batch = train.batch(torch.arange(start, start + HISTORIES))
            for group, terms in method.updates(batch, trainer.rng):
                trainer._step(group, terms)

    steps(0, WARM_UP)
    _, usage = metered(lambda: steps(WARM_UP, WARM_UP + batches))
    return {
        "ms": 1000 * usage.cpu_s / batches,
        "peak_mib": usage.peak_mib,
        "model_mib": method.encoder.items.weight.numel() * 4 / 2**20,
    }


def main() -> None:
    """Prints a row for each size and loss as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[12_000, 100_000, 1_000_000], help="sizes")
    parser.add_argument("--batches", type=int, default=5, help="of each window")
    parser.add_argument("--worker", nargs=2, metavar=("ITEMS", "LOSS"), help="measure one in this process")
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(one(int(options.worker[0]), options.worker[1], options.batches)))
        return
    rows = []
    for n_items in options.items:
        for loss, negatives in LOSSES.items():
            print(f"{n_items} items, {loss} ...", file=sys.stderr)
            words = [sys.executable, __file__, "--batches", str(options.batches), "--worker", str(n_items), loss]
            found = cast("dict[str, float]", measure(words, threads=1).reported)
            rows.append(
                {
                    "items": n_items,
                    "loss": loss,
                    "sampled": "" if loss == "cross_entropy" else negatives,
                    "CPU ms a batch": round(found["ms"], 1),
                    "peak MiB": round(found["peak_mib"]),
                    "item table MiB": round(found["model_mib"]),
                }
            )
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
