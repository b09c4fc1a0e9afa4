"""Does it help to know what not to mask? CL4SRec's loss with several ways of masking, on logs whose causes are known.

EC4SRec's Table 1. Two views of each history, both with the share ``--masked`` of its items masked:

* none: no contrast, so that it shows whether the contrast helps at all;
* random: any items are masked (every item counts alike);
* fixed: items drawn once for each history, so that both views mask the same ones;
* oracle: never an important item;
* oracle_fixed: never an important item either, and of the others those drawn once for each history, so that both views
  mask the same ones, as occlusion does: what it lacks to ``oracle`` is not for want of knowledge;
* occlusion: the least important items by occlusion, as EC4SRec does it. Both views mask the same ones: what it gains
  over ``fixed`` is due to the importances, what ``fixed`` gains over ``random`` to masking alike;
* spared: never the items that occlusion finds most important, as many as the oracle spares; other masks at random.

All but none differ in the importances alone: model, loss, number of masked items, seeds and schedule are the same.
The logs:

* recipe: the paper's. Every history has ten items; three of them (a triple that other users have, too, at any places)
  are the reason for the three items that follow, the other seven are noise. With ``--plain``, the contrast begins with
  the first update of the importances: an encoder that has learned nothing explains nothing.
* triggers: `conseq.data.synthetic`, in which one item brings about a later one. The contrast begins at once, with
  random masks until the first update where occlusion is to find the importances.

    python benchmarks/oracle_masking.py --seeds 0 1 2 3 4
    python benchmarks/oracle_masking.py --seeds 0 1 2 3 4 --users 1500 --triples 75 --reasons 30
    python benchmarks/oracle_masking.py --seeds 0 1 2 3 4 --log triggers --arms none random fixed oracle occlusion
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from conseq.data.log import InteractionLog
from conseq.data.splits import Split, leave_one_out
from conseq.data.synthetic import synthetic
from conseq.data.train_set import TrainSet
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.encoder import Encoder
from conseq.encoders.sasrec import SASRecConfig
from conseq.evaluation.evaluator import evaluate
from conseq.evaluation.ranks import Protocol
from conseq.methods.ec4srec import EC4SRec, EC4SRecConfig
from conseq.training.config import TrainingConfig
from conseq.training.trainer import Trainer

ARMS = ("none", "random", "fixed", "oracle", "oracle_fixed", "occlusion", "spared")
METRICS = ("HR@3", "NDCG@3", "HR@10", "NDCG@10")
REASONS, READ = 3, 10
"""Important items of a history of the recipe, and all of its items."""

DEFAULTS: dict[str, dict[str, float]] = {
    "recipe": {"users": 500, "masked": 0.4, "contrast": 0.3, "plain": 20, "apart": 10, "epochs": 60, "every": 5},
    "triggers": {"users": 1000, "masked": 0.6, "contrast": 2.0, "plain": 0, "apart": 5, "epochs": 20, "every": 2},
}
SHAPES = {"recipe": {"batch": 128, "width": 64}, "triggers": {"batch": 256, "width": 32}}


@dataclass(frozen=True)
class Known:
    """A log whose causes are known.

    Attributes:
        split: The log, cut.
        train: The examples.
        truth: float, 1 for the important items of each example's history, 0 for the others.
        important: How many there are in a history, at most.
    """

    split: Split
    train: TrainSet
    truth: Tensor
    important: int


def made(options: argparse.Namespace, seed: int) -> tuple[InteractionLog, npt.NDArray[np.bool_]]:
    """Gives a log by the paper's recipe, and which of its interactions are important.

    Each triple is drawn from ``--reasons`` items, so that one item alone does not tell it, and has three items of its
    own that follow it in any order: two of them, in training and validation, leave the third for the test.

    Args:
        options: The command line.
        seed: Of everything that is drawn.

    Returns:
        The log, 13 interactions a user, and bool ``[N]``.
    """
    rng = np.random.default_rng(seed)
    triples = np.stack([rng.choice(options.reasons, REASONS, replace=False) for _ in range(options.triples)])
    triple = rng.integers(options.triples, size=options.users)
    follow = options.reasons + triple[:, None] * REASONS + rng.random((options.users, REASONS)).argsort(1)
    begin = options.reasons + options.triples * REASONS
    items = np.empty((options.users, READ + REASONS), dtype=np.int64)
    important = np.zeros(items.shape, dtype=np.bool_)
    for user in range(options.users):
        noise = begin + rng.choice(options.noise, READ - REASONS, replace=False)
        order = rng.permutation(READ)
        items[user, :READ] = np.concatenate([triples[triple[user]], noise])[order]
        important[user, :READ] = order < REASONS
    items[:, READ:] = follow
    used, numbers = np.unique(items, return_inverse=True)
    log = InteractionLog(
        items=(numbers.ravel() + 1).astype(np.int32),
        offsets=np.arange(options.users + 1) * items.shape[1],
        times=np.tile(np.arange(items.shape[1]), options.users),
        user_ids=Vocabulary([f"u{number}" for number in range(options.users)], start=0),
        item_ids=Vocabulary([f"i{number}" for number in used], start=1),
        manifest={"source": "oracle_masking", "settings": {"seed": seed}},
    )
    return log, important.ravel()


def recipe(options: argparse.Namespace, seed: int) -> Known:
    """Gives the paper's log: an example for each user, whose important items are the three reasons."""
    log, important = made(options, seed)
    split = leave_one_out(log)
    length = READ + REASONS - 1
    train = TrainSet(split.train, split.train_users, split.n_items, instances="whole", max_length=length)
    # An example is all of a user's training part but the last item, its target: the ten items.
    places = (train.users * (READ + REASONS))[:, None] + torch.arange(READ)
    return Known(split, train, torch.from_numpy(important)[places].float().ravel(), REASONS)


def triggers(options: argparse.Namespace, seed: int) -> Known:
    """Gives a synthetic log: an example for each next item, whose important item is what brought it about."""
    log, truth = synthetic(
        n_users=options.users, n_items=300, n_intents=8, mean_length=13.0, follow=0.95, switch=0.3, seed=seed
    )
    split = leave_one_out(log)
    train = TrainSet(split.train, split.train_users, split.n_items, instances="prefixes", max_length=20)
    batch = train.batch(torch.arange(len(train)))
    begin = torch.from_numpy(np.asarray(log.offsets))[batch.users] - train.sequences.offsets[train.row]
    cause = torch.from_numpy(truth.causes)[begin + train.end]
    place = (begin + train.start)[batch.history.rows] + batch.history.positions
    return Known(split, train, (place == cause[batch.history.rows]).float(), 1)


LOGS = {"recipe": recipe, "triggers": triggers}


class Guided(EC4SRec):
    """EC4SRec whose importances are known, or taken from its own as an arm has it.

    Attributes:
        begins: The epoch at whose beginning known importances are taken over.
        known: float, one number for each item of each example's history; None where occlusion finds them.
        spares: How many items are important, all alike; None: as occlusion says.
    """

    begins: int
    known: Tensor | None
    spares: int | None

    def begin_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Takes or computes the importances where the schedule says so."""
        if self.known is not None:
            if epoch == self.begins:
                self.importance.put(self.known)
            return
        super().begin_epoch(epoch, rng)
        if self.spares is not None and epoch in self.update_epochs:
            self.importance.put(self.greatest(self.spares))

    def greatest(self, count: int) -> Tensor:
        """Gives 1 for the ``count`` most important items of each history, 0 for the others."""
        history = self.train_set.batch(torch.arange(len(self.train_set))).history
        rank = history.rank(self.importance.scores)
        return (rank >= (history.lengths - count)[history.rows]).float()


def method(arm: str, options: argparse.Namespace, log: Known, seed: int) -> Guided:
    """Gives CL4SRec's loss with the masks of an arm.

    Args:
        arm: One of ``ARMS``.
        options: The command line.
        log: What is trained on.
        seed: Of the weights.

    Returns:
        The method.
    """
    weight = 0.0 if arm == "none" else options.contrast
    config = EC4SRecConfig(
        operators=("mask",),
        unimportant=options.masked,
        positive_views=weight,
        negative_views=0.0,
        supervised=0.0,
        contrast=0.0 if options.plain else weight,
        same_target=0.0,
        mask=options.masked,
        update_epochs=tuple(range(options.plain or options.apart, options.epochs, options.apart)),
    )
    torch.manual_seed(seed)
    shape = SHAPES[options.log]
    backbone = SASRecConfig(width=shape["width"], max_length=log.train.max_length, dropout=0.2, attention_dropout=0.2)
    found = Guided(config, log.train, backbone)
    alike = torch.zeros_like(log.truth)
    drawn = torch.rand(alike.shape, generator=torch.Generator().manual_seed(seed))
    known = {
        "none": alike,
        "random": alike,
        "fixed": drawn,
        "oracle": log.truth,
        "oracle_fixed": log.truth + 0.5 * drawn,
    }
    found.begins, found.known = max(1, options.plain), known.get(arm)
    found.spares = log.important if arm == "spared" else None
    return found


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
    """Gives a row for each arm asked for: the test metrics of the epoch that validation picked.

    ``found`` is the share of the important items that are among as many greatest of the last update.
    """
    log = LOGS[options.log](options, seed)
    training = TrainingConfig(
        epochs=options.epochs,
        batch_size=SHAPES[options.log]["batch"],
        instances=log.train.instances,
        learning_rate=3e-3,
        patience=None,
        metric="NDCG@10",
        every=options.every,
        seed=seed,
    )
    rows: list[dict[str, object]] = []
    for arm in options.arms:
        begun = time.process_time()
        one = method(arm, options, log, seed)
        trainer = Trainer(one, training, lambda encoder: judged(encoder, log.split, "validation"))
        trainer.fit()
        found = judged(one.encoder, log.split, "test")
        row = {"seed": seed, "masking": arm, **{name: round(found[name], 4) for name in METRICS}}
        if one.known is None:
            row["found"] = round(float((one.greatest(log.important) * log.truth).sum() / log.truth.sum()), 3)
        row |= {"best epoch": trainer.stopping.best_epoch, "CPU s": round(time.process_time() - begun, 1)}
        print(row, file=sys.stderr)
        rows.append(row)
    return rows


def summary(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Gives mean and standard deviation over the seeds of each arm, and of its difference to random masking."""
    found: list[dict[str, object]] = []
    arms = dict.fromkeys(str(row["masking"]) for row in rows)
    by_arm = {arm: [row for row in rows if row["masking"] == arm] for arm in arms}
    for arm, own in by_arm.items():
        line: dict[str, object] = {"masking": arm, "seeds": len(own)}
        for name in METRICS:
            values = [float(str(row[name])) for row in own]
            line[name] = _mean_and_spread(values)
            if "random" in by_arm:
                others = [float(str(row[name])) for row in by_arm["random"]]
                gains = [value - other for value, other in zip(values, others, strict=True)]
                line[f"{name} - random"] = _mean_and_spread(gains)
        found.append(line)
    return found


def _mean_and_spread(values: list[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.4f} ± {spread:.4f}"


def main() -> int:
    """Trains the arms with each seed and prints a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of log, weights, views and dropout")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--log", choices=list(LOGS), default="recipe")
    parser.add_argument("--triples", type=int, default=50, help="recipe: reasons; each has three items that follow")
    parser.add_argument("--reasons", type=int, default=50, help="recipe: items that triples are drawn from")
    parser.add_argument("--noise", type=int, default=200, help="recipe: items that noise is drawn from")
    helps = {
        "users": "of the log",
        "masked": "share of a history's items that are masked",
        "contrast": "weight of the contrast",
        "plain": "epochs before the contrast begins",
        "apart": "epochs from one update of the importances to the next",
        "epochs": "of training",
        "every": "epochs from one validation to the next",
    }
    for name, text in helps.items():
        usual = ", ".join(f"{log} {values[name]}" for log, values in DEFAULTS.items())
        kind = type(DEFAULTS["recipe"][name])
        parser.add_argument(f"--{name}", type=kind, help=f"{text} ({usual})")
    options = parser.parse_args()
    for name, value in DEFAULTS[options.log].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    torch.set_num_threads(1)
    rows = [row for seed in options.seeds for row in run(seed, options)]
    print(json.dumps({"settings": vars(options), "rows": summary(rows), "runs": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
