"""What a file of a search says, and what it may not say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conseq.tuning import Choice, Range, read_space, space_of


def space(**training: Any) -> Any:
    return space_of({"training": training}, source="space.toml")


def test_a_file_has_fixed_settings_choices_and_ranges(tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text(
        '[method]\nname = "duorec"\ntemperature = { low = 0.05, high = 2.0, log = true }\n'
        "[encoder]\nwidth = [16, 32]\nlayers = { low = 1, high = 3 }\ndropout = { low = 0.1, high = 0.5, step = 0.2 }\n"
        "[training]\nepochs = 7\nbetas = [[0.9, 0.99]]\n"
    )

    found = read_space(file)

    assert found.varied == {
        "method.temperature": Range(0.05, 2.0, log=True),
        "encoder.width": Choice((16, 32)),
        "encoder.layers": Range(1, 3),
        "encoder.dropout": Range(0.1, 0.5, 0.2),
        "training.betas": Choice(([0.9, 0.99],)),
    }
    values = {"method.temperature": 0.5, "encoder.width": 32, "encoder.layers": 2, "encoder.dropout": 0.3}
    config = found.config({**values, "training.betas": [0.9, 0.99]})
    assert config.method_name == "duorec"
    assert config.method.temperature == 0.5
    assert (config.encoder.width, vars(config.encoder)["layers"]) == (32, 2)
    assert (config.training.epochs, config.training.betas) == (7, (0.9, 0.99))


@pytest.mark.parametrize(
    ("one", "values"),
    [
        (Range(1, 4), (1, 2, 3, 4)),
        (Range(16, 64, 16), (16, 32, 48, 64)),
        (Range(1, 6, 2), (1, 3, 5)),
        (Range(0.1, 0.5, 0.1), (0.1, 0.2, 0.3, 0.4, 0.5)),
        (Range(0.0, 0.5, 0.2), (0.0, 0.2, 0.4)),
        (Range(0.1, 0.5), None),
        (Range(1, 1000, log=True), None),
        (Choice(("a", "b")), ("a", "b")),
    ],
)
def test_the_values_of_a_range_are_counted_where_they_can_be(one: Range | Choice, values: Any) -> None:
    assert one.values() == values


def test_a_grid_is_all_combinations() -> None:
    found = list(space(batch_size=[8, 16], warmup={"low": 0, "high": 2}).grid())

    assert len(found) == 6
    assert found[0] == {"training.batch_size": 8, "training.warmup": 0}
    assert found[1] == {"training.batch_size": 8, "training.warmup": 1}
    assert found[5] == {"training.batch_size": 16, "training.warmup": 2}


def test_a_grid_refuses_what_cannot_be_counted() -> None:
    with pytest.raises(ValueError, match=r"space\.toml: training\.clip: a grid needs a list of values, or a step"):
        list(space(batch_size=[8, 16], clip={"low": 0.5, "high": 2.0}).grid())
    with pytest.raises(ValueError, match=r"batch_size: a grid needs a list .* without log"):
        space(batch_size={"low": 8, "high": 512, "log": True}).combinations()


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"epochs": 5}, "nothing to search for"),
        ({"batch_size": []}, "training.batch_size: an empty list"),
        ({"batch_size": {"low": 1}}, "expected a table with low and high"),
        ({"batch_size": {"low": 1, "high": 2, "stp": 1}}, "expected a table with low and high"),
        ({"batch_size": {"low": 9, "high": 2}}, "low must be below high"),
        ({"batch_size": {"low": 2, "high": 9, "step": 0}}, "step above 0"),
        ({"batch_size": {"low": "2", "high": 9}}, "low, high and step are numbers"),
        ({"batch_size": {"low": True, "high": 9}}, "low, high and step are numbers"),
        ({"weight_decay": {"low": 0.0, "high": 0.1, "log": True}}, "with log also low above 0"),
        ({"weight_decay": {"low": 0.1, "high": 0.9, "log": True, "step": 0.1}}, "no range has both log and step"),
        ({"weight_decay": {"low": 0.1, "high": 0.9, "log": 1}}, "log is true or false"),
        ({"batchsize": [8, 16]}, "unknown key 'batchsize'; did you mean 'batch_size'"),
        ({"batch_size": [8, 0]}, "key 'batch_size': Input should be greater than or equal to 1, found 0"),
        ({"batch_size": {"low": 0.5, "high": 2.0}}, "key 'batch_size'"),
        ({"batch_size": {"low": 1, "high": 3, "step": 0.5}}, "key 'batch_size'"),
        ({"batch_size": [8], "warmup": {"low": -1, "high": 2}}, "key 'warmup'"),
        ({"seed": [0, 1, 2]}, "training.seed cannot be searched for: the best of several seeds is luck"),
        ({"metric": ["HR@10", "NDCG@10"]}, "training.metric cannot be searched for"),
        ({"history": ["keep", "exclude"]}, "training.history cannot be searched for"),
    ],
)
def test_what_is_no_space_is_refused_by_its_place(training: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^space\.toml: ") as refused:
        space(**training)
    assert message in str(refused.value)


def test_names_and_the_cut_of_the_log_are_not_varied() -> None:
    with pytest.raises(ValueError, match=r"method\.name: one name, on which the other settings depend"):
        space_of({"method": {"name": ["duorec", "cl4srec"]}}, source="space.toml")
    with pytest.raises(ValueError, match=r"split\.seed cannot be searched for: trials are compared on one cut"):
        space_of({"split": {"name": "by_user", "seed": {"low": 0, "high": 9}}}, source="space.toml")


def test_a_list_in_the_cut_of_the_log_is_one_value() -> None:
    cut = {"name": "by_time", "shares": [0.7, 0.8]}
    found = space_of({"split": cut, "training": {"epochs": [1, 2]}}, source="space.toml")
    assert found.config({"training.epochs": 1}).record()["split"]["shares"] == [0.7, 0.8]


def test_options_are_what_the_record_of_a_trial_gives_back() -> None:
    found = space(betas=[(0.9, 0.999)], batch_size=[np.int64(8)])
    assert [one.values() for one in found.varied.values()] == [([0.9, 0.999],), (8,)]
    assert type(found.varied["training.batch_size"].values()[0]) is int


def test_the_record_of_a_space_is_plain() -> None:
    found = space(batch_size=[8, 16], clip={"low": 0.5, "high": 2.0}, epochs=3)

    assert json.loads(json.dumps(found.record())) == {
        "fixed": {"training": {"epochs": 3}},
        "varied": {
            "training.batch_size": [8, 16],
            "training.clip": {"low": 0.5, "high": 2.0, "step": None, "log": False},
        },
    }
