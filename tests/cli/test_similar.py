"""``conseq similar``."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import polars as pl
import pytest
import torch

from conseq.cli import similar
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.sasrec import SASRecConfig
from conseq.nn.items import ItemTable
from conseq.serving.bundle import save_bundle
from conseq.serving.recommender import Recommender

IDS = ["a", "b", "c d", "007", "é"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = SASRecConfig(width=8, layers=1, max_length=4)
    save_bundle(config(ItemTable(5, 8)), config, Vocabulary(IDS, start=1), tmp_path / "bundle", {})
    return tmp_path / "bundle"


def test_one_item_s_nearest_are_printed_best_first(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert similar.run([str(bundle), "--items", "007", "-k", "3"]) == 0
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    ids, cosines = Recommender.load(bundle).similar_items("007", 3)
    assert [(int(rank), item) for rank, _, item in lines] == list(enumerate(ids, 1))
    assert [float(cosine) for _, cosine, _ in lines] == pytest.approx(cosines.tolist(), abs=1e-4)


def test_several_are_one_object_of_json(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert similar.run([str(bundle), "--items", '["c d", "é", "c d"]', "-k", "2", "--json"]) == 0
    model = Recommender.load(bundle)
    assert json.loads(capsys.readouterr().out) == {
        "k": 2,
        "similar": {one: model.similar_items(one, 2).to_dicts() for one in ("c d", "é")},
    }


def test_the_whole_catalogue_is_a_table(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similar, "_ITEMS_AT_ONCE", 2)
    assert similar.run([str(bundle), "-k", "9"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    model = Recommender.load(bundle)
    expected = [(one, found["item_id"]) for one in IDS for found in model.similar_items(one, 9).to_dicts()]
    assert [(row["item_id"], row["similar_id"]) for row in rows] == expected
    assert [int(row["rank"]) for row in rows] == [1, 2, 3, 4] * 5
    out = bundle.parent / "related.parquet"
    assert similar.run([str(bundle), "-k", "9", "--out", str(out)]) == 0
    assert f"20 similar items written to {out}" in capsys.readouterr().err
    assert pl.read_parquet(out).select("item_id", "similar_id").rows() == expected


def test_what_cannot_be_answered_is_refused(bundle: Path) -> None:
    with pytest.raises(KeyError, match="stranger"):
        similar.run([str(bundle), "--items", "a stranger"])
    with pytest.raises(ValueError, match="--items: expected an item id at least, found none"):
        similar.run([str(bundle), "--items", " "])
    with pytest.raises(ValueError, match="give --out, which writes a file, or --json, which prints"):
        similar.run([str(bundle), "--json", "--out", "x.csv"])
