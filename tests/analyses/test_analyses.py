"""Analyses by name: settings are strict, records are JSON, what is stored is found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from conseq.analyses import ANALYSES, analyse, analysis
from conseq.analyses.noise import NoiseConfig
from conseq.analyses.subject import subject_of
from conseq.analyses.tables import table_of
from conseq.data.log import InteractionLog
from conseq.encoders.sasrec import SASRecConfig
from conseq.evaluation.tables import as_text
from conseq.nn.items import ItemTable
from conseq.run.config import RunConfig
from conseq.run.runner import judge
from conseq.serving.bundle import save_bundle


@pytest.fixture
def settings(tmp_path: Path, log: InteractionLog) -> dict[str, dict[str, Any]]:
    table = tmp_path / "items.csv"
    rows = [f"{one},{'ab'[number % 2]}" for number, one in enumerate(log.item_ids.ids)]
    table.write_text("\n".join(["item_id,kind", *rows]), encoding="utf-8")
    return {
        "noise": {"shares": [0.0, 0.4]},
        "groups": {"edges": [6]},
        "groups_apart": {"edges": [6]},
        "complexity": {"seconds": 0.01},
        "representations": {"pairs": 20},
        "views": {"histories": 20},
        "purity": {"items": str(table), "column": "kind", "clusters": 3},
    }


@pytest.mark.parametrize("name", ANALYSES)
def test_every_analysis_gives_json_and_a_table(
    name: str, settings: dict[str, dict[str, Any]], run: Path, contrasting: Path, log: InteractionLog
) -> None:
    history = "keep" if ANALYSES[name].judges else None
    of = contrasting if name == "views" else run
    record = analyse(name, settings[name], of, log, history=history)  # type: ignore[arg-type]
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["analysis"] == name
    asked = settings[name] | ({"items": "items.csv"} if name == "purity" else {})  # without the machine's folders
    assert asked.items() <= record["settings"].items()
    text = as_text(table_of(record))
    assert len(text.splitlines()) > 3
    assert ("history kept" in text) == ANALYSES[name].judges


@pytest.mark.parametrize("name", [name for name, one in ANALYSES.items() if one.judges])
def test_what_judges_must_be_told_of_the_history(name: str, run: Path, log: InteractionLog) -> None:
    with pytest.raises(ValueError, match="say history 'exclude' or 'keep'"):
        analyse(name, {}, run, log)


def test_unknown_names_and_keys_are_refused(run: Path, log: InteractionLog) -> None:
    with pytest.raises(ValueError, match="unknown analysis 'nois'; known: noise, groups"):
        analysis("nois")
    with pytest.raises(ValueError, match="analysis 'noise': unknown key 'share'; did you mean 'shares'"):
        analyse("noise", {"share": [0.1]}, run, log, history="keep")
    with pytest.raises(TypeError, match="expected a mapping or GroupsConfig"):
        analyse("groups", NoiseConfig(), run, log, history="keep")


def test_settings_objects_are_taken_as_they_are(run: Path, log: InteractionLog) -> None:
    by_object = analyse("noise", NoiseConfig(shares=(0.3,), seed=4), run, log, history="keep")
    assert by_object == analyse("noise", {"shares": [0.3], "seed": 4}, run, log, history="keep")


def test_the_model_judged_is_the_one_that_is_stored(run: Path, log: InteractionLog) -> None:
    subject = subject_of(run, log)
    judged = judge(subject.encoder, subject.split, history="exclude", lists=False)
    record = analyse("noise", {"shares": [0.0]}, run, log, history="exclude")
    assert record["clean"] == judged.metrics
    assert record["floors"] == judged.floors


def test_a_run_and_its_bundle_know_their_experiment(run: Path, log: InteractionLog, config: RunConfig) -> None:
    of_run, of_bundle = subject_of(run, log), subject_of(run / "bundle", log)
    assert of_run.experiment == of_bundle.experiment == config
    assert (of_run.folder, of_bundle.folder) == (run, None)


def test_published_weights_have_no_experiment_to_train_by_group(tmp_path: Path, log: InteractionLog) -> None:
    config = SASRecConfig(width=8, layers=1, heads=1, max_length=6)
    save_bundle(config(ItemTable(12, 8)), config, log.item_ids, tmp_path / "bundle", {"source": "a paper"})
    assert subject_of(tmp_path / "bundle", log).experiment is None
    with pytest.raises(ValueError, match="does not say what experiment made it"):
        analyse("groups_apart", {}, tmp_path / "bundle", log, history="keep")
    found = analyse("complexity", {"seconds": 0.01}, tmp_path / "bundle", log)
    assert (found["trained_parameters"], found["training_bytes"], found["epochs"]) == (None, None, None)


def test_a_run_that_began_from_weights_of_all_users_is_not_trained_by_group(
    run: Path, log: InteractionLog, tmp_path: Path
) -> None:
    told = json.loads((run / "config.json").read_text())
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(json.dumps({**told, "start": {"weights": 64 * "a"}}))
    with pytest.raises(ValueError, match=r"began from the weights of another run.*without a start"):
        analyse("groups_apart", {"edges": [6]}, tmp_path / "run", log, history="keep")


def test_runs_of_groups_stand_in_the_runs_folder_and_are_found_again(run: Path, log: InteractionLog) -> None:
    first = analyse("groups_apart", {"edges": [6]}, run, log, history="keep")
    folder = run / "groups" / "up-to-6"
    begun = (folder / "metrics.jsonl").read_text()
    assert analyse("groups_apart", {"edges": [6]}, run, log, history="keep") == first
    assert (folder / "metrics.jsonl").read_text() == begun


def test_names_of_categories_are_shown_as_they_are() -> None:
    agreement = {"purity": 0.5, "nmi": 0.1}
    top = [{"name": name, "share": 0.5, "lift": 2.0} for name in ("[cd] Music", "[/b] Books")]
    record = {
        "analysis": "purity", "agreement": agreement, "chance": agreement, "users": 3, "categories": 2,
        "clusters": [{"users": 3, "top": top}],
    }  # fmt: skip
    shown = as_text(table_of(record))
    assert "[cd] Music: 50" in shown
    assert "[/b] Books: 50" in shown
    assert "left out" not in shown


def test_users_without_a_category_are_told_under_the_table() -> None:
    agreement = {"purity": 0.5, "nmi": 0.1}
    record = {
        "analysis": "purity", "agreement": agreement, "chance": agreement, "users": 3, "categories": 2,
        "without_category": 1200, "clusters": [{"users": 1, "top": []}] * 12,
    }  # fmt: skip
    shown = " ".join(as_text(table_of(record)).split())
    told = "1,200 of 1,203 users are left out, for no item of theirs has a category that counts"
    assert f"the ten largest clusters; {told}" in shown
    assert told in " ".join(as_text(table_of(record | {"clusters": []})).split())
