"""Runs ``conseq`` commands in forks of one process that has everything imported: a page shows many of them.

Each still has a process of its own, with its own output and status; what is left out is that Python starts and imports
torch anew, which takes longer than most of the commands.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from conseq.cli.main import COMMANDS, main

WIDTH = "120"


class CommandServer:
    """The process, which lives as long as the ``with`` block."""

    def __enter__(self) -> CommandServer:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, "COLUMNS": WIDTH},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def run(self, argv: Sequence[str], folder: Path) -> tuple[int, str]:
        """Gives the status of ``conseq`` with ``argv`` in ``folder``, and all that it prints."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.NamedTemporaryFile("r", encoding="utf-8") as printed:
            self._process.stdin.write(json.dumps([list(argv), str(folder), printed.name]) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
            assert answer, "the process that runs the commands has ended"
            return int(answer), printed.read()


def serve() -> None:
    """Reads commands from standard input, a JSON line each, and writes the status of each."""
    for name in COMMANDS:
        importlib.import_module(f"conseq.cli.{name.replace('-', '_')}")
    for name in ("conseq.run.runner", "conseq.report", "conseq.evaluation.tables", "conseq.serving.recommender"):
        importlib.import_module(name)
    for line in sys.stdin:
        argv, folder, printed = json.loads(line)
        if (child := os.fork()) == 0:
            os._exit(_status(argv, folder, printed))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _status(argv: list[str], folder: str, printed: str) -> int:
    os.chdir(folder)
    for number, (file, how) in enumerate([(os.devnull, os.O_RDONLY), (printed, os.O_WRONLY | os.O_APPEND)]):
        os.dup2(os.open(file, how), number)
    os.dup2(1, 2)
    try:
        return main(argv)
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:  # noqa: BLE001  (whatever it is: the test shows it)
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    serve()
