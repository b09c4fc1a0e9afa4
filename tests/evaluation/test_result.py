"""Evaluations that are stored and read again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.data.splits import HeldOut
from conseq.encoders.encoder import Scorer
from conseq.evaluation.evaluator import evaluate
from conseq.evaluation.ranks import Protocol
from conseq.evaluation.result import Evaluation


@pytest.fixture
def evaluation(table_scorer: Callable[[Tensor], Scorer], held_out: HeldOut, protocol: Protocol) -> Evaluation:
    several = replace(held_out, targets=Sequences.from_lists([[2, 6], [1], [1], [6]]))
    table = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    excluded = replace(protocol, history="exclude")  # user 2's target is out of reach
    return evaluate(table_scorer(table), several, excluded, train=several.histories, lists=True)


def test_what_is_saved_is_loaded(evaluation: Evaluation, tmp_path: Path) -> None:
    path = evaluation.save(tmp_path / "run")
    again = Evaluation.load(path)
    assert again.record() == evaluation.record()
    assert again.protocol == evaluation.protocol
    assert np.isinf(again.ranks).any()
    for name in ("users", "ranks", "offsets"):
        assert np.array_equal(getattr(again, name), getattr(evaluation, name))
        assert getattr(again, name).dtype == getattr(evaluation, name).dtype


def test_the_metrics_follow_from_the_ranks_that_are_stored(evaluation: Evaluation, tmp_path: Path) -> None:
    again = Evaluation.load(evaluation.save(tmp_path))
    for name in ("HR@5", "NDCG@10", "Recall@20", "ComiRecNDCG@5", "MRR"):
        assert again.value(name) == evaluation.metrics[name]
    assert again.value("HR@1") == np.mean(np.minimum.reduceat(again.ranks, again.offsets[:-1]) == 1)


def test_the_record_beside_the_ranks_is_json_and_carries_the_protocol(evaluation: Evaluation, tmp_path: Path) -> None:
    path = evaluation.save(tmp_path)
    assert path.name == "evaluation-test-leave_one_out-exclude-pessimistic.safetensors"
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["protocol"] == {
        "split": "test",
        "slicing": "leave_one_out",
        "history": "exclude",
        "ties": "pessimistic",
    }
    assert record["metrics"]["HR@5"] == evaluation.metrics["HR@5"]
    assert set(record["floors"]) == {"popularity", "own history"}


def test_a_folder_with_one_evaluation_names_it(evaluation: Evaluation, tmp_path: Path) -> None:
    evaluation.save(tmp_path)
    assert Evaluation.load(tmp_path).metrics == evaluation.metrics


def test_evaluations_under_two_protocols_do_not_overwrite_each_other(evaluation: Evaluation, tmp_path: Path) -> None:
    first = evaluation.save(tmp_path)
    second = replace(evaluation, protocol=replace(evaluation.protocol, history="keep")).save(tmp_path)
    assert first != second
    with pytest.raises(ValueError, match=r"holds 2 evaluations \(.*exclude.*keep.*\); name one"):
        Evaluation.load(tmp_path)


def test_a_folder_or_file_without_an_evaluation_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no evaluation in"):
        Evaluation.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no evaluation at .*there\.safetensors"):
        Evaluation.load(tmp_path / "there.safetensors")


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_truncated_file_is_refused(evaluation: Evaluation, tmp_path: Path, kept: int) -> None:
    path = evaluation.save(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"is damaged or no evaluation .*evaluate again"):
        Evaluation.load(path)


def test_weights_are_no_evaluation(tmp_path: Path) -> None:
    save_file({"weight": np.zeros(3)}, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="no evaluation"):
        Evaluation.load(tmp_path / "weights.safetensors")


def test_another_format_is_refused(evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conseq.evaluation.result._FORMAT", 7)
    path = evaluation.save(tmp_path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="has format 7; this version reads format 1"):
        Evaluation.load(path)


def test_a_failure_while_saving_leaves_the_earlier_evaluation(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = evaluation.save(tmp_path)
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        replace(evaluation, model="another").save(tmp_path)
    monkeypatch.undo()
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before
    assert Evaluation.load(path).model == evaluation.model
