"""How figures look: small enough for a phone, told apart without colour, the same bytes every time."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import StringIO
from types import MappingProxyType
from typing import Any, cast

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from conseq.report.statement import Statement

Paint = Callable[[Figure, Axes], None]
Value = str | float | int | None

WIDTH = 4.2
"""Inches. A phone's page is about as wide, so that letters stay legible on it."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette without yellow, which is faint on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
HATCHES = ("", "///", "\\\\\\", "|||", "xxx", "---", "+++")
"""Lines alone: a hatch of dots makes a file six times as large."""
GREY = "#767676"
MOST_SERIES = 7

_RC: Mapping[str, Any] = MappingProxyType(
    {
        "axes.axisbelow": True,
        "axes.edgecolor": "#444444",
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 10,
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 10,
        "grid.alpha": 0.3,
        "hatch.linewidth": 0.6,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "lines.linewidth": 1.6,
        "lines.markersize": 5,
        "svg.fonttype": "none",  # letters stay letters: they can be searched, copied and read aloud
        "svg.hashsalt": "conseq",
        "text.parse_math": False,  # a dollar in an item's title is a dollar
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
    }
)
_NO_METADATA = ("Creator", "Date", "Format", "Type")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure with all that a reader needs to read it.

    Attributes:
        name: Stem of its files, different from those of all other pictures of the report.
        title: What it shows.
        svg: The drawing.
        alt: What it says, for those who do not see it.
        caption: How to read it: axes, units, error bars, seeds.
        protocol: Of the numbers.
        columns: Of the numbers behind it.
        rows: The numbers behind it.
    """

    name: str
    title: str
    svg: str
    alt: str
    caption: str
    protocol: Statement
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True)
class Look:
    """How one of several series is drawn."""

    colour: str
    marker: str
    line: Any
    hatch: str


def look(number: int) -> Look:
    """Gives the look of series ``number`` (from 0); there are seven, then they repeat."""
    n = number % len(COLOURS)
    return Look(COLOURS[n], MARKERS[n], LINES[n], HATCHES[n])


def draw(height: float, paint: Paint) -> str:
    """Gives a drawing as SVG without anything that a browser would fetch.

    Args:
        height: Inches.
        paint: Draws on the figure and its axes.

    Returns:
        The ``<svg>`` element. The same drawing gives the same bytes.
    """
    with mpl.rc_context(cast("Any", dict(_RC))), warnings.catch_warnings():
        # The browser has glyphs that the font which measures the text lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        paint(figure, figure.subplots())
        out = StringIO()
        figure.savefig(out, format="svg", metadata=dict.fromkeys(_NO_METADATA))
    text = out.getvalue()
    # The lines before name a document type by its address.
    return text[text.index("<svg") :]


def legend(figure: Figure, axes: Axes, *, columns: int = 1, scale: float = 1.0) -> None:
    """Puts the legend of ``axes`` below them, where it covers nothing; its markers are ``scale`` times as large."""
    found = list(zip(*axes.get_legend_handles_labels(), strict=True))
    if found:
        found.sort(key=lambda pair: not isinstance(pair[0], BarContainer))  # what the lines are beside
        shown = [wrapped(label, 50 // columns) for _, label in found]
        figure.legend(
            [handle for handle, _ in found],
            shown,
            loc="outside lower center",
            ncols=columns,
            markerscale=scale,
            handlelength=3,
        )


def legend_height(labels: int, columns: int = 1) -> float:
    """Gives the inches that a legend of so many labels takes."""
    return 0.2 * -(-labels // columns) + 0.1


def plain(text: str, limit: int = 200) -> str:
    """Gives text on one line, without characters that no drawing may hold, at most ``limit`` long."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def wrapped(text: str, width: int, lines: int = 2) -> str:
    """Gives text in at most ``lines`` lines of ``width`` letters."""
    return "\n".join(textwrap.wrap(plain(text), width, max_lines=lines, placeholder=" …")) or "?"
