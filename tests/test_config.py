from __future__ import annotations

import dataclasses
import datetime as dt
import json
import math
from typing import Annotated, Literal

import numpy as np
import pytest
from pydantic import Field

from conseq.config import Later, parse, settings, to_json


@settings
class Inner:
    """Settings inside settings."""

    temperature: float = 1.0
    kind: Literal["dot", "cosine"] = "dot"


@settings
class Outer:
    """Settings with every sort of field."""

    epochs: Annotated[int, Field(ge=1)]
    contrast: float = 0.1
    shuffle: bool = True
    name: str = "run"
    cuts: tuple[int, ...] = (5, 10)
    limit: int | None = None
    inner: Inner = dataclasses.field(default_factory=Inner)
    other: Inner | None = None
    many: tuple[Inner, ...] = ()


def refused(values: dict[str, object]) -> str:
    """Gives the message with which ``values`` are refused."""
    with pytest.raises(ValueError, match=r"^experiment\.toml: ") as caught:
        parse(Outer, values, source="experiment.toml")
    return str(caught.value)


def test_right_values_are_taken_and_the_rest_defaulted() -> None:
    found = parse(Outer, {"epochs": 3, "inner": {"temperature": 0.5}}, source="x")
    assert found == Outer(epochs=3, inner=Inner(temperature=0.5))
    assert (found.contrast, found.cuts, found.inner.kind) == (0.1, (5, 10), "dot")


def test_a_misspelt_key_is_named_with_the_nearest_right_one() -> None:
    assert (
        refused({"epochs": 3, "contrasts": 0.2}) == "experiment.toml: unknown key 'contrasts'; did you mean 'contrast'?"
    )


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"inner": {"temperatures": 1.0}}, "inner.temperatures"),
        ({"other": {"temperatures": 1.0}}, "other.temperatures"),
        ({"many": [{}, {"temperatures": 1.0}]}, "many.1.temperatures"),
    ],
)
def test_a_misspelt_key_is_named_wherever_it_is_nested(values: dict[str, object], key: str) -> None:
    assert f"unknown key '{key}'; did you mean 'temperature'?" in refused({"epochs": 3, **values})


def test_a_key_like_no_other_is_answered_with_the_known_keys() -> None:
    message = refused({"epochs": 3, "inner": {"zzz": 1}})
    assert message == "experiment.toml: unknown key 'inner.zzz'; known keys: kind, temperature"


def test_a_missing_key_is_named() -> None:
    assert refused({}) == "experiment.toml: missing key 'epochs'"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", "3"),
        ("epochs", 3.5),
        ("epochs", True),
        ("epochs", None),
        ("epochs", 0),
        ("contrast", "0.1"),
        ("contrast", False),
        ("contrast", math.nan),
        ("contrast", math.inf),
        ("shuffle", 1),
        ("shuffle", "yes"),
        ("name", 7),
        ("cuts", 5),
        ("inner", 1),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_named_and_shown(key: str, value: object) -> None:
    message = refused({"epochs": 3, key: value})
    assert message.startswith(f"experiment.toml: key '{key}': Input should be ")
    assert message.endswith(f", found {value!r}")


def test_a_wrong_value_inside_is_named_by_its_path() -> None:
    assert "key 'cuts.1': Input should be a valid integer, found '10'" in refused({"epochs": 3, "cuts": [5, "10"]})
    assert "key 'inner.kind': Input should be 'dot' or 'cosine'" in refused({"epochs": 3, "inner": {"kind": "l2"}})


def test_every_problem_is_named_at_once() -> None:
    message = refused({"contrasts": 1, "shuffle": 1})
    assert all(part in message for part in ("'contrasts'", "'shuffle'", "missing key 'epochs'"))


def test_a_list_is_taken_for_a_tuple_and_a_whole_number_for_a_float() -> None:
    found = parse(Outer, {"epochs": 3, "cuts": [1, 2, 3], "contrast": 2}, source="x")
    assert found.cuts == (1, 2, 3)
    assert found.contrast == 2.0
    assert type(found.contrast) is float


def test_a_value_that_no_setting_can_hold_is_refused() -> None:
    message = refused({"epochs": 3, "name": dt.date(2014, 7, 1)})
    assert message.startswith("experiment.toml: key 'name': Object of type date cannot be a setting; a setting is a ")
    assert message.endswith("found datetime.date(2014, 7, 1)")


def test_numbers_of_numpy_are_taken_for_pythons() -> None:
    values = {"epochs": np.int64(3), "contrast": np.float32(0.5), "cuts": [np.int32(1)], "shuffle": np.bool_(False)}
    found = parse(Outer, values, source="x")
    assert found == Outer(epochs=3, contrast=0.5, cuts=(1,), shuffle=False)
    assert type(found.epochs) is int
    made = Outer(epochs=np.int64(3), contrast=np.float64(0.5))  # type: ignore[arg-type]
    assert made == Outer(epochs=3, contrast=0.5)
    assert type(made.epochs) is int
    assert "key 'epochs'" in refused({"epochs": np.float64(1.5)})
    assert "key 'contrast'" in refused({"epochs": 3, "contrast": np.arange(3)})


def test_settings_come_back_from_json() -> None:
    one = Outer(epochs=3, cuts=(1,), limit=4, inner=Inner(kind="cosine"), other=Inner(), many=(Inner(), Inner()))
    text = json.dumps(to_json(one))
    assert parse(Outer, json.loads(text), source="x") == one
    assert to_json(one)["cuts"] == [1]


@settings
class Grown:
    """Settings that got two more when there were records of them."""

    share: float = 0.5
    ends: Annotated[bool, Later()] = False
    kind: Annotated[Literal["none", "data"], Later(), Field(description="a kind")] = "none"


def test_a_later_setting_at_its_default_is_not_told_and_another_value_is() -> None:
    assert to_json(Grown()) == to_json(Grown(kind="none", ends=False)) == {"share": 0.5}
    assert to_json(Grown(kind="data")) == {"share": 0.5, "kind": "data"}
    for one in (Grown(), Grown(ends=True), Grown(ends=True, kind="data")):
        assert parse(Grown, to_json(one), source="x") == one


def test_settings_are_frozen() -> None:
    one = Outer(epochs=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.epochs = 4  # type: ignore[misc]


def test_settings_built_in_python_are_as_strict() -> None:
    with pytest.raises(ValueError, match=r"^Outer: unknown key 'contrasts'; did you mean 'contrast'\?$"):
        Outer(epochs=3, contrasts=0.2)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"^Outer: key 'epochs': Input should be a valid integer, found '3'$"):
        Outer(epochs="3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="missing key 'epochs'; found 3 without a key; write key=value"):
        Outer(3)  # type: ignore[call-arg]


def test_settings_are_values() -> None:
    assert Outer(epochs=3) == Outer(epochs=3)
    assert hash(Outer(epochs=3)) == hash(Outer(epochs=3))
    assert Outer(epochs=3) != Outer(epochs=4)
    assert repr(Inner()) == "Inner(temperature=1.0, kind='dot')"
