"""Runs that begin with a stored model's weights: what is taken over, what is refused, what the record says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import conseq
from conseq.cli.main import main
from conseq.data.log import InteractionLog
from conseq.data.synthetic import cycle_log, write_csv
from conseq.data.vocabulary import Vocabulary
from conseq.run import runner
from conseq.run.config import RunConfig, from_record
from conseq.run.starting import begin, started, weights_of
from conseq.serving.bundle import load_bundle
from conseq.training.trainer import Stopped, Trainer

ENCODER = {"name": "sasrec", "width": 8, "layers": 1, "heads": 1, "max_length": 6, "dropout": 0.0}
TRAINING = {"epochs": 8, "batch_size": 32, "patience": None, "metric": "NDCG@5", "learning_rate": 0.02}


def log(n_items: int = 12, users: int = 50) -> InteractionLog:
    """A log whose next item is certain."""
    rng = np.random.default_rng(3)
    items = ((rng.integers(n_items, size=(users, 1)) + np.arange(5)) % n_items + 1).astype(np.int32)
    ids = (
        Vocabulary([f"u{user}" for user in range(users)], start=0),
        Vocabulary([f"i{n}" for n in range(n_items)], start=1),
    )
    return InteractionLog(items.ravel(), np.arange(users + 1) * 5, None, *ids, {})


def renamed(one: InteractionLog, order: list[int], extra: int = 0) -> InteractionLog:
    """The same log under other item numbers, with items that nobody has met at the end."""
    number = np.concatenate([[0], np.argsort(order) + 1]).astype(np.int32)
    names = [f"i{item}" for item in order] + [f"new{item}" for item in range(extra)]
    return replace(one, items=number[one.items], item_ids=Vocabulary(names, start=1))


def config(encoder: dict[str, Any] | None = None, start: Path | None = None, **training: Any) -> RunConfig:
    tables: dict[str, Any] = {"encoder": encoder or ENCODER, "training": {**TRAINING, **training}}
    return from_record(tables if start is None else started(tables, start), source="test")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("stored") / "run"
    runner.run(config(), log(), folder=folder)
    return folder


def test_items_are_found_by_their_ids_and_new_ones_stay_random(stored: Path) -> None:
    order = list(np.random.default_rng(1).permutation(12))
    other = renamed(log(), order, extra=3)
    settings = config()
    method = runner.build(settings, settings.split.cut(other), torch.device("cpu"))
    before = {name: one.clone() for name, one in method.encoder.state_dict().items()}
    assert begin(method.encoder, settings.encoder, other.item_ids, stored) == 12
    old, new = load_bundle(stored / "bundle").encoder.state_dict(), method.encoder.state_dict()
    table, source = new["items.weight"], old["items.weight"]
    for row, item in enumerate(order):
        assert torch.equal(table[row + 1], source[item + 1])
    assert torch.equal(table[13:16], before["items.weight"][13:16])  # the new ones
    assert torch.equal(table[0], torch.zeros(8))
    assert torch.equal(table[-1], source[-1])  # the mask
    rest = [name for name in new if name != "items.weight"]
    assert all(torch.equal(new[name], old[name]) for name in rest)
    assert any(not torch.equal(new[name], before[name]) for name in rest)


def test_a_run_that_goes_on_with_a_stored_model_begins_as_good_as_that_was(stored: Path, tmp_path: Path) -> None:
    earlier = json.loads(next(stored.glob("evaluation-test-*-keep-*.json")).read_text())["metrics"]["HR@5"]
    still = runner.run(config(start=stored, epochs=1, learning_rate=1e-9), log(), start=stored, folder=tmp_path / "a")
    assert still.evaluations["keep"].metrics["HR@5"] == pytest.approx(earlier)
    scratch = runner.run(config(epochs=1, learning_rate=1e-9), log())
    assert scratch.evaluations["keep"].metrics["HR@5"] < earlier
    record = json.loads((tmp_path / "a" / "config.json").read_text())
    assert record["start"] == {"weights": weights_of(stored)}
    assert load_bundle(tmp_path / "a" / "bundle").provenance["start"] == {"weights": weights_of(stored)}


def test_a_start_is_another_experiment_and_none_has_the_record_it_always_had(stored: Path) -> None:
    assert "start" not in config().record()
    assert config(start=stored).digest != config().digest
    assert from_record(config(start=stored).record(), source="record") == config(start=stored)


def test_a_run_with_a_start_is_gone_on_with_bit_by_bit(stored: Path, tmp_path: Path) -> None:
    settings = config(start=stored, epochs=3)
    whole = runner.run(settings, log(), start=stored)

    with pytest.MonkeyPatch.context() as patch:
        fit = Trainer.fit

        def stop(self: Any) -> None:
            self.interrupted = True
            fit(self)

        patch.setattr(Trainer, "fit", stop)
        with pytest.raises(Stopped):
            runner.run(settings, log(), start=stored, folder=tmp_path / "run")
    resumed = runner.run(settings, log(), start=stored, folder=tmp_path / "run")
    for name, value in whole.encoder.state_dict().items():
        assert torch.equal(value, resumed.encoder.state_dict()[name])


def test_the_weights_must_be_those_that_the_experiment_names(stored: Path) -> None:
    with pytest.raises(ValueError, match=r"starts from the weights \w{12}…, and was given random weights; name the"):
        runner.run(config(start=stored), log())
    with pytest.raises(ValueError, match=r"starts from random weights, and was given the weights \w{12}…"):
        runner.run(config(), log(), start=stored)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ({"name": "gru4rec", "width": 8}, "holds an encoder 'sasrec', and the experiment's is 'gru4rec'"),
        ({**ENCODER, "heads": 2}, "its encoder has heads = 1, and the experiment's 2; only dropout may differ"),
        ({**ENCODER, "max_length": 9}, "its encoder has max_length = 6, and the experiment's 9"),
    ],
)
def test_another_encoder_is_refused(encoder: dict[str, Any], message: str, stored: Path) -> None:
    with pytest.raises(ValueError, match=message):
        runner.run(config(encoder, start=stored), log(), start=stored)


def test_another_dropout_is_not(stored: Path) -> None:
    settings = config({**ENCODER, "dropout": 0.4}, start=stored, epochs=1)
    assert runner.run(settings, log(), start=stored).config.encoder.dropout == 0.4  # type: ignore[attr-defined]


def test_a_log_of_other_items_is_refused(stored: Path) -> None:
    other = replace(log(), item_ids=Vocabulary([f"x{n}" for n in range(12)], start=1))
    with pytest.raises(ValueError, match=r"knows none of the log's 12 items, such as 'x0'; its own are called as 'i0'"):
        runner.run(config(start=stored), other, start=stored)


def test_what_is_no_bundle_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a bundle"):
        conseq.train("next_item", log(), start=tmp_path / "nothing", run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_section_of_the_start_that_nobody_wrote_is_refused() -> None:
    for table in ({"weights": 3}, {"path": "run"}, {}):
        with pytest.raises(
            ValueError, match="section 'start' holds the SHA-256 of weights alone, or the tables of an experiment"
        ):
            from_record({"start": table}, source="file")
    with pytest.raises(ValueError, match=r"section 'start' must be a table, found 'run'$"):
        from_record({"start": "run"}, source="file")


def test_in_python_the_encoder_is_the_stored_one_where_nothing_else_is_said(stored: Path) -> None:
    model = conseq.train("next_item", log(), start=stored, training={**TRAINING, "epochs": 1}, show="nothing")
    assert model.config.encoder == config().encoder
    wetter = conseq.train(
        "cl4srec", log(), start=stored, encoder={"dropout": 0.1}, training={"epochs": 1}, show="nothing"
    )
    assert wetter.config.encoder == replace(config().encoder, dropout=0.1)  # type: ignore[type-var]


def test_users_of_another_log_are_not_taken_over(tmp_path: Path) -> None:
    encoder = {"name": "matrix_factorization", "width": 4}
    own = conseq.train("bpr", log(), encoder=encoder, training={**TRAINING, "instances": "prefixes"}, run=tmp_path)
    assert own.epochs == 8
    fewer = log(users=20)
    training = {"epochs": 1, "instances": "prefixes", "learning_rate": 1e-9}
    other = conseq.train("bpr", fewer, start=tmp_path, training=training)
    vectors, users = other.scorer.state_dict()["items.weight"], other.scorer.state_dict()["users"]
    assert torch.allclose(vectors, own.scorer.state_dict()["items.weight"], atol=1e-6)
    assert users.shape == (20, 4)
    assert users.abs().max() < 0.1


def test_the_command_says_how_many_items_it_knows(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(cycle_log(n_users=40, n_items=12, length=6), tmp_path / "first.csv")
    write_csv(cycle_log(n_users=40, n_items=14, length=6), tmp_path / "second.csv")
    options = ["--epochs", "1", "--encoder.width", "8", "--encoder.layers", "1", "--encoder.heads", "1"]
    assert main(["train", "next_item", "first.csv", "--run", "a", *options]) == 0
    capsys.readouterr()
    assert main(["train", "duorec", "second.csv", "--run", "b", "--start", "a", "--epochs", "1"]) == 0
    assert "starting from a, which knows 12 of 14 items" in capsys.readouterr().err
    again = ["train", "duorec", "second.csv", "--run", "c", "--experiment", "b/config.json"]
    assert main(again) == 2
    assert "name the bundle or the run that has them as start" in capsys.readouterr().err
    assert main([*again, "--start", str(stored)]) == 2
    assert main([*again, "--start", "a/bundle"]) == 0
