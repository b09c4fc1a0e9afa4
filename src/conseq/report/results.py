"""Records of one experiment under several seeds, as one result."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, TypeVar

from conseq.study.asked import Asked
from conseq.study.records import Record, but_seed, identity, stale

T = TypeVar("T")
History = Literal["exclude", "keep"]

PREFERRED = ("NDCG@20", "NDCG@10", "Recall@20", "HR@20", "HR@10", "NDCG@5", "HR@5")
"""Metrics, the first of which is drawn where a figure shows one."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: The mean.
        spread: Standard deviation over seeds (``n - 1``); None for fewer than two.
        n: Seeds.
    """

    mean: float
    spread: float | None
    n: int


@dataclass(frozen=True)
class Result:
    """What one experiment found, each seed a record.

    Attributes:
        label: As it is called beside others.
        records: By seed.
        stale: Why it may no longer be what the code finds; empty where it is.
    """

    label: str
    records: tuple[Record, ...]
    stale: str = ""

    @property
    def first(self) -> Record:
        """The record of the smallest seed: for what all seeds have in common."""
        return self.records[0]

    @property
    def shown(self) -> str:
        """The label as a figure shows it, which has no other place to say that it is stale."""
        return f"{self.label} [stale]" if self.stale else self.label

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, ascending."""
        return tuple(one["seed"] for one in self.records)

    @property
    def is_sasrec(self) -> bool:
        """Whether it is the baseline: SASRec trained for the next item alone."""
        return bool(self.first["method"] == "next_item" and self.first["encoder"] == "sasrec")

    def metrics(self, history: str) -> list[str]:
        """Gives the names of the metrics that every seed has under ``history``."""
        found = [one["both"].get(history, {}).get("metrics", {}) for one in self.records]
        return sorted((name for name in found[0] if all(name in other for other in found)), key=_by_cutoff)

    def estimate(self, metric: str, history: str) -> Estimate | None:
        """Gives a test metric under ``history``; None where a seed lacks it."""
        values = [one["both"].get(history, {}).get("metrics", {}).get(metric) for one in self.records]
        return estimate(values)


def estimate(values: Sequence[float | None]) -> Estimate | None:
    """Gives the mean and the spread of a number over seeds; None where there is none, or one is missing."""
    known = [float(one) for one in values if one is not None]
    if not known or len(known) < len(values):
        return None
    return Estimate(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


def main_metric(names: Iterable[str], wanted: str | None = None) -> str | None:
    """Gives the metric that a figure shows where it can show one: what is wanted, or NDCG@20, where there is that."""
    known = list(names)
    return next((one for one in (wanted, *PREFERRED) if one in known), known[0] if known else None)


def ordered_parts(names: Iterable[str]) -> list[str]:
    """Gives the names of parts (``<=5``, ``6-10``, ``>50``; ``yes``, ``no``) in the order of their numbers."""

    def place(name: str) -> tuple[int, bool, str]:
        first = re.search(r"\d+", name)
        return (int(first[0]) if first and not name.startswith("<") else -1), name.startswith(">"), name

    return sorted(names, key=place)


def _by_cutoff(metric: str) -> tuple[float, str]:
    cutoff = metric.partition("@")[2]
    return (int(cutoff) if cutoff.isdigit() else float("inf")), metric


def in_parts(found: Sequence[T], size: int) -> list[Sequence[T]]:
    """Gives things at most ``size`` at a time, as many as one figure can show, and about as many each time."""
    count = -(-len(found) // size)
    cuts = [place * len(found) // count for place in range(count + 1)] if count else []
    return [found[start:end] for start, end in pairwise(cuts)]


def results(records: Sequence[Record]) -> list[Result]:
    """Gives records as results, in the order of data set, method and label.

    Records of one experiment, data and seed count once, the last of them, whatever device they name.

    Args:
        records: Any records.

    Returns:
        The results. Labels differ from one another within a data set.
    """
    newest = {identity(one): one for one in records}
    groups: dict[tuple[str, str, str], dict[int, Record]] = {}
    for record in newest.values():
        experiment = record["dataset"], record["data_hash"], but_seed(record["config"])
        groups.setdefault(experiment, {})[record["seed"]] = record
    found = [result_of(list(own.values())) for own in groups.values()]
    ordered = sorted(found, key=lambda one: (one.first["dataset"], one.first["method"], one.label, _hash(one)))
    by_dataset: dict[str, list[Result]] = {}
    for one in ordered:
        by_dataset.setdefault(one.first["dataset"], []).append(one)
    return [labelled for own in by_dataset.values() for labelled in _told_apart(own)]


def result_of(records: Sequence[Record], *, label: str = "", why: str | None = None) -> Result:
    """Gives records of one experiment as a result.

    Args:
        records: At least one, of different seeds.
        label: What to call it; the row's name and variant where not given.
        why: Why it is stale, or an empty string; None: the code and the settings of each record are asked.

    Returns:
        The result, seeds ascending.
    """
    own = tuple(sorted(records, key=lambda one: (one["seed"], one["config_hash"])))
    reason = next(filter(None, map(stale, own)), "") if why is None else why
    return Result(label or _label(own[0]), own, reason)


def with_analysis(record: Record, asked: Asked | None) -> Record:
    """Gives a record with the analysis that is asked for alone, under its name; with none where none is asked for."""
    found = None if asked is None else asked.of(record)
    return {**record, "analyses": {} if asked is None or found is None else {asked.name: found}}


def by_settings(found: Sequence[Result]) -> list[list[Result]]:
    """Gives results with their analyses by name, as often as one analysis was made with different settings.

    Args:
        found: Results, whose records have analyses by name, history and settings.

    Returns:
        The results again and again, each time with at most one analysis of a name and the same settings for all.
    """
    kinds: dict[str, list[str]] = {}
    for key, name in sorted({(key, name_of(key, value)) for key, value in _analyses(found)}):
        kinds.setdefault(name, []).append(key)
    count = max(map(len, kinds.values()), default=1)
    chosen = [{name: keys[place] for name, keys in kinds.items() if place < len(keys)} for place in range(count)]
    return [
        [replace(one, records=tuple(_narrowed(record, keys) for record in one.records)) for one in found]
        for keys in chosen
    ]


def name_of(key: str, found: Mapping[str, Any]) -> str:
    """Gives the name of a recorded analysis; records of earlier versions have it for a key."""
    return str(found.get("analysis", key))


def _analyses(found: Sequence[Result]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for one in found:
        for record in one.records:
            yield from record["analyses"].items()


def _narrowed(record: Record, keys: Mapping[str, str]) -> Record:
    analyses = {name: record["analyses"][key] for name, key in keys.items() if key in record["analyses"]}
    return {**record, "analyses": analyses}


def _label(record: Mapping[str, Any]) -> str:
    """Gives the row's name, with the method where the name does not say it, and the variant."""
    method, variant = str(record["method"]), str(record["variant"])
    name = str(record.get("row") or method)
    # The next item alone is what a paper calls by its encoder.
    if method != "next_item" and _letters(method) not in _letters(name):
        name = f"{method}: {name}"
    return name if not variant or variant in name else f"{name}, {variant}"


def _letters(text: str) -> str:
    return re.sub("[^a-z0-9]", "", text.lower())


_APART: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("preset", lambda one: str(one["preset"])),
    ("loss", lambda one: str(one["loss"]).replace("_", " ")),
    ("instances", lambda one: str(one["instances"])),
    ("encoder", lambda one: str(one["encoder"])),
    ("study", lambda one: str(one.get("study", ""))),
    ("data", lambda one: f"data {str(one['data_hash'])[:8]}"),
    ("config", lambda one: str(one["config_hash"])),
)


def _told_apart(found: Sequence[Result]) -> list[Result]:
    """Gives results of one data set with labels that say how those of one name differ."""
    done = list(found)
    for _, say in _APART:
        counts = Counter(one.label for one in done)
        said = {
            label: len({say(one.first) for one in done if one.label == label})
            for label, count in counts.items()
            if count > 1
        }
        done = [
            replace(one, label=f"{one.label}, {say(one.first)}") if said.get(one.label, 1) > 1 else one for one in done
        ]
    return done


def _hash(result: Result) -> str:
    return str(result.first["config_hash"])
