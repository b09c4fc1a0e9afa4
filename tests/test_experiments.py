"""Every experiment file says something that can be run, and answers numbers that can be right."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from conseq.evaluation.metrics import parse
from conseq.methods import METHODS
from conseq.run.config import from_record, read_experiment

ROOT = Path(__file__).resolve().parents[1] / "experiments"
FILES = sorted(ROOT.glob("*/*.toml"))  # the tables of the papers lie a folder deeper

# Numbers that the papers print so, though another method measures them otherwise.
CATALOGUE = {"Coverage", "MeanPopularity"}


def numbers(table: dict[str, Any]) -> dict[str, Any]:
    """Gives the numbers of a table by name, however deep they stand."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        found |= numbers(value) if isinstance(value, dict) else {name: value}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_an_experiment_file_is_a_whole_experiment_of_its_method(file: Path) -> None:
    config = from_record(read_experiment(file), source=str(file))
    assert config.method_name == file.parent.name
    assert config.method_name in METHODS
    parse(config.training.metric)
    assert file.name.split(".")[1] in {"paper", "released"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_an_experiment_file_names_its_data_and_known_metrics(file: Path) -> None:
    values = tomllib.loads(file.read_text(encoding="utf-8"))
    assert values["data"]["name"].removeprefix("amazon-") == file.name.split(".")[0]
    for name, value in numbers(values.get("paper", {})).items():
        if "@" in name and name.partition("@")[0] not in CATALOGUE:
            parse(name if not name.endswith("@k") else name[:-2])
            assert 0 <= value <= 1, (name, value)


def test_every_method_of_a_paper_has_experiment_files() -> None:
    assert {file.parent.name for file in FILES} | {"next_item"} >= set(METHODS)
