from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conseq.data.log import InteractionLog
from conseq.data.sequences import Sequences
from conseq.data.splits import Split, by_user, leave_one_out
from conseq.data.train_set import Batch, TrainSet
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.attentive import Attentive, AttentiveConfig
from conseq.methods.mclsr import MCLSR, MCLSRConfig
from conseq.methods.prediction import Loss, Prediction
from conseq.signals.graphs import Graph

LISTS = [[3, 1, 3, 4], [2, 4], [5, 1, 2, 3], [4, 5, 7], [3, 5, 6], [8, 2, 1]]
USERS = [4, 9, 2, 11, 30, 7]  # rows in the log: neither in order nor without gaps, as in a split by users
N_ITEMS = 9  # item 9 is in no training sequence
SETTINGS = {"negatives": 5, "neighbours": 2, "user_features": 0.3, "item_features": 0.4, "interest": 0.7}


def train_set(lists: list[list[int]] = LISTS, users: list[int] = USERS) -> TrainSet:
    rows = Sequences.from_lists(lists)
    return TrainSet(rows, torch.tensor(users), N_ITEMS, instances="prefixes", max_length=3)


def method(train: TrainSet | None = None, **settings: Any) -> MCLSR:
    torch.manual_seed(0)
    config = MCLSRConfig(**{**SETTINGS, **settings})
    one = MCLSR(config, train or train_set(), AttentiveConfig(width=4, max_length=3)).double()
    for parameter in one.parameters():  # large enough for every part to show
        nn.init.normal_(parameter, std=0.7)
    return one


def whole(one: MCLSR) -> Batch:
    return one.train_set.batch(torch.arange(len(one.train_set)))


def terms(one: MCLSR, seed: int = 0) -> dict[str, float]:
    found = one.loss(whole(one), torch.Generator().manual_seed(seed))
    return {name: float(term.detach()) for name, term in found.items()}


def next_item(one: MCLSR, states: Tensor, rng: torch.Generator) -> Tensor:
    return one.prediction(one.encoder, states, whole(one), rng)


def propagate(x: Tensor, a: Tensor, depth: int) -> Tensor:
    """Gives eq. 1, entry by entry."""
    degree = a.sum(1)
    for _ in range(depth):
        rows = []
        for i in range(len(a)):
            row = torch.zeros_like(x[0])
            for j in range(len(a)):
                if a[i, j]:
                    row = row + a[i, j] / (degree[i].sqrt() * degree[j].sqrt()) * x[j]
            rows.append(row)
        x = torch.stack(rows)
    return x


def bipartite(lists: list[list[int]], *, weighted: bool) -> Tensor:
    n = len(lists)
    a = torch.zeros(n + N_ITEMS + 2, n + N_ITEMS + 2, dtype=torch.float64)
    for user, items in enumerate(lists):
        for item in items:
            a[user, n + item] = a[n + item, user] = items.count(item) if weighted else 1
    return a


def common(groups: list[set[int]], neighbours: int, *, weighted: bool) -> Tensor:
    n = len(groups)
    a = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        others = [j for j in range(n) if j != i and groups[i] & groups[j]]
        ranked = sorted((-len(groups[i] & groups[j]), (j - i) % n, j) for j in others)
        for count, _, j in ranked[:neighbours]:
            a[i, j] = a[j, i] = -count if weighted else 1
    return a


def softmax_mean(logits: list[Tensor], values: list[Tensor]) -> Tensor:
    norm = sum(logit.exp() for logit in logits)
    return torch.stack([logit.exp() / norm * value for logit, value in zip(logits, values, strict=True)]).sum(0)


def project(head: nn.Module, x: Tensor) -> Tensor:
    """Gives eqs. 7 and 10 with ELU."""
    (w1, b1), (w2, b2) = [(layer.weight, layer.bias) for layer in head.modules() if isinstance(layer, nn.Linear)]
    inner = w1 @ x + b1
    return w2 @ torch.where(inner > 0, inner, inner.exp() - 1) + b2


def contrast(head: nn.Module, x: list[Tensor], y: list[Tensor], temperature: float, *, cosine: bool) -> Tensor:
    """Gives eqs. 8 and 11, as a mean."""
    a, b = [project(head, one) for one in x], [project(head, one) for one in y]
    if cosine:
        a, b = [one / one.norm() for one in a], [one / one.norm() for one in b]
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(a)):
        psi = [(a[i] @ other / temperature).exp() for other in b]
        own = [(a[i] @ other / temperature).exp() for j, other in enumerate(a) if j != i]
        total = total - (psi[i] / (sum(psi) + sum(own))).log()
    return total / len(a)


def slow(one: MCLSR, drawn: list[int]) -> dict[str, Tensor]:
    """Gives the terms of all prefixes of LISTS, with ``drawn`` as the sampled items of eq. 14."""
    c, encoder = one.config, one.encoder
    table, n = encoder.items.weight, len(LISTS)
    everything = propagate(torch.cat([one.users, table]), bipartite(LISTS, weighted=c.weighted), c.depth)
    users_uv, items_uv = everything[:n], everything[n:]
    assert isinstance(encoder, Attentive)
    w1, w2, positions = encoder.hidden.weight, encoder.logit.weight[0], encoder.positions.weight
    current, general, targets = [], [], []
    for user, items in enumerate(LISTS):
        for cut in range(1, len(items)):
            history = items[max(0, cut - 3) : cut]
            logits = [w2 @ torch.tanh(w1 @ (table[item] + positions[t])) for t, item in enumerate(history)]
            current.append(softmax_mean(logits, [table[item] for item in history]))
            liking = torch.tanh(one.query.weight @ users_uv[user])
            general.append(
                softmax_mean([liking @ items_uv[i] for i in history], [items_uv[i] for i in history]),
            )
            targets.append(items[cut])
    loss = torch.zeros((), dtype=torch.float64)
    for s, g, target in zip(current, general, targets, strict=True):
        mixed = c.mix * s + (1 - c.mix) * g
        pushed = [(mixed @ table[k]).exp() for k in drawn if k != target]
        loss = loss - ((mixed @ table[target]).exp() / ((mixed @ table[target]).exp() + sum(pushed))).log()
    found = {"next_item": loss / len(targets)}
    cosine = c.similarity == "cosine"
    if one.interest_head is not None:
        found["interest"] = c.interest * contrast(one.interest_head, current, general, c.temperature, cosine=cosine)
    if one.user_head is not None:
        a = common([set(row) for row in LISTS], c.neighbours, weighted=c.weighted)
        users_uu = propagate(one.users, a, c.depth)
        pair = list(users_uv), list(users_uu)
        found["user_features"] = c.user_features * contrast(one.user_head, *pair, c.temperature, cosine=cosine)
    if one.item_head is not None:
        holders = [{user for user, row in enumerate(LISTS) if item in row} for item in range(N_ITEMS + 2)]
        items_vv = propagate(table, common(holders, c.neighbours, weighted=c.weighted), c.depth)
        read = sorted({item for row in LISTS for item in row[:-1]})
        pair = [items_uv[i] for i in read], [items_vv[i] for i in read]
        found["item_features"] = c.item_features * contrast(one.item_head, *pair, c.temperature, cosine=cosine)
    return found


VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "depth 0": {"depth": 0},
    "depth 1": {"depth": 1},
    "depth 3": {"depth": 3},
    "binary": {"weighted": False},
    "more neighbours": {"neighbours": 4},
    "dot": {"similarity": "dot"},
    "temperature": {"temperature": 1.3},
    "mostly general": {"mix": 0.1},
    "without IL": {"interest": 0.0},
    "without UC": {"user_features": 0.0},
    "without IC": {"item_features": 0.0},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_term_is_the_papers_sum(variant: str) -> None:
    one = method(**VARIANTS[variant])
    drawn = torch.randint(1, N_ITEMS + 1, (5,), generator=torch.Generator().manual_seed(0)).tolist()
    found = one.loss(whole(one), torch.Generator().manual_seed(0))
    expected = slow(one, drawn)
    assert list(found) == list(expected)
    for name, term in found.items():
        torch.testing.assert_close(term, expected[name], rtol=1e-6, atol=1e-6)
    parameters = list(one.parameters())
    gradients = [
        torch.autograd.grad(torch.stack(list(which.values())).sum(), parameters, allow_unused=True)
        for which in (found, expected)
    ]
    for a, b in zip(*gradients, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "paper"])
def test_a_variant_is_another_loss(variant: str) -> None:
    paper, other = terms(method()), terms(method(**VARIANTS[variant]))
    assert sum(paper.values()) != pytest.approx(sum(other.values()), rel=1e-6)


REMOVALS = {
    "interest": ("interest_head",),
    "user_features": ("user_head", "user_user"),
    "item_features": ("item_head", "item_item"),
}


@pytest.mark.parametrize("term", REMOVALS)
def test_a_weight_of_0_removes_its_term_and_what_only_it_needs(term: str) -> None:
    settings: dict[str, Any] = {term: 0.0}
    one = method(**settings)
    assert list(terms(one)) == [name for name in ("next_item", *REMOVALS) if name != term]
    assert all(getattr(one, part) is None for part in REMOVALS[term])
    assert all(getattr(one, part) is not None for name in REMOVALS if name != term for part in REMOVALS[name])


def test_the_gradient_of_the_interest_term_is_right() -> None:
    one = method(depth=2)
    batch = whole(one)

    class Interest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.method = one

        def forward(self) -> Tensor:
            return self.method.loss(batch, torch.Generator().manual_seed(0))["interest"]

    names = ["method.users", "method.encoder.items.weight", "method.query.weight", "method.interest_head.0.weight"]
    values = dict(Interest().named_parameters())
    inputs = tuple(values[name].detach().clone().requires_grad_() for name in names)

    def interest(*given: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(Interest(), dict(zip(names, given, strict=True)), ())
        return out

    assert torch.autograd.gradcheck(interest, inputs)


def test_a_contrast_worked_out_by_hand() -> None:
    # Orthogonal pairs, equal views: each anchor scores 1 with its own, 0 with the other user's two vectors.
    one = method()
    pair = torch.eye(2, 4, dtype=torch.float64)
    found = one.contrast(nn.Identity(), 3 * pair, 5 * pair)
    assert found.item() == pytest.approx(math.log(math.exp(2) + 2) - 2)  # temperature 0.5


def test_a_user_or_item_that_is_twice_in_a_batch_is_no_negative_of_itself() -> None:
    one = method(depth=1)
    once, seed = torch.tensor([0, 4, 7]), torch.Generator()  # prefixes of three users
    single = one.loss(one.train_set.batch(once), seed)
    double = one.loss(one.train_set.batch(once.repeat(2)), seed)
    for name in ("user_features", "item_features"):
        torch.testing.assert_close(single[name], double[name])


def test_one_user_alone_has_nothing_to_be_told_from() -> None:
    one = method()
    found = one.loss(one.train_set.batch(torch.tensor([0, 1, 2])), torch.Generator())
    assert found["user_features"].item() == 0.0
    assert found["interest"].item() > 0.0
    torch.autograd.backward(torch.stack(list(found.values())).sum())
    assert all(torch.isfinite(one.grad).all() for one in one.parameters() if one.grad is not None)


def test_one_sample_of_the_whole_catalogue_serves_the_batch() -> None:
    one = method()
    states = torch.randn(len(one.train_set), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    batch, table = whole(one), one.encoder.items.weight
    drawn = torch.randint(1, N_ITEMS + 1, (5,), generator=torch.Generator().manual_seed(3)).tolist()

    def loss(correction: float) -> float:
        total = 0.0
        for state, target in zip(states, batch.next_ids.tolist(), strict=True):
            right = math.exp(float(state @ table[target].detach()))
            pushed = [math.exp(float(state @ table[k].detach()) - correction) for k in drawn if k != target]
            total -= math.log(right / (right + math.fsum(pushed)))
        return total / len(states)

    plain = next_item(one, states, torch.Generator().manual_seed(3))
    assert plain.item() == pytest.approx(loss(0.0))
    corrected = next_item(method(log_q=True), states, torch.Generator().manual_seed(3))
    assert corrected.item() == pytest.approx(loss(math.log(5 / N_ITEMS)))  # 5 draws of one in 9


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "sampled_softmax", "gbce"])
def test_every_loss_of_the_next_item_is_a_choice(loss: Loss) -> None:
    one = method(loss=loss, shared_negatives=False, log_q=True)
    states = torch.randn(len(one.train_set), 4, dtype=torch.float64)
    own = Prediction(loss, one.train_set, negatives=one.config.negatives, log_q=True)
    expected = own(one.encoder, states, whole(one), torch.Generator().manual_seed(0))
    torch.testing.assert_close(next_item(one, states, torch.Generator().manual_seed(0)), expected)
    names = ("next_item", "interest", "user_features", "item_features")
    assert tuple(terms(one)) == names


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "sampled_softmax", "gbce"])
def test_one_sample_for_the_batch_is_of_the_sampled_softmax_alone(loss: Loss) -> None:
    states = torch.randn(len(method().train_set), 4, dtype=torch.float64)
    shared, own = (
        next_item(method(loss=loss, shared_negatives=one), states, torch.Generator().manual_seed(0))
        for one in (True, False)
    )
    assert torch.equal(shared, own) == (loss != "sampled_softmax")


def test_scores_come_from_the_current_interest_alone() -> None:
    one = method()
    history = Sequences.from_lists([[3, 1], [9, 2]])
    before = one.encoder.scores(torch.tensor([-1, -1]), history)
    with torch.no_grad():
        one.users.zero_()
        one.query.weight.zero_()
        for graph in (one.user_item, one.user_user, one.item_item):
            assert graph is not None
            graph.weights.zero_()
    torch.testing.assert_close(one.encoder.scores(torch.tensor([-1, -1]), history), before)
    parts = {name.split(".")[0] for name, _ in one.encoder.named_parameters()}
    assert parts == {"items", "positions", "hidden", "logit"}


def test_whole_histories_are_refused() -> None:
    train = TrainSet(Sequences.from_lists(LISTS), torch.tensor(USERS), N_ITEMS, instances="whole", max_length=3)
    with pytest.raises(ValueError, match="set instances to 'prefixes', found 'whole'"):
        method(train)


def log(seed: int = 0) -> InteractionLog:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 9, size=40)
    items = np.concatenate([rng.permutation(np.arange(1, 21))[:n] for n in lengths]).astype(np.int32)
    users = Vocabulary([f"u{n}" for n in range(40)], start=0)
    catalogue = Vocabulary([f"i{n}" for n in range(20)], start=1)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return InteractionLog(items, offsets, None, users, catalogue, {})


def from_split(split: Split) -> MCLSR:
    train = TrainSet(split.train, split.train_users, split.n_items, instances="prefixes", max_length=5)
    torch.manual_seed(0)
    return MCLSR(MCLSRConfig(negatives=8), train, AttentiveConfig(width=8, max_length=5))


def edges(graph: Graph | None) -> set[tuple[int, int]]:
    assert graph is not None
    rows = torch.repeat_interleave(torch.arange(len(graph)), graph.offsets.diff())
    return set(zip(rows.tolist(), graph.neighbours.tolist(), strict=True))


CUTS: dict[str, Callable[[InteractionLog], Split]] = {
    "leave_one_out": leave_one_out,
    "by_user": lambda one: by_user(one, seed=0),
}


@pytest.mark.parametrize("cut", CUTS)
def test_graphs_hold_training_interactions_and_no_others(cut: str) -> None:
    split = CUTS[cut](log())
    one = from_split(split)
    lists = split.train.to_lists()
    n = len(lists)
    pairs = {(user, n + item) for user, row in enumerate(lists) for item in row}
    assert edges(one.user_item) == pairs | {(b, a) for a, b in pairs}
    sets = [set(row) for row in lists]
    assert edges(one.user_user)
    assert all(sets[a] & sets[b] for a, b in edges(one.user_user))
    assert edges(one.item_item)
    assert all(any({a, b} <= row for row in sets) for a, b in edges(one.item_item))


@pytest.mark.parametrize("cut", CUTS)
def test_what_is_held_out_does_not_change_a_graph(cut: str) -> None:
    whole_log = log()
    split = CUTS[cut](whole_log)
    train = {(int(u), int(i)) for u, row in zip(split.train_users, split.train.to_lists(), strict=True) for i in row}
    users = np.repeat(np.arange(40), np.diff(whole_log.offsets))
    held_out = np.array([(int(u), int(i)) not in train for u, i in zip(users, whole_log.items, strict=True)])
    assert held_out.any()
    other_items = np.where(held_out, whole_log.items % 20 + 1, whole_log.items).astype(np.int32)
    other = InteractionLog(other_items, whole_log.offsets, None, whole_log.user_ids, whole_log.item_ids, {})
    a, b = from_split(split), from_split(CUTS[cut](other))
    for name, buffer in a.named_buffers():
        assert torch.equal(buffer, dict(b.named_buffers())[name]), name


@pytest.mark.parametrize("cut", CUTS)
def test_a_training_user_has_his_own_vector_wherever_his_row_in_the_log_is(cut: str) -> None:
    one = from_split(CUTS[cut](log()))
    assert len(one.users) == len(one.train_set.sequences)
    example = len(one.train_set) - 1
    batch = one.train_set.batch(torch.tensor([example, 0]))
    one.user_user, one.item_item, one.config = None, None, MCLSRConfig(negatives=8, depth=0)
    gradient = torch.autograd.grad(one.loss(batch, torch.Generator())["interest"], one.users)[0]
    # The other example reads one item, whose weight is 1 whoever the user is.
    assert gradient.abs().sum(1).nonzero().squeeze(1).tolist() == [int(one.train_set.row[example])]
    assert int(one.train_set.sequence_users[one.train_set.row[example]]) == int(batch.users[0])


def test_under_autocast_the_loss_is_close_and_weights_sum_to_one() -> None:
    one = from_split(leave_one_out(log()))
    for parameter in one.parameters():
        nn.init.normal_(parameter, std=0.5)
    expected = one.loss(whole(one), torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = one.loss(whole(one), torch.Generator().manual_seed(0))
        nn.init.ones_(one.encoder.items.weight)  # a mean of ones is the sum of its weights
        sums = one.encoder(whole(one).history)
    torch.testing.assert_close(found, expected, rtol=0.001, atol=0)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-6)
