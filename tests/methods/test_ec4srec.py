from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.data.train_set import Batch, Instances, TrainSet
from conseq.encoders.caser import CaserConfig
from conseq.encoders.gru4rec import GRU4RecConfig
from conseq.encoders.sasrec import SASRecConfig
from conseq.methods.ec4srec import EC4SRec, EC4SRecConfig, update_epochs
from conseq.methods.method import Terms
from conseq.nn.dropout import Dropout
from conseq.signals.importance import Importance
from conseq.training.config import TrainingConfig
from conseq.training.trainer import Stopped, Trainer

N_ITEMS = 12
LENGTH = 8

CALM = SASRecConfig(width=16, heads=2, max_length=LENGTH, dropout=0.0, attention_dropout=0.0)
BACKBONES: dict[str, Any] = {
    "sasrec": CALM,
    "gru4rec": GRU4RecConfig(width=16, max_length=LENGTH, dropout=0.0),
    "caser": CaserConfig(width=16, dropout=0.0),
}

ROWS = [[1, 2, 3, 4, 5], [2, 3, 4, 9, 5], [7, 8, 1, 5], [3, 9, 1, 2, 4, 6, 7, 10, 11, 12], [6, 12, 5], [8, 4]]


def examples(instances: Instances = "prefixes", rows: list[list[int]] | None = None) -> TrainSet:
    rows = rows or ROWS
    users = torch.arange(len(rows))
    return TrainSet(Sequences.from_lists(rows), users, N_ITEMS, instances=instances, max_length=LENGTH)


def made(backbone: str = "sasrec", instances: Instances = "prefixes", **settings: Any) -> EC4SRec:
    torch.manual_seed(0)
    one = EC4SRec(EC4SRecConfig(**settings), examples(instances), BACKBONES[backbone])
    with torch.no_grad():
        one.encoder.items.weight.mul_(20)
    return one.double()


def everything(one: EC4SRec) -> Batch:
    return one.train_set.batch(torch.arange(len(one.train_set)))


def longest(one: EC4SRec, count: int) -> Batch:
    """The example with the longest history, many times."""
    train = one.train_set
    return train.batch(torch.full((count,), int((train.end - train.start).argmax())))


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def sim(a: Tensor, b: Tensor) -> float:
    return math.exp(float(a @ b))


def next_item_by_hand(one: EC4SRec, batch: Batch) -> float:
    total = 0.0
    items = one.encoder.items.candidates
    for row in range(len(batch)):
        history = Sequences.from_lists([batch.history.to_lists()[row]])
        scores = one.encoder(history)[0] @ items.T
        total -= float(scores.log_softmax(0)[int(batch.targets[row]) - 1])
    return total / len(batch)


def one_direction(first: Tensor, second: Tensor, tau: float) -> float:
    """Eq. 3 and L_cl+: the first view as the anchor, both views of all others as negatives."""
    total = 0.0
    for u in range(len(first)):
        own = sim(first[u], second[u] / tau)
        others = sum(
            sim(first[u], first[v] / tau) + sim(first[u], second[v] / tau) for v in range(len(first)) if v != u
        )
        total -= math.log(own / (own + others))
    return total / len(first)


def both_directions(users: Tensor, retrieved: Tensor, tau: float) -> float:
    """Eqs. 4 and 8: each of both is an anchor once."""
    return one_direction(users, retrieved, tau) + one_direction(retrieved, users, tau)


def apart(negative: Tensor, positives: Tensor, tau: float, *, crowd: bool = False) -> float:
    """L_cl-: each denominator holds all positive views and one negative view (with crowd: all others)."""
    total, n = 0.0, len(negative)
    for u in range(n):
        fixed = sum(sim(negative[u], p / tau) for p in positives)
        for v in range(n):
            if v != u:
                own = sim(negative[u], negative[v] / tau)
                near = sum(sim(negative[u], negative[w] / tau) for w in range(n) if w != u) if crowd else own
                total -= math.log(own / (near + fixed)) / (n - 1)
    return total / n


def views_of(one: EC4SRec, batch: Batch, *, explained: bool) -> tuple[Tensor, ...]:
    """The vectors of the views that the method draws, drawn in its order from the same generator."""
    draws = rng()
    if explained:
        first, second = one.positive_views(batch, draws)
        views = [first, second, one.negative_view(batch, draws), one.retrieved(batch, draws)]
    else:
        views = [*one.random_views(batch.history, draws), one.same_target(batch, draws)]
    return tuple(one.encoder(view) for view in (batch.history, *views))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(("tau", "negative_tau"), [(1.0, None), (0.5, 0.1)])
def test_the_loss_after_an_update_is_equation_9(backbone: str, tau: float, negative_tau: float | None) -> None:
    one = made(
        backbone,
        positive_views=0.3,
        negative_views=0.2,
        supervised=0.4,
        temperature=tau,
        negative_temperature=negative_tau,
    )
    one.importance.refresh(one.encoder)
    batch = everything(one)
    with torch.no_grad():
        terms = one.loss(batch, rng())
        users, first, second, negative, retrieved = views_of(one, batch, explained=True)
        expected = {
            "next_item": next_item_by_hand(one, batch),
            "positive_views": 0.3 * one_direction(first, second, tau),
            "negative_views": 0.2 * apart(negative, torch.cat([first, second]), negative_tau or tau),
            "supervised": 0.4 * both_directions(users, retrieved, tau),
        }
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_loss_before_the_first_update_is_cl4srecs_and_duorecs(backbone: str) -> None:
    one = made(backbone, contrast=0.3, same_target=0.2, temperature=0.5)
    batch = everything(one)
    with torch.no_grad():
        terms = one.loss(batch, rng())
        users, first, second, retrieved = views_of(one, batch, explained=False)
        expected = {
            "next_item": next_item_by_hand(one, batch),
            "contrast": 0.3 * one_direction(first, second, 0.5),
            "same_target": 0.2 * both_directions(users, retrieved, 0.5),
        }
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(expected, rel=1e-6)


def test_the_authors_losses_have_two_anchors_per_pair_and_a_crowd_of_negatives() -> None:
    one = made(both_ways=True, crowd=True, directions="mean")
    one.importance.refresh(one.encoder)
    batch = everything(one)
    with torch.no_grad():
        terms = one.loss(batch, rng())
        users, first, second, negative, retrieved = views_of(one, batch, explained=True)
    mean_of_both = {
        "positive_views": both_directions(first, second, 1.0) / 2,
        "supervised": both_directions(users, retrieved, 1.0) / 2,
    }
    for name, expected in mean_of_both.items():
        assert float(terms[name]) == pytest.approx(0.1 * expected, rel=1e-6)
    crowded = apart(negative, torch.cat([first, second]), 1.0, crowd=True)
    assert float(terms["negative_views"]) == pytest.approx(0.1 * crowded, rel=1e-6)


def test_a_second_pass_has_a_dropout_mask_of_its_own() -> None:
    settings: dict[str, Any] = {"positive_views": 0.0, "negative_views": 0.0, "retrieval": "uniform"}
    losses = []
    for second_pass in (False, True):
        one = made(**settings, second_pass=second_pass)
        one.importance.put(torch.ones(len(one.importance.scores)))
        with torch.no_grad():
            calm = one.loss(everything(one), rng())["supervised"]
            dropout = one.encoder.get_submodule("dropout")
            assert isinstance(dropout, Dropout)
            dropout.p = 0.5
            torch.manual_seed(1)
            losses.append((float(calm), float(one.loss(everything(one), rng())["supervised"])))
    (without, with_dropout), (without_again, with_dropout_again) = losses
    assert without == pytest.approx(without_again, rel=1e-12)
    assert with_dropout != pytest.approx(with_dropout_again, rel=1e-3)


BEFORE = {"contrast": "contrast", "same_target": "same_target"}
AFTER = {"positive_views": "positive_views", "negative_views": "negative_views", "supervised": "supervised"}


@pytest.mark.parametrize("removed", [*BEFORE, *AFTER])
def test_a_weight_of_zero_removes_its_term_and_no_other(removed: str) -> None:
    for ready, names in ((False, BEFORE), (True, AFTER)):
        settings: dict[str, Any] = {removed: 0.0}
        one = made(**settings)
        if ready:
            one.importance.refresh(one.encoder)
        terms = one.loss(everything(one), rng())
        assert set(terms) == {"next_item", *names.values()} - {removed}


def test_without_any_contrast_only_the_next_item_is_left() -> None:
    settings: dict[str, Any] = dict.fromkeys([*BEFORE, *AFTER], 0.0)
    one = made(**settings)
    assert set(one.loss(everything(one), rng())) == {"next_item"}
    one.importance.refresh(one.encoder)
    assert set(one.loss(everything(one), rng())) == {"next_item"}


@pytest.mark.parametrize("removed", ["crop", "mask", "reorder"])
def test_a_removed_operator_makes_no_view(removed: str) -> None:
    left = tuple(name for name in ("crop", "mask", "reorder") if name != removed)
    one = made(operators=left, unimportant=0.5)
    one.importance.refresh(one.encoder)
    batch = longest(one, 200)
    history = batch.history.to_lists()[0]
    kinds = set()
    for views in (one.positive_views(batch, rng()), one.random_views(batch.history, rng())):
        for view in views:
            for row in view.to_lists():
                masked = one.encoder.items.mask_id in row
                kinds.add("mask" if masked else "crop" if len(row) < len(history) else "reorder")
    assert kinds == set(left)


def test_the_two_positive_views_come_from_different_operators() -> None:
    one = made(unimportant=0.5)
    one.importance.refresh(one.encoder)
    batch = longest(one, 300)
    for first, second in zip(*(view.to_lists() for view in one.positive_views(batch, rng())), strict=True):
        masks = [one.encoder.items.mask_id in row for row in (first, second)]
        crops = [len(row) < len(batch.history.to_lists()[0]) for row in (first, second)]
        assert sum(masks) < 2
        assert sum(crops) < 2


def test_one_operator_alone_makes_both_views() -> None:
    one = made(operators=("mask",), unimportant=0.5, explanation="given")
    one.importance.put(torch.zeros(len(one.importance.scores)))  # all alike: the items to mask are drawn
    batch = everything(one)
    first, second = one.positive_views(batch, rng())
    assert first.to_lists() != second.to_lists()
    for view in (first, second):
        masked = (view.ids == one.encoder.items.mask_id).double()
        counts = torch.zeros(len(batch), dtype=torch.float64).index_add(0, view.rows, masked)
        assert torch.equal(counts, (batch.history.lengths // 2).double())


def test_given_importances_decide_what_is_masked() -> None:
    """Oracle masking: only what was said to be unimportant is ever masked."""
    one = made(operators=("mask",), unimportant=0.4, explanation="given", negative_views=0.0, supervised=0.0)
    items = one.train_set.sequences.ids
    important = (items % 2 == 0).float()
    one.importance.put(important)
    batch = one.train_set.batch(torch.arange(10, 16))
    for view in one.positive_views(batch, rng()):
        hidden = batch.history.ids[view.ids == one.encoder.items.mask_id]
        assert len(hidden)
        odd = torch.zeros(len(batch)).index_add(0, batch.history.rows, (batch.history.ids % 2 == 1).float())
        enough = odd >= (batch.history.lengths * 0.4).floor()
        rows = batch.history.rows[view.ids == one.encoder.items.mask_id]
        assert bool((hidden % 2 == 1)[enough[rows]].all())


def test_importances_that_should_be_given_and_are_not_stop_the_run() -> None:
    one = made(explanation="given")
    with pytest.raises(ValueError, match=r"importance.put\(scores\)"):
        one.begin_epoch(1, rng())


def test_updates_happen_at_the_papers_epochs() -> None:
    assert update_epochs(EC4SRecConfig(updates=3, planned_epochs=100)) == (25, 50, 75)
    assert update_epochs(EC4SRecConfig()) == (25, 50, 75, 100, 125)
    assert update_epochs(EC4SRecConfig(updates=1, planned_epochs=150)) == (75,)
    assert update_epochs(EC4SRecConfig(update_epochs=(15, 30))) == (15, 30)
    assert update_epochs(EC4SRecConfig(explanation="given")) == ()
    with pytest.raises(ValueError, match="9 updates do not fit into 9 planned epochs"):
        update_epochs(EC4SRecConfig(updates=9, planned_epochs=9))


@pytest.mark.parametrize("explanation", ["occlusion", "saliency", "integrated_gradients", "attention"])
def test_importances_change_at_updates_and_only_there(explanation: Any) -> None:
    one = made(update_epochs=(2, 4), explanation=explanation, integration_steps=2)
    seen = []
    for epoch in range(1, 6):
        with torch.no_grad():
            one.begin_epoch(epoch, rng())
            one.encoder.items.weight.mul_(1.3)  # as training would
        seen.append((one.importance.ready, one.importance.scores.clone()))
    assert [ready for ready, _ in seen] == [False, True, True, True, True]
    same = [torch.equal(a[1], b[1]) for a, b in itertools.pairwise(seen)]
    assert same == [False, True, False, True]


AWKWARD = {
    "shortest histories": [[1, 2], [3, 4], [5, 6]],
    "one target for all": [[1, 2, 9], [3, 4, 9], [5, 6, 9]],
    "one user many times": [[1, 2, 3, 4, 5, 6, 7]],
    "one item many times": [[8, 8, 8, 8, 8], [8, 8]],
    "two examples": [[1, 2], [3, 4]],
}


@pytest.mark.parametrize("style", ["paper", "released"])
@pytest.mark.parametrize("rows", AWKWARD.values(), ids=AWKWARD)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_explained_loss_of_an_awkward_batch_is_finite(backbone: str, rows: list[list[int]], style: Any) -> None:
    one = EC4SRec(EC4SRecConfig(style=style), examples(rows=rows), BACKBONES[backbone])
    one.importance.refresh(one.encoder)
    terms = one.loss(everything(one), rng())
    assert len(terms) == 4
    total = torch.stack(list(terms.values())).sum()
    assert torch.isfinite(total)
    torch.autograd.backward(total)
    assert all(torch.isfinite(p.grad).all() for p in one.parameters() if p.grad is not None)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_released_run_explains_again_after_it_masked_by_padding(backbone: str) -> None:
    one = EC4SRec(EC4SRecConfig(style="released", update_epochs=(1, 3)), examples(), BACKBONES[backbone])
    training = TrainingConfig(epochs=3, batch_size=8, instances="prefixes", patience=None)
    Trainer(one, training, _no_validation).fit()
    assert not one.encoder.items.weight[0].any()


@pytest.mark.parametrize("instances", ["prefixes", "whole"])
def test_every_instance_trains_and_all_its_next_items_count(instances: Instances) -> None:
    one = made(instances=instances)
    batch = everything(one)
    for _ in range(2):
        terms = one.loss(batch, rng())
        torch.autograd.backward(torch.stack(list(terms.values())).sum())
        one.importance.refresh(one.encoder)
    assert one.encoder.items.weight.grad is not None
    assert bool(one.encoder.items.weight.grad[1:-1].any(1).all())
    assert len(batch.next_ids) == sum(len(row) - 1 for row in ROWS)


def test_the_vectors_of_whole_histories_are_their_last_states() -> None:
    one = made(instances="whole", positive_views=0.0, negative_views=0.0, retrieval="uniform")
    one.importance.put(torch.ones(len(one.importance.scores)))
    batch = everything(one)
    with torch.no_grad():
        found = one.loss(batch, rng())["supervised"]
        retrieved = one.encoder(one.retrieved(batch, rng()))
        expected = 0.1 * both_directions(one.encoder(batch.history), retrieved, 1.0)
    assert float(found) == pytest.approx(expected, rel=1e-6)


def _no_validation(encoder: object) -> dict[str, float]:
    return {"NDCG@20": 0.0}


def _interrupting(trainer: Trainer, epoch: int, batches: int) -> None:
    """Asks the trainer to stop in the middle of an epoch."""
    method, loss = trainer.method, trainer.method.loss
    seen = []

    def counted(batch: Batch, draws: torch.Generator) -> Terms:
        seen.append(trainer.epoch)
        trainer.interrupted = seen.count(epoch) == batches
        out: Terms = loss(batch, draws)
        return out

    method.loss = counted  # type: ignore[assignment,method-assign]


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_run_resumed_in_the_middle_of_any_epoch_ends_bit_identical(epoch: int, tmp_path: Any) -> None:
    """Epoch 2 begins with the first update, epoch 3 has none of its own and reads what the checkpoint holds."""
    config = TrainingConfig(epochs=3, batch_size=6, patience=None)
    dropping = dataclasses.replace(CALM, dropout=0.3, attention_dropout=0.3)

    def fresh() -> EC4SRec:
        torch.manual_seed(0)
        return EC4SRec(EC4SRecConfig(update_epochs=(2,)), examples(), dropping)

    whole = Trainer(fresh(), config, _no_validation)
    whole.fit()
    stopped = Trainer(fresh(), config, _no_validation, folder=tmp_path)
    _interrupting(stopped, epoch, 2)
    with pytest.raises(Stopped) as where:
        stopped.fit()
    assert (where.value.epoch, where.value.batch) == (epoch, 2)
    torch.manual_seed(77)
    resumed = Trainer(fresh(), config, _no_validation, folder=tmp_path)
    resumed.resume()
    assert isinstance(resumed.method, EC4SRec)
    assert resumed.method.importance.ready == (epoch > 1)
    resumed.fit()
    for name, value in whole.method.state_dict().items():
        assert torch.equal(value, resumed.method.state_dict()[name]), name


def test_masking_by_importance_differs_from_random_masking_in_what_it_masks_alone() -> None:
    """The control of the oracle experiment: as many items masked, whichever they are."""
    draws: list[Callable[[Importance], Tensor]] = [
        lambda of: torch.rand(len(of.scores), generator=rng()),
        lambda of: (of.train_set.sequences.ids % 3).float(),
    ]
    counts = []
    for draw in draws:
        one = made(operators=("mask",), explanation="given", unimportant=0.4)
        one.importance.put(draw(one.importance))
        view, _ = one.positive_views(everything(one), rng())
        masked = (view.ids == one.encoder.items.mask_id).double()
        counts.append(torch.zeros(len(view), dtype=torch.float64).index_add(0, view.rows, masked))
    assert torch.equal(counts[0], counts[1])
