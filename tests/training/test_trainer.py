"""The loop: what it steps, when it stops, and that a resumed run is the same run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conseq.data.sequences import Sequences
from conseq.data.train_set import Batch, TrainSet
from conseq.encoders.encoder import Backbone, Encoder
from conseq.encoders.sasrec import SASRecConfig
from conseq.evaluation.ranks import ScoreError, target_ranks
from conseq.methods.method import Method, Terms
from conseq.methods.next_item import NextItem, NextItemConfig
from conseq.training import checkpoint
from conseq.training.config import TrainingConfig
from conseq.training.trainer import Stopped, Trainer, evaluating, learning_rate

SMALL = SASRecConfig(width=8, layers=1, heads=1, max_length=6)


def train_set(n_users: int = 20, n_items: int = 9) -> TrainSet:
    rows = [[(user + step) % n_items + 1 for step in range(3 + user % 4)] for user in range(n_users)]
    return TrainSet(
        Sequences.from_lists(rows), torch.arange(n_users), n_items, instances="prefixes", max_length=SMALL.max_length
    )


def method(loss: Any = "cross_entropy") -> NextItem:
    torch.manual_seed(3)
    return NextItem(NextItemConfig(loss=loss), train_set(), SMALL)


def settings(**changes: Any) -> TrainingConfig:
    return TrainingConfig(**{"epochs": 3, "batch_size": 16, "patience": None, **changes})


def by_loss(encoder: Encoder) -> dict[str, float]:
    """A validation metric that needs no held-out part and rises with training: how far the items are from zero."""
    return {"NDCG@20": float(encoder.items.weight.detach().abs().mean())}


class Recorder:
    """A watcher that can interrupt after some batches."""

    def __init__(self, trainer: Trainer | None = None, *, after: int = -1) -> None:
        self.records: list[dict[str, Any]] = []
        self.rewound: list[int] = []
        self.trainer, self.after, self.batches = trainer, after, 0

    def batch_done(self, epoch: int, batch: int, n_batches: int) -> None:
        self.batches += 1
        if self.trainer is not None and self.batches == self.after:
            self.trainer.interrupted = True

    def epoch_done(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def rewind(self, epoch: int) -> None:
        self.rewound.append(epoch)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (torch.tensor(1.0), r"a loss must be a dict of scalar tensors by name.*found a tensor of shape \[\]"),
        (None, "found None"),
        ({}, "found {}"),
        ({"next_item": torch.ones(3)}, r"the term 'next_item' of the loss must be a scalar tensor, found shape \[3\]"),
        ({"next_item": 0.5}, "the term 'next_item' of the loss must be a scalar tensor, found float"),
    ],
)
def test_a_loss_that_is_no_table_of_scalars_is_refused_in_words(given: Any, told: str) -> None:
    class Own(NextItem):
        def loss(self, batch: Batch, rng: torch.Generator) -> Terms:
            found: Terms = given
            return found

    torch.manual_seed(3)
    with pytest.raises(TypeError, match=f"Own: .*{told}"):
        Trainer(Own(NextItemConfig(), train_set(), SMALL), settings(), by_loss).fit()


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
@pytest.mark.parametrize("after", [1, 4, 5, 7])
def test_a_run_stopped_anywhere_and_resumed_ends_bit_identical(tmp_path: Path, loss: str, after: int) -> None:
    whole = Trainer(method(loss), settings(), by_loss, folder=tmp_path / "whole")
    whole.fit()
    stopped = Trainer(method(loss), settings(), by_loss, folder=tmp_path / "parts")
    stopped.watcher = Recorder(stopped, after=after)
    with pytest.raises(Stopped):
        stopped.fit()
    torch.manual_seed(999)  # another process has another random state
    torch.rand(7)
    resumed = Trainer(method(loss), settings(), by_loss, folder=tmp_path / "parts")
    assert resumed.resume()
    resumed.fit()
    assert same(whole.method.state_dict(), resumed.method.state_dict())
    assert same(whole.best, resumed.best)
    assert whole.stopping == resumed.stopping


def test_resuming_gives_the_same_mean_terms_as_never_stopping(tmp_path: Path) -> None:
    whole = Recorder()
    Trainer(method(), settings(), by_loss, folder=tmp_path / "whole", watcher=whole).fit()
    first = Trainer(method(), settings(), by_loss, folder=tmp_path / "parts")
    first.watcher = Recorder(first, after=5)
    with pytest.raises(Stopped):
        first.fit()
    second = Recorder()
    resumed = Trainer(method(), settings(), by_loss, folder=tmp_path / "parts", watcher=second)
    resumed.resume()
    resumed.fit()
    assert [one["terms"] for one in whole.records][-len(second.records) :] == [one["terms"] for one in second.records]
    assert second.rewound == [second.records[0]["epoch"] - 1]


def test_without_a_checkpoint_there_is_nothing_to_resume(tmp_path: Path) -> None:
    assert not Trainer(method(), settings(), by_loss, folder=tmp_path).resume()
    assert not Trainer(method(), settings(), by_loss).resume()


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    Trainer(method(), settings(epochs=1), by_loss, folder=tmp_path).fit()
    other = NextItem(NextItemConfig(), train_set(), SASRecConfig(width=16, layers=1, heads=1, max_length=6))
    with pytest.raises(ValueError, match=r"checkpoint\.pt: belongs to another configuration"):
        Trainer(other, settings(), by_loss, folder=tmp_path).resume()


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    Trainer(method(), settings(epochs=1), by_loss, folder=tmp_path).fit()
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"checkpoint\.pt: not a whole checkpoint"):
        Trainer(method(), settings(), by_loss, folder=tmp_path).resume()


def test_a_bit_that_changed_in_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save({"weights": torch.arange(5000.0), "epoch": 3}, path)
    whole, unnoticed = path.read_bytes(), 0
    for place in range(100, len(whole) - 100, len(whole) // 60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with suppress(ValueError):
            found = checkpoint.load(path)  # between the entries stand paddings, which nothing reads
            assert torch.equal(found["weights"], torch.arange(5000.0))
            assert found["epoch"] == 3
            unnoticed += 1
    assert unnoticed < 10


def test_a_failed_save_leaves_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save({"epoch": 1}, path)

    def full(state: object, file: Any) -> None:
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save({"epoch": 2}, path)
    assert checkpoint.load(path)["epoch"] == 1
    assert [one.name for one in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_an_unwritable_folder_is_an_error_and_not_a_lost_run(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="run"):
        Trainer(method(), settings(), by_loss, folder=tmp_path / "run").fit()
    assert (tmp_path / "run").read_text() == "a file where the folder should be"


def test_the_best_epoch_weights_are_left_in_place() -> None:
    values = iter([0.1, 0.3, 0.2])
    kept: list[dict[str, Tensor]] = []

    def validate(encoder: Encoder) -> dict[str, float]:
        kept.append({name: one.clone() for name, one in encoder.state_dict().items()})
        return {"NDCG@20": next(values)}

    trainer = Trainer(method(), settings(), validate)
    trainer.fit()
    assert trainer.stopping.best_epoch == 2
    assert same(trainer.method.encoder.state_dict(), kept[1])
    assert not trainer.method.training


def test_training_stops_when_patience_runs_out_but_not_before_the_first_epoch_allowed() -> None:
    worse = {"calls": 0}

    def validate(encoder: Encoder) -> dict[str, float]:
        worse["calls"] += 1
        return {"NDCG@20": -float(worse["calls"])}

    Trainer(method(), settings(epochs=9, patience=2), validate).fit()
    assert worse["calls"] == 3
    worse["calls"] = 0
    Trainer(method(), settings(epochs=9, patience=2, not_before=6), validate).fit()
    assert worse["calls"] == 6


def test_a_non_finite_term_stops_the_run_and_is_named(tmp_path: Path) -> None:
    class Broken(NextItem):
        def loss(self, batch: Batch, rng: torch.Generator) -> Terms:
            return {**super().loss(batch, rng), "contrast": torch.tensor(float("nan"))}

    torch.manual_seed(0)
    broken = Broken(NextItemConfig(), train_set(), SMALL)
    before = {name: one.clone() for name, one in broken.state_dict().items()}
    with pytest.raises(FloatingPointError, match="'contrast' is nan in epoch 1"):
        Trainer(broken, settings(), by_loss, folder=tmp_path).fit()
    assert same(before, broken.state_dict())


def test_weights_that_are_no_numbers_are_in_no_checkpoint(tmp_path: Path) -> None:
    class Runaway(NextItem):
        def loss(self, batch: Batch, rng: torch.Generator) -> Terms:
            terms = super().loss(batch, rng)
            self.encoder.items.weight.data[1] = math.inf
            return terms

    torch.manual_seed(0)
    one = Runaway(NextItemConfig(), train_set(), SMALL)
    # One batch an epoch and no validation of the first: no loss and no score is ever computed with these weights.
    with pytest.raises(FloatingPointError, match=r"diverged in epoch 1: encoder\.items\.weight holds NaN or infinite"):
        Trainer(one, settings(batch_size=999, every=2), by_loss, folder=tmp_path).fit()
    assert list(tmp_path.iterdir()) == []


def test_scores_that_are_no_numbers_in_validation_tell_of_training_that_diverged() -> None:
    targets = Sequences.from_lists([[1]])

    def ranked(encoder: Encoder) -> dict[str, float]:
        target_ranks(torch.full((1, 9), float("nan")), targets, ties="pessimistic")
        raise AssertionError("such scores have no ranks")

    with pytest.raises(
        FloatingPointError, match=r"diverged in epoch 2: .*Lower the learning rate, or set clip"
    ) as told:
        Trainer(method(), settings(every=2), ranked).fit()
    assert isinstance(told.value.__cause__, ScoreError)


def test_another_mistake_in_validation_is_told_as_it_is() -> None:
    def mistaken(encoder: Encoder) -> dict[str, float]:
        raise ValueError("nobody to judge")

    with pytest.raises(ValueError, match=r"^nobody to judge$"):
        Trainer(method(), settings(), mistaken).fit()


class TwoStage(Method[Encoder]):
    """Two groups, updated in turn; each update's loss reaches both."""

    def __init__(self, train: TrainSet, backbone: Backbone[Encoder]) -> None:
        super().__init__(train, backbone)
        self.head = nn.Linear(backbone.width, 1)
        self.seen: list[dict[str, Tensor]] = []

    def groups(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "head": self.head}

    def updates(self, batch: Batch, rng: torch.Generator) -> Iterator[tuple[str, Terms]]:
        for group in ("encoder", "head"):
            self.seen.append({name: one.clone() for name, one in self.state_dict().items()})
            yield group, {"score": self.head(self.encoder(batch.history)).square().mean()}


def test_an_update_moves_its_own_group_only_and_the_next_one_sees_the_step() -> None:
    torch.manual_seed(0)
    two = TwoStage(train_set(), SMALL)
    Trainer(two, settings(epochs=1, batch_size=1000), by_loss).fit()
    start, between, end = *two.seen, two.state_dict()
    assert torch.equal(start["head.weight"], between["head.weight"])
    assert not torch.equal(start["encoder.norm.weight"], between["encoder.norm.weight"])
    assert not torch.equal(between["head.weight"], end["head.weight"])
    assert torch.equal(between["encoder.norm.weight"], end["encoder.norm.weight"])


def test_a_group_without_parameters_is_refused() -> None:
    class Empty(TwoStage):
        def groups(self) -> dict[str, nn.Module]:
            return {"encoder": self.encoder, "nothing": nn.Identity()}

    with pytest.raises(ValueError, match="'nothing' has no parameters"):
        Trainer(Empty(train_set(), SMALL), settings(), by_loss)


def test_clipping_bounds_the_gradient_norm() -> None:
    one = method()
    trainer = Trainer(one, settings(epochs=1, clip=1e-3), by_loss)
    trainer.fit()
    norm = torch.stack([p.grad.norm() for p in one.parameters() if p.grad is not None]).norm()
    assert float(norm) <= 1e-3 * 1.0001


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        ("constant", 0, 0.25),  # warm-up: (0 + 1) / 4
        ("constant", 3, 1.0),
        ("constant", 43, 1.0),
        ("linear", 4, 1.0),
        ("linear", 24, 0.5),  # 20 of the 40 batches after the warm-up
        ("cosine", 24, 0.5),
        ("cosine", 14, 0.5 * (1 + 2**-0.5)),
    ],
)
def test_the_step_size_follows_its_schedule(schedule: Any, step: int, expected: float) -> None:
    config = TrainingConfig(learning_rate=1.0, schedule=schedule, warmup=4, epochs=4)
    assert learning_rate(config, step, 11) == pytest.approx(expected)


def test_the_step_size_of_the_schedule_reaches_the_optimizer() -> None:
    trainer = Trainer(method(), settings(schedule="linear"), by_loss)
    trainer.fit()
    n = trainer.train.n_batches(16)
    assert trainer.optimizers["all"].param_groups[0]["lr"] == pytest.approx(1e-3 / (3 * n))


def test_bfloat16_trains_close_to_float32_and_keeps_float32_weights() -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        watcher = Recorder()
        trainer = Trainer(method(), settings(epochs=5, precision=precision), by_loss, watcher=watcher)
        trainer.fit()
        losses[precision] = watcher.records[-1]["terms"]["next_item"]
        assert all(one.dtype == torch.float32 for one in trainer.method.parameters())
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)


def test_evaluation_mode_is_restored_after_use() -> None:
    one = method().train()
    with evaluating(one):
        assert not one.encoder.training
        assert not torch.is_grad_enabled()
    assert one.encoder.training


def test_validation_happens_every_few_epochs_and_at_the_end() -> None:
    watcher = Recorder()
    Trainer(method(), settings(epochs=5, every=2), by_loss, watcher=watcher).fit()
    assert [one["epoch"] for one in watcher.records if "metrics" in one] == [2, 4, 5]


def test_a_run_whose_epochs_have_one_batch_can_be_stopped_too(tmp_path: Path) -> None:
    whole = Trainer(method(), settings(epochs=6, batch_size=1000), by_loss)
    whole.fit()
    stopped = Trainer(method(), settings(epochs=6, batch_size=1000), by_loss, folder=tmp_path)
    stopped.watcher = Recorder(stopped, after=3)
    with pytest.raises(Stopped):
        stopped.fit()
    assert stopped.epoch == 4
    resumed = Trainer(method(), settings(epochs=6, batch_size=1000), by_loss, folder=tmp_path)
    resumed.resume()
    resumed.fit()
    assert same(whole.method.state_dict(), resumed.method.state_dict())


def test_a_run_that_begins_without_a_checkpoint_forgets_what_an_earlier_process_left(tmp_path: Path) -> None:
    watcher = Recorder()
    assert not Trainer(method(), settings(), by_loss, folder=tmp_path, watcher=watcher).resume()
    assert watcher.rewound == [0]
