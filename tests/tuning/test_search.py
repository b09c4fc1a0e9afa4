"""A search compares trials on validation alone, goes on after any stop, and judges the winner once."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conseq.cli.main import main
from conseq.data.log import InteractionLog
from conseq.data.synthetic import synthetic, write_csv
from conseq.evaluation import evaluator
from conseq.run import runner
from conseq.run.config import RunConfig
from conseq.run.runner import Stopped
from conseq.training import checkpoint
from conseq.tuning import Space, Trial, Tuned, space_of, tune
from conseq.tuning.search import winner

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
    assert winner(tmp_path / "search") == tmp_path / "search" / place == found.outcome.folder
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


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to\nmore"), "out of memory: CUDA out of memory. Tried to"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out of memory: [enforce fail]"),
        (MemoryError(), "out of memory: MemoryError"),
    ],
)
def test_a_trial_whose_memory_does_not_suffice_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    fit = runner.fit

    def scarce(config: RunConfig, log: InteractionLog, **named: Any) -> Any:
        if config.encoder.width == 8:
            raise error
        return fit(config, log, **named)

    monkeypatch.setattr(runner, "fit", scarce)
    grid = space(encoder={"heads": 1}, training={"learning_rate": 1e-2})
    found = tune(grid, LOG, tmp_path, sampler="grid", judge=False)
    assert (found.trials[0].value, found.best.number) == (None, 2)
    assert found.trials[0].failed.startswith(reason)


def test_what_is_no_fault_of_the_settings_ends_the_search_and_is_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = space(encoder={"heads": 1})
    whole = tune(wanted, LOG, tmp_path / "whole", trials=2)
    tune(wanted, LOG, tmp_path / "parts", trials=1, judge=False)

    def broken(config: RunConfig, log: InteractionLog, **named: Any) -> Any:
        raise error

    for error in (ValueError("checkpoint.pt: not a whole checkpoint"), RuntimeError("CUDA error"), OSError("full")):
        with monkeypatch.context() as patched:
            patched.setattr(runner, "fit", broken)
            with pytest.raises(type(error), match=str(error)):
                tune(wanted, LOG, tmp_path / "parts", trials=2)
    assert told(tune(wanted, LOG, tmp_path / "parts", trials=2)) == told(whole)


def test_a_damaged_checkpoint_ends_the_search_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = space(encoder={"heads": 1})
    save = checkpoint.save

    def once(state: dict[str, Any], path: Path) -> None:
        save(state, path)
        path.write_bytes(b"torn")
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", once)
    with pytest.raises(KeyboardInterrupt):
        tune(wanted, LOG, tmp_path, trials=1)
    with pytest.raises(ValueError, match=r"0001.checkpoint\.pt: not a whole checkpoint.*remove the file"):
        tune(wanted, LOG, tmp_path, trials=1)
    monkeypatch.undo()
    (tmp_path / "trials" / "0001" / "checkpoint.pt").unlink()
    assert tune(wanted, LOG, tmp_path, trials=1).complete


def test_an_interruption_after_the_last_batch_of_a_trial_ends_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_head = space(encoder={"heads": 1})
    whole = tune(one_head, LOG, tmp_path / "whole", trials=3, sampler="random")
    evaluate = evaluator.evaluate
    validations = 0

    def interrupting(*arguments: Any, **named: Any) -> Any:
        nonlocal validations
        validations += 1
        if validations == 2:  # of the last epoch of the first trial
            signal.raise_signal(signal.SIGTERM)
        return evaluate(*arguments, **named)

    monkeypatch.setattr("conseq.run.runner.evaluate", interrupting)
    with pytest.raises(Stopped, match="stopped after trial 1"):
        tune(one_head, LOG, tmp_path / "parts", trials=3, sampler="random")
    assert len((tmp_path / "parts" / "trials.jsonl").read_text().splitlines()) == 1
    monkeypatch.undo()
    assert told(tune(one_head, LOG, tmp_path / "parts", trials=3, sampler="random")) == told(whole)


def test_weights_that_a_killed_process_left_go(tmp_path: Path) -> None:
    wanted = space(encoder={"heads": 1})
    found = tune(wanted, LOG, tmp_path, trials=3, judge=False)
    left = next(tmp_path / "trials" / f"{one.number:04d}" for one in found.trials if one != found.best)
    (left / "checkpoint.pt").touch()
    tune(wanted, LOG, tmp_path, trials=3, judge=False)
    assert files(tmp_path, "checkpoint.pt") == [f"trials/{found.best.number:04d}"]


def test_a_grid_is_searched_whole_unless_fewer_trials_are_asked_for(tmp_path: Path) -> None:
    grid = space(encoder={"width": 8, "heads": 1}, training={"learning_rate": [1e-2] * 23, "epochs": 1})
    assert len(tune(grid, LOG, tmp_path / "whole", sampler="grid", judge=False).trials) == 23
    assert len(tune(grid, LOG, tmp_path / "some", trials=4, sampler="grid", judge=False).trials) == 4


def test_another_content_of_a_file_that_settings_name_is_another_search(tmp_path: Path) -> None:
    items = tmp_path / "items.csv"
    items.write_text("item_id,categories\n" + "".join(f"{one},red\n" for one in LOG.item_ids.ids))
    wanted = space(
        method={"name": "s3rec", "attributes": str(items), "pretrain": 1},
        encoder={"width": 8, "heads": 1},
        training={"not_before": 2, "learning_rate": [1e-2, 1e-3]},
    )
    tune(wanted, LOG, tmp_path / "search", trials=1, sampler="grid", judge=False)
    items.write_text(items.read_text().replace("red", "blue"))
    with pytest.raises(ValueError, match="search holds another search; it differs in data"):
        tune(wanted, LOG, tmp_path / "search", trials=2, sampler="grid", judge=False)


def test_a_setting_that_is_a_tuple_is_gone_on_with(tmp_path: Path) -> None:
    tables: dict[str, dict[str, Any]] = {"encoder": {"heads": 1}, "training": {"betas": [(0.9, 0.999), (0.8, 0.99)]}}
    tune(space(**tables), LOG, tmp_path, trials=1, judge=False)
    found = tune(space(**tables), LOG, tmp_path, trials=2, judge=False)
    assert all(one.values["training.betas"] in ([0.9, 0.999], [0.8, 0.99]) for one in found.trials)


def test_going_on_with_another_optuna_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tune(space(encoder={"heads": 1}), LOG, tmp_path, trials=1, judge=False)
    monkeypatch.setattr("conseq.tuning.search.drawn_by", lambda sampler: {"optuna": "9.0"})
    tune(space(encoder={"heads": 1}), LOG, tmp_path, trials=1, judge=False)
    assert "and goes on with 9.0, which may choose other settings" in capsys.readouterr().err


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
    with pytest.raises(ValueError, match="learning_rate: a grid needs a list of values, or a step"):
        tune(space(), LOG, tmp_path / "grid", sampler="grid")
    with pytest.raises(ValueError, match="unknown metric 'NDGC@10'"):
        tune(space(training={"metric": "NDGC@10"}), LOG, tmp_path / "metric")
    with pytest.raises(ValueError, match="device 'tpu' cannot be used"):
        tune(space(training={"device": "tpu"}), LOG, tmp_path / "device")
    assert not any((tmp_path / one).exists() for one in ("grid", "metric", "device"))


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
