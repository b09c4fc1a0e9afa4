"""The command line as a whole: statuses, messages, JSON and nothing beside it."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import pytest

import conseq
from conseq.cli.main import COMMANDS, main
from conseq.data.synthetic import cycle_log, write_csv
from conseq.data.vocabulary import Vocabulary
from conseq.encoders.gru4rec import GRU4RecConfig
from conseq.methods import METHODS
from conseq.nn.items import ItemTable
from conseq.serving.bundle import save_bundle
from conseq.training.config import TrainingConfig
from conseq.tuning import Trial

TYRO = tuple(map(int, re.findall(r"\d+", version("tyro"))[:3]))
SMALL = [
    *("--encoder.width", "8", "--encoder.layers", "1", "--encoder.heads", "1", "--encoder.max-length", "6"),
    *("--epochs", "2", "--metric", "HR@5"),
]


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.csv"
    write_csv(cycle_log(n_users=40, n_items=12, length=6), path)
    return path


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"demo"}))
def test_a_command_names_its_arguments_and_not_their_types(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    more = {"analyse": ["noise"], "data": ["fetch"]}.get(command, [])
    with pytest.raises(SystemExit) as ended:
        main([command, *more, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    usage = re.sub(r"\[-[^][]*\]", "", text.splitlines()[0])  # without its options
    box = text.partition("positional arguments")[2].partition(" options")[0]
    names = re.findall(r"^\W{1,3}([A-Z_]+)\b", box, re.MULTILINE)
    assert names, text
    assert not {"STR", "PATH", "INT"} & {*names, *re.findall(r"\w+", usage)}, text
    # Before 1.0.16 tyro left the arguments out of a usage line that it shortened.
    assert set(names) <= set(re.findall(r"[A-Z_]+", usage)) or TYRO < (1, 0, 16), usage


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.split() == ["conseq", conseq.__version__]


def test_an_unknown_or_missing_command_is_a_users_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "unknown command 'trian'" in capsys.readouterr().err
    assert main([]) == 2


def test_train_evaluate_and_recommend_work_on_one_another(
    events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", "next_item", str(events), "--run", str(run), *SMALL, "--json"]) == 0
    captured = capsys.readouterr()
    trained = json.loads(captured.out)  # one object and nothing beside it
    assert trained["run"] == str(run)
    assert "leave-one-out lets training see" in captured.err
    assert captured.err.count("epoch ") >= 2
    for history in ("exclude", "keep"):
        assert main(["evaluate", str(run), str(events), "--history", history, "--json"]) == 0
        judged = json.loads(capsys.readouterr().out)
        assert judged["protocol"]["history"] == history
        reported = [one for one in trained["evaluations"] if one["protocol"]["history"] == history]
        assert judged["metrics"] == pytest.approx(reported[0]["metrics"])
        assert {"HR@5", "NDCG@20"} <= set(judged["metrics"])
        assert set(judged["floors"]) == {"popularity", "own history"}
    items = cycle_log(n_users=40, n_items=12, length=6).item_ids.ids
    assert main(["recommend", str(run / "bundle"), "--history", " ".join(items[:2]), "-k", "3", "--json"]) == 0
    assert capsys.readouterr().out.strip().startswith("{")


def test_the_same_command_again_goes_on_with_the_run(
    events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "next_item", str(events), "--run", str(tmp_path / "run"), *SMALL, "--json"]
    assert main(command) == 0
    first = json.loads(capsys.readouterr().out)
    assert main(command) == 0
    again = capsys.readouterr()
    assert "resuming after epoch 2" in again.err
    metrics = [[one["metrics"] for one in record["evaluations"]] for record in (first, json.loads(again.out))]
    assert metrics[0] == metrics[1]


def test_an_experiment_file_sets_what_the_command_line_does_not(
    events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "one.toml"
    file.write_text('[method]\nname = "next_item"\nloss = "gbce"\n[encoder]\nname = "gru4rec"\nwidth = 8\n')
    options = ["--experiment", str(file), "--epochs", "1", "--negatives", "3", "--run", str(tmp_path / "run"), "--json"]
    assert main(["train", "next_item", str(events), *options]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["method"] == {**record["method"], "name": "next_item", "loss": "gbce", "negatives": 3}
    assert (record["encoder"]["name"], record["encoder"]["width"]) == ("gru4rec", 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "next_item", "nowhere.csv"], "nowhere.csv"),
        (["train", "nextitem", "EVENTS"], "did you mean 'next_item'"),
        (["train", "next_item", "EVENTS", "--encoder", "sasrek"], "did you mean 'sasrec'"),
        (["train", "next_item", "EVENTS", "--experiment", "nowhere.toml"], "nowhere.toml"),
        (
            ["evaluate", "nowhere", "EVENTS", "--history", "keep"],
            "nowhere is not a bundle: it has no manifest.json; there is no such folder",
        ),
        (["recommend", "nowhere", "--history", "a"], "nowhere"),
    ],
)
def test_a_users_mistake_is_one_message_and_status_2(
    arguments: list[str], message: str, events: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(events) if one == "EVENTS" else one for one in arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "next_item", "EVENTS", "--epoch", "3"],
        ["train", "next_item", "EVENTS", "--epochs", "many"],
        ["train", "next_item", "EVENTS", "--epochs", "0"],
        ["evaluate", "RUN", "EVENTS"],  # a protocol has no default for the history
        ["evaluate", "RUN", "EVENTS", "--history", "drop"],
    ],
)
def test_an_option_that_does_not_exist_or_has_no_such_value_exits_with_2(
    arguments: list[str], events: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(events) if one == "EVENTS" else one for one in arguments])
    assert ended.value.code == 2
    assert capsys.readouterr().out == ""


def test_no_option_of_a_method_hides_one_of_the_training() -> None:
    training = set(TrainingConfig.__dataclass_fields__) | {"data", "run", "json", "quiet", "tensorboard"}
    for name, (_, config) in METHODS.items():
        assert not training & set(config.__dataclass_fields__), name


def test_ctrl_c_is_status_130(monkeypatch: pytest.MonkeyPatch, events: Path) -> None:
    def interrupted(source: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("conseq.data.readers.read", interrupted)
    assert main(["train", "next_item", str(events)]) == 130


def test_the_demo_ends_with_metrics_floors_and_recommendations(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("conseq.cli.demo.TRAINING", "--epochs 1 --encoder.width 8")
    assert main(["demo", "--users", "150", "--folder", str(tmp_path / "demo")]) == 0
    text = capsys.readouterr().out
    assert "history excluded" in text
    assert "popularity" in text
    assert len(text.strip().splitlines()[-1].split()) == 3
    assert (tmp_path / "demo" / "run" / "bundle" / "weights.safetensors").exists()


def test_the_demo_does_not_write_over_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "events.csv").write_text("user_id,item_id\nmine,1\n")
    assert main(["demo", "--users", "150", "--folder", str(tmp_path)]) == 2
    assert "is there already and is not the demo's log; choose another --folder" in capsys.readouterr().err
    assert (tmp_path / "events.csv").read_text() == "user_id,item_id\nmine,1\n"


def test_a_file_that_is_not_there_is_named_first(
    events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "next_item", str(events), "--experiment", str(tmp_path / "none.toml")]) == 2
    assert capsys.readouterr().err == f"conseq train: {tmp_path / 'none.toml'}: no such file or directory\n"


def test_options_of_another_command_are_told_where_they_belong(
    events: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for given, hint in {
        ("--time-unit", "ms"): "--time-unit is an option of `conseq prepare`: prepare the log with it, and give the",
        ("--repeats=last", "--k-core=5"): "--k-core, --repeats are options of `conseq prepare`: ",
        (str(events),): "several files of one log: name their folder, or a pattern in quotes",
        ("--epoch", "3"): "",
        ("--k_core", "5"): "--k-core is an option of `conseq prepare`",
    }.items():
        with pytest.raises(SystemExit) as ended:
            main(["train", "next_item", str(events), *given])
        assert ended.value.code == 2
        told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("conseq train: ")]
        assert len(told) == bool(hint)
        assert hint in "".join(told)


@pytest.mark.parametrize(
    ("command", "name", "text", "message"),
    [
        (
            "train next_item LOG",
            "log.csv",
            "who,what,when\na,x,1\n",
            "no column looks like the user or the item; found 'who', 'what', 'when'; name them with user= and item= "
            "(--user, --item in a shell); `conseq train` does not read logs otherwise: run `conseq prepare LOG FOLDER "
            "--user COLUMN --item COLUMN`, and give FOLDER in the place of LOG",
        ),
        (
            "evaluate MODEL LOG --history keep",
            "log.csv",
            "user,sku,asin\na,x,1\n",
            "several columns may be the item: 'sku', 'asin'; choose one with item= (--item in a shell); `conseq "
            "evaluate` does not read logs otherwise: run `conseq prepare LOG FOLDER --item COLUMN`, and give FOLDER in",
        ),
        ("recommend MODEL --log LOG", "log.dat", "a", "run `conseq prepare LOG FOLDER --format FORMAT`, and give"),
        ("evaluate-lists LISTS LOG --history keep", "log.csv", "a,b\n1,2\n", "FOLDER --user COLUMN --item COLUMN`,"),
        ("train next_item LOG", "log.csv", "user,item\na,\n", "line 2: the item is missing; every interaction needs a"),
    ],
)
def test_a_log_that_needs_options_of_prepare_is_sent_there_with_them(
    command: str, name: str, text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, lists = tmp_path / name, tmp_path / "lists.csv"
    log.write_text(text)
    lists.write_text("user,item\na,x\n")
    settings, model = GRU4RecConfig(width=4), tmp_path / "bundle"
    save_bundle(settings(ItemTable(2, 4)), settings, Vocabulary(["x", "y"], start=1), model, {})
    given = {"LOG": str(log), "LISTS": str(lists), "MODEL": str(model)}
    assert main([given.get(one, one) for one in command.split()]) == 2
    told = capsys.readouterr().err.replace(str(log), "LOG")
    assert message in told
    assert ("conseq prepare" in told) == ("--" in message or "conseq prepare" in message)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,b\nu,x\n", [], "name them with user= and item= (--user, --item in a shell)"),
        ("user,item,time\nu,x,1\n", ["--k-core", "2"], "choose k_core=1 (--k-core 1 in a shell) or less"),
        ("user,item,time\nu,x,1\n", ["--k-core", "2", "1"], "choose k_core=1 (--k-core 1 in a shell) or less"),
        ("user,item,time\nu,x,1\nu,y,1\n", ["--k-core", "3", "1"], "k_core=(2, 1) (--k-core 2 1 in a shell) or less"),
        ("user,item\nu,x\n", ["--repeats", "distinct"], "repeats='distinct' (--repeats distinct in a shell) keeps"),
        ("user,item\nu,x\n", ["--ties", "random"], "leave ties (--ties in a shell) at file_order"),
        ("user,item,time\nu,x,1\n", ["--tie-seed", "2"], "(--tie-seed and --ties in a shell)"),
        ("user,item,time\nu,x,2014-01-02\n", ["--time-unit", "ms"], "time_unit='ms' (--time-unit in a shell) is of"),
    ],
)
def test_what_python_calls_otherwise_than_the_shell_is_named_as_both_have_it(
    text: str, options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.csv").write_text(text)
    assert main(["prepare", str(tmp_path / "log.csv"), str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def search(tmp_path: Path) -> Path:
    """The folder of a search of four trials, the third of which was the best, and the fourth of which is the same."""
    folder = tmp_path / "tuned"
    (folder / "trials/0003/bundle").mkdir(parents=True)
    (folder / "search.json").write_text("{}")
    found = [(1, 0.1, 0), (2, None, 0), (3, 0.3, 0), (4, 0.3, 3)]
    trials = [asdict(Trial(number, {}, value, same_as=same)) for number, value, same in found]
    (folder / "trials.jsonl").write_text("".join(json.dumps(one) + "\n" for one in trials))
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "evaluate SEARCH EVENTS --history keep",
        "recommend SEARCH/ --history i1",
        "serve SEARCH --port 0",
        "export SEARCH items.npz",
        "similar SEARCH",
        "analyse representations SEARCH EVENTS",
        "train next_item EVENTS --start=SEARCH",
    ],
)
def test_the_folder_of_a_search_is_told_with_the_bundle_of_its_winner(
    command: str, search: Path, events: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command.replace("SEARCH", str(search)).replace("EVENTS", str(events)).split()) == 2
    told = capsys.readouterr().err
    assert f"{search} is not a bundle: it has no manifest.json; {search} is the folder of a search: the bundle" in told
    assert told.endswith(f"of its winner is {search}/trials/0003/bundle\n")


def test_a_search_without_a_bundle_says_how_it_gets_one(search: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told() -> str:
        assert main(["similar", str(search)]) == 2
        return capsys.readouterr().err

    (search / "trials/0003/bundle").rmdir()
    assert f"(the best trial so far is {search}/trials/0003): the same `conseq tune` command goes on" in told()
    (search / "trials.jsonl").unlink()
    assert told().endswith("is the folder of a search, none of whose trials has a value\n")
    (search / "trials.jsonl").write_text("{")
    assert told().endswith("is the folder of a search\n")
    (search / "search.json").unlink()
    assert told().endswith("it has no manifest.json\n")


def test_the_bundle_of_a_run_that_is_not_finished_is_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    for name in ("config.json", "checkpoint.pt"):
        (tmp_path / "run" / name).write_text("")
    for asked in (tmp_path / "run", tmp_path / "run/bundle"):
        assert main(["recommend", str(asked), "--history", "i1"]) == 2
        assert "is not finished: give its `conseq train` command again to go on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("own", "found"),
    [
        ({}, "10000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, None),
    ],
)
def test_waiting_threads_sleep_soon_unless_the_user_says_otherwise(
    own: dict[str, str], found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, own.get(name, ""))
        if name not in own:
            monkeypatch.delenv(name)

    main(["data", "list"])

    assert os.environ.get("GOMP_SPINCOUNT") == found


def test_an_error_in_a_file_of_the_users_own_is_shown_with_its_place(
    tmp_path: Path, events: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_mistake.py").write_text(
        "from conseq.methods.next_item import NextItem\n"
        "class Mine(NextItem):\n"
        "    def loss(self, batch, rng):\n"
        "        a, b, c = [1, 2]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["train", "own_mistake:Mine", str(events), "--run", str(tmp_path / "run"), "--quiet", *SMALL]) == 2
    told = capsys.readouterr().err
    assert 'own_mistake.py", line 4, in loss' in told
    assert told.splitlines()[-1] == "conseq train: not enough values to unpack (expected 3, got 2)"
