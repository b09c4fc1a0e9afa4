"""The model so far of a run that is not finished."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conseq.cli.main import main
from conseq.data.log import InteractionLog
from conseq.data.readers import read
from conseq.data.synthetic import cycle_log, write_csv
from conseq.methods.method import Method
from conseq.run import runner
from conseq.run.config import RunConfig, from_record
from conseq.run.snapshot import snapshot
from conseq.serving.bundle import load_bundle
from conseq.training.trainer import Stopped, Trainer

ENCODER = {"name": "sasrec", "width": 8, "layers": 1, "heads": 1, "max_length": 6}
TRAINING = {"epochs": 6, "batch_size": 16, "patience": None, "metric": "NDCG@5", "learning_rate": 0.02}


@pytest.fixture
def log(tmp_path: Path) -> InteractionLog:
    write_csv(cycle_log(n_users=40, n_items=12, length=6), tmp_path / "events.csv")
    return read(tmp_path / "events.csv")


def config(method: str = "next_item", **training: Any) -> RunConfig:
    tables = {"method": {"name": method}, "encoder": ENCODER, "training": {**TRAINING, **training}}
    return from_record(tables, source="test")


def stop_after(epochs: int, patch: pytest.MonkeyPatch) -> None:
    """Makes trainings stop as Ctrl-C in the first batch of the next epoch does."""
    close = Trainer._close_epoch

    def ask(self: Trainer, n_batches: int) -> None:
        close(self, n_batches)
        self.interrupted = self.epoch > epochs

    patch.setattr(Trainer, "_close_epoch", ask)


def stopped(folder: Path, log: InteractionLog, of: RunConfig, *, epochs: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_after(epochs, patch)
        with pytest.raises(Stopped):
            runner.run(of, log, folder=folder)


def files(folder: Path) -> dict[str, str]:
    return {
        str(one.relative_to(folder)): hashlib.sha256(one.read_bytes()).hexdigest()
        for one in folder.rglob("*")
        if one.is_file()
    }


@pytest.mark.parametrize("method", ["next_item", "iclrec", "mclrec"])
def test_a_snapshot_is_the_model_of_a_run_of_as_many_epochs(method: str, log: InteractionLog, tmp_path: Path) -> None:
    stopped(tmp_path / "run", log, config(method), epochs=3)
    before = files(tmp_path / "run")
    state = torch.random.get_rng_state()
    found = snapshot(tmp_path / "run", log, tmp_path / "so-far")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert files(tmp_path / "run") == before

    short = runner.run(config(method, epochs=3), log)
    assert (found.best_epoch, found.epochs, found.metric) == (short.best_epoch, 3, "NDCG@5")
    bundle = load_bundle(tmp_path / "so-far")
    for name, value in short.encoder.state_dict().items():
        assert torch.equal(value, bundle.encoder.state_dict()[name]), name
    assert bundle.provenance["unfinished"] == {"epochs": 3, "of": 6}
    assert bundle.provenance["best_epoch"] == short.best_epoch
    assert bundle.provenance["metrics"] == {}  # the test part was left alone
    assert bundle.counts is not None
    assert np.array_equal(bundle.counts, np.bincount(log.items, minlength=13)[1:])
    line = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[found.best_epoch - 1])
    assert found.value == line["metrics"]["NDCG@5"]


def test_the_run_goes_on_as_if_no_snapshot_had_been_taken(log: InteractionLog, tmp_path: Path) -> None:
    whole = runner.run(config(), log)
    stopped(tmp_path / "run", log, config(), epochs=2)
    snapshot(tmp_path / "run", log, tmp_path / "so-far")
    resumed = runner.run(config(), log, folder=tmp_path / "run")
    for name, value in whole.encoder.state_dict().items():
        assert torch.equal(value, resumed.encoder.state_dict()[name]), name


def test_a_snapshot_replaces_an_earlier_one_and_nothing_else(log: InteractionLog, tmp_path: Path) -> None:
    stopped(tmp_path / "run", log, config(), epochs=1)
    snapshot(tmp_path / "run", log, tmp_path / "so-far")
    stopped(tmp_path / "run", log, config(), epochs=3)
    assert snapshot(tmp_path / "run", log, tmp_path / "so-far").epochs == 3
    assert load_bundle(tmp_path / "so-far").provenance["unfinished"]["epochs"] == 3
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(FileExistsError):
        snapshot(tmp_path / "run", log, tmp_path / "mine")
    assert (tmp_path / "mine/notes.txt").read_text() == "mine"


@pytest.mark.parametrize("place", ["run", "run/bundle", "run/so/far"])
def test_nothing_is_written_into_the_run(place: str, log: InteractionLog, tmp_path: Path) -> None:
    stopped(tmp_path / "run", log, config(), epochs=1)
    before = files(tmp_path / "run")
    with pytest.raises(ValueError, match="is inside the run's own folder"):
        snapshot(tmp_path / "run", log, tmp_path / place)
    assert files(tmp_path / "run") == before


def test_what_has_no_model_yet_is_refused(log: InteractionLog, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none is not the folder of a run: there is no config\.json"):
        snapshot(tmp_path / "none", log, tmp_path / "out")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Method, "begin_epoch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            runner.run(config(), log, folder=tmp_path / "begun")
    with pytest.raises(FileNotFoundError, match=r"begun has saved nothing yet"):
        snapshot(tmp_path / "begun", log, tmp_path / "out")

    stopped(tmp_path / "early", log, config(every=3), epochs=2)
    with pytest.raises(ValueError, match=r"early: no epoch that counts was validated yet \(2 of 6 are over\)"):
        snapshot(tmp_path / "early", log, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_first_stage_of_two_is_no_model(log: InteractionLog, tmp_path: Path) -> None:
    tables = {"method": {"name": "s3rec", "pretrain": 4}, "encoder": ENCODER, "training": TRAINING}
    stopped(tmp_path / "begun", log, from_record(tables, source="test"), epochs=2)
    with pytest.raises(ValueError, match=r"the first stage of S3Rec goes on until epoch 4, .* \(2 are over\)"):
        snapshot(tmp_path / "begun", log, tmp_path / "out")
    stopped(tmp_path / "run", log, from_record(tables, source="test"), epochs=4)
    with pytest.raises(ValueError, match=r"no epoch that counts was validated yet \(4 of 6 are over\)"):
        snapshot(tmp_path / "run", log, tmp_path / "out")


def test_another_log_and_a_finished_run_are_refused(log: InteractionLog, tmp_path: Path) -> None:
    stopped(tmp_path / "run", log, config(epochs=2), epochs=1)
    write_csv(cycle_log(n_users=30, n_items=12, length=6), tmp_path / "other.csv")
    with pytest.raises(ValueError, match=r"is trained on another log: its hash there is \w{12}…, that of the log"):
        snapshot(tmp_path / "run", read(tmp_path / "other.csv"), tmp_path / "out")
    runner.run(config(epochs=2), log, folder=tmp_path / "run")
    with pytest.raises(ValueError, match=r"is finished; its bundle is .*run/bundle$"):
        snapshot(tmp_path / "run", log, tmp_path / "out")


def test_the_command_says_which_epoch_it_wrote(
    log: InteractionLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped(tmp_path / "run", log, config(), epochs=2)
    names = [str(tmp_path / one) for one in ("run", "events.csv", "so-far")]
    assert main(["snapshot", *names]) == 0
    said = capsys.readouterr().out
    assert main(["snapshot", *names, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    value = f"NDCG@5 {told['value']:.4f} on validation"
    assert said == f"epoch {told['best_epoch']}, the best of 2 so far ({value}): {tmp_path / 'so-far'}\n"
    assert told["bundle"] == str(tmp_path / "so-far")
    assert main(["recommend", names[2], "--history", "i1 i2", "-k", "3", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["recommendations"][0]) == 3
    # A run that is not finished has no bundle of its own, and the error tells of the command.
    assert main(["recommend", names[0], "--history", "i1"]) == 2
    assert "or take the best epoch so far (`conseq snapshot`)" in capsys.readouterr().err
