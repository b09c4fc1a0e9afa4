from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import polars as pl
import pytest
import torch

from conseq.data.readers import read
from conseq.encoders.sasrec import SASRecConfig
from conseq.nn.items import ItemTable
from conseq.report import report
from conseq.report.importances import importances
from conseq.report.logs import KnownLogs
from conseq.report.maps import embedded, maps
from conseq.report.models import NOTHING, OTHER, Facts, Model, load_model, read_facts
from conseq.report.sources import collect
from conseq.report.stored import stored
from conseq.report.style import Picture
from conseq.run.config import from_record
from conseq.run.runner import data_record, run
from conseq.serving.bundle import save_bundle


def loaded(path: Path, logs: KnownLogs | None) -> Model:
    (told,) = stored([path], logs)
    return load_model(told, logs)


@pytest.fixture(scope="module")
def model(toy: Path) -> Model:
    return loaded(toy / "runs" / "toy" / "sasrec", KnownLogs(toy / "data"))


def test_a_model_is_called_by_method_data_and_seed(model: Model) -> None:
    assert model.name == "next_item on toy, seed 5"
    assert model.subject is not None
    parts = dict(model.statement(history="excluded", part="test part").parts)
    sizes = f"150 users, {model.bundle.encoder.n_items} items, {len(model.subject.log):,} interactions"
    assert parts["data"] == f"toy ({sizes})"
    assert (parts["loss"], parts["instances"], parts["seeds"]) == ("cross entropy", "whole", "5")


def test_without_its_log_a_model_has_a_map_of_items_alone(toy: Path) -> None:
    alone = loaded(toy / "runs" / "toy" / "sasrec", None)
    assert alone.facts is NOTHING
    assert [one.name for one in maps(alone, "m")] == ["m-items-by-intent"]
    assert importances(alone, "m") == []


def test_maps_show_users_and_items_by_intent_and_category(model: Model) -> None:
    users, items, kinds = maps(model, "m", points=40)
    assert [one.name for one in (users, items, kinds)] == [
        "m-users-by-intent",
        "m-items-by-intent",
        "m-items-by-category",
    ]
    assert len(users.rows) == len(items.rows) == len(kinds.rows) == 40
    assert {row[2] for row in kinds.rows} == {
        "kind 0",
        "kind 1",
        "kind 2",
    }  # all items are in “all”, which tells nothing
    assert len({row[2] for row in users.rows}) == 7
    assert "40 of 150 users" in users.caption
    assert [row[3:] for row in items.rows] == [row[3:] for row in kinds.rows]


def test_views_that_a_run_contrasts_have_a_map(toy: Path, tmp_path: Path) -> None:
    logs = KnownLogs(toy / "data")
    tables = {
        "method": {"name": "mclrec"},
        "encoder": {"name": "sasrec", "width": 8, "layers": 1, "heads": 1, "max_length": 6},
        "training": {"epochs": 1},
    }
    folder = tmp_path / "toy" / "mclrec"
    run(from_record(tables, source="a test"), logs.log("toy"), folder=folder)
    views = maps(loaded(folder, logs), "m", points=40)[-1]
    assert views.name == "m-views-by-kind"
    assert Counter(row[2] for row in views.rows) == dict.fromkeys(
        ("random 1", "random 2", "learned 1", "learned 2"), 10
    )
    assert re.search(r"40 of \d{3} views of training histories, 4 of each history", views.caption)
    assert dict(views.protocol.parts)["split"].endswith("training part")
    (folder / "checkpoint.pt").unlink()
    assert "m-views-by-kind" not in [one.name for one in maps(loaded(folder, logs), "m", points=40)]


def test_the_same_vectors_have_the_same_map(model: Model) -> None:
    assert maps(model, "m", points=30) == maps(model, "m", points=30)


def by_category(model: Model, names: list[str]) -> Picture:
    """Gives the map of items by category where the items have these categories in turn."""
    categories = {item: (names[place % len(names)],) for place, item in enumerate(model.bundle.item_ids.ids)}
    return maps(replace(model, facts=Facts({}, categories, "kinds")), "m", points=40)[-1]


def letters(picture: Picture) -> list[str]:
    found = ET.fromstring(picture.svg).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(one.itertext()) for one in found]


def test_every_category_is_in_the_legend_whatever_it_begins_with(model: Model) -> None:
    assert {"_hidden", "plain", "third"} <= set(letters(by_category(model, ["_hidden", "plain", "third"])))


def test_a_category_called_other_is_not_what_is_left_over(model: Model) -> None:
    picture = by_category(model, ["other", *(f"kind {number}" for number in range(8))])
    counts = Counter(row[2] for row in picture.rows)
    assert len(counts) == 8  # seven categories, and what is in none of them
    assert counts["other"] == sum(place % 9 == 0 for place in chosen_of(model, 40))
    assert counts["any other"] > 0
    assert {"other", "any other"} <= set(letters(picture))
    assert "grey crosses: any other." in picture.caption
    plain = by_category(model, [f"kind {number}" for number in range(9)])
    assert "grey crosses: other." in plain.caption


def chosen_of(model: Model, points: int) -> list[int]:
    """Gives the places of the items that are drawn for a map."""
    ids = model.bundle.item_ids.ids
    return [ids.index(str(row[0])) for row in maps(model, "m", points=points)[1].rows]


@pytest.mark.parametrize("points", [1, 2, 3])
def test_what_is_too_little_for_a_map_has_none(model: Model, points: int) -> None:
    assert maps(model, "m", points=points) == []


def test_the_smallest_map_says_the_perplexity_that_it_has(model: Model) -> None:
    users, _, _ = maps(model, "m", points=4)
    assert len(users.rows) == 4
    assert "perplexity 1," in users.caption


def test_a_log_with_one_held_out_user_has_maps_of_items_alone(tmp_path: Path) -> None:
    # Leave-one-out holds out the items of users with three or more.
    lines = [f"long,i{place}" for place in range(8)] + [f"u{user},i{place}" for user in range(5) for place in (0, 1)]
    path = tmp_path / "data" / "toy" / "interactions.csv"
    path.parent.mkdir(parents=True)
    path.write_text("user,item\n" + "\n".join(lines) + "\n", encoding="utf-8")
    log = read(path)
    config = SASRecConfig(width=8, layers=1, heads=1, max_length=12)
    folder = tmp_path / "runs" / "toy" / "one"
    save_bundle(config(ItemTable(log.n_items, 8)), config, log.item_ids, folder, {"data": data_record(log)})
    site = report([folder], tmp_path / "site", data=tmp_path / "data").parent
    assert [one.stem for one in (site / "figures").glob("*-by-*")] == ["1-sasrec-on-toy-items-by-intent"]


def test_near_vectors_are_near_on_the_map() -> None:
    rng = torch.Generator().manual_seed(0)
    centres = torch.eye(3).repeat_interleave(20, 0)
    place = embedded(centres + 0.05 * torch.randn(60, 3, generator=rng))
    own = np.stack([place[20 * one : 20 * one + 20].mean(0) for one in range(3)])
    nearest = np.linalg.norm(place[:, None] - own, axis=2).argmin(1)
    assert nearest.tolist() == [0] * 20 + [1] * 20 + [2] * 20


def test_importances_of_a_history_sum_to_one_in_every_column(model: Model) -> None:
    pictures = importances(model, "i", users=3)
    assert len(pictures) == 3
    for picture in pictures:
        assert picture.columns == (
            "place", "item", "share by occlusion", "share by saliency", "share by integrated gradients",
            "share by attention",
        )  # fmt: skip
        assert 5 <= len(picture.rows) <= 12
        shares = np.array([row[2:] for row in picture.rows], dtype=np.float64)
        assert shares.sum(0) == pytest.approx(np.ones(4), abs=1e-3)
        assert "rank " in picture.caption


def test_an_item_without_a_title_is_called_by_its_id(toy: Path) -> None:
    facts = read_facts(toy / "data" / "toy" / "items.parquet")
    ids = pl.read_parquet(toy / "data" / "toy" / "items.parquet")["item_id"].to_list()
    assert facts.title(ids[-1]) == f"item {ids[-1]}"
    assert facts.title(ids[0], 200).startswith("<img src=x")
    assert facts.column == "kinds"


def test_titles_lose_the_escapes_of_the_web(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": [1], "title": ["Salt &amp; Pepper"]}).write_parquet(tmp_path / "items.parquet")
    assert read_facts(tmp_path / "items.parquet").title("1") == "Salt & Pepper"


def test_a_table_of_items_needs_their_ids(tmp_path: Path) -> None:
    pl.DataFrame({"item": [1]}).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(ValueError, match="has no column 'item_id'; its columns are item"):
        read_facts(tmp_path / "items.parquet")


def test_an_item_has_its_largest_category_that_not_most_items_have() -> None:
    categories = {"1": ("all", "a", "b"), "2": ("all", "a"), "3": ("all", "b"), "4": ("all", "a"), "5": ("c",), "6": ()}
    found = Facts({}, categories).main_categories(list("123456"), 2)
    # “all” holds four of six items, more than half. Then “a” holds three; of “b” and “c” with one each, “b” is first.
    assert found == ["a", "a", "b", "a", OTHER, OTHER]


def test_a_finished_run_gives_a_record_and_an_unfinished_one_is_left_out(toy: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs" / "toy"
    shutil.copytree(toy / "runs" / "toy" / "sasrec", runs / "whole")
    shutil.copytree(toy / "runs" / "toy" / "sasrec", runs / "begun")
    shutil.rmtree(runs / "begun" / "bundle")
    said: list[str] = []
    found = collect([tmp_path / "runs"], said.append)
    assert found.models == [runs / "whole"]
    (record,) = found.records
    assert (record["dataset"], record["method"], record["seed"], record["epochs"]) == ("toy", "next_item", 5, 2)
    assert said == [f"{runs / 'begun'} is left out: its run is not finished"]


def test_a_run_that_is_recorded_counts_once(toy: Path, tmp_path: Path) -> None:
    (record,) = collect([toy / "runs"], lambda line: None).records
    lines = tmp_path / "all.jsonl"
    lines.write_text(json.dumps({**record, "preset": "paper"}) + "\n")
    (found,) = collect([lines, toy / "runs"], lambda line: None).records
    assert found["preset"] == "paper"


def test_a_report_of_a_run_has_its_metrics_maps_and_importances(toy: Path, tmp_path: Path) -> None:
    said: list[str] = []
    site = report([toy / "runs"], tmp_path / "site", data=toy / "data", say=said.append).parent
    assert {one.name for one in site.glob("*.html")} == {"index.html", "data-toy.html", "maps.html", "importances.html"}
    assert said == ["drawing next_item on toy, seed 5"]
    text = (site / "importances.html").read_text(encoding="utf-8")
    assert "&lt;img src=x onerror=" in text
    assert "<img src=x" not in text
    drawn = "".join(path.read_text(encoding="utf-8") for path in (site / "figures").glob("*importance*"))
    assert "&lt;img" in drawn
    assert "<img" not in drawn


def test_pictures_can_be_left_out(toy: Path, tmp_path: Path) -> None:
    site = report([toy / "runs"], tmp_path / "site", data=toy / "data", pictures=False).parent
    assert {one.name for one in site.glob("*.html")} == {"index.html", "data-toy.html"}
