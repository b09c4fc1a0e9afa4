"""A run in a folder: what it leaves there, that it goes on after any kill, that it never looks at the test part."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from conseq.config import parse, settings
from conseq.data.log import InteractionLog
from conseq.data.readers import read
from conseq.data.splits import Split, leave_one_out
from conseq.data.synthetic import cycle_log
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.floors import Popularity
from conseq.encoders.sasrec import SASRecConfig
from conseq.evaluation.inequalities import violations
from conseq.evaluation.result import Evaluation
from conseq.evaluation.tables import LEFT_OUT, as_text, metrics_table
from conseq.run import runner
from conseq.run.config import RunConfig, from_record
from conseq.run.judging import judge_bundle, renumber
from conseq.run.splitting import ByTime
from conseq.serving.bundle import load_bundle
from conseq.training.records import read_metrics

SMALL: dict[str, dict[str, Any]] = {
    "encoder": {"width": 8, "layers": 1, "heads": 1, "max_length": 6},
    "training": {"epochs": 3, "batch_size": 64, "patience": None, "metric": "NDCG@5", "learning_rate": 0.01},
}


def log(n_users: int = 60, n_items: int = 15, length: int = 6) -> InteractionLog:
    rng = np.random.default_rng(0)
    start = rng.integers(n_items, size=(n_users, 1))
    items = ((start + np.arange(length)) % n_items + 1).astype(np.int32)
    return InteractionLog(
        items.ravel(),
        np.arange(0, n_users * length + 1, length),
        np.tile(np.arange(length), n_users) + 0,
        Vocabulary([f"u{user}" for user in range(n_users)], start=0),
        Vocabulary([f"i{item}" for item in range(n_items)], start=1),
        {"source": "made in the test"},
    )


def config(**training: Any) -> RunConfig:
    values: dict[str, Any] = {**SMALL, "training": {**SMALL["training"], **training}}
    return from_record(values, source="test")


def weights(outcome: runner.Outcome) -> dict[str, torch.Tensor]:
    return {name: one.clone() for name, one in outcome.encoder.state_dict().items()}


def test_a_run_leaves_configuration_metrics_evaluations_and_a_bundle(tmp_path: Path) -> None:
    outcome = runner.run(config(), log(), folder=tmp_path / "run")
    folder = tmp_path / "run"
    record = json.loads((folder / "config.json").read_text())
    assert record["training"]["epochs"] == 3
    assert record["encoder"] == {"name": "sasrec", **{k: v for k, v in record["encoder"].items() if k != "name"}}
    assert record["data"]["interactions"] == 360
    assert record["versions"]["torch"] == torch.__version__
    metrics = read_metrics(folder / "metrics.jsonl")
    assert [one["epoch"] for one in metrics] == [1, 2, 3]
    assert set(metrics[0]["terms"]) == {"next_item"}
    stored = sorted(one.name for one in folder.glob("evaluation-*.safetensors"))
    assert [name.split("-")[3] for name in stored] == ["exclude", "keep"]
    keep = Evaluation.load(folder / stored[1])
    assert keep.metrics == outcome.evaluations["keep"].metrics
    assert not violations(keep.metrics)
    assert set(keep.floors) == {"popularity", "own history"}
    bundle = load_bundle(folder / "bundle")
    assert bundle.item_ids == log().item_ids
    assert all(torch.equal(one, weights(outcome)[name]) for name, one in bundle.encoder.state_dict().items())


def test_the_same_run_again_changes_nothing_and_another_one_is_refused(tmp_path: Path) -> None:
    first = runner.run(config(), log(), folder=tmp_path)
    again = runner.run(config(), log(), folder=tmp_path)
    assert all(torch.equal(one, weights(again)[name]) for name, one in weights(first).items())
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 3
    with pytest.raises(
        ValueError, match=r"holds another run; it differs in training\.seed \(0 there, 1 here\)\. Choose"
    ):
        runner.run(config(seed=1), log(), folder=tmp_path)
    with pytest.raises(ValueError, match=r"differs in .*data\.hash"):
        runner.run(config(), log(n_users=61), folder=tmp_path)


@pytest.mark.parametrize("content", ["{", "[1]", ""])
def test_a_damaged_configuration_of_a_run_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(
        ValueError, match=r"config\.json is damaged \(.*\); put back a copy of it, or remove the folder"
    ):
        runner.run(config(), log(), folder=tmp_path)
    assert (tmp_path / "config.json").read_text() == content


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and holds no run"):
        runner.run(config(), log(), folder=tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["notes.txt"]


def test_seeds_decide_the_result() -> None:
    first, again, other = (runner.run(config(seed=seed), log()) for seed in (1, 1, 2))
    assert torch.equal(first.encoder.items.weight, again.encoder.items.weight)
    assert not torch.equal(first.encoder.items.weight, other.encoder.items.weight)


def test_the_test_part_is_not_touched_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """With other test targets every epoch's validation and the weights stay the same to the last bit."""
    plain = runner.run(config(), log())

    def scrambled(one: InteractionLog) -> Split:
        split = leave_one_out(one)
        other = split.test.targets.replace(split.test.targets.ids % one.n_items + 1)
        return replace(split, test=replace(split.test, targets=other, histories=split.validation.histories))

    monkeypatch.setattr("conseq.run.splitting.leave_one_out", scrambled)
    changed = runner.run(config(), log())
    assert torch.equal(plain.encoder.items.weight, changed.encoder.items.weight)
    assert plain.evaluations["keep"].metrics != changed.evaluations["keep"].metrics


def test_an_unknown_metric_is_refused_before_training() -> None:
    with pytest.raises(ValueError, match=r"NDGC@5.*NDCG@5"):
        runner.run(config(metric="NDGC@5"), log())


@pytest.mark.parametrize("device", ["gpu0", "mps", "meta", "xpu:0", ""])
def test_an_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(
        ValueError, match=f"device '{device}' cannot be used; expected auto, cpu, cuda, or a GPU by its"
    ):
        runner.run(config(device=device), log())


def test_a_judged_bundle_gives_the_numbers_of_its_run_even_when_the_log_numbers_items_otherwise(tmp_path: Path) -> None:
    outcome = runner.run(config(), log(), folder=tmp_path)
    order = np.random.default_rng(1).permutation(15)
    number = np.concatenate([[0], np.argsort(order) + 1]).astype(np.int32)
    one = log()
    shuffled = replace(one, items=number[one.items], item_ids=Vocabulary([f"i{item}" for item in order], start=1))
    both: tuple[runner.History, ...] = ("exclude", "keep")
    for history in both:
        judged = judge_bundle(tmp_path, shuffled, history=history)
        assert judged.metrics == pytest.approx(outcome.evaluations[history].metrics)


def test_items_that_the_bundle_does_not_know_are_named_or_left_out() -> None:
    one = log()
    known = Vocabulary([f"i{item}" for item in range(14)], start=1)
    with pytest.raises(ValueError, match=r"1 of the log's 15 items are unknown to the model, such as 'i14'"):
        renumber(one, known)
    fewer = renumber(one, known, unknown="drop")
    assert len(fewer) == len(one) - int((one.items == 15).sum())
    assert fewer.items.max() == 14
    assert fewer.times is not None
    assert len(fewer.times) == len(fewer.items) == fewer.offsets[-1]


def test_a_model_judged_under_another_cut_than_its_own_is_told_of_on_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner.run(config(epochs=1), log(), folder=tmp_path)
    slicings: tuple[Literal["leave_one_out"] | None, ...] = (None, "leave_one_out")
    for slicing in slicings:
        judge_bundle(tmp_path, log(), history="keep", slicing=slicing)
    assert capsys.readouterr().err == ""
    judged = judge_bundle(tmp_path, log(), history="keep", slicing="by_time")
    assert judged.protocol.slicing == "by_time"
    said = capsys.readouterr().err
    assert said.startswith(
        "note: the model was trained under the cut leave_one_out and is judged under by_time: training"
    )
    assert said.count("\n") == 1


def test_a_model_judged_on_another_log_by_users_is_told_of_on_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = {**SMALL, "split": {"name": "by_user"}, "training": {**SMALL["training"], "epochs": 1}}
    runner.run(from_record(tables, source="test"), log(), folder=tmp_path)
    judge_bundle(tmp_path, log(), history="keep")
    assert capsys.readouterr().err == ""
    judge_bundle(tmp_path, log(n_users=59), history="keep")
    assert "another log, of which the cut by_user may have held out something else" in capsys.readouterr().err


def test_a_model_judged_on_another_log_by_last_items_is_told_of_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner.run(config(epochs=1), log(), folder=tmp_path)
    judge_bundle(tmp_path, log(), history="keep")
    assert capsys.readouterr().err == ""
    judge_bundle(tmp_path, log(n_users=59), history="keep")
    assert "another log, of which the cut leave_one_out may have held out something else" in capsys.readouterr().err


def test_what_is_dropped_from_a_judged_log_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = cycle_log(n_users=3, n_items=5, length=5)
    longer = cycle_log(n_users=3, n_items=7, length=7)
    found = renumber(longer, known.item_ids, unknown="drop")
    assert len(found) == 15
    last = sum(int(longer.items[end - 1]) > 5 for end in longer.offsets[1:])
    assert capsys.readouterr().err == (
        "note: 6 of 21 interactions are left out, those with the 2 items that the model does not know; of "
        f"{last} of 3 users it is the last one, so that an earlier item may be the one that is held out\n"
    )
    assert renumber(known, longer.item_ids, unknown="drop").n_users == 3
    assert capsys.readouterr().err == ""


def test_what_the_cut_leaves_out_stands_in_the_evaluation(tmp_path: Path) -> None:
    lines = ["user_id,item_id,timestamp"]
    lines += [f"u{user},i{item},{user + item}" for user in range(5) for item in range(3)]
    lines += ["late,i0,50", "late,i1,90", "u1,new,91", "u2,i1,92", "u0,i1,51"]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    split = ByTime(validation_from=20, test_from=60).cut(read(tmp_path / "log.csv"))
    popularity = Popularity.from_train(split.train, split.n_items)
    found = runner.judge(popularity, split, history="keep")
    assert found.counts["users"] == 3
    assert {name: found.counts[name] for name in LEFT_OUT if name in found.counts} == {"cold_targets": 1}
    validated = runner.judge(popularity, split, history="keep", part="validation")
    assert validated.counts["users_without_history"] == 1
    caption = as_text(metrics_table(validated))
    assert "1 users without a history, who are not judged" in caption


def test_an_encoder_that_no_bundle_can_name_is_refused_before_the_training(tmp_path: Path) -> None:
    @settings
    class Own(SASRecConfig):
        pass

    one = replace(config(), encoder=Own(width=8, layers=1, heads=1, max_length=6))
    with pytest.raises(ValueError, match="cannot import it from"):
        runner.run(one, log(), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_a_killed_process_left_of_a_save_is_removed_and_the_name_of_the_log_s_file_does_not_matter(
    tmp_path: Path,
) -> None:
    runner.run(config(epochs=1), log(), folder=tmp_path / "run")
    (tmp_path / "run/.checkpoint.pt.0123.partial").write_text("half")
    renamed = replace(log(), manifest={"source": "under another name"})
    runner.run(config(epochs=1), renamed, folder=tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.partial"))
    assert not list((tmp_path / "run").glob(".*.partial"))


def test_a_misspelt_choice_in_judging_is_not_taken_for_another(tmp_path: Path) -> None:
    runner.run(config(epochs=1), log(), folder=tmp_path)
    with pytest.raises(
        ValueError, match="slicing: expected one of 'leave_one_out', 'by_time', 'by_user', found 'by_tim'"
    ):
        judge_bundle(tmp_path, log(), history="keep", slicing="by_tim")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown: expected one of 'error', 'drop', found 'raise'"):
        judge_bundle(tmp_path, log(), history="keep", unknown="raise")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trainng": {}}, r"unknown section 'trainng'; did you mean 'training'"),
        ({"training": {"epoch": 3}}, r"training: unknown key 'epoch'; did you mean 'epochs'"),
        ({"training": {"epochs": "3"}}, r"training: key 'epochs': .*integer.*found '3'"),
        ({"training": {"epochs": 0}}, r"training: key 'epochs': .*greater than or equal to 1"),
        ({"method": {"name": "nextitem"}}, r"unknown method 'nextitem'; did you mean 'next_item'"),
        ({"method": {"los": "gbce"}}, r"method: unknown key 'los'; did you mean 'loss'"),
        ({"encoder": {"name": "sasrek"}}, r"unknown encoder 'sasrek'; did you mean 'sasrec'"),
        ({"encoder": {"name": "nowhere:Thing"}}, r"encoder 'nowhere:Thing' cannot be imported"),
        ({"split": {"name": "by_times"}}, r"unknown split 'by_times'; did you mean 'by_time'"),
        ({"split": 3}, r"section 'split' must be a table"),
        ({"method": {"name": 3}}, r"name must be a string"),
    ],
)
def test_a_mistake_in_an_experiment_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_record(values, source="my.toml")


def test_the_record_of_an_experiment_gives_it_back() -> None:
    one = from_record(
        {
            "method": {"loss": "gbce", "negatives": 4},
            "encoder": {"name": "gru4rec", "layers": 2},
            "split": {"name": "by_user", "seed": 3},
            "training": {"instances": "whole", "betas": [0.9, 0.98]},
        },
        source="test",
    )
    assert from_record(one.record(), source="again") == one
    assert from_record(json.loads(json.dumps(one.record())), source="again").digest == one.digest


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import torch
torch.set_num_threads(1)
from test_runner import config, log
from conseq.run import runner
runner.run(config(epochs=400, checkpoint_minutes=1e-6), log(n_users=300), folder=Path(sys.argv[1]), show="lines")
"""


def _start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(folder), str(Path(__file__).parent)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def _wait_for_epoch(folder: Path, epoch: int, child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while len(read_metrics(folder / "metrics.jsonl")) < epoch:
        assert child.poll() is None, child.stderr.read() if child.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_a_run_killed_with_sigkill_and_given_again_ends_bit_identical(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    folder = tmp_path / "killed"
    for epoch in (2, 5):
        child = _start(folder)
        _wait_for_epoch(folder, epoch, child)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert child.returncode == -signal.SIGKILL
    done = len(read_metrics(folder / "metrics.jsonl"))
    assert 5 <= done < 400
    short = config(epochs=done + 4, checkpoint_minutes=1e-6)
    whole = runner.run(short, log(n_users=300), folder=tmp_path / "whole")
    # The settings of the killed run but for its last epoch, which decides nothing before it with a constant step size.
    record = json.loads((folder / "config.json").read_text())
    record["training"]["epochs"] = done + 4
    (folder / "config.json").write_text(json.dumps(record))
    resumed = runner.run(short, log(n_users=300), folder=folder)
    assert all(torch.equal(one, weights(resumed)[name]) for name, one in weights(whole).items())
    assert resumed.best_epoch == whole.best_epoch
    lines = [[one["terms"] for one in read_metrics(path / "metrics.jsonl")] for path in (folder, tmp_path / "whole")]
    assert lines[0] == lines[1]


@pytest.mark.slow
def test_ctrl_c_finishes_the_step_saves_and_the_run_goes_on(tmp_path: Path) -> None:
    child = _start(tmp_path / "run")
    _wait_for_epoch(tmp_path / "run", 2, child)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=120)
    assert "finishing the step and saving" in errors
    assert "Stopped: stopped in epoch" in errors
    assert (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_splits_settings_reach_the_cut() -> None:
    by_time = from_record({**SMALL, "split": {"name": "by_time", "validation_from": 4, "test_from": 5}}, source="test")
    split = by_time.split.cut(log())
    assert split.train.lengths.tolist() == [4] * 60
    with pytest.raises(ValueError, match="give both validation_from and test_from"):
        parse(type(by_time.split), {"validation_from": 4.0}, source="x").cut(log())


def test_a_catalogue_of_one_item_is_refused() -> None:
    with pytest.raises(ValueError, match="the log has a single item"):
        runner.run(config(), log(n_items=1))


def test_the_callers_random_numbers_go_on_as_if_nothing_had_been_trained() -> None:
    def drawn(*, train: bool) -> list[float]:
        torch.manual_seed(123)
        first = torch.rand(1)
        if train:
            runner.run(from_record(SMALL, source="test"), log())
        return [*first.tolist(), *torch.rand(2).tolist()]

    assert drawn(train=True) == drawn(train=False)
