from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.encoders.gru4rec import GRU4Rec, GRU4RecConfig
from conseq.nn import dropout
from conseq.nn.items import ItemTable

LISTS = [[3, 1], [2], [5, 9, 2, 6, 5], [], [7, 7, 1], [5, 9, 2, 6, 5]]


def model(*, layers: int = 1, hidden: int | None = None, width: int = 4) -> GRU4Rec:
    torch.manual_seed(0)
    return GRU4RecConfig(width=width, layers=layers, hidden=hidden)(ItemTable(12, width, std=1)).double().eval()


def step_by_step(one: GRU4Rec, vectors: Tensor) -> list[Tensor]:
    """Gives the states of one sequence from the equations of the gated recurrent unit, token by token."""
    weights = one.state_dict()
    hidden = one.gru.hidden_size
    states = [torch.zeros(hidden, dtype=torch.float64) for _ in range(one.gru.num_layers)]
    found = []
    for vector in vectors:
        x = vector
        for layer in range(one.gru.num_layers):
            h = states[layer]
            w_reset, w_update, w_new = weights[f"gru.weight_ih_l{layer}"].chunk(3)
            u_reset, u_update, u_new = weights[f"gru.weight_hh_l{layer}"].chunk(3)
            reset = torch.sigmoid(w_reset @ x + u_reset @ h)
            update = torch.sigmoid(w_update @ x + u_update @ h)
            new = torch.tanh(w_new @ x + reset * (u_new @ h))
            x = states[layer] = (1 - update) * new + update * h
        found.append(weights["project.weight"] @ x + weights["project.bias"] if "project.weight" in weights else x)
    return found


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("hidden", [None, 4, 7])
def test_states_are_those_of_the_equations_token_by_token(layers: int, hidden: int | None) -> None:
    one, seqs = model(layers=layers, hidden=hidden), Sequences.from_lists(LISTS)
    expected = [state for row in LISTS for state in step_by_step(one, one.items.weight[row])]
    torch.testing.assert_close(one.states(seqs), torch.stack(expected))


def test_a_state_of_the_items_width_needs_no_map_back() -> None:
    assert not any("project" in name for name in model(hidden=4).state_dict())
    assert model(hidden=7).state_dict()["project.weight"].shape == (4, 7)


def test_gradients_pass_to_the_token_inputs() -> None:
    one, seqs = model(hidden=3, width=2), Sequences.from_lists([[1, 1], [1], [], [1, 1, 1]])
    x = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: one.contextualize(values, seqs), x)


def test_only_the_inputs_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    one, seqs = model(layers=2), Sequences.from_lists(LISTS)
    masks = []

    def keep_half(like: Tensor, p: float) -> Tensor:
        masks.append((torch.arange(like.numel()) % 2).view(like.shape).to(like))
        return masks[-1]

    monkeypatch.setattr(dropout, "keep_mask", keep_half)
    found = one.train().states(seqs)
    assert len(masks) == 1
    x = one.items(seqs.ids) * masks[0]
    torch.testing.assert_close(found, one.eval().contextualize(x, seqs))


def test_reading_both_ways_is_refused() -> None:
    one, seqs = model(), Sequences.from_lists([[1, 2]])
    with pytest.raises(ValueError, match="GRU4Rec reads a history forwards only"):
        one.contextualize(one.items(seqs.ids), seqs, causal=False)


def test_each_gates_weights_start_uniform_within_the_papers_bound() -> None:
    one = GRU4RecConfig(width=64, hidden=100)(ItemTable(3, 64))
    bound = math.sqrt(6 / (64 + 100))
    for gate in one.state_dict()["gru.weight_ih_l0"].chunk(3):
        assert 0.98 * bound < gate.abs().max().item() <= bound
        assert gate.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
