"""Trains and evaluates RecBole's SASRec inside RecBole's own environment; started by recbole_sasrec.py.

Prints one JSON object: the cost of each phase, the loss and the metrics.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from measure import Usage, metered

SETTINGS: dict[str, Any] = {
    "USER_ID_FIELD": "user_id",
    "ITEM_ID_FIELD": "item_id",
    "TIME_FIELD": "timestamp",
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "MAX_ITEM_LIST_LENGTH": 50,
    "hidden_size": 64,
    "n_layers": 2,
    "n_heads": 2,
    "inner_size": 256,
    "hidden_dropout_prob": 0.5,
    "attn_dropout_prob": 0.5,
    "hidden_act": "gelu",
    "loss_type": "CE",
    "train_neg_sample_args": None,
    "train_batch_size": 256,
    "learner": "adam",
    "learning_rate": 0.001,
    "eval_args": {"split": {"LS": "valid_and_test"}, "group_by": "user", "order": "TO", "mode": "full"},
    "metrics": ["Hit", "NDCG"],
    "topk": [5, 10, 20],
    "valid_metric": "NDCG@20",
    "use_gpu": False,
    "show_progress": False,
    "state": "ERROR",
}
"""The setting of the comparison. What is not named is RecBole's default (evaluation in batches of 4,096)."""

WARM_UP = 3
"""Steps before the first timed window: they allocate and compile what later steps find."""


class Window:
    """The next ``steps`` batches of a running epoch, in the place of RecBole's loader.

    Args:
        batches: The running epoch.
        steps: How many batches to give.
    """

    def __init__(self, batches: Iterator[Any], steps: int) -> None:
        self.batches, self.steps = batches, steps
        self.given = 0

    def __iter__(self) -> Iterator[Any]:
        for batch in islice(self.batches, self.steps):
            self.given += 1
            yield batch


def atomic_files(source: Path, folder: Path) -> None:
    """Writes the log ``source`` (a "user item item ..." line per user) as RecBole's ``beauty.inter``.

    The time of an interaction is its place in the user's line, so that RecBole's order is the file's.

    Args:
        source: The log.
        folder: Where ``beauty/beauty.inter`` is written.
    """
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for line in source.read_text(encoding="utf-8").splitlines():
        user, *items = line.split()
        lines += [f"{user}\t{item}\t{place}" for place, item in enumerate(items)]
    (folder / "beauty").mkdir()
    (folder / "beauty" / "beauty.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")


def prepare(folder: Path, seed: int) -> tuple[Any, Any, Any]:
    """Gives RecBole's trainer, training loader and test loader, made as its ``run_recbole`` makes them."""
    from recbole.config import Config  # type: ignore[import-not-found]  # noqa: PLC0415
    from recbole.data import create_dataset, data_preparation  # type: ignore[import-not-found]  # noqa: PLC0415
    from recbole.model.sequential_recommender import SASRec  # type: ignore[import-not-found]  # noqa: PLC0415
    from recbole.trainer import Trainer  # type: ignore[import-not-found]  # noqa: PLC0415
    from recbole.utils import init_seed  # type: ignore[import-not-found]  # noqa: PLC0415

    config = Config(model="SASRec", dataset="beauty", config_dict={**SETTINGS, "data_path": str(folder), "seed": seed})
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train, _, test = data_preparation(config, dataset)
    init_seed(config["seed"], config["reproducibility"])
    model = SASRec(config, train.dataset).to(config["device"])
    return Trainer(config, model), train, test


def train_epochs(trainer: Any, train: Any, epochs: int, test: Any | None) -> dict[str, object]:
    """Gives the cost of each of ``epochs`` whole epochs, and the metrics after each where ``test`` is given."""
    each: list[Usage] = []
    losses: list[float] = []
    curve: list[dict[str, float]] = []
    for epoch in range(epochs):
        loss, usage = metered(lambda epoch=epoch: trainer._train_epoch(train, epoch))  # type: ignore[misc]
        each.append(usage)
        losses.append(loss / len(train))
        if test is not None:
            curve.append(judged(trainer, test))
        print(f"epoch {epoch + 1}: {usage.cpu_s:.1f} CPU s, {curve[-1:]}", file=sys.stderr, flush=True)
    report = {"scaled": False, "steps": len(train), "epoch": _middle(each, 1.0), "loss": losses}
    return report | ({"curve": curve} if curve else {})


def judged(trainer: Any, test: Any) -> dict[str, float]:
    """Gives the test metrics of the weights as they are, under conseq's names."""
    metrics = trainer.evaluate(test, load_best_model=False)
    return {name.replace("hit", "HR").replace("ndcg", "NDCG"): float(value) for name, value in metrics.items()}


def train_windows(trainer: Any, train: Any, steps: int, windows: int) -> dict[str, object]:
    """Gives the cost of an epoch, scaled from the median of several windows of steps.

    Args:
        trainer: RecBole's trainer.
        train: Its training loader.
        steps: Consecutive steps in a window.
        windows: Windows timed, one after the other in one shuffled epoch.

    Returns:
        The report.

    Raises:
        ValueError: if an epoch is shorter than all the windows.
    """
    if WARM_UP + steps * windows > len(train):
        raise ValueError(f"{windows} windows of {steps} steps do not fit into an epoch of {len(train)}")
    batches = iter(train)
    trainer._train_epoch(Window(batches, WARM_UP), 0)
    each: list[Usage] = []
    for _ in range(windows):
        window = Window(batches, steps)
        _, usage = metered(lambda window=window: trainer._train_epoch(window, 0))  # type: ignore[misc]
        each.append(usage)
    return {
        "scaled": True,
        "timed": f"median of {windows} windows of {steps} steps, times {len(train)} / {steps}",
        "steps": len(train),
        "epoch": _middle(each, len(train) / steps),
    }


def _middle(each: list[Usage], scale: float) -> dict[str, float]:
    """Gives median seconds times ``scale`` and the largest peak memory."""
    return {
        "cpu_s": statistics.median(one.cpu_s for one in each) * scale,
        "wall_s": statistics.median(one.wall_s for one in each) * scale,
        "peak_mib": max(one.peak_mib for one in each),
    }


def main() -> int:
    """Runs all phases and prints a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--windows", type=int, required=True)
    parser.add_argument("--evaluate", type=int, required=True)
    parser.add_argument("--curve", action="store_true")
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    sys.argv = sys.argv[:1]  # RecBole's Config reads the command line too
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    record: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        atomic_files(options.data, Path(folder))
        os.chdir(folder)  # RecBole writes logs and events into the working folder

        torch, usage = metered(lambda: __import__("torch"))
        torch.set_num_threads(options.threads)
        record |= {"torch": torch.__version__, "import_torch": asdict(usage)}
        (trainer, train, test), usage = metered(lambda: prepare(Path(folder), options.seed))
        record |= {"prepare": asdict(usage), "prefixes": len(train.dataset), "test_users": len(test.dataset)}
        if options.steps:
            record |= train_windows(trainer, train, options.steps, options.windows)
        else:
            record |= train_epochs(trainer, train, options.epochs, test if options.curve else None)
        if options.evaluate:
            metrics, usage = metered(lambda: judged(trainer, test))
            record |= {"evaluation": asdict(usage)} | ({} if options.steps else {"metrics": metrics})
        os.chdir("/")
    print(json.dumps(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
