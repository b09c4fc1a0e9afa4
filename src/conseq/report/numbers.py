"""Numbers as a reader sees them."""

from __future__ import annotations

from conseq.report.results import Estimate

MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"


def number(value: float | None, metric: str = "") -> str:
    """Gives a metric with four decimals; a dash where there is none."""
    if value is None:
        return NONE
    return f"{value:,.1f}" if metric.startswith("MeanPopularity") else signed_minus(f"{value:.4f}")


def with_spread(found: Estimate | None, metric: str = "") -> str:
    """Gives ``mean ± sd``; the mean alone for a single seed."""
    if found is None:
        return NONE
    mean = number(found.mean, metric)
    return mean if found.spread is None else f"{mean} ± {number(found.spread, metric)}"


def difference(paper: float | None, ours: float | None) -> str:
    """Gives ours less the paper's, with its share of the paper's where that is not 0."""
    if paper is None or ours is None:
        return NONE
    absolute = signed_minus(f"{ours - paper:+.4f}")
    return absolute if paper == 0 else f"{absolute} ({signed_minus(f'{100 * (ours - paper) / paper:+.1f}')} %)"


def duration(seconds: float) -> str:
    """Gives a time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def signed_minus(text: str) -> str:
    """Gives a printed number with a true minus sign."""
    return text.replace("-", MINUS)
