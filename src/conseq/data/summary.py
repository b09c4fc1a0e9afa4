"""The manifest of a prepared log, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conseq.data.batches import LATEST_SECONDS
from conseq.data.moments import day


def summary(manifest: Mapping[str, Any]) -> str:
    """Gives what was read, guessed and filtered, and the statistics of what is left, as lines of text.

    Args:
        manifest: Of a log that was read or prepared.

    Returns:
        The lines.
    """
    return "\n".join([*_source(manifest), *_filters(manifest), *_counts(manifest), *_times(manifest)])


def _source(manifest: Mapping[str, Any]) -> list[str]:
    source, order = manifest["source"], manifest["order"]
    size = "" if source["bytes"] is None else f", {source['bytes']:,} bytes, SHA-256 {source['sha256'][:12]}..."
    lines = [f"{source['name']} ({source['format']}{size})"]
    for role in ("user", "item", "time"):
        column = (source["columns"] or {}).get(role)
        if column is not None:
            lines.append(
                f"  {role:<6} column {column['name']!r}" + (" (guessed from its name)" if column["guessed"] else "")
            )
    unit = f" (read as {order['time_unit']})" if "time_unit" in order else ""
    ties = {
        "file_order": "keep the order of the source",
        "item_id": "are ordered by item id",
        "random": f"are in a random order, seed {order.get('tie_seed')}",
    }[order["ties"]]
    lines.append(
        f"  order  by time{unit}; equal times " + ties
        if order["by"] == "time"
        else "  order  of the source, which has no times"
    )
    return lines


def _filters(manifest: Mapping[str, Any]) -> list[str]:
    lines = []
    for one in manifest["filters"]:
        if one["filter"] == "repeats":
            title = f"repeats, {one['keep']} kept"
        else:
            title = (
                f"k_core, users >= {one['least']['users']}, items >= {one['least']['items']} (rounds: {one['rounds']})"
            )
        lines += [f"  filter {title}", f"         {_sizes(one['before'])}", f"      -> {_sizes(one['after'])}"]
    return lines or ["  filter none"]


def _sizes(sizes: Mapping[str, int]) -> str:
    return f"{sizes['users']:,} users, {sizes['items']:,} items, {sizes['interactions']:,} interactions"


def _counts(manifest: Mapping[str, Any]) -> list[str]:
    counts = manifest["counts"]
    lengths = f"{counts['min_length']}/{counts['mean_length']:.1f}/{counts['max_length']}"
    return [
        f"  log    {_sizes(counts)}",
        f"         {lengths} interactions per user (least/mean/most), {counts['users_with_one_interaction']:,} users "
        f"with only one, {counts['repeats']:,} repeats",
    ]


def _times(manifest: Mapping[str, Any]) -> list[str]:
    times = manifest["times"]
    if times is None:
        return []
    duplicates = times.get("duplicates", 0)  # logs that were prepared earlier do not say
    odd = "; are these seconds?" if times["last"] > LATEST_SECONDS else ""
    return [
        f"  times  {day(times['first'])} to {day(times['last'])}{odd}",
        f"  ties   {times['adjacent_equal']:.1%} of adjacent interactions have equal times; for "
        f"{times['last_decided_by_tie']:.1%} of the users with three or more a tie decides which is the last",
        *([f"  twice  {duplicates:,} interactions repeat another's user, item and time"] if duplicates else []),
    ]
