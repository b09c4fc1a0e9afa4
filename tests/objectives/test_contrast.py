"""Contrastive terms: by hand, against loops over the papers' sums, against pytorch-metric-learning, by gradient."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from pytorch_metric_learning.distances import DotProductSimilarity
from pytorch_metric_learning.losses import NTXentLoss, SupConLoss
from torch import Tensor
from torch.nn import functional as F

from conseq.objectives.contrast import info_nce, margin_regularizer, negative_view_contrast, one_way_info_nce

CASES = [(2, 1, 1.0), (2, 5, 0.1), (3, 4, 0.5), (7, 3, 2.0), (16, 8, 1.0)]
cases = pytest.mark.parametrize(("size", "width", "temperature"), CASES)
Pairwise = Callable[[Tensor, Tensor], Tensor]


def views(size: int, width: int = 4, count: int = 2) -> list[Tensor]:
    torch.manual_seed(size * 100 + width)
    return [torch.randn(size, width, dtype=torch.float64, requires_grad=True) for _ in range(count)]


def some(size: int, share: float = 0.4) -> Tensor:
    """False negatives, neither symmetric nor with a settled diagonal."""
    torch.manual_seed(size)
    return torch.rand(size, size) < share


def dot(x: list[float], y: list[float]) -> float:
    return sum(p * q for p, q in zip(x, y, strict=True))


def slow_info_nce(a: Tensor, b: Tensor, temperature: float, same: Tensor | None = None) -> float:
    """CL4SRec eq. 3 in both directions, one anchor, one positive and 2 (B - 1) negatives at a time."""
    x, y = a.tolist(), b.tolist()
    total = 0.0
    for anchors, positives in ((x, y), (y, x)):
        for i, anchor in enumerate(anchors):
            positive = math.exp(dot(anchor, positives[i]) / temperature)
            negatives = 0.0
            for j in range(len(x)):
                if j != i and not (same is not None and bool(same[i, j])):
                    negatives += math.exp(dot(anchor, x[j]) / temperature) + math.exp(dot(anchor, y[j]) / temperature)
            total -= math.log(positive / (positive + negatives))
    return total / (2 * len(x))


def slow_one_way(
    a: Tensor, b: Tensor, temperature: float, *, inter: bool, intra: bool, same: Tensor | None = None
) -> float:
    """MCLSR eq. 8 (both kinds of negatives), ECL-SR eq. 13 (the anchors' own view)."""
    x, y = a.tolist(), b.tolist()
    total = 0.0
    for i, anchor in enumerate(x):
        positive = math.exp(dot(anchor, y[i]) / temperature)
        denominator = positive
        for j in range(len(x)):
            if j == i or (same is not None and bool(same[i, j])):
                continue
            denominator += math.exp(dot(anchor, y[j]) / temperature) if inter else 0.0
            denominator += math.exp(dot(anchor, x[j]) / temperature) if intra else 0.0
        total -= math.log(positive / denominator)
    return total / len(x)


def slow_negative_view(negatives: Tensor, positives: Tensor, temperature: float, *, crowd: bool) -> float:
    """EC4SRec's L_cl-: one other negative view at a time; the authors' code has them all in the denominator."""
    n, p = negatives.tolist(), positives.tolist()
    total = 0.0
    for u, anchor in enumerate(n):
        apart = sum(math.exp(dot(anchor, one) / temperature) for one in p)
        others = [math.exp(dot(anchor, n[v]) / temperature) for v in range(len(n)) if v != u]
        mean = sum(math.log(one / (apart + (sum(others) if crowd else one))) for one in others) / len(others)
        total -= mean
    return total / len(n)


def slow_regularizer(a: Tensor, b: Tensor) -> float:
    """MCLRec eqs. 11-13."""
    x, y = a.tolist(), b.tolist()
    positive = [dot(x[i], y[i]) for i in range(len(x))]
    negative = [dot(x[i], y[j]) for i in range(len(x)) for j in range(len(y)) if i != j]
    least, most = sorted([min(positive), max(negative)])
    above = sum(max(one - least, 0.0) for one in positive) / len(positive)
    return above + sum(max(most - one, 0.0) for one in negative) / len(negative)


def slow_regularizer_per_row(a: Tensor, b: Tensor) -> float:
    """The authors' code: each of the 2B vectors with its one positive, its 2B - 2 negatives, its own bounds."""
    z = a.tolist() + b.tolist()
    half = len(z) // 2
    above, below, count = 0.0, 0.0, 0
    for i, anchor in enumerate(z):
        positive = dot(anchor, z[(i + half) % len(z)])
        negative = [dot(anchor, z[j]) for j in range(len(z)) if j % half != i % half]
        least, most = sorted([positive, max(negative)])
        above += max(positive - least, 0.0)
        below += sum(max(most - one, 0.0) for one in negative)
        count += len(negative)
    return above / len(z) + below / count


# By hand


def test_nt_xent_by_hand() -> None:
    a = torch.tensor([[1.0], [0.0]])
    # Two anchors are 1: their positive is 1, their negatives score 0. Two are 0: every score is 0.
    expected = (2 * (math.log(math.e + 2) - 1) + 2 * math.log(3)) / 4
    assert info_nce(a, a.clone(), temperature=1.0).item() == pytest.approx(expected, abs=1e-6)


def test_one_way_by_hand() -> None:
    x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [0.0]])
    inter = (math.log(math.e**3 + 1) - 3 + math.log(math.e**6 + 1)) / 2
    intra = (math.log(math.e**3 + math.e**2) - 3 + math.log(1 + math.e**2)) / 2
    both = (math.log(math.e**3 + 1 + math.e**2) - 3 + math.log(1 + math.e**6 + math.e**2)) / 2
    assert one_way_info_nce(x, y, temperature=1.0).item() == pytest.approx(inter, abs=1e-6)
    assert one_way_info_nce(x, y, temperature=1.0, inter=False, intra=True).item() == pytest.approx(intra, abs=1e-6)
    assert one_way_info_nce(x, y, temperature=1.0, intra=True).item() == pytest.approx(both, abs=1e-6)


def test_negative_views_by_hand() -> None:
    n, p = torch.tensor([[1.0], [1.0], [0.0]]), torch.tensor([[2.0]])
    # n_0 against n_1 scores 1, against n_2 scores 0, against p scores 2; n_2 scores 0 everywhere.
    first = (math.log(math.e + math.e**2) - 1 + math.log(1 + math.e**2)) / 2
    paper = (2 * first + math.log(2)) / 3
    first = math.log(math.e + 1 + math.e**2) - 0.5
    code = (2 * first + math.log(3)) / 3
    assert negative_view_contrast(n, p, temperature=1.0).item() == pytest.approx(paper, abs=1e-6)
    assert negative_view_contrast(n, p, temperature=1.0, crowd=True).item() == pytest.approx(code, abs=1e-6)


def test_the_regularizer_by_hand() -> None:
    a, b = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [1.0]])
    # Positives 3 and 2, negatives 1 and 6: bounds 2 and 6, so (1 + 0) / 2 above and (5 + 0) / 2 below.
    assert margin_regularizer(a, b).item() == pytest.approx(3.0)
    # Positive 3: negatives 2, 1; 2: 2, 6; 3: 6, 3; 2: 1, 3. Above 1, 0, 0, 0; below 1 + 2, 4 + 0, 0 + 3, 2 + 0.
    assert margin_regularizer(a, b, per_row=True).item() == pytest.approx(1 / 4 + 12 / 8)


# Slow twins


@cases
def test_nt_xent_is_the_papers_sum(size: int, width: int, temperature: float) -> None:
    a, b = views(size, width)
    assert info_nce(a, b, temperature=temperature).item() == pytest.approx(slow_info_nce(a, b, temperature), abs=1e-6)


@cases
def test_nt_xent_without_false_negatives_is_the_papers_sum(size: int, width: int, temperature: float) -> None:
    (a, b), same = views(size, width), some(size)
    found = info_nce(a, b, temperature=temperature, same=same)
    assert found.item() == pytest.approx(slow_info_nce(a, b, temperature, same), abs=1e-6)


@pytest.mark.parametrize(("inter", "intra"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("masked", [False, True])
@cases
def test_one_way_is_the_papers_sum(
    size: int, width: int, temperature: float, masked: bool, inter: bool, intra: bool
) -> None:
    (a, b), same = views(size, width), some(size) if masked else None
    found = one_way_info_nce(a, b, temperature=temperature, inter=inter, intra=intra, same=same)
    assert found.item() == pytest.approx(slow_one_way(a, b, temperature, inter=inter, intra=intra, same=same), abs=1e-6)


@pytest.mark.parametrize("crowd", [False, True])
@cases
def test_the_contrast_of_negative_views_is_the_papers_sum(
    size: int, width: int, temperature: float, crowd: bool
) -> None:
    n, p, q = views(size, width, 3)
    positives = torch.cat([p, q])
    found = negative_view_contrast(n, positives, temperature=temperature, crowd=crowd)
    assert found.item() == pytest.approx(slow_negative_view(n, positives, temperature, crowd=crowd), abs=1e-6)


@cases
def test_the_regularizer_is_the_papers_sum(size: int, width: int, temperature: float) -> None:
    a, b = (one / temperature for one in views(size, width))
    assert margin_regularizer(a, b).item() == pytest.approx(slow_regularizer(a, b), abs=1e-6)
    assert margin_regularizer(a, b, per_row=True).item() == pytest.approx(slow_regularizer_per_row(a, b), abs=1e-6)


# pytorch-metric-learning


def raw_dot() -> DotProductSimilarity:
    return DotProductSimilarity(normalize_embeddings=False)


@cases
def test_nt_xent_is_that_of_pytorch_metric_learning(size: int, width: int, temperature: float) -> None:
    a, b = views(size, width)
    labels = torch.arange(size).repeat(2)
    raw = NTXentLoss(temperature, distance=raw_dot())(torch.cat([a, b]), labels)
    assert info_nce(a, b, temperature=temperature).item() == pytest.approx(raw.item(), abs=1e-6)
    cosine = NTXentLoss(temperature)(torch.cat([a, b]), labels)
    ours = info_nce(F.normalize(a), F.normalize(b), temperature=temperature)
    assert ours.item() == pytest.approx(cosine.item(), abs=1e-6)


def test_nt_xent_without_false_negatives_is_that_of_pytorch_metric_learning() -> None:
    (a, b), same = views(6), some(6)
    things = torch.arange(6).repeat(2)
    kept = ~same.repeat(2, 2) & (things[:, None] != things)
    pairs = (torch.arange(12), torch.arange(12).roll(6), *kept.nonzero(as_tuple=True))
    expected = NTXentLoss(0.7, distance=raw_dot())(torch.cat([a, b]), things, indices_tuple=pairs)
    assert info_nce(a, b, temperature=0.7, same=same).item() == pytest.approx(expected.item(), abs=1e-6)


@cases
def test_one_way_is_that_of_pytorch_metric_learning(size: int, width: int, temperature: float) -> None:
    a, b = views(size, width)
    labels = torch.arange(size)
    expected = NTXentLoss(temperature, distance=raw_dot())(a, labels, ref_emb=b, ref_labels=labels.clone())
    assert one_way_info_nce(a, b, temperature=temperature).item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize(("crowd", "oracle"), [(False, NTXentLoss), (True, SupConLoss)])
@cases
def test_the_contrast_of_negative_views_is_that_of_pytorch_metric_learning(
    size: int, width: int, temperature: float, crowd: bool, oracle: type[NTXentLoss | SupConLoss]
) -> None:
    n, p, q = views(size, width, 3)
    together = (~torch.eye(size, dtype=torch.bool)).nonzero(as_tuple=True)
    anchor = torch.arange(size).repeat_interleave(2 * size)
    apart = size + torch.arange(2 * size).repeat(size)
    loss = oracle(temperature=temperature, distance=raw_dot())
    expected = loss(torch.cat([n, p, q]), torch.arange(3 * size), indices_tuple=(*together, anchor, apart))
    found = negative_view_contrast(n, torch.cat([p, q]), temperature=temperature, crowd=crowd)
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)


# Gradients


@pytest.mark.parametrize(
    "term",
    [
        lambda a, b: info_nce(a, b, temperature=0.5),
        lambda a, b: info_nce(a, b, temperature=2.0, same=some(4)),
        lambda a, b: one_way_info_nce(a, b, temperature=0.5, same=some(4)),
        lambda a, b: one_way_info_nce(a, b, temperature=0.5, inter=False, intra=True),
        lambda a, b: one_way_info_nce(a, b, temperature=0.5, intra=True),
        lambda a, b: negative_view_contrast(a, b, temperature=0.5),
        lambda a, b: negative_view_contrast(a, b, temperature=0.5, crowd=True),
        margin_regularizer,
        lambda a, b: margin_regularizer(a, b, per_row=True),
    ],
)
def test_the_gradient_is_that_of_finite_differences(term: Pairwise) -> None:
    assert torch.autograd.gradcheck(term, views(4, 3))


def test_the_gradient_flows_through_one_view_alone() -> None:
    a, b = views(5)
    both = torch.autograd.grad(info_nce(a, b, temperature=0.5), a)[0]
    alone = torch.autograd.grad(info_nce(a, b.detach(), temperature=0.5), a)[0]
    assert torch.allclose(both, alone)


def test_a_gradient_of_the_gradient_is_refused() -> None:
    a, b = views(3)
    with pytest.raises(RuntimeError, match="no gradient of its gradient"):
        torch.autograd.grad(info_nce(a, b, temperature=0.5), a, create_graph=True)


# Properties


def test_the_views_may_change_places() -> None:
    a, b = views(6)
    assert info_nce(a, b, temperature=0.5).item() == pytest.approx(info_nce(b, a, temperature=0.5).item(), abs=1e-12)


def test_a_thing_without_negatives_adds_nothing() -> None:
    a, b = views(4)
    all_same = torch.ones(4, 4, dtype=torch.bool)
    for loss in (
        info_nce(a, b, temperature=0.5, same=all_same),
        one_way_info_nce(a, b, temperature=0.5, intra=True, same=all_same),
    ):
        assert loss.item() == pytest.approx(0.0, abs=1e-12)
        assert torch.equal(torch.autograd.grad(loss, a)[0], torch.zeros_like(a))


def test_things_apart_by_thousands_neither_overflow_nor_vanish() -> None:
    a, b = views(4)
    for scale in (1e-3, 1e3):
        x, y = (a * scale).float(), (b * scale).float()
        for loss in (
            info_nce(x, y, temperature=0.05),
            one_way_info_nce(x, y, temperature=0.05, intra=True),
            negative_view_contrast(x, y, temperature=0.05),
            negative_view_contrast(x, y, temperature=0.05, crowd=True),
            margin_regularizer(x, y),
            margin_regularizer(x, y, per_row=True),
        ):
            assert torch.isfinite(loss)
            assert torch.isfinite(torch.autograd.grad(loss, a, retain_graph=True)[0]).all()


def test_autocast_does_not_touch_the_sums() -> None:
    x, y = (one.float() for one in views(8, 16))
    for term in (info_nce, one_way_info_nce, negative_view_contrast):
        full = term(x, y, temperature=0.05)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(term(x, y, temperature=0.05), full)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = info_nce(x.bfloat16(), y.bfloat16(), temperature=0.5)
        assert low.dtype == torch.float32
        expected = margin_regularizer(x, y)
    assert torch.equal(expected, margin_regularizer(x, y))


def test_nothing_that_is_given_is_written_to() -> None:
    (a, b), same = views(5), some(5)
    kept = [a.detach().clone(), b.detach().clone(), same.clone()]
    for loss in (
        info_nce(a, b, temperature=0.5, same=same),
        one_way_info_nce(a, b, temperature=0.5, intra=True, same=same),
        negative_view_contrast(a, b, temperature=0.5, crowd=True),
        margin_regularizer(a, b, per_row=True),
    ):
        torch.autograd.backward(loss)
    assert all(torch.equal(now, before) for now, before in zip([a, b, same], kept, strict=True))


# Errors


@pytest.mark.parametrize(
    "term",
    [
        lambda a, b: info_nce(a, b, temperature=1.0),
        lambda a, b: one_way_info_nce(a, b, temperature=1.0),
        lambda a, b: negative_view_contrast(a, b, temperature=1.0),
        margin_regularizer,
    ],
)
def test_a_single_thing_has_nothing_to_be_told_from(term: Pairwise) -> None:
    with pytest.raises(ValueError, match="at least 2 things to tell apart, found 1; use a larger batch"):
        term(torch.ones(1, 3), torch.ones(1, 3))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
@pytest.mark.parametrize("term", [info_nce, one_way_info_nce, negative_view_contrast])
def test_a_temperature_is_positive(term: Callable[..., Tensor], temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be greater than 0"):
        term(torch.ones(2, 3), torch.ones(2, 3), temperature=temperature)


def test_shapes_that_do_not_fit_are_named() -> None:
    two, three = torch.ones(2, 3), torch.ones(3, 3)
    for term in (info_nce, one_way_info_nce):
        with pytest.raises(ValueError, match=r"one shape \[B, D\], found \[2, 3\] and \[3, 3\]"):
            term(two, three, temperature=1.0)
        with pytest.raises(ValueError, match=r"same must be bool \[2, 2\], found torch.float32 \[2, 2\]"):
            term(two, two, temperature=1.0, same=torch.ones(2, 2))
        with pytest.raises(ValueError, match=r"same must be bool \[2, 2\], found torch.bool \[3, 3\]"):
            term(two, two, temperature=1.0, same=torch.ones(3, 3).bool())
    for positives in (torch.ones(2, 4), torch.ones(0, 3), torch.ones(3)):
        with pytest.raises(ValueError, match=r"negatives \[B, D\] and at least one positive \[P, D\]"):
            negative_view_contrast(two, positives, temperature=1.0)


def test_a_contrast_without_negatives_is_refused() -> None:
    with pytest.raises(ValueError, match="set inter, intra or both"):
        one_way_info_nce(torch.ones(2, 3), torch.ones(2, 3), temperature=1.0, inter=False)
