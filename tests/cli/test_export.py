"""``conseq export``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from conseq.cli import export
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.sasrec import SASRecConfig
from conseq.nn.items import ItemTable
from conseq.serving.bundle import save_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = SASRecConfig(width=8, layers=1, max_length=4)
    save_bundle(config(ItemTable(3, 8)), config, Vocabulary(["a", "b", "c"], start=1), tmp_path / "bundle", {})
    return tmp_path / "bundle"


def test_item_vectors_are_written_in_the_format_of_the_name(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = bundle.parent / "items.parquet"
    assert export.run([str(bundle), str(out)]) == 0
    assert "3 item vectors of width 8" in capsys.readouterr().out
    frame = pl.read_parquet(out)
    assert frame["id"].to_list() == ["a", "b", "c"]
    assert frame["vector"].to_numpy().shape == (3, 8)


def test_the_format_can_be_named(bundle: Path) -> None:
    out = bundle.parent / "items"
    assert export.run([str(bundle), str(out), "--format", "npz"]) == 0
    with np.load(out) as arrays:
        assert arrays["vectors"].shape == (3, 8)


def test_a_missing_bundle_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a bundle"):
        export.run([str(tmp_path / "none"), str(tmp_path / "x.npz")])
