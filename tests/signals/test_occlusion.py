from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.encoders.caser import CaserConfig
from conseq.encoders.encoder import Encoder, TokenEncoder
from conseq.encoders.gru4rec import GRU4RecConfig
from conseq.encoders.sasrec import Block, SASRec, SASRecConfig
from conseq.nn.items import ItemTable
from conseq.signals.occlusion import occlusion, shares_prefixes
from conseq.signals.predicted import Differenced, Predicted
from conseq.signals.questions import Questions

N_ITEMS = 12
LENGTH = 9

BACKBONES: dict[str, Any] = {
    "bert": SASRecConfig(width=16, heads=2, max_length=LENGTH),
    "kang, one layer": SASRecConfig(width=16, heads=2, layers=1, max_length=LENGTH, block="kang"),
    "three layers": SASRecConfig(width=16, heads=1, layers=3, max_length=LENGTH),
    "positions from the end": SASRecConfig(width=16, heads=2, max_length=LENGTH, block="kang", positions="end"),
    "gru4rec": GRU4RecConfig(width=16, max_length=LENGTH),
    "caser": CaserConfig(width=16),
}
SHARING = ["bert", "kang, one layer", "three layers", "gru4rec"]

HISTORIES = [[1, 2, 3, 4, 5], [7], [3, 3, 9, 1, 2, 4, 5, 6, 7], [5, 6]]


def encoder(name: str) -> Encoder:
    """An encoder whose weights are large enough that every input matters."""
    torch.manual_seed(0)
    made: Encoder = BACKBONES[name](ItemTable(N_ITEMS, 16, std=0.7)).eval().double()
    for parameter in made.parameters():
        if parameter.dim() > 1 and parameter is not made.items.weight:
            torch.nn.init.normal_(parameter, std=0.4)
    return made.requires_grad_(False)


def one_by_one(encoder: Encoder, history: list[int], target: int, differenced: Differenced) -> list[float]:
    """The definition: one pass for the prefix, and one for each of its items, occluded."""
    predicted = Predicted(encoder.items, differenced)
    seqs = Sequences.from_lists([history])

    def state(occluded: int | None) -> Tensor:
        if isinstance(encoder, TokenEncoder):
            x = encoder.items(seqs.ids).clone()
            if occluded is not None:
                x[occluded] = 0.0
            return encoder.contextualize(x, seqs)[-1:]
        ids = seqs.ids.clone()
        if occluded is not None:
            ids[occluded] = 0
        return encoder(seqs.replace(ids))

    asked = predicted.targets(state(None), torch.tensor([target]))
    before = predicted.values(state(None), asked)
    return [float(before - predicted.values(state(place), asked)) for place in range(len(history))]


@pytest.mark.parametrize("differenced", ["probability", "predicted_probability", "logit", "top_logit"])
@pytest.mark.parametrize("name", BACKBONES)
def test_occlusion_of_whole_histories_equals_one_pass_per_item(name: str, differenced: Differenced) -> None:
    one = encoder(name)
    targets = [4, 5, 1, 2]
    questions = Questions.after_the_end(Sequences.from_lists(HISTORIES), torch.tensor(targets))
    found = occlusion(one, questions, Predicted(one.items, differenced))
    expected = [
        value
        for history, target in zip(HISTORIES, targets, strict=True)
        for value in one_by_one(one, history, target, differenced)
    ]
    assert max(abs(value) for value in expected) > 1e-3
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SHARING)
def test_one_pass_per_occluded_item_answers_for_all_prefixes(name: str) -> None:
    one = encoder(name)
    assert shares_prefixes(one)
    seqs = Sequences.from_lists(HISTORIES)
    at = torch.tensor([0, 1, 3, 4, 5, 8, 13, 16])
    targets = torch.arange(1, 9)
    found = occlusion(one, Questions(seqs, at, targets), Predicted(one.items, "probability"))
    expected = []
    for place, target in zip(at.tolist(), targets.tolist(), strict=True):
        begin = int(seqs.offsets[seqs.rows[place]])
        expected += one_by_one(one, seqs.ids[begin : place + 1].tolist(), target, "probability")
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sharper", [40, 400])
def test_an_item_that_has_nearly_all_of_the_attention_is_occluded_exactly(sharper: float) -> None:
    """What is left of the attention's weights is then a small difference of large numbers, or overflows."""
    one = encoder("three layers")
    first = one.get_submodule("blocks.0")
    assert isinstance(one, SASRec)
    assert isinstance(first, Block)
    first.attention.query.weight.mul_(sharper)
    seqs = Sequences.from_lists([list(range(1, LENGTH + 1))])
    x = one._embed(one.items(seqs.ids), seqs)
    shares = (first.attention.query(x) @ first.attention.key(x).T / 4).tril().softmax(1)
    assert float(1 - shares.tril(-1).max()) < 1e-12
    questions = Questions(seqs, torch.arange(1, LENGTH), torch.full((LENGTH - 1,), 10))
    exact: list[float] = []
    for end in range(1, LENGTH):
        exact += one_by_one(one, seqs.ids[: end + 1].tolist(), 10, "logit")
    found = occlusion(one.float(), questions, Predicted(one.items, "logit"))
    assert torch.allclose(found.double(), torch.tensor(exact, dtype=torch.float64), rtol=0, atol=1e-4)


class Backwards(SASRec):
    """A derived encoder that reads the items in reverse order: no short cut of SASRec's is right for it."""

    def contextualize(self, x: Tensor, seqs: Sequences, *, causal: bool = True) -> Tensor:
        back = (seqs.offsets[:-1] + seqs.offsets[1:])[seqs.rows] - 1 - torch.arange(len(x))
        return super().contextualize(x[back], seqs, causal=causal)

    def forward(self, histories: Sequences) -> Tensor:
        return self.states(histories)[histories.last]


def test_an_encoder_derived_from_sasrec_is_explained_as_it_reads() -> None:
    torch.manual_seed(0)
    one = Backwards(BACKBONES["bert"], ItemTable(N_ITEMS, 16, std=0.7)).eval().double().requires_grad_(False)
    assert not shares_prefixes(one)
    seqs = Sequences.from_lists([[1, 2, 3, 4]])
    found = occlusion(one, Questions.after_the_end(seqs, torch.tensor([5])), Predicted(one.items, "logit"))
    expected = one_by_one(one, [1, 2, 3, 4], 5, "logit")
    assert abs(expected[0]) > 1e-3
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("at_once", [1, 7, 30, 1000])
def test_questions_are_divided_without_losing_one(at_once: int) -> None:
    seqs = Sequences.from_lists(HISTORIES)
    questions = Questions(seqs, torch.tensor([0, 1, 3, 5, 8, 13, 16]), torch.arange(1, 8))
    parts = questions.split(seqs.lengths, at_once)
    assert len(parts) == {1: 4, 7: 2, 30: 1, 1000: 1}[at_once]
    assert [row for part in parts for row in part.seqs.to_lists()] == HISTORIES
    assert torch.equal(torch.cat([part.targets for part in parts]), questions.targets)
    read = torch.cat([part.seqs.ids[part.items] for part in parts])
    assert torch.equal(read, seqs.ids[questions.items])


@pytest.mark.parametrize("name", ["positions from the end", "caser"])
def test_an_encoder_that_reads_prefixes_anew_refuses_to_share_a_pass(name: str) -> None:
    one = encoder(name)
    assert not shares_prefixes(one)
    questions = Questions(Sequences.from_lists([[1, 2, 3]]), torch.tensor([1, 2]), torch.tensor([3, 4]))
    with pytest.raises(ValueError, match="one question for each history"):
        occlusion(one, questions, Predicted(one.items, "logit"))


def test_an_item_table_whose_padding_row_is_not_zero_cannot_stand_for_an_occluded_item() -> None:
    one = encoder("caser")
    one.items.weight[0, 0] = 0.5
    questions = Questions.after_the_end(Sequences.from_lists([[1, 2, 3]]), torch.tensor([3]))
    with pytest.raises(ValueError, match="row 0 of the item table"):
        occlusion(one, questions, Predicted(one.items, "logit"))


@pytest.mark.parametrize("name", ["bert", "gru4rec"])
def test_occlusion_equals_captums(name: str) -> None:
    attr = pytest.importorskip("captum.attr")
    one = encoder(name)
    assert isinstance(one, TokenEncoder)
    predicted = Predicted(one.items, "probability")
    for history, target in zip(HISTORIES, [4, 5, 1, 2], strict=True):
        seqs = Sequences.from_lists([history])

        def forward(x: Tensor, seqs: Sequences = seqs, target: int = target) -> Tensor:
            return predicted.values(one.contextualize(x[0], seqs)[-1:], torch.tensor([target]))

        x = one.items(seqs.ids)[None]
        expected = attr.Occlusion(forward).attribute(x, sliding_window_shapes=(1, 16), strides=(1, 16), baselines=0)
        # captum gives every dimension of the window its difference.
        assert torch.allclose(expected[0, :, :1].expand(-1, 16), expected[0])
        found = occlusion(one, Questions.after_the_end(seqs, torch.tensor([target])), predicted)
        assert torch.allclose(found.float(), expected[0, :, 0], rtol=1e-5, atol=1e-7)  # captum answers in float32
