"""Which settings the next trial has, given those before it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from conseq.tuning.space import Choice, Range, Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Sampler = Literal["tpe", "random", "grid"]
STARTUP = 10
"""Trials that TPE draws at random before it learns of them."""
FAILED = -1.0
"""What a failed trial is worth to TPE, which goes by the order of values alone: less than any metric."""


def suggest(
    space: Space, sampler: Sampler, seed: int, before: Sequence[tuple[Mapping[str, Any], float | None]]
) -> dict[str, Any] | None:
    """Gives the settings of the next trial.

    They follow from the arguments alone, so that a search that was interrupted goes on as if it had not been.

    Args:
        space: What is varied.
        sampler: ``tpe``: the tree-structured Parzen estimator (Bergstra et al., NIPS 2011), after ten random trials;
            ``random``; ``grid``: all combinations in order.
        seed: Of the draws.
        before: The trials so far: their settings and what validation found, None where they failed.

    Returns:
        A value for each setting that is varied; None after the last combination of a grid.

    Raises:
        ModuleNotFoundError: if the extra ``tune`` is not installed and the sampler is not ``grid``.
        ValueError: if the sampler is ``grid`` and the values of a range cannot be counted.
    """
    if sampler == "grid":
        return next(itertools.islice(space.grid(), len(before), None), None)
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kinds = {name: _distribution(one) for name, one in space.varied.items()}
    # A generator of its own for every trial: what it draws must not depend on the trials that this process has seen.
    # Their sum would not do: the trials of one seed would be those of the next one, moved by one.
    own = int(np.random.SeedSequence([seed, len(before)]).generate_state(1)[0])
    chosen = (
        optuna.samplers.RandomSampler(seed=own)
        if sampler == "random"
        else optuna.samplers.TPESampler(seed=own, n_startup_trials=STARTUP)
    )
    study = optuna.create_study(direction="maximize", sampler=chosen)
    for values, found in before:
        told = {name: _told(space.varied[name], value) for name, value in values.items()}
        # Optuna before 5 forgets failed trials, finds their place empty, and asks for the like of them for ever.
        value = FAILED if found is None else found
        study.add_trial(optuna.trial.create_trial(params=told, distributions=kinds, value=value))
    asked = study.ask(kinds).params
    return {name: _meant(one, asked[name]) for name, one in space.varied.items()}


def drawn_by(sampler: Sampler) -> dict[str, str]:
    """Gives the version of what chooses the settings.

    Args:
        sampler: As of :func:`suggest`.

    Returns:
        The version by the package's name; nothing for a grid.

    Raises:
        ModuleNotFoundError: as of :func:`suggest`.
    """
    return {} if sampler == "grid" else {"optuna": _optuna().__version__}


def _optuna() -> Any:
    try:
        import optuna  # noqa: PLC0415  (an extra, and slow to import)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "optuna":
            raise
        raise ModuleNotFoundError(
            "the samplers tpe and random need optuna, which is not installed: pip install 'conseq[tune]', or take "
            "sampler grid",
            name=error.name,
        ) from None
    return optuna


def _distribution(one: Choice | Range) -> BaseDistribution:
    """Gives Optuna's; of a choice by the place of the option, which may be a list or a table."""
    kinds = _optuna().distributions
    if isinstance(one, Choice):
        return kinds.CategoricalDistribution(range(len(one.options)))  # type: ignore[no-any-return]
    if one.whole:
        return kinds.IntDistribution(one.low, one.high, log=one.log, step=one.step or 1)  # type: ignore[no-any-return]
    return kinds.FloatDistribution(one.low, one.high, log=one.log, step=one.step)  # type: ignore[no-any-return]


def _told(one: Choice | Range, value: Any) -> Any:
    return one.options.index(value) if isinstance(one, Choice) else value


def _meant(one: Choice | Range, value: Any) -> Any:
    if isinstance(one, Choice):
        return one.options[value]
    return value if one.step is None or one.whole else round(value, 12)  # .1 + 2 * .1 is no .3
