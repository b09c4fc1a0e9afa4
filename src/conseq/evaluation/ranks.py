"""Where a held-out item stands in the whole catalogue, under a stated protocol."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from conseq.config import settings
from conseq.data.sequences import Sequences
from conseq.encoders.sparse import SparseScores

Ties = Literal["pessimistic", "mean", "optimistic"]

_CACHE_ELEMENTS = 2**18
"""Scores compared at a time on a CPU: 1 MiB of float32, which stays in a core's cache."""


@settings
class Protocol:
    """How a model was judged. Nothing has a default: each of these moves the numbers more than most methods do."""

    split: Literal["validation", "test"]
    """The held-out part that was ranked."""
    slicing: Literal["leave_one_out", "by_time", "by_user"]
    """How the log was cut."""
    history: Literal["exclude", "keep"]
    """Whether the items of the user's own history are candidates ("keep") or cannot be recommended ("exclude")."""
    ties: Ties
    """The place of a target among equal scores: last ("pessimistic"), on average ("mean") or first ("optimistic")."""

    def __str__(self) -> str:
        verb = {"exclude": "excluded", "keep": "kept"}[self.history]
        return f"{self.split}, {self.slicing}, history {verb}, {self.ties} ties"

    @property
    def slug(self) -> str:
        """The protocol as part of a file name."""
        return f"{self.split}-{self.slicing}-{self.history}-{self.ties}"


class ScoreError(ValueError):
    """Scores that give no ranks, because some are NaN or ``+inf``."""


class Ranks(NamedTuple):
    """Places of targets in the catalogue.

    Attributes:
        rank: float64 ``[N]``; 1 is the best, ``inf`` means unreachable. Fractions occur with mean ties alone.
        equals: int64 ``[N]``; candidates that are no target of the user and have exactly the target's score,
            so that the tie rule decided the rank where it is not 0.
    """

    rank: Tensor
    equals: Tensor


def target_ranks(
    scores: Tensor | SparseScores, targets: Sequences, *, excluded: Sequences | None = None, ties: Ties
) -> Ranks:
    """Gives the rank of every target among all items, by counting the scores above it.

    A target that is itself excluded, or whose score is ``-inf``, cannot be recommended: its rank is ``inf``,
    which every metric counts as a miss. Excluded items are no candidates: they stand neither above a target nor
    beside it. Targets of one user with one score take different places among their equals, so that no two
    of them claim the same one; under mean ties those that they have on average if the equals stand in a random order,
    which for one target is the middle. A ``ValueError`` tells of scores that are NaN or ``+inf`` and of shapes that do
    not fit.

    Args:
        scores: ``[B, V]``; column ``j`` is item number ``j + 1``. It is not written to. Sparse scores give the ranks
            that the block would, and cost no more than the items in which rows differ.
        targets: ``B`` sequences of different item numbers.
        excluded: ``B`` sequences of item numbers that are no candidates, repeats allowed; None: all items are.
        ties: The place of a target among equal scores.

    Returns:
        One rank per token of ``targets``, on the device of ``scores``.
    """
    _check(scores, targets, excluded)
    at = _at(scores, targets)
    reachable = at > -torch.inf
    unique = None
    if excluded is not None:
        unique = distinct(excluded)
        reachable &= ~contained(targets, unique)
    above, level = _counts(scores, targets, at, unique)
    turn, group = _among_equals(targets, at, reachable)
    if ties == "optimistic":
        rank = (above + 1 + turn).double()
    elif ties == "pessimistic":
        rank = (above + level - turn).double()
    else:
        # Of L equals in a random order the j-th of g chosen ones stands on average at j (L + 1) / (g + 1).
        rank = above.double() + (turn + 1) * (level + 1).double() / (group + 1)
    return Ranks(rank.masked_fill(~reachable, torch.inf), (level - group).masked_fill(~reachable, 0))


def top_items(scores: Tensor | SparseScores, k: int, *, excluded: Sequences | None = None) -> Tensor:
    """Gives the ``k`` best items of every row, best first.

    Args:
        scores: ``[B, V]``; column ``j`` is item number ``j + 1``. It is not written to.
        k: Length of the lists.
        excluded: ``B`` sequences of item numbers that must not be listed.

    Returns:
        int64 ``[B, min(k, V)]`` item numbers; 0 where no candidate is left. Equal scores stand in an order that
        torch chooses.
    """
    if isinstance(scores, SparseScores):
        if bool((scores.base == -torch.inf).all()):
            return _top_of_own(scores, k, excluded)
        scores = scores.dense()
    if excluded is not None:
        rows, columns = excluded.rows, excluded.ids - 1
        scores = scores.clone().index_put_((rows, columns), scores.new_tensor(-torch.inf))
    best = torch.topk(scores, min(k, scores.shape[1]), dim=1)
    return (best.indices + 1).masked_fill(best.values == -torch.inf, 0)


def distinct(sequences: Sequences) -> Sequences:
    """Gives the sequences with every item's first occurrence alone, in the order of the tokens."""
    if not sequences.ids.numel():
        return sequences
    key = sequences.rows * (int(sequences.ids.max()) + 1) + sequences.ids
    ordered, order = torch.sort(key, stable=True)
    first = torch.ones_like(key, dtype=torch.bool)
    first[order[1:]] = ordered[1:] != ordered[:-1]
    return sequences if bool(first.all()) else sequences.keep(first)


def contained(sequences: Sequences, others: Sequences) -> Tensor:
    """Gives bool ``[N]``: whether each token of ``sequences`` occurs in the same row of ``others``."""
    if not sequences.ids.numel() or not others.ids.numel():
        return torch.zeros_like(sequences.ids, dtype=torch.bool)
    base = max(int(sequences.ids.max()), int(others.ids.max())) + 1
    return torch.isin(sequences.rows * base + sequences.ids, others.rows * base + others.ids)


def _at(scores: Tensor | SparseScores, asked: Sequences) -> Tensor:
    """Gives the scores of the tokens of ``asked``, ``[N]``."""
    return scores.at(asked) if isinstance(scores, SparseScores) else scores[asked.rows, asked.ids - 1]


def _top_of_own(scores: SparseScores, k: int, excluded: Sequences | None) -> Tensor:
    """Gives the lists of scores in which nothing but a row's own items can be recommended."""
    possible = scores.own > -torch.inf
    if excluded is not None:
        possible &= ~contained(scores.items, excluded)
    left, own = scores.items.keep(possible), scores.own[possible]
    place = left.rank(-own)
    listed = place < k
    lists = left.ids.new_zeros(len(left), min(k, scores.base.numel()))
    return lists.index_put_((left.rows[listed], place[listed]), left.ids[listed])


def _counts(
    scores: Tensor | SparseScores, targets: Sequences, at: Tensor, unique: Sequences | None
) -> tuple[Tensor, Tensor]:
    """Gives, for each target, int64 ``[N]`` candidates above it and at its level (itself included)."""
    above = torch.zeros_like(targets.ids)
    reaching = torch.zeros_like(targets.ids)
    # What all scores of a row have counted too much, or too little: whose items, their scores, and the sign.
    corrections = [] if unique is None else [(unique, _at(scores, unique), -1)]
    if isinstance(scores, SparseScores):
        items = scores.items
        corrections += [(items, scores.own, 1), (items, scores.base[items.ids - 1], -1)]
    for slot in range(targets.max_length):
        # One target of every row at a time: a comparison of [B, V] with [B, 1], nothing [N, V].
        tokens = torch.nonzero(targets.positions == slot).squeeze(1)
        rows = targets.rows[tokens]
        every = tokens.numel() == len(targets)
        above[tokens], reaching[tokens] = _count(scores, None if every else rows, at[tokens])
        # Single items, of the rows asked for alone, are cheaper than a masked copy of the scores.
        for items, values, sign in corrections:
            places = torch.arange(values.numel(), device=values.device)
            own = items.replace(places) if every else items.replace(places).select(rows)
            token, found = tokens[own.rows], values[own.ids]
            above.index_add_(0, token, (found > at[token]).long(), alpha=sign)
            reaching.index_add_(0, token, (found >= at[token]).long(), alpha=sign)
    return above, reaching - above


def _count(scores: Tensor | SparseScores, rows: Tensor | None, level: Tensor) -> tuple[Tensor, Tensor]:
    """Gives int64 ``[R]`` twice: how many scores of each row (all where None) exceed, and reach, ``level``."""
    if isinstance(scores, SparseScores):
        return scores.count(level)
    n_items = scores.shape[1]
    if scores.device.type != "cpu" or n_items >= 2**24:
        chosen, limit = (scores if rows is None else scores[rows]), level[:, None]
        return (chosen > limit).sum(1), (chosen >= limit).sum(1)
    # Zeros and ones written as float32 are summed by vector instructions, exactly below 2**24 of them: four
    # times faster than the sum of a bool tensor, which counts in int64.
    step = max(1, _CACHE_ELEMENTS // n_items)
    ones = torch.empty(min(step, level.numel()), n_items, dtype=torch.float32)
    above, reaching = [], []
    for start in range(0, level.numel(), step):
        limit = level[start : start + step, None]
        block = scores[start : start + step] if rows is None else scores[rows[start : start + step]]
        out = ones[: limit.shape[0]]
        above.append(torch.gt(block, limit, out=out).sum(1))
        reaching.append(torch.ge(block, limit, out=out).sum(1))
    return torch.cat(above).long(), torch.cat(reaching).long()


def _among_equals(targets: Sequences, at: Tensor, reachable: Tensor) -> tuple[Tensor, Tensor]:
    """Gives, for each target, its turn (from 0) among the user's targets of the same score, and their number."""
    if targets.max_length <= 1:
        return torch.zeros_like(targets.ids), torch.ones_like(targets.ids)
    # An unreachable target takes no place: NaN equals nothing.
    value = at.double().masked_fill(~reachable, torch.nan)
    by_score = torch.argsort(value, stable=True)
    order = by_score[torch.argsort(targets.rows[by_score], stable=True)]
    rows, value = targets.rows[order], value[order]
    starts = torch.ones_like(order, dtype=torch.bool)
    starts[1:] = (rows[1:] != rows[:-1]) | (value[1:] != value[:-1])
    group = starts.cumsum(0) - 1
    first = torch.nonzero(starts).squeeze(1)
    turn, size = torch.empty_like(order), torch.empty_like(order)
    turn[order] = torch.arange(order.numel(), device=order.device) - first[group]
    size[order] = torch.bincount(group)[group]
    return turn, size


def _check(scores: Tensor | SparseScores, targets: Sequences, excluded: Sequences | None) -> None:
    if len(scores.shape) != 2 or scores.shape[0] != len(targets):
        raise ValueError(f"scores of shape {list(scores.shape)} for {len(targets)} users; expected [users, items]")
    if excluded is not None and len(excluded) != len(targets):
        raise ValueError(f"{len(excluded)} sequences of excluded items for {len(targets)} users; expected as many")
    if isinstance(scores, SparseScores):
        for what, values in (("scores that all share", scores.base), ("scores of a row's own", scores.own)):
            bad = torch.isnan(values) | (values == torch.inf)
            if bool(bad.any()):
                raise ScoreError(f"{int(bad.sum())} {what} are NaN or +inf; ranks need numbers, with -inf for no item")
        return
    # One fast sum tells that all is well; only a doubtful block (-inf is allowed) is looked through.
    if not bool(torch.isfinite(scores.sum())):
        bad = torch.isnan(scores) | (scores == torch.inf)
        if bool(bad.any()):
            row, column = (int(one) for one in torch.nonzero(bad)[0])
            raise ScoreError(
                f"{int(bad.sum())} scores are NaN or +inf (first: row {row}, item {column + 1}); "
                "ranks need numbers, with -inf for items that must not be recommended"
            )
