"""Where a model is good: the metrics of parts of the users or of the targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from conseq.data.splits import HeldOut
from conseq.evaluation.metrics import Floats, Offsets, means
from conseq.evaluation.ranks import contained

Slices = dict[str, dict[str, dict[str, float]]]
Parts = dict[str, Mapping[str, npt.NDArray[np.bool_]]]

LENGTHS = (5, 10, 20, 50)
POPULARITIES = (0, 5, 20, 100)


def slices(
    held_out: HeldOut,
    ranks: Floats,
    names: Sequence[str],
    *,
    counts: npt.NDArray[np.int64] | None = None,
    lengths: Sequence[int] = LENGTHS,
    popularities: Sequence[int] = POPULARITIES,
) -> Slices:
    """Gives the metrics of parts of the held-out cases.

    ``history`` (length of the history) and, of a log with times, ``time tie`` (whether the tie rule, not time, decided
    what the target is) part the users. ``popularity`` (the target's training interactions) and ``repeat`` (whether the
    target is already in the history) part the targets, each of which then counts as a case of its own.

    Args:
        held_out: What was judged; each user's targets different from one another.
        ranks: float64 ``[N]``, one per target.
        names: Metrics of ranks, such as ``HR@10``.
        counts: ``[V]``, the training interactions of item ``j + 1``; None: no slices by popularity.
        lengths: The greatest history length of each bin but the last.
        popularities: The greatest count of each bin but the last.

    Returns:
        By cut, by bin: the number of ``cases`` and their mean metrics. Empty bins are left out.
    """
    offsets: Offsets = held_out.targets.offsets.cpu().numpy()
    single: Offsets = np.arange(ranks.size + 1)
    by_user, by_target = parts(held_out, counts=counts, lengths=lengths, popularities=popularities)
    found: Slices = {}
    for cut, masks in by_user.items():
        found[cut] = {part: _metrics(names, ranks, offsets, mask) for part, mask in masks.items()}
    for cut, masks in by_target.items():
        found[cut] = {part: _metrics(names, ranks, single, mask) for part, mask in masks.items()}
    return found


def parts(
    held_out: HeldOut,
    *,
    counts: npt.NDArray[np.int64] | None = None,
    lengths: Sequence[int] = LENGTHS,
    popularities: Sequence[int] = POPULARITIES,
) -> tuple[Parts, Parts]:
    """Gives who, and what, is in each part of :func:`slices`.

    Args:
        held_out: What was judged; each user's targets different from one another.
        counts: As of :func:`slices`, as are the others.
        lengths: The greatest history length of each bin but the last.
        popularities: The greatest count of each bin but the last.

    Returns:
        The parts of the users, bool ``[B]`` by cut and name; and those of the targets, bool ``[N]``.
    """
    targets = held_out.targets
    repeated = contained(targets, held_out.histories).cpu().numpy()
    by_user = {"history": _binned(held_out.histories.lengths.cpu().numpy(), lengths)}
    if held_out.timed:
        by_user["time tie"] = _named(held_out.tied.cpu().numpy())
    by_target = {"repeat": _named(repeated)}
    if counts is not None:
        by_target["popularity"] = _binned(counts[targets.ids.cpu().numpy() - 1], popularities)
    return by_user, by_target


def _metrics(names: Sequence[str], ranks: Floats, offsets: Offsets, mask: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Gives the metrics of the cases in ``mask``, bool ``[B]``."""
    sizes = np.diff(offsets)
    kept = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes[mask])])
    return {"cases": float(mask.sum())} | means(list(names), ranks[np.repeat(mask, sizes)], kept)


def _binned(values: npt.NDArray[np.int64], edges: Sequence[int]) -> Mapping[str, npt.NDArray[np.bool_]]:
    """Gives the cases of each non-empty bin; ``edges`` are the bins' greatest values, ascending."""
    bins = np.searchsorted(np.asarray(edges), values)
    names = [_name(low + 1, high) for low, high in zip([-1, *edges[:-1]], edges, strict=True)]
    names.append(f">{edges[-1]}")
    return {name: bins == number for number, name in enumerate(names) if np.any(bins == number)}


def _name(low: int, high: int) -> str:
    if low == high:
        return str(high)
    return f"<={high}" if low <= 0 else f"{low}-{high}"


def _named(flags: npt.NDArray[np.bool_]) -> Mapping[str, npt.NDArray[np.bool_]]:
    """Gives the cases with and without a flag, where there are any."""
    return {name: mask for name, mask in (("yes", flags), ("no", ~flags)) if mask.any()}
