"""``conseq evaluate``: what is asked for beside the protocol."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import conseq
from conseq.cli.main import main
from conseq.evaluation.result import Evaluation


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    rows = [f"u{user},i{(user + step) % 15},{step}" for user in range(40) for step in range(5)]
    (folder / "log.csv").write_text("\n".join(["user,item,time", *rows]) + "\n")
    log = conseq.read(str(folder / "log.csv"))
    small = {"name": "sasrec", "width": 8}
    conseq.train("next_item", log, encoder=small, training={"epochs": 2}, run=folder / "run", show="nothing")
    return folder


def test_cut_offs_may_be_chosen(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", str(trained / "run"), str(trained / "log.csv"), "--history", "keep"]
    assert main([*command, "--json", "--ks", "1", "7"]) == 0
    found = json.loads(capsys.readouterr().out)["metrics"]
    whole = Evaluation.load(next((trained / "run").glob("evaluation-*-keep-*.safetensors")))
    ranked = {name for name in found if name.startswith(("HR", "NDCG"))}
    assert ranked == {"HR@1", "HR@7", "NDCG@1", "NDCG@7"}
    assert all(found[name] == whole.value(name) for name in ranked)
    assert {"Coverage@1", "Coverage@7"} < found.keys()
    assert main([*command, "--ks", "3", "7"]) == 0
    shown = capsys.readouterr().out
    assert "HR@3" in shown
    assert "HR@10" not in shown
    assert main([*command, "--ks", "0"]) == 2
    assert "cut-offs must be whole numbers of at least 1" in capsys.readouterr().err


def test_in_python_too(trained: Path) -> None:
    log = conseq.read(str(trained / "log.csv"))
    small = {"name": "sasrec", "width": 8}
    model = conseq.train("next_item", log, encoder=small, training={"epochs": 1}, show="nothing")
    assert {"HR@1", "NDCG@1"} < model.evaluate(history="keep", ks=[1]).metrics.keys()
    assert "HR@10" in model.evaluate(history="keep").metrics


def test_a_model_is_called_by_its_method_and_its_encoder(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, run = str(trained / "log.csv"), str(trained / "contrast")
    small = ["--encoder.width", "8", "--epochs", "1", "--quiet"]
    assert main(["train", "cl4srec", log, "--run", run, *small]) == 0
    assert "CL4SRec (SASRec): test, leave_one_out" in capsys.readouterr().out
    files = sorted(Path(run).glob("evaluation-*.safetensors"))
    assert [Evaluation.load(one).model for one in files] == ["CL4SRec (SASRec)"] * 2
    assert main(["evaluate", run, log, "--history", "keep"]) == 0
    shown = capsys.readouterr().out
    assert "CL4SRec (SASRec): test, leave_one_out" in shown
    assert "CL4SRec (SASRec), in parts: test" in shown
    assert main(["evaluate", str(trained / "run"), log, "--history", "keep"]) == 0
    assert capsys.readouterr().out.lstrip().startswith("SASRec: test, leave_one_out")


@pytest.mark.parametrize("history", ["exclude", "keep"])
def test_lists_that_hold_no_target_are_told_why_that_may_be(
    trained: Path, history: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, log, lists = (str(trained / one) for one in ("run", "log.csv", "lists.csv"))
    told = "no list holds the item that its user is judged by. Were they made from whole histories?"
    for before, expected in (([], True), (["--before", "test"], False)):
        assert main(["recommend", run, "--log", log, "-k", "8", "--out", lists, *before]) == 0
        capsys.readouterr()
        assert main(["evaluate-lists", lists, log, "--history", history]) == 0
        assert (told in capsys.readouterr().err) == expected


@pytest.mark.parametrize("method", ["comirec", "mclsr"])
def test_a_method_of_prefixes_needs_no_word_about_them(trained: Path, method: str, tmp_path: Path) -> None:
    log = conseq.read(str(trained / "log.csv"))
    conseq.train(method, log, training={"epochs": 1}, run=tmp_path / "run", show="nothing")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["training"]["instances"] == "prefixes"
    assert main(["train", method, str(trained / "log.csv"), "--epochs", "1", "--quiet"]) == 0
