"""Stages and the epochs of a run: a first stage decides nothing, what never begins is said."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.run.test_runner import SMALL, log

from conseq.data.sequences import Sequences
from conseq.data.splits import leave_one_out
from conseq.data.train_set import TrainSet
from conseq.encoders.sasrec import SASRecConfig
from conseq.methods.method import Method
from conseq.methods.next_item import NextItem, NextItemConfig
from conseq.run import runner
from conseq.run.config import from_record
from conseq.run.stages import (
    say_a_warmup_without_end,
    say_before_training,
    say_what_has_no_effect,
    say_what_is_never_called,
    say_what_never_begins,
    say_what_the_pick_lacks,
)
from conseq.training.config import TrainingConfig
from conseq.training.trainer import Stopped, Trainer, learning_rate

EARLY = {"name": "ec4srec", "updates": 1, "planned_epochs": 12}


class _Interrupting:
    """Asks a trainer to stop at the end of an epoch."""

    def __init__(self, trainer: Trainer, last: int) -> None:
        self.trainer, self.last = trainer, last

    def batch_done(self, epoch: int, batch: int, n_batches: int) -> None:
        pass

    def epoch_done(self, record: dict[str, Any]) -> None:
        self.trainer.interrupted = record["epoch"] == self.last

    def rewind(self, epoch: int) -> None:
        pass


def made(method: dict[str, Any]) -> Method[Any]:
    one = from_record({**SMALL, "method": method}, source="test")
    return runner.build(one, leave_one_out(log()), torch.device("cpu"))


@pytest.mark.parametrize("training", [{"patience": 1}, {"patience": 1, "every": 2}, {"patience": 2, "not_before": 7}])
def test_a_first_stage_neither_ends_a_run_nor_is_its_pick(training: dict[str, Any], tmp_path: Path) -> None:
    values = {
        **SMALL,
        "method": {"name": "s3rec", "pretrain": 6, "loss": "cross_entropy"},
        # With such steps nothing that is validated in the first stage is better than the first.
        "training": {**SMALL["training"], "epochs": 10, "learning_rate": 1e-12, **training},
    }
    found = runner.run(from_record(values, source="test"), log(), folder=tmp_path / "run")
    lines = [json.loads(one) for one in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    judged = [one["epoch"] for one in lines if "metrics" in one and one["epoch"] > 6]
    assert found.best_epoch == judged[0]
    assert len(judged) == 1 + training["patience"]
    assert found.epochs == judged[-1]


def test_a_run_stopped_at_the_end_of_a_first_stage_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    values = {
        **SMALL,
        "method": {"name": "dssrec", "pretrain": 2},
        "training": {**SMALL["training"], "epochs": 5, "patience": 1},
    }
    one = from_record(values, source="test")
    split = leave_one_out(log())
    found = []
    for stops in ((), (2, 3)):
        folder = tmp_path / str(len(stops))
        folder.mkdir()
        for last in (*stops, 99):
            method = runner.build(one, split, torch.device("cpu"))
            scores = {1: 0.9, 2: 0.8, 3: 0.1, 4: 0.2, 5: 0.1}
            trainer = Trainer(method, one.training, lambda encoder: {"NDCG@5": scores[trainer.epoch]}, folder=folder)  # noqa: B023
            trainer.resume()
            trainer.watcher = _Interrupting(trainer, last)
            with contextlib.suppress(Stopped):
                trainer.fit()
        found.append((trainer.stopping.best_epoch, trainer.epoch, method.state_dict()))
    assert found[0][:2] == found[1][:2] == (4, 6)
    assert all(torch.equal(value, found[1][2][name]) for name, value in found[0][2].items())


def test_a_run_that_ends_with_its_first_stage_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    values = {**SMALL, "method": {"name": "s3rec", "pretrain": 6}, "training": {**SMALL["training"], "epochs": 6}}
    one = from_record(values, source="test")
    method = runner.build(one, leave_one_out(log()), torch.device("cpu"))
    say_what_never_begins(method, one.training)
    say_what_the_pick_lacks(method, 3, one.training.epochs)
    told = capsys.readouterr().err
    assert "note: all 6 epochs belong to the first stage of S3Rec" in told
    assert "what is kept is what the first stage of S3Rec left: the next item was not trained" in told


@pytest.mark.parametrize(
    ("method", "later"),
    [
        (EARLY, {"explained views": 6}),
        ({"name": "ec4srec", "update_epochs": (5, 3)}, {"explained views": 3}),
        ({**EARLY, "positive_views": 0.0, "negative_views": 0.0, "supervised": 0.0}, {}),
        ({"name": "ec4srec", "explanation": "given"}, {}),
        ({"name": "coserec"}, {"correlations of item vectors": 161}),
        ({"name": "coserec", "correlation": "co_occurrence"}, {}),
        ({"name": "coserec", "short": ["mask"], "long": ["crop"]}, {}),
        ({"name": "iclrec", "clusters": [4], "intents_from": 4}, {"intents": 4}),
        ({"name": "iclrec", "clusters": [4], "intents_from": 4, "intent": 0.0}, {}),
        ({"name": "iclrec", "clusters": [4]}, {}),
        ({"name": "next_item"}, {}),
    ],
)
def test_what_begins_later_than_the_training_is_known(method: dict[str, Any], later: dict[str, int]) -> None:
    assert made(method).later == later


@pytest.mark.parametrize(("epochs", "said"), [(5, True), (6, False)])
def test_what_begins_after_the_last_epoch_is_said(epochs: int, said: bool, capsys: pytest.CaptureFixture[str]) -> None:
    values = {**SMALL, "method": EARLY, "training": {**SMALL["training"], "epochs": epochs}}
    one = from_record(values, source="test")
    say_what_never_begins(runner.build(one, leave_one_out(log()), torch.device("cpu")), one.training)
    note = "note: explained views of EC4SRec begin in epoch 6: with 5 epochs they take no part"
    assert (note in capsys.readouterr().err) is said


@pytest.mark.parametrize(("best_epoch", "epochs", "said"), [(5, 9, True), (6, 9, False), (0, 9, False), (5, 5, False)])
def test_weights_from_before_something_began_are_named(
    best_epoch: int, epochs: int, said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    say_what_the_pick_lacks(made(EARLY), best_epoch, epochs)
    note = "note: the weights are those of epoch 5, and explained views of EC4SRec begin in epoch 6"
    assert (note in capsys.readouterr().err) is said


def test_a_run_says_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training = {**SMALL["training"], "epochs": 3, "patience": 1, "learning_rate": 1e-12}
    values = {**SMALL, "method": {**EARLY, "update_epochs": [3]}, "training": training}
    runner.run(from_record(values, source="test"), log(), folder=tmp_path / "run")
    assert "those of epoch 1, and explained views of EC4SRec begin in epoch 3" in capsys.readouterr().err
    values["training"] = {**training, "epochs": 2}
    runner.run(from_record(values, source="test"), log(), folder=tmp_path / "other")
    assert "with 2 epochs they take no part" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "training", "said"),
    [
        (
            {"negatives": 8},
            {},
            ["negatives = 8 has no effect with the loss cross_entropy; it is of binary_cross_entropy"],
        ),
        ({"loss": "gbce", "negatives": 8, "calibration": 0.5}, {}, []),
        ({"loss": "sampled_softmax", "log_q": False}, {}, []),
        (
            {"loss": "binary_cross_entropy", "log_q": False, "calibration": 0.1},
            {},
            ["calibration = 0.1 has no effect with", "log_q = False has no effect with"],
        ),
        ({"name": "comirec", "negatives": 7}, {"instances": "prefixes"}, []),
        (
            {},
            {"instances": "prefixes", "windows": "disjoint"},
            ["windows = disjoint has no effect with instances prefixes"],
        ),
        ({}, {"windows": False}, []),
    ],
)
def test_settings_that_do_nothing_beside_the_others_are_said(
    method: dict[str, Any], training: dict[str, Any], said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = from_record({"method": {"name": "next_item"} | method, "training": training}, source="test")
    say_what_has_no_effect(config.method, config.training)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(said)
    assert all(line.startswith(f"note: {words}") for line, words in zip(lines, said, strict=True))


@pytest.mark.parametrize(
    ("training", "note"),
    [
        ({"warmup": 60}, ""),
        ({}, ""),
        (
            {"warmup": 80, "learning_rate": 0.01},
            "note: warmup = 80 is longer than the whole training, 60 batches (3 epochs of 20): the step size ends at "
            "0.0075 of 0.01\n",
        ),
        (
            {"warmup": 600, "schedule": "linear"},
            "note: warmup = 600 is longer than the whole training, 60 batches (3 epochs of 20): the step size ends at "
            "0.0001 of 0.001, and schedule = linear has no effect\n",
        ),
    ],
)
def test_a_warmup_that_outlasts_the_training_is_said(
    training: dict[str, Any], note: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TrainingConfig(epochs=3, **training)
    say_a_warmup_without_end(config, 20)
    assert capsys.readouterr().err == note
    if note:  # it ends there indeed
        assert f"{learning_rate(config, 59, 20):.3g} of" in note


def test_a_warmup_is_measured_by_the_batches_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    method = made({"name": "next_item"})
    say_before_training(method, NextItemConfig(), TrainingConfig(epochs=2, batch_size=10, warmup=99))
    batches = method.train_set.n_batches(10)
    assert f"longer than the whole training, {2 * batches} batches (2 epochs of {batches})" in capsys.readouterr().err


class _Misspelt(NextItem):
    """Means to be asked between epochs, and has a helper of its own."""

    def begin_epochs(self, epoch: int, rng: torch.Generator) -> None:
        raise AssertionError("never called")

    def losses_of(self) -> None:
        pass

    def _loss(self) -> None:
        pass


def test_a_misspelt_part_of_a_method_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    train = TrainSet(Sequences.from_lists([[1, 2, 3]]), torch.arange(1), 3, instances="whole", max_length=5)
    encoder = SASRecConfig(width=8, layers=1, heads=1, max_length=5)
    say_what_is_never_called(_Misspelt(NextItemConfig(), train, encoder))
    assert capsys.readouterr().err == (
        "note: _Misspelt.begin_epochs is never called by the trainer; it calls begin_epoch\n"
    )
