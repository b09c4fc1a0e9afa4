"""The part of some tables that is asked for."""

from __future__ import annotations

from dataclasses import replace

from conseq.study.specification import Preset, Row, Table


def chosen(
    tables: list[Table], datasets: tuple[str, ...] = (), *, row: str | None = None, preset: Preset | None = None
) -> list[Table]:
    """Gives the part of some tables that is asked for.

    Args:
        tables: The tables.
        datasets: Names of data sets; all where empty.
        row: The name of a row; where no row has it, a text that the name must hold. Without regard to case.
        preset: The preset that a row must have.

    Returns:
        Tables with at least one row.

    Raises:
        ValueError: if nothing is left; names what there is.
    """
    known = sorted({table.dataset for table in tables})
    wrong = sorted(set(datasets) - set(known))
    if wrong:
        raise ValueError(f"no table for data set {', '.join(wrong)}; known: {', '.join(known)}")
    tables = [table for table in tables if not datasets or table.dataset in datasets]
    # "CL4SRec" is that row and not "CL4SRec (prefixes)" too.
    exact = row is not None and any(_is_called(one, row) for table in tables for one in table.rows)
    found = []
    for table in tables:
        rows = tuple(
            one
            for one in table.rows
            if (row is None or _is_called(one, row, exactly=exact)) and (preset is None or one.preset == preset)
        )
        if rows:
            found.append(replace(table, rows=rows))
    if not found:
        asked = "no row" if row is None else f"no row is called {row!r}"
        asked += f" with preset {preset}" if preset else ""
        names = sorted({f"{one.name} ({one.preset})" if one.preset else one.name for t in tables for one in t.rows})
        raise ValueError(f"{asked}; rows: {', '.join(names)}")
    return found


def _is_called(row: Row, name: str, *, exactly: bool = True) -> bool:
    asked, own = name.casefold(), row.name.casefold()
    return asked == own if exactly else asked in own
