"""States of some tokens alone: the same numbers and gradients as of all, and less work."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.encoders.encoder import Backbone, TokenEncoder
from conseq.encoders.gru4rec import GRU4RecConfig
from conseq.encoders.sasrec import SASRecConfig
from conseq.encoders.selected import last_states, states_at
from conseq.encoders.srma import SRMAConfig
from conseq.nn.items import ItemTable

SEQS = Sequences.from_lists([[3, 1, 4], [1], [5, 9, 2, 6, 5, 3, 5], [3, 2], [1, 2, 3, 4, 5, 6, 7, 8]])
CALM: dict[str, Any] = {"width": 8, "heads": 2, "max_length": 8, "dropout": 0.0, "attention_dropout": 0.0}
BACKBONES: dict[str, Backbone[TokenEncoder]] = {
    "one layer": SASRecConfig(**CALM, layers=1),
    "two layers": SASRecConfig(**CALM, layers=2, positions="end"),
    "kang": SASRecConfig(**CALM, layers=2, block="kang"),
    "srma": SRMAConfig(**CALM, layers=1),
    "gru4rec": GRU4RecConfig(width=8, max_length=8, dropout=0.0),
}
CASES = [(name, causal) for name in BACKBONES for causal in (True, False) if causal or name != "gru4rec"]


def encoder(name: str) -> TokenEncoder:
    torch.manual_seed(0)
    made = BACKBONES[name](ItemTable(9, 8)).double()
    with torch.no_grad():
        for one in made.parameters():
            one.add_(torch.randn_like(one) * 0.3)
    return made.train()


def gradients(of: TokenEncoder, states: Tensor) -> dict[str, Tensor]:
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(1), dtype=states.dtype)
    names, values = zip(*of.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad((states * weights).sum(), values, materialize_grads=True), strict=True))


def same(of: TokenEncoder, found: Tensor, expected: Tensor) -> None:
    assert torch.allclose(found, expected, atol=1e-12)
    ours, theirs = gradients(of, found), gradients(of, expected)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-10) for name in theirs)


@pytest.mark.parametrize(("name", "causal"), CASES)
def test_the_states_of_chosen_tokens_are_those_of_all(name: str, causal: bool) -> None:
    one, places = encoder(name), torch.tensor([12, 0, 3, 20, 7])
    every = one.contextualize(one.items(SEQS.ids), SEQS, causal=causal)
    same(one, states_at(one, SEQS, places, causal=causal), every[places])


@pytest.mark.parametrize(("name", "causal"), CASES)
def test_the_last_states_are_those_of_all(name: str, causal: bool) -> None:
    one = encoder(name)
    every = one.contextualize(one.items(SEQS.ids), SEQS, causal=causal)
    same(one, last_states(one, SEQS, causal=causal), every[SEQS.last])


@pytest.mark.parametrize("name", ["one layer", "two layers", "kang"])
def test_the_last_block_transforms_the_chosen_tokens_alone(name: str) -> None:
    one, seen = encoder(name), []
    *_, top = one.get_submodule("blocks").children()
    top.get_submodule("feed_forward").register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    states_at(one, SEQS, torch.tensor([4, 1]), causal=False)
    last_states(one, SEQS, causal=False)
    assert seen == [2, len(SEQS)]


def test_no_token_may_be_chosen() -> None:
    assert states_at(encoder("one layer"), SEQS, torch.tensor([], dtype=torch.int64), causal=False).shape == (0, 8)
