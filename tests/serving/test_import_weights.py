"""Published weights: our encoder against padded plain-torch twins of both families, and files that must be refused."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from conseq.data.log import InteractionLog
from conseq.data.sequences import Sequences
from conseq.data.vocabulary import Vocabulary
from conseq.serving.bundle import load_bundle
from conseq.serving.import_weights import import_bundle, import_weights, read_tensors
from conseq.serving.layouts import LayoutName

WIDTH, LENGTH, HIDDEN = 12, 6, 20
S3REC = ("item_embeddings", "position_embeddings", "item_encoder", "attention", "intermediate")
RECBOLE = ("item_embedding", "position_embedding", "trm_encoder", "multi_head_attention", "feed_forward")


class _Sublayer(nn.Module):
    """The tensors of one sublayer, under the names that both families use inside it."""

    def __init__(self, names: dict[str, tuple[int, int]]) -> None:
        super().__init__()
        for name, (inside, outside) in names.items():
            self.add_module(name, nn.Linear(inside, outside))
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=1e-12)


class Twin(nn.Module):
    """The padded model of either family, from its description (dossier 0.6), sharing no code with ours."""

    def __init__(self, layout: LayoutName, rows: int, *, layers: int, heads: int) -> None:
        super().__init__()
        self.left, self.heads = layout == "s3rec", heads
        self.names = S3REC if self.left else RECBOLE
        items, positions, encoder, attention, feed_forward = self.names
        self.add_module(items, nn.Embedding(rows, WIDTH, padding_idx=0))
        self.add_module(positions, nn.Embedding(LENGTH, WIDTH))
        layer = [
            nn.ModuleDict(
                {
                    attention: _Sublayer(dict.fromkeys(("query", "key", "value", "dense"), (WIDTH, WIDTH))),
                    feed_forward: _Sublayer({"dense_1": (WIDTH, HIDDEN), "dense_2": (HIDDEN, WIDTH)}),
                }
            )
            for _ in range(layers)
        ]
        self.add_module(encoder, nn.ModuleDict({"layer": nn.ModuleList(layer)}))
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=1e-12)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5)

    def forward(self, history: list[int]) -> Tensor:
        """Gives the inner products of the last state with all rows of the table, float ``[rows]``."""
        items, positions, encoder = (getattr(self, name) for name in self.names[:3])
        attention, feed_forward = self.names[3:]
        read = history[-LENGTH:]
        pads = [0] * (LENGTH - len(read))
        ids = torch.tensor([pads + read if self.left else read + pads])
        x = self.LayerNorm(items(ids) + positions(torch.arange(LENGTH)))
        seen = torch.ones(LENGTH, LENGTH).tril() * (ids > 0)
        for layer in encoder["layer"]:
            x = self._attend(layer[attention], x, (1 - seen) * -10000.0)
            inner = layer[feed_forward].dense_1(x)
            inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
            x = layer[feed_forward].LayerNorm(layer[feed_forward].dense_2(inner) + x)
        last = LENGTH - 1 if self.left else len(read) - 1
        out: Tensor = items.weight @ x[0, last]
        return out

    def _attend(self, part: Any, x: Tensor, mask: Tensor) -> Tensor:
        size = WIDTH // self.heads
        query, key, value = (
            linear(x).view(LENGTH, self.heads, size).transpose(0, 1) for linear in (part.query, part.key, part.value)
        )
        weights = (query @ key.transpose(1, 2) / math.sqrt(size) + mask).softmax(-1)
        mixed = (weights @ value).transpose(0, 1).reshape(1, LENGTH, WIDTH)
        out: Tensor = part.LayerNorm(part.dense(mixed) + x)
        return out


# The log meets items 5, 2, 9, ... in this order: our numbers 1, 2, 3, ...; item 4 of the table is not in it.
OUTSIDE = ["5", "2", "9", "1", "3", "8", "7", "6"]
ITEM_IDS = Vocabulary(OUTSIDE, start=1)
HISTORIES = [["5"], ["2", "9"], ["1", "3", "8", "7", "6", "5"], ["9", "9", "1", "2", "3", "8", "7", "6", "5"]]


def _twin(layout: LayoutName = "s3rec", rows: int = 11, *, layers: int = 2, heads: int = 2) -> Twin:
    torch.manual_seed(11)
    return Twin(layout, rows, layers=layers, heads=heads).eval()


def _file(tmp_path: Path, state: object) -> Path:
    torch.save(state, tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


@torch.no_grad()
def _assert_same_scores(twin: Twin, file: Path, layout: LayoutName, heads: int = 2) -> None:
    imported = import_weights(file, layout=layout, item_ids=ITEM_IDS, heads=heads)
    histories = Sequences.from_lists([ITEM_IDS.encode(history).tolist() for history in HISTORIES])
    ours = imported.encoder.scores(torch.full((len(HISTORIES),), -1), histories)
    rows = [int(one) for one in OUTSIDE]
    theirs = torch.stack([twin([int(one) for one in history])[rows] for history in HISTORIES])
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["s3rec", "recbole"])
@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (2, 2), (3, 4)])
def test_scores_are_those_of_the_padded_model(tmp_path: Path, layout: LayoutName, layers: int, heads: int) -> None:
    twin = _twin(layout, layers=layers, heads=heads)
    _assert_same_scores(twin, _file(tmp_path, twin.state_dict()), layout, heads)


@pytest.mark.parametrize("rows", [10, 11])
def test_a_recbole_table_may_lack_the_mask_row(tmp_path: Path, rows: int) -> None:
    twin = _twin("recbole", rows)
    file = _file(tmp_path, twin.state_dict())
    _assert_same_scores(twin, file, "recbole")
    imported = import_weights(file, layout="recbole", item_ids=ITEM_IDS)
    mask = imported.encoder.items.weight[-1]
    table = twin.state_dict()["item_embedding.weight"]
    assert torch.equal(mask, table[10] if rows == 11 else torch.zeros(WIDTH))
    assert imported.report["unused_rows"] == 1


def test_what_can_be_read_from_the_tensors_is_reported(tmp_path: Path) -> None:
    imported = import_weights(_file(tmp_path, _twin().state_dict()), layout="s3rec", item_ids=ITEM_IDS)
    config = imported.settings
    assert (config.width, config.layers, config.heads, config.max_length, config.hidden) == (12, 2, 2, 6, 20)
    assert (config.block, config.positions) == ("bert", "end")
    assert imported.report["heads_note"] == "not readable from weights; as given"
    assert imported.report["n_items"] == 8
    assert imported.report["unused_rows"] == 1
    assert imported.report["ignored_tensors"] == {}


def test_a_whole_checkpoint_is_taken_for_the_weights_in_it(tmp_path: Path) -> None:
    twin = _twin("recbole")
    checkpoint = {"epoch": 3, "best": 0.1, "state_dict": twin.state_dict(), "optimizer": {"state": {}, "lr": [1e-3]}}
    _assert_same_scores(twin, _file(tmp_path, checkpoint), "recbole")


def test_safetensors_and_the_older_file_format_are_read_too(tmp_path: Path) -> None:
    twin = _twin("recbole")
    safetensors.torch.save_file(twin.state_dict(), tmp_path / "w.safetensors")
    _assert_same_scores(twin, tmp_path / "w.safetensors", "recbole")
    torch.save(twin.state_dict(), tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    _assert_same_scores(twin, tmp_path / "w.pth", "recbole")


def test_heads_of_pretraining_are_ignored_by_name(tmp_path: Path) -> None:
    twin = _twin()
    extra = {"aap_norm.weight": torch.ones(12, 12), "attribute_embeddings.weight": torch.ones(4, 12)}
    extra |= {"dis_projection.bias": torch.ones(1), "intermediate.dense_1.weight": torch.ones(48, 12)}
    file = _file(tmp_path, twin.state_dict() | extra)
    _assert_same_scores(twin, file, "s3rec")
    ignored = import_weights(file, layout="s3rec", item_ids=ITEM_IDS).report["ignored_tensors"]
    assert set(ignored) == set(extra)
    assert ignored["aap_norm.weight"] == "S3Rec's pre-training"


def _refused(tmp_path: Path, state: object, message: str, **options: Any) -> None:
    given: dict[str, Any] = {"layout": "s3rec", "item_ids": ITEM_IDS} | options
    with pytest.raises(ValueError, match=message):
        import_weights(_file(tmp_path, state), **given)


def test_tensors_that_nobody_knows_are_refused_by_name(tmp_path: Path) -> None:
    _refused(tmp_path, _twin().state_dict() | {"gate.weight": torch.ones(1)}, "'gate.weight' is not part of this")


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    state = _twin().state_dict()
    del state["item_encoder.layer.1.attention.key.bias"]
    _refused(tmp_path, state, r"layout s3rec needs item_encoder\.layer\.1\.attention\.key\.bias, which")


def test_a_model_without_layers_is_refused(tmp_path: Path) -> None:
    state = {name: value for name, value in _twin().state_dict().items() if "layer" not in name}
    _refused(tmp_path, state, r"needs item_encoder\.layer\.0\.\*")


@pytest.mark.parametrize(("written", "asked"), [("s3rec", "recbole"), ("recbole", "s3rec")])
def test_the_wrong_layout_is_told_from_the_right_one(tmp_path: Path, written: LayoutName, asked: LayoutName) -> None:
    _refused(tmp_path, _twin(written).state_dict(), f"use --layout {written}", layout=asked)


def test_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    _refused(tmp_path, _twin().state_dict(), "unknown layout 'other'; known: s3rec, recbole", layout="other")


@pytest.mark.parametrize("one", ["x", "007", "-1", "1.0", "", "²", "1_0"])
def test_an_item_id_that_is_no_integer_is_named(tmp_path: Path, one: str) -> None:
    vocabulary = Vocabulary(["1", one], start=1)
    _refused(tmp_path, _twin().state_dict(), f"item id {one!r} of the log is not an integer", item_ids=vocabulary)


@pytest.mark.parametrize(
    ("layout", "one", "last"),
    [("s3rec", "10", 9), ("s3rec", "0", 9), ("recbole", "11", 10), ("recbole", "0", 10), ("s3rec", "1" * 30, 9)],
)
def test_an_item_without_a_row_is_named(tmp_path: Path, layout: LayoutName, one: str, last: int) -> None:
    message = rf"item id {one} of the log has no row: the table in .* has items 1\.\.{last}"
    vocabulary = Vocabulary(["1", one], start=1)
    _refused(tmp_path, _twin(layout).state_dict(), message, item_ids=vocabulary, layout=layout)


@pytest.mark.parametrize("heads", [0, 5])
def test_heads_that_do_not_divide_the_width_are_refused(tmp_path: Path, heads: int) -> None:
    _refused(tmp_path, _twin().state_dict(), f"cannot be shared by {heads} heads", heads=heads)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("LayerNorm.bias", torch.ones(5), r"LayerNorm\.bias has shape \[5\], expected \[12\]"),
        ("item_encoder.layer.1.attention.key.weight", torch.ones(12, 6), r"key\.weight has shape \[12, 6\]"),
        ("LayerNorm.weight", torch.full((12,), torch.nan), r"LayerNorm\.weight has values that are not finite"),
        ("item_embeddings.weight", torch.ones(12), "has 1 dimensions, expected 2"),
    ],
)
def test_a_tensor_that_cannot_be_is_named(tmp_path: Path, name: str, tensor: Tensor, message: str) -> None:
    _refused(tmp_path, _twin().state_dict() | {name: tensor}, message)


class _Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("wrap", ["torch", "torch-legacy", "pickle"])
def test_a_file_with_code_is_refused_and_does_not_run(tmp_path: Path, wrap: str) -> None:
    target, file = tmp_path / "was-executed", tmp_path / "evil.pt"
    state = {"state_dict": _twin().state_dict(), "config": _Evil(target)}
    if wrap == "pickle":
        file.write_bytes(pickle.dumps(state, protocol=2))
    else:
        torch.save(state, file, _use_new_zipfile_serialization=wrap == "torch")
    with pytest.raises(ValueError, match=r"needs \S+, which would execute code from the file, so it was") as error:
        import_weights(file, layout="s3rec", item_ids=ITEM_IDS)
    assert "weights_only" not in str(error.value)
    assert "mkdir" in str(error.value) or wrap == "pickle"  # there the tensors themselves would need code, first
    assert not target.exists()


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    for zipped in (True, False):
        whole = tmp_path / "whole.pt"
        torch.save(_twin().state_dict(), whole, _use_new_zipfile_serialization=zipped)
        content = whole.read_bytes()
        for end in [0, 1, 2, 10, 100, *np.linspace(200, len(content) - 1, 25, dtype=int).tolist()]:
            (tmp_path / "cut.pt").write_bytes(content[:end])
            with pytest.raises(ValueError, match=r"cut\.pt: damaged, or not a file of weights"):
                read_tensors(tmp_path / "cut.pt")


def test_any_other_bytes_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    contents = [rng.bytes(n) for n in (1, 7, 50, 500)] + [b"PK\x03\x04" + rng.bytes(99), b"1 2 3\n4 5 6\n"]
    contents += [b"\x80\x02" + rng.bytes(n) for n in range(1, 60)]
    for suffix in (".pt", ".safetensors"):
        for content in contents:
            (tmp_path / f"x{suffix}").write_bytes(content)
            with pytest.raises(ValueError, match="damaged, or not a file of weights"):
                read_tensors(tmp_path / f"x{suffix}")


@pytest.mark.parametrize(
    "content", [[torch.ones(1)], {}, {"a": 1}, torch.ones(2), {"state_dict": {"a": "b"}}, {1: torch.ones(1)}]
)
def test_what_is_no_state_dict_is_said_to_be_none(tmp_path: Path, content: object) -> None:
    _refused(tmp_path, content, "expected a state dict")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pt: no such file"):
        read_tensors(tmp_path / "none.pt")


def _log() -> InteractionLog:
    return InteractionLog(
        items=np.array([1, 2, 3, 4, 5, 6, 7, 8, 1, 1], dtype=np.int32),
        offsets=np.array([0, 8, 10], dtype=np.int64),
        times=None,
        user_ids=Vocabulary(["u", "v"], start=0),
        item_ids=ITEM_IDS,
        manifest={"source": "toy"},
    )


def test_a_bundle_of_the_weights_remembers_where_they_came_from(tmp_path: Path) -> None:
    twin = _twin("recbole")
    file = _file(tmp_path, twin.state_dict())
    report = import_bundle(file, _log(), tmp_path / "b", layout="recbole")
    bundle = load_bundle(tmp_path / "b")
    imported = import_weights(file, layout="recbole", item_ids=ITEM_IDS).encoder
    ours, theirs = bundle.encoder.state_dict(), imported.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert bundle.counts is not None
    assert bundle.counts.tolist() == [3, 1, 1, 1, 1, 1, 1, 1]
    assert bundle.provenance["imported"]["file"] == "weights.pt"
    assert bundle.provenance["data"] == {"source": "toy"}
    assert report["bundle"] == str(tmp_path / "b")
    assert len(report["sha256"]) == 64
