"""Bundles: what goes in comes out, and a damaged or half-written one is noticed."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conseq.data.sequences import Sequences
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.encoder import Encoder
from conseq.encoders.gru4rec import GRU4RecConfig
from conseq.encoders.sasrec import SASRecConfig
from conseq.nn.items import ItemTable
from conseq.serving import bundle
from conseq.serving.bundle import bundle_in, encoder_name, load_bundle, read_manifest, save_bundle
from conseq.serving.recommender import Recommender

IDS = ["007", "7", "a b", "line\nbreak", "ключ", ""]
SASREC = SASRecConfig(width=8, layers=1, heads=2, max_length=4)


def _encoder(seed: int = 0, n_items: int = len(IDS)) -> Encoder:
    torch.manual_seed(seed)
    return SASREC(ItemTable(n_items, SASREC.width)).eval()


def _save(folder: Path, seed: int = 0) -> Encoder:
    encoder = _encoder(seed)
    save_bundle(encoder, SASREC, Vocabulary(IDS, start=1), folder, {"seed": seed}, counts=range(len(IDS)))
    return encoder


def _weights(encoder: Encoder) -> list[torch.Tensor]:
    return list(encoder.state_dict().values())


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    encoder = _save(tmp_path / "new" / "b")
    bundle = load_bundle(tmp_path / "new" / "b")
    assert bundle.item_ids == Vocabulary(IDS, start=1)
    assert bundle.settings == SASREC
    assert bundle.counts is not None
    assert bundle.counts.tolist() == [0, 1, 2, 3, 4, 5]
    assert bundle.provenance["seed"] == 0
    assert bundle.provenance["conseq"]
    assert not bundle.encoder.training
    assert not any(weight.requires_grad for weight in bundle.encoder.parameters())
    histories = Sequences.from_lists([[1], [2, 3, 6, 4, 5]])
    users = torch.tensor([-1, -1])
    assert torch.equal(bundle.encoder.scores(users, histories), encoder.scores(users, histories))


def test_a_loaded_recommender_speaks_in_outside_ids(tmp_path: Path) -> None:
    _save(tmp_path / "b")
    found = Recommender.load(tmp_path / "b").recommend(["007", "line\nbreak"], k=4)
    assert sorted(found.ids) == ["", "7", "a b", "ключ"]


def test_counts_need_not_be_known(tmp_path: Path) -> None:
    save_bundle(_encoder(), SASREC, Vocabulary(IDS, start=1), tmp_path / "b", {})
    assert load_bundle(tmp_path / "b").counts is None


@settings(max_examples=40, deadline=None)
@given(ids=st.lists(st.text(st.characters()), min_size=1, max_size=20, unique=True))
def test_every_string_survives(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    folder = tmp_path_factory.mktemp("b")
    config = GRU4RecConfig(width=2)
    save_bundle(config(ItemTable(len(ids), 2)), config, Vocabulary(ids, start=1), folder, {})
    assert load_bundle(folder).item_ids.ids == ids


def test_a_bundle_is_three_files_none_of_them_a_pickle(tmp_path: Path) -> None:
    _save(tmp_path / "b")
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [
        "items.json",
        "manifest.json",
        "weights.safetensors",
    ]
    assert os.listdir(tmp_path) == ["b"]
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert manifest["encoder"] == {"name": "sasrec", "settings": {**manifest["encoder"]["settings"], "width": 8}}


def test_loading_leaves_the_random_stream_where_it_was(tmp_path: Path) -> None:
    _save(tmp_path / "b")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_bundle(tmp_path / "b")
    assert torch.equal(torch.rand(3), expected)


def test_a_newer_bundle_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    _save(tmp_path / "b", seed=1)
    newer = _save(tmp_path / "b", seed=2)
    loaded = load_bundle(tmp_path / "b")
    assert all(torch.equal(a, b) for a, b in zip(_weights(loaded.encoder), _weights(newer), strict=True))
    assert os.listdir(tmp_path) == ["b"]


def test_a_link_to_a_bundle_stays_a_link(tmp_path: Path) -> None:
    _save(tmp_path / "v1", seed=1)
    (tmp_path / "current").symlink_to(tmp_path / "v1", target_is_directory=True)
    _save(tmp_path / "current", seed=2)
    assert (tmp_path / "current").is_symlink()
    assert load_bundle(tmp_path / "v1").provenance["seed"] == 2


def test_a_bundle_that_is_replaced_while_it_is_read_is_one_save_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(seed: int, ids: list[str]) -> None:
        save_bundle(_encoder(seed), SASREC, Vocabulary(ids, start=1), tmp_path / "b", {"seed": seed})

    save(0, IDS)
    real = bundle._read_items

    def replaced_between(path: Path, n_items: int) -> Any:
        found = real(path, n_items)
        monkeypatch.setattr(bundle, "_read_items", real)
        save(1, IDS[::-1])
        return found

    monkeypatch.setattr(bundle, "_read_items", replaced_between)
    loaded = load_bundle(tmp_path / "b")
    assert loaded.item_ids.ids == IDS[::-1]
    assert all(map(torch.equal, _weights(loaded.encoder), _weights(_encoder(1))))


def test_a_bundle_that_is_replaced_all_the_time_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path / "b")
    real = bundle._read_items

    def replaced(path: Path, n_items: int) -> Any:
        found = real(path, n_items)
        _save(tmp_path / "b")
        return found

    monkeypatch.setattr(bundle, "_read_items", replaced)
    with pytest.raises(BlockingIOError, match="was replaced 20 times while it was read"):
        load_bundle(tmp_path / "b")


@pytest.mark.parametrize("content", [None, "{"])
def test_a_bundle_with_a_damaged_manifest_may_be_saved_again(tmp_path: Path, content: str | None) -> None:
    _save(tmp_path / "b", seed=1)
    (tmp_path / "b/manifest.json").unlink()
    if content is not None:
        (tmp_path / "b/manifest.json").write_text(content)
    _save(tmp_path / "b", seed=2)
    assert load_bundle(tmp_path / "b").provenance["seed"] == 2


@contextmanager
def _full_disk(limit: int) -> Iterator[None]:
    """Makes writing more than ``limit`` bytes to a file fail, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [10, 1000])
def test_a_full_disk_leaves_the_older_bundle_usable(tmp_path: Path, limit: int) -> None:
    older = _save(tmp_path / "b", seed=1)
    with _full_disk(limit), pytest.raises(OSError, match="File too large") as caught:
        _save(tmp_path / "b", seed=2)
    assert str(tmp_path / "b") in str(caught.value)
    loaded = load_bundle(tmp_path / "b")
    assert all(torch.equal(a, b) for a, b in zip(_weights(loaded.encoder), _weights(older), strict=True))
    assert os.listdir(tmp_path) == ["b"]


def test_a_rename_that_fails_brings_the_older_bundle_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path / "b", seed=1)
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.suffix == ".partial":
            raise OSError("no more renames")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="no more renames"):
        _save(tmp_path / "b", seed=2)
    assert load_bundle(tmp_path / "b").provenance["seed"] == 1
    assert os.listdir(tmp_path) == ["b"]


def test_after_a_stop_between_two_renames_the_older_bundle_is_pointed_to(tmp_path: Path) -> None:
    _save(tmp_path / "b", seed=1)
    (tmp_path / "b").rename(tmp_path / ".b.0123abcd.replaced")
    with pytest.raises(FileNotFoundError, match=r"left the older bundle at .*\.b\.0123abcd\.replaced"):
        load_bundle(tmp_path / "b")
    _save(tmp_path / "b", seed=2)
    assert load_bundle(tmp_path / "b").provenance["seed"] == 2


def test_an_unwritable_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        _save(tmp_path / "file" / "b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            _save(tmp_path / "b")
    finally:
        tmp_path.chmod(0o700)


def test_what_is_not_a_bundle_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "manifest.json").write_text('{"format": "something else"}')
    (tmp_path / "file").write_text("x")
    _save(tmp_path / "b", seed=1)
    (tmp_path / "b" / "notes.txt").write_text("mine")
    for name in ("data", "b"):
        with pytest.raises(FileExistsError, match=f"{name} holds other files"):
            _save(tmp_path / name, seed=2)
    with pytest.raises(FileExistsError, match="is a file"):
        _save(tmp_path / "file")
    assert (tmp_path / "data" / "manifest.json").read_text() == '{"format": "something else"}'
    assert (tmp_path / "b" / "notes.txt").read_text() == "mine"
    assert load_bundle(tmp_path / "b").provenance["seed"] == 1


@pytest.mark.parametrize("provenance", [{"metric": float("nan")}, {"model": object()}, {"set": {1}}])
def test_provenance_that_is_not_json_is_refused(tmp_path: Path, provenance: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="provenance must consist of finite JSON values"):
        save_bundle(_encoder(), SASREC, Vocabulary(IDS, start=1), tmp_path / "b", provenance)
    assert not (tmp_path / "b").exists()


def test_a_vocabulary_or_counts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"items 1\.\.6, the vocabulary numbers 1\.\.1"):
        save_bundle(_encoder(), SASREC, Vocabulary(["a"], start=1), tmp_path / "b", {})
    with pytest.raises(ValueError, match=r"the vocabulary numbers 0\.\.5"):
        save_bundle(_encoder(), SASREC, Vocabulary(IDS, start=0), tmp_path / "b", {})
    with pytest.raises(ValueError, match="counts of 2 items given for 6 items"):
        save_bundle(_encoder(), SASREC, Vocabulary(IDS, start=1), tmp_path / "b", {}, counts=[1, 2])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["weights.safetensors", "items.json", "manifest.json"])
def test_a_missing_or_truncated_file_is_named(tmp_path: Path, name: str) -> None:
    _save(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (tmp_path / "whole" / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load_bundle(tmp_path / "whole")
    content = (tmp_path / "cut" / name).read_bytes()
    (tmp_path / "cut" / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=name):
        load_bundle(tmp_path / "cut")


@pytest.mark.parametrize("name", ["weights.safetensors", "items.json"])
def test_a_changed_byte_is_noticed(tmp_path: Path, name: str) -> None:
    _save(tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[-2] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: its SHA-256 differs"):
        load_bundle(tmp_path)


def test_a_folder_that_is_no_bundle_is_said_to_be_none(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        if place.name == "file":
            place.write_text("x")
        with pytest.raises(FileNotFoundError, match="is not a bundle"):
            load_bundle(place)


def test_the_folder_of_a_run_means_the_bundle_in_it(tmp_path: Path) -> None:
    _save(tmp_path / "run" / "bundle")
    assert read_manifest(tmp_path / "run") == read_manifest(tmp_path / "run" / "bundle")
    assert load_bundle(tmp_path / "run").item_ids == load_bundle(tmp_path / "run" / "bundle").item_ids
    assert bundle_in(tmp_path / "run") == tmp_path / "run" / "bundle"
    assert bundle_in(tmp_path / "run" / "bundle") == tmp_path / "run" / "bundle"
    assert bundle_in(tmp_path) == tmp_path


def _edit(folder: Path, **changes: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "not the manifest of a bundle"),
        ({"version": 2}, "version 2, expected 1; a newer conseq"),
        ({"n_itms": 3}, "unknown key 'n_itms'; did you mean 'n_items'"),
        ({"n_items": 3}, r"items\.json: 6 ids, but manifest\.json says 3"),
        ({"encoder": {"name": "sasrek", "settings": {}}}, "unknown encoder 'sasrek'; known: "),
        ({"encoder": {"name": "sasrec", "settings": {"with": 8}}}, "unknown key 'with'; did you mean 'width'"),
        ({"encoder": {"name": "sasrec", "settings": {"width": 4}}}, "does not fit encoder 'sasrec'"),
        ({"encoder": {"name": "os:system", "settings": {}}}, "'os:system' is not a settings class"),
        ({"encoder": {"name": "no.such:Thing", "settings": {}}}, "'no.such:Thing' cannot be imported"),
        ({"encoder": {"name": "sasrec", "settings": {"heads": 3}}}, r"manifest\.json: encoder 'sasrec' .* multiple of"),
        ({"files": {}}, r"says nothing about weights\.safetensors"),
    ],
)
def test_a_manifest_that_is_wrong_says_where(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    _save(tmp_path)
    _edit(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        load_bundle(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"ids": ["a", "b"]', "not a JSON file"),
        ('["a", "b"]', "expected an object with 'ids' and 'counts'"),
        ('{"ids": ["a", "b", "c", "d", "e", "f"]}', "expected an object with 'ids' and 'counts'"),
        ('{"ids": ["a", "b", "c", "d", "e", 6], "counts": null}', "'ids' is not a list of texts"),
        ('{"ids": "abcdef", "counts": null}', "'ids' is not a list of texts"),
        ('{"ids": ["a", "b", "c", "d", "e", "a"], "counts": null}', "id 'a' occurs twice"),
        ('{"ids": ["a", "b", "c", "d", "e", "f"], "counts": [1]}', "'counts' is not a list of 6 whole numbers"),
        ('{"ids": ["a", "b", "c", "d", "e", "f"], "counts": [1, 2, 3, 4, 5, 0.5]}', "'counts' is not a list of 6"),
    ],
)
def test_a_list_of_items_that_is_wrong_says_where(tmp_path: Path, content: str, message: str) -> None:
    _save(tmp_path)
    (tmp_path / "items.json").write_text(content)
    files = json.loads((tmp_path / "manifest.json").read_text())["files"]
    files["items.json"] = {"bytes": len(content), "sha256": hashlib.sha256(content.encode()).hexdigest()}
    _edit(tmp_path, files=files)
    with pytest.raises(ValueError, match=rf"items\.json: {message}.*the bundle must be saved again"):
        load_bundle(tmp_path)


OWN_ENCODER = """
from torch import nn
from conseq.config import settings
from conseq.encoders.encoder import Encoder

@settings
class LastConfig:
    width: int = 3
    max_length: int = 1
    def __call__(self, items):
        return Last(items)

class Last(Encoder):
    def __init__(self, items):
        super().__init__(items)
        self.same = nn.Embedding(*items.weight.shape, _weight=items.weight)
    def forward(self, histories):
        return self.items(histories.ids[histories.last])

class NoSettings:
    pass
"""


def test_an_encoder_of_the_users_own_is_found_by_its_import_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_encoders.py").write_text(OWN_ENCODER)
    monkeypatch.syspath_prepend(tmp_path)
    their_encoders = importlib.import_module("their_encoders")

    config = their_encoders.LastConfig()
    encoder = config(ItemTable(len(IDS), 3))
    save_bundle(encoder, config, Vocabulary(IDS, start=1), tmp_path / "b", {})
    assert read_manifest(tmp_path / "b").encoder.name == "their_encoders:LastConfig"
    monkeypatch.delitem(sys.modules, "their_encoders")
    loaded = load_bundle(tmp_path / "b").encoder
    assert type(loaded).__name__ == "Last"
    assert torch.equal(loaded.items.weight, encoder.items.weight)  # also where the table is held twice
    _edit(tmp_path / "b", encoder={"name": "their_encoders:NoSettings", "settings": {}})
    with pytest.raises(ValueError, match="is not a settings class"):
        load_bundle(tmp_path / "b")


def test_a_class_that_cannot_be_imported_again_is_refused() -> None:
    class Local:
        width = 3
        max_length = 1

        def __call__(self, items: ItemTable) -> Encoder:
            raise NotImplementedError

    with pytest.raises(ValueError, match="move it to the top level of a module"):
        encoder_name(Local())


def test_counts_are_whole_numbers_again(tmp_path: Path) -> None:
    _save(tmp_path)
    counts = load_bundle(tmp_path).counts
    assert counts is not None
    assert counts.dtype == np.int64
