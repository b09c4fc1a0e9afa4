"""A report of runs and records: static pages with tables, figures and maps, readable from disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

PACKAGES = ("jinja2", "matplotlib", "openTSNE")


def _silent(line: str) -> None:
    """Says nothing."""


def report(
    inputs: Sequence[Path | str],
    out: Path | str,
    *,
    experiments: Path | str | None = None,
    data: Path | str | None = None,
    pictures: bool = True,
    say: Callable[[str], None] = _silent,
) -> Path:
    """Gives the first page of a report about runs and records, written to a folder.

    The same inputs give the same files, byte for byte, on one machine. Nothing in them needs a server, a script or
    the network.

    Args:
        inputs: Files of records (``.jsonl``), run folders, bundles, or folders that hold any of them.
        out: The folder of the report; an older report there is replaced, anything else is refused.
        experiments: The folder of the papers' tables (``<paper>/<table>/<dataset>.toml``); None: no paper is compared.
        data: The folder that holds the logs by name, and beside them ``items.parquet`` with titles and categories;
            None: bundles get maps of items alone.
        pictures: Whether bundles get maps and importances, which take some seconds each.
        say: Takes a line of progress.

    Returns:
        The path of ``index.html``.

    Raises:
        ModuleNotFoundError: if the extra ``report`` is not installed.
        FileNotFoundError: if an input does not exist.
        ValueError: if an input holds neither records nor runs, or is damaged; names it.
        FileExistsError: if ``out`` holds something that is no report.
    """
    try:
        from conseq.report.site import write  # noqa: PLC0415  (what draws is an extra)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in PACKAGES:
            raise
        raise ModuleNotFoundError(
            f"the report needs {error.name}, which is not installed: pip install 'conseq[report]'", name=error.name
        ) from None
    folder = Path(data) if data is not None else None
    tables = Path(experiments) if experiments is not None else None
    return write([Path(one) for one in inputs], Path(out), experiments=tables, data=folder, pictures=pictures, say=say)
