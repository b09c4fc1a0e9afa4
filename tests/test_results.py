"""The records of the project itself, and the page that is made of them."""

from __future__ import annotations

from pathlib import Path

from conseq.study.page import results_page
from conseq.study.records import identity, read_records
from conseq.study.specification import find_tables

ROOT = Path(__file__).resolve().parents[1]


def test_every_record_is_complete_and_has_metrics_that_can_be() -> None:
    records = read_records(ROOT / "results")  # refuses what lacks a key or breaks the inequalities
    assert len({identity(one) for one in records}) == len(records)
    assert {one["preset"] for one in records} <= {"paper", "released", "ours"}
    # Runs that patience ended before they had learned anything: docs/findings.md says why.
    ended = {("mclrec", "sports", "whole"): 3, ("iclrec", "yelp", "whole"): 1, ("mclrec", "yelp", "whole"): 1}
    untrained = [one for one in records if (one["method"], one["dataset"], one["variant"]) in ended]
    assert {(one["method"], one["dataset"], one["variant"]): one["best_epoch"] for one in untrained} == ended
    for one in [one for one in records if one not in untrained]:
        for history, found in one["both"].items():
            floors = found["floors"]
            assert found["metrics"]["HR@20"] > 2 * floors["popularity"]["HR@20"], (one["method"], history)


def test_the_page_of_results_is_what_the_records_say() -> None:
    """After a change of records, tables, or code that decides results: `make results`."""
    page = results_page(find_tables(ROOT / "experiments", "all"), read_records(ROOT / "results"))
    assert (ROOT / "docs/results.md").read_text(encoding="utf-8") == page


def test_no_record_tells_of_the_machine_s_folders() -> None:
    for file in (ROOT / "results").rglob("*.json*"):
        text = file.read_text(encoding="utf-8")
        assert not [one for one in ('"/', "../", "\\\\", "/home", "/tmp", "/root", "/work") if one in text], file
