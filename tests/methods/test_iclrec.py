"""ICLRec: each term beside the paper's sums, each variant, the E-step and its state."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conseq.config import parse, to_json
from conseq.data.sequences import Sequences
from conseq.data.train_set import Batch, Instances, TrainSet
from conseq.encoders.sasrec import SASRecConfig
from conseq.methods.iclrec import ICLRec, ICLRecConfig
from conseq.methods.method import Terms
from conseq.methods.next_item import NextItem, NextItemConfig
from conseq.signals.clusters import k_means
from conseq.training.config import TrainingConfig
from conseq.training.trainer import Stopped, Trainer

N_ITEMS = 30
LENGTH = 8
CALM = SASRecConfig(width=8, layers=1, heads=1, max_length=LENGTH, dropout=0.0, attention_dropout=0.0, positions="end")
LIVELY = SASRecConfig(width=8, layers=1, heads=1, max_length=LENGTH, dropout=0.3, attention_dropout=0.3)


def lists(n_users: int = 40) -> list[list[int]]:
    rng = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 15, (n_users,), generator=rng).tolist()
    rows = [torch.randint(1, N_ITEMS + 1, (n,), generator=rng).tolist() for n in lengths]
    return [*rows, [5]]  # a user who is never trained on


def train_set(instances: Instances = "whole", *, windows: bool = False) -> TrainSet:
    rows = lists()
    users = torch.arange(len(rows)) + 100
    return TrainSet(Sequences.from_lists(rows), users, N_ITEMS, instances=instances, max_length=LENGTH, windows=windows)


def method(config: ICLRecConfig, train: TrainSet | None = None, backbone: SASRecConfig = CALM) -> ICLRec:
    torch.manual_seed(3)
    made = ICLRec(config, train or train_set(), backbone)
    with torch.no_grad():
        made.encoder.items.weight.mul_(20)
    return made.eval()


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def e_step(one: ICLRec, epoch: int = 1) -> ICLRec:
    with torch.no_grad():
        one.begin_epoch(epoch, rng())
    return one


def some(one: ICLRec, n: int = 12) -> Batch:
    return one.train_set.batch(torch.arange(n))


def states(one: ICLRec, history: list[int]) -> Tensor:
    return one.encoder.states(Sequences.from_lists([history])).detach().double()


def unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


def value(term: Tensor) -> float:
    return float(term.detach())


def views_of(one: ICLRec, batch: Batch, seed: int) -> list[list[list[int]]]:
    drawn = rng(seed)
    return [one.view(batch.history, drawn).to_lists() for _ in range(2)]


def user_intents(one: ICLRec, batch: Batch, count: int = 0) -> tuple[list[int], list[Tensor]]:
    """Gives the number and the centroid of each example's user, by the nearest centroid to the mean of the states."""
    centroids = one._all_clusters()[count].centroids.double()
    rows = dict(zip((torch.arange(len(lists())) + 100).tolist(), lists(), strict=True))
    ids = []
    for user in batch.users.tolist():
        point = states(one, rows[user][:-1][-LENGTH:]).mean(0)
        ids.append(int((centroids - point).square().sum(1).argmin()))
    return ids, [centroids[i] for i in ids]


def intent_by_loop(views: list[list[Tensor]], ids: list[int], intents: list[Tensor], *, mitigation: bool) -> float:
    """Eqs. 15-17 with lengths 1: views added, the mean over users; a user's own intent is in the denominator."""
    total = 0.0
    for view in views:
        for u, h in enumerate(view):
            kept = [v for v in range(len(ids)) if v == u or not (mitigation and ids[v] == ids[u])]
            bottom = sum(math.exp(float(unit(h) @ unit(intents[v]))) for v in kept)
            # Without another intent in the batch there is nothing to tell apart: log(e^s / e^s) = 0.
            total -= math.log(math.exp(float(unit(h) @ unit(intents[u]))) / bottom)
    return total / len(ids)


def nt_xent_by_loop(
    a: list[Any], b: list[Any], product: Callable[[Any, Any], float], same: Callable[[int, int], bool]
) -> float:
    both, n = [*a, *b], len(a)
    total = 0.0
    for i, x in enumerate(both):
        positive = (i + n) % (2 * n)
        others = [j for j in range(2 * n) if j == positive or (j % n != i % n and not same(i % n, j % n))]
        total -= math.log(math.exp(product(x, both[positive])) / sum(math.exp(product(x, both[j])) for j in others))
    return total / (2 * n)


def dot(x: Tensor, y: Tensor) -> float:
    return float(x @ y)


def aligned(x: Tensor, y: Tensor) -> float:
    return sum(float(p @ q) for p, q in zip(x.flip(0), y.flip(0), strict=False))


@pytest.mark.parametrize(("mitigation", "represent"), [(True, "mean"), (False, "positions")])
@pytest.mark.parametrize("instances", ["whole", "prefixes"])
def test_every_term_is_that_of_the_papers_sums(instances: Instances, mitigation: bool, represent: Any) -> None:
    config = ICLRecConfig(clusters=(4,), mitigation=mitigation, intent=0.5, sequence=0.25, loss="cross_entropy")
    one = e_step(method(dataclasses.replace(config, represent=represent), train_set(instances)))
    batch = some(one)
    found = one.loss(batch, rng(7))
    views = [[states(one, row) for row in view] for view in views_of(one, batch, 7)]
    means = [[row.mean(0) for row in view] for view in views]
    ids, intents = user_intents(one, batch)
    assert len(set(ids)) < len(ids)
    intent = intent_by_loop(means, ids, intents, mitigation=mitigation)
    compared: tuple[Any, Any] = (means, dot) if represent == "mean" else (views, aligned)
    (first, second), product = compared
    sequence = 2 * nt_xent_by_loop(first, second, product, lambda i, j: False)  # eq. 5 adds the two directions
    plain = NextItem(NextItemConfig(loss="cross_entropy"), one.train_set, CALM)
    plain.encoder.load_state_dict(one.encoder.state_dict())
    assert list(found) == ["next_item", "intent", "sequence"]
    assert value(found["next_item"]) == pytest.approx(value(plain.eval().loss(batch, rng())["next_item"]), abs=1e-6)
    assert value(found["intent"]) == pytest.approx(0.5 * intent, abs=1e-6)
    assert value(found["sequence"]) == pytest.approx(0.25 * sequence, rel=1e-6)


def test_the_authors_contrast_has_all_pairs_and_views_of_any_length() -> None:
    config = ICLRecConfig(
        clusters=(4,), intent=1.0, sequence=0.0, against="all", normalise="centroids", directions="mean"
    )
    for mitigation in (True, False):
        one = e_step(method(dataclasses.replace(config, mitigation=mitigation)))
        batch = some(one)
        found = value(one.loss(batch, rng(7))["intent"])
        ids, intents = user_intents(one, batch)
        targets = [unit(intent) for intent in intents]
        losses = [
            nt_xent_by_loop(
                [states(one, row).mean(0) for row in view],
                targets,
                dot,
                lambda i, j: mitigation and ids[i] == ids[j],  # noqa: B023
            )
            for view in views_of(one, batch, 7)
        ]
        assert found == pytest.approx(sum(losses) / 2, rel=1e-5)


@pytest.mark.parametrize("represent", ["mean", "positions"])
def test_the_mean_of_directions_is_half_of_their_sum_in_both_contrasts(represent: Any) -> None:
    terms = {}
    for directions in ("sum", "mean"):
        config = ICLRecConfig(clusters=(4, 6), represent=represent, directions=directions)
        one = e_step(method(config))
        terms[directions] = {name: value(term) for name, term in one.loss(some(one), rng(7)).items()}
    for name, times in {"next_item": 1, "intent": 2, "sequence": 2}.items():
        assert terms["sum"][name] == pytest.approx(times * terms["mean"][name], rel=1e-6)


def test_mitigation_spares_users_of_the_same_intent() -> None:
    """Moving a user's view nearer to the intent of one who shares his own intent changes nothing else's share."""
    one = method(ICLRecConfig(clusters=(3,)))
    views = [torch.randn(5, 8, generator=rng(1)), torch.randn(5, 8, generator=rng(2))]
    intents = torch.randn(3, 8, generator=rng(3))
    ids = torch.tensor([0, 0, 0, 0, 1])
    with_them = one.intent_contrast(views, iter([(intents[ids], ids)]))
    pairs = [float(unit(view[row]) @ (unit(intents[1]) - unit(intents[0]))) for view in views for row in range(4)]
    alone = [float(unit(view[4]) @ (unit(intents[0]) - unit(intents[1]))) for view in views]
    expected = sum(math.log1p(math.exp(gap)) for gap in pairs) + sum(math.log1p(4 * math.exp(gap)) for gap in alone)
    assert float(with_them) == pytest.approx(expected / 5, abs=1e-6)


def test_several_numbers_of_clusters_are_averaged() -> None:
    terms = {}
    for clusters in ((3,), (6,), (3, 6)):
        one = e_step(method(ICLRecConfig(clusters=clusters, sequence=0.0)))
        for index, count in enumerate(clusters):
            assert len(one._all_clusters()[index]) == count
        if clusters == (6,):  # the seed of the second number of clusters
            drawn = rng()
            torch.randint(2**31 - 1, (), generator=drawn)
            with torch.no_grad():
                one.begin_epoch(1, drawn)
        terms[clusters] = value(one.loss(some(one), rng(7))["intent"])
    assert terms[3, 6] == pytest.approx((terms[3,] + terms[6,]) / 2, abs=1e-6)
    assert terms[3,] != pytest.approx(terms[6,], abs=1e-4)


@pytest.mark.parametrize("instances", ["whole", "prefixes"])
def test_the_e_step_clusters_the_mean_states_of_what_is_read_of_every_user(instances: Instances) -> None:
    one = e_step(method(ICLRecConfig(clusters=(5,)), train_set(instances)))
    histories = [row[:-1][-LENGTH:] for row in lists() if len(row) > 1]
    points = torch.stack([states(one, row).mean(0) for row in histories]).float()
    seed = int(torch.randint(2**31 - 1, (), generator=rng()))
    clusters = one._all_clusters()[0]
    assert torch.allclose(clusters.centroids, k_means(points, 5, seed=seed), atol=1e-4)
    assert len(clusters.ids) == len(histories)


@pytest.mark.parametrize(("instances", "windows"), [("whole", False), ("whole", True), ("prefixes", True)])
def test_every_example_has_the_intent_of_its_user(instances: Instances, windows: bool) -> None:
    one = e_step(method(ICLRecConfig(clusters=(6,)), train_set(instances, windows=windows)))
    batch = one.train_set.batch(torch.arange(len(one.train_set)).flip(0))
    (vectors, ids), *none = one.intents(batch, torch.zeros(0))
    expected, intents = user_intents(one, batch)
    assert not none
    assert ids is not None
    assert ids.tolist() == expected
    assert torch.allclose(vectors.double(), torch.stack(intents))


def test_an_assignment_in_the_batch_reads_the_states_of_the_moment() -> None:
    one = e_step(method(ICLRecConfig(clusters=(6,), assignment="batch")))
    batch = some(one)
    before = one._all_clusters()[0].ids.clone()
    with torch.no_grad():
        one.encoder.items.weight.copy_(one.encoder.items.weight.roll(5, 0))
    now = one.encoder.states(batch.history)
    ((_, ids),) = one.intents(batch, now)
    means = [part.mean(0) for part in torch.split(now, batch.history.lengths.tolist())]
    expected = one._all_clusters()[0].assign(torch.stack(means))
    assert ids is not None
    assert torch.equal(ids, expected)
    assert torch.equal(one._all_clusters()[0].ids, before)
    assert not torch.equal(ids, before[: len(ids)])


def names(config: ICLRecConfig) -> list[str]:
    one = e_step(method(config))
    return list(one.loss(some(one), rng()))


def test_a_term_without_weight_is_not_there() -> None:
    assert names(ICLRecConfig(clusters=(4,), sequence=0.0)) == ["next_item", "intent"]
    assert names(ICLRecConfig(clusters=(4,), intent=0.0)) == ["next_item", "sequence"]
    assert names(ICLRecConfig(clusters=(4,), intent=0.0, sequence=0.0)) == ["next_item"]


def test_without_the_intent_term_nothing_is_clustered() -> None:
    one = method(ICLRecConfig(intent=0.0))
    drawn = rng()
    one.begin_epoch(1, drawn)
    assert torch.equal(drawn.get_state(), rng().get_state())
    assert not list(one.clusters)


@pytest.mark.parametrize("instances", ["whole", "prefixes"])
def test_with_no_weights_it_is_next_item_training(instances: Instances) -> None:
    train = train_set(instances)
    one = method(ICLRecConfig(intent=0.0, sequence=0.0), train)
    torch.manual_seed(0)
    plain = NextItem(NextItemConfig(loss="binary_cross_entropy"), train, CALM).eval()
    plain.encoder.load_state_dict(one.encoder.state_dict())
    batch = some(one)
    ours, theirs = one.loss(batch, rng(4))["next_item"], plain.loss(batch, rng(4))["next_item"]
    assert torch.equal(ours, theirs)


def test_until_its_first_epoch_the_intent_is_missing_and_then_it_stays() -> None:
    one = method(ICLRecConfig(clusters=(4,), intents_from=3))
    for epoch, expected in ((1, False), (2, False), (3, True), (4, True)):
        e_step(one, epoch)
        assert ("intent" in one.loss(some(one), rng())) == expected


def test_without_augmentation_both_views_are_the_history() -> None:
    one = e_step(method(ICLRecConfig(clusters=(4,), augment=False, sequence=0.0, intent=1.0)))
    batch = some(one)
    ids, intents = user_intents(one, batch)
    means = [states(one, row).mean(0) for row in batch.history.to_lists()]
    expected = intent_by_loop([means, means], ids, intents, mitigation=True)
    assert value(one.loss(batch, rng(7))["intent"]) == pytest.approx(expected, abs=1e-6)


def record(monkeypatch: pytest.MonkeyPatch, one: ICLRec, name: str, place: int, given: dict[str, Any]) -> None:
    """Lets a function of the method note down one of the arguments that it is given."""
    function = getattr(one, name)

    def noting(*arguments: Any) -> Any:
        given[name] = arguments[place]
        return function(*arguments)

    monkeypatch.setattr(one, name, noting)


@pytest.mark.parametrize("contrast", ["intent_contrast", "sequence_contrast"])
def test_without_augmentation_dropout_parts_the_views_from_each_other_and_from_the_history(
    contrast: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variant (E) of Table 2 has no other difference between its two views."""
    config = ICLRecConfig(clusters=(4,), augment=False, sequence=0.0 if contrast == "intent_contrast" else 0.1)
    one = e_step(method(config, backbone=LIVELY)).train()
    batch = some(one)
    given: dict[str, Any] = {}
    for name, place in ((contrast, 0), ("intents", 1)):
        record(monkeypatch, one, name, place, given)
    one.loss(batch, rng())
    (first, second), history = given[contrast], given["intents"]
    if contrast == "intent_contrast":
        history = torch.stack([part.mean(0) for part in torch.split(history, batch.history.lengths.tolist())])
    for a, b in itertools.combinations([first, second, history], 2):
        assert a.shape == b.shape
        assert not torch.isclose(a, b, atol=1e-3).all(1).any()


def test_the_gradient_of_the_intent_moves_the_encoder_and_no_centroid() -> None:
    one = e_step(method(ICLRecConfig(clusters=(4,))))
    assert {name.split(".")[0] for name, _ in one.named_parameters()} == {"encoder"}
    torch.autograd.backward(one.loss(some(one), rng())["intent"])
    gradient = one.encoder.items.weight.grad
    assert gradient is not None
    assert float(gradient.abs().sum()) > 0


def test_the_same_generators_give_the_same_terms() -> None:
    def terms(seed: int) -> Terms:
        one = e_step(method(ICLRecConfig(clusters=(4,)), backbone=LIVELY)).train()
        torch.manual_seed(1)
        return one.loss(some(one), rng(seed))

    one, again, other = terms(0), terms(0), terms(1)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert all(not torch.equal(one[name], other[name]) for name in ("intent", "sequence"))


@pytest.mark.parametrize("instances", ["whole", "prefixes"])
@pytest.mark.parametrize(
    ("assignment", "warm_start", "padding"),
    [("e_step", False, "none"), ("batch", True, "none"), ("batch", True, "data")],
)
def test_a_run_resumed_inside_an_epoch_ends_bit_identical(
    instances: Instances, assignment: Any, warm_start: bool, padding: Any, tmp_path: Path
) -> None:
    config = ICLRecConfig(clusters=(3, 5), assignment=assignment, warm_start=warm_start, restarts=2, padding=padding)
    backbone = dataclasses.replace(LIVELY, positions="end")
    size = 10 if instances == "whole" else 80
    training = TrainingConfig(epochs=2, batch_size=size, patience=None, instances=instances)

    def trainer(folder: Path | None) -> Trainer:
        one = method(config, train_set(instances), backbone)
        return Trainer(one, training, lambda encoder: {"NDCG@20": 0.0}, folder=folder)

    torch.manual_seed(5)
    whole = trainer(None)
    torch.manual_seed(6)
    whole.fit()
    stopped = trainer(tmp_path)
    torch.manual_seed(6)
    stopped.interrupted = True
    with pytest.raises(Stopped):
        stopped.fit()
    resumed = trainer(tmp_path)
    torch.manual_seed(99)
    assert resumed.resume()
    resumed.fit()
    one, other = whole.method.state_dict(), resumed.method.state_dict()
    assert any(name.endswith("centroids") for name in one)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_settings_survive_a_run_folder() -> None:
    config = ICLRecConfig(categories=Path("data/items.parquet"), clusters=(64, 256), intents_from=3)
    assert parse(ICLRecConfig, to_json(config), source="config.json") == config


@pytest.mark.parametrize("clusters", [1, 2, 256])
def test_a_tiny_log_gives_finite_terms_and_gradients(clusters: int) -> None:
    users = Sequences.from_lists([[1, 2], [3, 4], [5, 6]])
    train = TrainSet(users, torch.arange(3), N_ITEMS, instances="prefixes", max_length=LENGTH)
    one = e_step(method(ICLRecConfig(clusters=(clusters,)), train)).train()
    terms = one.loss(train.batch(torch.arange(3)), rng())
    assert set(terms) == {"next_item", "intent", "sequence"}
    torch.autograd.backward(torch.stack(list(terms.values())).sum())
    assert all(bool(torch.isfinite(term)) for term in terms.values())
    assert all(bool(torch.isfinite(p.grad).all()) for p in one.parameters() if p.grad is not None)
    if clusters == 1:
        assert value(terms["intent"]) == 0.0
