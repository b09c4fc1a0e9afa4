"""What can be asked of a trained model beyond its metrics: the analyses of the papers, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from conseq.analyses import complexity, groups, noise, purity, representations, views
from conseq.analyses.subject import Subject, subject_of
from conseq.config import parse, to_json
from conseq.data.log import InteractionLog
from conseq.run.runner import History, Show


class Result(Protocol):
    """What an analysis gives."""

    def record(self) -> dict[str, Any]:
        """Gives everything as JSON values."""
        ...


@dataclass(frozen=True)
class Analysis:
    """An analysis, as it is asked for by name.

    Attributes:
        about: What it gives, and which figure of which paper it is.
        settings: The class of its settings.
        judges: Whether it ranks held-out items, so that it must be told what to do with the history.
        apply: Gives the result for a subject, the settings, the history (None where nothing is judged), and
            how progress is shown.
        trains: Whether it trains models of its own, which takes about as long as the run that it is asked of.
    """

    about: str
    settings: type[Any]
    judges: bool
    apply: Callable[[Subject, Any, Any, Show], Result]
    trains: bool = False

    @property
    def module(self) -> str:
        """The module that makes it."""
        return str(self.settings.__module__)


ANALYSES: Mapping[str, Analysis] = MappingProxyType(
    {
        "noise": Analysis(
            "random items in test histories (ICLRec Fig. 4, MCLRec Fig. 7)",
            noise.NoiseConfig,
            True,
            lambda subject, config, history, show: noise.of_subject(subject, config, history),
        ),
        "groups": Analysis(
            "users by length of their sequence, one model for all",
            groups.GroupsConfig,
            True,
            lambda subject, config, history, show: groups.of_subject(subject, config, history),
        ),
        "groups_apart": Analysis(
            "users by length, a model trained for each group (ICLRec Fig. 3, MCLRec Fig. 8)",
            groups.GroupsConfig,
            True,
            groups.apart_of_subject,
            trains=True,
        ),
        "complexity": Analysis(
            "parameters, time per epoch, ranking speed, memory (ECL-SR Table 4)",
            complexity.ComplexityConfig,
            False,
            lambda subject, config, history, show: complexity.of_subject(subject, config),
        ),
        "representations": Analysis(
            "alignment, uniformity, singular values (DuoRec's degeneration)",
            representations.RepresentationsConfig,
            False,
            lambda subject, config, history, show: representations.of_subject(subject, config),
        ),
        "views": Analysis(
            "random and learned views of a history, near and apart (MCLRec Fig. 2 and 5)",
            views.ViewsConfig,
            False,
            lambda subject, config, history, show: views.of_subject(subject, config),
        ),
        "purity": Analysis(
            "clusters of users against item categories (ICLRec's case study)",
            purity.PurityConfig,
            False,
            lambda subject, config, history, show: purity.of_subject(subject, config),
        ),
    }
)


def analyse(
    name: str,
    settings: Mapping[str, Any] | object,
    path: Path | str,
    log: InteractionLog,
    *,
    history: History | None = None,
    device: str = "auto",
    show: Show = "nothing",
) -> dict[str, Any]:
    """Gives an analysis of a stored model as JSON values.

    Args:
        name: A name in :data:`ANALYSES`.
        settings: A mapping, as in the ``analysis`` of an experiment file without its name; or a settings object.
        path: A run's folder, or a bundle.
        log: The log, in any numbering; it is cut as the model's record says.
        history: Whether items of the user's history are candidates, for analyses that judge.
        device: Where to compute.
        show: Progress on standard error.

    Returns:
        The result's record, with the ``analysis`` and its ``settings``.

    Raises:
        ValueError: if there is no such analysis or setting, or it judges and ``history`` is not given.
    """
    analysis(name)
    return examine(subject_of(path, log, device=device), name, settings, history=history, show=show)


def examine(
    subject: Subject,
    name: str,
    settings: Mapping[str, Any] | object,
    *,
    history: History | None = None,
    show: Show = "nothing",
) -> dict[str, Any]:
    """Gives an analysis of a subject as JSON values: :func:`analyse` for what is loaded already.

    Args:
        subject: The model and the log.
        name: A name in :data:`ANALYSES`.
        settings: A mapping or a settings object.
        history: Whether items of the user's history are candidates, for analyses that judge.
        show: Progress on standard error.

    Returns:
        The result's record, with the ``analysis`` and its ``settings``.

    Raises:
        ValueError: if there is no such analysis or setting, or it judges and ``history`` is not given.
    """
    found = analysis(name)
    given = settings
    if isinstance(settings, Mapping):
        given = parse(found.settings, settings, source=f"analysis {name!r}")
    if not isinstance(given, found.settings):
        raise TypeError(f"analysis {name!r}: expected a mapping or {found.settings.__name__}, found {settings!r}")
    if found.judges and history is None:
        raise ValueError(f"the analysis {name!r} ranks held-out items; say history 'exclude' or 'keep'")
    result = found.apply(subject, given, history, show)
    return {"analysis": name, "settings": told_settings(given), **result.record()}


def told_settings(given: object) -> dict[str, Any]:
    """Gives settings as JSON values, files by their names: the folders of a machine are not part of a result."""
    files = {key: value.name for key, value in vars(given).items() if isinstance(value, Path)}
    return to_json(given) | files


def analysis(name: str) -> Analysis:
    """Gives the analysis called ``name``.

    Args:
        name: A name in :data:`ANALYSES`.

    Returns:
        The analysis.

    Raises:
        ValueError: if there is none; names those that there are.
    """
    if name not in ANALYSES:
        raise ValueError(f"unknown analysis {name!r}; known: {', '.join(ANALYSES)}")
    return ANALYSES[name]
