"""Runs what the documentation shows, page by page, in an empty folder.

Every ``console`` and ``python`` block of a page runs in order; ``python`` blocks of a page continue one another. A
block with a title (```` ```toml title="mine.toml" ````) is a file of that name. What a page shows as output (after the
commands of a console block, or in a ``text`` block after a ``python`` one) must be printed in that form: numbers and
spacing may differ, ``...`` stands for any text and, alone on a line, for any lines. A block after
``<!-- not run: the reason -->`` is left out.

Trainings that a method's page shows and that are not run, because they need a real log, must at least be understood.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.command_server import WIDTH, CommandServer

import conseq
from conseq.cli import train
from conseq.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
PAGES = {str(page.relative_to(ROOT)): page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]}
TRAININGS = [
    found[1]
    for name, page in PAGES.items()
    if name.startswith("docs/methods/")
    for found in re.finditer(r"^\$ conseq (train (?:\\\n|.)+)$", page.read_text(), re.MULTILINE)
]
FIRST = "docs/getting-started.md"
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+?) -->\n+)?"
    r'^```(?P<kind>console|python|text|toml)(?: title="(?P<title>[^"\n]+)")?\n(?P<body>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Step:
    """Something to run, or a file to write, and the output that the page shows for it (empty: none shown)."""

    kind: str
    source: str
    shown: str
    title: str = ""


def steps(page: str) -> list[Step]:
    """Gives what a page asks a reader to run, in order."""
    found: list[Step] = []
    runs = False
    for block in BLOCK.finditer(page):
        kind, body = block["kind"], block["body"]
        if block["title"]:
            found.append(Step("file", body, "", block["title"]))
            continue
        if kind == "toml":
            raise AssertionError(f"a toml block needs a title, the file's name: {body!r}")
        if kind == "text":
            if runs and found and found[-1].kind == "python":
                found[-1] = Step("python", found[-1].source, body)
            continue
        runs = block["reason"] is None
        if runs:
            found += [Step("python", body, "")] if kind == "python" else commands(body)
    return found


def commands(block: str) -> list[Step]:
    """Gives the commands of a console block, each with the output shown under it."""
    parts = re.split(r"^\$ ", block.replace("\\\n", ""), flags=re.MULTILINE)
    assert not parts[0].strip(), f"a console block starts with a command after '$ ', found {parts[0]!r}"
    lines = [part.split("\n", 1) for part in parts[1:]]
    return [Step("console", command, shown) for command, shown in lines]


def form(line: str) -> str:
    """Gives a line with its numbers and spacing made alike."""
    return " ".join(re.sub(r"[-+]?\d[\d,]*\.?\d*(e[-+]?\d+)?|(?<!\w)\.\d+", "#", line).split())


def shows(printed: str, shown: str) -> bool:
    """Whether ``printed`` has the lines ``shown``, one after the other, with ``...`` for any text and any lines."""
    pattern = ""
    for line in filter(None, map(form, shown.splitlines())):
        pattern += r"(?:.*\n)*?" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r"\n"
    lines = "".join(form(line) + "\n" for line in printed.splitlines() if form(line))
    return re.search(r"(?:\A|(?<=\n))" + pattern, lines) is not None


def test_a_block_runs_unless_a_reason_is_given() -> None:
    page = "```python\na = 1\n```\n\n```text\n1\n```\n<!-- not run: needs a GPU -->\n```console\n$ conseq x\n```\n"

    assert steps(page) == [Step("python", "a = 1\n", "1\n")]


def test_commands_of_a_block_keep_their_own_output() -> None:
    page = "```console\n$ conseq a \\\n    b\none\n$ conseq c\n```\n"

    assert steps(page) == [Step("console", "conseq a     b", "one\n"), Step("console", "conseq c", "")]


def test_a_block_with_a_title_is_a_file() -> None:
    page = '```toml title="mine.toml"\n[training]\n```\n\n```python title="mine.py"\na = 1\n```\n'

    assert steps(page) == [Step("file", "[training]\n", "", "mine.toml"), Step("file", "a = 1\n", "", "mine.py")]
    with pytest.raises(AssertionError, match="a toml block needs a title"):
        steps("```toml\n[training]\n```\n")


def test_output_is_compared_by_form_and_not_by_number() -> None:
    assert shows("NDCG@10   0.0431\nrest\n", "NDCG@10  .05\n")
    assert shows("a 1\nb\nc\nd\n", "a 2\n...\nd\n")
    assert shows("a: long\nb\n", "a: ...\nb\n")
    assert not shows("NDCG@10 0.04\n", "HR@10 0.04\n")
    assert not shows("a\nb\nc\n", "a\nc\n")


@pytest.mark.slow
def test_a_server_of_commands_gives_status_and_output_of_each_and_lives_on(tmp_path: Path) -> None:
    with CommandServer() as server:
        version = server.run(["--version"], tmp_path)
        unknown = server.run(["fly"], tmp_path)
        refused = server.run(["prepare", "none.csv", "data"], tmp_path)
        demo = server.run(["demo", "--help"], tmp_path)

    assert version == (0, f"conseq {conseq.__version__}\n")
    assert unknown[0] == 2
    assert unknown[1].startswith("conseq: unknown command 'fly'")
    assert refused == (2, "conseq prepare: none.csv: there is no such file\n")
    assert demo[0] == 0
    assert "usage: conseq demo" in demo[1]


def test_what_the_shell_must_read_is_left_to_it() -> None:
    assert only_conseq("conseq train next_item data --split.val 2014-01-01")
    assert not only_conseq("conseq recommend bundle | head")
    assert not only_conseq("conseq compare runs/*")
    assert not only_conseq("printf 'a' > file")


@pytest.fixture(scope="module")
def server() -> Iterator[CommandServer]:
    with CommandServer() as started:
        yield started


@pytest.mark.slow
@pytest.mark.parametrize("page", [name for name, page in PAGES.items() if steps(page.read_text())])
def test_what_a_page_shows_runs(
    page: str, server: CommandServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if page.startswith("docs/methods/") and Path(page).stem not in METHODS:
        pytest.skip(f"{Path(page).stem} is not in METHODS")
    monkeypatch.chdir(tmp_path)
    if page != FIRST:  # every page may use the log that the first one makes
        run_python(steps(PAGES[FIRST].read_text())[0], {}, FIRST)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for step in steps(PAGES[page].read_text()):
        if step.kind == "file":
            Path(step.title).write_text(step.source, encoding="utf-8")
            continue
        if step.kind == "python":
            printed = run_python(step, namespace, page)
        elif page == FIRST or not only_conseq(step.source):
            printed = run_command(step)
        else:
            status, printed = server.run(shlex.split(step.source)[1:], tmp_path)
            assert status == 0, f"$ {step.source}\nended with {status}:\n{printed}"
        assert shows(printed, step.shown), f"{step.source}\nprinted:\n{printed}\nthe page shows:\n{step.shown}"


@pytest.mark.parametrize("command", TRAININGS)
def test_a_training_that_a_methods_page_shows_is_understood(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    argv = shlex.split(command.replace("\\\n", ""))[1:]
    if argv[0] not in METHODS:
        pytest.skip(f"{argv[0]} is not in METHODS")

    options, config = train._parse(*train._names(argv))

    assert config.method_name == argv[0]
    assert options.data == argv[1]


def run_python(step: Step, namespace: dict[str, object], page: str) -> str:
    """Gives what the program prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(step.source, page, "exec"), namespace)
    return out.getvalue()


def only_conseq(command: str) -> bool:
    """Whether a command is ``conseq`` with arguments, and nothing of the shell's."""
    return command.startswith("conseq ") and not set(command) & set("|<>&;$`*~")


def run_command(step: Step) -> str:
    """Gives what the command prints, on standard output and on standard error."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", step.source],
        env={**os.environ, "PATH": path, "COLUMNS": WIDTH},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, f"$ {step.source}\nended with {done.returncode}:\n{done.stdout}"
    return done.stdout
