"""``conseq train METHOD DATA``."""

from __future__ import annotations

import argparse
import glob
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    from conseq.run.config import RunConfig
    from conseq.run.runner import Outcome
    from conseq.training.config import TrainingConfig


@dataclass(frozen=True)
class _Names:
    """What must be known before the options are: they depend on it."""

    method: str | None
    encoder: str | None
    split: str | None
    experiment: Path | None
    start: Path | None


def run(argv: list[str]) -> int:
    """Trains a method and prints how the best epoch ranks the test part."""
    from conseq.cli.logs import read_log
    from conseq.data.prepared import is_prepared
    from conseq.data.summary import summary
    from conseq.methods import METHODS
    from conseq.run import runner

    names, rest = _names(argv)
    if names.method is None and not {"-h", "--help"} & set(rest):
        raise ValueError("METHOD comes first: conseq train METHOD DATA [options]; known methods: " + ", ".join(METHODS))
    options, config = _parse(names, rest)
    show: runner.Show = "nothing" if options.quiet else ("bar" if sys.stderr.isatty() else "lines")
    log = read_log(options.data, "train")
    if show != "nothing" and not is_prepared(options.data):
        print(summary(log.manifest), file=sys.stderr)
    folder = options.run or Path("runs") / f"{config.method_name.split(':')[-1]}-{_stem(options.data)}-{config.digest}"
    try:
        outcome = runner.run(config, log, folder=folder, start=names.start, show=show, tensorboard=options.tensorboard)
    except runner.Stopped as stopped:
        print(f"{stopped}; the state is in {folder}. To go on, give the same command", file=sys.stderr)
        return 130
    print(json.dumps(_record(outcome)) if options.json else _report(outcome))
    return 0


def _stem(data: str) -> str:
    """Gives what a run's folder calls a log: the name of its file or folder, or of a pattern's folder."""
    path = Path(data)
    while glob.has_magic(path.name) and not path.exists():
        path = path.parent
    return path.resolve().stem


def _names(argv: list[str]) -> tuple[_Names, list[str]]:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("--encoder", "--split"):
        parser.add_argument(option)
    for option in ("--experiment", "--start"):
        parser.add_argument(option, type=Path)
    known, rest = parser.parse_known_args(argv)
    method = rest.pop(0) if rest and not rest[0].startswith("-") else None
    return _Names(method, known.encoder, known.split, known.experiment, known.start), rest


def _parse(names: _Names, rest: list[str]) -> tuple[Any, RunConfig]:
    """Gives the command's options and the experiment, from the experiment file and the command line."""
    from conseq.cli.models import manifest_of
    from conseq.run.config import RunConfig, from_record, read_experiment
    from conseq.run.starting import started

    tables = {} if names.experiment is None else read_experiment(names.experiment)
    written = tables.get("method", {}).get("name", names.method)
    if names.method is not None and written != names.method:
        raise ValueError(f"{names.experiment} is an experiment of method {written!r}, not of {names.method!r}")
    for section in ("method", "encoder", "split"):
        name = getattr(names, section)
        if name is not None and tables.get(section, {}).get("name", name) != name:
            tables[section] = {}
        if name is not None:
            tables[section] = {**tables.get(section, {}), "name": name}
    if names.start is not None:
        manifest_of(names.start, option="--start")
        tables = started(tables, names.start)
    base = from_record(tables, source=str(names.experiment or "the options"))
    flat = tyro.conf.OmitArgPrefixes
    options_class = make_dataclass(
        "Options",
        [
            (
                "data",
                Annotated[
                    str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA", help="A prepared folder, or a log.")
                ],
            ),
            ("run", Annotated[Path | None, tyro.conf.arg(help="The run's folder (given again: go on).")], None),
            ("json", Annotated[bool, tyro.conf.arg(help="Print one JSON object.")], False),
            ("quiet", Annotated[bool, tyro.conf.arg(help="No progress.")], False),
            ("tensorboard", Annotated[bool, tyro.conf.arg(help="Write TensorBoard events, too.")], False),
            ("method", flat[type(base.method)], field(default=base.method)),
            ("training", flat[type(base.training)], field(default=base.training)),
            ("encoder", type(base.encoder), field(default=base.encoder)),
            ("split", type(base.split), field(default=base.split)),
        ],
        frozen=True,
    )
    prog = f"conseq train {names.method or 'METHOD'}"
    options: Any = tyro.cli(options_class, prog=prog, description=_about(), args=rest)
    config = RunConfig(
        method_name=base.method_name,
        method=options.method,
        encoder_name=base.encoder_name,
        encoder=options.encoder,
        split=options.split,
        training=_training(options, base, {*tables.get("training", {}), *_named(rest)}),
        start=base.start,
    )
    return options, config


def _about() -> str:
    """Gives what the help says above the options."""
    from conseq.encoders import ENCODERS
    from conseq.methods import METHODS
    from conseq.run.splitting import SPLITS

    methods, encoders, splits = (", ".join(names) for names in (METHODS, ENCODERS, SPLITS))
    return (
        f"METHOD: {methods}; or one of your own, package.module:Class.\n"
        f"Also: --encoder NAME ({encoders}; or package.module:Class), --split NAME ({splits}), --experiment FILE; the "
        "options below are those of the ones named, here or in the file, or else of next_item and of the encoder that "
        "the method is made for. --start BUNDLE (or run) begins with its weights."
    )


def _training(options: Any, base: RunConfig, said: set[str]) -> TrainingConfig:
    """Gives the options' training; its defaults, where nothing is ``said``, may depend on the method's options."""
    from conseq.run.config import training_defaults

    own = training_defaults(base.method_name, options.method)
    found: TrainingConfig = replace(options.training, **{key: own[key] for key in own if key not in said})
    return found


def _named(arguments: list[str]) -> Iterator[str]:
    """Gives the options among some arguments as settings are called."""
    for one in arguments:
        if one.startswith("--"):
            yield one.partition("=")[0].removeprefix("--").replace("-", "_")


def _record(outcome: Outcome) -> dict[str, Any]:
    evaluations = [one.record() for one in outcome.evaluations.values()]
    best = {"best_epoch": outcome.best_epoch, "epochs": outcome.epochs}
    return {"run": str(outcome.folder), **best, **outcome.config.record(), "evaluations": evaluations}


def _report(outcome: Outcome) -> str:
    from conseq.evaluation.tables import as_text, metrics_table

    tables = [as_text(metrics_table(one)) for one in outcome.evaluations.values()]
    picked = f"epoch {outcome.best_epoch} of {outcome.epochs}, picked by {outcome.config.training.metric} on validation"
    return "\n".join([*tables, picked, f"run: {outcome.folder}", f"bundle: {outcome.folder}/bundle"])
