from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from conseq.data.sequences import Sequences
from conseq.encoders.sasrec import BlockKind, SASRec, SASRecConfig
from conseq.nn import dropout
from conseq.nn.items import ItemTable

LISTS = [[3, 1, 4, 1], [2], [5, 9, 2, 6, 5, 3, 5, 8], [7, 7]]
Positions = Literal["start", "end"]

each_block = pytest.mark.parametrize("block", ["bert", "kang"])
each_position = pytest.mark.parametrize("positions", ["start", "end"])
both_ways = pytest.mark.parametrize("causal", [True, False])


def model(
    block: BlockKind = "bert", positions: Positions = "start", *, hidden: int | None = None, heads: int = 2
) -> SASRec:
    """Gives an encoder in float64 with every weight moved away from its initial value."""
    torch.manual_seed(0)
    config = SASRecConfig(width=4, layers=2, heads=heads, max_length=9, hidden=hidden, block=block, positions=positions)
    made = config(ItemTable(12, 4)).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


class PaddedTwin:
    """SASRec as the papers' code computes it: one padded block, masks added to the logits, head by head.

    Padding stands on the right where positions count from the start, on the left where they count from the end.
    """

    def __init__(self, one: SASRec, lists: list[list[int]]) -> None:
        self.weights, self.config = one.state_dict(), one.config
        t = self.config.max_length
        self.padded = torch.zeros(len(lists), t, dtype=torch.int64)
        self.real = torch.zeros(len(lists), t, dtype=torch.bool)
        for row, ids in enumerate(lists):
            at = slice(0, len(ids)) if self.config.positions == "start" else slice(t - len(ids), t)
            self.padded[row, at] = torch.tensor(ids)
            self.real[row, at] = True

    def states(self, *, causal: bool) -> list[Tensor]:
        """Gives the states of each sequence."""
        t = self.config.max_length
        readable = self.real[:, None, :].expand(-1, t, -1)
        if causal:
            readable = readable & torch.ones(t, t, dtype=torch.bool).tril()
        x = self.weights["items.weight"][self.padded] + self.weights["positions.weight"]
        x = self.norm(x, "norm") if self.config.block == "bert" else x
        for i in range(self.config.layers):
            x = self.block(x, readable, f"blocks.{i}")
        x = self.norm(x, "norm") if self.config.block == "kang" else x
        return [row[mask] for row, mask in zip(x, self.real, strict=True)]

    def block(self, x: Tensor, readable: Tensor, name: str) -> Tensor:
        if self.config.block == "bert":
            x = self.norm(x + self.attend(x, readable, f"{name}.attention"), f"{name}.norm1")
            return self.norm(x + self.feed(x, f"{name}.feed_forward"), f"{name}.norm2")
        x = x + self.attend(self.norm(x, f"{name}.norm1"), readable, f"{name}.attention")
        return x + self.feed(self.norm(x, f"{name}.norm2"), f"{name}.feed_forward")

    def attend(self, x: Tensor, readable: Tensor, name: str) -> Tensor:
        size = self.config.width // self.config.heads
        q, k, v = (self.dense(x, f"{name}.{part}") for part in ("query", "key", "value"))
        read = []
        for head in range(self.config.heads):
            own = slice(head * size, (head + 1) * size)
            logits = q[..., own] @ k[..., own].transpose(1, 2) / math.sqrt(size) - 1e9 * (~readable).double()
            read.append(logits.softmax(-1) @ v[..., own])
        return self.dense(torch.cat(read, -1), f"{name}.out")

    def feed(self, x: Tensor, name: str) -> Tensor:
        inner = self.dense(x, f"{name}.inner")
        return self.dense(inner.relu() if self.config.block == "kang" else F.gelu(inner), f"{name}.outer")

    def dense(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.layer_norm(x, (self.config.width,), weight, bias, eps=1e-12)


@each_block
@each_position
@both_ways
def test_states_are_those_of_a_padded_twin(block: BlockKind, positions: Positions, *, causal: bool) -> None:
    one, seqs = model(block, positions), Sequences.from_lists(LISTS)
    found = one.contextualize(one.items(seqs.ids), seqs, causal=causal)
    torch.testing.assert_close(found, torch.cat(PaddedTwin(one, LISTS).states(causal=causal)))


@each_block
@each_position
def test_vectors_are_the_padded_twins_last_states(block: BlockKind, positions: Positions) -> None:
    one = model(block, positions, heads=1, hidden=7)
    last = torch.stack([states[-1] for states in PaddedTwin(one, LISTS).states(causal=True)])
    torch.testing.assert_close(one(Sequences.from_lists(LISTS)), last)


@each_block
def test_the_short_way_to_the_last_state_has_the_same_gradient(block: BlockKind) -> None:
    one, seqs = model(block), Sequences.from_lists(LISTS)
    direction = torch.randn(4, 4, dtype=torch.float64)
    short = torch.autograd.grad((one(seqs) * direction).sum(), list(one.parameters()))
    whole = torch.autograd.grad((one.states(seqs)[seqs.last] * direction).sum(), list(one.parameters()))
    for a, b in zip(short, whole, strict=True):
        torch.testing.assert_close(a, b)


@each_block
def test_training_computes_the_same_when_nothing_is_dropped(block: BlockKind, monkeypatch: pytest.MonkeyPatch) -> None:
    one, seqs = model(block), Sequences.from_lists(LISTS)
    expected, expected_states = one(seqs), one.states(seqs)
    monkeypatch.setattr(dropout, "keep_mask", lambda like, p: torch.ones_like(like))
    one.train()
    torch.testing.assert_close(one(seqs), expected)
    torch.testing.assert_close(one.states(seqs), expected_states)


@each_block
def test_reading_both_ways_sees_what_comes_later(block: BlockKind) -> None:
    one = model(block)
    seqs, other = Sequences.from_lists([[1, 2, 3]]), Sequences.from_lists([[1, 2, 9]])
    before = one.contextualize(one.items(seqs.ids), seqs, causal=False)
    after = one.contextualize(one.items(other.ids), other, causal=False)
    assert bool(((before - after).abs().amax(1) > 1e-6).all())


def test_positions_count_from_the_first_item_or_back_from_the_longest_length() -> None:
    one = model(positions="start")
    with torch.no_grad():
        one.positions.weight[1:] = 5.0
    from_start = one(Sequences.from_lists([[3]]))
    with torch.no_grad():
        one.positions.weight[1:] = -5.0
    torch.testing.assert_close(one(Sequences.from_lists([[3]])), from_start)
    end = model(positions="end")
    before = end(Sequences.from_lists([[3]]))
    with torch.no_grad():
        end.positions.weight[:8] = 5.0
    torch.testing.assert_close(end(Sequences.from_lists([[3]])), before)


@each_position
def test_a_sequence_longer_than_the_encoder_reads_is_refused(positions: Positions) -> None:
    one, seqs = model(positions=positions), Sequences.from_lists([[1], [1] * 10])
    with pytest.raises(ValueError, match=r"a sequence has 10 items, the encoder reads 9; cut it with tail\(\)"):
        one.states(seqs)
    assert one.states(seqs.tail(9)).shape == (10, 4)


def test_the_feed_forward_is_four_times_as_wide_in_the_bert_block_only() -> None:
    widths = {
        block: SASRecConfig(width=8, heads=2, block=block)(ItemTable(3, 8))
        .state_dict()["blocks.0.feed_forward.inner.weight"]
        .shape
        for block in ("bert", "kang")
    }
    assert widths == {"bert": (32, 8), "kang": (8, 8)}


def test_weights_start_small_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    weights = SASRecConfig(width=64)(ItemTable(300, 64)).state_dict()
    for name, value in weights.items():
        if ".bias" in name or "norm" in name:
            assert set(value.tolist()) <= {float("norm" in name and "weight" in name)}
        else:
            assert value.std().item() == pytest.approx(0.02, rel=0.1)
