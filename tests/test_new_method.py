"""The method of the guide, trained from the command line by its import path."""

from __future__ import annotations

import ast
import csv
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from conseq.data.sequences import Sequences
from conseq.data.train_set import TrainSet
from conseq.encoders.sasrec import SASRecConfig
from conseq.run.config import from_record
from conseq.training.config import TrainingConfig
from conseq.training.trainer import Stopped, Trainer

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "guides" / "new-method.md"


def code() -> str:
    """The file that the guide shows."""
    found = re.search(r'^```python title="my_method.py"\n(.*?)^```$', GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def write_log(path: Path) -> None:
    """Six kinds of items; a user goes through one of them in its order."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["user_id", "item_id", "timestamp"])
        for user in range(120):
            kind, place = user % 6, user // 6
            for step in range(6 + user % 5):
                rows.writerow([f"u{user}", f"k{kind}-{(place + step) % 10}", step])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the log and the file, of which the process knows nothing yet."""
    (tmp_path / "my_method.py").write_text(code())
    write_log(tmp_path / "events.csv")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_method", raising=False)
    return tmp_path


@pytest.fixture
def module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("faiss")
    monkeypatch.syspath_prepend(folder)
    return importlib.import_module("my_method")


def run(*command: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1"} | ({} if path is None else {"PYTHONPATH": path})
    conseq = str(Path(sys.executable).parent / "conseq")
    return subprocess.run([conseq, *command], env=environment, capture_output=True, text=True, check=False, timeout=300)


def test_the_method_of_the_guide_is_one_file_of_at_most_60_lines() -> None:
    assert len(code().splitlines()) <= 60
    tree = ast.parse(code())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {one for one in imported if one is not None and one.startswith("conseq.methods")} == {
        "conseq.methods.method"
    }


@pytest.mark.slow
def test_a_method_outside_the_package_trains_from_the_command_line_and_is_served_without_its_file(folder: Path) -> None:
    pytest.importorskip("faiss")
    options = ("--epochs", "10", "--batch-size", "32", "--learning-rate", "0.01", "--encoder.dropout", "0.1", "--quiet")
    done = run(
        "train", "my_method:MyMethod", "events.csv", "--run", "run", "--contrast", "0.2", *options, "--json", path="."
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["method"] == {"name": "my_method:MyMethod", "contrast": 0.2, "crop": 0.6, "intents": 6}
    epochs = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert set(epochs[0]["terms"]) == {"next_item", "contrast"}
    hits = [one["metrics"]["HR@5"] for one in record["evaluations"] if one["protocol"]["history"] == "exclude"]
    assert hits == [pytest.approx(1, abs=0.4)]  # by popularity, one in twelve

    (folder / "my_method.py").unlink()
    served = run("recommend", "run/bundle", "--history", "k1-3 k1-4 k1-5", "-k", "1", "--json")
    assert served.returncode == 0, served.stderr
    (best,) = json.loads(served.stdout)["recommendations"]
    assert best["item_id"].startswith("k1-")


def test_a_misspelt_setting_of_the_users_own_is_refused_by_name(module: ModuleType) -> None:
    with pytest.raises(ValueError, match="did you mean 'intents'"):
        from_record({"method": {"name": f"{module.__name__}:MyMethod", "intent": 3}}, source="mine.toml")


def test_a_run_stopped_inside_an_epoch_is_resumed_to_the_same_weights(module: ModuleType, tmp_path: Path) -> None:
    lists = [[(user + step) % 12 + 1 for step in range(3 + user % 3)] for user in range(60)]
    train = TrainSet(Sequences.from_lists(lists), torch.arange(60), 12, instances="prefixes", max_length=8)
    config = TrainingConfig(epochs=2, batch_size=50, patience=None)

    def trainer(checkpoints: Path | None) -> Trainer:
        torch.manual_seed(0)
        method = module.MyMethod(module.MyConfig(), train, SASRecConfig(width=8, layers=1, max_length=8))
        return Trainer(method, config, lambda encoder: {"NDCG@20": 0.0}, folder=checkpoints)

    whole = trainer(None)
    whole.fit()
    stopped = trainer(tmp_path / "run")
    stopped.interrupted = True
    with pytest.raises(Stopped):
        stopped.fit()
    resumed = trainer(tmp_path / "run")
    assert resumed.resume()
    resumed.fit()
    for ours, theirs in zip(resumed.method.parameters(), whole.method.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_users_of_one_intent_are_not_pushed_apart(module: ModuleType) -> None:
    torch.manual_seed(0)
    train = TrainSet(
        Sequences.from_lists([[1, 2, 3], [4, 5, 6]]), torch.arange(2), 6, instances="prefixes", max_length=8
    )
    method = module.MyMethod(module.MyConfig(intents=2), train, SASRecConfig(width=8, layers=1, max_length=8))
    batch = train.batch(torch.arange(len(train)))
    method.clusters.ids.zero_()  # one intent for all: no negatives are left
    assert method.loss(batch, torch.Generator().manual_seed(0))["contrast"].item() == 0
    method.clusters.ids.copy_(torch.arange(len(train)) % 2)
    assert method.loss(batch, torch.Generator().manual_seed(0))["contrast"].item() > 0
