"""The two kinds of charts that most figures are: lines, and bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from conseq.report.style import GREY, LINE, draw, labelled, legend, look, told_apart, wrapped

_LETTERS_PER_INCH = 10
_TICK_LINES = 3
_LETTERS = 40
"""How many letters of ticks stand beside each other on an axis."""
LOG_FROM = 8
"""Where the largest number is that many times the smallest, an axis is logarithmic."""
POPULARITY = "floor: popularity"
"""What the line of what learns nothing is called."""
_DASHES = ("--", ":", "-.")


@dataclass(frozen=True)
class Series:
    """Points that are joined by a line.

    Attributes:
        label: In the legend.
        x: Ascending.
        y: Of the same length.
        spread: Standard deviations; empty: no error bars.
        look: Which look it has; series of one look belong together and the first of them is in the legend.
        faint: Drawn dotted with open markers: what a paper printed.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    spread: tuple[float | None, ...] = ()
    look: int = 0
    faint: bool = False


@dataclass(frozen=True)
class Bars:
    """Bars of one kind, one for each place on the axis.

    Attributes:
        label: In the legend.
        values: Lengths; None: no bar.
        spread: Standard deviations; None: no error bar.
    """

    label: str
    values: tuple[float | None, ...]
    spread: tuple[float | None, ...]


@dataclass(frozen=True)
class Dot:
    """A number with an interval.

    Attributes:
        place: Where it stands on the axis of categories.
        value: The number.
        low: End of its interval; None: there is none, and the dot is open.
        high: The other end.
    """

    place: int
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Dots:
    """Dots of one kind.

    Attributes:
        label: In the legend.
        dots: Some at each place.
    """

    label: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class Labels:
    """What stands at the axes.

    Attributes:
        x: With the unit.
        y: With the unit; empty: nothing stands there, where ``ticks`` say enough.
        ticks: Names of the places 0, 1, … on the axis of categories; empty: numbers.
        wide: Whether the axis of numbers is logarithmic where they differ much.
        places: Numbers that the axis names; empty: as it falls.
    """

    x: str
    y: str
    ticks: tuple[str, ...] = ()
    wide: bool = True
    places: tuple[float, ...] = ()


def line_chart(series: Sequence[Series], labels: Labels, *, lines: Sequence[tuple[str, float]] = ()) -> str:
    """Gives lines with markers as SVG; error bars are standard deviations.

    Args:
        series: At least one.
        labels: Of the axes.
        lines: Names and values of horizontal lines that the series are seen against.

    Returns:
        The drawing.
    """
    ticks = told_apart(labels.ticks, 12, lines=_TICK_LINES)

    def paint(figure: Figure, axes: Axes) -> None:
        named: set[tuple[int, bool]] = set()
        for one in series:
            _line(axes, one, again=(one.look, one.faint) in named)
            named.add((one.look, one.faint))
        for number, (name, value) in enumerate(lines):
            axes.axhline(value, color=GREY, linestyle=_DASHES[number % len(_DASHES)], label=labelled(name), zorder=1)
        if ticks:
            axes.set_xticks(range(len(ticks)), ticks)
        else:
            _scale(axes, series, labels)
        axes.set_xlabel(labels.x)
        axes.set_ylabel(wrapped(labels.y, 26))
        legend(figure, axes)

    return draw(2.6 + LINE * _most_lines(ticks), paint)


def _most_lines(ticks: Sequence[str]) -> int:
    return max((1 + one.count("\n") for one in ticks), default=1)


def _line(axes: Axes, one: Series, *, again: bool) -> None:
    style = look(one.look)
    label = "_nolegend_" if again else labelled(one.label)
    if one.faint:
        axes.plot(
            one.x, one.y, color=style.colour, marker=style.marker, markerfacecolor="white", linewidth=0.8,
            linestyle=(0, (1, 2)), label=label, zorder=2, markevery=max(1, len(one.x) // 6),
        )  # fmt: skip
        return
    if again:  # another seed of a series that is marked already
        axes.plot(one.x, one.y, color=style.colour, linestyle=style.line, linewidth=0.8, alpha=0.7, zorder=2)
        return
    errors = [0.0 if value is None else value for value in one.spread]
    axes.errorbar(
        one.x, one.y, yerr=errors if any(errors) else None, color=style.colour, marker=style.marker,
        linestyle=style.line, capsize=2.5, label=label, markevery=max(1, len(one.x) // 8), zorder=3,
    )  # fmt: skip


def _scale(axes: Axes, series: Sequence[Series], labels: Labels) -> None:
    values = [value for one in series for value in one.x]
    if values and labels.wide and min(values) > 0 and max(values) >= LOG_FROM * min(values):
        axes.set_xscale("log")
        # Of less than two powers of ten a single one may lie inside, and one number is no scale.
        narrow = max(values) < 100 * min(values)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    if labels.places:
        names = [f"{value:g}" for value in labels.places]
        crowded = sum(map(len, names)) + len(names) > _LETTERS
        axes.set_xticks(labels.places, names, rotation=45 if crowded else 0)
        axes.minorticks_off()


def bar_chart(
    bars: Sequence[Bars],
    labels: Labels,
    *,
    printed: Sequence[float | None] = (),
    floors: Sequence[tuple[str, float]] = (),
) -> str:
    """Gives horizontal bars as SVG, one group for each tick, the first at the top.

    Args:
        bars: The kinds of bars.
        labels: ``x`` is the axis of the lengths; ``ticks`` name the groups.
        printed: A paper's numbers, one for each group, drawn as diamonds.
        floors: Names and values of vertical lines.

    Returns:
        The drawing.
    """
    places = np.arange(len(labels.ticks))
    ticks = told_apart(labels.ticks, 22, lines=_TICK_LINES)
    row = max(0.36, 0.2 * len(bars), 0.06 + LINE * _most_lines(ticks))
    thick = 0.8 / len(bars)
    known = [value for value in printed if value is not None]

    def paint(figure: Figure, axes: Axes) -> None:
        for number, one in enumerate(bars):
            _bars(axes, one, places + (number - (len(bars) - 1) / 2) * thick, thick, number)
        if known:
            axes.plot(
                [np.nan if value is None else value for value in printed], places, linestyle="", marker="D",
                color="black", markerfacecolor="white", markersize=6, label="printed in the paper", zorder=5,
            )  # fmt: skip
        for number, (name, value) in enumerate(floors):
            axes.axvline(value, color=GREY, linestyle=_DASHES[number % len(_DASHES)], label=f"floor: {name}", zorder=1)
        axes.set_yticks(places, ticks)
        axes.set_ylim(len(places) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(labels.x)
        if labels.y:  # names of the bars may say enough
            axes.set_ylabel(wrapped(labels.y, max(12, int(_LETTERS_PER_INCH * row * len(places))), lines=3))
        legend(figure, axes)

    return draw(0.8 + row * len(places), paint)


def _bars(axes: Axes, one: Bars, places: np.ndarray, thick: float, number: int) -> None:
    style = look(number)
    lengths = [0.0 if value is None else value for value in one.values]
    axes.barh(
        places, lengths, height=0.9 * thick, color=style.colour, alpha=0.75, hatch=style.hatch, edgecolor="white",
        label=labelled(one.label), zorder=2,
    )  # fmt: skip
    for place, value, spread in zip(places, one.values, one.spread, strict=True):
        if value is not None and spread is not None:
            axes.errorbar(value, place, xerr=spread, color="black", capsize=2.5, linewidth=1.2, zorder=4)


def dot_chart(kinds: Sequence[Dots], labels: Labels) -> str:
    """Gives differences as SVG: dots with intervals about a line at 0, one row for each tick, the first at the top.

    Args:
        kinds: The kinds of dots, which stand below one another in a row.
        labels: ``x`` is the axis of the numbers; ``ticks`` name the rows.

    Returns:
        The drawing.
    """
    ticks = told_apart(labels.ticks, 22, lines=_TICK_LINES)
    row = max(0.2 * len(kinds), 0.06 + LINE * _most_lines(ticks))

    def paint(figure: Figure, axes: Axes) -> None:
        axes.axvline(0.0, color="#444444", linewidth=1.0, zorder=1)
        for number, kind in enumerate(kinds):
            _dots(axes, kind, (number - (len(kinds) - 1) / 2) * 0.8 / len(kinds), number)
        axes.set_yticks(range(len(ticks)), ticks)
        axes.set_ylim(len(ticks) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel(labels.x)
        legend(figure, axes)

    return draw(0.8 + row * len(ticks), paint)


def _dots(axes: Axes, kind: Dots, shift: float, number: int) -> None:
    style = look(number)
    marks: Any = {"color": style.colour, "marker": style.marker, "linestyle": ""}
    axes.plot([], [], label=labelled(kind.label), **marks)  # the legend's, whatever the dots have
    for one in kind.dots:
        place = one.place + shift
        if one.low is None or one.high is None:
            axes.plot([one.value], [place], markerfacecolor="white", zorder=3, **marks)
        else:
            axes.plot([one.value], [place], zorder=3, **marks)
            axes.plot([one.low, one.high], [place, place], color=style.colour, linewidth=1.4, zorder=2)
