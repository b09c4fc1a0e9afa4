"""S3-Rec task by task, against its equations on a tiny batch, and its two stages."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.data.train_set import Batch, Instances, TrainSet
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.encoder import Encoder
from conseq.encoders.gru4rec import GRU4RecConfig
from conseq.encoders.sasrec import SASRec, SASRecConfig
from conseq.methods.next_item import NextItem, NextItemConfig
from conseq.methods.s3rec import S3Rec, S3RecConfig, paired
from conseq.training.config import TrainingConfig
from conseq.training.trainer import Trainer

N_ITEMS = 9
MASK = N_ITEMS + 1
LISTS = [[1, 2, 3, 4], [6, 7, 8, 4], [2, 4, 6], [9, 1, 5, 3], [5, 6]]
ATTRIBUTES = {1: ["red"], 2: ["red", "new"], 3: ["blue"], 4: ["new"], 5: ["red", "blue", "new"], 6: ["blue"]}
CALM = SASRecConfig(width=8, layers=2, heads=2, max_length=6, dropout=0.0, attention_dropout=0.0)
both_ways = pytest.mark.parametrize("instances", ["prefixes", "whole"])


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [f"{item},{name}" for item, names in ATTRIBUTES.items() for name in names]
    path = tmp_path / "items.csv"
    path.write_text("\n".join(["item_id,attribute", *rows]))
    return path


def make(config: S3RecConfig, instances: Instances = "whole", backbone: Any = CALM) -> tuple[S3Rec, Batch]:
    train = TrainSet(
        Sequences.from_lists(LISTS),
        torch.arange(5),
        N_ITEMS,
        instances=instances,
        max_length=6,
        item_ids=Vocabulary([str(item) for item in range(1, N_ITEMS + 1)], start=1),
    )
    torch.manual_seed(0)
    method = S3Rec(config, train, backbone)
    with torch.no_grad():
        method.encoder.items.weight.mul_(20)
    method.begin_epoch(1, rng())
    return method, train.batch(torch.arange(len(train)))


def rng(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def states_of(method: S3Rec, row: list[int]) -> Tensor:
    """The states of one sequence, read both ways."""
    seqs = Sequences.from_lists([row])
    assert isinstance(method.encoder, SASRec)
    return method.encoder.contextualize(method.encoder.items(seqs.ids), seqs, causal=False).detach()


class Spied:
    """A source of negatives that notes what it gave."""

    def __init__(self, method: S3Rec) -> None:
        self.of, self.drawn = method.unmet, torch.empty(0)
        method.unmet = self  # type: ignore[assignment]

    def draw(self, users: Tensor, count: int, generator: torch.Generator) -> Tensor:
        assert self.of is not None
        self.users, self.drawn = users, self.of.draw(users, count, generator)
        return self.drawn


def masks(seqs: Sequences, share: float) -> list[bool]:
    """What the first random numbers of a pretraining update choose."""
    chosen = torch.rand(seqs.ids.numel(), generator=rng(), dtype=torch.float64) < share
    return chosen.index_fill(0, seqs.last, True).tolist()


def slow_items(method: S3Rec, seqs: Sequences, chosen: list[bool], drawn: list[int]) -> float:
    assert method.item_map is not None
    total, place, negatives = 0.0, 0, iter(drawn)
    vectors = method.encoder.items.weight.detach()
    for row in seqs.to_lists():
        read = [MASK if chosen[place + t] else item for t, item in enumerate(row)]
        states = method.item_map(states_of(method, read)).detach()
        for t, item in enumerate(row):
            if chosen[place + t]:
                own, other = (sigmoid(float(states[t] @ vectors[one])) for one in (item, next(negatives)))
                total -= math.log(math.exp(own) / (math.exp(own) + math.exp(other)))
        place += len(row)
    return total / len(seqs)


def test_masked_items_are_told_from_items_that_the_user_has_not_met() -> None:
    method, batch = make(S3RecConfig(segment=0.0, item=0.7, mask=0.4))
    seqs, users = method.sequences(batch)
    spied = Spied(method)
    found = method.pretraining_loss(seqs, users, rng())
    drawn = spied.drawn[:, 0].tolist()
    expected = slow_items(method, seqs, masks(seqs, 0.4), drawn)
    assert {name: term.item() for name, term in found.items()} == pytest.approx({"item": 0.7 * expected}, abs=1e-5)
    assert all(item not in LISTS[user] for user, item in zip(spied.users.tolist(), drawn, strict=True))


@pytest.mark.parametrize("describe", ["item", "state"])
def test_attributes_are_binary_questions_of_what_is_shown_and_what_is_masked(describe: Any, table: Path) -> None:
    method, batch = make(
        S3RecConfig(
            item=0.0,
            segment=0.0,
            associated=0.3,
            masked=0.6,
            mask=0.4,
            attributes=table,
            attribute_column="attribute",
            describe=describe,
        )
    )
    seqs, users = method.sequences(batch)
    found = {name: term.item() for name, term in method.pretraining_loss(seqs, users, rng()).items()}
    assert method.attributes is not None
    assert method.associated_map is not None
    assert method.masked_map is not None
    chosen, names = masks(seqs, 0.4), ["blue", "new", "red"]
    sums, place = {"associated": 0.0, "masked": 0.0}, 0
    for row in seqs.to_lists():
        states = states_of(method, [MASK if chosen[place + t] else item for t, item in enumerate(row)])
        for t, item in enumerate(row):
            task = "masked" if chosen[place + t] else "associated"
            shown = states[t]
            if task == "associated" and describe == "item":
                shown = method.encoder.items.weight[item]
            known = (method.masked_map if task == "masked" else method.associated_map)(shown)
            for name, vector in zip(names, method.attributes.vectors, strict=True):
                p = sigmoid(float((known @ vector).detach()))
                sums[task] -= math.log(p if name in ATTRIBUTES.get(item, []) else 1 - p)
        place += len(row)
    assert found == pytest.approx(
        {"associated": 0.3 * sums["associated"] / len(seqs), "masked": 0.6 * sums["masked"] / len(seqs)}, abs=1e-4
    )


def test_a_segment_is_told_from_another_by_what_is_around_it() -> None:
    method, batch = make(S3RecConfig(item=0.0, segment=0.4))
    seqs, users = method.sequences(batch)
    found = method.pretraining_loss(seqs, users, rng())
    again = rng()
    torch.rand(seqs.ids.numel(), generator=again, dtype=torch.float64)  # what MIP draws first
    assert method.segment_map is not None
    total = 0.0
    for rows in zip(*(part.to_lists() for part in method.segments(seqs, again)), strict=True):
        around, own, other = (states_of(method, row)[-1] for row in rows)
        x = method.segment_map(around).detach()
        total += math.log(1 + math.exp(sigmoid(float(x @ other)) - sigmoid(float(x @ own))))
    assert {name: term.item() for name, term in found.items()} == pytest.approx(
        {"segment": 0.4 * total / len(seqs)}, abs=1e-5
    )


def test_segments_are_cut_whole_and_stand_where_they_were() -> None:
    method, _ = make(S3RecConfig())
    flat = [item for row in LISTS for item in row]
    lists = [[1, 2], [1, 2, 3, 4, 5], [9, 8, 7, 6, 5, 4]] * 300
    sizes: dict[int, set[tuple[int, int]]] = {2: set(), 5: set(), 6: set()}
    around, own, other = (part.to_lists() for part in method.segments(Sequences.from_lists(lists), rng()))
    for row, left, kept, strange in zip(lists, around, own, other, strict=True):
        inside = [t for t, item in enumerate(left) if item == MASK]
        assert inside == list(range(inside[0], inside[0] + len(inside)))
        assert 1 <= len(inside) <= len(row) // 2
        assert left == [MASK if t in inside else item for t, item in enumerate(row)]
        assert kept == [item if t in inside else MASK for t, item in enumerate(row)]
        assert [t for t, item in enumerate(strange) if item != MASK] == inside
        cut = [strange[t] for t in inside]
        assert any(flat[at : at + len(cut)] == cut for at in range(len(flat)))
        sizes[len(row)].add((len(inside), inside[0]))
    assert sizes[2] == {(1, 0), (1, 1)}
    assert sizes[5] == {(1, t) for t in range(5)} | {(2, t) for t in range(4)}
    assert len(sizes[6]) == 6 + 5 + 4


def test_a_pair_is_compared_after_squashing() -> None:
    x, y, z = (torch.tensor([one]) for one in ([1.0, 2.0], [0.5, 0.25], [-1.0, 1.0]))
    expected = -math.log(math.exp(sigmoid(1)) / (math.exp(sigmoid(1)) + math.exp(sigmoid(1))))
    assert float(paired(x, y, z)) == pytest.approx(expected)
    assert float(paired(x, y, -z)) < expected < float(paired(x, -y, z))


# What is pretrained on


@both_ways
def test_pretraining_reads_every_beginning_of_every_history(instances: Instances) -> None:
    method, batch = make(S3RecConfig(), instances)
    seqs, users = method.sequences(batch)
    expected = [(user, row[:n]) for user, row in enumerate(LISTS) for n in range(2, len(row) + 1)]
    assert sorted(zip(users.tolist(), seqs.to_lists(), strict=True)) == sorted(expected)


def test_pretraining_may_read_whole_histories_alone() -> None:
    method, batch = make(S3RecConfig(every_prefix=False))
    assert method.sequences(batch)[0].to_lists() == LISTS


def test_a_beginning_is_cut_to_what_the_encoder_reads() -> None:
    short = SASRecConfig(width=8, max_length=2)
    train = TrainSet(Sequences.from_lists(LISTS), torch.arange(5), N_ITEMS, instances="whole", max_length=2)
    method = S3Rec(S3RecConfig(), train, short)
    seqs, _ = method.sequences(train.batch(torch.arange(len(train))))
    assert seqs.max_length == 2


@both_ways
def test_a_batch_is_pretrained_on_in_updates_that_read_each_sequence_once(instances: Instances) -> None:
    method, batch = make(S3RecConfig(pretrain_batch=4), instances)
    read: list[tuple[int, list[int]]] = []

    def noted(seqs: Sequences, users: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        assert len(seqs) <= 4
        read.extend(zip(users.tolist(), seqs.to_lists(), strict=True))
        return {"item": torch.zeros(())}

    method.pretraining_loss = noted  # type: ignore[method-assign]
    groups = [group for group, _ in method.updates(batch, rng())]
    assert groups == ["pretraining"] * 3
    seqs, users = method.sequences(batch)
    assert sorted(read) == sorted(zip(users.tolist(), seqs.to_lists(), strict=True))


# The two stages


def fit(method: Any, epochs: int) -> list[list[str]]:
    """Trains; gives the terms of each epoch."""
    found: list[list[str]] = []

    class Watcher:
        def batch_done(self, epoch: int, batch: int, n_batches: int) -> None: ...
        def rewind(self, epoch: int) -> None: ...
        def epoch_done(self, record: dict[str, Any]) -> None:
            found.append(sorted(record["terms"]))

    values: Iterator[int] = iter(range(epochs))

    def validate(_: Encoder) -> dict[str, float]:
        return {"NDCG@20": float(next(values))}

    training = TrainingConfig(epochs=epochs, batch_size=3, patience=None)
    Trainer(method, training, validate, watcher=Watcher()).fit()
    return found


def test_the_first_epochs_pretrain_and_the_others_learn_the_next_item() -> None:
    method, _ = make(S3RecConfig(pretrain=2))
    pretrained = ["pretraining.item", "pretraining.segment"]
    assert fit(method, 3) == [pretrained, pretrained, ["next.next_item"]]


def test_without_pretraining_it_is_next_item_training() -> None:
    method, _ = make(S3RecConfig(pretrain=0))
    torch.manual_seed(0)
    plain = NextItem(NextItemConfig(loss="binary_cross_entropy"), method.train_set, CALM)
    with torch.no_grad():
        plain.encoder.items.weight.mul_(20)
    fit(method, 2)
    fit(plain, 2)
    for name, one in plain.encoder.state_dict().items():
        assert torch.equal(one, method.encoder.state_dict()[name]), name


def test_the_second_stage_has_an_optimizer_of_its_own() -> None:
    method, _ = make(S3RecConfig(pretrain=1))
    trainer = Trainer(method, TrainingConfig(epochs=2, batch_size=3, patience=None), lambda _: {"NDCG@20": 0.0})
    trainer._run_epoch()
    assert trainer.optimizers["pretraining"].state
    assert not trainer.optimizers["next"].state
    maps = {name: one.clone() for name, one in method.item_map.state_dict().items()}  # type: ignore[union-attr]
    trainer._run_epoch()
    assert all(torch.equal(one, method.item_map.state_dict()[name]) for name, one in maps.items())  # type: ignore[union-attr]


# What cannot be


def test_an_encoder_that_reads_forwards_only_cannot_be_pretrained() -> None:
    recurrent = GRU4RecConfig(width=8, max_length=6)
    with pytest.raises(ValueError, match="GRU4Rec reads forwards only; use encoder 'sasrec', or pretrain 0"):
        make(S3RecConfig(), backbone=recurrent)
    method, batch = make(S3RecConfig(pretrain=0), backbone=recurrent)
    assert [group for group, _ in method.updates(batch, rng())] == ["next"]


def test_there_must_be_something_to_pretrain_by() -> None:
    with pytest.raises(ValueError, match="pretrain is 100, but there is nothing to pretrain by"):
        make(S3RecConfig(item=0.0, segment=0.0))


def test_attributes_need_the_outside_ids(table: Path) -> None:
    train = TrainSet(Sequences.from_lists(LISTS), torch.arange(5), N_ITEMS, instances="whole", max_length=6)
    with pytest.raises(ValueError, match="read by the items' outside ids"):
        S3Rec(S3RecConfig(attributes=table, attribute_column="attribute"), train, CALM)


def test_a_missing_file_of_attributes_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.csv: no such file"):
        make(S3RecConfig(attributes=tmp_path / "none.csv"))


def test_without_weights_for_attributes_their_file_is_not_read(tmp_path: Path) -> None:
    method, _ = make(S3RecConfig(attributes=tmp_path / "none.csv", associated=0.0, masked=0.0))
    assert method.attributes is None
