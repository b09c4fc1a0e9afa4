"""How figures look: small enough for a phone, told apart without colour, the same bytes every time."""

from __future__ import annotations

import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
LINE = 0.15
"""Inches that a line of small letters takes at ticks."""
_LEGEND_GAP = 0.08
"""Inches between a legend and what is above and below it."""
_DPI = 720
"""What text is measured at: at a few dots per inch each line would be rounded to whole ones, which SVG does not."""

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
        figure = Figure(figsize=(WIDTH, height), dpi=_DPI, layout="constrained")
        paint(figure, figure.subplots())
        out = StringIO()
        figure.savefig(out, format="svg", metadata=dict.fromkeys(_NO_METADATA))
    text = out.getvalue()
    # The lines before name a document type by its address.
    return text[text.index("<svg") :]


def legend(figure: Figure, axes: Axes, *, columns: int = 1, scale: float = 1.0) -> None:
    """Puts the legend of ``axes`` below them, where it covers nothing; its markers are ``scale`` times as large.

    The figure grows by what the legend takes.

    Args:
        figure: The figure.
        axes: What is labelled there is in the legend.
        columns: Of the legend.
        scale: Of its markers.
    """
    found = list(zip(*axes.get_legend_handles_labels(), strict=True))
    if found:
        found.sort(key=lambda pair: not isinstance(pair[0], BarContainer))  # what the lines are beside
        below = figure.legend(
            [handle for handle, _ in found],
            told_apart([label for _, label in found], 50 // columns, lines=2),
            loc="outside lower center",
            ncols=columns,
            markerscale=scale,
            handlelength=3,
        )
        # Measured, not reckoned from the lines: how high a line is differs between versions of matplotlib.
        inches = below.get_window_extent().height / figure.dpi
        figure.set_figheight(figure.get_figheight() + inches + _LEGEND_GAP)


def labelled(name: str) -> str:
    """Gives a label that matplotlib takes for one, whatever the name begins with: ``_`` would keep it from a legend."""
    return f" {name}"


def plain(text: str, limit: int = 200) -> str:
    """Gives text on one line, without characters that no drawing may hold, at most ``limit`` long."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def wrapped(text: str, width: int, lines: int = 2) -> str:
    """Gives text in at most ``lines`` lines of ``width`` letters; of what is cut off, as much of a word as fits."""
    found = textwrap.wrap(plain(text), width)
    if len(found) > lines:
        last = found[lines - 1]
        found = [*found[: lines - 1], f"{last} …" if len(last) + 2 <= width else f"{last[: width - 1].rstrip()}…"]
    return "\n".join(found) or "?"


def told_apart(texts: Sequence[str], width: int, *, lines: int) -> list[str]:
    """Gives names in lines of ``width`` letters, no two alike where the names differ.

    What does not fit into ``lines`` lines loses its middle: names that begin alike differ at their ends. Where that
    would make two alike, they keep all that they say, and what still cannot be told apart is numbered.

    Args:
        texts: The names.
        width: Letters of a line.
        lines: At least 2.

    Returns:
        The names as shown, in their order.
    """
    shown = {one: _ends(one, width, lines) for one in texts}
    count = Counter(shown.values())
    shown.update({one: wrapped(one, width, len(one) + 1) for one, now in shown.items() if count[now] > 1})
    count, taken = Counter(shown.values()), set(shown.values())
    for one, now in shown.items():
        if count[now] > 1:
            numbered = (wrapped(f"{place}: {now}", width, len(now) + 9) for place in range(1, 10**6))
            shown[one] = next(text for text in numbered if text not in taken)
            taken.add(shown[one])
    return [shown[one] for one in texts]


def _ends(text: str, width: int, lines: int) -> str:
    """Gives text in at most ``lines`` lines, the last of which holds its end."""
    whole = plain(text, len(text) + 1)
    found = textwrap.wrap(whole, width)
    if len(found) <= lines:
        return "\n".join(found) or "?"
    before, end = whole[: 1 - width], whole[1 - width :]
    if not before.endswith(" "):  # the end of a word says less than the words after it
        end = end.partition(" ")[2] or end
    return "\n".join([*found[: lines - 1], f"…{end}"])
