"""The contrast of chosen views: both contrasts against a slow reading, and which views each choice makes."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.data.train_set import Batch, Instances, TrainSet
from conseq.encoders.sasrec import SASRecConfig
from conseq.methods.cl4srec import CL4SRec, CL4SRecConfig
from conseq.methods.duorec import DuoRec, DuoRecConfig
from conseq.methods.view_contrast import Operator, ViewContrast, ViewContrastConfig
from conseq.views import mild

N_ITEMS = 9
LISTS = [[1, 2, 3, 4, 5], [6, 7, 8, 9], [2, 4, 6], [9, 1, 5, 3, 7, 2]]
both_ways = pytest.mark.parametrize("instances", ["prefixes", "whole"])


def make(
    config: ViewContrastConfig, instances: Instances = "prefixes", dropout: float = 0.0, lists: list[list[int]] = LISTS
) -> tuple[ViewContrast, Batch]:
    train = TrainSet(Sequences.from_lists(lists), torch.arange(len(lists)), N_ITEMS, instances=instances, max_length=6)
    torch.manual_seed(0)
    encoder = SASRecConfig(width=8, layers=2, heads=2, max_length=6, dropout=dropout, attention_dropout=0.0)
    method = ViewContrast(config, train, encoder)
    with torch.no_grad():
        method.encoder.items.weight.mul_(20)
    return method, train.batch(torch.arange(len(train)))


def rng(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def encoded(method: ViewContrast, histories: Sequences) -> list[Tensor]:
    """Each history encoded on its own."""
    return [method.encoder(Sequences.from_lists([row]))[0].detach() for row in histories.to_lists()]


def slow(first: list[Tensor], second: list[Tensor], config: ViewContrastConfig, users: list[int]) -> float:
    """CL4SRec eq. 3 anchor by anchor."""
    z, half, total = [*first, *second], len(first), 0.0
    if config.similarity == "cosine":
        z = [one / one.norm() for one in z]
    for i, anchor in enumerate(z):
        own = (i + half) % len(z)
        scores = {
            j: float(anchor @ other) / config.temperature
            for j, other in enumerate(z)
            if j == own or (j != i and not (config.remove_same_user and users[j % half] == users[i % half]))
        }
        total += math.log(sum(math.exp(score - scores[own]) for score in scores.values()))
    return total / len(z)


@both_ways
@pytest.mark.parametrize(
    "config",
    [
        ViewContrastConfig(operators=("insert", "delete", "substitute"), contrast=0.3, temperature=0.7),
        ViewContrastConfig(operators=("crop", "insert"), similarity="cosine", temperature=0.4, remove_same_user=True),
        ViewContrastConfig(operators=("mask",), mild="normalisation", mild_contrast=0.2),
        ViewContrastConfig(operators=(), mild="perturbation", mild_contrast=0.2, noise=3.0, similarity="cosine"),
    ],
)
def test_the_contrasts_are_the_slow_ones(config: ViewContrastConfig, instances: Instances) -> None:
    method, batch = make(config, instances)
    terms = {name: term.item() for name, term in method.loss(batch, rng()).items()}
    users, source, expected = batch.users.tolist(), rng(), {}
    if method.views is not None:
        a, b = (encoded(method, view) for view in method.views(batch, source))
        expected["contrast"] = config.contrast * slow(a, b, config, users)
    if config.mild != "no":
        plain = encoded(method, batch.history)
        changed = [one / one.norm() for one in plain]
        if config.mild == "perturbation":
            drawn = torch.rand(len(plain), 8, generator=source)
            towards = [share * one for share, one in zip(drawn, plain, strict=True)]
            changed = [one + 3.0 * way / way.norm() for one, way in zip(plain, towards, strict=True)]
        expected["mild"] = config.mild_contrast * slow(plain, changed, config, users)
    assert terms.pop("next_item") > 0
    assert terms == pytest.approx(expected, abs=1e-5)


@both_ways
def test_the_dropout_view_is_the_same_history_under_another_mask(instances: Instances) -> None:
    config = ViewContrastConfig(operators=(), mild="dropout", mild_contrast=1.0)
    calm, batch = make(config, instances)
    same = [encoded(calm, batch.history)] * 2
    found = calm.loss(batch, rng())["mild"].item()
    assert found == pytest.approx(slow(same[0], same[1], config, batch.users.tolist()), abs=1e-5)
    wild, batch = make(config, instances, dropout=0.3)
    states, users, (again,) = wild._encode(batch, [batch.history])
    assert users.shape == again.shape == (len(batch), 8)
    assert not torch.allclose(users, again, atol=0.1)
    assert len(states) == len(batch.next_ids)


@both_ways
def test_with_the_same_operators_it_is_cl4srec(instances: Instances) -> None:
    shared = {"loss": "cross_entropy", "contrast": 0.4, "temperature": 0.8}
    one, batch = make(ViewContrastConfig(**shared), instances)  # type: ignore[arg-type]
    other = CL4SRec(
        CL4SRecConfig(**shared),  # type: ignore[arg-type]
        one.train_set,
        SASRecConfig(width=8, layers=2, heads=2, max_length=6, dropout=0.0, attention_dropout=0.0),
    )
    other.load_state_dict(one.state_dict())
    ours, theirs = one.loss(batch, rng()), other.loss(batch, rng())
    assert ours.keys() == theirs.keys()
    for name, term in ours.items():
        assert torch.equal(term, theirs[name]), name


@both_ways
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_with_same_target_and_no_operators_it_is_duorec(instances: Instances, dropout: float) -> None:
    lists = [[1, 2, 3], [4, 5, 3], [2, 6, 3], [7, 8, 9]]
    config = ViewContrastConfig(operators=(), mild="same_target", mild_contrast=0.4, temperature=0.8)
    one, batch = make(config, instances, dropout=dropout, lists=lists)
    other = DuoRec(
        DuoRecConfig(supervised=0.4, temperature=0.8),
        one.train_set,
        SASRecConfig(width=8, layers=2, heads=2, max_length=6, dropout=dropout, attention_dropout=0.0),
    )
    other.load_state_dict(one.state_dict())
    found = []
    for method in (one, other):
        torch.manual_seed(5)  # of dropout
        found.append(list(method.loss(batch, rng()).values()))
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


@both_ways
@pytest.mark.parametrize("bounds", ["batch", "anchor"])
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_the_regulariser_stands_beside_each_contrast(
    instances: Instances, bounds: Literal["batch", "anchor"], similarity: Literal["dot", "cosine"]
) -> None:
    shared: dict[str, Any] = {"mild": "same_target", "contrast": 0.3, "mild_contrast": 0.2, "similarity": similarity}
    plain, batch = make(ViewContrastConfig(**shared), instances)
    method, _ = make(ViewContrastConfig(**shared, margin=0.5, margin_bounds=bounds), instances)
    without, terms = plain.loss(batch, rng()), method.loss(batch, rng())
    assert [name for name in terms if name not in without] == ["contrast_margin", "mild_margin"]
    for name, term in without.items():
        assert torch.equal(term, terms[name]), name
    source = rng()
    assert method.views is not None
    assert method.same_target is not None
    first, second = (encoded(method, view) for view in method.views(batch, source))
    pairs = {
        "contrast": (first, second),
        "mild": (encoded(method, batch.history), encoded(method, method.same_target(batch, source))),
    }
    for name, pair in pairs.items():
        weight = 0.5 * {"contrast": 0.3, "mild": 0.2}[name]
        expected = weight * slow_margin(*pair, anchors=bounds == "anchor", cosine=similarity == "cosine")
        assert terms[f"{name}_margin"].item() == pytest.approx(expected, abs=1e-5)


def slow_margin(first: list[Tensor], second: list[Tensor], *, anchors: bool, cosine: bool) -> float:
    """MCLRec eqs. 11-13 score by score."""
    z, n = [*first, *second], len(first)
    if cosine:
        z = [one / one.norm() for one in z]
    if not anchors:
        positive = [float(z[i] @ z[n + i]) for i in range(n)]
        return hinged(positive, [float(z[i] @ z[n + j]) for i in range(n) for j in range(n) if i != j])
    rows = [
        hinged([float(z[i] @ z[(i + n) % (2 * n)])], [float(z[i] @ z[j]) for j in range(2 * n) if j % n != i % n])
        for i in range(2 * n)
    ]
    return sum(rows) / len(rows)


def hinged(positive: list[float], negative: list[float]) -> float:
    low, high = sorted((min(positive), max(negative)))
    return sum(max(one - low, 0.0) for one in positive) / len(positive) + sum(
        max(high - one, 0.0) for one in negative
    ) / len(negative)


@pytest.mark.parametrize(
    ("operator", "length"), [("substitute", 9), ("insert", 11), ("delete", 7), ("crop", 5), ("mask", 9), ("reorder", 9)]
)
def test_an_operator_makes_the_views_that_its_name_says(operator: Operator, length: int) -> None:
    lists = [list(range(1, 10))[start:] + list(range(1, 10))[:start] for start in range(9)]
    train = TrainSet(Sequences.from_lists(lists), torch.arange(9), 20, instances="whole", max_length=9)
    encoder = SASRecConfig(width=8, layers=1, heads=1, max_length=9)
    method = ViewContrast(ViewContrastConfig(operators=(operator,), edit=0.2), train, encoder)
    histories = Sequences.from_lists(lists)
    batch = Batch(
        torch.arange(9), torch.arange(9), histories, histories.last, torch.ones(9, dtype=torch.int64), at_last=True
    )
    assert method.views is not None
    for view in method.views(batch, rng()):
        assert view.lengths.tolist() == [length] * 9  # floor(.2 x 9) + 1 = 2 are edited
        for row, original in zip(view.to_lists(), lists, strict=True):
            if operator == "insert":
                assert [item for item in original if item in row] == original
            if operator in {"delete", "crop"}:
                assert [item for item in original if item in row] == row
            if operator == "substitute":
                assert sum(a != b for a, b in zip(row, original, strict=True)) == 2
            if operator == "reorder":
                assert sorted(row) == sorted(original)
            if operator == "mask":
                assert row.count(21) == 2


def test_nothing_to_contrast_is_refused_and_so_is_an_insertion_from_nobody() -> None:
    with pytest.raises(ValueError, match="operators is empty and mild is 'no': nothing is contrasted"):
        make(ViewContrastConfig(operators=()))
    with pytest.raises(ValueError, match="insertion takes items from other users, and the training log has one"):
        make(ViewContrastConfig(operators=("insert",)), lists=[[1, 2, 3, 4]])


def test_a_perturbation_is_as_long_as_it_says_and_teaches_nothing_of_its_direction() -> None:
    vectors = torch.randn(5, 4, generator=rng()).requires_grad_()
    moved = mild.perturbed(vectors, 0.3, rng())
    step = (moved - vectors).detach()
    assert torch.allclose(step.norm(dim=1), torch.full((5,), 0.3), atol=1e-6)
    assert bool((step * vectors.detach() >= 0).all())  # in the vector's own orthant
    torch.autograd.backward(moved.sum())
    assert torch.equal(vectors.grad, torch.ones(5, 4))  # type: ignore[arg-type]
    assert torch.allclose(mild.normalised(vectors).norm(dim=1), torch.ones(5))
