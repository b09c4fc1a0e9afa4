from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from conseq.data.batches import Times
from conseq.data.log import InteractionLog
from conseq.data.prepared import ArrayFile, is_prepared, load, save
from conseq.data.readers import read
from conseq.data.vocabulary import Vocabulary

IDS = ["007", " a b ", "é\n", "", '"x",y', "\0", "日本"]


def _log(*, times: Times | None = None) -> InteractionLog:
    items = np.array([1, 2, 3, 4, 5, 6, 7, 1, 1], dtype=np.int32)
    offsets = np.array([0, 4, 8, 9])
    users = Vocabulary(["u1", "u\n2", "u3"], start=0)
    return InteractionLog(items, offsets, times, users, Vocabulary(IDS, start=1), {"source": {"name": "by hand"}})


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("times", [None, np.arange(9), np.arange(9) / 2])
def test_a_log_comes_back_as_it_was_saved(tmp_path: Path, times: Times | None, mapped: bool) -> None:
    log = _log(times=times)
    save(log, tmp_path / "p")
    found = load(tmp_path / "p", mapped=mapped)
    assert found.items.dtype == np.int32
    assert found.items.tolist() == log.items.tolist()
    assert found.offsets.tolist() == [0, 4, 8, 9]
    assert (found.user_ids, found.item_ids) == (log.user_ids, log.item_ids)
    if times is None:
        assert found.times is None
    else:
        assert found.times is not None
        assert found.times.dtype == times.dtype
        assert found.times.tolist() == times.tolist()
    assert isinstance(found.items, np.memmap) == mapped
    assert not found.items.flags.writeable


def test_the_manifest_holds_the_log_s_own_record_and_the_statistics(tmp_path: Path) -> None:
    save(_log(times=np.array([1, 2, 3, 3, 1, 1, 1, 2, 5])), tmp_path / "p")
    manifest = json.loads((tmp_path / "p" / "manifest.json").read_text())
    assert manifest == load(tmp_path / "p").manifest
    assert manifest["source"] == {"name": "by hand"}
    assert manifest["counts"]["interactions"] == 9
    assert manifest["counts"]["users_with_one_interaction"] == 1
    assert manifest["times"] == {
        "first": 1,
        "last": 5,
        "adjacent_equal": 3 / 6,
        "last_decided_by_tie": 1 / 2,
        "duplicates": 0,
        "last_is_duplicate": 0.0,
    }
    assert manifest["arrays"]["items"]["dtype"] == "int32"
    assert manifest["vocabularies"]["item_ids"]["size"] == 7


def test_the_data_hash_tells_logs_apart_and_is_the_same_for_the_same_log(tmp_path: Path) -> None:
    def data_hash(log: InteractionLog) -> str:
        save(log, tmp_path / "p")
        return str(load(tmp_path / "p").manifest["data_hash"])

    log = _log(times=np.arange(9))
    others = [
        _log(),
        _log(times=np.arange(1, 10)),
        _log(times=np.arange(9, dtype=np.float64)),
        replace(log, items=log.items[::-1].copy()),
        replace(log, offsets=np.array([0, 3, 8, 9])),
        replace(log, user_ids=Vocabulary(["u1", "u", "2u3"], start=0)),
    ]
    assert data_hash(log) == data_hash(replace(log, manifest={"other": "manifest"}))
    assert len({data_hash(one) for one in [log, *others]}) == 1 + len(others)


def test_a_prepared_log_is_replaced_and_other_folders_are_not(tmp_path: Path) -> None:
    save(_log(times=np.arange(9)), tmp_path / "p")
    save(_log(), tmp_path / "p")
    assert load(tmp_path / "p").times is None
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == [
        "item_ids.parquet",
        "items.npy",
        "manifest.json",
        "offsets.npy",
        "user_ids.parquet",
    ]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text('{"format": "bundle"}')
    with pytest.raises(FileExistsError, match="other holds other files"):
        save(_log(), tmp_path / "other")
    assert not is_prepared(tmp_path / "other")
    (tmp_path / "p/events.csv").write_text("all there is")
    with pytest.raises(FileExistsError, match="p holds other files"):
        save(_log(), tmp_path / "p")
    assert (tmp_path / "p/events.csv").exists()


def test_a_damaged_prepared_log_may_be_prepared_again(tmp_path: Path) -> None:
    save(_log(), tmp_path / "p")
    (tmp_path / "p/manifest.json").write_text("{")
    save(_log(), tmp_path / "p")
    assert load(tmp_path / "p").n_users == _log().n_users


@pytest.mark.parametrize("size", [0, 200, 900])
def test_a_full_disk_leaves_the_older_log_and_nothing_else(
    tmp_path: Path, size: int, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    save(_log(), tmp_path / "p")
    larger = InteractionLog(
        np.ones(1000, np.int32),
        np.array([0, 1000]),
        None,
        Vocabulary(["u"], start=0),
        Vocabulary(["i"], start=1),
        {},
    )
    with pytest.raises(OSError, match=r"File too large"), full_disk(size):
        save(larger, tmp_path / "p")
    assert len(load(tmp_path / "p")) == 9
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_a_place_that_cannot_be_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        save(_log(), tmp_path / "file" / "p")


@pytest.mark.parametrize("name", ["items.npy", "offsets.npy", "times.npy", "user_ids.parquet", "item_ids.parquet"])
@pytest.mark.parametrize("keep", [0, 20, -1])
def test_a_truncated_file_is_named(tmp_path: Path, name: str, keep: int) -> None:
    save(_log(times=np.arange(9)), tmp_path / "p")
    path = tmp_path / "p" / name
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=rf"{name} is (truncated or )?corrupt"):
        load(tmp_path / "p")


@pytest.mark.parametrize("name", ["items.npy", "offsets.npy", "times.npy"])
def test_a_changed_value_is_noticed(tmp_path: Path, name: str) -> None:
    save(_log(times=np.arange(9)), tmp_path / "p")
    path = tmp_path / "p" / name
    data = bytearray(path.read_bytes())
    data[-4] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"{name} is corrupt: its hash differs"):
        load(tmp_path / "p")


def test_changed_ids_are_noticed(tmp_path: Path) -> None:
    save(_log(), tmp_path / "p")
    pl.DataFrame({"id": ["u1", "u2", "u3"]}).write_parquet(tmp_path / "p" / "user_ids.parquet")
    with pytest.raises(ValueError, match=r"user_ids\.parquet is corrupt: its ids differ"):
        load(tmp_path / "p")


def test_an_array_of_another_type_is_noticed_without_hashing(tmp_path: Path) -> None:
    save(_log(), tmp_path / "p")
    np.save(tmp_path / "p" / "items.npy", np.ones(9, np.int64))
    with pytest.raises(ValueError, match=r"items\.npy holds int64 \[9\], the manifest says int32 \[9\]"):
        load(tmp_path / "p", verify=False)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    save(_log(), tmp_path / "p")
    (tmp_path / "p" / "offsets.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"offsets\.npy"):
        load(tmp_path / "p")


def test_a_folder_without_a_manifest_is_not_a_prepared_log(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is not a prepared log: it has no manifest\.json"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is truncated or not JSON"), ("[]", "is not the manifest of a prepared log"), ("", "is truncated")],
)
def test_a_broken_manifest_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match=rf"manifest\.json {message}"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocabularies": None}, "vocabularies must tell size, sha256 of user_ids, item_ids"),
        ({"arrays": {}}, "arrays must tell size, sha256, dtype of items, offsets"),
        ({"arrays": {"items": {}, "offsets": {}}}, "arrays must tell"),
        ({"data_hash": 64 * "0"}, "was changed: its data_hash is not that of its arrays"),
    ],
)
def test_a_manifest_that_was_changed_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    save(_log(), tmp_path / "p")
    path = tmp_path / "p" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=rf"manifest\.json:? {message}"):
        load(tmp_path / "p")


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    save(_log(), tmp_path / "p")
    path = tmp_path / "p" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 2}))
    with pytest.raises(ValueError, match="format version 2, this conseq reads 1"):
        load(tmp_path / "p")


def test_arrays_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    log = _log()
    wrong = InteractionLog(log.items, np.array([0, 4, 8, 8]), None, log.user_ids, log.item_ids, {})
    save(wrong, tmp_path / "p")
    with pytest.raises(ValueError, match="do not belong together"):
        load(tmp_path / "p")


def test_an_array_written_in_pieces_is_the_array(tmp_path: Path) -> None:
    with ArrayFile(tmp_path / "a.npy", np.float64, 5) as file:
        file.append(np.array([1.5, 2.5]))
        file.append(np.array([3, 4, 5], dtype=np.int32))
    assert np.load(tmp_path / "a.npy").tolist() == [1.5, 2.5, 3.0, 4.0, 5.0]
    assert file.record()["size"] == 5


def test_a_prepared_folder_may_have_the_name_of_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id\nu,a\nu,b\nu,c\n")
    for name in ("run[2]", "data*", "file:x"):
        save(read(tmp_path / "log.csv"), tmp_path / name)
        assert read(tmp_path / name).item_ids.ids == ["a", "b", "c"]
