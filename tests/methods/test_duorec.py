"""DuoRec term by term, against its equations on a tiny batch."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.data.train_set import Batch, Instances, TrainSet
from conseq.encoders.sasrec import SASRec, SASRecConfig
from conseq.methods.duorec import DuoRec, DuoRecConfig, Pairs

N_ITEMS = 9
LISTS = [[1, 2, 3, 4], [6, 7, 8, 4], [2, 4, 6], [9, 1, 5, 3], [5, 6]]
both_ways = pytest.mark.parametrize("instances", ["prefixes", "whole"])
every_mode = pytest.mark.parametrize("pairs", ["cross", "both", "unsupervised", "supervised"])


def make(config: DuoRecConfig, instances: Instances = "prefixes", dropout: float = 0.0) -> tuple[DuoRec, Batch]:
    train = TrainSet(Sequences.from_lists(LISTS), torch.arange(5), N_ITEMS, instances=instances, max_length=6)
    torch.manual_seed(0)
    backbone = SASRecConfig(width=8, layers=2, heads=2, max_length=6, dropout=dropout, attention_dropout=0.0)
    method = DuoRec(config, train, backbone)
    with torch.no_grad():
        method.encoder.items.weight.mul_(20)  # scores far enough apart for the terms to differ
    return method, train.batch(torch.arange(len(train)))


def rng(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vectors(method: DuoRec, histories: Sequences) -> list[Tensor]:
    """The last state of each history, encoded on its own."""
    assert isinstance(method.encoder, SASRec)
    return [method.encoder.states(Sequences.from_lists([row]))[-1].detach() for row in histories.to_lists()]


def slow_contrast(a: list[Tensor], b: list[Tensor], temperature: float, targets: list[int] | None = None) -> float:
    """The paper's regulariser in both directions; examples that share one of the ``targets`` are no negatives."""
    z, half, total = a + b, len(a), 0.0
    for i, anchor in enumerate(z):
        scores = {j: float(anchor @ z[j]) / temperature for j in range(len(z)) if j != i}
        own = (i + half) % len(z)
        kept = [s for j, s in scores.items() if j == own or targets is None or targets[j % half] != targets[i % half]]
        total += math.log(sum(math.exp(s - scores[own]) for s in kept))
    return total / len(z)


def slow_terms(method: DuoRec, batch: Batch, targets: list[int] | None = None) -> dict[str, float]:
    """Without dropout a dropout view is the history itself."""
    c = method.config
    users = vectors(method, batch.history)
    semantic = None if method.same_target is None else vectors(method, method.same_target(batch, rng()))
    terms = {}
    if c.pairs in {"both", "unsupervised"}:
        terms["unsupervised"] = c.unsupervised * slow_contrast(users, users, c.temperature, targets)
    if semantic is not None:
        terms["supervised"] = c.supervised * slow_contrast(users, semantic, c.temperature, targets)
    return terms


@both_ways
@every_mode
def test_the_contrasts_are_the_papers_sums(pairs: Pairs, instances: Instances) -> None:
    config = DuoRecConfig(pairs=pairs, unsupervised=0.3, supervised=0.2, temperature=0.7)
    method, batch = make(config, instances)
    found = {name: term.item() for name, term in method.loss(batch, rng()).items()}
    found.pop("next_item")
    assert found == pytest.approx(slow_terms(method, batch), abs=1e-5)


@both_ways
@every_mode
def test_the_next_item_is_learned_by_full_softmax_from_the_history(pairs: Pairs, instances: Instances) -> None:
    method, batch = make(DuoRecConfig(pairs=pairs), instances)
    weight, total = method.encoder.items.weight.detach(), 0.0
    for place, target in zip(batch.at.tolist(), batch.next_ids.tolist(), strict=True):
        start = int(batch.history.offsets[batch.history.rows[place]])
        (state,) = vectors(method, Sequences.from_lists([batch.history.ids[start : place + 1].tolist()]))
        scores = [float(state @ weight[item]) for item in range(1, N_ITEMS + 1)]
        total += math.log(sum(math.exp(s - scores[target - 1]) for s in scores))
    assert method.loss(batch, rng())["next_item"].item() == pytest.approx(total / len(batch.at), abs=1e-5)


@both_ways
@every_mode
def test_histories_with_the_same_target_can_be_left_out_of_the_negatives(pairs: Pairs, instances: Instances) -> None:
    config = DuoRecConfig(pairs=pairs, unsupervised=1.0, supervised=1.0, temperature=5.0, remove_same_target=True)
    method, batch = make(config, instances)
    found = {name: term.item() for name, term in method.loss(batch, rng()).items()}
    found.pop("next_item")
    assert found == pytest.approx(slow_terms(method, batch, batch.targets.tolist()), abs=1e-5)
    assert found != pytest.approx(slow_terms(method, batch), abs=1e-4)


@pytest.mark.parametrize(
    ("pairs", "names", "passes"),
    [
        ("cross", ["next_item", "supervised"], 3),
        ("both", ["next_item", "unsupervised", "supervised"], 3),
        ("unsupervised", ["next_item", "unsupervised"], 2),
        ("supervised", ["next_item", "supervised"], 2),
    ],
)
def test_each_kind_of_pair_has_its_terms_and_all_is_encoded_in_one_pass(
    pairs: Pairs, names: list[str], passes: int
) -> None:
    method, batch = make(DuoRecConfig(pairs=pairs))
    sizes: list[int] = []
    method.encoder.register_forward_hook(lambda module, args, out: sizes.append(len(args[0])))
    assert list(method.loss(batch, rng())) == names
    assert sizes == [passes * len(batch)]


def dropout_passes(method: DuoRec, batch: Batch, seed: int) -> dict[str, list[Tensor]]:
    """Every pass over the batch that the loss makes after ``seed``, made again with the same dropout masks."""
    assert isinstance(method.encoder, SASRec)
    views = {}
    if method.config.pairs != "supervised":
        views["dropped"] = batch.history.to_lists()
    if method.same_target is not None:
        views["semantic"] = method.same_target(batch, rng()).to_lists()
    rows = [row for view in views.values() for row in view]
    torch.manual_seed(seed)
    if batch.at_last:
        vectors = method.encoder(Sequences.from_lists([*batch.history.to_lists(), *rows]))
    else:
        users = method.encoder.states(batch.history)[batch.history.last]
        vectors = torch.cat([users, method.encoder(Sequences.from_lists(rows))])
    passes = vectors.detach().chunk(1 + len(views))
    return {name: list(found) for name, found in zip(["users", *views], passes, strict=True)}


CONTRASTED: dict[Pairs, dict[str, tuple[str, str]]] = {
    "cross": {"supervised": ("dropped", "semantic")},
    "both": {"unsupervised": ("users", "dropped"), "supervised": ("users", "semantic")},
    "unsupervised": {"unsupervised": ("users", "dropped")},
    "supervised": {"supervised": ("users", "semantic")},
}


@both_ways
@every_mode
def test_each_term_contrasts_its_own_two_passes(pairs: Pairs, instances: Instances) -> None:
    """Only with dropout is the pass that predicts another one than the dropout view."""
    config = DuoRecConfig(pairs=pairs, unsupervised=1.0, supervised=1.0)
    method, batch = make(config, instances, dropout=0.5)
    method.train()
    torch.manual_seed(1)
    found = {name: term.item() for name, term in method.loss(batch, rng()).items()}
    passes = dropout_passes(method, batch, 1)
    found.pop("next_item")
    assert set(found) == set(CONTRASTED[pairs])
    for name, right in CONTRASTED[pairs].items():
        sums = {(a, b): slow_contrast(passes[a], passes[b], 1.0) for a, b in combinations(passes, 2)}
        assert found[name] == pytest.approx(sums.pop(right), abs=1e-4)
        assert all(found[name] != pytest.approx(other, abs=1e-2) for other in sums.values())


def test_the_weights_scale_their_terms_and_nothing_else() -> None:
    heavy, batch = make(DuoRecConfig(pairs="both", unsupervised=2.0, supervised=0.0))
    light, _ = make(DuoRecConfig(pairs="both", unsupervised=1.0, supervised=3.0))
    one, other = heavy.loss(batch, rng()), light.loss(batch, rng())
    assert one["next_item"].item() == other["next_item"].item()
    assert one["unsupervised"].item() == pytest.approx(2 * other["unsupervised"].item())
    assert one["supervised"].item() == 0
    assert other["supervised"].item() > 0


def test_only_a_supervised_view_needs_the_index_of_targets() -> None:
    assert make(DuoRecConfig(pairs="unsupervised"))[0].same_target is None
    assert make(DuoRecConfig())[0].same_target is not None
