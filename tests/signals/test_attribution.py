from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.encoders.caser import CaserConfig
from conseq.encoders.encoder import Encoder, TokenEncoder
from conseq.encoders.gru4rec import GRU4RecConfig
from conseq.encoders.sasrec import Block, SASRecConfig
from conseq.nn.items import ItemTable
from conseq.signals.attribution import attention, integrated_gradients, saliency
from conseq.signals.predicted import Differenced, Predicted
from conseq.signals.questions import Questions

N_ITEMS = 12
LENGTH = 9

BACKBONES: dict[str, Any] = {
    "bert": SASRecConfig(width=16, heads=2, max_length=LENGTH),
    "kang": SASRecConfig(width=16, heads=2, layers=1, max_length=LENGTH, block="kang", positions="end"),
    "gru4rec": GRU4RecConfig(width=16, max_length=LENGTH),
    "caser": CaserConfig(width=16),
}
TOKEN_ENCODERS = ["bert", "kang", "gru4rec"]

HISTORIES = [[1, 2, 3, 4, 5], [7], [3, 3, 9, 1, 2, 4, 5, 6, 7], [5, 6]]
TARGETS = [4, 5, 1, 2]


def encoder(name: str) -> Encoder:
    torch.manual_seed(0)
    made: Encoder = BACKBONES[name](ItemTable(N_ITEMS, 16, std=0.7)).eval().double()
    for parameter in made.parameters():
        if parameter.dim() > 1 and parameter is not made.items.weight:
            torch.nn.init.normal_(parameter, std=0.4)
    return made


def questions() -> Questions:
    return Questions.after_the_end(Sequences.from_lists(HISTORIES), torch.tensor(TARGETS))


def by_captum(name: str, one: Encoder, differenced: Differenced, **options: Any) -> Tensor:
    """What captum's class ``name`` gives, history after history."""
    attr = pytest.importorskip("captum.attr")
    assert isinstance(one, TokenEncoder)
    predicted = Predicted(one.items, differenced)
    found = []
    for history, target in zip(HISTORIES, TARGETS, strict=True):
        seqs = Sequences.from_lists([history])

        def forward(x: Tensor, seqs: Sequences = seqs, target: int = target) -> Tensor:
            states = torch.stack([one.contextualize(row, seqs)[-1] for row in x])
            scores = states @ one.items.candidates.detach().T
            if differenced == "top_logit":
                return scores.max(1).values
            return (scores if differenced == "logit" else scores.softmax(1))[:, target - 1]

        whole = predicted.targets(one(seqs), torch.tensor([target]))
        assert differenced == "predicted_probability" or int(whole) == target
        x = one.items(seqs.ids).detach()[None].requires_grad_()
        found.append(getattr(attr, name)(forward).attribute(x, **options)[0].detach())
    return torch.cat(found)


@pytest.mark.parametrize("differenced", ["probability", "logit", "top_logit"])
@pytest.mark.parametrize("name", TOKEN_ENCODERS)
def test_saliency_equals_captums(name: str, differenced: Differenced) -> None:
    one = encoder(name)
    found = saliency(one, questions(), Predicted(one.items, differenced))
    assert torch.allclose(found, by_captum("Saliency", one, differenced, abs=False), rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("differenced", ["probability", "logit", "top_logit"])
@pytest.mark.parametrize("name", TOKEN_ENCODERS)
def test_integrated_gradients_equal_captums(name: str, differenced: Differenced) -> None:
    one = encoder(name)
    found = integrated_gradients(one, questions(), Predicted(one.items, differenced), steps=7)
    expected = by_captum("IntegratedGradients", one, differenced, n_steps=7, method="gausslegendre")
    # captum keeps the weights of the quadrature in float32.
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_integrated_gradients_sum_to_the_difference_from_no_items() -> None:
    one = encoder("gru4rec")
    assert isinstance(one, TokenEncoder)
    asked, predicted = questions(), Predicted(one.items, "logit")
    found = integrated_gradients(one, asked, predicted, steps=60).sum(1)
    sums = torch.zeros(4, dtype=torch.float64).index_add(0, asked.rows, found)
    with torch.no_grad():
        empty = one.contextualize(torch.zeros_like(one.items(asked.seqs.ids)), asked.seqs)[asked.at]
        difference = predicted.values(one(asked.seqs), asked.targets) - predicted.values(empty, asked.targets)
    assert torch.allclose(sums, difference, atol=1e-6)


def test_the_gradient_of_a_predicted_probability_is_that_of_the_item_ranked_first() -> None:
    one = encoder("bert")
    asked = questions()
    first = one(asked.seqs).detach() @ one.items.candidates.T
    other = Questions.after_the_end(asked.seqs, first.argmax(1) + 1)
    found = saliency(one, asked, Predicted(one.items, "predicted_probability"))
    assert torch.equal(found, saliency(one, other, Predicted(one.items, "probability")))
    assert not torch.allclose(found, saliency(one, asked, Predicted(one.items, "probability")))


def test_gradients_leave_no_trace_in_the_encoder() -> None:
    one = encoder("bert")
    with torch.no_grad():
        saliency(one, questions(), Predicted(one.items, "probability"))
    assert all(parameter.grad is None for parameter in one.parameters())


def _weights_by_hand(one: Any, history: list[int]) -> Tensor:
    """The last row of the last layer's attention matrix, head by head."""
    seqs = Sequences.from_lists([history])
    x = one._embed(one.items(seqs.ids), seqs)
    *lower, top = list(one.blocks)
    for block in lower:
        x = block(x, seqs, causal=True)
    assert isinstance(top, Block)
    x = top.norm1(x) if top.pre else x
    rows = []
    for query, key in zip(top.attention.query(x[-1]).chunk(2), top.attention.key(x).chunk(2, 1), strict=True):
        rows.append((key @ query / 8**0.5).softmax(0))
    return torch.stack(rows).mean(0)


@pytest.mark.parametrize("name", ["bert", "kang"])
def test_attention_is_the_last_items_row_of_the_last_layers_matrix_averaged_over_heads(name: str) -> None:
    one = encoder(name)
    with torch.no_grad():
        found = attention(one, questions())
        expected = torch.cat([_weights_by_hand(one, history) for history in HISTORIES])
    assert torch.allclose(found, expected, rtol=1e-10)


def test_attention_of_all_prefixes_is_read_from_one_pass() -> None:
    one = encoder("bert")
    seqs = Sequences.from_lists(HISTORIES)
    at = torch.tensor([1, 4, 5, 6, 14, 16])
    with torch.no_grad():
        found = attention(one, Questions(seqs, at, torch.ones(6, dtype=torch.int64)))
        begins = seqs.offsets[seqs.rows[at]].tolist()
        prefixes = [seqs.ids[a : b + 1].tolist() for a, b in zip(begins, at.tolist(), strict=True)]
        expected = torch.cat([_weights_by_hand(one, prefix) for prefix in prefixes])
    assert torch.allclose(found, expected, rtol=1e-10)


def test_what_an_encoder_lacks_is_named() -> None:
    caser, gru, end = encoder("caser"), encoder("gru4rec"), encoder("kang")
    with pytest.raises(ValueError, match="Caser takes items and no item vectors"):
        saliency(caser, questions(), Predicted(caser.items, "logit"))
    with pytest.raises(ValueError, match="not integrated_gradients"):
        integrated_gradients(caser, questions(), Predicted(caser.items, "logit"), steps=3)
    with pytest.raises(ValueError, match="GRU4Rec has no attention"):
        attention(gru, questions())
    several = Questions(Sequences.from_lists([[1, 2, 3]]), torch.tensor([1, 2]), torch.tensor([3, 4]))
    with pytest.raises(ValueError, match="positions counted from the end"):
        attention(end, several)
    with pytest.raises(ValueError, match="one question for each history"):
        saliency(gru, several, Predicted(gru.items, "logit"))
    with pytest.raises(ValueError, match="at least 1 step"):
        integrated_gradients(gru, questions(), Predicted(gru.items, "logit"), steps=0)
