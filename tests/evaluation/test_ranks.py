"""Ranks in the full catalogue."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from conseq.config import parse
from conseq.data.sequences import Sequences
from conseq.evaluation.metrics import ndcg, recall
from conseq.evaluation.ranks import Protocol, Ties, contained, distinct, target_ranks, top_items

SETTINGS = {"split": "test", "slicing": "leave_one_out", "history": "keep", "ties": "mean"}


def sorted_twin(
    scores: list[float], targets: list[int], excluded: list[int], ties: Ties
) -> tuple[list[float], list[int]]:
    """The places of one user's targets by sorting the catalogue: each target's rank, and its number of equals."""
    candidates = [item for item in range(1, len(scores) + 1) if item not in excluded]
    late = {"pessimistic": True, "mean": False, "optimistic": False}[ties]

    def key(item: int) -> tuple[float, bool, int]:
        chosen = item in targets
        turn = targets.index(item) if chosen else -1
        return -scores[item - 1], chosen if late else not chosen, -turn if late else turn

    order = sorted(candidates, key=key)
    ranks, equals = [], []
    for target in targets:
        level = scores[target - 1]
        if target in excluded or level == -math.inf:
            ranks.append(math.inf)
            equals.append(0)
            continue
        peers = [place for place, item in enumerate(order, 1) if scores[item - 1] == level]
        chosen = [one for one in targets if one not in excluded and scores[one - 1] == level]
        ranks.append(average_place(peers, chosen, target) if ties == "mean" else float(order.index(target) + 1))
        equals.append(sum(1 for place in peers if order[place - 1] not in targets))
    return ranks, equals


def average_place(peers: list[int], chosen: list[int], target: int) -> float:
    """Where the targets among equals stand on average, over all ways in which they can be among them."""
    ways = list(itertools.combinations(peers, len(chosen)))
    return sum(way[chosen.index(target)] for way in ways) / len(ways)


def row(*values: float) -> Tensor:
    return torch.tensor([values])


def rank_of(scores: Tensor, target: int, ties: Ties, excluded: list[int] | None = None) -> float:
    kept_out = None if excluded is None else Sequences.from_lists([excluded])
    return target_ranks(scores, Sequences.from_lists([[target]]), excluded=kept_out, ties=ties).rank.item()


def test_the_rank_is_one_more_than_the_number_of_better_items() -> None:
    scores = row(0.1, 0.9, 0.5, 0.7)
    assert [rank_of(scores, item, "pessimistic") for item in (1, 2, 3, 4)] == [4, 1, 3, 2]


def test_a_tie_is_settled_last_in_the_middle_or_first() -> None:
    scores = row(5.0, 3.0, 3.0, 3.0, 1.0)  # items 2, 3 and 4 share the places 2, 3 and 4
    assert rank_of(scores, 3, "pessimistic") == 4
    assert rank_of(scores, 3, "mean") == 3
    assert rank_of(scores, 3, "optimistic") == 2
    found = target_ranks(scores, Sequences.from_lists([[3]]), ties="mean")
    assert found.equals.tolist() == [2]


def test_a_mean_rank_may_be_half() -> None:
    assert rank_of(row(3.0, 3.0), 1, "mean") == 1.5


def test_targets_of_one_user_take_different_places_among_equals() -> None:
    scores = torch.zeros(1, 5)
    targets = Sequences.from_lists([[2, 4]])
    assert target_ranks(scores, targets, ties="optimistic").rank.tolist() == [1, 2]
    assert target_ranks(scores, targets, ties="pessimistic").rank.tolist() == [5, 4]
    assert target_ranks(scores, targets, ties="mean").rank.tolist() == [2, 4]
    assert target_ranks(scores, targets, ties="mean").equals.tolist() == [3, 3]


@pytest.mark.parametrize("ties", ["pessimistic", "mean", "optimistic"])
def test_tied_targets_gain_no_more_than_a_list_can_hold(ties: Ties) -> None:
    three = Sequences.from_lists([[1, 2, 3]])
    ranks = target_ranks(torch.zeros(1, 3), three, ties=ties).rank.numpy()
    offsets = three.offsets.numpy()
    assert ndcg(ranks, offsets, 2) == pytest.approx(1)
    assert recall(ranks, offsets, 2) == pytest.approx(2 / 3)


def test_an_excluded_item_stands_neither_above_nor_beside_a_target() -> None:
    scores = row(9.0, 3.0, 3.0, 3.0)
    assert rank_of(scores, 2, "pessimistic", [1]) == 3
    assert rank_of(scores, 2, "pessimistic", [1, 3]) == 2
    assert rank_of(scores, 2, "mean", [3]) == 2.5


def test_an_item_that_is_excluded_twice_is_taken_away_once() -> None:
    assert rank_of(row(9.0, 8.0, 7.0, 6.0), 4, "pessimistic", [1, 1, 1]) == 3


def test_an_excluded_target_cannot_be_reached() -> None:
    found = target_ranks(
        row(1.0, 2.0), Sequences.from_lists([[2]]), excluded=Sequences.from_lists([[2]]), ties="optimistic"
    )
    assert found.rank.tolist() == [math.inf]
    assert found.equals.tolist() == [0]


def test_a_target_of_score_minus_infinity_cannot_be_reached() -> None:
    assert rank_of(row(1.0, -math.inf, -math.inf), 2, "optimistic") == math.inf
    assert rank_of(row(1.0, -math.inf, 2.0), 1, "pessimistic") == 2


def test_an_unreachable_target_takes_no_place_from_another() -> None:
    found = target_ranks(
        torch.zeros(1, 4),
        Sequences.from_lists([[1, 2]]),
        excluded=Sequences.from_lists([[1]]),
        ties="pessimistic",
    )
    assert found.rank.tolist() == [math.inf, 3]
    assert found.equals.tolist() == [0, 2]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_refused_and_named(bad: float) -> None:
    scores = torch.zeros(2, 3)
    scores[1, 2] = bad
    with pytest.raises(ValueError, match=r"1 scores are NaN or \+inf \(first: row 1, item 3\)"):
        target_ranks(scores, Sequences.from_lists([[1], [1]]), ties="mean")


def test_infinities_of_both_signs_do_not_hide_each_other() -> None:
    with pytest.raises(ValueError, match="item 2"):
        rank_of(row(-math.inf, math.inf, 0.0), 3, "mean")


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scores of shape \[1, 3\] for 2 users"):
        target_ranks(torch.zeros(1, 3), Sequences.from_lists([[1], [2]]), ties="mean")
    with pytest.raises(ValueError, match="2 sequences of excluded items for 1 users"):
        target_ranks(
            torch.zeros(1, 3), Sequences.from_lists([[1]]), excluded=Sequences.from_lists([[1], [2]]), ties="mean"
        )


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[list[float]], list[list[int]], list[list[int]]]:
    n_items = draw(st.integers(1, 9))
    n_users = draw(st.integers(1, 4))
    level = st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0])
    items = st.integers(1, n_items)
    scores = draw(st.lists(st.lists(level, min_size=n_items, max_size=n_items), min_size=n_users, max_size=n_users))
    targets = draw(st.lists(st.lists(items, min_size=1, max_size=4, unique=True), min_size=n_users, max_size=n_users))
    excluded = draw(st.lists(st.lists(items, max_size=5), min_size=n_users, max_size=n_users))
    return scores, targets, excluded


@given(case=cases(), ties=st.sampled_from(get_args(Ties)), exclude=st.booleans())
def test_counting_gives_what_sorting_the_catalogue_gives(
    case: tuple[list[list[float]], list[list[int]], list[list[int]]], ties: Ties, exclude: bool
) -> None:
    scores, targets, excluded = case
    found = target_ranks(
        torch.tensor(scores),
        Sequences.from_lists(targets),
        excluded=Sequences.from_lists(excluded) if exclude else None,
        ties=ties,
    )
    twins = [
        sorted_twin(one, asked, out if exclude else [], ties)
        for one, asked, out in zip(scores, targets, excluded, strict=True)
    ]
    assert found.rank.tolist() == pytest.approx([rank for ranks, _ in twins for rank in ranks])
    assert found.equals.tolist() == [number for _, equals in twins for number in equals]


def test_a_large_block_gives_what_sorting_gives() -> None:
    rng = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 5000, (64, 20_000), generator=rng).float()  # several blocks, many ties
    targets = Sequences.from_lists([[1 + 7 * user, 20_000 - user][: 1 + user % 2] for user in range(64)])
    excluded = Sequences.from_lists([list(range(user, user + 30)) for user in range(100, 164)])
    found = target_ranks(scores, targets, excluded=excluded, ties="mean").rank
    masked = scores.clone()
    masked[excluded.rows, excluded.ids - 1] = -math.inf
    ordered = masked.sort(descending=True).values
    at = masked[targets.rows, targets.ids - 1]
    rows = ordered[targets.rows]
    first = torch.searchsorted(-rows, -at[:, None]).squeeze(1) + 1
    last = torch.searchsorted(-rows, -at[:, None], right=True).squeeze(1)
    assert at.isfinite().any()
    expected = ((first + last) / 2).double().masked_fill(at == -math.inf, math.inf)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64])
def test_scores_of_any_type_are_ranked(dtype: torch.dtype) -> None:
    scores = torch.tensor([[3, 1, 2, 2]]).to(dtype)
    targets = Sequences.from_lists([[2, 4]])
    assert target_ranks(scores, targets, ties="pessimistic").rank.tolist() == [4, 3]


def test_double_precision_scores_are_not_rounded() -> None:
    scores = torch.tensor([[1.0, 1.0 + 1e-12]], dtype=torch.float64)
    assert rank_of(scores, 1, "optimistic") == 2


def test_counts_beyond_single_precision_are_exact() -> None:
    scores = torch.ones(1, 2**24 + 2, dtype=torch.int8)
    scores[0, 0] = 0
    assert rank_of(scores, 1, "pessimistic") == 2**24 + 2


def test_scores_and_sequences_are_left_as_they_were() -> None:
    scores = torch.rand(2, 6, generator=torch.Generator().manual_seed(0))
    before = scores.clone()
    targets, excluded = Sequences.from_lists([[1], [2]]), Sequences.from_lists([[3, 4], [5]])
    target_ranks(scores, targets, excluded=excluded, ties="mean")
    top_items(scores, 3, excluded=excluded)
    assert torch.equal(scores, before)
    assert targets.to_lists() == [[1], [2]]
    assert excluded.to_lists() == [[3, 4], [5]]


def test_the_scores_may_be_one_row_seen_many_times() -> None:
    scores = torch.tensor([1.0, 3.0, 2.0]).expand(3, 3)
    targets = Sequences.from_lists([[1], [2], [3]])
    excluded = Sequences.from_lists([[2], [1], [2]])
    assert target_ranks(scores, targets, excluded=excluded, ties="mean").rank.tolist() == [2, 1, 1]
    assert top_items(scores, 3, excluded=excluded).tolist() == [[3, 1, 0], [2, 3, 0], [3, 1, 0]]


def test_a_rank_does_not_depend_on_the_other_users_of_the_block() -> None:
    scores = torch.rand(40, 30_000, generator=torch.Generator().manual_seed(1))
    targets = Sequences.from_lists([[user + 1] for user in range(40)])
    excluded = Sequences.from_lists([[user + 2, user + 3] for user in range(40)])
    together = target_ranks(scores, targets, excluded=excluded, ties="mean").rank
    for user in (0, 7, 39):
        only = torch.tensor([user])
        alone = target_ranks(scores[only], targets.select(only), excluded=excluded.select(only), ties="mean").rank
        assert alone.item() == together[user].item()


def test_the_best_items_are_those_whose_rank_is_within_the_list() -> None:
    scores = torch.rand(6, 50, generator=torch.Generator().manual_seed(2))
    excluded = Sequences.from_lists([[1, 2, 3], [4], [5, 6], [], [50], [7, 7]])
    everything = Sequences.from_lists([list(range(1, 51))] * 6)
    ranks = target_ranks(scores, everything, excluded=excluded, ties="mean").rank.view(6, 50)
    best = top_items(scores, 5, excluded=excluded)
    for user in range(6):
        assert [ranks[user, item - 1].item() for item in best[user].tolist()] == [1, 2, 3, 4, 5]


def test_a_list_ends_with_zeros_where_no_candidate_is_left() -> None:
    scores = row(1.0, 2.0, -math.inf)
    assert top_items(scores, 3, excluded=Sequences.from_lists([[2, 2]])).tolist() == [[1, 0, 0]]
    assert top_items(row(1.0, 2.0), 5).tolist() == [[2, 1]]


def test_the_first_of_each_item_is_kept() -> None:
    sequences = Sequences.from_lists([[3, 1, 3, 1], [], [1, 3], [2, 2]])
    assert distinct(sequences).to_lists() == [[3, 1], [], [1, 3], [2]]


def test_nothing_is_distinct_among_nothing() -> None:
    assert distinct(Sequences.from_lists([[], []])).to_lists() == [[], []]


def test_an_item_is_looked_for_in_its_own_row_alone() -> None:
    sequences = Sequences.from_lists([[1, 2], [3]])
    assert contained(sequences, Sequences.from_lists([[2, 3], [1, 2]])).tolist() == [False, True, False]
    assert contained(sequences, Sequences.from_lists([[], []])).tolist() == [False, False, False]


@pytest.mark.parametrize("missing", list(SETTINGS))
def test_a_protocol_without_one_of_its_settings_is_refused(missing: str) -> None:
    values = {key: value for key, value in SETTINGS.items() if key != missing}
    with pytest.raises(ValueError, match=f"missing key '{missing}'"):
        parse(Protocol, values, source="a test")


def test_a_protocol_with_an_unknown_value_is_refused() -> None:
    with pytest.raises(ValueError, match="key 'history'"):
        parse(Protocol, SETTINGS | {"history": "masked"}, source="a test")


def test_a_protocol_says_in_one_line_what_it_is() -> None:
    protocol = Protocol(split="test", slicing="by_time", history="exclude", ties="pessimistic")
    assert str(protocol) == "test, by_time, history excluded, pessimistic ties"
    assert protocol.slug == "test-by_time-exclude-pessimistic"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_device_gives_the_ranks_of_the_cpu() -> None:
    rng = torch.Generator().manual_seed(3)
    scores = torch.randint(0, 50, (16, 300), generator=rng).float()
    targets = Sequences.from_lists([[1 + user, 200 - user] for user in range(16)])
    excluded = Sequences.from_lists([[9, 9, user + 20] for user in range(16)])
    here = target_ranks(scores, targets, excluded=excluded, ties="mean")
    there = target_ranks(scores.cuda(), targets.to("cuda"), excluded=excluded.to("cuda"), ties="mean")
    assert torch.equal(here.rank, there.rank.cpu())
    assert torch.equal(here.equals, there.equals.cpu())
