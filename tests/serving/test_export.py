"""Vectors come back from every format as they were."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import safetensors.numpy

from conseq.serving import export
from conseq.serving.export import Format, export_vectors, format_of

IDS = ["007", "a b", "line\nbreak", "ключ", ""]
VECTORS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def _read(path: Path, form: Format) -> tuple[list[str], np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    if form == "npz":
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["ids"].tolist(), arrays["vectors"]
    if form == "parquet":
        frame = pl.read_parquet(path)
        return frame["id"].to_list(), frame["vector"].to_numpy()
    tensors = safetensors.numpy.load_file(path)
    return json.loads(tensors["ids_json"].tobytes()), tensors["vectors"]


@pytest.mark.parametrize("form", ["npz", "parquet", "safetensors"])
def test_ids_and_vectors_come_back(tmp_path: Path, form: Format) -> None:
    for path in (tmp_path / f"items.{form}", tmp_path / "items.of.any.name"):
        export_vectors(IDS, VECTORS, path, form=None if path.suffix == f".{form}" else form)
        ids, vectors = _read(path, form)
        assert ids == IDS
        assert vectors.dtype == np.float32
        np.testing.assert_array_equal(vectors, VECTORS)


def test_a_name_that_tells_no_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="use --format with one of npz, parquet, safetensors"):
        format_of(tmp_path / "items.csv")


def test_an_id_that_a_format_would_change_is_refused_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"NumPy drops the last character of id 'a\\x00'"):
        export_vectors(["a\0"], VECTORS[:1], tmp_path / "x.npz")
    with pytest.raises(ValueError, match="is not valid Unicode"):
        export_vectors(["\ud800"], VECTORS[:1], tmp_path / "x.parquet")
    assert list(tmp_path.iterdir()) == []


def test_ids_whose_room_in_npz_would_be_that_of_a_giant_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "MOST_NPZ_IDS", 1000)
    vectors = np.zeros((3, 2), dtype=np.float32)
    with pytest.raises(ValueError, match=r"ids of up to 100 characters, such as 'x{20}'…, would take 0.0 GiB"):
        export_vectors(["a", "b", "x" * 100], vectors, tmp_path / "v.npz")
    assert not (tmp_path / "v.npz").exists()
    export_vectors(["a", "b", "x" * 80], vectors, tmp_path / "v.npz")
