"""A log cut into what is trained on and what is held out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from conseq.data.log import InteractionLog
from conseq.data.moments import day, unix_seconds
from conseq.data.sequences import Sequences

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Histories that a model may read, and the items that came after them.

    Attributes:
        users: int64 ``[B]``, the user's row in the log.
        histories: ``B`` sequences of at least one item each.
        targets: ``B`` sequences of at least one item each.
        tied: bool ``[B]``; True where the tie rule, not time, decided what the (first) target is.
        timed: Whether the log has times; without them, ``tied`` knows nothing and is False.
    """

    users: Tensor
    histories: Sequences
    targets: Sequences
    tied: Tensor
    timed: bool = True


@dataclass(frozen=True, eq=False)
class Split:
    """A log cut in three.

    Attributes:
        name: How it was cut: ``leave_one_out``, ``by_time`` or ``by_user``.
        settings: The arguments of the cut, for the record (JSON values).
        n_items: Items in the catalogue; item numbers are ``1..n_items``.
        n_users: Users in the log.
        train: One sequence per training user, in time order.
        train_users: int64, the row in the log of each training sequence.
        validation: For choosing an epoch.
        test: For the one judgement at the end.
        notes: Counts of what was left out and why, by reason.

    Raises:
        ValueError: if a part holds a user twice, its tensors do not fit together, a held-out user has an
            empty history or no target, or (``by_user``) two parts share a user.
    """

    name: str
    settings: dict[str, object]
    n_items: int
    n_users: int
    train: Sequences
    train_users: Tensor
    validation: HeldOut
    test: HeldOut
    notes: dict[str, int]

    def __post_init__(self) -> None:
        _refuse_misfit("train", self.train_users, {"train": self.train})
        parts = {"train": self.train_users}
        for part, held in (("validation", self.validation), ("test", self.test)):
            _refuse_misfit(part, held.users, {"histories": held.histories, "targets": held.targets})
            parts[part] = held.users
        if self.name == "by_user":
            _refuse_repeats("train, validation and test together", torch.cat(list(parts.values())))


def leave_one_out(log: InteractionLog) -> Split:
    """Gives each user's last item as the test target and the one before it as the validation target.

    Training holds the items before both. The test history holds the validation item too. Users with fewer
    than three interactions train whole and are not judged. Training sees what other users did after a
    judged user's target: :func:`by_time` does not let it.

    Args:
        log: The log.

    Returns:
        The split. ``notes`` counts users who are too short to be judged, and targets that do not occur in
        training.

    Raises:
        ValueError: if no user has three interactions.
    """
    lengths = _lengths(log)
    judged = lengths >= 3
    if not judged.any():
        raise ValueError(
            f"leave_one_out: none of the {log.n_users} users has 3 interactions, so nothing can be held out; "
            "use a longer log or a lower k-core"
        )
    ends = log.offsets[1:][judged]
    tokens = np.repeat(judged, lengths)
    before_test = tokens.copy()
    before_test[ends - 1] = False
    before_validation = before_test.copy()
    before_validation[ends - 2] = False
    return _split(
        "leave_one_out",
        {},
        log,
        train=before_validation | ~tokens,
        validation=_last_targets(log, judged, before_validation, ends - 2, followed=True),
        test=_last_targets(log, judged, before_test, ends - 1),
        notes={"users_too_short": int((~judged & (lengths > 0)).sum())},
    )


def by_time(
    log: InteractionLog,
    *,
    validation_from: float | str | datetime,
    test_from: float | str | datetime,
    targets: Literal["all", "first"] = "all",
    drop_cold: bool = False,
) -> Split:
    """Gives a cut at two moments, the same for everybody, so that nothing is learnt from the future.

    Training is what happened strictly before ``validation_from``. A validation user's history is the same,
    their targets are what they met from then until (not including) ``test_from``. A test user's history is
    everything before ``test_from``, their targets everything from then on.

    Args:
        log: The log, with times.
        validation_from: Unix seconds, an ISO date (``"2014-01-31"``; UTC where it names no zone) or a
            datetime. :func:`~conseq.data.moments.time_boundaries` gives both moments from shares.
        test_from: Likewise, later.
        targets: Every later item, or only the first.
        drop_cold: Leave out targets that never occur in training. With ``"first"`` that leaves out the user
            whose first target is one.

    Returns:
        The split. ``notes`` counts users who are not judged because they have no history, and targets that
        do not occur in training.

    Raises:
        ValueError: if the log has no times, the moments are out of order, or a part would be empty.
    """
    if log.times is None:
        raise ValueError(
            "by_time needs times, and this log has none; name its time column when reading it, or use leave_one_out"
        )
    start, end = unix_seconds(validation_from), unix_seconds(test_from)
    if start >= end:
        raise ValueError(f"validation_from must be before test_from, found {day(start)} and {day(end)}")
    if targets not in ("all", "first"):
        raise ValueError(f"targets must be 'all' or 'first', found {targets!r}")
    times = np.asarray(log.times)
    before_validation, before_test = times < start, times < end
    if not before_validation.any():
        raise ValueError(
            f"by_time: no interaction is before validation_from, {day(start)}; the first is at {day(times.min())}"
        )
    known = _known(log, before_validation)
    notes: dict[str, int] = {}
    options = _Later(known=known, first=targets == "first", drop_cold=drop_cold)
    return _split(
        "by_time",
        {"validation_from": start, "test_from": end, "targets": targets, "drop_cold": drop_cold},
        log,
        train=before_validation,
        validation=_later("validation", log, before_validation, before_test & ~before_validation, options, notes),
        test=_later("test", log, before_test, ~before_test, options, notes),
        notes=notes,
    )


def by_user(
    log: InteractionLog, *, validation: float = 0.1, test: float = 0.1, history: float = 0.8, seed: int
) -> Split:
    """Gives a cut between users: a share of them is held out whole, and judged on several targets each.

    This is ComiRec's protocol, which MCLSR uses. The first ``history`` of a held-out user's items, rounded
    down but at least one, is what a model may read; the rest, at least one, are the targets. The other
    users' whole sequences train. Users with one interaction always train.

    Args:
        log: The log.
        validation: Share of all users held out for validation, above 0.
        test: Share of all users held out for the test, above 0.
        history: Share of a held-out user's items that is shown, between 0 and 1.
        seed: Decides who is held out.

    Returns:
        The split. ``notes`` counts targets that do not occur in training.

    Raises:
        ValueError: if a share is out of range or leaves a part without a user.
    """
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise ValueError(f"validation and test must be above 0 and sum to less than 1, found {validation} and {test}")
    if not 0 < history < 1:
        raise ValueError(f"history must be between 0 and 1, found {history}")
    lengths = _lengths(log)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(lengths >= 2))
    counts = [int(share * log.n_users) for share in (validation, test)]
    if min(counts) < 1 or sum(counts) > order.size:
        raise ValueError(
            f"by_user: cannot hold out {validation:g} and {test:g} of {log.n_users} users, of whom "
            f"{order.size} have 2 interactions or more; use a larger log or other shares"
        )
    # 0.7 of 90 is 63, and 62.99… as floats have it.
    shown = np.clip(np.floor(lengths * history + 1e-9).astype(np.int64), 1, np.maximum(lengths - 1, 1))
    groups = np.split(order[: sum(counts)], [counts[0]])
    training = np.ones(log.n_users, dtype=np.bool_)
    training[order[: sum(counts)]] = False
    train = np.repeat(training, lengths)
    held = [_shown_and_hidden(log, np.sort(group), shown) for group in groups]
    return _split(
        "by_user",
        {"validation": validation, "test": test, "history": history, "seed": seed},
        log,
        train=train,
        validation=held[0],
        test=held[1],
        notes={"users_too_short": int((lengths == 1).sum())},
    )


@dataclass(frozen=True)
class _Later:
    """What :func:`by_time` keeps of the targets: ``known`` is bool ``[V + 1]``, the items of training."""

    known: Mask
    first: bool
    drop_cold: bool


def _later(
    part: str, log: InteractionLog, history: Mask, later: Mask, options: _Later, notes: dict[str, int]
) -> HeldOut:
    """Gives what is held out after one boundary; adds its counts to ``notes``."""
    lengths = _lengths(log)
    has_history = _per_user(history, log.offsets) > 0
    has_targets = _per_user(later, log.offsets) > 0
    judged = has_history & has_targets
    later = later & np.repeat(judged, lengths)
    starts = log.offsets[:-1] + _per_user(history, log.offsets)
    tied = np.zeros(log.n_users, dtype=np.bool_)
    if options.first:
        first = starts[judged]
        tied[judged] = _tied_with_next(log, first, log.offsets[1:][judged])
        later = np.zeros_like(later)
        later[first] = True
    notes[f"{part}_users_without_history"] = int((has_targets & ~has_history).sum())
    if options.drop_cold:
        cold = later & ~options.known[np.asarray(log.items)]
        notes[f"{part}_cold_targets_dropped"] = int(cold.sum())
        later &= ~cold
        warm = _per_user(later, log.offsets) > 0
        notes[f"{part}_users_with_only_cold_targets"] = int((judged & ~warm).sum())
        judged = warm
    if not judged.any():
        raise ValueError(
            f"by_time: no user has both a history and a target for {part}; move the boundaries"
            + (" or keep cold targets" if options.drop_cold else "")
        )
    return HeldOut(
        users=torch.from_numpy(np.flatnonzero(judged)),
        histories=_sequences(log, history & np.repeat(judged, lengths), judged),
        targets=_sequences(log, later, judged),
        tied=torch.from_numpy(tied[judged]),
    )


def _last_targets(
    log: InteractionLog, judged: Mask, history: Mask, places: Integers, *, followed: bool = False
) -> HeldOut:
    """Gives one target per judged user, at ``places`` (int64 ``[B]``) in the log; ``followed`` by another item."""
    target = np.zeros(len(log), dtype=np.bool_)
    target[places] = True
    return HeldOut(
        users=torch.from_numpy(np.flatnonzero(judged)),
        histories=_sequences(log, history, judged),
        targets=_sequences(log, target, judged),
        # Which of two interactions at one time comes last is the tie rule's choice, too.
        tied=_tied(log, places) | (_tied(log, places + 1) if followed else False),
        timed=log.times is not None,
    )


def _shown_and_hidden(log: InteractionLog, users: Integers, shown: Integers) -> HeldOut:
    """Gives the first ``shown[u]`` items of ``users`` (ascending rows) as histories, the rest as targets."""
    chosen = np.zeros(log.n_users, dtype=np.bool_)
    chosen[users] = True
    lengths = _lengths(log)
    tokens = np.repeat(chosen, lengths)
    boundaries = log.offsets[:-1] + shown
    history = tokens & (np.arange(len(log)) < np.repeat(boundaries, lengths))
    return HeldOut(
        users=torch.from_numpy(users),
        histories=_sequences(log, history, chosen),
        targets=_sequences(log, tokens & ~history, chosen),
        tied=_tied(log, boundaries[users]),
        timed=log.times is not None,
    )


def _split(
    name: str,
    settings: dict[str, object],
    log: InteractionLog,
    *,
    train: Mask,
    validation: HeldOut,
    test: HeldOut,
    notes: dict[str, int],
) -> Split:
    """Gives the split whose training is the tokens where ``train`` is true, and completes its notes."""
    known = _known(log, train)
    for part, held in (("validation", validation), ("test", test)):
        notes[f"{part}_users_judged"] = len(held.targets)
        notes[f"{part}_cold_targets"] = int((~known[held.targets.ids.numpy()]).sum())
    training = _per_user(train, log.offsets) > 0
    return Split(
        name=name,
        settings=settings,
        n_items=log.n_items,
        n_users=log.n_users,
        train=_sequences(log, train, training),
        train_users=torch.from_numpy(np.flatnonzero(training)),
        validation=validation,
        test=test,
        notes=notes,
    )


def _known(log: InteractionLog, tokens: Mask) -> Mask:
    """Gives, bool ``[V + 1]``, which item numbers occur where ``tokens`` is true."""
    known = np.zeros(log.n_items + 1, dtype=np.bool_)
    known[np.asarray(log.items)[tokens]] = True
    return known


def _lengths(log: InteractionLog) -> Integers:
    offsets = np.asarray(log.offsets)
    return offsets[1:] - offsets[:-1]


def _per_user(tokens: Mask, offsets: Integers) -> Integers:
    """Gives how many of each user's tokens are true, int64 ``[U]``."""
    total = np.zeros(tokens.size + 1, dtype=np.int64)
    np.cumsum(tokens, out=total[1:])
    return total[offsets[1:]] - total[offsets[:-1]]


def _sequences(log: InteractionLog, tokens: Mask, users: Mask) -> Sequences:
    """Gives one sequence per true row of ``users``: the items where ``tokens`` is true (only theirs are)."""
    ids = np.asarray(log.items)[tokens].astype(np.int64)
    ends = np.cumsum(_per_user(tokens, log.offsets)[users])
    return Sequences(torch.from_numpy(ids), torch.from_numpy(np.concatenate([[0], ends])))


def _tied(log: InteractionLog, places: Integers) -> Tensor:
    """Gives, bool ``[B]``, whether the interaction at each place has the time of the one before it."""
    if log.times is None:
        return torch.zeros(places.size, dtype=torch.bool)
    times = np.asarray(log.times)
    return torch.from_numpy(times[places] == times[places - 1])


def _tied_with_next(log: InteractionLog, places: Integers, ends: Integers) -> Mask:
    """Gives whether the interaction at each place has the time of the next one before the user's end."""
    times = np.asarray(log.times)
    following = np.minimum(places + 1, ends - 1)
    equal: Mask = (following > places) & (times[places] == times[following])
    return equal


def _refuse_misfit(part: str, users: Tensor, sequences: dict[str, Sequences]) -> None:
    """Refuses users that repeat, and sequences that are not one per user of at least one item each."""
    _refuse_repeats(part, users)
    for name, each in sequences.items():
        if len(each) != users.numel():
            raise ValueError(f"{part} has {users.numel()} users and {len(each)} {name}; expected one for each user")
        if len(each) and int(each.lengths.min()) < 1:
            user = int(users[int(each.lengths.argmin())])
            raise ValueError(f"{part}: the {name} of user row {user} is empty; expected at least one item")


def _refuse_repeats(part: str, users: Tensor) -> None:
    values, counts = np.unique(users.cpu().numpy(), return_counts=True)
    if values.size != users.numel():
        twice = int(values[counts > 1][0])
        raise ValueError(f"{part}: user row {twice} occurs more than once; each user may occur once")
