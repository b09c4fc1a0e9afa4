"""A search compares trials on validation alone, goes on after any stop, and judges the winner once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conseq.cli.main import main
from conseq.data.log import InteractionLog
from conseq.data.synthetic import synthetic, write_csv
from conseq.run import runner
from conseq.run.config import RunConfig
from conseq.run.runner import Stopped
from conseq.tuning import Space, Trial, Tuned, space_of, tune

LOG, _ = synthetic(n_users=60, seed=1)
TABLES: dict[str, dict[str, Any]] = {
    "method": {"name": "next_item"},
    "encoder": {"width": [8, 16], "heads": [1, 3], "layers": 1, "max_length": 8},
    "training": {"learning_rate": {"low": 1e-3, "high": 1e-1, "log": True}, "epochs": 2, "batch_size": 32},
}


def space(**changes: dict[str, Any]) -> Space:
    tables = {section: {**table, **changes.get(section, {})} for section, table in TABLES.items()}
    return space_of(tables, source="space")


def told(found: Tuned) -> list[Trial]:
    """Gives the trials without what the clock says."""
    return [Trial(**{**vars(one), "seconds": 0.0}) for one in found.trials]


def files(folder: Path, name: str) -> list[str]:
    return sorted(str(one.parent.relative_to(folder)) for one in folder.rglob(name))


def test_the_winner_is_the_run_that_its_settings_make(tmp_path: Path) -> None:
    found = tune(space(), LOG, tmp_path / "search", trials=5, sampler="random")

    scored = [one for one in found.trials if one.value is not None]
    assert found.complete
    assert found.best.value == max(one.value or 0.0 for one in scored)
    alone = runner.run(found.config, LOG, folder=tmp_path / "alone")
    assert (alone.best_epoch, alone.epochs) == (found.best.best_epoch, found.best.epochs)
    assert found.outcome is not None
    for history, evaluation in alone.evaluations.items():
        assert np.array_equal(evaluation.ranks, found.outcome.evaluations[history].ranks)
    curve = [json.loads(line) for line in (tmp_path / "alone" / "metrics.jsonl").read_text().splitlines()]
    assert found.best.value == max(one["metrics"]["NDCG@20"] for one in curve)
    place = f"trials/{found.best.number:04d}"
    assert files(tmp_path / "search", "checkpoint.pt") == [place]
    assert (tmp_path / "search" / place / "bundle").is_dir()


def test_the_test_part_is_left_alone_until_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[str] = []
    judge = runner.judge

    def spy(*arguments: Any, **named: Any) -> Any:
        judged.append(named["history"])
        return judge(*arguments, **named)

    monkeypatch.setattr(runner, "judge", spy)
    found = tune(space(), LOG, tmp_path, trials=3, judge=False)
    assert found.outcome is None
    assert judged == []
    assert files(tmp_path, "evaluation-*") == []

    tune(space(), LOG, tmp_path, trials=4)
    assert judged == ["exclude", "keep"]


def test_a_search_that_goes_on_is_one_that_was_not_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tune(space(), LOG, tmp_path / "whole", trials=6, seed=3)
    first = tune(space(), LOG, tmp_path / "parts", trials=2, seed=3)
    assert told(first) == told(whole)[:2]

    fit, count = runner.fit, 0

    def stopped(config: RunConfig, log: InteractionLog, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count == 2:
            raise Stopped(1, 1)
        return fit(config, log, **named)

    monkeypatch.setattr(runner, "fit", stopped)
    with pytest.raises(Stopped):
        tune(space(), LOG, tmp_path / "parts", trials=6, seed=3)
    then = tune(space(), LOG, tmp_path / "parts", trials=6, seed=3)

    assert told(then) == told(whole)
    assert then.best.number == whole.best.number
    assert told(tune(space(), LOG, tmp_path / "parts", trials=6, seed=3)) == told(whole)
    assert count == len([one for one in whole.trials[2:] if not one.same_as]) + 1  # the stopped one twice, none again


def test_settings_that_do_not_fit_together_and_those_that_diverge_are_failed_trials(tmp_path: Path) -> None:
    grid = space(encoder={"width": 8, "heads": [3, 1]}, training={"learning_rate": [1e-2, 1e30]})

    found = tune(grid, LOG, tmp_path, trials=9, sampler="grid")

    assert [one.value is None for one in found.trials] == [True, True, False, True]
    assert found.trials[0].failed == "width 8 is not a multiple of the number of heads, 3"
    assert "diverged" in found.trials[3].failed or "Lower the learning rate" in found.trials[3].failed
    assert found.complete
    assert found.best.number == 3


def test_an_experiment_is_trained_once(tmp_path: Path) -> None:
    grid = space(encoder={"width": [8, 16, 8], "heads": 1}, training={"learning_rate": 1e-2})

    found = tune(grid, LOG, tmp_path, trials=3, sampler="grid")

    assert [one.same_as for one in found.trials] == [0, 0, 1]
    assert found.trials[2].value == found.trials[0].value
    assert files(tmp_path, "metrics.jsonl") == ["trials/0001", "trials/0002"]


def test_a_search_without_any_value_says_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no trial has a value; the last one: width 8 is not a multiple"):
        tune(space(encoder={"width": [8], "heads": 3}), LOG, tmp_path / "heads", trials=2)
    with pytest.raises(ValueError, match="the budget allows no trial"):
        tune(space(), LOG, tmp_path / "budget", trials=1, budget=0.0)
    with pytest.raises(ValueError, match="trials: at least 1, found 0"):
        tune(space(), LOG, tmp_path / "trials", trials=0)
    with pytest.raises(ValueError, match="seed: at least 0, found -1"):
        tune(space(), LOG, tmp_path / "seed", seed=-1)
    with pytest.raises(ValueError, match="learning_rate: a grid needs a step"):
        tune(space(), LOG, tmp_path / "grid", sampler="grid")
    assert not (tmp_path / "grid").exists()


def test_a_budget_leaves_the_rest_to_the_next_call(tmp_path: Path) -> None:
    tune(space(), LOG, tmp_path, trials=2, judge=False)

    found = tune(space(), LOG, tmp_path, trials=4, budget=0.0)

    assert not found.complete
    assert found.outcome is None
    assert len(found.trials) == 2


def test_another_search_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    one_head = space(encoder={"heads": 1})
    tune(one_head, LOG, folder, trials=1, judge=False)
    other, _ = synthetic(n_users=50, seed=1)

    with pytest.raises(ValueError, match="search holds another search; it differs in space"):
        tune(space(encoder={"heads": 1, "layers": 2}), LOG, folder)
    with pytest.raises(ValueError, match="search holds another search; it differs in sampler, seed"):
        tune(one_head, LOG, folder, sampler="random", seed=4)
    with pytest.raises(ValueError, match="search holds another search; it differs in data"):
        tune(one_head, other, folder)
    with (folder / "trials.jsonl").open("a") as file:
        file.write('{"number": 2}\n')
    with pytest.raises(ValueError, match=r"trials\.jsonl:2: not the record of a trial"):
        tune(one_head, LOG, folder)
    (folder / "search.json").write_text("[]")
    with pytest.raises(ValueError, match=r"search\.json: not the record of a search: expected an object, found list"):
        tune(one_head, LOG, folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="mine is not empty and holds no search"):
        tune(space(), LOG, tmp_path / "mine")


def test_the_command_searches_goes_on_and_tells_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(LOG, Path("log.csv"))
    Path("space.toml").write_text(
        "[encoder]\nwidth = [8, 16]\nheads = 1\nlayers = 1\n"
        '[training]\nepochs = 1\nmetric = "HR@10"\nhistory = "keep"\n'
    )

    assert main(["tune", "space.toml", "log.csv", "--trials", "1", "--sampler", "grid", "--no-judge"]) == 0
    shown = capsys.readouterr()
    assert "trial 1  encoder.width 8  " in shown.err
    assert "validation HR@10, history keep" in shown.out
    assert "bundle" not in shown.out

    assert main(["tune", "space.toml", "log.csv", "--trials", "2", "--sampler", "grid", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["values"] for one in found["trials"]] == [{"encoder.width": 8}, {"encoder.width": 16}]
    assert found["complete"] is True
    assert found["encoder"]["width"] == found["best"]["values"]["encoder.width"]
    assert [one["protocol"]["history"] for one in found["evaluations"]] == ["exclude", "keep"]

    assert main(["tune", "space.toml", "log.csv", "--seed", "5"]) == 2
    assert "tuned holds another search; it differs in sampler, seed" in capsys.readouterr().err
