"""``conseq import-weights``, and the published numbers that the imported weights must give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from conseq.cli import evaluate, import_weights
from conseq.serving.bundle import load_bundle

# Dossier 0.1: HR and NDCG at 5, 10 and 20 of the weights that ICLRec's authors published for Beauty.
ICLREC_BEAUTY = {
    "exclude": ["0.0500", "0.0326", "0.0744", "0.0403", "0.1058", "0.0483"],
    "keep": ["0.0376", "0.0194", "0.0637", "0.0278", "0.0994", "0.0368"],
}


def _state(n_items: int, width: int = 4, length: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    linear = {"query": (4, 4), "key": (4, 4), "value": (4, 4), "dense": (4, 4)}
    state = {
        "item_embeddings.weight": torch.randn(n_items + 2, width),
        "position_embeddings.weight": torch.randn(length, width),
        "sp_norm.bias": torch.zeros(width),
    }
    for part, shapes in (("attention", linear), ("intermediate", {"dense_1": (16, 4), "dense_2": (4, 16)})):
        for name, shape in shapes.items():
            state[f"item_encoder.layer.0.{part}.{name}.weight"] = torch.randn(shape)
            state[f"item_encoder.layer.0.{part}.{name}.bias"] = torch.randn(shape[0])
    for norm in (
        "LayerNorm",
        "item_encoder.layer.0.attention.LayerNorm",
        "item_encoder.layer.0.intermediate.LayerNorm",
    ):
        state |= {f"{norm}.weight": torch.ones(width), f"{norm}.bias": torch.zeros(width)}
    return state


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.txt"
    path.write_text("1 3 2 4\n2 4 1 2\n3 2 3 1\n", encoding="utf-8")
    return path


def _argv(tmp_path: Path, log: Path, *more: str) -> list[str]:
    return [str(tmp_path / "w.pt"), "--data", str(log), "--out", str(tmp_path / "bundle"), *more]


def test_a_bundle_is_written_and_one_json_object_printed(
    tmp_path: Path, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(_state(4), tmp_path / "w.pt")
    assert import_weights.run(_argv(tmp_path, log, "--layout", "s3rec", "--heads", "1", "--json")) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["n_items"], shown["layers"], shown["heads"], shown["hidden"]) == (4, 1, 1, 16)
    assert shown["ignored_tensors"] == {"sp_norm.bias": "S3Rec's pre-training"}
    bundle = load_bundle(tmp_path / "bundle")
    row = bundle.item_ids.number("3")
    assert row is not None
    assert torch.equal(bundle.encoder.items.weight[row], _state(4)["item_embeddings.weight"][3])


def test_what_was_assumed_and_ignored_is_said(tmp_path: Path, log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(_state(5), tmp_path / "w.pt")
    assert import_weights.run(_argv(tmp_path, log, "--layout", "s3rec")) == 0
    shown = capsys.readouterr().out
    assert "heads: 2  (not readable from weights; as given)" in shown
    assert "unused_rows: 1" in shown
    assert "ignored: sp_norm.bias (S3Rec's pre-training)" in shown


def test_items_beyond_the_table_are_an_error_and_no_bundle_is_written(tmp_path: Path, log: Path) -> None:
    torch.save(_state(3), tmp_path / "w.pt")
    with pytest.raises(ValueError, match="item id 4 of the log has no row"):
        import_weights.run(_argv(tmp_path, log, "--layout", "s3rec"))
    assert not (tmp_path / "bundle").exists()


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("name", ["Beauty.txt", "interactions.parquet"])
def test_published_weights_give_the_published_numbers(
    name: str, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, data = shared / "checkpoints" / "iclrec_beauty_authors.pt", str(shared / "data" / "beauty" / name)
    out = str(tmp_path / "bundle")
    assert import_weights.run([str(weights), "--layout", "s3rec", "--data", data, "--out", out, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["layers"], report["n_items"], report["unused_rows"]) == (1, 12_101, 0)
    for history, expected in ICLREC_BEAUTY.items():
        assert evaluate.run([out, data, "--history", history, "--json"]) == 0
        metrics = json.loads(capsys.readouterr().out)["metrics"]
        shown = [f"{metrics[f'{metric}@{k}']:.4f}" for k in (5, 10, 20) for metric in ("HR", "NDCG")]
        assert shown == expected
