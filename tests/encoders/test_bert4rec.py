from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from conseq.data.sequences import Sequences, concatenate
from conseq.data.train_set import TrainSet
from conseq.encoders.bert4rec import BERT4Rec, BERT4RecConfig
from conseq.encoders.encoder import TokenEncoder
from conseq.methods.prediction import states_to_predict_from
from conseq.nn.items import ItemTable

LISTS = [[3, 1, 4, 1], [2], [5, 9, 2, 6, 5, 3, 5, 8], [7, 7]]
SEQS = Sequences.from_lists(LISTS)
MASK = 13
Positions = Literal["start", "end"]

each_position = pytest.mark.parametrize("positions", ["start", "end"])


def model(positions: Positions = "start", *, max_length: int = 9, layers: int = 2) -> BERT4Rec:
    """Gives an encoder of 12 items in float64 with every weight moved away from its initial value."""
    torch.manual_seed(0)
    config = BERT4RecConfig(width=4, layers=layers, heads=2, max_length=max_length, positions=positions)
    made = config(ItemTable(12, 4)).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def twin(one: BERT4Rec, ids: list[int]) -> Tensor:
    """Gives the states of one sequence, written as the paper's equations (eqs. 1-6), head by head."""
    weights, config = one.state_dict(), one.config
    start = 0 if config.positions == "start" else config.max_length + 1 - len(ids)
    places = torch.arange(len(ids)) + start
    x = norm(weights["items.weight"][torch.tensor(ids)] + weights["positions.weight"][places], weights, "norm")
    for i in range(config.layers):
        size, read = config.width // config.heads, []
        q, k, v = (dense(x, weights, f"blocks.{i}.attention.{part}") for part in ("query", "key", "value"))
        for head in range(config.heads):
            own = slice(head * size, (head + 1) * size)
            read.append((q[:, own] @ k[:, own].T / math.sqrt(size)).softmax(-1) @ v[:, own])
        attended = dense(torch.cat(read, -1), weights, f"blocks.{i}.attention.out")
        x = norm(x + attended, weights, f"blocks.{i}.norm1")
        inner = F.gelu(dense(x, weights, f"blocks.{i}.feed_forward.inner"))
        x = norm(x + dense(inner, weights, f"blocks.{i}.feed_forward.outer"), weights, f"blocks.{i}.norm2")
    return x


def dense(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-12)


@each_position
def test_states_are_those_of_the_papers_equations(positions: Positions) -> None:
    one = model(positions)
    expected = torch.cat([twin(one, ids) for ids in LISTS])
    assert torch.allclose(one.states(SEQS), expected, atol=1e-10)


@each_position
@pytest.mark.parametrize("layers", [1, 2])
def test_a_user_vector_is_the_state_of_a_mask_after_the_history(positions: Positions, layers: int) -> None:
    one = model(positions, layers=layers)
    expected = torch.stack([twin(one, [*ids, MASK])[-1] for ids in LISTS])
    assert torch.allclose(one(SEQS), expected, atol=1e-10)


def test_the_mask_comes_after_the_most_recent_items() -> None:
    asked = model(max_length=3).with_mask(SEQS)
    assert asked.to_lists() == [[1, 4, 1, MASK], [2, MASK], [3, 5, 8, MASK], [7, 7, MASK]]
    longer = Sequences.from_lists([[9, 9, 9, *ids] for ids in [LISTS[2]]])
    one = model(max_length=8)
    assert torch.equal(one(longer), one(SEQS.select(torch.tensor([2]))))


def test_every_state_reads_the_whole_sequence() -> None:
    one = model()
    before = one.states(SEQS)
    changed = SEQS.ids.clone()
    changed[SEQS.last[2]] = 12
    after = one.states(SEQS.replace(changed))
    moved = (before - after).abs().amax(1) > 1e-9
    assert torch.equal(moved, SEQS.rows == 2)


@pytest.mark.parametrize("layers", [1, 3])
def test_states_at_some_places_are_those_of_all_places_there(layers: int) -> None:
    one = model(layers=layers)
    at = torch.tensor([0, 3, 4, 9, 14])
    everywhere, some = one.states(SEQS), one.states(SEQS, at)
    assert torch.allclose(some, everywhere[at], atol=1e-12)
    gradients = [
        torch.autograd.grad(states.square().sum(), list(one.parameters())) for states in (everywhere[at], some)
    ]
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(*gradients, strict=True))
    assert one.states(SEQS, torch.zeros(0, dtype=torch.int64)).shape == (0, 4)


def test_a_sequence_is_encoded_alike_whatever_shares_its_batch() -> None:
    one = model()
    together = one(SEQS)
    for row in range(len(SEQS)):
        assert torch.allclose(one(SEQS.select(torch.tensor([row])))[0], together[row], atol=1e-10)
    assert torch.allclose(one(concatenate([SEQS, SEQS]))[len(SEQS) :], together, atol=1e-10)


def test_scores_are_inner_products_with_the_items_alone() -> None:
    one = model()
    scores = one.scores(torch.full((4,), -1), SEQS)
    assert torch.allclose(scores, one(SEQS) @ one.items.weight[1:13].T)


def test_two_encoders_on_one_table_share_it_and_nothing_else() -> None:
    table = ItemTable(12, 4)
    first, second = (BERT4RecConfig(width=4)(table) for _ in range(2))
    assert first.items.weight is second.items.weight
    others = {id(parameter) for parameter in first.parameters()} & {id(parameter) for parameter in second.parameters()}
    assert others == {id(table.weight)}


def test_states_that_see_what_follows_are_refused_for_the_next_item_after_each_item() -> None:
    one = model()
    assert not isinstance(one, TokenEncoder)
    train = TrainSet(SEQS, torch.arange(4), 12, instances="whole", max_length=9)
    with pytest.raises(ValueError, match="BERT4Rec has no token states; train it with instances 'prefixes'"):
        states_to_predict_from(one, train.batch(torch.arange(3)))
    prefixes = TrainSet(SEQS, torch.arange(4), 12, instances="prefixes", max_length=9).batch(torch.arange(5))
    assert torch.equal(states_to_predict_from(one, prefixes), one(prefixes.history))


def test_dropout_differs_between_passes_in_training_only() -> None:
    one = model()
    assert torch.equal(one.states(SEQS), one.states(SEQS))
    one.train()
    assert not torch.equal(one.states(SEQS), one.states(SEQS))


def test_weights_begin_within_two_deviations_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    one = BERT4RecConfig(width=32)(ItemTable(5, 32))
    for name, parameter in one.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" not in name and name != "items.weight":
            assert float(parameter.detach().abs().max()) <= 0.04, name
            assert 0.015 < float(parameter.detach().std()) < 0.02, name


def test_a_sequence_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match=r"8 tokens, the encoder reads 7; cut it with tail\(\)"):
        model(max_length=6).states(SEQS)


def test_a_table_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="the item table is 8 wide, the encoder 4"):
        BERT4RecConfig(width=4)(ItemTable(3, 8))
