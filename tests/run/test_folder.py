"""A run's folder is of one process at a time, and a killed process does not stand in the way of the next."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conseq.data.locks import LOCK, locked
from conseq.data.synthetic import cycle_log
from conseq.run import runner
from conseq.run.config import RunConfig, from_record
from conseq.run.folder import claimed, read_config
from conseq.training.records import read_metrics

fcntl = pytest.importorskip("fcntl")
LOG = cycle_log(n_users=30, n_items=12, length=6)
HOLDER = """
import fcntl, os, sys, time
with open(sys.argv[1], "a+") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    file.truncate(0)
    print(os.getpid(), file=file, flush=True)
    print("held", flush=True)
    time.sleep(300)
"""


def config() -> RunConfig:
    encoder = {"width": 8, "layers": 1, "heads": 1, "max_length": 6}
    return from_record({"encoder": encoder, "training": {"epochs": 2, "metric": "NDCG@5"}}, source="test")


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the folder until it is killed."""
    command = [sys.executable, "-c", HOLDER, str(folder / LOCK)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "held\n"
            yield child
        finally:
            child.kill()


def test_a_second_process_is_refused_and_a_killed_one_is_not_in_the_way(tmp_path: Path) -> None:
    with another_process(tmp_path) as child:
        with pytest.raises(BlockingIOError, match=f"process {child.pid} is at work in this folder; wait until it ends"):
            runner.run(config(), LOG, folder=tmp_path)
        assert [one.name for one in tmp_path.iterdir()] == [LOCK]
        child.kill()
        child.wait()
    runner.run(config(), LOG, folder=tmp_path)
    assert [one["epoch"] for one in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]


def test_a_finished_run_is_held_while_it_is_judged_again(tmp_path: Path) -> None:
    runner.run(config(), LOG, folder=tmp_path)
    with another_process(tmp_path), pytest.raises(BlockingIOError, match="is at work in this folder"):
        runner.run(config(), LOG, folder=tmp_path)


def test_a_folder_is_held_against_the_same_process_and_let_go_after_an_error(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(BlockingIOError), locked(tmp_path):
        raise AssertionError("held twice")
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):
        pass


def test_what_a_process_left_that_was_killed_before_its_configuration_was_written_is_no_other_run(
    tmp_path: Path,
) -> None:
    for name in (LOCK, ".config.json.0badcafe.partial"):
        (tmp_path / name).touch()
    runner.run(config(), LOG, folder=tmp_path)
    assert (tmp_path / "bundle").is_dir()


def test_where_a_file_system_has_no_locks_a_run_goes_on_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without)
    with locked(tmp_path), locked(tmp_path):
        assert (tmp_path / LOCK).exists()


def test_a_table_that_the_settings_name_is_part_of_the_run(tmp_path: Path) -> None:
    items = tmp_path / "items.csv"
    items.write_text("item_id,attribute\n1,red\n")
    method = {"name": "s3rec", "attributes": str(items), "pretrain": 1}
    one = from_record({"method": method, "training": {"not_before": 2}}, source="test")
    with claimed(tmp_path / "run", one, {"hash": "feed"}):
        pass
    with claimed(tmp_path / "run", one, {"hash": "feed"}):
        told = read_config(tmp_path / "run")["data"]
    assert told == {"hash": "feed", "files": {"attributes": hashlib.sha256(items.read_bytes()).hexdigest()}}
    items.write_text("item_id,attribute\n1,blue\n")
    (tmp_path / "run" / "checkpoint.pt").touch()  # something was trained with them
    other = pytest.raises(ValueError, match=r"another run; it differs in data\.files\.attributes")
    with other, claimed(tmp_path / "run", one, {"hash": "feed"}):
        pass


def test_going_on_with_another_device_is_said_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for gpu in ("A GPU", "A GPU", ""):
        with claimed(tmp_path / "run", config(), {"hash": "feed"}, gpu=gpu):
            told = read_config(tmp_path / "run")["code"]
            (tmp_path / "run" / "checkpoint.pt").touch()
    assert [one["device"] for one in told] == ["A GPU", "cpu"]
    assert [one["machine"].endswith(", A GPU") for one in told] == [True, False]
    said = capsys.readouterr().err
    assert said.count("note: this run computed on A GPU so far and goes on on cpu, which rounds otherwise") == 1


def test_of_a_run_that_left_nothing_to_go_on_from_the_code_that_begins_anew_is_told_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for code in ("aaaa", "bbbb", "cccc"):
        monkeypatch.setattr("conseq.run.folder.code_hash", lambda _, code=code: code)
        with claimed(tmp_path / "run", config(), {"hash": "feed"}):
            told = read_config(tmp_path / "run")["code"]
        if code == "bbbb":
            assert [one["hash"] for one in told] == ["bbbb"]
            (tmp_path / "run" / "checkpoint.pt").touch()
    assert [one["hash"] for one in told] == ["bbbb", "cccc"]


def test_a_run_that_its_first_batch_refused_may_be_given_with_other_settings(tmp_path: Path) -> None:
    def config(instances: str, **training: Any) -> RunConfig:
        values = {
            "encoder": {"name": "caser", "width": 8},
            "training": {"instances": instances, "epochs": 1, "metric": "NDCG@5", **training},
        }
        return from_record(values, source="test")

    log = LOG
    with pytest.raises(runner.SettingsError, match="Caser has no token states; train it with instances 'prefixes'"):
        runner.run(config("whole"), log, folder=tmp_path / "run")
    runner.run(config("prefixes"), log, folder=tmp_path / "run")
    assert read_config(tmp_path / "run")["training"]["instances"] == "prefixes"
    with pytest.raises(ValueError, match=r"holds another run; it differs in training\.batch_size"):
        runner.run(config("prefixes", batch_size=7), log, folder=tmp_path / "run")


def test_what_differs_is_told_with_both_values_and_of_another_method_its_name_alone(tmp_path: Path) -> None:
    def claim(method: dict[str, Any], epochs: int) -> None:
        one = from_record({"method": method, "training": {"epochs": epochs}}, source="test")
        with claimed(tmp_path / "run", one, {"hash": "feed"}):
            (tmp_path / "run" / "checkpoint.pt").touch()

    claim({"name": "next_item"}, 2)
    with pytest.raises(ValueError, match=r"it differs in training\.epochs \(2 there, 3 here\)\. Choose"):
        claim({"name": "next_item"}, 3)
    with pytest.raises(ValueError, match=r"it differs in method\.name \('next_item' there, 'cl4srec' here\)\. Choose"):
        claim({"name": "cl4srec"}, 2)
