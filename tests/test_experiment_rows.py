"""Every row of the papers' tables can be run, or says why it cannot, and carries what was printed."""

from __future__ import annotations

import csv
import tomllib
from collections import defaultdict
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from conseq.analyses import analysis
from conseq.config import parse as parse_settings
from conseq.data.reading import Reading
from conseq.evaluation.inequalities import violations
from conseq.evaluation.metrics import parse
from conseq.run.config import RunConfig, from_record
from conseq.study.logs import origins
from conseq.study.specification import Row, Table, load_table

ROOT = Path(__file__).resolve().parents[1] / "experiments"
FILES = sorted(ROOT.glob("*/*/*.toml"))
NAMES = [str(file.relative_to(ROOT)) for file in FILES]

PAPERS = {"ICLRec": "iclrec", "MCLRec": "mclrec", "EC4SRec": "ec4srec", "ECL-SR": "ecl_sr", "MCLSR": "mclsr"}
DISTRIBUTED = {"beauty", "sports", "toys", "yelp", "ml-1m", "synthetic"}
OF_COMPLEXITY = {"parameters": 10**6, "seconds per epoch": 1, "users per second": 1}
OF_GROUPS = {
    f"{kind}, length {group}"
    for kind in ("users", "items", "interactions", "sparsity")
    for group in ("<=5", "6-8", ">8")
}
SPREAD = " sd"  # what ends the name of a cell that is a printed standard deviation
PRINTED_DIGITS = 4


@cache
def table(file: Path) -> Table:
    """Gives the table of a file, which is read once."""
    return load_table(file)


def rows() -> list[tuple[Path, Row]]:
    """Gives all rows with their files."""
    return [(file, row) for file in FILES for row in table(file).rows]


def has_one_target(file: Path) -> bool:
    """Whether the printed numbers are of users with one target each."""
    return not file.is_relative_to(ROOT / "mclsr")


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_every_row_can_be_run_or_says_why_not(file: Path) -> None:
    for row in table(file).rows:
        if row.closed is None and row.floor is None:
            assert isinstance(row.config, RunConfig)
            parse(row.config.training.metric)
            assert from_record(row.config.record(), source=row.name) == row.config
        else:
            assert row.config is None
            assert row.closed != ""


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_file_lies_where_its_table_and_its_log_say(file: Path) -> None:
    found = table(file)
    assert file.name.split(".")[0] == found.dataset
    words = found.title.lower().replace(".", "_").split(":")[0]
    if file.parent.parent.name != "honest":
        assert words.replace(" (c)", "").split(" on ")[0].replace(" ", "") == file.parent.name


@pytest.mark.parametrize("file", [one for one in FILES if "honest" not in one.parts], ids=str)
def test_a_base_is_an_experiment_on_the_log_of_the_table(file: Path) -> None:
    values = tomllib.loads(file.read_text(encoding="utf-8"))
    for entry in [*values.get("row", []), *values.get("sweep", [])]:
        if "experiment" in entry:
            base = tomllib.loads((ROOT / entry["experiment"]).read_text(encoding="utf-8"))
            assert base["data"]["name"] == values["dataset"], entry


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_log_that_is_not_at_hand_is_said_to_be_so_and_where_it_is(file: Path) -> None:
    found = table(file)
    if (found.log.of if found.log else found.dataset) not in DISTRIBUTED:
        assert "not distributed" in str(found.note)
        assert "https://" in str(found.note)


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_every_cell_is_a_known_metric_and_a_probability(file: Path) -> None:
    for row in table(file).rows:
        for name, value in row.cells.items():
            if name in OF_COMPLEXITY:
                assert row.closed or (row.analysis or {})["name"] == "complexity"
                assert value > 0
            elif name in OF_GROUPS:
                assert (row.analysis or {})["name"] == "groups_apart"
                assert value < 1 if name.startswith("sparsity") else value > 1
            else:
                assert parse(name.removesuffix(SPREAD)).k is not None
                assert 0 <= value <= 1, (row.name, name)


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_rows_of_one_name_carry_the_same_cells(file: Path) -> None:
    cells: dict[str, dict[str, float]] = {}
    for row in table(file).rows:
        assert cells.setdefault(row.name, row.cells) == row.cells


@pytest.mark.parametrize("file", [one for one in FILES if has_one_target(one)], ids=str)
def test_printed_numbers_that_cannot_be_are_marked_and_no_others(file: Path) -> None:
    for row in table(file).rows:
        wrong = violations(row.cells, rounding=0.5 * 10**-PRINTED_DIGITS)
        assert [one.what for one in wrong] == _marked(row), row.name


def test_sixteen_rows_of_four_papers_are_impossible() -> None:
    found = {(file.parent, table(file).dataset, row.name) for file, row in rows() if row.impossible}
    assert len(found) == 16


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_every_analysis_is_known_with_its_settings(file: Path) -> None:
    for row in table(file).rows:
        if row.analysis is not None:
            settings = {key: value for key, value in row.analysis.items() if key != "name"}
            parse_settings(analysis(row.analysis["name"]).settings, settings, source=row.name)


def test_a_row_that_pretrains_may_stop_only_a_patience_after_it() -> None:
    found = set()
    for _, row in rows():
        record = row.config.record() if row.config else {"method": {}}
        if record["method"].get("pretrain", 0):
            training = record["training"]
            assert training["not_before"] >= record["method"]["pretrain"] + training["patience"], row.name
            found.add(row.name)
    assert found == {"ICL-SR+pos.", "ICL-SR+neg.", "S3Rec_MIP", "S3Rec_ISP", "(H) S3Rec_ISP", "DSSRec"}


@pytest.mark.parametrize("file", sorted((ROOT / "ecl_sr/figure4").glob("*.toml")), ids=lambda file: str(file.stem))
def test_encoder_and_generator_of_the_ablations_have_as_many_layers_in_all(file: Path) -> None:
    layers = defaultdict(set)
    for row in table(file).rows:
        assert row.config is not None
        method, encoder = row.config.method, row.config.record()["encoder"]
        generates = method.detection > 0 or method.contrast_edited != "no"
        layers[row.preset, generates].add(encoder["layers"] + method.generator_layers * generates)
    # The authors' code has two layers in each.
    assert layers == {("paper", True): {2}, ("paper", False): {2}, ("released", True): {4}, ("released", False): {2}}


@pytest.mark.parametrize("file", sorted((ROOT / "ecl_sr/table5").glob("*.toml")), ids=lambda file: str(file.stem))
def test_the_mask_ratio_of_a_log_is_no_ratio_of_other_edits(file: Path) -> None:
    for row in table(file).rows:
        assert row.config is not None
        masked = row.config.method.invasive == "masked_substitution"
        assert row.config.method.ratio == (0.6 if masked and file.stem == "yelp" else 0.2), row.name


@pytest.mark.parametrize("file", sorted((ROOT / "honest/main").glob("*.toml")), ids=lambda file: str(file.stem))
def test_the_honest_rows_differ_in_their_contrast_alone(file: Path) -> None:
    shared: dict[str, Any] = {}
    names = defaultdict(list)
    for row in table(file).rows:
        if row.config is not None:
            record = row.config.record()
            training = {key: value for key, value in record["training"].items() if key != "instances"}
            # A method whose loss changes on the way must not be stopped before that.
            assert (training.pop("not_before") > 0) == (row.config.method_name == "ec4srec")
            common = {"encoder": record["encoder"], "split": record["split"], "training": training}
            assert shared.setdefault("common", common) == common, row.name
            assert record["method"]["loss"] == "cross_entropy"
            assert record["training"]["instances"] == row.variant
            names[row.variant].append(row.config.method_name)
    assert set(names["prefixes"]) - set(names["whole"]) == {"mclsr"}
    assert all(len(set(found)) == len(found) for found in names.values())


# The weights of each contrast under equal conditions.
WEIGHTS = {
    "CL4SRec": ("contrast",),
    "DuoRec": ("supervised",),  # the one weight of its pair "cross"
    "CoSeRec": ("contrast",),
    "ICLRec": ("intent", "sequence"),
    "MCLRec": ("contrast", "learned"),
    "EC4SRec": ("positive_views", "negative_views", "supervised", "contrast", "same_target"),
    "ECL-SR": ("invariance", "generation", "detection"),
}


@pytest.mark.parametrize("file", sorted((ROOT / "honest/weights").glob("*.toml")), ids=lambda file: str(file.stem))
def test_the_honest_weights_move_all_weights_of_a_contrast_by_one_factor_and_nothing_else(file: Path) -> None:
    authors = {row.name: row.config for row in table(ROOT / "honest/main" / file.name).rows if row.variant == "whole"}
    factors = defaultdict(list)
    for row in table(file).rows:
        name, _, factor = row.name.partition(" x ")
        own = authors[name]
        assert row.config is not None
        assert own is not None
        found, given = row.config.record(), own.record()
        moved = [key for key in WEIGHTS.get(name, ()) if given["method"][key] > 0]
        for key in moved:
            expected = pytest.approx(given["method"][key] * float(factor), rel=0.01)
            assert found["method"].pop(key) == expected, row.name
            del given["method"][key]
        assert found == given
        factors[name].append(factor)
    assert set(factors) >= set(WEIGHTS)
    # MCLRec has two updates of the encoder in a batch, so that SASRec is not what is left of it without weight.
    assert factors.pop("MCLRec") == ["0", "0.1", "0.3", "1", "3"]
    assert all(factors[name] == ["0.1", "0.3", "1", "3"] for name in WEIGHTS if name != "MCLRec")


@pytest.mark.parametrize("file", sorted((ROOT / "honest/ties").glob("*.toml")), ids=lambda file: str(file.stem))
def test_the_models_where_ties_are_drawn_are_the_honest_ones_of_the_log_that_it_is_drawn_of(file: Path) -> None:
    drawn = table(file)
    assert drawn.log is not None
    assert file.stem == f"{drawn.log.of}-ties-{drawn.log.tie_seed}"
    assert drawn.log.reading == Reading(ties="random", tie_seed=drawn.log.tie_seed)
    known = {
        row.name: row.config
        for study in ("weights", "main")
        for row in table(ROOT / "honest" / study / f"{drawn.log.of}.toml").rows
    }
    assert [row.config for row in drawn.rows] == [known[row.name] for row in drawn.rows]
    assert "SASRec" in {row.name for row in drawn.rows}


def test_a_log_has_one_name_and_one_origin() -> None:
    found = origins(map(table, FILES))
    assert {one.of for one in found.values()} == {"beauty", "sports"}
    assert not set(found) & DISTRIBUTED


OF_OTHERS = {"weights", "ties"}  # these have tests of their own
ASKED = [file for file in sorted((ROOT / "honest").glob("*/*.toml")) if file.parent.name not in OF_OTHERS]


@pytest.mark.parametrize("file", ASKED, ids=lambda file: str(file.parent.name))
def test_what_is_asked_of_the_honest_models_trains_no_others(file: Path) -> None:
    trained = {row.config for row in table(ROOT / "honest/main" / file.name).rows}
    assert {row.config for row in table(file).rows} <= trained


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_file_names_no_folder_of_a_machine(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert not [word for word in ("/work", "/tmp", "/home", "/root", "..") if word in text]


@pytest.mark.real_data
def test_every_published_cell_is_answered_once_and_as_it_was_printed(shared: Path) -> None:
    numbers = shared / "facts" / "paper_numbers.csv"
    if not numbers.is_file():
        pytest.skip(f"no published numbers at {numbers}")
    answered: dict[tuple[str, str, str, str], float] = {}
    places: dict[tuple[str, str, str, str], set[Path]] = defaultdict(set)
    for file, row in rows():
        for name, value in row.cells.items():
            key = (row.study, row.dataset, row.name, name)
            answered[key] = value
            places[key].add(file)
    assert [key for key, files in places.items() if len(files) > 1] == []
    with numbers.open(encoding="utf-8", newline="") as stream:
        printed = dict(_printed(line) for line in csv.DictReader(stream) if line["method"] != "Improv.(printed)")
    with (shared / "facts" / "dataset_stats.csv").open(encoding="utf-8", newline="") as stream:
        lines = [line for line in csv.DictReader(stream) if (line["source"], line["table"]) == ("MCLRec", "5")]
        printed |= dict(_of_groups(line) for line in lines)
    of_tables = {key: value for key, value in answered.items() if "/table" in key[0]}
    assert len(printed) > 1300
    assert set(of_tables) == set(printed)
    assert of_tables == pytest.approx(printed, abs=1e-12)


def _marked(row: Row) -> list[str]:
    """Gives the left sides of the inequalities that a row's mark names."""
    if row.impossible is None:
        return []
    return [part.replace(">", "<").split(" < ")[0] for part in row.impossible.split("; ")]


def _of_groups(line: dict[str, str]) -> tuple[tuple[str, str, str, str], float]:
    """Gives the place of a line of the published counts of user groups (MCLRec's Table 5), and its number."""
    data, _, length = line["dataset"].removesuffix("]").partition(" [len")
    name = f"{line['statistic']}, length {length.strip().replace('=5', '<=5')}"
    value = line["value"]
    number = float(Decimal(value.removesuffix("%")) / 100) if value.endswith("%") else float(value)
    return ("mclrec/table5", data.lower(), "users in three groups", name), number


def _printed(line: dict[str, str]) -> tuple[tuple[str, str, str, str], float]:
    """Gives the place of a line of the published numbers, and its number as a share."""
    paper, data = PAPERS[line["paper"]], line["dataset"].partition("(")[0].lower()
    dataset = f"amazon-{data}" if paper == "mclsr" and data != "gowalla" else data
    name, value = line["metric"], Decimal(line["value"])
    if name.endswith("(%)"):
        name, value = name.removesuffix("(%)"), value / 100
    renamed = {"params_M": "parameters", "train_s_per_epoch": "seconds per epoch"}
    renamed["inference_users_per_s"] = "users per second"
    name = renamed.get(name, name).replace("Hit@", "HR@").replace("_std", SPREAD)
    if paper == "ecl_sr":  # one target for each user
        name = name.replace("Recall@", "HR@")
    place = (f"{paper}/table{line['table']}", dataset, line["method"], name)
    return place, float(value * OF_COMPLEXITY.get(name, 1))
