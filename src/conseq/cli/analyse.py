"""``conseq analyse NAME RUN_OR_BUNDLE DATA``."""

from __future__ import annotations

import json
import sys
from dataclasses import field, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from conseq.analyses import Analysis
    from conseq.run.runner import Show


def run(argv: list[str]) -> int:
    """Analyses a model and prints what was found."""
    from conseq.analyses import ANALYSES, analysis

    if not argv or argv[0].startswith("-"):
        lines = [f"  {name:<16}  {one.about}" for name, one in ANALYSES.items()]
        usage = "\n".join(["usage: conseq analyse NAME RUN_OR_BUNDLE DATA [options]", "", "analyses:", *lines])
        if {"-h", "--help"} & set(argv):
            print(f"{usage}\n\n`conseq analyse NAME --help` tells of its options.")
            return 0
        raise ValueError(f"NAME comes first\n\n{usage}")
    name = argv[0]
    chosen = analysis(name)
    options: Any = tyro.cli(_options(chosen), prog=f"conseq analyse {name}", description=chosen.about, args=argv[1:])
    record = _analysed(name, options)
    text = json.dumps(record)
    if options.out is not None:
        from conseq.data.files import atomic_write

        atomic_write(options.out, text + "\n")
    print(text if options.json else _shown(record), end="\n" if options.json else "")
    return 0


def _options(chosen: Analysis) -> type[Any]:
    """Gives the command's options: those of every analysis, and the settings of this one."""
    positional, told, flat = tyro.conf.Positional, tyro.conf.arg, tyro.conf.OmitArgPrefixes
    slicings = Literal["leave_one_out", "by_time", "by_user"] | None
    history: list[Any] = [
        ("history", Annotated[Literal["exclude", "keep"], told(help="Whether items of the history are candidates.")])
    ]
    about_slicing = "How the log is cut; where not given, as the model's own record says."
    about_unknown = "Items of the log that the model does not know: refuse the log, or leave them out."
    return make_dataclass(
        "Options",
        [
            ("model", Annotated[Path, positional, told(metavar="MODEL", help="A run's folder, or a bundle.")]),
            ("data", Annotated[str, positional, told(metavar="DATA", help="A prepared folder, or a log.")]),
            *(history if chosen.judges else []),
            ("settings", flat[chosen.settings]),
            ("slicing", Annotated[slicings, told(help=about_slicing)], None),
            ("unknown", Annotated[Literal["error", "drop"], told(help=about_unknown)], "error"),
            ("device", Annotated[str, told(help="cpu, cuda, ...; auto: a GPU where there is one.")], "auto"),
            ("out", Annotated[Path | None, told(help="Also write the JSON object to this file.")], None),
            ("json", Annotated[bool, told(help="Print one JSON object.")], field(default=False)),
        ],
        frozen=True,
    )


def _analysed(name: str, options: Any) -> dict[str, Any]:
    from conseq.analyses import examine
    from conseq.analyses.subject import subject_of
    from conseq.cli.logs import read_log
    from conseq.cli.models import manifest_of

    manifest_of(options.model)
    log = read_log(options.data, "analyse")
    subject = subject_of(options.model, log, slicing=options.slicing, unknown=options.unknown, device=options.device)
    show: Show = "bar" if sys.stderr.isatty() else "lines"
    return examine(subject, name, options.settings, history=getattr(options, "history", None), show=show)


def _shown(record: dict[str, Any]) -> str:
    from conseq.analyses.tables import table_of
    from conseq.evaluation.tables import as_text

    return as_text(table_of(record))
