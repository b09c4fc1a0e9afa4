"""``conseq train``: its help, its progress, its experiment files, its run folder."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from conseq.cli import train as command
from conseq.cli.main import main
from conseq.data.synthetic import cycle_log, write_csv
from conseq.methods import METHODS
from conseq.training.records import EpochLines, read_metrics

SMALL = ["--encoder.width", "8", "--encoder.layers", "1", "--encoder.heads", "1", "--epochs", "2", "--batch-size", "64"]


@pytest.fixture
def events(tmp_path: Path) -> str:
    path = tmp_path / "events.csv"
    write_csv(cycle_log(n_users=40, n_items=12, length=6), path)
    return str(path)


def train(*arguments: str | Path) -> int:
    return main(["train", "next_item", *map(str, arguments)])


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        train("--help", *arguments)
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_help_shows_the_options_of_the_method_the_training_and_the_default_encoder(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = help_of(capsys)
    for option in (
        "--run",
        "--tensorboard",
        "--loss",
        "--instances",
        "--patience",
        "--encoder.width",
        "--encoder.block",
    ):
        assert f" {option}" in shown, option
    said = " ".join(shown.split())
    for option in ("--experiment FILE", "--encoder NAME (sasrec, gru4rec,", "--split NAME (leave_one_out, by_time,"):
        assert option in said, option
    assert f"METHOD: {', '.join(METHODS)}; or" in said
    assert "--split." not in shown  # leave-one-out has no settings


def test_help_shows_the_options_of_the_encoder_and_the_split_that_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(capsys, "--encoder", "caser", "--split", "by_time")
    for option in ("--encoder.horizontal-filters", "--split.test-from", "--split.shares"):
        assert option in shown, option
    assert "--encoder.block" not in shown


def test_help_shows_an_experiments_values_as_the_defaults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "one.toml"
    file.write_text("[training]\nepochs = 7\n")
    shown = help_of(capsys, "--experiment", str(file))
    assert re.search(r"Most passes over the training data\.\s+\(default: 7\)", shown)


def test_progress_is_a_line_per_epoch_on_standard_error(
    events: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(events, "--run", tmp_path / "run", *SMALL) == 0
    said = capsys.readouterr()
    number = r"\d+\.\d{4}"
    for epoch in (1, 2):
        line = rf"^epoch {epoch}/2  next_item {number}  validation NDCG@20 {number}  best epoch \d  \d+\.\d s$"
        assert re.search(line, said.err, re.MULTILINE), said.err
    assert "epoch 1/2" not in said.out
    assert "picked by NDCG@20 on validation" in said.out


def test_quiet_leaves_out_the_progress(events: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(events, "--run", tmp_path / "run", "--quiet", *SMALL) == 0
    said = capsys.readouterr()
    assert "epoch 1/2" not in said.err
    assert "HR@10" in said.out


def test_tensorboard_events_are_written_into_the_run(events: str, tmp_path: Path) -> None:
    assert train(events, "--run", tmp_path / "run", "--tensorboard", *SMALL) == 0
    (written,) = (tmp_path / "run" / "tensorboard").iterdir()
    content = written.read_bytes()
    assert written.name.startswith("events.out.tfevents.")
    assert b"terms/next_item" in content
    assert b"metrics/NDCG@20" in content


@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        ([], 200),
        (["--pretrain", "40"], 140),
        (["--pretrain", "40", "--epochs", "200"], 200),
        (["--epochs=40", "--pretrain=40"], 40),
        (["--experiment", "one.toml", "--pretrain", "40"], 50),
    ],
)
def test_epochs_that_are_not_given_are_those_after_the_pretraining(
    options: list[str], epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one.toml").write_text("[training]\nepochs = 50\n")
    _, config = command._parse(*command._names(["s3rec", "log", *options]))
    assert config.training.epochs == epochs


def test_without_a_name_the_run_goes_to_a_folder_named_after_the_experiment(
    events: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for more in ([], [], ["--seed", "1"]):
        assert train(events, "--quiet", *SMALL, *more) == 0
    assert "run: runs/next_item-events-" in capsys.readouterr().out
    folders = [folder.name for folder in Path("runs").iterdir()]
    assert len(folders) == 2  # the same experiment twice, and another one
    assert all(re.fullmatch("next_item-events-[0-9a-f]{12}", name) for name in folders)


@pytest.mark.parametrize(("word", "value"), [("disjoint", "disjoint"), ("False", False), ("True", True)])
def test_windows_are_named_on_the_command_line(word: str, value: object, events: str, tmp_path: Path) -> None:
    short = [*SMALL, "--encoder.max-length", "2", "--quiet"]
    assert train(events, "--run", tmp_path / "r", "--windows", word, *short) == 0
    assert json.loads((tmp_path / "r" / "config.json").read_text())["training"]["windows"] == value


def test_the_configuration_of_a_run_is_an_experiment_that_gives_the_same_run(
    events: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    assert train(events, "--run", first, "--encoder", "gru4rec", "--encoder.width", "8", "--epochs", "1", "--json") == 0
    assert train(events, "--run", again, "--experiment", first / "config.json", "--json") == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert records[0]["encoder"] == records[1]["encoder"]
    assert [one["metrics"] for one in records[0]["evaluations"]] == [
        one["metrics"] for one in records[1]["evaluations"]
    ]


def test_another_encoder_than_the_files_takes_nothing_from_the_files(
    events: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "one.toml"
    file.write_text(
        '[encoder]\nname = "gru4rec"\nwidth = 8\ndropout = 0.0\n[training]\nepochs = 1\ninstances = "prefixes"\n'
    )
    assert train(events, "--experiment", file, "--encoder", "caser", "--run", tmp_path / "run", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["encoder"]["name"], record["encoder"]["width"], record["encoder"]["dropout"]) == ("caser", 64, 0.5)
    assert record["training"]["epochs"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[training]\nepohcs = 3\n", "one.toml: training: unknown key 'epohcs'; did you mean 'epochs'?"),
        ('[training]\nepochs = "3"\n', "one.toml: training: key 'epochs': Input should be a valid integer, found '3'"),
        ("[trainng]\nepochs = 3\n", "one.toml: unknown section 'trainng'; did you mean 'training'?"),
        ("epochs = 3\n", "one.toml: unknown section 'epochs'; known: method, encoder, split, training"),
        ("[training\n", "one.toml: not a readable experiment: Expected ']'"),
        ('[encoder]\nname = "gru4rec"\nblock = "kang"\n', "one.toml: encoder: unknown key 'block'"),
        ("[training]\nseed = 2020-01-01\n", "one.toml: training: key 'seed': Object of type date cannot be a setting"),
        (
            'method = "cl4srec"\n',
            "one.toml: section 'method' must be a table, found 'cl4srec'; write [method] and below",
        ),
        ("training = 3\n", "one.toml: section 'training' must be a table, found 3"),
    ],
)
def test_a_mistake_in_an_experiment_file_is_one_line_that_names_file_and_key(
    content: str, message: str, events: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "one.toml"
    file.write_text(content)
    assert train(events, "--experiment", file, "--run", tmp_path / "run") == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--seed", "18446744073709551615", "key 'seed': Input should be less than 4294967296"),
        ("--device", "mps", "device 'mps' cannot be used; expected auto, cpu, cuda, or a GPU by its number, as cuda:1"),
        ("--device", "meta", "device 'meta' cannot be used; expected auto, cpu, cuda"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_before_anything_is_written_or_noted(
    option: str, value: str, message: str, events: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = train(events, "--run", tmp_path / "run", option, value)
    except SystemExit as ended:
        status = int(ended.code or 0)
    said = capsys.readouterr()
    assert status == 2
    assert message in " ".join(said.err.replace("│", " ").split())
    assert "leave-one-out lets" not in said.err
    assert not (tmp_path / "run").exists()


def test_an_experiment_that_is_a_list_is_refused(
    events: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "one.json"
    file.write_text("[1, 2]")
    assert train(events, "--experiment", file) == 2
    assert "one.json: expected the tables method, encoder, split, training, found [1, 2]" in capsys.readouterr().err


def test_a_training_that_diverges_in_one_batch_says_so(
    events: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(events, "--run", tmp_path / "run", *SMALL, "--batch-size", "4000", "--learning-rate", "1e30") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("conseq train: training diverged in epoch 1: in validation, scores are NaN or infinite")
    assert said.endswith("Lower the learning rate, or set clip")


def test_a_run_folder_is_of_one_experiment(events: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(events, "--run", tmp_path / "run", *SMALL) == 0
    assert train(events, "--run", tmp_path / "run", *SMALL, "--batch-size", "32", "--loss", "gbce") == 2
    told = "method.loss ('cross_entropy' there, 'gbce' here), training.batch_size (64 there, 32 here)"
    assert f"holds another run; it differs in {told}. Choose" in capsys.readouterr().err


def test_ctrl_c_saves_says_how_to_go_on_and_the_same_command_ends_as_if_nothing_had_been(
    events: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: EpochLines, record: dict[str, object]) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(EpochLines, "epoch_done", interrupt)
    several = [*SMALL, "--batch-size", "16"]
    command = [events, "--run", str(tmp_path / "run"), *several]
    assert train(*command) == 130
    said = capsys.readouterr()
    assert (
        f"stopped in epoch 2 after batch 0; the state is in {tmp_path / 'run'}. To go on, give the same command"
        in said.err
    )
    assert said.out == ""
    monkeypatch.undo()
    assert train(*command) == 0
    assert train(events, "--run", tmp_path / "whole", *several) == 0
    ended, whole = (
        [one["terms"] for one in read_metrics(tmp_path / name / "metrics.jsonl")] for name in ("run", "whole")
    )
    assert ended == whole
    assert len(ended) == 2
