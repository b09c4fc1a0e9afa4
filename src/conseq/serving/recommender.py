"""Recommendations in outside ids, from histories in outside ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from conseq.data.log import InteractionLog
from conseq.data.sequences import Sequences
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.comirec import MultiInterest
from conseq.encoders.encoder import Encoder, Scorer
from conseq.serving.arguments import number_of_items, whole
from conseq.serving.beside import ByUser, items_beside, items_by_user
from conseq.serving.bundle import load_bundle
from conseq.serving.histories import (
    Block,
    Unknown,
    as_id,
    chosen_users,
    encode_blocks,
    encode_log,
    histories_of,
    rows_of,
)
from conseq.serving.ranking import Answer, EmptyHistoryError, OnEmpty, Query, Ranker, answer, device_of, parts
from conseq.serving.recommendations import Recommendations, table_of
from conseq.serving.topk import top_k

SIMILAR_CELLS = 2**22
ENCODED_AT_ONCE = 512
# A vector of zeros has the cosine 0 with all others.
SHORTEST = 1e-12


class Recommender:
    """A scorer together with the outside ids of its items.

    Ids are strings; an integer is accepted for its decimal string. It may be used from several threads.

    Args:
        scorer: The model; it is put into evaluation mode.
        item_ids: Outside ids of the items ``1..n_items``.
        counts: How often each item was met, int ``[V]``; needed for ``on_empty="popular"``.

    Raises:
        ValueError: if the vocabulary or the counts do not fit the scorer.
    """

    def __init__(self, scorer: Scorer, item_ids: Vocabulary, *, counts: npt.ArrayLike | None = None) -> None:
        if len(item_ids) != scorer.n_items or item_ids.start != 1:
            raise ValueError(f"the scorer has items 1..{scorer.n_items}, the vocabulary is {item_ids!r}")
        self.scorer = scorer.eval()
        self.item_ids = item_ids
        self.counts = None if counts is None else torch.as_tensor(np.array(counts, dtype=np.float32))
        if self.counts is not None and self.counts.numel() != scorer.n_items:
            raise ValueError(f"counts of {self.counts.numel()} items given for {scorer.n_items} items")

    @classmethod
    def load(cls, path: Path | str, *, device: torch.device | str = "cpu") -> Recommender:
        """Gives the recommender in a bundle.

        Args:
            path: The bundle's folder, or that of a finished run.
            device: Where to compute.

        Returns:
            The recommender.

        Raises:
            FileNotFoundError: if there is no bundle, or one of its files is missing.
            ValueError: if a file is damaged, of another format or a newer version, or the encoder is unknown; the
                message names the file.
        """
        bundle = load_bundle(path, device)
        return cls(bundle.encoder, bundle.item_ids, counts=bundle.counts)

    @torch.inference_mode()
    def recommend(
        self,
        histories: Iterable[object],
        k: int = 10,
        *,
        exclude_seen: bool = True,
        candidates: Iterable[object] | None = None,
        exclude: Iterable[object] | None = None,
        unknown: Unknown = "drop",
        on_empty: OnEmpty = "error",
        batch_size: int = ENCODED_AT_ONCE,
    ) -> Recommendations:
        """Gives the ``k`` best items for each history, over the whole catalogue.

        Histories are read and answered in blocks, so memory beyond the answer does not grow with their number.

        Args:
            histories: Item ids, oldest first, of one history; or any number of such lists (any iterable).
            k: Items to recommend, at least 1.
            exclude_seen: Never recommend what is in the history, however far back.
            candidates: Only these items are recommended: one list for all histories, or one list per history; unknown
                ones are treated as ``unknown`` says.
            exclude: Items never recommended: one list for all histories, or one list per history.
            unknown: ``drop`` leaves unknown items out and counts those of histories; ``error`` refuses any by name.
            on_empty: What to do where no known item is left: ``error``; ``popular`` recommends the items met
                most often, scored by their counts; ``blank`` leaves the row empty.
            batch_size: Histories encoded at once.

        Returns:
            Ids and scores, best first.

        Raises:
            ValueError: if a history is empty and may not be, no candidate for all is known, ``k`` or ``batch_size`` is
                less than 1, ``k`` is beyond the catalogue and a million, ``unknown`` or ``on_empty`` is no known value,
                lists to exclude, or of candidates, are not one per history, what is popular is not known, or scores
                are not numbers.
            KeyError: if an item is unknown and may not be.
            TypeError: if ids are neither strings nor integers, ``k`` or ``batch_size`` is no integer, or what should
                be a list is a string, a mapping or a set.
        """
        rows, one = rows_of(histories, what="histories")
        excluded, excluded_of_each = self._exclusions(exclude, unknown)
        among, among_of_each = self._candidates(candidates, unknown)
        query = self._query(
            k,
            exclude_seen=exclude_seen,
            candidates=among,
            exclude=excluded,
            on_empty=on_empty,
            batch_size=batch_size,
        )
        blocks = encode_blocks(rows, self.item_ids, unknown=unknown, what="histories")
        return self._recommendations(self._answer(blocks, excluded_of_each, among_of_each, query), query.k, one=one)

    @torch.inference_mode()
    def recommend_table(
        self,
        histories: InteractionLog | Mapping[Any, Sequence[object]],
        k: int = 10,
        *,
        users: Iterable[object] | None = None,
        exclude_seen: bool = True,
        candidates: Iterable[object] | ByUser | None = None,
        exclude: Iterable[object] | None = None,
        unknown: Unknown = "drop",
        on_empty: OnEmpty = "error",
    ) -> pl.DataFrame:
        """Gives recommendations as a table with one row per user and item, best first.

        Args:
            histories: A log, or the history of each user by user id.
            k: Items to recommend, at least 1.
            users: Ids of the users to answer for, strings or integers; all where None.
            exclude_seen: Never recommend what is in the history.
            candidates: Only these items are recommended: one list for all users; or each user's own, as a mapping from
                user ids to lists, or a log.
            exclude: Items never recommended, one list for all users.
            unknown: ``drop`` or ``error``, as in :meth:`recommend`.
            on_empty: ``error``, ``popular`` or ``blank``, as in :meth:`recommend`; a blank user has no rows.

        Returns:
            Columns ``user_id``, ``item_id`` (strings), ``score`` (float32) and ``rank`` (from 1); where ``on_empty`` is
            ``popular`` also ``source``: ``model``, or ``popularity`` where the scores are counts. Call its
            ``to_pandas()`` for a pandas frame.

        Raises:
            ValueError: as in :meth:`recommend`, or if two users of a mapping have the same id, such as 1 and "1".
            KeyError: if a user is unknown or lacks candidates, or an item is unknown and may not be.
            TypeError: as in :meth:`recommend`; if ``histories`` has no users, or there is a list per history.
        """
        excluded, excluded_of_each = self._exclusions(exclude, unknown)
        if excluded_of_each is not None:
            raise TypeError("exclude: a table takes one list of items for all users")
        if isinstance(histories, InteractionLog):
            chosen = histories.user_ids.ids if users is None else chosen_users(users, histories.user_ids)
            blocks = encode_log(histories, histories.user_ids.encode(chosen), self.item_ids, unknown=unknown)
        else:
            chosen, rows = histories_of(histories, users)
            blocks = encode_blocks(rows, self.item_ids, unknown=unknown, what="histories")
        among, among_of_each = self._candidates_of(chosen, candidates, unknown)
        query = self._query(
            k,
            exclude_seen=exclude_seen,
            candidates=among,
            exclude=excluded,
            on_empty=on_empty,
            batch_size=ENCODED_AT_ONCE,
        )
        try:
            found = self._answer(blocks, None, among_of_each, query)
        except EmptyHistoryError as error:
            raise ValueError(error.of(chosen[error.row])) from None
        return table_of(found, chosen, self.item_ids.ids, sources=on_empty == "popular")

    @torch.inference_mode()
    def similar_items(self, items: Iterable[object], k: int = 10) -> Recommendations:
        """Gives the items whose vectors have the largest cosine with an item's, without the item itself.

        Args:
            items: One item id, or any number of them.
            k: Items to give, at least 1.

        Returns:
            Ids and cosines, best first, ``[k]`` for one item by itself, else ``[B, k]``.

        Raises:
            KeyError: if an item is unknown.
            TypeError: if an id is neither a string nor an integer, ``k`` is no integer, or the model has no vectors.
            ValueError: if ``k`` is less than 1, or beyond the catalogue and a million.
        """
        if isinstance(items, (Mapping, AbstractSet)):
            raise TypeError(f"items: expected an item id or a list of them, found {type(items).__name__}")
        one = isinstance(items, (str, int, np.integer))
        wanted = [as_id(item) for item in ([items] if one else items)]
        numbers = torch.from_numpy(self.item_ids.encode(wanted))
        encoder, device = self._encoder(), device_of(self.scorer)
        k = number_of_items(k, self.scorer.n_items)
        width = min(k, self.scorer.n_items)
        found = torch.zeros(len(wanted), width, dtype=torch.int64)
        cosines = torch.full((len(wanted), width), -torch.inf)
        table = encoder.items.candidates.float()
        lengths = table.norm(dim=1).clamp(min=SHORTEST)
        for rows in parts(torch.arange(len(wanted)), max(1, SIMILAR_CELLS // self.scorer.n_items)):
            at = (numbers[rows] - 1).to(device)
            block = (table[at] @ table.T).div_(lengths).div_(lengths[at, None])
            block[torch.arange(len(at), device=device), at] = -torch.inf
            values, columns = top_k(block, width)
            cosines[rows] = values.cpu()
            found[rows] = torch.where(values == -torch.inf, 0, columns + 1).cpu()
        answer = Answer(found, cosines, 0, torch.zeros(0, dtype=torch.int64))
        return self._recommendations(answer, k, one=one)

    def item_vectors(self) -> tuple[list[str], npt.NDArray[np.float32]]:
        """Gives all item ids and their vectors, float32 ``[V, D]``, for an index of the user's own.

        Scores are inner products of these with :meth:`user_vectors`.

        Returns:
            The ids and the vectors, a copy.

        Raises:
            TypeError: if the model has no vectors.
        """
        vectors = self._encoder().items.candidates.detach().float().cpu().numpy().copy()
        return list(self.item_ids.ids), vectors

    @torch.inference_mode()
    def user_vectors(self, histories: Iterable[object], *, unknown: Unknown = "drop") -> npt.NDArray[np.float32]:
        """Gives the vectors of histories, float32 ``[B, D]``, or ``[D]`` for one history by itself.

        An encoder of several interests gives ``[B, K, D]``, or ``[K, D]``: an item's score is the greatest of its inner
        products with them.

        Args:
            histories: As in :meth:`recommend`.
            unknown: ``drop`` or ``error``, as in :meth:`recommend`.

        Returns:
            The vectors.

        Raises:
            ValueError: if a history has no known item, or ``unknown`` is no known value.
            KeyError: if an item is unknown and may not be.
            TypeError: if ids are neither strings nor integers, or the model has no vectors.
        """
        rows, one = rows_of(histories, what="histories")
        encoder, device = self._encoder(), device_of(self.scorer)
        of: Callable[[Sequences], Tensor] = encoder
        shape: tuple[int, ...] = (encoder.items.width,)
        if isinstance(encoder, MultiInterest):
            of, shape = encoder.interests, (encoder.config.interests, *shape)
        done = [torch.zeros(0, *shape)]
        first = 0
        for seqs, _ in encode_blocks(rows, self.item_ids, unknown=unknown, what="histories"):
            if len(seqs) and not bool(seqs.lengths.all()):
                row = first + int((seqs.lengths == 0).nonzero()[0])
                raise ValueError(f"history {row} has no known item, so it has no vector")
            for part in parts(torch.arange(len(seqs)), ENCODED_AT_ONCE):
                done.append(of(seqs.select(part).to(device)).float().cpu())
            first += len(seqs)
        vectors: npt.NDArray[np.float32] = torch.cat(done).numpy()
        return vectors[0] if one else vectors

    @cached_property
    def _names(self) -> npt.NDArray[np.object_]:
        """Outside ids by item number; None at 0."""
        names = np.empty(len(self.item_ids) + 1, dtype=object)
        names[1:] = self.item_ids.ids
        return names

    def _encoder(self) -> Encoder:
        if not isinstance(self.scorer, Encoder):
            raise TypeError(f"{type(self.scorer).__name__} has no vectors; an encoder is needed")
        return self.scorer

    def _query(
        self,
        k: int,
        *,
        exclude_seen: bool,
        candidates: Tensor | None,
        exclude: Tensor,
        on_empty: OnEmpty,
        batch_size: int,
    ) -> Query:
        k, batch_size = number_of_items(k, self.scorer.n_items), whole("batch_size", batch_size)
        return Query(k, exclude_seen, candidates, exclude, on_empty, batch_size)

    def _exclusions(self, exclude: Iterable[object] | None, unknown: Unknown) -> tuple[Tensor, Iterator[Block] | None]:
        """Gives the numbers excluded for everybody, and blocks of those excluded for each history, if any.

        An unknown item is never recommended anyway; where ``unknown`` is ``error``, it may still be a slip of the pen.
        """
        return items_beside([] if exclude is None else exclude, self.item_ids, unknown=unknown, what="exclude")

    def _candidates(
        self, candidates: Iterable[object] | None, unknown: Unknown
    ) -> tuple[Tensor | None, Iterator[Block] | None]:
        """Gives the numbers of the candidates for everybody, and blocks of those for each history; None: all items."""
        if candidates is None:
            return None, None
        for_all, for_each = items_beside(candidates, self.item_ids, unknown=unknown, what="candidates")
        if for_each is not None:
            return None, for_each
        if not for_all.numel():
            raise ValueError("candidates: none of them is a known item, so nothing can be recommended")
        return torch.from_numpy(np.unique(for_all.numpy())), None

    def _candidates_of(
        self, users: Sequence[str], candidates: Iterable[object] | ByUser | None, unknown: Unknown
    ) -> tuple[Tensor | None, Iterator[Block] | None]:
        """Gives the same for users, each of whom may have candidates by id."""
        if isinstance(candidates, InteractionLog | Mapping):
            return None, items_by_user(candidates, users, self.item_ids, unknown=unknown, what="candidates")
        for_all, for_each = self._candidates(candidates, unknown)
        if for_each is not None:
            raise TypeError("candidates: a table takes one list of items for all users, or a mapping by user id")
        return for_all, None

    def _answer(
        self,
        blocks: Iterator[Block],
        exclude: Iterator[Block] | None,
        candidates: Iterator[Block] | None,
        query: Query,
    ) -> Answer:
        return answer(Ranker(self.scorer, query, self.counts), blocks, exclude, candidates)

    def _recommendations(self, found: Answer, k: int, *, one: bool) -> Recommendations:
        padding = (0, k - found.numbers.shape[1])
        ids = self._names[F.pad(found.numbers, padding).numpy()]
        scores = F.pad(found.scores, padding, value=-torch.inf).numpy()
        if one:
            ids, scores = ids[0], scores[0]
        return Recommendations(ids, scores, found.dropped, found.empty.numpy())
