"""What stands on which page of the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from conseq.analyses import ANALYSES
from conseq.report.addresses import Place, in_words, places, slugs
from conseq.report.comparisons import ablation
from conseq.report.curves import learning_curves
from conseq.report.gains import gains
from conseq.report.groups import representatives, slice_table, slices, user_groups
from conseq.report.measures import measures
from conseq.report.results import Result, by_settings, result_of, with_analysis
from conseq.report.spectrum import spectra
from conseq.report.statement import statement
from conseq.report.style import Picture
from conseq.report.sweeps import robustness, sensitivity
from conseq.report.tables import (
    Cell,
    Group,
    NumberTable,
    against_paper,
    all_runs,
    beside,
    row_key,
    unanswered,
    without_paper,
)
from conseq.study.answers import Answer, Verdict, answers, of_row, splits_of
from conseq.study.cuts import cut_names, cut_of
from conseq.study.records import Identity, Record, but_seed, identity
from conseq.study.specification import Row, Table

VERDICTS: tuple[Verdict, ...] = (
    "reached",
    "above",
    "below",
    "impossible in print",
    "no number in print",
    "not run",
    "closed",
)
# Drawn as well; what is repeated is a target only where items of the history are.
_DRAWN = (
    ("history", "exclude"),
    ("popularity", "exclude"),
    ("time tie", "exclude"),
    ("time tie", "keep"),
    ("repeat", "keep"),
)
_CUTS = (*_DRAWN, ("history", "keep"), ("popularity", "keep"))


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        anchor: Where links to it go.
        heading: Its heading.
        tables: Its tables.
        pictures: Its figures.
        notes: Its text, a paragraph each.
    """

    anchor: str
    heading: str
    tables: tuple[NumberTable, ...] = ()
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        file: Its name.
        title: Its title.
        kind: The heading under which the first page lists it.
        group: What it is listed under with others of its kind; empty: it stands alone.
        intro: Its first paragraph.
        sections: Its parts.
        paper: What its group is called on the first page.
    """

    file: str
    title: str
    kind: str
    group: str
    intro: str
    sections: tuple[Section, ...]
    paper: str = ""


@dataclass(frozen=True)
class Answered:
    """A paper's table with what we found.

    Attributes:
        table: The table.
        place: Where it stands on the page of its study.
        answers: Its cells.
        own: Our results by row.
        floors: The records that the cells of floors are of.
    """

    table: Table
    place: Place
    answers: list[Answer]
    own: dict[str, Result]
    floors: tuple[Record, ...]

    @property
    def has_runs(self) -> bool:
        """Whether any cell has a number of ours."""
        return any(one.n for one in self.answers)


def answered(tables: Sequence[Table], records: Sequence[Record]) -> list[Answered]:
    """Gives the tables with our results."""
    where, known = places(tables), _Known(records)
    return [_answered(table, where[table.path], known) for table in tables]


class _Known:
    """Records by what rows ask for: with many rows and records, looking through all of them takes minutes."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.of_log: dict[str, list[Record]] = {}
        self._runs: dict[tuple[str, str], list[Record]] = {}
        self._earlier: dict[tuple[str, str, str], list[Record]] = {}
        for record in records:
            self.of_log.setdefault(record["dataset"], []).append(record)
            self._runs.setdefault((record["dataset"], but_seed(record["config"])), []).append(record)
            self._earlier.setdefault((record["dataset"], record["study"], record["row"]), []).append(record)

    def of(self, row: Row) -> list[Record]:
        """Gives what can answer a row that is trained."""
        if row.config is None:
            return []
        now = self._runs.get((row.dataset, but_seed(row.config.record())), [])
        return now or self._earlier.get((row.dataset, row.study, row.name), [])


def _answered(table: Table, place: Place, known: _Known) -> Answered:
    cells: dict[str, list[Answer]] = {}
    own: dict[str, Result] = {}
    for row in table.rows:
        if row.floor is None:
            candidates = known.of(row)
            told = cells[row_key(row)] = answers(replace(table, rows=(row,)), candidates)
            mine = [record for _, record in of_row(row, candidates)]
            if row.asked is not None:
                mine = [one for one in mine if row.asked.of(one) is not None] or mine
            if mine:
                why = next((one.stale for one in told), "")
                mine = [with_analysis(one, row.asked) for one in mine]
                own[row_key(row)] = result_of(mine, label=_named(table, row.name, row.preset), why=why)
    floors: list[Record] = []
    for row in table.rows:
        if row.floor is not None:
            some = _of_floor(row, table, list(own.values()), known.of_log.get(row.dataset, []))
            cells[row_key(row)] = answers(replace(table, rows=(row,)), some)
            floors += some
    return Answered(table, place, [one for row in table.rows for one in cells[row_key(row)]], own, tuple(floors))


def _of_floor(row: Row, table: Table, own: Sequence[Result], records: Sequence[Record]) -> list[Record]:
    """Gives the newest record that has a floor under the table's split: one of the table's rows where they have it."""
    splits = splits_of(table)
    of_table = {identity(record) for one in own for record in one.records}
    fitting = [one for one in records if one["config"]["split"] in splits and _has_floor(one, row)]
    return ([one for one in fitting if identity(one) in of_table] or fitting)[-1:]


def _has_floor(record: Record, row: Row) -> bool:
    return row.floor in record["both"][row.history]["floors"]


def _named(table: Table, name: str, preset: str | None) -> str:
    return f"{name} ({preset})" if sum(row.name == name for row in table.rows) > 1 else name


def study_pages(found: Sequence[Answered], all_results: Sequence[Result], slug: Callable[[str], str]) -> list[Page]:
    """Gives a page for every study that has at least one number of ours.

    Args:
        found: All tables.
        all_results: All results: floors and SASRec of a data set stand beside its tables.
        slug: Gives file names.

    Returns:
        The pages, by study.
    """
    pages = []
    for study in dict.fromkeys(one.table.study for one in found):
        own = [one for one in found if one.table.study == study]
        run = [one for one in own if one.has_runs]
        if not run:
            continue
        missing = in_words((one.place for one in own if not one.has_runs), [one.place for one in own])
        file = slug(f"study-{study}")
        intro = f"{run[0].table.paper}. {_titles(run)}."
        intro += f" Not run yet on: {missing}." if missing else ""
        sections = [_study_section(one, all_results, file) for one in run]
        group, paper = study.partition("/")[0], run[0].table.paper
        pages.append(Page(f"{file}.html", study, "Tables and figures", group, intro, tuple(sections), paper))
    return pages


def _titles(found: Sequence[Answered]) -> str:
    return "; ".join(dict.fromkeys(one.table.title for one in found))


def _study_section(one: Answered, all_results: Sequence[Result], file: str) -> Section:
    table, own = one.table, list(one.own.values())
    # No slug holds the underscore: names of one page's tables are never those of another's.
    name = f"{file}_{one.place.anchor}"
    printed = any(cell.paper is not None for cell in one.answers)
    compared = [without_paper(table, one.own, table.history)]
    if printed:
        compared = [against_paper(table, one.answers, one.own, one.floors)]
    elif any(row.config and not row.analysis for row in table.rows):
        # Nobody's protocol is the right one for a table of ours; of a model that is analysed, the analysis counts.
        compared.append(without_paper(table, one.own, "exclude" if table.history == "keep" else "keep"))
    missing = unanswered(table, one.answers) if printed else None
    # A table of ours has the floors already, and mostly SASRec.
    has_baseline = not printed and any(result.is_sasrec for result in own)
    aside = None if has_baseline else beside(_comparable(one, all_results), table.history, table.dataset)
    trained = {row_key(row): row for row in table.rows if not row.analysis}
    points = [result for key, result in one.own.items() if key in trained and not trained[key].swept]
    asked = {str(row.analysis["name"]) for row in table.rows if row.analysis}
    return Section(
        one.place.anchor,
        one.place.heading,
        (*(found for found in (*compared, aside, missing) if found), *measures(own, asked)),
        (
            *([] if printed else gains(table, points, name)),
            *ablation(table, one.answers, own, name),
            *sensitivity(table, one.answers, own, name),
            *learning_curves(points, f"{name}-curves"),
            *analysed(own, name, asked),
        ),
        (table.note,) if table.note else (),
    )


def _comparable(one: Answered, all_results: Sequence[Result]) -> list[Result]:
    """Gives the results on a table's data set under its split; those on its version of the log where there are any."""
    splits = splits_of(one.table)
    versions = {record["data_hash"] for result in one.own.values() for record in result.records}
    versions |= {record["data_hash"] for record in one.floors}
    here = [
        result
        for result in all_results
        if result.first["dataset"] == one.table.dataset and result.first["config"]["split"] in splits
    ]
    return [result for result in here if result.first["data_hash"] in versions] or here


def analysed(found: Sequence[Result], name: str, asked: Collection[str]) -> list[Picture]:
    """Gives the figures of the analyses that are asked for.

    Args:
        found: Results on one data set.
        name: Stem of the names of the figures.
        asked: Names of analyses.

    Returns:
        The figures of those that were made.
    """
    drawn = [*robustness(found, name)] if "noise" in asked else []
    drawn += [picture for key in sorted(asked) for picture in user_groups(found, key, name)]
    return [*drawn, *(spectra(found, name) if "representations" in asked else ())]


def dataset_pages(found: Sequence[Result], shown: Sequence[Result], slug: Callable[[str], str]) -> list[Page]:
    """Gives a page for every data set: all its results under both protocols.

    Args:
        found: All results.
        shown: Results with curves and analyses on a study's page; those of others stand here.
        slug: Gives file names.

    Returns:
        The pages, by data set.
    """
    elsewhere = {identity(record) for one in shown for record in one.records}
    pages = []
    for dataset in dict.fromkeys(one.first["dataset"] for one in found):
        file = slug(f"data-{dataset}")
        own = [one for one in found if one.first["dataset"] == dataset]
        sections, place = [], slugs()
        for told, alike in _alike(own).items():
            sections += _dataset_sections(alike, told, file, place(told), elsewhere)
        intro = "Every recorded run, under both treatments of the history, with the floors."
        pages.append(Page(f"{file}.html", f"{dataset}: all runs", "Data sets", "", intro, tuple(sections)))
    return pages


def _alike(found: Sequence[Result]) -> dict[str, list[Result]]:
    """Gives results on one data set by split and, where there are several, by version of the log: how one says it."""
    several = len({one.first["data_hash"] for one in found}) > 1
    splits = cut_names(one.first for one in found)
    alike: dict[str, list[Result]] = {}
    for one in found:
        split, version = splits[cut_of(one.first)], one.first["data_hash"][:8]
        alike.setdefault(f"{split}, data {version}" if several else split, []).append(one)
    return alike


def _dataset_sections(
    found: Sequence[Result], told: str, file: str, anchor: str, elsewhere: set[Identity]
) -> list[Section]:
    name, dataset = f"{file}_{anchor}", found[0].first["dataset"]
    alone = [one for one in found if identity(one.first) not in elsewhere]
    cases = by_settings(alone)
    numbers = [table for case in cases for table in measures(case, set(ANALYSES))]
    some = representatives(found)
    parts = [picture for cut, history in _DRAWN for picture in slices(some, cut, history, name)]
    tables = [table for cut, history in _CUTS if (table := slice_table(found, cut, history)) is not None]
    drawn = [analysed(case, f"{name}-{place}", set(ANALYSES)) for place, case in enumerate(cases, 1)]
    rest = [*learning_curves(alone, f"{name}-curves"), *(picture for one in drawn for picture in one)]
    both = tuple(all_runs(found, history, dataset) for history in ("exclude", "keep"))
    sections = [Section(anchor, f"All runs, {told}", both)]
    if parts:
        heading = f"Parts of the cases, {told}"
        note = (
            "The figures show one result of each method, the method itself with most seeds, a stale one only where "
            "there is no other; the tables show all."
        )
        sections.append(Section(f"{anchor}-parts", heading, tuple(tables), tuple(parts), (note,)))
    if rest or numbers:
        heading = f"Runs outside the papers' tables, {told}"
        sections.append(Section(f"{anchor}-rest", heading, tuple(numbers), tuple(rest)))
    return sections


def overview(found: Sequence[Answered], pages: Sequence[Page], records: Sequence[Record]) -> NumberTable | None:
    """Gives how many cells of every table have which verdict; None where there are no tables."""
    if not found or not records:
        return None
    links = {page.title: page.file for page in pages}
    groups = []
    for study in dict.fromkeys(one.table.study for one in found):
        own = [one for one in found if one.table.study == study]
        rows = tuple(_counted(one, links.get(study, "")) for one in own)
        about = f"{own[0].table.paper}: {_titles(own)}"
        groups.append(Group(study, (about,), rows, link=links.get(study, "")))
    columns = ("data", "history", "cells", *VERDICTS, "stale")
    return NumberTable(
        "Cells of the papers' tables by verdict",
        statement(records, history="as each row says"),
        columns,
        tuple(groups),
        "Reached: within 3 % of the printed number. Stale: code or experiment changed since the run. Rows of floors, "
        "which learn nothing, are not counted.",
    )


def _counted(one: Answered, page: str) -> tuple[Cell, ...]:
    # Floors learn nothing, so that their cells say nothing of ours.
    cells = [cell for cell in one.answers if cell.row.floor is None]
    counts = Counter(cell.verdict for cell in cells)
    old = sum(1 for cell in cells if cell.stale)
    link = f"{page}#{one.place.anchor}" if page and one.has_runs else ""
    history = "excluded" if one.table.history == "exclude" else "kept"
    counted = (len(cells), *(counts[verdict] for verdict in VERDICTS), old)
    return (
        Cell(one.table.dataset, link=link),
        Cell(history),
        *(Cell(str(count) if count else "·") for count in counted),
    )
