"""Which model is which, what made it, and which log is its own: known before any weights are read."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conseq.data.log import InteractionLog
from conseq.data.prepared import load, save
from conseq.data.readers import read
from conseq.data.synthetic import synthetic
from conseq.encoders.comirec import ComiRecConfig
from conseq.nn.items import ItemTable
from conseq.report import logs as logs_module
from conseq.report import report, site
from conseq.report.importances import importances
from conseq.report.logs import KnownLogs
from conseq.report.maps import maps
from conseq.report.models import Model, load_model
from conseq.report.sources import collect
from conseq.report.stored import Stored, stored
from conseq.run.runner import data_record
from conseq.serving.bundle import save_bundle
from conseq.study.logs import prepared_beside

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def runs(toy: Path, tmp_path: Path) -> Path:
    """A folder with the trained run alone, ``toy/sasrec``, to be changed at will."""
    shutil.copytree(toy / "runs", tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def data(toy: Path, tmp_path: Path) -> Path:
    """A folder with the log alone, ``toy``, to be changed at will."""
    shutil.copytree(toy / "data", tmp_path / "data")
    return tmp_path / "data"


def rewrite(path: Path, change: Change) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def another(run: Path, name: str, change: Change = lambda values: None) -> Path:
    """Gives a copy of a run whose bundle tells of other settings."""
    folder = run.parent / name
    shutil.copytree(run, folder)
    rewrite(folder / "bundle" / "manifest.json", lambda values: change(values["provenance"]))
    return folder


def batches_of(size: int) -> Change:
    def change(provenance: dict[str, Any]) -> None:
        provenance["training"]["batch_size"] = size

    return change


def other_log(folder: Path, seed: int) -> InteractionLog:
    log, _ = synthetic(n_users=30, n_items=20, n_intents=2, mean_length=6, seed=seed)
    save(log, folder)
    return load(folder)


def test_models_that_differ_in_a_setting_have_names_that_differ(runs: Path) -> None:
    run = runs / "toy" / "sasrec"
    one, two = stored([run, another(run, "wider", batches_of(7))], None)
    assert one.name == f"next_item on toy, seed 5, config {one.digest}"
    assert two.name == f"next_item on toy, seed 5, config {two.digest}"
    assert one.digest != two.digest
    (alone,) = stored([run], None)
    assert alone.name == "next_item on toy, seed 5"


def test_models_of_the_same_settings_are_called_by_data_and_folder(runs: Path) -> None:
    def other_data(provenance: dict[str, Any]) -> None:
        provenance["data"]["hash"] = "bead" * 16

    run = runs / "toy" / "sasrec"
    again = another(run, "again")
    shutil.copytree(again, runs / "more" / "toy" / "again")
    paths = [run, again, runs / "more" / "toy" / "again", another(run, "other", other_data)]
    names = [one.name for one in stored(paths, None)]
    assert len(set(names)) == 4
    assert names[0].endswith(", sasrec")
    assert names[1].endswith(f", again, {again.as_posix()}")
    assert names[3] == "next_item on toy, seed 5, data beadbead"


def test_a_model_says_what_made_it(runs: Path) -> None:
    run = runs / "toy" / "sasrec"
    code = [{"commit": "aaaaaaaaaa", "hash": "1", "machine": "one"}, {"commit": "", "hash": "2", "machine": "two"}]
    rewrite(run / "config.json", lambda values: values.update(code=code))
    parts = dict(said(load_model(stored([run], None)[0], None)))
    assert (parts["commit"], parts["machine"]) == ("aaaaaaaaaa / not recorded", "one / two")
    assert parts["preset"] == "not said"


def test_a_model_has_the_preset_that_its_record_tells_of(runs: Path) -> None:
    run = runs / "toy" / "sasrec"
    (record,) = collect([runs], lambda line: None).records
    (told,) = stored([run], None, [{**record, "preset": "paper", "commit": "bbbbbbbbbb"}])
    assert dict(said(load_model(told, None)))["preset"] == "paper"
    (other,) = stored([run], None, [{**record, "preset": "paper", "data_hash": "bead" * 16}])
    assert other.record is None
    shutil.move(run / "bundle", runs / "toy" / "alone")
    (told,) = stored([runs / "toy" / "alone"], None, [{**record, "commit": "bbbbbbbbbb"}])
    assert dict(said(load_model(told, None)))["commit"] == "bbbbbbbbbb"
    (told,) = stored([runs / "toy" / "alone"], None)
    assert dict(said(load_model(told, None)))["machine"] == "not recorded"


def said(model: Model) -> tuple[tuple[str, str], ...]:
    return model.statement(history="excluded", part="test part").parts


def test_the_bundle_of_a_run_is_that_run(runs: Path) -> None:
    run = runs / "toy" / "sasrec"
    (one,), (two,) = stored([run], None), stored([run / "bundle"], None)
    assert (one.name, one.dataset, one.bundle, one.code) == (two.name, two.dataset, two.bundle, two.code)


def test_a_log_is_found_by_its_hash_where_it_has_another_name(runs: Path, data: Path) -> None:
    (data / "toy").rename(data / "renamed")
    other_log(data / "toy", 1)
    logs = KnownLogs(data)
    (told,) = stored([runs / "toy" / "sasrec"], logs)
    assert (told.log, told.name, told.missing) == ("renamed", "next_item on renamed, seed 5", "")
    model = load_model(told, logs)
    assert model.subject is not None
    assert dict(said(model))["data"].startswith("renamed (150 users")
    assert model.facts.column == "kinds"


@pytest.mark.parametrize("given", ["run", "bundle"])
def test_a_log_that_a_study_prepared_lies_beside_its_runs(given: str, runs: Path, data: Path, tmp_path: Path) -> None:
    (data / "toy").rename(data / "other")
    log = read(str(data / "other"))
    shutil.rmtree(data / "other")
    save(log, runs / "toy" / "logs" / "data")
    run = runs / "toy" / "sasrec"
    asked = [run if given == "run" else run / "bundle"]
    beside = prepared_beside(asked)
    assert beside == {"toy": runs / "toy" / "logs" / "data"}
    logs = KnownLogs(data, beside)
    (told,) = stored(asked, logs)
    assert (told.log, told.missing) == ("toy", "")
    assert load_model(told, logs).subject is not None
    lines: list[str] = []
    page = report([runs], tmp_path / "site", data=data, say=lines.append).parent / "maps.html"
    assert "map of users" in page.read_text(encoding="utf-8").lower()
    assert not [line for line in lines if "left out" in line]


def test_another_log_of_the_right_name_is_not_shown_as_the_models_own(runs: Path, data: Path, tmp_path: Path) -> None:
    shutil.rmtree(data / "toy")
    other_log(data / "toy", 1)
    lines: list[str] = []
    page = report([runs], tmp_path / "site", data=data, say=lines.append).parent / "maps.html"
    (told,) = stored([runs / "toy" / "sasrec"], KnownLogs(data))
    why = f"the log called 'toy' is another one, and no log in {data} has the hash of its data, {told.data_hash:.12}"
    assert lines[1] == f"next_item on toy, seed 5: {why}: users, histories and titles are left out"
    text = page.read_text(encoding="utf-8")
    assert "users, histories and titles are left out" in text
    assert "map of users" not in text
    assert not (page.parent / "importances.html").exists()


def test_a_log_that_is_not_there_is_named(runs: Path, data: Path) -> None:
    shutil.rmtree(data)
    (told,) = stored([runs / "toy" / "sasrec"], KnownLogs(data))
    assert told.missing.startswith(f"no log in {data} has the hash of its data, ")
    rewrite(runs / "toy" / "sasrec" / "bundle" / "manifest.json", lambda values: values["provenance"].pop("data"))
    (told,) = stored([runs / "toy" / "sasrec"], KnownLogs(data))
    assert told.missing.startswith(f"{data} has no log called 'toy', and the model does not say")


def test_a_model_that_does_not_say_its_data_has_the_log_of_its_folders_name(runs: Path, data: Path) -> None:
    rewrite(runs / "toy" / "sasrec" / "bundle" / "manifest.json", lambda values: values["provenance"].pop("data"))
    (told,) = stored([runs / "toy" / "sasrec"], KnownLogs(data))
    assert told.log == "toy"


def test_each_log_is_read_once_to_find_the_logs_of_many_models(
    runs: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counted(path: str) -> InteractionLog:
        asked.append(Path(path).name)
        return read(path)

    monkeypatch.setattr(logs_module, "read", counted)
    (data / "toy").rename(data / "renamed")
    other_log(data / "another", 1)
    (data / "broken.csv").write_text("user,item\n", encoding="utf-8")
    run = runs / "toy" / "sasrec"
    paths = [run, *(another(run, f"run{number}", batches_of(number)) for number in (7, 8))]
    assert [one.log for one in stored(paths, KnownLogs(data))] == ["renamed"] * 3
    assert sorted(asked) == ["another", "broken.csv", "renamed"]


def test_one_model_at_a_time_is_in_memory(
    runs: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    another(runs / "toy" / "sasrec", "second", batches_of(7))
    another(runs / "toy" / "sasrec", "third", batches_of(8))
    seen: list[weakref.ref[torch.nn.Module]] = []

    def watched(told: Stored, logs: KnownLogs | None) -> Model:
        gc.collect()
        assert [one() for one in seen if one() is not None] == []
        model = load_model(told, logs)
        assert model.subject is not None
        assert model.subject.encoder is model.bundle.encoder
        seen.append(weakref.ref(model.bundle.encoder))
        return model

    monkeypatch.setattr(site, "load_model", watched)
    monkeypatch.setattr(site, "maps", lambda model, name: [])
    monkeypatch.setattr(site, "importances", lambda model, name: [])
    report([runs], tmp_path / "site", data=data)
    assert len(seen) == 3


def comirec(folder: Path, log: InteractionLog, interests: int) -> Path:
    config = ComiRecConfig(width=8, interests=interests, max_length=12)
    encoder = config(ItemTable(log.n_items, 8))
    told = {"method": {"name": "comirec"}, "data": data_record(log), "split": {"name": "leave_one_out"}}
    save_bundle(encoder, config, log.item_ids, folder, told)
    return folder


def test_an_encoder_of_several_vectors_has_maps_of_items_alone(data: Path, tmp_path: Path) -> None:
    path = comirec(tmp_path / "runs" / "toy" / "several", load(data / "toy"), 2)
    logs = KnownLogs(data)
    model = load_model(stored([path], logs)[0], logs)
    assert [one.name for one in maps(model, "m", points=30)] == ["m-items-by-intent", "m-items-by-category"]
    assert importances(model, "m") == []
    lines: list[str] = []
    pages = report([path], tmp_path / "site", data=data, say=lines.append).parent
    (line,) = (one for one in lines if "2 vectors of a history, not one" in one)
    assert line.startswith("comirec on toy: ")
    assert line.removeprefix("comirec on toy: ") in (pages / "maps.html").read_text(encoding="utf-8")
    assert not (pages / "importances.html").exists()


def test_an_encoder_of_one_vector_is_shown_whatever_it_is(data: Path, tmp_path: Path) -> None:
    path = comirec(tmp_path / "runs" / "toy" / "single", load(data / "toy"), 1)
    logs = KnownLogs(data)
    model = load_model(stored([path], logs)[0], logs)
    assert model.notes == ()
    assert len(maps(model, "m", points=30)) == 3
    assert importances(model, "m", users=1) != []
