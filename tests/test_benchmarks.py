"""The benchmarks' own instruments: a wrong meter would make every figure wrong."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from conseq.data.readers import read
from conseq.methods import METHODS

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def _run(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARKS / "measure.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    record: dict[str, Any] = json.loads(done.stdout)
    return record


def _python(code: str) -> str:
    return f"{sys.executable} -c '{code}'"


def test_a_sleep_costs_wall_seconds_and_hardly_any_cpu_seconds() -> None:
    usage = _run(_python("import time; time.sleep(0.5)"))["median"]["a"]
    assert usage["wall_s"] >= 0.5
    assert usage["cpu_s"] < 0.4


def test_the_cpu_seconds_and_memory_of_a_grandchild_count() -> None:
    wait = "[0 for _ in iter(lambda: time.process_time() < 0.6, False)]"
    inner = f"import time; x = bytearray(200 * 2**20); {wait}"
    code = f'import subprocess, sys; subprocess.run([sys.executable, "-c", "{inner}"], check=True)'
    usage = _run(_python(code))["median"]["a"]
    assert usage["cpu_s"] >= 0.6
    assert usage["peak_mib"] >= 200


def test_a_command_gets_the_threads_it_was_measured_with() -> None:
    report = 'import json, os; print("words"); print(json.dumps({"omp": int(os.environ["OMP_NUM_THREADS"])}))'
    record = _run("--threads", "3", _python(report))
    assert record["threads"] == 3
    assert record["median"]["a"]["omp"] == 3


def test_two_commands_alternate_and_are_compared_by_their_medians(tmp_path: Path) -> None:
    order = tmp_path / "order"
    a = _python(f'print(open("{order}", "a").write("a") and "{{\\"n\\": 2}}")')
    b = _python(f'print(open("{order}", "a").write("b") and "{{\\"n\\": 5}}")')
    record = _run("--rounds", "2", a, b)
    assert order.read_text() == "abab"
    assert record["b_over_a"]["n"] == 2.5
    assert len(record["runs"]["b"]) == 2


def test_a_failing_command_stops_the_measurement() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        _run(_python("raise SystemExit(3)"))


def _module(name: str) -> Any:
    """Gives a module of the benchmarks, which are no package: they import one another by their names."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_every_method_with_experiments_is_measured_with_a_file_that_exists() -> None:
    cases = _module("methods").cases("beauty")
    assert {one.method for one in cases} == set(METHODS) - {"next_item"}
    assert all(one.path.exists() for one in cases)
    assert {one.path.name for one in cases if one.method == "cl4srec"} == {"beauty.released.toml"}
    assert {one.path.name for one in cases if one.method == "ecl_sr"} == {"toys.released.toml"}


@pytest.mark.parametrize(
    ("name", "enclosing", "kind"),
    [
        ("aten::addmm", [], "matrix product"),
        ("aten::add_", [], "elementwise"),
        ("aten::mm", ["_FullSoftmax", "a step"], "softmax: products"),
        ("aten::exp2_", ["_FullSoftmax", "a step"], "softmax: the rest"),
        ("aten::mm", ["fill_in", "a step"], "softmax: products"),
        ("aten::random_", ["dropout's mask"], "dropout"),
        ("aten::embedding_dense_backward", [], "indexing"),
        ("aten::_softmax", [], "elementwise"),
        ("aten::_embedding_bag", [], "sparse product"),
        ("aten::mul_", ["Optimizer.step#Adam.step"], "optimizer"),
        ("AddmmBackward0", [], "between operators"),
        ("aten::rand", [], "other operators"),
    ],
)
def test_an_operator_of_a_step_is_of_one_kind(name: str, enclosing: list[str], kind: str) -> None:
    assert _module("methods_profile").kind_of(name, enclosing) == kind


@pytest.mark.slow
def test_a_method_is_measured_beside_sasrec_without_any_log_at_hand() -> None:
    options = ["--data", "synthetic", "--only", "cl4srec", "--one-thread", "--batches", "1", "--rounds", "1"]
    command = [sys.executable, str(BENCHMARKS / "methods.py"), *options, "--profile", "1"]
    record = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    (row,) = record["rows"]
    assert row["CPU s"] > row["SASRec's"] > 0
    assert row["peak MiB"] > row["before MiB"] > 0
    (step,) = record["a step"]
    assert sum(share for name, share in step.items() if name) == pytest.approx(100, abs=1)


@pytest.mark.slow
def test_the_cost_of_a_batch_is_measured_for_every_loss() -> None:
    command = [sys.executable, str(BENCHMARKS / "catalogue.py"), "--items", "500", "--batches", "1"]
    rows = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["rows"]
    losses = ["cross_entropy", "sampled_softmax", "binary_cross_entropy"]
    assert [(row["items"], row["loss"]) for row in rows] == [(500, loss) for loss in losses]
    assert [row["sampled"] for row in rows] == ["", 256, 1]
    assert all(row["CPU ms a batch"] > 0 and row["peak MiB"] > row["item table MiB"] for row in rows)


def test_popularity_is_judged_on_the_test_items_of_another_order_of_equal_times() -> None:
    tie_order = _module("tie_order")
    # Everybody ends on a day with item 1, which all have met, and an item of their own; by raw id that comes last.
    items = np.array([[1, 2, 3, 1, 4 + user] for user in range(40)], dtype=np.int32)
    times = np.tile(np.array([1, 2, 3, 4, 4]), 40)
    users = np.repeat([f"u{n}" for n in range(40)], 5)
    table = pl.DataFrame({"user": users, "item": [f"i{n}" for n in items.ravel()], "time": times})
    log, other = read(table), read(table, ties="random", tie_seed=3)
    last_is_1 = np.mean([other.item_ids.decode(other.items[end - 1 : end]) == ["i1"] for end in other.offsets[1:]])
    assert 0.2 < last_is_1 < 0.8
    assert tie_order.popularity(log, "keep")["HR@10"] == 0.0
    assert tie_order.popularity(other, "keep")["HR@10"] == pytest.approx(last_is_1)
    found = tie_order.measure(table, 3, "keep")
    assert found["last item at the time of the one before it"] == 1.0
    assert found["standard deviation"]["HR@10"] > 0
    with pytest.raises(ValueError, match="has no times"):
        tie_order.measure(table.drop("time"), 2, "keep")
