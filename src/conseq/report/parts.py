"""More models than one figure can show: several figures, each with the baseline in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from conseq.report.results import in_parts
from conseq.report.style import Picture


class Drawn(Protocol):
    """What stands in a figure beside others: a result, or a curve over a setting."""

    @property
    def is_sasrec(self) -> bool:
        """Whether it is the baseline."""


D = TypeVar("D", bound=Drawn)


def in_figures(found: Sequence[D], most: int, draw: Callable[[Sequence[D], int], Sequence[Picture]]) -> list[Picture]:
    """Draws things at most ``most`` at a time; where there are several parts, titles say which one it is.

    Args:
        found: Results or curves.
        most: The most that a figure shows, at least 2.
        draw: Gives the figures of some of them and the number of their part, from 1.

    Returns:
        The figures, part by part.
    """
    parts = beside_the_baseline(found, most)
    told = [f" ({number} of {len(parts)})" if len(parts) > 1 else "" for number in range(1, len(parts) + 1)]
    return [
        replace(picture, title=picture.title + told[number - 1])
        for number, some in enumerate(parts, start=1)
        for picture in draw(some, number)
    ]


def beside_the_baseline(found: Sequence[D], most: int) -> list[Sequence[D]]:
    """Gives things at most ``most`` at a time, the first SASRec at the head of every part.

    Args:
        found: Results or curves.
        most: The most of a part, at least 2.

    Returns:
        The parts, in the order of ``found``; without a baseline, and where all are SASRec with other
        settings, each of them stands in one part alone.
    """
    baseline = next((one for one in found if one.is_sasrec), None)
    if baseline is None or len(found) <= most or all(one.is_sasrec for one in found):
        return in_parts(found, most)
    return [[baseline, *some] for some in in_parts([one for one in found if one is not baseline], most - 1)]
