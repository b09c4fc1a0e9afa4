from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences, concatenate
from conseq.data.train_set import Batch, Instances, TrainSet
from conseq.encoders.sasrec import SASRecConfig
from conseq.methods.mclrec import MCLRec, MCLRecConfig
from conseq.training.config import TrainingConfig
from conseq.training.trainer import Trainer

N_ITEMS = 20
LISTS = [[1, 2, 3, 4, 5, 6], [7, 8, 9], [3, 1, 4, 15, 9, 2, 6], [5, 3], [20, 19, 18, 17]]
PAPER: dict[str, Any] = {"contrast": 0.3, "learned": 0.5}
RELEASED: dict[str, Any] = PAPER | {
    "scale_margin": False,
    "margin_pairs": "all",
    "margin_bounds": "anchor",
    "normalise": True,
    "encoder_steps": 2,
    "directions": "mean",
}
presets = pytest.mark.parametrize("preset", [PAPER, RELEASED], ids=["paper", "released"])

Views = tuple[Sequences, Sequences]


def train_set(instances: Instances = "prefixes") -> TrainSet:
    users = torch.arange(len(LISTS))
    return TrainSet(Sequences.from_lists(LISTS), users, N_ITEMS, instances=instances, max_length=8)


def mclrec(settings: dict[str, Any], *, dropout: float = 0.0, instances: Instances = "prefixes") -> MCLRec:
    torch.manual_seed(0)
    backbone = SASRecConfig(
        width=8, layers=1, heads=2, max_length=8, dropout=dropout, attention_dropout=dropout, positions="end"
    )
    method = MCLRec(MCLRecConfig(augmenter_hidden=(6, 5), **settings), train_set(instances), backbone)
    # Larger vectors than at the start of training: every term and its gradient are far from 0.
    with torch.no_grad():
        method.encoder.items.weight.normal_()
    return method.double().train()


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def batch_of(method: MCLRec, rows: int = 4) -> Batch:
    return method.train_set.batch(torch.arange(0, 3 * rows, 3) % len(method.train_set))


# Slow twins, written as the paper's sums


def dot(a: Tensor, b: Tensor) -> float:
    return float(sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True)))


def con(x1: Tensor, x2: Tensor, directions: str = "sum") -> float:
    """Equation 8: both directions of a history against the 2 (B - 1) views of the others, added; the batch's mean."""
    n, total = len(x1), 0.0
    for anchors, positives in ((x1, x2), (x2, x1)):
        for i in range(n):
            positive = math.exp(dot(anchors[i], positives[i]))
            others = [view[j] for view in (x1, x2) for j in range(n) if j != i]
            total -= math.log(positive / (positive + sum(math.exp(dot(anchors[i], other)) for other in others)))
    return total / (n if directions == "sum" else 2 * n)


def clip(x: float) -> float:
    return max(x, 0.0)


def regulariser(positives: list[float], negatives: list[float]) -> float:
    """Equations 12 and 13."""
    bounds = min(positives), max(negatives)
    above = sum(clip(one - min(bounds)) for one in positives) / len(positives)
    return above + sum(clip(max(bounds) - one) for one in negatives) / len(negatives)


def margin_of_batch(z1: Tensor, z2: Tensor) -> float:
    """Equation 11: the scores between the two views, of the same history and of different ones."""
    n = len(z1)
    positives = [dot(z1[i], z2[i]) for i in range(n)]
    return regulariser(positives, [dot(z1[i], z2[j]) for i in range(n) for j in range(n) if i != j])


def margin_of_anchors(z1: Tensor, z2: Tensor) -> float:
    """The authors' code: each of the 2B vectors has a positive, 2 (B - 1) negatives and bounds of its own."""
    n, total = len(z1), 0.0
    for anchors, positives in ((z1, z2), (z2, z1)):
        for i in range(n):
            others = [view[j] for view in (z1, z2) for j in range(n) if j != i]
            total += regulariser([dot(anchors[i], positives[i])], [dot(anchors[i], other) for other in others])
    return total / (2 * n)


def next_item(states: Tensor, targets: Tensor, method: MCLRec) -> float:
    """Equation 3: the mean over targets."""
    total = 0.0
    for state, target in zip(states, targets.tolist(), strict=True):
        scores = [dot(state, method.encoder.items.weight[item]) for item in range(1, N_ITEMS + 1)]
        total += math.log(sum(math.exp(score) for score in scores)) - scores[target - 1]
    return total / len(targets)


def augment(method: MCLRec, number: int, h: Tensor) -> Tensor:
    """Equation 5, a layer at a time; of length 1 where the settings say so."""
    layers = [one for name, one in method.augmenters[number].named_parameters() if "weight" in name]
    biases = [one for name, one in method.augmenters[number].named_parameters() if "bias" in name]
    for place, (weight, bias) in enumerate(zip(layers, biases, strict=True)):
        h = h @ weight.T + bias
        if place < len(layers) - 1:
            h = 0.5 * h * (1 + torch.erf(h / math.sqrt(2)))
    return h / h.square().sum(1, keepdim=True).sqrt() if method.config.normalise else h


def learned_twin(method: MCLRec, views: Views) -> tuple[float, float]:
    """Equation 9 and R, without their weights."""
    h1, h2 = (method.encoder(view).detach() for view in views)
    z1, z2 = augment(method, 0, h1).detach(), augment(method, -1, h2).detach()
    pairs = [(z1, z2), (h1, z2), (h2, z1)]
    margin = margin_of_anchors if method.config.margin_bounds == "anchor" else margin_of_batch
    compared = pairs if method.config.margin_pairs == "all" else pairs[:1]
    return sum(con(a, b, method.config.directions) for a, b in pairs), sum(margin(a, b) for a, b in compared)


def values(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: term.item() for name, term in terms.items()}


@presets
@pytest.mark.parametrize("instances", ["prefixes", "whole"])
def test_the_encoders_loss_is_equation_14_term_by_term(preset: dict[str, Any], instances: Instances) -> None:
    method = mclrec(preset, instances=instances)
    batch = batch_of(method)
    views = method.views(batch.history, generator())
    learned, margin = learned_twin(method, views)
    h1, h2 = (method.encoder(view).detach() for view in views)
    states = method.encoder(batch.history) if batch.at_last else method.encoder.states(batch.history)[batch.at]  # type: ignore[operator]
    expected = {
        "next_item": next_item(states.detach(), batch.next_ids, method),
        "contrast": 0.3 * con(h1, h2, method.config.directions),
        "learned": 0.5 * learned,
        "margin": 0.1 * 0.5 * margin,
    }
    assert margin > 0
    assert values(method.encoder_terms(batch, views, generator())) == pytest.approx(expected, abs=1e-9)


@presets
def test_the_augmenters_loss_is_equation_15_term_by_term(preset: dict[str, Any]) -> None:
    method = mclrec(preset)
    views = method.views(batch_of(method).history, generator())
    learned, margin = learned_twin(method, views)
    gamma = 0.1 if preset is RELEASED else 0.1 * 0.5
    expected = {"learned": learned, "margin": gamma * margin}
    assert values(method.augmenter_terms(views)) == pytest.approx(expected, abs=1e-9)


@presets
def test_the_updates_are_those_of_algorithm_1(preset: dict[str, Any]) -> None:
    """By hand: whole backward passes, one Adam per part, the encoder's vectors made anew after each step."""
    method, twin = mclrec(preset), mclrec(preset)
    batch = batch_of(method)
    trainer = Trainer(method, TrainingConfig(learning_rate=0.01), lambda encoder: {})
    for group, terms in method.updates(batch, generator()):
        trainer._step(group, terms)

    views = twin.views(batch.history, generator())
    adams = [torch.optim.Adam(part.parameters(), lr=0.01) for part in (twin.encoder, twin.augmenters)]
    stages = ["encoder", "augmenters"] + ["encoder"] * (preset.get("encoder_steps", 1) - 1)
    for stage in stages:
        h1, h2 = (twin.encoder(view) for view in views)
        learned = twin._learned_terms(h1, h2, learned=1.0, margin=1.0)
        if stage == "encoder":
            terms = twin.encoder_terms(batch, views, generator())
            loss = terms["next_item"] + terms["contrast"] + 0.5 * (learned["learned"] + 0.1 * learned["margin"])
        else:
            loss = learned["learned"] + (0.1 if preset is RELEASED else 0.05) * learned["margin"]
        for adam in adams:
            adam.zero_grad()
        torch.autograd.backward(loss)
        adams[stage == "augmenters"].step()
    for (name, ours), theirs in zip(method.named_parameters(), twin.parameters(), strict=True):
        # float64 everywhere; what differs is the order of sums, divided by Adam's small denominators.
        torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=0, msg=name)


def test_the_augmenters_learn_from_the_encoder_as_it_is_after_its_own_update() -> None:
    method = mclrec(PAPER)
    trainer = Trainer(method, TrainingConfig(learning_rate=0.1), lambda encoder: {})
    batch = batch_of(method)
    stale = values(method.augmenter_terms(method.views(batch.history, generator())))
    updates = method.updates(batch, generator())
    trainer._step(*next(updates))
    group, terms = next(updates)
    assert group == "augmenters"
    fresh = values(method.augmenter_terms(method.views(batch.history, generator())))
    assert values(terms) == fresh
    assert values(terms)["learned"] != pytest.approx(stale["learned"], rel=1e-3)


def test_the_augmenters_update_computes_no_gradient_of_the_encoder() -> None:
    method = mclrec(PAPER, dropout=0.2)
    terms = method.augmenter_terms(method.views(batch_of(method).history, generator()))
    total = torch.stack(list(terms.values())).sum()
    of_encoder = torch.autograd.grad(total, list(method.encoder.parameters()), allow_unused=True, retain_graph=True)
    assert all(one is None for one in of_encoder)
    of_augmenters = torch.autograd.grad(total, list(method.augmenters.parameters()))
    assert all(bool(one.abs().sum() > 0) for one in of_augmenters)


def test_every_update_encodes_with_fresh_dropout() -> None:
    method = mclrec(PAPER, dropout=0.5)
    views = method.views(batch_of(method).history, generator())
    assert values(method.augmenter_terms(views)) != values(method.augmenter_terms(views))
    method.eval()
    assert values(method.augmenter_terms(views)) == values(method.augmenter_terms(views))


def test_views_are_drawn_once_per_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    method, read = mclrec(RELEASED), []

    def remember(seqs: Sequences) -> Tensor:
        read.append(seqs.to_lists())
        return type(method.encoder).forward(method.encoder, seqs)

    monkeypatch.setattr(method.encoder, "forward", remember)
    batch = batch_of(method)
    updates = list(method.updates(batch, generator()))
    assert [group for group, _ in updates] == ["encoder", "augmenters", "encoder"]
    drawn = concatenate(method.views(batch.history, generator())).to_lists()
    history = batch.history.to_lists()
    assert read == [history + drawn, drawn, history + drawn]


def test_views_are_made_by_two_different_operators_with_the_ratios_of_the_settings() -> None:
    method = mclrec({"crop": 0.6, "mask": 0.4, "reorder": 0.0})
    history = Sequences.from_lists([[1, 2, 3, 4, 5]] * 600)
    first, second = (view.to_lists() for view in method.views(history, generator()))
    kinds = set()
    for pair in zip(first, second, strict=True):
        kind = tuple("crop" if len(v) == 3 else "mask" if v.count(N_ITEMS + 1) == 2 else "reorder" for v in pair)
        kinds.add(kind)
    assert kinds == {(a, b) for a in ("crop", "mask", "reorder") for b in ("crop", "mask", "reorder") if a != b}


# Variants


def updates_of(settings: dict[str, Any]) -> list[tuple[str, set[str]]]:
    method = mclrec(settings)
    return [(group, set(terms)) for group, terms in method.updates(batch_of(method), generator())]


def test_the_variants_have_the_terms_that_they_keep() -> None:
    assert updates_of(PAPER) == [
        ("encoder", {"next_item", "contrast", "learned", "margin"}),
        ("augmenters", {"learned", "margin"}),
    ]
    without_contrast = updates_of(PAPER | {"contrast": 0.0})
    assert without_contrast == [("encoder", {"next_item", "learned", "margin"}), ("augmenters", {"learned", "margin"})]
    assert updates_of(PAPER | {"learned": 0.0}) == [("all", {"next_item", "contrast"})]
    without_margin = updates_of(RELEASED | {"margin": 0.0})
    assert without_margin == [
        ("encoder", {"next_item", "contrast", "learned"}),
        ("augmenters", {"learned"}),
        ("encoder", {"next_item", "contrast", "learned"}),
    ]
    assert updates_of(PAPER | {"joint": True}) == [("all", {"next_item", "contrast", "learned", "margin"})]


def test_without_the_learned_contrast_there_are_no_augmenters() -> None:
    method = mclrec(PAPER | {"learned": 0.0})
    names = {name.split(".")[0] for name, _ in method.named_parameters()}
    assert names == {"encoder"}
    assert list(method.groups()) == ["all"]


def test_a_shared_augmenter_makes_both_learned_views() -> None:
    method = mclrec(PAPER | {"shared_augmenter": True, "contrast": 0.0})
    assert len(method.augmenters) == 1
    views = method.views(batch_of(method).history, generator())
    learned, margin = learned_twin(method, views)
    assert values(method.augmenter_terms(views)) == pytest.approx({"learned": learned, "margin": 0.05 * margin})
    same = (views[0], views[0])
    h = method.encoder(views[0]).detach()
    z = augment(method, 0, h).detach()
    assert method.augmenter_terms(same)["learned"].item() == pytest.approx(con(z, z) + 2 * con(h, z))


def test_joint_training_moves_everything_by_equation_14_in_one_update() -> None:
    method, staged = mclrec(PAPER | {"joint": True}), mclrec(PAPER)
    ((group, terms),) = method.updates(batch_of(method), generator())
    assert group == "all"
    assert values(terms) == values(next(staged.updates(batch_of(staged), generator()))[1])
    trainer = Trainer(method, TrainingConfig(), lambda encoder: {})
    before = {name: one.detach().clone() for name, one in method.named_parameters()}
    trainer._step(group, terms)
    moved = {name.split(".")[0] for name, one in method.named_parameters() if not torch.equal(one, before[name])}
    assert moved == {"encoder", "augmenters"}


def test_joint_training_with_a_second_encoder_update_is_refused() -> None:
    with pytest.raises(ValueError, match="set encoder_steps to 1, found 2"):
        mclrec(RELEASED | {"joint": True})


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "sampled_softmax", "gbce"])
def test_the_next_item_loss_is_a_choice(loss: str) -> None:
    method = mclrec(PAPER | {"loss": loss, "negatives": 3})
    batch = batch_of(method)
    views = method.views(batch.history, generator())
    sampled = method.encoder_terms(batch, views, generator())
    full = mclrec(PAPER).encoder_terms(batch, views, generator())
    assert sampled["next_item"].item() != pytest.approx(full["next_item"].item(), rel=1e-3)
    assert values(sampled)["learned"] == pytest.approx(values(full)["learned"])
    assert all(bool(term.isfinite()) for term in sampled.values())
