from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.data.train_set import Instances, TrainSet
from conseq.encoders.caser import CaserConfig
from conseq.encoders.encoder import Encoder, TokenEncoder
from conseq.encoders.gru4rec import GRU4RecConfig
from conseq.encoders.sasrec import SASRecConfig
from conseq.nn.items import ItemTable
from conseq.signals import importance as module
from conseq.signals import occlusion as occlusion_module
from conseq.signals.importance import Explainer, Explanation, Importance, explain

N_ITEMS = 12
LENGTH = 6

BACKBONES: dict[str, Any] = {
    "sasrec": SASRecConfig(width=16, heads=2, max_length=LENGTH),
    "sasrec-end": SASRecConfig(width=16, heads=2, max_length=LENGTH, block="kang", positions="end"),
    "gru4rec": GRU4RecConfig(width=16, max_length=LENGTH),
    "caser": CaserConfig(width=16, max_length=4),
}

ROWS = [[1, 2, 3, 4, 5], [7, 8], [3, 3, 9, 1, 2, 4, 5, 6, 7, 10, 11], [5, 6, 12], [4], [8, 8, 8, 8, 8, 8, 8, 8]]


def encoder(name: str) -> Encoder:
    torch.manual_seed(0)
    made: Encoder = BACKBONES[name](ItemTable(N_ITEMS, 16, std=0.7)).eval()
    for parameter in made.parameters():
        if parameter.dim() > 1 and parameter is not made.items.weight:
            torch.nn.init.normal_(parameter, std=0.4)
    return made


def examples(instances: Instances = "prefixes", *, windows: bool = True) -> TrainSet:
    rows = Sequences.from_lists(ROWS)
    return TrainSet(rows, torch.arange(len(ROWS)), N_ITEMS, instances=instances, max_length=LENGTH, windows=windows)


def sums(values: Tensor, train: TrainSet) -> Tensor:
    rows = train.batch(torch.arange(len(train))).history.rows
    return torch.zeros(len(train)).index_add(0, rows, values)


@pytest.mark.parametrize(
    ("name", "explanation"),
    [(name, "occlusion") for name in BACKBONES]
    + [
        ("sasrec", "saliency"),
        ("gru4rec", "integrated_gradients"),
        ("sasrec", "attention"),
        ("sasrec-end", "attention"),
    ],
)
@pytest.mark.parametrize("instances", ["prefixes", "whole"])
@pytest.mark.parametrize("at_once", [40, 10_000])
def test_a_refresh_gives_every_example_what_explaining_it_alone_gives(
    name: str, explanation: Explanation, instances: Instances, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CPU_STATES", at_once)
    monkeypatch.setattr(occlusion_module, "_CPU_STATES", at_once)
    one, train = encoder(name), examples(instances)
    explainer = Explainer(explanation, steps=4)
    importance = Importance(train, explainer)
    importance.refresh(one)
    for row in range(len(train)):
        batch = train.batch(torch.tensor([row]))
        alone = explain(one, batch.history, batch.targets, explainer)
        assert torch.allclose(importance.of(batch), alone, atol=2e-5), (row, batch.history.to_lists())
    assert torch.allclose(sums(importance.scores, train), torch.ones(len(train)), atol=1e-5)


def test_examples_of_a_causal_encoder_cost_one_pass_per_occluded_item() -> None:
    """The prefixes of one history of n items: n occlusions of the longest, not n (n + 1) / 2."""
    one = encoder("gru4rec")
    rows = Sequences.from_lists([[1, 2, 3, 4, 5, 6, 7]])
    train = TrainSet(rows, torch.arange(1), N_ITEMS, instances="prefixes", max_length=LENGTH)
    sequences_read = []
    one.register_forward_pre_hook(lambda _, inputs: sequences_read.append(len(inputs[0])))
    assert isinstance(one, TokenEncoder)
    contextualize = one.contextualize

    def counted(x: Tensor, seqs: Sequences, **options: Any) -> Tensor:
        sequences_read.append(len(seqs))
        out: Tensor = contextualize(x, seqs, **options)
        return out

    one.contextualize = counted  # type: ignore[method-assign]
    Importance(train).refresh(one)
    assert sorted(sequences_read) == [1, 6]


def test_a_batch_gets_its_importances_in_the_places_of_its_items() -> None:
    train = examples()
    importance = Importance(train)
    lengths = train.batch(torch.arange(len(train))).history.lengths
    importance.put(torch.repeat_interleave(torch.arange(len(train)), lengths).float())
    rows = torch.tensor([9, 0, 5, 5])
    batch = train.batch(rows)
    assert torch.equal(importance.of(batch), rows[batch.history.rows].float())


def test_importances_per_interaction_are_read_by_every_example_that_holds_it() -> None:
    train = examples()
    importance = Importance(train)
    importance.put(torch.arange(train.sequences.ids.numel()).float())
    for row in range(len(train)):
        batch = train.batch(torch.tensor([row]))
        begin = int(train.start[row])
        assert importance.of(batch).tolist() == [begin + place for place in range(len(batch.history.ids))]


def test_before_the_first_update_there_is_nothing_to_read() -> None:
    train = examples()
    importance = Importance(train)
    assert not importance.ready
    with pytest.raises(ValueError, match="no importances yet"):
        importance.of(train.batch(torch.arange(2)))


@pytest.mark.parametrize("size", [3, 10_000])
def test_importances_of_another_train_set_are_refused(size: int) -> None:
    importance = Importance(examples())
    with pytest.raises(ValueError, match=rf"found \[{size}\]"):
        importance.put(torch.ones(size))
    assert not importance.ready


def test_importances_that_are_not_finite_are_refused() -> None:
    importance = Importance(examples())
    with pytest.raises(ValueError, match="finite"):
        importance.put(torch.full_like(importance.scores, torch.nan))


def test_a_checkpoint_holds_the_importances_and_whether_there_are_any() -> None:
    train, one = examples(), encoder("sasrec")
    first, second = Importance(train), Importance(train)
    before = {name: value.clone() for name, value in first.state_dict().items()}
    first.refresh(one)
    second.load_state_dict(first.state_dict())
    assert set(before) == {"scores", "_made"}
    assert torch.equal(second.scores, first.scores)
    ready = [second.ready]
    second.load_state_dict(before)
    assert [*ready, second.ready] == [True, False]


def test_an_encoder_that_trains_is_explained_as_it_evaluates_and_trains_on() -> None:
    train, one = examples(), encoder("sasrec")
    importance = Importance(train)
    importance.refresh(one)
    expected = importance.scores.clone()
    one.train()
    importance.refresh(one)
    assert torch.equal(importance.scores, expected)
    assert one.training


def test_items_before_those_that_are_read_count_nothing() -> None:
    one = encoder("sasrec")
    history = Sequences.from_lists([[9, 9, *range(1, LENGTH + 1)], [1, 2]])
    found = explain(one, history, torch.tensor([7, 3]))
    alone = explain(one, Sequences.from_lists([list(range(1, LENGTH + 1))]), torch.tensor([7]))
    assert found[:2].tolist() == [0.0, 0.0]
    assert torch.allclose(found[2 : LENGTH + 2], alone)
    assert float(found[LENGTH + 2 :].sum()) == pytest.approx(1)


def test_where_nothing_matters_all_items_count_alike() -> None:
    one = encoder("gru4rec")
    with torch.no_grad():
        one.items.weight.zero_()
    found = explain(one, Sequences.from_lists([[1, 2, 3, 4], [5]]), torch.tensor([5, 6]))
    assert found.tolist() == [0.25, 0.25, 0.25, 0.25, 1.0]


def test_signed_importances_keep_the_sign_of_what_speaks_against_the_target() -> None:
    one = encoder("sasrec")
    history, target = Sequences.from_lists([[1, 2, 3, 4, 5, 6]]), torch.tensor([7])
    plain = explain(one, history, target)
    signed = explain(one, history, target, Explainer(signed=True))
    assert torch.allclose(signed.abs(), plain)
    assert bool((signed < 0).any())


def test_signed_gradients_are_summed_before_they_are_compared() -> None:
    one = encoder("gru4rec")
    history, target = Sequences.from_lists([[1, 2, 3, 4]]), torch.tensor([7])
    assert isinstance(one, TokenEncoder)
    x = one.items(history.ids).detach().requires_grad_()
    scores = one.contextualize(x, history)[-1] @ one.items.candidates.T
    (slope,) = torch.autograd.grad(scores.softmax(0)[6], x)
    plain = explain(one, history, target, Explainer("saliency"))
    signed = explain(one, history, target, Explainer("saliency", signed=True))
    assert torch.allclose(plain, slope.abs().sum(1) / slope.abs().sum(), atol=1e-6)
    assert torch.allclose(signed, slope.sum(1) / slope.sum(1).abs().sum(), atol=1e-6)


def test_signed_gradients_of_sasrec_are_refused_for_they_are_nothing() -> None:
    history, target = Sequences.from_lists([[1, 2, 3, 4]]), torch.tensor([7])
    with pytest.raises(ValueError, match="signed saliency of SASRec is 0 for every item"):
        explain(encoder("sasrec"), history, target, Explainer("saliency", signed=True))
    found = explain(encoder("sasrec"), history, target, Explainer("integrated_gradients", signed=True))
    assert float(found.abs().sum()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "explanation"),
    [("caser", "saliency"), ("caser", "integrated_gradients"), ("caser", "attention"), ("gru4rec", "attention")],
)
def test_an_encoder_that_cannot_be_explained_so_is_refused_before_training(name: str, explanation: Explanation) -> None:
    with pytest.raises(ValueError, match=r"(saliency|gradients|attention) needs .*choose occlusion"):
        Explainer(explanation).check(encoder(name))
    Explainer("occlusion").check(encoder(name))


def test_a_train_set_of_single_items_needs_no_explanation() -> None:
    rows = Sequences.from_lists([[1, 2], [3, 4]])
    importance = Importance(TrainSet(rows, torch.arange(2), N_ITEMS, instances="prefixes", max_length=LENGTH))
    importance.refresh(encoder("sasrec"))
    assert importance.scores.tolist() == [1.0, 1.0]
