"""Writes docs/results.md from the records and the papers' tables: ``python docs/_tools/results.py [FILE]``."""

from __future__ import annotations

import sys
from pathlib import Path

from conseq.data.files import atomic_write
from conseq.study.page import results_page
from conseq.study.records import read_records
from conseq.study.specification import find_tables

ROOT = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    page = results_page(find_tables(ROOT / "experiments", "all"), read_records(ROOT / "results"))
    atomic_write(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs/results.md", page)
