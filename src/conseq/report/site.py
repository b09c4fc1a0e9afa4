"""Writes the report: pages, figures, and the numbers behind them, as files that need nothing else."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from conseq.data.folders import atomic_folder, check_place
from conseq.report.addresses import slugged, slugs
from conseq.report.importances import importances
from conseq.report.logs import KnownLogs
from conseq.report.maps import maps
from conseq.report.models import Model, load_model
from conseq.report.numbers import NONE, signed_minus
from conseq.report.pages import (
    Page,
    Section,
    answered,
    dataset_pages,
    overview,
    study_pages,
)
from conseq.report.results import results
from conseq.report.sources import collect, tables_of
from conseq.report.stored import Stored, stored
from conseq.report.style import Picture, Value
from conseq.study.logs import prepared_beside

FORMAT = "conseq-report"
MANIFEST = "report.json"
_ROWS = 40
_OF_SYSTEMS = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})  # file managers leave them in any folder
_INTRO = "What runs found, and what papers print, each number under a stated protocol."
_EMPTY = "There are no records and no models: nothing has been run yet, so there is nothing to show."


def write(
    inputs: Sequence[Path],
    out: Path,
    *,
    experiments: Path | None,
    data: Path | None,
    pictures: bool,
    say: Callable[[str], None],
) -> Path:
    """Writes the report, as :func:`conseq.report.report` says.

    Args:
        inputs: Records, runs, bundles, or folders of them.
        out: The folder of the report.
        experiments: The folder of the papers' tables.
        data: The folder of the logs.
        pictures: Whether bundles get maps and importances.
        say: Takes a line of progress.

    Returns:
        The path of its first page.
    """
    check_place(out, replaceable=is_report)
    sources = collect(inputs, say)
    found = results(sources.records)
    tables = answered(tables_of(experiments), sources.records)
    slug = slugs()
    studies = study_pages(tables, found, slug)
    shown = [one for table in tables if table.has_runs for one in table.own.values()]
    pages = [*studies, *dataset_pages(found, shown, slug)]
    if pictures:
        logs = None if data is None else KnownLogs(data, prepared_beside(sources.models))
        known = stored(sources.models, logs, sources.records)
        pages += _model_pages(known, logs, say)
    counted = overview(tables, pages, sources.records)
    start = (Section("overview", "The papers' cells", (counted,)),) if counted else ()
    first = Page("index.html", "Report", "", "", _INTRO if pages else _EMPTY, start)
    return write_pages([first, *pages], out)


def write_pages(pages: Sequence[Page], out: Path) -> Path:
    """Writes pages with their figures and numbers: the whole folder or nothing.

    Args:
        pages: The first one is ``index.html``.
        out: A new or empty folder, or an older report, which is replaced.

    Returns:
        The path of the first page.

    Raises:
        FileExistsError: if the folder holds something else.
        ValueError: if two figures have one name: the second would take the first one's files.
    """
    counts = Counter(one.name for page in pages for section in page.sections for one in section.pictures)
    if double := sorted(name for name, count in counts.items() if count > 1):
        raise ValueError(f"names of figures must differ in the whole report; of several figures: {', '.join(double)}")
    template = _environment().get_template("page.html")
    with atomic_folder(out, replaceable=is_report) as folder:
        for name in ("figures", "numbers"):
            (folder / name).mkdir()
        for page in pages:
            for picture in (one for section in page.sections for one in section.pictures):
                _text(folder / "figures" / f"{picture.name}.svg", picture.svg)
                _text(folder / "numbers" / f"{picture.name}.csv", _csv(picture))
            _text(folder / page.file, template.render(page=page, pages=pages, most=_ROWS, css=_css()))
        files = sorted(str(path.relative_to(folder).as_posix()) for path in folder.rglob("*") if path.is_file())
        _text(folder / MANIFEST, json.dumps({"format": FORMAT, "files": files}, indent=1) + "\n")
    return out / pages[0].file


def is_report(folder: Path) -> bool:
    """Gives whether ``folder`` holds a report and nothing else, so that replacing it loses nothing else."""
    try:
        told: Any = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        return False
    files = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in _OF_SYSTEMS
    }
    return files <= {*told.get("files", ()), MANIFEST}


def _model_pages(known: Sequence[Stored], logs: KnownLogs | None, say: Callable[[str], None]) -> list[Page]:
    """Gives the pages of maps and of importances, as far as there is something to show."""
    sections: dict[str, list[Section]] = {"maps": [], "importances": []}
    for place, one in enumerate(known, 1):
        # No name is given to the model here, so that it is let go of before the next one is read.
        for kind, found in _pictured(load_model(one, logs), f"{place}-{slugged(one.name)}", say).items():
            sections[kind].append(found)
    told = {
        "maps": ("Maps of users and items", "t-SNE of the vectors of trained models."),
        "importances": (
            "Importance of items",
            (
                "Which items of a history the prediction of the next one rests on. The users are drawn at random among "
                "those with short histories; nothing was picked for looking well."
            ),
        ),
    }
    return [
        Page(f"{kind}.html", title, "Models", "", intro, tuple(sections[kind]))
        for kind, (title, intro) in told.items()
        if sections[kind]
    ]


def _pictured(model: Model, name: str, say: Callable[[str], None]) -> dict[str, Section]:
    """Gives the sections of a model by page; none where there is nothing to show."""
    say(f"drawing {model.name}")
    for note in model.notes:
        say(f"{model.name}: {note}")
    drawn = {"maps": maps(model, name), "importances": importances(model, name)}
    return {
        kind: Section(name, model.name, pictures=tuple(pictures), notes=model.notes)
        for kind, pictures in drawn.items()
        if pictures
    }


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("conseq.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["shown"] = shown
    return environment


@cache
def _css() -> str:
    return (Path(__file__).parent / "templates" / "page.css").read_text(encoding="utf-8")


def shown(value: Value) -> str:
    """Gives a value of the table behind a figure as text."""
    if value is None:
        return NONE
    if isinstance(value, float):
        return signed_minus(
            f"{value:.4f}".rstrip("0").rstrip(".") if abs(value) >= 1e-4 or value == 0 else f"{value:.2e}"
        )
    return signed_minus(str(value)) if isinstance(value, int) else value


def _csv(picture: Picture) -> str:
    """Gives the numbers behind a figure, their protocol in a line of its own that begins with ``#``."""
    out = StringIO()
    out.write(f"# {' '.join(picture.protocol.line.split())}\n")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(picture.columns)
    writer.writerows(picture.rows)
    return out.getvalue()


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
