"""Views of a run: the vectors that its method makes, and how near they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tests.analyses.conftest import SMALL
from torch import Tensor
from torch.nn import functional as F

from conseq.analyses import analyse
from conseq.analyses.representations import alignment
from conseq.analyses.subject import subject_of
from conseq.analyses.views import makes_views, pair, trained_method, view_vectors
from conseq.data.log import InteractionLog
from conseq.methods.mclrec import MCLRec
from conseq.run import runner
from conseq.run.config import from_record


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_pair_compares_views_of_one_history_and_of_others() -> None:
    a, b = normal(6, 3), normal(6, 3, seed=1)
    x, y = F.normalize(a.double(), dim=1), F.normalize(b.double(), dim=1)
    apart = [float((x[i] - y[j]).square().sum()) for i in range(6) for j in range(6) if i != j]
    found = pair(a, b)
    assert found.value == pytest.approx(alignment(a, b))
    assert found.others == pytest.approx(sum(apart) / len(apart))
    assert pair(a, a).value == pytest.approx(0.0)


def test_views_are_those_of_the_best_epochs_method(contrasting: Path, log: InteractionLog) -> None:
    subject = subject_of(contrasting, log)
    method, epoch = trained_method(subject)
    assert isinstance(method, MCLRec)
    assert 1 <= epoch <= 2
    # The encoder is the one that is served, and the augmenters are not those that a run begins with.
    served = subject.encoder.state_dict()
    assert all(torch.equal(value, served[name]) for name, value in method.encoder.state_dict().items())
    assert subject.experiment is not None
    fresh = runner.build(subject.experiment, subject.split, subject.device, item_ids=log.item_ids)
    assert isinstance(fresh, MCLRec)
    pairs = zip(method.augmenters.parameters(), fresh.augmenters.parameters(), strict=True)
    assert any(not torch.equal(ours, theirs) for ours, theirs in pairs)


def test_learned_views_are_what_augmenters_make_of_random_ones(contrasting: Path, log: InteractionLog) -> None:
    method, _ = trained_method(subject_of(contrasting, log))
    assert isinstance(method, MCLRec)
    found = view_vectors(method, histories=20, seed=3)
    assert list(found) == ["random 1", "random 2", "learned 1", "learned 2"]
    assert {one.shape for one in found.values()} == {(20, 8)}
    for number in (0, 1):
        with torch.no_grad():
            made = method.augmenters[number](found[f"random {number + 1}"])
        assert torch.allclose(found[f"learned {number + 1}"], made, atol=1e-6)
    again = view_vectors(method, histories=20, seed=3)
    assert all(torch.equal(one, again[name]) for name, one in found.items())
    assert not torch.equal(found["random 1"], view_vectors(method, histories=20, seed=4)["random 1"])
    assert len(view_vectors(method, histories=10**6, seed=0)["random 1"]) == len(method.train_set)


def test_the_record_is_of_those_vectors(contrasting: Path, log: InteractionLog) -> None:
    method, epoch = trained_method(subject_of(contrasting, log))
    vectors = view_vectors(method, histories=30, seed=1)
    record = analyse("views", {"histories": 30, "seed": 1}, contrasting, log)
    assert (record["histories"], record["epoch"]) == (30, epoch)
    assert set(record["kinds"]) == set(vectors)
    assert len(record["pairs"]) == 6
    learned = pair(vectors["learned 1"], vectors["learned 2"])
    assert record["pairs"]["learned 1, learned 2"] == {"value": learned.value, "others": learned.others}


def test_without_augmenters_there_are_random_views_alone(tmp_path: Path, log: InteractionLog) -> None:
    runner.run(from_record({**SMALL, "method": {"name": "cl4srec"}}, source="test"), log, folder=tmp_path / "run")
    record = analyse("views", {}, tmp_path / "run", log)
    assert list(record["pairs"]) == ["random 1, random 2"]
    runner.run(
        from_record({**SMALL, "method": {"name": "mclrec", "learned": 0.0}}, source="test"),
        log,
        folder=tmp_path / "bare",
    )
    assert list(analyse("views", {}, tmp_path / "bare", log)["kinds"]) == ["random 1", "random 2"]


def test_what_makes_no_views_is_told(run: Path, contrasting: Path, log: InteractionLog, tmp_path: Path) -> None:
    assert makes_views(subject_of(contrasting, log))
    assert not makes_views(subject_of(run, log))
    assert not makes_views(subject_of(contrasting / "bundle", log))
    with pytest.raises(ValueError, match="NextItem makes no two random views of a history; cl4srec and mclrec do"):
        analyse("views", {}, run, log)
    with pytest.raises(ValueError, match=r"bundle, which keeps the encoder alone.* name the run's folder"):
        analyse("views", {}, contrasting / "bundle", log)
    bare = shutil.copytree(contrasting, tmp_path / "run")
    (bare / "checkpoint.pt").unlink()
    assert not makes_views(subject_of(bare, log))
    with pytest.raises(ValueError, match=r"has no checkpoint\.pt, which holds what is learned beside the encoder"):
        analyse("views", {}, bare, log)
    shutil.copy(run / "checkpoint.pt", bare / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"checkpoint\.pt: not of this experiment and log"):
        analyse("views", {}, bare, log)
