"""From an opened source to a prepared log: integers, filters, numbering, order, arrays, manifest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from conseq.data.batches import LATEST_SECONDS, Source, unit_of
from conseq.data.columns import sounds_like_time
from conseq.data.filters import Kept, Sizes, core, count_into, everything, largest_core, without_repeats
from conseq.data.ordering import by_user
from conseq.data.prepared import ArrayFile, write_manifest
from conseq.data.reading import Reading, Repeats, TimeUnit
from conseq.data.statistics import Tally
from conseq.data.store import ROWS_IN_MEMORY, Codes, Rows, RowStore, ingest
from conseq.data.tie_rules import TieRule, tie_rule

logger = logging.getLogger("conseq")

# Programs write these for a value that is not there; in lower case, and without the white space around them.
_NO_VALUES = frozenset(
    {"", "-", "nan", "-nan", "<na>", "na", "n/a", "#n/a", "nat", "null", "(null)", "nil", "none", "undefined", "\\n"}
)
_NAMED = 3


def prepare_into(
    folder: Path, work: Path, source: Source, reading: Reading, *, rows_in_memory: int = ROWS_IN_MEMORY
) -> dict[str, object]:
    """Writes a prepared log.

    Users and items are numbered in the order in which the interactions that are kept first name them in the source.

    Args:
        folder: Where the log is written; empty.
        work: For temporary files, about 50 bytes per interaction; empty.
        source: The log.
        reading: Filters and tie rule.
        rows_in_memory: How many interactions to hold in memory at once; the ids come on top.

    Returns:
        The manifest.

    Raises:
        ValueError: if the source is not a log, or the filters leave nothing.
        OSError: if the disk is full.
    """
    least = reading.least
    logger.info("reading %s: %s", source.name, described(source))
    _tell_of_order(source)
    store = ingest(source, work, time_unit=reading.time_unit, rows_in_memory=rows_in_memory)
    logger.info("%s: read %s", source.name, everything(store).sizes)
    if reading.ties != "file_order" and store.times is None:
        raise ValueError(
            f"{source.name} has no times, so there are no ties; leave ties (--ties in a shell) at file_order"
        )
    if reading.time_unit != "s" and store.times is None:
        raise ValueError(f"{source.name} has no times, so they have no unit; leave time_unit (--time-unit) out")
    if reading.tie_seed and reading.ties != "random":
        raise ValueError(
            f"tie_seed={reading.tie_seed} is of random ties alone, found ties={reading.ties!r} (--tie-seed and "
            "--ties in a shell)"
        )
    rule = tie_rule(reading, store.user_ids, store.item_ids)
    kept, filters = _filtered(store, reading.repeats, least, rule, work, source.name)
    users, items, lengths = _numbered(store, kept)
    chunks = _renumbered(store, kept, users, items)
    renumbered = None if rule is None else rule.renumbered(_codes(users), _codes(items))
    groups = by_user(chunks, lengths, work, bucket_rows=rows_in_memory, ties=renumbered)
    arrays, tally = _write_arrays(folder, groups, lengths)
    times = tally.times()
    manifest: dict[str, object] = {
        "source": source_record(source),
        "order": _order_record(reading, timed=times is not None),
        "filters": filters,
        "counts": tally.counts(int(items.max()) + 1),
        "times": times,
    }
    _tell_of_times(source.name, tally, reading.time_unit)
    user_ids, item_ids = store.user_ids.gather(_codes(users)), store.item_ids.gather(_codes(items))
    for role, ids in (("user", user_ids), ("item", item_ids)):
        _tell_of_spaces(source.name, role, ids)
    _tell_of_no_values(source.name, "user", user_ids, lambda number: int(lengths[number]))
    _tell_of_no_values(source.name, "item", item_ids, lambda number: _interactions_with(folder, number + 1))
    return write_manifest(folder, manifest, arrays, user_ids, item_ids)


def _tell_of_order(source: Source) -> None:
    """Warns where the order of the rows becomes the order in time though a column that was not read may say more."""
    if source.columns is None or not source.columns.passed_over:
        return
    rest = source.columns.passed_over
    likely = [name for name in rest if sounds_like_time(name)]
    named = ", ".join(map(repr, (likely or rest)[:5])) + (", ..." if len(likely or rest) > 5 else "")
    logger.warning(
        "%s: no column was taken for the time (%s %s), so the order of the rows is the order in time; name the column "
        "(--time, in Python time=), or say that there is none with '-'",
        *(source.name, "one of these may be it:" if likely else "not read:", named),
    )


def _tell_of_times(name: str, tally: Tally, unit: TimeUnit) -> None:
    """Warns of times that cannot be seconds, and of test items that a row which is there twice decides."""
    if tally.last_time is not None and tally.last_time > LATEST_SECONDS:
        logger.warning(
            "%s: times reach %s; as Unix seconds that is past the year 5000: say time_unit='%s' (--time-unit %s in a "
            "shell)?",
            *(name, tally.last_time, *[unit_of(tally.last_time, unit)] * 2),
        )
    if tally.duplicated_last:
        logger.warning(
            "%s: %s interactions repeat another one's user, item and time; for %s of %s users the last one does, so "
            "that leave-one-out asks for the item that stands just before it; repeats='distinct' (--repeats "
            "distinct in a shell) counts such rows once",
            *(name, f"{tally.duplicates:,}", f"{tally.duplicated_last:,}", f"{tally.judged:,}"),
        )


def _tell_of_spaces(name: str, role: str, ids: pl.Series) -> None:
    """Warns of ids that nobody would think to ask for with their spaces, as ``a, b`` in a CSV file gives them."""
    spaced = ids.filter(ids.str.contains(r"^\s+\S|\S\s+$"))
    if len(spaced):
        logger.warning(
            "%s: %d %s ids begin or end with white space, such as %r, and are kept so; take it out of the file where "
            "it does not belong to them",
            *(name, len(spaced), role, spaced[0]),
        )


def _tell_of_no_values(name: str, role: str, ids: pl.Series, interactions_of: Callable[[int], int]) -> None:
    """Warns of ids that a program wrote for a value that is not there: one user, or item, made of many strangers."""
    numbers = ids.str.strip_chars().str.to_lowercase().is_in(list(_NO_VALUES)).arg_true().to_list()
    if numbers:
        found = [f"{ids[number]!r} with {_counted(interactions_of(number))}" for number in numbers[:_NAMED]]
        logger.warning(
            "%s: %d %s ids look like a value that is missing, and are kept as ids like any other: %s; take their rows "
            "out of the file where no %s is called so",
            *(name, len(numbers), role, ", ".join(found) + (", ..." if len(numbers) > _NAMED else ""), role),
        )


def _counted(interactions: int) -> str:
    return f"{interactions:,} interaction" + ("" if interactions == 1 else "s")


def _interactions_with(folder: Path, item: int) -> int:
    """Gives how many interactions of a log that was written are with the item of a number."""
    items = np.load(folder / "items.npy", mmap_mode="r")
    parts = range(0, items.size, ROWS_IN_MEMORY)
    return sum(int(np.count_nonzero(items[start : start + ROWS_IN_MEMORY] == item)) for start in parts)


def described(source: Source) -> str:
    """Gives one line on the columns of a source: which they are, and which of them were guessed."""
    columns = source.columns
    if columns is None:
        return f"{source.format}, the order of the items is the order in time"
    words = []
    for role, column in (("user", columns.user), ("item", columns.item), ("time", columns.time)):
        if column is None:
            words.append("no time column, the order of the source is the order in time")
        else:
            words.append(f"{role} column {column.name!r}" + (" (guessed)" if column.guessed else ""))
    return f"{source.format}, " + ", ".join(words)


def source_record(source: Source) -> dict[str, object]:
    """Gives what the manifest says of the source, as JSON values; of several files also what each of them is."""
    files, columns = source.files, source.columns
    roles = {} if columns is None else {"user": columns.user, "item": columns.item, "time": columns.time}
    record: dict[str, object] = {
        "name": files[0].name
        if len(files) == 1
        else Path(source.name).name,  # what is recorded names no machine's path
        "format": source.format,
        "separator": source.separator,
        "bytes": sum(one.bytes for one in files) if files else None,
        "sha256": source.sha256,
        "columns": {role: column and asdict(column) for role, column in roles.items()} or None,
    }
    return record | ({"files": [asdict(one) for one in files]} if len(files) > 1 else {})


def _order_record(reading: Reading, *, timed: bool) -> dict[str, object]:
    seed = {"tie_seed": reading.tie_seed} if reading.ties == "random" else {}
    unit = {"time_unit": reading.time_unit} if reading.time_unit != "s" else {}
    return {"by": "time" if timed else "source", "ties": reading.ties, **seed, **unit}


def _filtered(
    store: RowStore, repeats: Repeats, least: tuple[int, int], rule: TieRule | None, work: Path, name: str
) -> tuple[Kept, list[dict[str, object]]]:
    """Gives what the filters keep, and their record in the order in which they were applied."""
    kept = everything(store)
    records: list[dict[str, object]] = []
    if repeats != "keep":
        before = kept.sizes
        kept = without_repeats(store, kept, repeats, work, ties=rule)
        records.append({"filter": "repeats", "keep": repeats} | _change(before, kept.sizes))
        logger.info("%s: repeats, the %s kept: %s left", name, repeats, kept.sizes)
    if max(least) > 0:
        before, earlier = kept.sizes, kept
        kept, rounds = core(store, kept, least, work)
        if not kept.interactions:
            k, left = largest_core(store, earlier, least, work)
            users, items = min(k, least[0]), min(k, least[1])
            shell = f"--k-core {users}" if users == items else f"--k-core {users} {items}"
            choice = f"k_core={k}" if users == items else f"k_core=({users}, {items})"
            raise ValueError(
                f"{name}: of {before}, nothing is left when users need {least[0]} interactions and items {least[1]}; "
                f"the largest k that leaves something is {k}, with {left}: choose {choice} ({shell} in a shell) or less"
            )
        of = dict(zip(("users", "items"), least, strict=True))
        records.append({"filter": "k_core", "least": of, "rounds": rounds} | _change(before, kept.sizes))
        logger.info("%s: k_core, users %s, items %s: %s left", name, *least, kept.sizes)
    return kept, records


def _change(before: Sizes, after: Sizes) -> dict[str, object]:
    return {"before": asdict(before), "after": asdict(after)}


def _numbered(store: RowStore, kept: Kept) -> tuple[Codes, Codes, npt.NDArray[np.int64]]:
    """Gives the numbers (from 0) of the user and item codes, -1 where dropped, and the lengths by user number."""
    users, items = np.full(kept.users.size, -1, np.int32), np.full(kept.items.size, -1, np.int32)
    lengths = np.zeros(kept.users.size, np.int64)
    n_users = n_items = 0
    for rows in kept.of(store):
        n_users = _number_new(users, rows.users, n_users)
        n_items = _number_new(items, rows.items, n_items)
        count_into(lengths, rows.users)
    return users, items, lengths[_codes(users)]


def _number_new(numbers: Codes, codes: Codes, next_number: int) -> int:
    """Numbers the codes that have no number yet, in the order in which they come; gives the next free number."""
    new, first = np.unique(codes[numbers[codes] < 0], return_index=True)
    numbers[new[np.argsort(first)]] = np.arange(next_number, next_number + new.size)
    return next_number + new.size


def _codes(numbers: Codes) -> npt.NDArray[np.int64]:
    """Gives the codes in the order of their numbers."""
    kept = np.flatnonzero(numbers >= 0)
    return kept[np.argsort(numbers[kept])]


def _renumbered(store: RowStore, kept: Kept, users: Codes, items: Codes) -> Iterator[Rows]:
    for rows in kept.of(store):
        yield Rows(users[rows.users], items[rows.items] + np.int32(1), rows.times, None)


def _write_arrays(
    folder: Path, groups: Iterator[Rows], lengths: npt.NDArray[np.int64]
) -> tuple[dict[str, object], Tally]:
    """Writes items, offsets and times, user after user; gives their records and the statistics."""
    tally, total = Tally(), int(lengths.sum())
    with ExitStack() as files:
        offsets_file = files.enter_context(ArrayFile(folder / "offsets.npy", np.int64, lengths.size + 1))
        offsets_file.append(np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]))
        items_file = files.enter_context(ArrayFile(folder / "items.npy", np.int32, total))
        times_file: ArrayFile | None = None
        for rows in groups:
            items_file.append(rows.items)
            if rows.times is not None:
                if times_file is None:
                    times_file = files.enter_context(ArrayFile(folder / "times.npy", rows.times.dtype, total))
                times_file.append(rows.times)
            tally.add(lengths[rows.users[0] : rows.users[-1] + 1], rows.items, rows.times)
    arrays: dict[str, object] = {"items": items_file.record(), "offsets": offsets_file.record()}
    return arrays if times_file is None else {**arrays, "times": times_file.record()}, tally
