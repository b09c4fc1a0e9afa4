"""The short way: a log in, a model out that recommends, is judged and can be saved."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np

from conseq.config import to_json
from conseq.data.log import InteractionLog
from conseq.data.splits import Split
from conseq.evaluation.result import Evaluation
from conseq.methods import METHODS
from conseq.run import runner
from conseq.run.config import RunConfig, from_record, name_of, own_encoder, read_experiment, shown_name
from conseq.run.splitting import LeaveOneOut
from conseq.run.starting import started
from conseq.serving.recommender import Recommender

Settings = str | Mapping[str, Any] | object

_LOST = (
    "the training was stopped, and nothing of it is left; with run='FOLDER' the same call goes on where it was, and "
    "`conseq snapshot` gives the best epoch so far"
)


class Model(Recommender):
    """A trained model: a recommender that also knows how it was trained and how it was judged.

    Args:
        outcome: A finished run.
        log: What it was trained on.

    Attributes:
        config: The experiment that made it.
        split: The log as it was cut; the test part was not seen before the end.
        evaluations: The test part judged with history ``"exclude"`` and ``"keep"``.
        best_epoch: The epoch that validation picked.
        epochs: Epochs trained.
    """

    def __init__(self, outcome: runner.Outcome, log: InteractionLog) -> None:
        counts = np.bincount(log.items, minlength=log.n_items + 1)[1:]
        super().__init__(outcome.encoder, log.item_ids, counts=counts)
        self.config: RunConfig = outcome.config
        self.split: Split = outcome.split
        self.evaluations = outcome.evaluations
        self.best_epoch = outcome.best_epoch
        self.epochs = outcome.epochs
        self._outcome = outcome
        self._log = log

    def __repr__(self) -> str:
        names = f"{self.config.method_name}, {self.config.encoder_name}"
        metric = self.config.training.metric
        judged = ", ".join(
            f"{one.metrics[metric]:.4f} (history {history})"
            for history, one in sorted(self.evaluations.items())
            if metric in one.metrics
        )
        test = f", test {metric} {judged}" if judged else ""
        epoch = f"epoch {self.best_epoch or self.epochs} of {self.epochs}"
        return f"<conseq.Model: {names}, {self.scorer.n_items:,} items, {epoch}{test}>"

    @classmethod
    def load(cls, path: Path | str, *, device: object = "cpu") -> NoReturn:
        """Refuses: a bundle holds what recommends, and neither log nor evaluations. :meth:`Recommender.load` reads it.

        Args:
            path: A bundle.
            device: Where to compute.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            f"a bundle is read with conseq.Recommender.load({str(path)!r}); a Model, with its log and evaluations, is "
            "what conseq.train gives, from the run's folder where that is finished"
        )

    def evaluate(
        self,
        *,
        history: Literal["exclude", "keep"],
        split: Literal["validation", "test"] = "test",
        ks: Sequence[int] = (),
    ) -> Evaluation:
        """Gives how the model ranks held-out items in the full catalogue, with the floors beside it.

        Args:
            history: ``exclude``: items of the user's history are no candidates; ``keep``: they are.
            split: The held-out part.
            ks: Cut-offs of the metrics; none: 5, 10 and 20, and 50 too where users are held out.

        Returns:
            The evaluation; ``.metrics`` holds ``HR@10``, ``NDCG@10``, ….

        Raises:
            ValueError: if an argument has a value that it cannot have, or the part holds nobody to judge.
        """
        name = shown_name(self.config.method_name, type(self.scorer).__name__)
        return runner.judge(self.scorer, self.split, history=history, part=split, ks=ks, name=name)

    def save(self, folder: Path | str) -> None:
        """Writes a bundle that :meth:`conseq.Recommender.load` reads, without any training code.

        Args:
            folder: Where to write; an older bundle there is replaced.

        Raises:
            FileExistsError: if ``folder`` is a file, or holds anything besides a bundle.
            OSError: if it cannot be written; an older bundle stays as it was.
        """
        runner.save(self._outcome, self._log, Path(folder))


def train(  # noqa: PLR0913  (one for each section, and where from and where to)
    method: Settings,
    log: InteractionLog,
    *,
    encoder: Settings | None = None,
    split: Settings | None = None,
    training: Mapping[str, Any] | object | None = None,
    experiment: Path | str | None = None,
    start: Path | str | None = None,
    run: Path | str | None = None,
    show: runner.Show = "lines",
) -> Model:
    """Gives a model trained on ``log`` and judged on what was held out of it.

    Each of ``method``, ``encoder`` and ``split`` is a name (``"next_item"``), a mapping with a ``name`` and
    settings (``{"name": "sasrec", "width": 128}``), or a settings object (``SASRecConfig(width=128)``). A method of
    your own is a name or a mapping: its settings do not tell its class.

    Args:
        method: The method; also ``package.module:Class`` for one of your own.
        log: What :func:`conseq.read` gives.
        encoder: The backbone; where neither this nor the experiment says otherwise, the one that the method is made
            for, which for most is SASRec.
        split: How the log is cut; leave-one-out where neither this nor the experiment says otherwise.
        training: Settings of the loop: a mapping or a :class:`conseq.TrainingConfig`.
        experiment: A TOML file whose settings apply where the other arguments do not say otherwise.
        start: A bundle, or the folder of a finished run, with whose weights the encoder begins (and whose encoder it
            has where the other arguments do not say otherwise). Items are found by their ids; new ones begin at random.
        run: The run's folder, for metrics, checkpoint and bundle; a run that is there already is gone on with.
        show: Progress on standard error: ``bar``, ``lines`` or ``nothing``.

    Returns:
        The model.

    Raises:
        ValueError: on an unknown name or key, settings that do not fit the log or what is started from, or a folder
            that holds another run.
        FileNotFoundError: if there is no bundle to start from.
        TypeError: if a setting is neither a name, a mapping nor a settings object, or the log is not one.
        BlockingIOError: if another process is at work in the folder of the run.
        FloatingPointError: if training diverges.
        KeyboardInterrupt: after Ctrl-C; of a run with a folder the state is saved, and the same call goes on. Without
            one nothing is left.
    """
    if method is None:
        raise TypeError(
            f"method: expected a name, a mapping or a settings object, found None; known: {', '.join(METHODS)}"
        )
    if not isinstance(log, InteractionLog):
        raise TypeError(_no_log(log))
    given = {"method": method, "encoder": encoder, "split": split, "training": training}
    tables = _tables({} if experiment is None else read_experiment(experiment), given)
    begun = None if start is None else Path(start)
    if begun is not None:
        tables = started(tables, begun)
    config = from_record(tables, source="train()")
    folder = None if run is None else Path(run)
    with _told_what_is_lost(folder):
        outcome = runner.run(config, log, folder=folder, start=begun, show=show)
    return Model(outcome, log)


@contextmanager
def _told_what_is_lost(folder: Path | None) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if folder is None:
            print(_LOST, file=sys.stderr)
        raise


def _tables(written: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Gives the tables of an experiment file, each changed by what a caller gave, or replaced where names differ."""
    tables = {section: dict(table) for section, table in written.items()}
    for section, value in given.items():
        if value is None:
            continue
        table = _table(section, value)
        own = tables.get(section, {})
        # A file that names nothing means the default; of a method, which is always given, the one that is given.
        defaults = {"encoder": own_encoder(str(tables.get("method", {}).get("name"))), "split": LeaveOneOut().name}
        meant = own.get("name", defaults.get(section, table.get("name")))
        tables[section] = {**own, **table} if table.get("name", meant) == meant else table
    return tables


def _table(section: str, value: Settings) -> dict[str, Any]:
    """Gives what a caller wrote for a section as a table."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping):
        return dict(value)
    try:
        name = name_of(value)
    except TypeError as error:
        raise TypeError(f"{section}: {error}") from None
    return to_json(value) if name is None else {"name": name, **to_json(value)}


def _no_log(found: object) -> str:
    """Gives what is said of something that was given in the place of a log."""
    path = found if isinstance(found, str) else str(found) if isinstance(found, os.PathLike) else None
    how = "conseq.read reads files and tables" if path is None else f"write conseq.read({path!r})"
    return f"log: expected what conseq.read gives, found {type(found).__name__}; {how}"
