"""Judges a scorer on a held-out part of a log, under a stated protocol."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from conseq.data.sequences import Sequences
from conseq.data.sequences import slices as part_of
from conseq.data.splits import HeldOut
from conseq.encoders.encoder import Scorer, scores_are_products
from conseq.encoders.floors import OwnHistory, Popularity, item_counts
from conseq.encoders.sparse import SparseScores, scores_are_sparse
from conseq.evaluation.metrics import Floats, coverage, mean_popularity, means
from conseq.evaluation.ranks import Protocol, distinct, target_ranks, top_items
from conseq.evaluation.result import Evaluation
from conseq.evaluation.slices import slices
from conseq.nn.products import Products

_CPU_SCORES = 2**22
"""Scores held at a time on a CPU (16 MiB of float32); larger blocks leave its last cache."""
_DEVICE_SCORES = 2**28
_SPARSE_ROWS = 4096


@dataclass(frozen=True)
class _Judged:
    """Per target, in the order of the held-out part: rank and number of equals; and the lists, where asked for."""

    ranks: Floats
    equals: npt.NDArray[np.int64]
    lists: npt.NDArray[np.int64] | None


def evaluate(
    scorer: Scorer,
    held_out: HeldOut,
    protocol: Protocol,
    *,
    ks: Sequence[int] = (5, 10, 20),
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    train: Sequences | None = None,
    lists: bool = False,
) -> Evaluation:
    """Gives the ranks of all held-out targets in the full catalogue, and their metrics.

    The scorer is put in evaluation mode and each of its modules back into its own mode. A target named twice for one
    user counts once. Nothing is random. A ``ValueError`` tells of a held-out part without users, item numbers outside
    the catalogue, and of scores that are NaN, ``+inf`` or of another shape.

    Args:
        scorer: Scores every item for a history.
        held_out: Histories, and the targets that came after them.
        protocol: How to judge. ``split`` and ``slicing`` are recorded, ``history`` and ``ties`` are obeyed.
        ks: Cut-offs of the metrics.
        batch_size: Histories scored at a time; None: as many as keep the scores in cache.
        device: Where to score; None: where the scorer is. The scorer is moved back afterwards.
        train: What the model was trained on. Given, the floors (popularity, own history) are judged too, and
            the slices by popularity made; without it neither.
        lists: Whether to make every user's list of the best ``max(ks)`` items, for ``Coverage@k`` and
            (with ``train``) ``MeanPopularity@k``.

    Returns:
        The evaluation, users in the order of ``held_out``.
    """
    held_out = _on_cpu(held_out)
    _check(held_out, scorer.n_items, ks)
    started = time.perf_counter()
    top = max(ks) if lists else 0
    judged = _judge(scorer, held_out, protocol, batch_size=batch_size, device=device, top=top)
    seconds = time.perf_counter() - started
    counts = None if train is None else item_counts(train, scorer.n_items).cpu().numpy()
    names = _names(ks, several=held_out.targets.max_length > 1)
    offsets = held_out.targets.offsets.numpy()
    floors = {} if train is None else _floors(train, scorer.n_items)
    return Evaluation(
        model=type(scorer).__name__,
        protocol=protocol,
        users=held_out.users.numpy(),
        ranks=judged.ranks,
        offsets=offsets,
        n_items=scorer.n_items,
        metrics=means(names, judged.ranks, offsets) | _of_lists(judged.lists, scorer.n_items, ks, counts),
        seconds=seconds,
        held_out=digest(held_out),
        floors={
            name: means(names, _judge(floor, held_out, protocol, batch_size=batch_size).ranks, offsets)
            for name, floor in floors.items()
        },
        slices=slices(held_out, judged.ranks, names, counts=counts),
        counts=_counts(judged, offsets, scorer.n_items),
    )


def _judge(
    scorer: Scorer,
    held_out: HeldOut,
    protocol: Protocol,
    *,
    batch_size: int | None,
    device: torch.device | str | None = None,
    top: int = 0,
) -> _Judged:
    """Gives ranks (and lists of ``top`` items, where not 0) of one scorer."""
    targets = held_out.targets
    ranks = torch.empty(targets.ids.numel(), dtype=torch.float64)
    equals = torch.empty(targets.ids.numel(), dtype=torch.int64)
    lists = torch.empty(len(targets), min(top, scorer.n_items), dtype=torch.int64)
    tokens = torch.arange(targets.ids.numel())
    # Histories of one length share a batch, the longest first: what does not fit in memory fails at once.
    order = torch.argsort(held_out.histories.lengths, descending=True, stable=True)
    with _judging(scorer, device) as where:
        size = batch_size or _batch_size(scorer, where)
        score = _scoring(scorer, min(size, len(order)))
        for rows in torch.split(order, size):
            asked = targets.select(rows)
            histories = held_out.histories.select(rows).to(where)
            scores = score(held_out.users[rows].to(where), histories)
            _check_scores(scores, len(rows), scorer)
            excluded = histories if protocol.history == "exclude" else None
            found = target_ranks(scores, asked.to(where), excluded=excluded, ties=protocol.ties)
            places = part_of(tokens, targets.offsets[rows], asked.lengths).ids
            ranks[places], equals[places] = found.rank.cpu(), found.equals.cpu()
            if top:
                lists[rows] = top_items(scores, top, excluded=excluded).cpu()
    return _Judged(ranks.numpy(), equals.numpy(), lists.numpy() if top else None)


def _scoring(scorer: Scorer, rows: int) -> Callable[[Tensor, Sequences], Tensor | SparseScores]:
    """Gives what scores at most ``rows`` histories; what it gives holds until it is called again."""
    if scores_are_sparse(scorer):
        return scorer.sparse
    if not scores_are_products(scorer):
        return scorer.scores
    products = Products(scorer.items.candidates, rows)
    return lambda users, histories: products(scorer(histories))


@contextmanager
def _judging(scorer: Scorer, device: torch.device | str | None) -> Iterator[torch.device]:
    """Puts the scorer in evaluation mode on ``device``, and everything back afterwards."""
    modes = {module: module.training for module in scorer.modules()}
    home = _home(scorer)
    where = home if device is None else torch.device(device)
    try:
        scorer.eval()
        if where != home:
            scorer.to(where)
        with torch.no_grad():
            yield where
    finally:
        if where != home:
            scorer.to(home)
        for module, training in modes.items():
            module.training = training


def _home(module: nn.Module) -> torch.device:
    """Gives the device of the first parameter or buffer; the CPU where there is none."""
    for tensor in (*module.parameters(), *module.buffers()):
        return tensor.device
    return torch.device("cpu")


def _batch_size(scorer: Scorer, where: torch.device) -> int:
    n_items = scorer.n_items
    if scores_are_sparse(scorer):
        return _SPARSE_ROWS
    if where.type == "cpu":
        return max(16, min(512, _CPU_SCORES // n_items))
    return max(16, min(8192, _DEVICE_SCORES // n_items))


def _names(ks: Sequence[int], *, several: bool) -> list[str]:
    kinds = ("HR", "Recall", "NDCG", "ComiRecNDCG") if several else ("HR", "NDCG")
    return [f"{kind}@{k}" for kind in kinds for k in sorted(set(ks))] + ["MRR"]


def _counts(judged: _Judged, offsets: npt.NDArray[np.int64], n_items: int) -> dict[str, int]:
    return {
        "users": offsets.size - 1,
        "targets": judged.ranks.size,
        "items": n_items,
        "unreachable": int(np.isinf(judged.ranks).sum()),
        "score_tied": int((judged.equals > 0).sum()),
    }


def _of_lists(
    lists: npt.NDArray[np.int64] | None,
    n_items: int,
    ks: Sequence[int],
    counts: npt.NDArray[np.int64] | None,
) -> dict[str, float]:
    """Gives the metrics of the recommended lists, where there are lists."""
    if lists is None:
        return {}
    found = {f"Coverage@{k}": coverage(lists, n_items, k) for k in sorted(set(ks))}
    if counts is not None:
        found |= {f"MeanPopularity@{k}": mean_popularity(lists, counts, k) for k in sorted(set(ks))}
    return found


def _floors(train: Sequences, n_items: int) -> dict[str, Scorer]:
    """Gives the models that learn nothing, by the name that is printed."""
    return {"popularity": Popularity.from_train(train, n_items), "own history": OwnHistory(n_items)}


def _on_cpu(held_out: HeldOut) -> HeldOut:
    """Gives the held-out part on the CPU, every target once."""
    return replace(
        held_out,
        users=held_out.users.cpu(),
        histories=held_out.histories.to("cpu"),
        targets=distinct(held_out.targets.to("cpu")),
        tied=held_out.tied.cpu(),
    )


def _check(held_out: HeldOut, n_items: int, ks: Sequence[int]) -> None:
    if not len(held_out.targets):
        raise ValueError("the held-out part has no users; nothing can be judged")
    if not ks or min(ks) < 1:
        raise ValueError(f"cut-offs must be whole numbers of at least 1, found {list(ks)}")
    for what, sequences in (("targets", held_out.targets), ("histories", held_out.histories)):
        if len(sequences) != len(held_out.users):
            raise ValueError(f"{len(sequences)} {what} for {len(held_out.users)} users; expected as many")
        empty = torch.nonzero(sequences.lengths == 0)
        if empty.numel():
            user = int(held_out.users[empty[0, 0]])
            raise ValueError(f"user {user} has no {what}; every held-out user needs at least one item")
        low, high = int(sequences.ids.min()), int(sequences.ids.max())
        if low < 1 or high > n_items:
            raise ValueError(f"{what} have item numbers {low}..{high}; the scorer knows 1..{n_items}")


def _check_scores(scores: Tensor | SparseScores, n_users: int, scorer: Scorer) -> None:
    if scores.shape != (n_users, scorer.n_items):
        raise ValueError(
            f"{type(scorer).__name__} gave scores of shape {list(scores.shape)} for {n_users} users and "
            f"{scorer.n_items} items; expected {[n_users, scorer.n_items]}"
        )


def digest(held_out: HeldOut) -> str:
    """Gives what tells a held-out part from others: a digest of its users, histories and targets.

    Args:
        held_out: The part.

    Returns:
        As in :attr:`conseq.evaluation.result.Evaluation.held_out`.
    """
    held_out = _on_cpu(held_out)
    state = hashlib.blake2b(digest_size=16)
    parts = (held_out.histories, held_out.targets)
    for tensor in (held_out.users, *(one for part in parts for one in (part.ids, part.offsets))):
        state.update(tensor.numpy().astype("<i8").tobytes())
    return state.hexdigest()
