"""What is told of a model that a command is given: that it is none, or that it answers without its users' vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from conseq.cli.main import main
from conseq.cli.models import tell_of_strangers
from conseq.data.synthetic import cycle_log, write_csv
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.matrix_factorization import MatrixFactorizationConfig
from conseq.nn.items import ItemTable
from conseq.serving.bundle import save_bundle

IDS = [f"i{n}" for n in range(6)]
NOTE = "note: the model has a vector for each user that it was trained on"


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log as a file and as a prepared folder."""
    folder = tmp_path_factory.mktemp("logs")
    write_csv(cycle_log(n_users=20, n_items=8, length=5), folder / "log.csv")
    assert main(["prepare", str(folder / "log.csv"), str(folder / "data")]) == 0
    return folder


def factors(folder: Path, *, users: int) -> Path:
    config = MatrixFactorizationConfig(width=4)
    encoder = config(ItemTable(len(IDS), 4))
    if users:
        encoder.add_users(torch.arange(users))
    save_bundle(encoder, config, Vocabulary(IDS, start=1), folder / "bundle", {})
    return folder / "bundle"


@pytest.mark.parametrize(("given", "what"), [("data", "a prepared log"), ("log.csv", "a file")])
@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "LOG", "nowhere", "--history", "keep"],
        ["analyse", "representations", "LOG", "nowhere"],
        ["recommend", "LOG", "--log", "nowhere"],
        ["recommend", "LOG", "--history", "i1"],
        ["serve", "LOG", "--port", "0", "--log", "nowhere"],
        ["export", "LOG", "items.npz"],
        ["similar", "LOG"],
    ],
    ids=lambda command: command[0],
)
def test_a_log_in_the_place_of_the_model_is_told_by_every_command_before_anything_else(
    command: list[str], given: str, what: str, logs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(logs / given) if one == "LOG" else one for one in command]) == 2
    told = f"{logs / given} is {what}, not a run or a bundle: the model comes first, then the log\n"
    assert capsys.readouterr().err.endswith(told)


@pytest.mark.parametrize(
    "command",
    [["train", "next_item", "log.csv", "--start", "LOG"], ["evaluate-lists", "LISTS", "LOG", "--like", "LOG"]],
    ids=lambda command: command[0],
)
def test_an_option_that_takes_a_model_is_named(
    command: list[str], logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = tmp_path / "lists.csv"
    lists.write_text("user_id,item_id\n1,1\n")
    places = {"LOG": str(logs / "data"), "LISTS": str(lists)}
    more = ["--history", "keep"] if command[0] == "evaluate-lists" else []
    assert main([*(places.get(one, one) for one in command), *more]) == 2
    option = "--like" if more else "--start"
    assert f"data is a prepared log, not a run or a bundle: {option} takes a model\n" in capsys.readouterr().err


def test_a_log_among_runs_to_compare_is_told(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(logs / "data"), "nowhere", "--history", "keep"]) == 2
    told = capsys.readouterr().err
    assert "data is a prepared log, not the folder of a run; the log is named with --data, for --among\n" in told


def test_recommending_says_that_a_model_of_users_takes_everybody_for_a_stranger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = factors(tmp_path, users=3)
    assert main(["recommend", str(bundle), "--history", "i1 i2", "--json"]) == 0
    said = capsys.readouterr()
    assert said.err.startswith(NOTE)
    assert "computed from the items of the history alone" in said.err
    assert NOTE not in said.out


def test_a_service_says_so_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent:
        def __init__(self, config: Any) -> None:
            pass

        def run(self, sockets: Any) -> None:
            pass

    monkeypatch.setattr("uvicorn.Server", Silent)
    assert main(["serve", str(factors(tmp_path, users=3)), "--port", "0"]) == 0
    assert NOTE in capsys.readouterr().err


def test_a_model_that_has_no_users_is_served_without_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tell_of_strangers(factors(tmp_path, users=0))
    assert capsys.readouterr().err == ""
