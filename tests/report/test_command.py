from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conseq.cli import report as command

Write = Callable[[Path, list[dict[str, Any]]], Path]


def test_the_command_takes_results_and_experiments_of_the_folder_where_it_runs(
    tmp_path: Path,
    experiments: Path,
    records: list[dict[str, Any]],
    write_lines: Write,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_lines(tmp_path / "results" / "all.jsonl", records[:2])
    (tmp_path / "experiments").symlink_to(experiments)
    monkeypatch.chdir(tmp_path)
    assert command.run([]) == 0
    assert capsys.readouterr().out == f"report: {Path('site') / 'index.html'}\n"
    assert (tmp_path / "site" / "study-paper-table1.html").is_file()


def test_the_command_takes_named_records_and_a_folder(
    tmp_path: Path,
    records: list[dict[str, Any]],
    write_lines: Write,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = write_lines(tmp_path / "all.jsonl", records[:1])
    assert command.run([str(lines), "--out", "there", "--no-pictures"]) == 0
    assert capsys.readouterr().out.startswith("report: there")
    assert {path.name for path in (tmp_path / "there").glob("*.html")} == {"index.html", "data-toy.html"}


def test_the_command_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="results does not exist"):
        command.run([])
