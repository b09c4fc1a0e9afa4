"""Experiments that name classes of the user's own, and files that hold more than an experiment."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conseq.config import settings
from conseq.encoders.gru4rec import GRU4Rec, GRU4RecConfig
from conseq.methods import METHODS
from conseq.methods.method import Method
from conseq.nn.items import ItemTable
from conseq.run.config import from_record, method_class, name_of, one_of, read_experiment, shown_name
from conseq.run.splitting import SPLITS
from conseq.training.config import TrainingConfig

OWN = """
from conseq.config import settings
from conseq.encoders.gru4rec import GRU4Rec, GRU4RecConfig
from conseq.methods.method import Method


@settings
class MineConfig:
    weight: float = 0.5


class Mine(Method):
    def __init__(self, config: MineConfig, train, backbone):
        super().__init__(train, backbone)


class Twice(Mine):
    @staticmethod
    def training_defaults(config):
        return {"epochs": int(4 * config.weight), "instances": "prefixes"}


class Misnaming(Mine):
    @staticmethod
    def training_defaults(config):
        return {"epohcs": 3}


class Unnamed(Mine):
    @staticmethod
    def training_defaults(config):
        return 3


class PlainConfig:
    weight: float = 0.5


class Undecorated(Method):
    def __init__(self, config: PlainConfig, train, backbone):
        super().__init__(train, backbone)


class WithoutConfig(Method):
    def __init__(self, train, backbone):
        super().__init__(train, backbone)


@settings
class WideConfig:
    width: int = 96
    max_length: int = 10

    def __call__(self, items):
        return GRU4Rec(GRU4RecConfig(width=self.width), items)


@settings
class Endless:
    width: int = 8

    def __call__(self, items):
        raise AssertionError("never called")


@settings
class Thin(Endless):
    width: int = 0
    max_length: int = 5


@settings
class Silent:
    width: int = 8
    max_length: int = 5


a_function = print
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of an importable module with a method and an encoder."""
    (tmp_path / "own_things.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_things"
    monkeypatch.delitem(sys.modules, "own_things", raising=False)


@settings
class HereConfig:
    """Settings of an encoder that stands in this file."""

    width: int = 8
    max_length: int = 5

    def __call__(self, items: ItemTable) -> GRU4Rec:
        return GRU4Rec(GRU4RecConfig(width=self.width), items)


def test_a_method_and_an_encoder_of_ones_own_are_found_by_their_import_path(own: str) -> None:
    values = {"method": {"name": f"{own}:Mine", "weight": 0.25}, "encoder": {"name": f"{own}:WideConfig"}}
    config = from_record(values, source="test")
    assert config.method.weight == 0.25
    assert (config.encoder.width, config.encoder.max_length) == (96, 10)
    assert from_record(config.record(), source="again") == config


def test_a_method_of_ones_own_says_what_its_training_has_where_nothing_else_is_said(own: str) -> None:
    method = {"name": f"{own}:Twice", "weight": 2.0}
    found = from_record({"method": method}, source="test").training
    assert (found.epochs, found.instances) == (8, "prefixes")
    found = from_record({"method": method, "training": {"epochs": 3}}, source="test").training
    assert (found.epochs, found.instances) == (3, "prefixes")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Misnaming", r"Misnaming': training_defaults: unknown key 'epohcs'; did you mean 'epochs'\?"),
        ("Unnamed", r"Unnamed': training_defaults: expected settings of the training by name, .* found 3$"),
    ],
)
def test_what_is_no_setting_of_the_training_is_refused_as_its_default(name: str, message: str, own: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_record({"method": {"name": f"{own}:{name}"}}, source="test")


@pytest.mark.parametrize(
    ("method", "training", "epochs"),
    [
        ({"name": "s3rec"}, {}, 200),
        ({"name": "s3rec", "pretrain": 40}, {}, 140),
        ({"name": "s3rec", "pretrain": 0}, {}, 100),
        ({"name": "s3rec", "pretrain": 40}, {"epochs": 40}, 40),
        ({"name": "dssrec"}, {}, 130),
        ({"name": "srma"}, {}, 100),
        ({"name": "srma", "complement": 20}, {}, 120),
        ({"name": "ecl_sr", "pretrain": 5}, {}, 105),
    ],
)
def test_a_method_has_the_usual_epochs_after_those_of_its_first_stage(
    method: dict[str, Any], training: dict[str, Any], epochs: int
) -> None:
    assert TrainingConfig().epochs == 100
    found = from_record({"method": method, "training": training}, source="test")
    assert found.training.epochs == epochs
    assert from_record(found.record(), source="again") == found


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Endless", "has no max_length; expected a whole number of at least 1, the most recent items of a history"),
        ("Thin", r"has width = 0; expected a whole number of at least 1, the width of the item table"),
        ("Silent", r"cannot be called; expected a method __call__\(self, items\)"),
    ],
)
def test_an_encoder_of_ones_own_that_lacks_what_all_have_is_refused(name: str, message: str, own: str) -> None:
    with pytest.raises(ValueError, match=f"^encoder '{own}:{name}': its settings class {message}"):
        from_record({"encoder": {"name": f"{own}:{name}"}}, source="test")


@pytest.mark.parametrize(
    ("method", "shown"),
    [
        ("next_item", "SASRec"),
        ("cl4srec", "CL4SRec (SASRec)"),
        ("nowhere.to.be.found:Mine", "Mine (SASRec)"),
        ("of_a_later_version", "of_a_later_version (SASRec)"),
    ],
)
def test_tables_call_a_model_by_its_method_and_its_encoder(method: str, shown: str) -> None:
    assert shown_name(method, "SASRec") == shown


def test_settings_of_ones_own_are_checked_like_ours(own: str) -> None:
    with pytest.raises(ValueError, match="unknown key 'weigh'; did you mean 'weight'"):
        from_record({"method": {"name": f"{own}:Mine", "weigh": 1.0}}, source="test")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{}:Absent", "cannot be imported: .*Absent"),
        ("{}:a_function", "is not a class"),
        ("{}:WithoutConfig", "expected a Method whose __init__ takes `config"),
        ("{}:Undecorated", "its settings class PlainConfig must be made with @conseq.config.settings"),
        ("nowhere_at_all:Mine", "cannot be imported: No module named 'nowhere_at_all'"),
    ],
)
def test_an_import_path_that_leads_to_no_method_is_refused(name: str, message: str, own: str) -> None:
    with pytest.raises(ValueError, match=message):
        method_class(name.format(own))


def test_every_known_method_has_its_own_settings_class() -> None:
    for name, (method, config) in METHODS.items():
        assert method_class(name) == (method, config)
        assert name_of(config()) == name


def test_settings_objects_are_named_as_files_name_them() -> None:
    assert [name_of(one()) for one in SPLITS.values()] == list(SPLITS)
    assert name_of(TrainingConfig()) is None
    assert name_of(HereConfig()) == f"{HereConfig.__module__}:HereConfig"
    with pytest.raises(TypeError, match="expected a name, a mapping or a settings object, found 3"):
        name_of(3)


def test_settings_of_a_method_of_ones_own_are_answered_with_what_to_write(own: str) -> None:
    module = importlib.import_module(own)
    with pytest.raises(TypeError, match=r'a MineConfig does not tell .*: \{"name": "own_things:Class", \.\.\.\}$'):
        name_of(module.MineConfig())


def test_a_class_in_the_place_of_settings_is_answered_with_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"found the class <class .*GRU4RecConfig'>; write GRU4RecConfig\(\.\.\.\)$"):
        name_of(GRU4RecConfig)
    with pytest.raises(TypeError, match=r'; write \{"name": "conseq\.methods\.method:Method", \.\.\.\}$'):
        name_of(Method)
    with pytest.raises(
        TypeError, match="expected a name, a mapping or a settings object, found <built-in function len>"
    ):
        name_of(len)


def test_a_value_that_an_argument_cannot_have_is_answered_with_those_it_can() -> None:
    one_of(("bar", "lines"), "bar", name="show")
    with pytest.raises(ValueError, match=r"^show: expected one of 'bar', 'lines', found 'baar'$"):
        one_of(("bar", "lines"), "baar", name="show")
    with pytest.raises(ValueError, match="found None"):
        one_of(("bar", "lines"), None, name="show")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.toml",
            'method = "cl4srec"\n',
            r"a\.toml: section 'method' must be a table, .*; write \[method\] and below it",
        ),
        ("a.json", '{"encoder": ["sasrec"]}', r"a\.json: section 'encoder' must be a table, found \['sasrec'\]$"),
        ("a.json", "[1]", r"a\.json: expected the tables method, encoder, split, training, found \[1\]"),
        ("a.json", json.dumps(list(range(99))), r"found a list$"),
        ("a.json", "null", r"found None"),
        ("a.json", "{", r"a\.json: not a readable experiment"),
    ],
)
def test_a_file_without_the_tables_of_an_experiment_is_refused(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_experiment(tmp_path / name)


def test_an_experiment_file_may_say_more_than_the_experiment(tmp_path: Path) -> None:
    toml = tmp_path / "one.toml"
    toml.write_text('[data]\nname = "beauty"\n[paper]\n"NDCG@10" = 0.04\n[training]\nepochs = 3\n')
    assert read_experiment(toml) == {"training": {"epochs": 3}}
    stored = tmp_path / "config.json"
    stored.write_text(json.dumps({"training": {"epochs": 3}, "data": {"users": 1}, "versions": {"torch": "2"}}))
    assert read_experiment(stored) == {"training": {"epochs": 3}}


def test_equal_experiments_have_equal_digests_and_others_do_not() -> None:
    plain, same = from_record({}, source="a"), from_record({"method": {"name": "next_item"}}, source="b")
    other = from_record({"training": {"seed": 1}}, source="c")
    assert plain.digest == same.digest != other.digest
    assert len(plain.digest) == 12


@pytest.mark.parametrize("windows", [True, False, "disjoint"])
def test_windows_are_recorded_as_they_were_written(windows: bool | str) -> None:
    config = from_record({"training": {"windows": windows}}, source="test")
    assert json.dumps(config.record()["training"]["windows"]) == json.dumps(windows)
    assert from_record(config.record(), source="again") == config


@pytest.mark.parametrize("windows", ["overlapping", 1])
def test_other_windows_are_refused(windows: object) -> None:
    with pytest.raises(ValueError, match=r"should be a valid boolean, found .* should be 'disjoint', found"):
        from_record({"training": {"windows": windows}}, source="test")


def test_a_config_without_a_name_is_next_item_with_sasrec_and_leave_one_out() -> None:
    record: dict[str, dict[str, Any]] = from_record({}, source="test").record()
    assert [record[section]["name"] for section in ("method", "encoder", "split")] == [
        "next_item",
        "sasrec",
        "leave_one_out",
    ]


def test_shares_beside_both_moments_are_refused() -> None:
    moments = {"validation_from": "2014-01-01", "test_from": 1.5e9}
    message = (
        r"split: shares=\(0.7, 0.9\) do nothing beside validation_from='2014-01-01' and test_from=1500000000.0; give"
    )
    with pytest.raises(ValueError, match=rf"a\.toml: {message}"):
        from_record({"split": {"name": "by_time", **moments, "shares": [0.7, 0.9]}}, source="a.toml")
    config = from_record({"split": {"name": "by_time", **moments}}, source="a.toml")
    assert from_record(config.record(), source="its record") == config
    with pytest.raises(ValueError, match=message):  # as the command line makes it, of options
        replace(config, split=replace(config.split, shares=(0.7, 0.9)))  # type: ignore[arg-type]
    assert from_record({"split": {"name": "by_time", "shares": [0.7, 0.9]}}, source="a.toml").split.name == "by_time"
