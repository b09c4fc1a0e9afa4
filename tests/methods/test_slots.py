"""Padding as data: every slot beside a loop over slots, and the terms of ICLRec and CoSeRec made of them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from conseq.cli import import_weights
from conseq.data.readers import read
from conseq.data.sequences import Sequences
from conseq.data.train_set import TrainSet
from conseq.encoders.encoder import TokenEncoder
from conseq.encoders.gru4rec import GRU4RecConfig
from conseq.encoders.sasrec import Block, SASRec, SASRecConfig
from conseq.encoders.srma import SRMAConfig as SRMAEncoder
from conseq.methods.coserec import CoSeRec, CoSeRecConfig
from conseq.methods.iclrec import ICLRec, ICLRecConfig
from conseq.methods.slots import Slots
from conseq.methods.srma import SRMA, SRMAConfig
from conseq.nn import pooling
from conseq.nn.items import ItemTable
from conseq.objectives.contrast import info_nce
from conseq.serving.bundle import load_bundle
from conseq.training.config import TrainingConfig
from conseq.training.trainer import Trainer

N_ITEMS = 30
LENGTH = 8
CALM = SASRecConfig(width=8, layers=2, heads=2, max_length=LENGTH, dropout=0.0, attention_dropout=0.0, positions="end")
LIVELY = dataclasses.replace(CALM, dropout=0.3, attention_dropout=0.3)
ROWS = [[3], [4, 5, 6], [7, 8, 9, 10, 11, 12, 13, 14], [15, 31, 16, 31]]  # 31: the mask


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def encoder(config: SASRecConfig = CALM) -> SASRec:
    torch.manual_seed(3)
    made = SASRec(config, ItemTable(N_ITEMS, config.width))
    with torch.no_grad():
        made.items.weight.mul_(20)
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return made.double().eval()


def affine(layer: Any, x: Tensor) -> Tensor:
    out: Tensor = layer.weight @ x + layer.bias
    return out


def normed(layer: Any, x: Tensor) -> Tensor:
    centred = x - x.mean()
    out: Tensor = layer.weight * centred / (centred.square().mean() + layer.eps).sqrt() + layer.bias
    return out


@torch.no_grad()
def by_loop(one: SASRec, ids: list[int]) -> list[Tensor]:
    """The states of one left-padded history, slot after slot; block bert."""
    xs = [normed(one.norm, one.items.weight[i] + one.positions.weight[t]) for t, i in enumerate(ids)]
    for block in one.blocks:
        assert isinstance(block, Block)
        attention, size = block.attention, one.config.width // one.config.heads
        q, k, v = ([affine(layer, x) for x in xs] for layer in (attention.query, attention.key, attention.value))
        after = []
        for t, x in enumerate(xs):
            heads = []
            for h in range(one.config.heads):
                part = slice(h * size, (h + 1) * size)
                scores = []
                for s, i in enumerate(ids):
                    readable = s <= t and i != 0
                    scores.append(float(q[t][part] @ k[s][part]) / math.sqrt(size) - (0 if readable else 10_000))
                most = max(scores)
                shares = [math.exp(score - most) for score in scores]
                heads.append(sum(share * v[s][part] for s, share in enumerate(shares)) / sum(shares))
            y = normed(block.norm1, x + affine(attention.out, torch.cat(cast("list[Tensor]", heads))))
            inner = affine(block.feed_forward.inner, y)
            inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
            after.append(normed(block.norm2, y + affine(block.feed_forward.outer, inner)))
        xs = after
    return xs


def padded(row: list[int]) -> list[int]:
    return [0] * (LENGTH - len(row)) + [0 if i == N_ITEMS + 1 else i for i in row]


def test_every_slot_is_that_of_a_loop() -> None:
    one = encoder()
    slots = Slots(one)
    slots.draw_padding()
    with torch.no_grad():
        found = slots(Sequences.from_lists(ROWS))
    assert found.shape == (len(ROWS), LENGTH, 8)
    for block, row in zip(found, ROWS, strict=True):
        assert torch.allclose(block, torch.stack(by_loop(one, padded(row))), atol=1e-9)


@pytest.mark.parametrize("block", ["bert", "kang"])
def test_slots_of_items_have_the_states_without_padding(block: Any) -> None:
    one = encoder(dataclasses.replace(CALM, block=block))
    seqs = Sequences.from_lists(ROWS[:3])
    slots = Slots(one)
    assert torch.allclose(slots.tokens(slots(seqs), seqs), one.states(seqs), atol=1e-9)


def test_padding_before_a_history_reads_all_of_it() -> None:
    one = encoder()
    ids = torch.tensor([padded(ROWS[1])])
    other = ids.clone()
    other[0, -1] = 20
    before, after = one.slots(ids), one.slots(other)
    assert not torch.allclose(before[0, :5], after[0, :5], atol=1e-3)
    assert torch.allclose(before[0, 5:7], after[0, 5:7])


@pytest.mark.parametrize("backbone", [dataclasses.replace(CALM, positions="start"), GRU4RecConfig(width=8)])
@pytest.mark.parametrize("kind", [(ICLRec, ICLRecConfig), (CoSeRec, CoSeRecConfig)])
def test_other_encoders_are_refused(backbone: Any, kind: Any) -> None:
    made, config = kind
    with pytest.raises(ValueError, match=r"padding='data' is of left-padded SASRec .*found (SASRec with|GRU4Rec)"):
        made(config(padding="data"), train_set(), backbone)


def train_set() -> TrainSet:
    lengths = torch.randint(2, 15, (40,), generator=rng()).tolist()
    rows = [torch.randint(1, N_ITEMS + 1, (n,), generator=rng(n)).tolist() for n in lengths]
    return TrainSet(
        Sequences.from_lists(rows), torch.arange(40), N_ITEMS, instances="whole", max_length=LENGTH, windows=False
    )


def iclrec(backbone: SASRecConfig = CALM, **settings: Any) -> ICLRec:
    torch.manual_seed(3)
    made = ICLRec(ICLRecConfig(clusters=(4,), padding="data", loss="cross_entropy", **settings), train_set(), backbone)
    with torch.no_grad():
        made.encoder.items.weight.mul_(20)
        made.eval().begin_epoch(1, rng())
    return made


@pytest.mark.parametrize("represent", ["mean", "positions"])
def test_the_terms_of_iclrec_are_of_all_slots(represent: Any) -> None:
    one = iclrec(represent=represent, assignment="batch", against="all", normalise="centroids", mitigation=False)
    batch = one.train_set.batch(torch.arange(12))
    terms = one.loss(batch, rng(7))
    slots, drawn = Slots(one.encoder), rng(7)
    first, second = (slots(one.view(batch.history, drawn)) for _ in range(2))
    joined = (first.mean(1), second.mean(1)) if represent == "mean" else (first.flatten(1), second.flatten(1))
    assert torch.allclose(terms["sequence"], 0.1 * 2 * info_nce(*joined, temperature=1.0), rtol=1e-5)
    clusters = one._all_clusters()[0]
    ids = clusters.assign(slots(batch.history).mean(1))
    intents = F.normalize(clusters.centroids[ids], dim=-1)
    expected = sum(info_nce(view.mean(1), intents, temperature=1.0) for view in (first, second))
    assert torch.allclose(terms["intent"], 0.5 * torch.as_tensor(expected), rtol=1e-5)
    plain = ICLRec(dataclasses.replace(one.config, padding="none"), one.train_set, CALM).eval()
    plain.encoder.load_state_dict(one.encoder.state_dict())
    plain.begin_epoch(1, rng())
    assert torch.allclose(terms["next_item"], plain.loss(batch, rng(7))["next_item"], rtol=1e-5)
    assert not torch.allclose(terms["sequence"], plain.loss(batch, rng(7))["sequence"], rtol=0.01)


def test_the_e_step_clusters_the_means_of_all_slots() -> None:
    one = iclrec()
    read = one.histories.batch(torch.arange(len(one.histories))).history
    points = one.slots(read).mean(1) if one.slots else torch.zeros(0)
    clusters = one._all_clusters()[0]
    assert torch.equal(clusters.assign(points), clusters.ids)


@pytest.mark.parametrize("represent", ["mean", "positions"])
def test_the_contrast_of_coserec_is_of_all_slots(represent: Any) -> None:
    torch.manual_seed(3)
    one = CoSeRec(CoSeRecConfig(padding="data", represent=represent, temperature=2.0), train_set(), CALM).eval()
    batch = one.train_set.batch(torch.arange(12))
    terms, drawn = one.loss(batch, rng(7)), rng(7)
    assert one.slots is not None
    views = [one.slots(one.view(batch.history, drawn)) for _ in range(2)]
    a, b = (view.mean(1) if represent == "mean" else view.flatten(1) for view in views)
    assert torch.allclose(terms["contrast"], 0.1 * info_nce(a, b, temperature=2.0), rtol=1e-5)
    plain = CoSeRec(CoSeRecConfig(represent=represent, temperature=2.0), one.train_set, CALM).eval()
    plain.encoder.load_state_dict(one.encoder.state_dict())
    assert torch.allclose(terms["next_item"], plain.loss(batch, rng(7))["next_item"], rtol=1e-5)


def test_the_vector_of_padding_is_not_trained() -> None:
    one = iclrec(LIVELY, represent="positions")
    before = one.encoder.items.weight.detach().clone()
    Trainer(one, TrainingConfig(epochs=1, batch_size=10, patience=None), lambda _: {"NDCG@20": 0.0}).fit()
    after = one.encoder.items.weight
    assert torch.equal(after[0], before[0])
    assert not torch.equal(after[1:], before[1:])


@pytest.mark.parametrize("kind", [(ICLRec, ICLRecConfig), (CoSeRec, CoSeRecConfig), (SRMA, SRMAConfig)])
@pytest.mark.parametrize("spare_last", [False, True])
def test_crops_and_shuffles_spare_the_last_item_where_they_are_told_to(kind: Any, spare_last: bool) -> None:
    made, config = kind
    backbone = SRMAEncoder(width=8, layers=1, heads=1, max_length=LENGTH, appended=3) if made is SRMA else CALM
    one = made(config(spare_last=spare_last), train_set(), backbone)
    told = repr(one.view)
    assert told.count(f"spare_last={spare_last}") == told.count("Crop(") + told.count("Reorder(") > 1
    assert f"spare_last={not spare_last}" not in told


@pytest.mark.slow
@pytest.mark.real_data
def test_published_weights_have_means_of_the_length_that_their_code_gives(shared: Path, tmp_path: Path) -> None:
    data = str(shared / "data/beauty/interactions.parquet")
    told = [str(shared / "checkpoints/iclrec_beauty_authors.pt"), "--layout", "s3rec", "--data", data]
    assert import_weights.run([*told, "--out", str(tmp_path / "bundle")]) == 0
    trained = cast("TokenEncoder", load_bundle(tmp_path / "bundle").encoder).eval()
    slots = Slots(trained)
    log = read(data)
    rows = [own[:-3].tolist() for own in np.split(log.items, log.offsets[1:-1])[:4096]]
    seqs = Sequences.from_lists(rows).tail(50)
    with torch.no_grad():
        block = slots(seqs)
        of_slots, of_items = block.mean(1), pooling.mean(slots.tokens(block, seqs), seqs)
        assert float(trained.items.weight[0].norm()) > 0  # the code's vector of padding
    # As measured with the authors' code and its published weights, on some of the users.
    assert float(of_slots.norm(dim=1).mean()) == pytest.approx(1.54, abs=0.02)
    assert float(of_items.norm(dim=1).mean()) == pytest.approx(2.78, abs=0.02)
