"""The short way, as a user types it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import conseq
from conseq.data.synthetic import cycle_log

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


def test_a_misspelt_setting_is_named() -> None:
    log = cycle_log(n_users=30, n_items=12, length=6)
    with pytest.raises(ValueError, match=r"unknown key 'epoch'; did you mean 'epochs'"):
        conseq.train("next_item", log, training={"epoch": 1})
    with pytest.raises(TypeError, match="expected a name, a mapping or a settings object"):
        conseq.train("next_item", log, encoder=3)


def test_every_public_name_is_there() -> None:
    for name in conseq.__all__:
        assert getattr(conseq, name) is not None
    assert set(conseq.__all__) <= set(dir(conseq))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = conseq.trian
