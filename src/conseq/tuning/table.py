"""Trials as a table."""

from __future__ import annotations

from rich.table import Table

from conseq.tuning.search import Trial, Tuned, short

SHOWN = 10


def trials_table(found: Tuned, *, rows: int = SHOWN) -> Table:
    """Gives the best trials, one per line, and how many there are.

    Args:
        found: A search.
        rows: Most lines.

    Returns:
        The table.
    """
    scored = [one for one in found.trials if one.value is not None]
    failed = len(found.trials) - len(scored)
    spent = sum(one.seconds for one in found.trials)
    best = sorted(scored, key=lambda one: (-(one.value or 0.0), one.number))[:rows]
    table = Table(
        title=f"validation {found.metric}",
        title_justify="left",
        caption=f"{len(found.trials)} trials, {failed} failed, {spent:,.0f} s of training; the best {len(best)} shown",
        caption_justify="left",
    )
    for heading in ("trial", "value", "epoch", *found.best.values):
        table.add_column(heading, justify="right")
    for one in best:
        table.add_row(*_cells(one))
    return table


def _cells(trial: Trial) -> list[str]:
    value = "" if trial.value is None else f"{trial.value:.4f}"
    return [str(trial.number), value, str(trial.best_epoch), *map(short, trial.values.values())]
