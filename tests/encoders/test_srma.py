"""SASRec with appended layers: what a layer computes, what is dropped, what stays SASRec."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from conseq.data.sequences import Sequences
from conseq.encoders.sasrec import SASRec, SASRecConfig
from conseq.encoders.srma import SRMAConfig, SRMAEncoder
from conseq.nn.items import ItemTable

HISTORIES = Sequences.from_lists([[3, 1, 4], [1], [5, 9, 2, 6, 5, 3, 5], [3, 2]])
SMALL = {"width": 8, "layers": 2, "heads": 2, "max_length": 5}


def encoder(**settings: object) -> SRMAEncoder:
    torch.manual_seed(0)
    made = SRMAConfig(**{**SMALL, **settings})(ItemTable(9, 8))  # type: ignore[arg-type]
    with torch.no_grad():
        for one in made.parameters():
            one.add_(torch.randn_like(one) * 0.3)
    return made.eval()


def plain(of: SRMAEncoder) -> SASRec:
    """SASRec with the weights that are below the appended layers."""
    made = SASRec(SASRecConfig(**SMALL, positions="end"), ItemTable(9, 8))  # type: ignore[arg-type]
    made.load_state_dict({name: one for name, one in of.state_dict().items() if not name.startswith("appended")})
    return made.eval()


@torch.no_grad()
def test_a_dense_layer_is_a_residual_of_one_linear_map() -> None:
    one = encoder(appended=1)
    x = torch.randn(4, 8)
    layer = one.appended[0].get_submodule("inner")
    norm = one.appended[0].get_submodule("norm")
    weight, bias = layer.weight, layer.bias
    expected = [row + F.gelu(weight @ row + bias) for row in x]
    expected = [(row - row.mean()) / row.var(correction=0).sqrt() * norm.weight + norm.bias for row in expected]
    assert torch.allclose(one.append(x), torch.stack(expected), atol=1e-5)


@torch.no_grad()
def test_a_feed_forward_layer_is_the_second_half_of_a_block() -> None:
    one = encoder(appended=1, kind="feed_forward")
    below, layer = one.blocks[0], one.appended[0]
    for name in ("inner", "outer"):
        ours, theirs = layer.get_submodule(f"inner.{name}"), below.get_submodule(f"feed_forward.{name}")
        theirs.load_state_dict(ours.state_dict())
    below.get_submodule("norm2").load_state_dict(layer.get_submodule("norm").state_dict())
    x = torch.randn(4, 8)
    # A block whose attention reads nothing, after its first normalisation.
    half = below._transform(x, torch.zeros_like(x))  # type: ignore[operator]
    assert torch.allclose(one.append(below.get_submodule("norm1")(x)), half, atol=1e-6)


@torch.no_grad()
def test_below_the_appended_layers_is_sasrec() -> None:
    one = encoder()
    seqs = HISTORIES.tail(5)
    states = plain(one).states(seqs)
    assert torch.equal(one.below(seqs), states)
    assert torch.equal(one.states(seqs), one.append(states))
    assert not torch.allclose(one.states(seqs), states)


@torch.no_grad()
def test_a_layer_that_is_dropped_is_as_if_it_were_not_there() -> None:
    one = encoder(appended=3)
    x = torch.randn(4, 8)
    kept = one.appended[2](one.appended[0](x))
    assert torch.equal(one.append(x, frozenset({1})), kept)
    assert torch.equal(one.append(x, frozenset({0, 1, 2})), x)


@torch.no_grad()
def test_all_layers_recommend() -> None:
    one = encoder()
    read = HISTORIES.tail(5)
    assert torch.allclose(one(HISTORIES), one.append(plain(one)(HISTORIES)), atol=1e-6)
    assert torch.allclose(one(HISTORIES), one.states(read)[read.last], atol=1e-5)


@pytest.mark.parametrize("kind", ["dense", "feed_forward"])
def test_appended_layers_begin_as_those_of_sasrec(kind: str) -> None:
    torch.manual_seed(0)
    one = SRMAConfig(width=64, appended=2, kind=kind)(ItemTable(9, 64))  # type: ignore[arg-type]
    for name, value in one.appended.named_parameters():
        if name.endswith("bias"):
            assert not value.any()
        elif "norm" not in name:
            assert value.std().item() == pytest.approx(0.02, rel=0.05)


def test_layers_have_dropout_in_training() -> None:
    one = encoder(appended=1, dropout=0.5).train()
    x = torch.randn(4, 8)
    assert not torch.equal(one.append(x), one.append(x))
