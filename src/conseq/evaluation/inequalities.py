"""What arithmetic demands of printed metrics when every user has one target.

A hit at rank r gains w(r): 1/log2(r + 1) for NDCG, 1/r for MRR, both falling from w(1) = 1. Hence, for each
user and so for every mean over users or seeds, w(k) HR@k <= M@k <= HR@k and, for a < b, the hits that
are new between a and b gain between w(b) and w(a + 1) each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

_GAINS: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {"NDCG": lambda rank: 1 / math.log2(rank + 1), "MRR": lambda rank: 1 / rank}
)
_FLOAT_ERROR = 1e-12


@dataclass(frozen=True)
class Violation:
    """A value that no set of ranks can give.

    Attributes:
        what: The metric, or the difference of two, as text.
        value: What was printed.
        low: The least possible, rounding granted.
        high: The greatest possible, rounding granted.
    """

    what: str
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.what} = {self.value:.6g}, but the hit rates allow only {self.low:.6g} to {self.high:.6g}"


def violations(
    metrics: Mapping[str, float],
    *,
    rounding: float = 0.0,
    hits: Literal["HR", "Recall"] = "HR",
    half_ranks: bool = False,
) -> list[Violation]:
    """Gives the impossible values among single-target metrics of one model; empty where all is possible.

    Args:
        metrics: Values in [0, 1] by name (``HR@5``, ``NDCG@10``, ``MRR@20``, …); other names are not looked at, and a
            cut-off counts where its hit rate and its gain both stand.
        rounding: The most by which a single value may be off: 0.00005 for four printed decimals.
        hits: What the hit rate is called. Several papers print it as Recall.
        half_ranks: True for ranks under mean ties, of which 5.5 is one, a hit at 6 that gains more than rank 6.

    Returns:
        One entry per inequality that fails, in the order of the cut-offs.
    """
    found = []
    for gain, weight in _GAINS.items():
        cuts = sorted(_cuts(metrics, hits) & _cuts(metrics, gain))
        for a, b in zip([0, *cuts], cuts, strict=False):
            rate, value = metrics[f"{hits}@{b}"], metrics[f"{gain}@{b}"]
            found += _outside(f"{gain}@{b}", value, (rate, weight(b), 1.0), rounding)
            if a:
                rise = (metrics[f"{gain}@{b}"] - metrics[f"{gain}@{a}"], rate - metrics[f"{hits}@{a}"])
                best = weight(a + (0.5 if half_ranks else 1))
                found += _outside(f"{gain}@{b} - {gain}@{a}", rise[0], (rise[1], weight(b), best), 2 * rounding)
    return found


def _outside(what: str, value: float, bounds: tuple[float, float, float], rounding: float) -> list[Violation]:
    """Gives a violation where ``value`` is not between the hits times their least and greatest gain."""
    rate, least, greatest = bounds
    low = (rate - rounding) * least - rounding
    high = (rate + rounding) * greatest + rounding
    inside = low - _FLOAT_ERROR <= value <= high + _FLOAT_ERROR
    return [] if inside else [Violation(what, value, low, high)]


def _cuts(metrics: Mapping[str, float], name: str) -> set[int]:
    """Gives the cut-offs at which ``metrics`` has ``name``."""
    parts = (key.partition("@") for key in metrics)
    return {int(cut) for head, _, cut in parts if head == name and cut.isdigit()}
