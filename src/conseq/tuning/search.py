"""The search: a run for each trial, compared on validation alone; at the end the winner is judged on the test part."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch

from conseq.data.files import atomic_write
from conseq.data.locks import LOCK, locked
from conseq.data.log import InteractionLog
from conseq.evaluation.metrics import parse as parse_metric
from conseq.run import runner
from conseq.run.config import RunConfig, one_of
from conseq.run.folder import files_of
from conseq.run.provenance import code_hash, commit, machine, versions
from conseq.training.trainer import Stopped
from conseq.tuning.samplers import Sampler, drawn_by, suggest
from conseq.tuning.space import Space

SEARCH, TRIALS = "search.json", "trials.jsonl"
TRIALS_UNASKED = 20
Say = Callable[[str], None]


@dataclass(frozen=True)
class Trial:
    """One setting of the search and what validation found of it.

    Attributes:
        number: From 1.
        values: The settings that are varied, by their names.
        value: The validation metric of the best epoch; None where the trial failed.
        best_epoch: That epoch; 0 where it failed.
        epochs: Epochs trained.
        seconds: Time that the trial took, over all calls.
        failed: Why it failed; empty where it did not.
        same_as: The trial with the same experiment, which was not trained again; 0: there is none.
    """

    number: int
    values: dict[str, Any]
    value: float | None
    best_epoch: int = 0
    epochs: int = 0
    seconds: float = 0.0
    failed: str = ""
    same_as: int = 0


@dataclass(frozen=True, eq=False)
class Tuned:
    """What a search has found.

    Attributes:
        metric: The validation metric that compares trials.
        trials: All of them, in order.
        best: The trial with the highest value, the first of equal ones.
        config: Its experiment.
        complete: Whether all trials that were asked for are there.
        outcome: The winner's run, judged on the test part; None where the search is not complete, or was not to judge.
    """

    metric: str
    trials: tuple[Trial, ...]
    best: Trial
    config: RunConfig
    complete: bool
    outcome: runner.Outcome | None


class SearchStopped(Stopped):
    """A search was interrupted between two trials; what was found is saved.

    Args:
        trial: The last one that is done.
    """

    def __init__(self, trial: int) -> None:
        super().__init__(0, 0)
        self.args = (f"stopped after trial {trial}",)


def _silent(line: str) -> None:
    """Says nothing."""


def tune(  # noqa: PLR0913  (what is searched, where, how, how long, and what is shown of it)
    space: Space,
    log: InteractionLog,
    folder: Path | str,
    *,
    trials: int | None = None,
    sampler: Sampler = "tpe",
    seed: int = 0,
    budget: float | None = None,
    judge: bool = True,
    show: runner.Show = "nothing",
    say: Say = _silent,
) -> Tuned:
    """Searches for the settings that validation finds best, and judges those on the test part.

    Every trial is a run in a folder of its own and is stopped, saved and gone on with as any run. A search that was
    interrupted goes on with the same call, to the same result; one with more ``trials`` goes on where it ended.
    ``search.json`` says what was searched, ``trials.jsonl`` what was found. Of the trials' weights only the best ones
    are kept.

    Args:
        space: What is searched; see :func:`conseq.tuning.read_space`.
        log: What :func:`conseq.read` gives.
        folder: Where trials and records go.
        trials: How many, with those that are there already; None: all combinations of a grid, else 20.
        sampler: ``tpe``, ``random`` or ``grid``.
        seed: Of the sampler; that of the training is a setting.
        budget: Seconds after which no trial begins; None: no limit.
        judge: Whether the winner is judged on the test part when all trials are done.
        show: Progress of each training on standard error.
        say: Takes a line for each trial.

    Returns:
        What was found.

    Raises:
        ValueError: if the folder holds another search, an argument is none, or every trial failed: its settings do not
            fit together, its training diverges, or memory does not suffice. What else goes wrong ends the search.
        BlockingIOError: if another process is at work in the folder.
        ModuleNotFoundError: if the sampler needs the extra ``tune`` and it is not installed.
        Stopped: after Ctrl-C, with the state saved.
    """
    one_of(get_args(Sampler), sampler, name="sampler")
    trials = _how_many(trials, space, sampler)
    if seed < 0:
        raise ValueError(f"seed: at least 0, found {seed}")
    search = _Search(space, log, Path(folder), sampler, seed, show)
    deadline = None if budget is None else time.monotonic() + budget
    with locked(search.folder):
        search.begin()
        while len(search.trials) < trials and (deadline is None or time.monotonic() < deadline):
            values = suggest(space, sampler, seed, [(one.values, one.value) for one in search.trials])
            if values is None:
                break
            say(search.told(search.run(values)))
            if search.interrupted:
                raise SearchStopped(len(search.trials))
        return search.found(complete=len(search.trials) >= trials, judge=judge)


def _how_many(trials: int | None, space: Space, sampler: Sampler) -> int:
    """Gives how many trials the search has; of a grid no more than it has combinations."""
    if trials is not None and trials < 1:
        raise ValueError(f"trials: at least 1, found {trials}")
    if sampler == "grid":
        most = space.combinations()
        return most if trials is None else min(trials, most)
    return TRIALS_UNASKED if trials is None else trials


class _Search:
    """A search in its folder."""

    def __init__(
        self, space: Space, log: InteractionLog, folder: Path, sampler: Sampler, seed: int, show: runner.Show
    ) -> None:
        self.space = space
        self.log = log
        self.folder = folder
        self.show = show
        self.interrupted = False
        values = {name: one.some()[0] for name, one in space.varied.items()}
        first = space.config(values)
        parse_metric(first.training.metric)
        runner.resolve_device(first.training.device)
        self.of_sampler = drawn_by(sampler)
        self.metric = f"{first.training.metric}, history {first.training.history}"
        self._about = {
            "space": space.record(),
            "sampler": sampler,
            "seed": seed,
            "metric": self.metric,
            "data": {**runner.data_record(log), **_files(space, values)},
            "code": code_hash(first),
        }
        self.trials: list[Trial] = []

    def begin(self) -> None:
        """Writes what is searched, or finds it to be the same, and reads the trials that are there."""
        path = self.folder / SEARCH
        if not path.exists():
            if any(one.name != LOCK and not one.name.startswith(".") for one in self.folder.iterdir()):
                raise ValueError(f"{self.folder} is not empty and holds no search; choose another folder")
            made_by = {"commit": commit(), "machine": machine(), "versions": versions() | self.of_sampler}
            atomic_write(path, json.dumps({**self._about, **made_by}, indent=1) + "\n")
            return
        found = _read(path)
        asked = json.loads(json.dumps(self._about))
        other = [key for key in asked if _bare(found.get(key)) != _bare(asked[key])]
        if other == ["code"]:
            print(f"note: {self.folder} was begun with other code; its trials stand as they are", file=sys.stderr)
        elif other:
            raise ValueError(
                f"{self.folder} holds another search; it differs in {', '.join(other)}. Choose another folder"
            )
        lines = self.folder / TRIALS
        if lines.exists():
            self.trials = _trials(lines)
        self._say_of_the_sampler(found)
        for one in self.trials:  # a process that was killed may not have come to it
            self._forget(one)

    def _say_of_the_sampler(self, found: Mapping[str, Any]) -> None:
        was, now = (one.get("optuna") for one in (found.get("versions") or {}, self.of_sampler))
        if was and now and was != now:
            note = f"note: {self.folder} was begun with optuna {was} and goes on with {now}"
            print(f"{note}, which may choose other settings", file=sys.stderr)

    def run(self, values: Mapping[str, Any]) -> Trial:
        """Trains the next trial, unless its experiment was trained before, and records it."""
        config, number = self.space.config(values), len(self.trials) + 1
        same = next((one for one in self.trials if self.space.config(one.values).digest == config.digest), None)
        if same is not None:
            trial = replace(same, number=number, values=dict(values), seconds=0.0, same_as=same.same_as or same.number)
        else:
            trial = self._trained(config, Trial(number, dict(values), None))
        before = self.best
        self.trials.append(trial)
        told = "".join(json.dumps(asdict(one)) + "\n" for one in self.trials)
        atomic_write(self.folder / TRIALS, told)
        for one in (before, trial):
            self._forget(one)
        return trial

    def _trained(self, config: RunConfig, trial: Trial) -> Trial:
        folder = self.place(trial)
        begun = time.monotonic()
        try:
            found = runner.fit(config, self.log, folder=folder, show=self.show)
        except (runner.SettingsError, FloatingPointError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not _lacks_memory(error):
                raise
            return replace(trial, failed=_reason(error), seconds=round(time.monotonic() - begun, 1))
        self.interrupted = found.interrupted
        seconds = _seconds(folder / "metrics.jsonl")
        return replace(trial, value=found.value, best_epoch=found.best_epoch, epochs=found.epochs, seconds=seconds)

    @property
    def best(self) -> Trial | None:
        """The best trial so far, the first of equal ones."""
        return _best(self.trials)

    def place(self, trial: Trial) -> Path:
        """Gives the folder of a trial's run."""
        return _place(self.folder, trial)

    def _forget(self, trial: Trial | None) -> None:
        """Removes a trial's weights unless they are the best ones; configuration and curve stay."""
        best = self.best
        if trial is not None and (best is None or self.place(trial) != self.place(best)):
            (self.place(trial) / "checkpoint.pt").unlink(missing_ok=True)

    def told(self, trial: Trial) -> str:
        """Gives a trial's line."""
        values = ", ".join(f"{name} {short(value)}" for name, value in trial.values.items())
        found = f"failed: {trial.failed}" if trial.value is None else f"{trial.value:.4f} (epoch {trial.best_epoch})"
        again = f"  as trial {trial.same_as}" if trial.same_as else ""
        best = "  best so far" if trial == self.best else ""
        return f"trial {trial.number}  {values}  {found}{again}{best}"

    def found(self, *, complete: bool, judge: bool) -> Tuned:
        """Gives what the search has found, the winner judged if that is asked for and all trials are there."""
        best = self.best
        if best is None:
            reason = self.trials[-1].failed if self.trials else "the budget allows no trial"
            raise ValueError(f"{self.folder}: no trial has a value; the last one: {reason}")
        config = self.space.config(best.values)
        outcome = None
        if complete and judge:
            outcome = runner.run(config, self.log, folder=self.place(best), show=self.show)
        return Tuned(self.metric, tuple(self.trials), best, config, complete, outcome)


def winner(folder: Path) -> Path | None:
    """Gives the run of the best trial so far of the search in a folder.

    Args:
        folder: The folder of a search.

    Returns:
        The run's folder, which holds a bundle once the search is complete and its winner judged; None where no trial
        has a value.

    Raises:
        ValueError: if the record of a trial is damaged.
    """
    lines = folder / TRIALS
    best = _best(_trials(lines)) if lines.exists() else None
    return None if best is None else _place(folder, best)


def _best(trials: Sequence[Trial]) -> Trial | None:
    scored = [one for one in trials if one.value is not None]
    return max(scored, key=lambda one: (one.value, -one.number)) if scored else None


def _place(folder: Path, trial: Trial) -> Path:
    return folder / "trials" / f"{trial.same_as or trial.number:04d}"


def _trials(lines: Path) -> list[Trial]:
    return [_trial(line, f"{lines}:{k}") for k, line in enumerate(_lines(lines), 1)]


def _files(space: Space, values: Mapping[str, Any]) -> dict[str, dict[str, list[str]]]:
    """Gives the hashes of the files that the settings name, by the setting; nothing where none does."""
    found: dict[str, list[str]] = {}
    for config in (space.config({**values, name: value}) for name, one in space.varied.items() for value in one.some()):
        for key, file in files_of(config).items():
            found[key] = sorted({*found.get(key, ()), file})
    return {"files": found} if found else {}


def _lacks_memory(error: RuntimeError) -> bool:
    """Tells a device (torch has an error for it) or a processor (it has none) without memory for a tensor."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _reason(error: Exception) -> str:
    """Gives the first line; what follows it in torch's errors is advice and a stack."""
    found = (str(error) or type(error).__name__).splitlines()[0]
    return f"out of memory: {found}" if isinstance(error, MemoryError | RuntimeError) else str(error)


def _bare(value: Any) -> Any:
    """Gives a value of the record without the log's path: the hash tells which log it is."""
    return {key: one for key, one in value.items() if key != "source"} if isinstance(value, dict) else value


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not the record of a search: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: not the record of a search: expected an object, found {type(found).__name__}")
    return found


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _trial(line: str, where: str) -> Trial:
    try:
        return Trial(**json.loads(line))
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"{where}: not the record of a trial: {error}") from None


def _seconds(metrics: Path) -> float:
    """Gives the seconds of a run's epochs, those of earlier calls included."""
    return round(math.fsum(json.loads(line)["seconds"] for line in _lines(metrics)), 1)


def short(value: Any) -> str:
    """Gives a setting's value in few letters."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
