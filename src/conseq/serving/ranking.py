"""The best items of the catalogue, or of a part of it, for blocks of histories."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Literal, get_args

import torch
from torch import Tensor

from conseq.data.sequences import Sequences
from conseq.encoders.encoder import Encoder, Scorer, scores_are_products
from conseq.nn.products import Products
from conseq.serving.arguments import check_choice
from conseq.serving.histories import Block
from conseq.serving.topk import top_k

OnEmpty = Literal["error", "popular", "blank"]

# A block of scores that stays in a core's cache is made about 1.5 times as fast as one that does not; an
# accelerator wants it large. Below 16 rows the item table would be read from memory too often.
CPU_CELLS, DEVICE_CELLS, FEWEST_ROWS = 2**20, 2**26, 16


NO_ITEM = (
    "no known item; leave it out, or say what to do with such a history: on_empty='popular' or 'blank' "
    "(--on-empty in a shell)"
)


class EmptyHistoryError(ValueError):
    """A history has no known item, and may not have none.

    Args:
        row: Which one, counted from 0.

    Attributes:
        row: The same.
    """

    def __init__(self, row: int) -> None:
        self.row = row
        super().__init__(f"history {row} (counted from 0) has {NO_ITEM}")

    def of(self, user: object) -> str:
        """Gives what is said where it is a user's."""
        return (
            f"user {user!r:.60} has no item that the model knows; leave them out, or say what to do with such users: "
            "on_empty='popular' or 'blank' (--on-empty in a shell)"
        )


class ScoresError(ValueError):
    """A model's scores are not numbers."""


@dataclass(frozen=True, eq=False)
class Query:
    """What is asked of every history.

    Attributes:
        k: Items to give.
        exclude_seen: Leave out what is in the history.
        candidates: int64, item numbers in ascending order; None for the whole catalogue.
        exclude: int64, item numbers to leave out for everybody.
        on_empty: What to do with a history of no items.
        batch_size: Histories encoded at once.

    Raises:
        ValueError: if ``on_empty`` is none of the known values.
    """

    k: int
    exclude_seen: bool
    candidates: Tensor | None
    exclude: Tensor
    on_empty: OnEmpty
    batch_size: int

    def __post_init__(self) -> None:
        """Refuses an ``on_empty`` that no branch of the ranking would know."""
        check_choice("on_empty", self.on_empty, get_args(OnEmpty))


class Ranker:
    """Answers one query for any number of histories.

    Args:
        scorer: The model.
        query: What is asked.
        counts: float ``[V]``, the scores of items for an empty history; None where they are unknown.

    Raises:
        ValueError: if counts are needed and unknown.
    """

    def __init__(self, scorer: Scorer, query: Query, counts: Tensor | None) -> None:
        if query.on_empty == "popular" and counts is None:
            raise ValueError(
                "on_empty='popular' (--on-empty in a shell) needs item counts, which this model was saved without"
            )
        self.scorer = scorer
        self.query = query
        self.device = device_of(scorer)
        self.numbers = torch.arange(1, scorer.n_items + 1, device=self.device)
        self.column_of = torch.arange(-1, scorer.n_items, device=self.device)
        self.counts = None if counts is None else counts.to(self.device)
        if query.candidates is not None:
            self.numbers = query.candidates.to(self.device)
            self.column_of = torch.full((scorer.n_items + 1,), -1, device=self.device)
            self.column_of[self.numbers] = torch.arange(self.numbers.numel(), device=self.device)
            self.counts = None if self.counts is None else self.counts[self.numbers - 1]
        self.width = min(query.k, self.numbers.numel())
        excluded = self.column_of[query.exclude.to(self.device)]
        self.excluded = excluded[excluded >= 0]
        self.table = self._table()
        cells = CPU_CELLS if self.device.type == "cpu" else DEVICE_CELLS
        self.block_rows = max(1, min(max(FEWEST_ROWS, cells // scorer.n_items), DEVICE_CELLS // scorer.n_items))

    def rank(
        self, histories: Sequences, exclude: Sequences | None, *, first: int, candidates: Sequences | None = None
    ) -> tuple[Tensor, Tensor]:
        """Gives the best items for each history.

        Args:
            histories: ``B`` sequences of item numbers, on the CPU.
            exclude: ``B`` sequences of item numbers to leave out; None for none.
            first: The row of the first history in the whole request, for errors.
            candidates: ``B`` sequences of item numbers, those that may be recommended for each history; None: all.

        Returns:
            int64 ``[B, min(k, C)]`` item numbers of the ``C`` candidates, best first, 0 where there are no more;
            float32 scores of the same shape, -inf where there are no more. Both on the CPU.

        Raises:
            ValueError: if a history is empty and may not be, or scores are not numbers.
        """
        numbers = torch.zeros(len(histories), self.width, dtype=torch.int64)
        scores = torch.full((len(histories), self.width), -torch.inf)
        empty = (histories.lengths == 0).nonzero().flatten()
        self._refuse_empty(empty, first)
        # Histories of like length are encoded together: an encoder that pads inside then pads little.
        order = histories.lengths.argsort(stable=True)[empty.numel() :]
        if self.query.on_empty == "popular":
            order = torch.cat([empty, order])
        for rows in parts(order, self.query.batch_size):
            seqs = histories.select(rows).to(self.device)
            hidden = [seqs] if self.query.exclude_seen else []
            if exclude is not None:
                hidden.append(exclude.select(rows).to(self.device))
            own = None if candidates is None else candidates.select(rows).to(self.device)
            start = 0
            for block in self._scores(seqs):
                part = torch.arange(start, start + len(block), device=self.device)
                only = None if own is None else own.select(part)
                best = self._best(block, [one.select(part) for one in hidden], only)
                at = rows[start : start + len(block)]
                numbers[at], scores[at] = (one.cpu() for one in best)
                start += len(block)
        return numbers, scores

    def _at(self, scores: Tensor, candidates: Sequences) -> Tensor:
        """Gives scores float ``[b, C]`` that are -inf but at each row's own candidates."""
        columns = self.column_of[candidates.ids]
        at = candidates.rows[columns >= 0], columns[columns >= 0]
        return torch.full_like(scores, -torch.inf).index_put_(at, scores[at])

    def _best(self, scores: Tensor, hidden: list[Sequences], only: Sequences | None) -> tuple[Tensor, Tensor]:
        """Gives numbers and scores of the best items; writes into ``scores`` float ``[b, C]``."""
        scores = scores if only is None else self._at(scores, only)
        scores[:, self.excluded] = -torch.inf
        for seqs in hidden:
            columns = self.column_of[seqs.ids]
            known = columns >= 0
            scores[seqs.rows[known], columns[known]] = -torch.inf
        values, columns = top_k(scores, self.width)
        if bool(values.isnan().any()):
            raise ScoresError("the model's scores are not numbers; its weights are damaged or training diverged")
        return torch.where(values == -torch.inf, 0, self.numbers[columns]), values

    def _scores(self, seqs: Sequences) -> Iterator[Tensor]:
        """Gives blocks of scores, float ``[b, C]``, that together answer all of ``seqs``.

        A block may be written into, and holds until the next one is asked for.
        """
        n_empty = int((seqs.lengths == 0).sum())
        if n_empty and self.counts is not None:
            for rows in parts(torch.arange(n_empty), self.block_rows):
                yield self.counts.repeat(len(rows), 1)
            seqs = seqs.select(torch.arange(n_empty, len(seqs), device=self.device))
        if not len(seqs):
            return
        if self.table is not None and isinstance(self.scorer, Encoder):
            products = Products(self.table, self.block_rows)
            for users in parts(self.scorer(seqs), self.block_rows):
                yield products(users).float()
            return
        for rows in parts(torch.arange(len(seqs), device=self.device), self.block_rows):
            strangers = torch.full_like(rows, -1)
            # Indexing copies, so that a scorer's own memory is never written into.
            yield self.scorer.scores(strangers, seqs.select(rows))[:, self.numbers - 1].float()

    def _table(self) -> Tensor | None:
        """Gives the candidates' vectors where scores are inner products with them."""
        if not scores_are_products(self.scorer):
            return None
        table = self.scorer.items.candidates
        return table if self.query.candidates is None else table[self.numbers - 1]

    def _refuse_empty(self, empty: Tensor, first: int) -> None:
        if empty.numel() and self.query.on_empty == "error":
            raise EmptyHistoryError(first + int(empty[0]))


@dataclass(frozen=True, eq=False)
class Answer:
    """The best items for each of ``B`` histories.

    Attributes:
        numbers: int64 ``[B, n]`` with ``n`` the smaller of ``k`` and the candidates: item numbers, best first; 0
            where there are no more.
        scores: float32 ``[B, n]``; -inf where there are no more.
        dropped: Unknown items left out of the histories.
        empty: int64, the rows without a known item.
    """

    numbers: Tensor
    scores: Tensor
    dropped: int
    empty: Tensor


def answer(
    ranker: Ranker, blocks: Iterator[Block], exclude: Iterator[Block] | None, candidates: Iterator[Block] | None = None
) -> Answer:
    """Gives the best items for all histories of ``blocks``.

    Args:
        ranker: The model and the query.
        blocks: The histories.
        exclude: Items to leave out, in blocks of the same sizes; None for none.
        candidates: Items that may be recommended, in blocks of the same sizes; None for all that the query allows.

    Returns:
        The answer, on the CPU.

    Raises:
        ValueError: if there are more or fewer lists of items to leave out, or of candidates, than histories, or as in
            :meth:`Ranker.rank`.
    """
    numbers = [torch.zeros(0, ranker.width, dtype=torch.int64)]
    scores = [torch.zeros(0, ranker.width)]
    empty = [torch.zeros(0, dtype=torch.int64)]
    first = dropped = 0
    given = {"exclude": exclude, "candidates": candidates}
    for block, *beside in zip_longest(blocks, *(() if one is None else one for one in given.values())):
        for (what, asked), own in zip(given.items(), beside, strict=True):
            if asked is not None and (block is None or own is None or len(block[0]) != len(own[0])):
                raise ValueError(f"{what}: there must be one list of items per history, or one list for all")
        seqs, left_out = block
        hidden, only = (None if own is None else own[0] for own in beside)
        best = ranker.rank(seqs, hidden, first=first, candidates=only)
        numbers.append(best[0])
        scores.append(best[1])
        empty.append((seqs.lengths == 0).nonzero().flatten() + first)
        dropped += left_out
        first += len(seqs)
    return Answer(torch.cat(numbers), torch.cat(scores), dropped, torch.cat(empty))


def parts(rows: Tensor, size: int) -> Iterator[Tensor]:
    """Gives ``rows`` in parts of at most ``size``, as views."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def device_of(scorer: Scorer) -> torch.device:
    """Gives the device that holds the scorer."""
    for tensor in chain(scorer.parameters(), scorer.buffers()):
        return tensor.device
    return torch.device("cpu")
