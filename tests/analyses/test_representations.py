"""Measures of vectors against the formulas written as sums, and on vectors whose answer is known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from conseq.analyses import representations as module
from conseq.analyses.representations import (
    RepresentationsConfig,
    alignment,
    effective_rank,
    mean_cosine,
    representations,
    singular_values,
    spread,
    uniformity,
)
from conseq.analyses.vectors import user_vectors
from conseq.data.log import InteractionLog
from conseq.data.sequences import Sequences
from conseq.data.splits import leave_one_out
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.encoder import Encoder

Make = Callable[..., Encoder]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(row: list[float]) -> list[float]:
    length = math.sqrt(sum(one * one for one in row))
    return [one / length for one in row]


def squared(a: list[float], b: list[float]) -> float:
    return sum((x - y) ** 2 for x, y in zip(unit(a), unit(b), strict=True))


def test_alignment_is_the_mean_squared_distance_on_the_sphere() -> None:
    a, b = normal(7, 3), normal(7, 3, seed=1)
    expected = sum(squared(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)) / 7
    assert alignment(a, b) == pytest.approx(expected)
    assert alignment(a, 5 * a) == pytest.approx(0, abs=1e-12)
    assert alignment(a, -a) == pytest.approx(4)


@pytest.mark.parametrize("rows", [1, 5, 256])
def test_uniformity_is_the_logarithm_of_the_mean_potential_of_pairs(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS", rows)
    x = normal(23, 4).tolist()
    pairs = [math.exp(-2 * squared(x[i], x[j])) for i in range(23) for j in range(i)]
    assert uniformity(torch.tensor(x)) == pytest.approx(math.log(sum(pairs) / len(pairs)))


def test_uniformity_of_one_direction_is_0_and_of_opposite_ones_minus_8() -> None:
    assert uniformity(torch.tensor([[1.0, 2.0]]).repeat(5, 1)) == pytest.approx(0, abs=1e-12)
    assert uniformity(torch.tensor([[1.0, 0.0], [-3.0, 0.0]])) == pytest.approx(-8)
    with pytest.raises(ValueError, match="pairs of vectors; found 1"):
        uniformity(torch.ones(1, 3))


def test_the_mean_cosine_is_over_pairs_of_different_rows() -> None:
    x = normal(9, 3).tolist()
    cosines = [1 - squared(x[i], x[j]) / 2 for i in range(9) for j in range(9) if i != j]
    assert mean_cosine(torch.tensor(x)) == pytest.approx(sum(cosines) / len(cosines))


def test_singular_values_are_not_centred() -> None:
    x = torch.zeros(6, 3)
    x[0, 0], x[1, 1], x[2, 2] = 2.0, 5.0, 3.0
    assert singular_values(x).tolist() == pytest.approx([5, 3, 2])
    assert singular_values(torch.ones(4, 2)).tolist() == pytest.approx([math.sqrt(8), 0], abs=1e-12)


def test_the_effective_rank_counts_the_dimensions_that_are_filled() -> None:
    assert effective_rank(torch.tensor([3.0, 3.0, 3.0])) == pytest.approx(3)
    assert effective_rank(torch.tensor([3.0, 0.0, 0.0])) == pytest.approx(1)
    assert effective_rank(torch.tensor([0.0, 0.0])) == 0
    half, quarter = 0.5 * math.log(0.5), 0.25 * math.log(0.25)
    assert effective_rank(torch.tensor([2.0, 1.0, 1.0])) == pytest.approx(math.exp(-half - 2 * quarter))


def test_a_cone_is_told_from_a_sphere() -> None:
    rng = torch.Generator().manual_seed(0)
    sphere = normal(400, 16)
    cone = 0.1 * sphere + torch.ones(16)
    even, narrow = (spread(one, points=1000, rng=rng) for one in (sphere, cone))
    assert even.mean_cosine < 0.05
    assert narrow.mean_cosine > 0.9
    assert even.uniformity < narrow.uniformity < 0
    assert narrow.effective_rank < even.effective_rank <= 16
    assert narrow.singular_values[1] < 0.2
    assert even.singular_values[1] > 0.8
    assert narrow.singular_values[0] == even.singular_values[0] == 1


def test_turning_all_vectors_changes_nothing() -> None:
    x = normal(50, 6)
    turn = torch.linalg.qr(normal(6, 6, seed=2)).Q
    plain, turned = (spread(one, points=100, rng=torch.Generator()) for one in (x, x @ turn))
    assert turned.singular_values == pytest.approx(plain.singular_values, rel=1e-5)
    assert turned.uniformity == pytest.approx(plain.uniformity, rel=1e-5)
    assert turned.mean_norm == pytest.approx(plain.mean_norm, rel=1e-5)


def test_the_uniformity_of_many_vectors_is_of_some_of_them() -> None:
    x = normal(300, 4)
    some = spread(x, points=40, rng=torch.Generator().manual_seed(1))
    assert (some.vectors, some.points) == (300, 40)
    assert some.uniformity == pytest.approx(uniformity(x), abs=0.3)
    assert some.uniformity != uniformity(x)
    assert some.singular_values == spread(x, points=300, rng=torch.Generator()).singular_values


def test_user_vectors_stand_in_the_order_of_the_histories(mean: Make) -> None:
    encoder = mean(normal(9, 4), 0.5).train()
    histories = Sequences.from_lists([[1], [2, 3, 4], [5, 6], [7, 8, 9, 1]])
    found = user_vectors(encoder, histories)
    assert encoder.training
    encoder.eval()
    for row, items in enumerate(histories.to_lists()):
        torch.testing.assert_close(found[row], encoder(Sequences.from_lists([items]))[0].detach())


def test_dropout_is_that_of_the_seed_and_moves_no_other_random_number(mean: Make) -> None:
    encoder = mean(normal(9, 64), 0.5).eval()
    histories = Sequences.from_lists([[1], [2, 3]])
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, again, other = (user_vectors(encoder, histories, dropout_seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not encoder.training


def test_dropout_pairs_are_alike_without_dropout_and_apart_with_it(log: InteractionLog, mean: Make) -> None:
    split, vectors = leave_one_out(log), normal(12, 32)
    config = RepresentationsConfig(positives=("dropout",), pairs=25)
    without = representations(mean(vectors, 0.0), split, config)
    some, much = (representations(mean(vectors, share), split, config) for share in (0.1, 0.6))
    assert without.alignment["dropout"].value == pytest.approx(0, abs=1e-12)
    values = [one.alignment["dropout"].value for one in (some, much)]
    assert values[0] is not None
    assert values[1] is not None
    assert 0 < values[0] < values[1]
    assert list(without.alignment) == ["dropout"]
    assert without.alignment["dropout"].pairs == 25


def test_same_target_pairs_are_training_histories_of_two_users_before_one_item(
    log: InteractionLog, mean: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = np.random.default_rng(0).integers(1, 13, size=60).astype(np.int32)  # six users, who come back to items
    some = InteractionLog(items, np.arange(0, 61, 10), None, Vocabulary(list("abcdef"), start=0), log.item_ids, {})
    split = leave_one_out(some)
    encoded: list[list[list[int]]] = []

    def listening(encoder: Encoder, histories: Sequences, *, dropout_seed: int | None = None) -> Tensor:
        encoded.append(histories.to_lists())
        return user_vectors(encoder, histories, dropout_seed=dropout_seed)

    monkeypatch.setattr(module, "user_vectors", listening)
    config = RepresentationsConfig(positives=("same_target",))
    found = representations(mean(normal(12, 4)), split, config)
    left, right = encoded[-2:]
    sequences = split.train.to_lists()
    before: dict[int, list[tuple[int, list[int]]]] = {}
    for user, met in enumerate(sequences):
        for place in range(1, len(met)):
            before.setdefault(met[place], []).append((user, met[:place]))
    whole = sum(len({user for user, _ in group} - {owner}) > 0 for group in before.values() for owner, _ in group)
    assert found.alignment["same_target"].pairs == len(left) == whole
    for a, b in zip(left, right, strict=True):
        assert any(
            one == a and other == b and u != v for group in before.values() for u, one in group for v, other in group
        )


def test_a_log_in_which_no_two_users_share_an_item_has_no_pairs(mean: Make, log: InteractionLog) -> None:
    items = np.arange(1, 13, dtype=np.int32)
    two = InteractionLog(items, np.array([0, 6, 12]), None, Vocabulary(["a", "b"], start=0), log.item_ids, {})
    found = representations(mean(normal(12, 4)), leave_one_out(two), RepresentationsConfig(positives=("same_target",)))
    assert (found.alignment["same_target"].value, found.alignment["same_target"].pairs) == (None, 0)


def test_items_are_measured_without_padding_and_mask(log: InteractionLog, mean: Make) -> None:
    encoder = mean(normal(12, 4))
    with torch.no_grad():
        encoder.items.weight[0], encoder.items.weight[-1] = 1e6, 1e6
    found = representations(encoder, leave_one_out(log))
    assert found.items.vectors == 12
    assert found.items.mean_norm == pytest.approx(float(normal(12, 4).norm(dim=1).mean()), rel=1e-5)
    assert found.users.vectors == 40


def test_the_record_is_json_and_the_seed_repeats_it(log: InteractionLog, mean: Make) -> None:
    split, encoder = leave_one_out(log), mean(normal(12, 4), 0.3)
    first, again = (representations(encoder, split).record() for _ in range(2))
    assert first == again
    record = json.loads(json.dumps(first))
    assert set(record) == {"items", "users", "alignment", "seed"}
    assert len(record["users"]["singular_values"]) == 4
