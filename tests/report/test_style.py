"""Names in figures: whatever they are, those that differ look different, and they leave room for what is drawn."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest

from conseq.report.charts import Bars, Labels, Series, bar_chart, line_chart
from conseq.report.style import told_apart

MASKED, RANDOM = "ECL-SR invasive=Substitution (Mask)", "ECL-SR invasive=Substitution (Random)"
LONG = "a name of so many words that three lines of it are not enough, at least of such short ones as stand at an axis"


def axes_height(svg: str) -> float:
    """Gives the height of what is drawn between the axes, in inches."""
    path = re.search(r'<g id="patch_2">\s*<path d="([^"]+)"', svg)
    assert path is not None
    heights = [float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", path[1])]
    return (max(heights) - min(heights)) / 72


def bars(ticks: Sequence[str]) -> str:
    count = len(ticks)
    return bar_chart([Bars("ours", (0.1,) * count, (None,) * count)], Labels("x", "", tuple(ticks)))


def lines(names: Sequence[str]) -> str:
    series = [
        Series(f"{name}{kind}", (1.0, 2.0), (0.1, 0.2), look=place, faint=bool(kind))
        for place, name in enumerate(names)
        for kind in ("", ", paper")
    ]
    return line_chart(series, Labels("x", "y"), lines=[("popularity", 0.05)])


def test_what_tells_two_rows_apart_is_read_at_their_bars() -> None:
    svg = bars([MASKED, RANDOM])
    assert "(Mask)" in svg
    assert "(Random)" in svg


def test_a_stale_row_is_known_by_its_bar_however_long_its_name_is() -> None:
    svg = bars([f"{LONG} [stale]", LONG])
    assert svg.count("[stale]") == 1
    assert "…as stand at an axis" in svg


def test_names_on_an_axis_of_categories_are_told_apart() -> None:
    ticks = ("Substitution, of the kind Mask", "Substitution, of the kind Random")
    svg = line_chart([Series("a", (0.0, 1.0), (0.1, 0.2))], Labels("x", "y", ticks))
    assert "kind Mask" in svg
    assert "Random" in svg


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a b", "a c"], ["a b", "a c"]),
        ([MASKED], ["ECL-SR\ninvasive=Substitution\n(Mask)"]),
        (["x" * 30], [f"{'x' * 22}\n{'x' * 8}"]),
    ],
)
def test_a_name_that_fits_is_shown_whole(texts: list[str], expected: list[str]) -> None:
    assert told_apart(texts, 22, lines=3) == expected


def test_a_name_that_does_not_fit_loses_its_middle() -> None:
    assert told_apart(["one two three four five six"], 9, lines=2) == ["one two\n…five six"]
    assert told_apart(["one two " + "x" * 30], 9, lines=2) == ["one two x\n…xxxxxxxx"]


def test_names_that_differ_in_the_middle_alone_are_shown_whole() -> None:
    names = [f"{LONG} {which} {LONG}"[40:180] for which in ("one", "two")]
    one, two = told_apart(names, 22, lines=3)
    assert "one" in one.split()
    assert "two" in two.split()


def test_names_that_no_drawing_can_tell_apart_are_numbered() -> None:
    assert told_apart(["a  b", "a b", "1: a b", "a b"], 22, lines=2) == ["2: a b", "3: a b", "1: a b", "3: a b"]
    assert len(set(told_apart(["x" * 300 + "y" * 300 + end for end in "ab"] + ["\x00", "\x01"], 22, lines=2))) == 4


def test_names_drawn_at_random_stay_apart_and_within_their_lines() -> None:
    rng = np.random.default_rng(0)
    words = ("a", "bb", "substitution", "(Mask)", "[stale]", "x" * 30)
    for _ in range(200):
        names = sorted({" ".join(rng.choice(words, rng.integers(1, 9))) for _ in range(6)})
        found = told_apart(names, 12, lines=2)
        assert len(set(found)) == len(names)
        assert max(len(line) for one in found for line in one.split("\n")) <= 12


def test_higher_names_have_higher_rows() -> None:
    short, long = (axes_height(bars(names)) for names in (["a"] * 5, [f"{LONG} {number}" for number in range(5)]))
    assert long / 5 > 3 * 0.15
    assert short < long


def test_a_legend_of_many_long_names_leaves_the_axes_their_height() -> None:
    short, long = axes_height(lines(["a"])), axes_height(lines([f"{LONG} {number}" for number in range(7)]))
    assert long == pytest.approx(short, abs=0.06)
    assert long > 1.5


def test_a_name_that_begins_with_an_underscore_is_in_the_legend() -> None:
    assert "_hidden" in lines(["_hidden"])
    assert "_hidden" in bar_chart([Bars("_hidden", (0.1,), (None,))], Labels("x", "", ("a",)))


@pytest.mark.parametrize("least", [0.03, 1.0, 7.0, 110.0, 900.0, 1100.0, 4000.0])
@pytest.mark.parametrize("times", [9.0, 25.0, 60.0, 99.0, 400.0, 30000.0])
def test_a_logarithmic_axis_has_two_numbers_at_least_and_no_crowd(least: float, times: float) -> None:
    svg = line_chart([Series("a", (least, 3 * least, times * least), (0.1, 0.2, 0.3))], Labels("x", "y"))
    axis = svg[svg.index('<g id="matplotlib.axis_1">') : svg.index('<g id="matplotlib.axis_2">')]
    shown = [float(one) for one in re.findall(r">([\d.e+-]+)</text>", axis)]
    assert 2 <= len(shown) <= 8
    assert all(least / 2 <= one <= 2 * times * least for one in shown)
