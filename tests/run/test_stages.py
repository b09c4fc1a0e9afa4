"""Stages and the epochs of a run: what would end too soon is refused, what never begins is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.run.test_runner import SMALL, log

from conseq.data.splits import leave_one_out
from conseq.methods.method import Method
from conseq.run import runner
from conseq.run.config import from_record
from conseq.run.stages import check_stages, say_what_the_pick_lacks

EARLY = {"name": "ec4srec", "updates": 1, "planned_epochs": 12}


def made(method: dict[str, Any]) -> Method[Any]:
    one = from_record({**SMALL, "method": method}, source="test")
    return runner.build(one, leave_one_out(log()), torch.device("cpu"))


@pytest.mark.parametrize(
    ("training", "refused"),
    [
        ({"patience": 3}, True),
        ({"patience": 3, "not_before": 6}, True),
        ({"patience": 3, "not_before": 7}, False),
        ({"patience": 7}, False),
        ({"patience": 3, "every": 3}, False),
        ({"patience": None}, False),
    ],
)
def test_a_run_may_not_end_before_its_first_stage_has(training: dict[str, Any], refused: bool) -> None:
    values = {
        **SMALL,
        "method": {"name": "s3rec", "pretrain": 6},
        "training": {**SMALL["training"], "epochs": 8, **training},
    }
    one = from_record(values, source="test")
    method = runner.build(one, leave_one_out(log()), torch.device("cpu"))
    if not refused:
        check_stages(method, one.training)
        return
    with pytest.raises(ValueError, match=r"the first 6 epochs of S3Rec .* set not_before to at least 7 \(9 gives"):
        check_stages(method, one.training)


def test_a_run_that_ends_with_its_first_stage_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    values = {**SMALL, "method": {"name": "s3rec", "pretrain": 6}, "training": {**SMALL["training"], "epochs": 6}}
    one = from_record(values, source="test")
    check_stages(runner.build(one, leave_one_out(log()), torch.device("cpu")), one.training)
    assert "note: all 6 epochs belong to the first stage of S3Rec" in capsys.readouterr().err


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
    check_stages(runner.build(one, leave_one_out(log()), torch.device("cpu")), one.training)
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
