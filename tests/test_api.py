"""The short way, as a user types it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import conseq
from conseq import api
from conseq.data.synthetic import cycle_log
from conseq.run.config import OWN_ENCODERS, read_experiment

ENCODER = {"name": "sasrec", "width": 16, "layers": 1, "heads": 1, "max_length": 6, "dropout": 0.1}
TRAINING = {"epochs": 12, "batch_size": 64, "learning_rate": 0.01, "metric": "HR@5", "patience": None}


@pytest.fixture(scope="module")
def model() -> conseq.Model:
    log = cycle_log(n_users=120, n_items=12, length=6)
    return conseq.train("next_item", log, encoder=ENCODER, training=TRAINING, show="nothing")


def test_a_csv_becomes_recommendations_in_a_few_lines(tmp_path: Path) -> None:
    rows = [(user, (user + step) % 9, step) for user in range(40) for step in range(5)]
    path = tmp_path / "events.csv"
    path.write_text("user,item,timestamp\n" + "".join(f"u{u},{i:03d},{t}\n" for u, i, t in rows))
    log = conseq.read(path)
    model = conseq.train("next_item", log, encoder=ENCODER, training={"epochs": 1}, show="nothing")
    ids, scores = model.recommend([["000", "001"]], k=3)
    assert ids.shape == scores.shape == (1, 3)
    assert not {"000", "001"} & set(ids[0])
    assert all(len(one) == 3 for one in ids[0])  # leading zeros come back as they went in
    model.save(tmp_path / "bundle")
    again, _ = conseq.Recommender.load(tmp_path / "bundle").recommend([["000", "001"]], k=3)
    assert np.array_equal(ids, again)


def test_the_certain_next_item_is_recommended_first(model: conseq.Model) -> None:
    log = cycle_log(n_users=120, n_items=12, length=6)
    names = log.item_ids.decode(log.items[:6])
    ids, _ = model.recommend(names[:3], k=1)
    assert ids[0] == names[3]


def test_a_model_is_judged_under_a_named_protocol(model: conseq.Model) -> None:
    keep = model.evaluate(history="keep")
    assert keep.metrics == model.evaluations["keep"].metrics
    assert keep.protocol == conseq.Protocol(split="test", slicing="leave_one_out", history="keep", ties="pessimistic")
    assert model.evaluate(history="exclude", split="validation").protocol.split == "validation"
    assert keep.metrics["HR@5"] > keep.floors["popularity"]["HR@5"]


def test_a_model_tells_what_it_is(model: conseq.Model) -> None:
    metric = model.config.training.metric
    found = {history: one.metrics[metric] for history, one in model.evaluations.items()}
    assert repr(model) == (
        f"<conseq.Model: next_item, sasrec, {model.scorer.n_items} items, epoch {model.best_epoch} of {model.epochs}, "
        f"test {metric} {found['exclude']:.4f} (history exclude), {found['keep']:.4f} (history keep)>"
    )


def test_settings_may_be_names_mappings_or_objects(tmp_path: Path) -> None:
    log = cycle_log(n_users=30, n_items=12, length=6)
    ways = [
        {"method": "next_item", "encoder": {"name": "gru4rec", "width": 8}, "training": {"epochs": 1, "seed": 4}},
        {
            "method": conseq.NextItemConfig(),
            "encoder": conseq.GRU4RecConfig(width=8),
            "training": conseq.TrainingConfig(epochs=1, seed=4),
        },
    ]
    models = [conseq.train(log=log, show="nothing", **way) for way in ways]  # type: ignore[arg-type]
    assert models[0].config == models[1].config
    file = tmp_path / "one.toml"
    file.write_text('[encoder]\nname = "gru4rec"\nwidth = 8\n[training]\nepochs = 1\nseed = 4\n[data]\nname = "x"\n')
    assert conseq.train("next_item", log, experiment=file, show="nothing").config == models[0].config
    changed = conseq.train("next_item", log, experiment=file, training={"seed": 5}, show="nothing").config
    assert (changed.training.seed, changed.training.epochs) == (5, 1)


def test_the_split_by_time_is_one_option_away() -> None:
    log = cycle_log(n_users=30, n_items=12, length=10)
    model = conseq.train(
        "next_item", log, encoder=ENCODER, split="by_time", training={"epochs": 1, "metric": "HR@5"}, show="nothing"
    )
    assert model.split.name == "by_time"
    assert model.evaluate(history="keep").protocol.slicing == "by_time"


def test_a_section_of_a_file_that_names_nothing_means_the_default(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('[method]\nloss = "gbce"\nnegatives = 8\n[encoder]\nwidth = 32\n[split]\n')
    written = read_experiment(file)
    found = api._tables(written, {"method": "next_item", "encoder": {"name": "sasrec", "dropout": 0.1}, "split": None})
    assert found["method"] == {"loss": "gbce", "negatives": 8, "name": "next_item"}
    assert found["encoder"] == {"width": 32, "name": "sasrec", "dropout": 0.1}
    found = api._tables(written, {"method": "next_item", "encoder": "gru4rec", "split": "by_user"})
    assert (found["encoder"], found["split"]) == ({"name": "gru4rec"}, {"name": "by_user"})
    named = {"method": {"name": "duorec", "supervised": 0.2}}
    assert api._tables(named, {"method": "cl4srec"})["method"] == {"name": "cl4srec"}
    assert api._tables(named, {"method": {"supervised": 0.3}})["method"] == {"name": "duorec", "supervised": 0.3}


def test_a_misspelt_setting_is_named() -> None:
    log = cycle_log(n_users=30, n_items=12, length=6)
    with pytest.raises(ValueError, match=r"unknown key 'epoch'; did you mean 'epochs'"):
        conseq.train("next_item", log, training={"epoch": 1})
    with pytest.raises(TypeError, match="expected a name, a mapping or a settings object"):
        conseq.train("next_item", log, encoder=3)


@pytest.mark.parametrize(
    ("method", "more", "error", "message"),
    [
        (
            None,
            {},
            TypeError,
            "method: expected a name, a mapping or a settings object, found None; known: bpr, cl4srec, clo",
        ),
        (
            "next_item",
            {"show": "quiet"},
            ValueError,
            "show: expected one of 'bar', 'lines', 'nothing', found 'quiet'",
        ),
        ("next_item", {"encoder": conseq.SASRecConfig}, TypeError, r"encoder: .*; write SASRecConfig\(\.\.\.\)"),
        (
            "next_item",
            {"training": {"seed": 2**64 - 1}},
            ValueError,
            "key 'seed': Input should be less than 4294967296",
        ),
        ("coserec", {"encoder": "bert4rec"}, ValueError, "BERT4Rec has no token states; use encoder 'sasrec' or"),
        ("iclrec", {"encoder": "attentive"}, ValueError, "Attentive has no token states; use encoder 'sasrec' or"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    method: Any, more: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    log = cycle_log(n_users=30, n_items=12, length=6)
    with pytest.raises(error, match=message):
        conseq.train(method, log, run=tmp_path / "run", **{"show": "nothing", **more})
    assert not (tmp_path / "run").exists()


def test_a_path_or_a_table_in_the_place_of_a_log_is_answered_with_read(tmp_path: Path) -> None:
    for path in ("events.csv", Path("events.csv")):
        with pytest.raises(
            TypeError, match=r"log: .*what conseq\.read gives, .*; write conseq\.read\('events\.csv'\)$"
        ):
            conseq.train("next_item", path)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"found DataFrame; conseq\.read reads files and tables"):
        conseq.train("next_item", pl.DataFrame({"user": [1]}))  # type: ignore[arg-type]


def test_a_misspelt_setting_of_an_object_is_named_too() -> None:
    with pytest.raises(ValueError, match=r"^TrainingConfig: unknown key 'epoch'; did you mean 'epochs'\?$"):
        conseq.TrainingConfig(epoch=3)  # type: ignore[call-arg]


def test_settings_may_be_numbers_of_numpy() -> None:
    log = cycle_log(n_users=30, n_items=12, length=6)
    training = {"epochs": np.int64(1), "learning_rate": np.float32(0.5)}
    assert (
        conseq.train("next_item", log, encoder=ENCODER, training=training, show="nothing").config.training.epochs == 1
    )


def test_every_public_name_is_there() -> None:
    for name in conseq.__all__:
        assert getattr(conseq, name) is not None
    assert set(conseq.__all__) <= set(dir(conseq))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = conseq.trian


def test_a_method_made_for_an_encoder_has_it_where_none_is_named() -> None:
    log = cycle_log(n_users=40, n_items=12, length=6)
    training = {"epochs": 1, "metric": "HR@5", "instances": "prefixes"}
    names = {}
    for method in ("next_item", "bpr", "cloze", "comirec", "mclsr", "srma"):
        model = conseq.train(method, log, training=training, encoder={"width": 8}, show="nothing")
        names[method] = model.config.encoder_name
    assert names == {"next_item": "sasrec", **OWN_ENCODERS}


def test_a_bundle_is_no_model_and_the_error_says_how_it_is_read() -> None:
    with pytest.raises(TypeError, match=r"conseq\.Recommender\.load\('bundle'\)"):
        conseq.Model.load("bundle")


def test_settings_of_the_encoder_that_a_method_is_made_for_join_those_of_a_file_that_names_none(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('[method]\nname = "bpr"\n[encoder]\nwidth = 8\n')
    tables = api._tables(
        read_experiment(tmp_path / "own.toml"), {"method": "bpr", "encoder": {"name": "matrix_factorization"}}
    )
    assert tables["encoder"] == {"name": "matrix_factorization", "width": 8}


@pytest.mark.parametrize("folder", [None, "run"])
def test_who_stops_a_training_is_told_what_is_left(
    folder: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("conseq.training.trainer.Trainer._close_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        conseq.train(
            "next_item",
            cycle_log(n_users=40, n_items=12, length=6),
            training={"epochs": 1},
            run=None if folder is None else tmp_path / folder,
            show="nothing",
        )
    assert ("nothing of it is left; with run='FOLDER'" in capsys.readouterr().err) == (folder is None)
