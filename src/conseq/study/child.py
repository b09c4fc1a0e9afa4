"""A process that a study starts: it trains a run or analyses it, and stops when the study is gone.

``python -m conseq.study.child PARENT train EXPERIMENT DATA RUN [START]``, where ``START`` is the run that this one
starts from, or ``PARENT analyse REQUEST DATA RUN OUT``, where ``REQUEST`` is a file with an analysis's section, as in a
table, and the ``history``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from conseq.analyses import analyse
from conseq.data.files import atomic_write
from conseq.data.readers import read
from conseq.run import runner
from conseq.run.config import from_record, read_experiment
from conseq.run.provenance import code_hash
from conseq.study.asked import asked_for
from conseq.training.trainer import Stopped

STOPPED = 130
"""The status of a process that was asked to stop, and can be gone on with."""
_EVERY = 1.0


def main(argv: list[str]) -> int:
    """Trains or analyses.

    Args:
        argv: The arguments.

    Returns:
        The exit status: 0, 2 with one message for what went wrong, or :data:`STOPPED`.
    """
    parent, what, *paths = argv
    try:
        stop_without(int(parent))
        act: Callable[..., None] = _train if what == "train" else _analyse
        act(*map(Path, paths))
    except Stopped as stopped:
        print(f"{stopped}; its state is saved", file=sys.stderr)
        return STOPPED
    except KeyboardInterrupt:
        return STOPPED
    except (ValueError, OSError, KeyError, TypeError, FloatingPointError, ModuleNotFoundError) as error:
        print(f"conseq {what}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def stop_without(parent: int) -> None:
    """Interrupts this process, as Ctrl-C does, once ``parent`` is no longer the one that waits for it.

    A study that is killed cannot ask anything of its runs; left alone they would go on beside those that the next call
    starts. On Windows a process keeps the number of its dead parent, so nothing is watched.

    Args:
        parent: The number of the process that started this one.
    """
    if sys.platform == "win32":
        return
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell has it for what it starts in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_EVERY)
        # To the thread that computes: a signal to the process may reach this one, and not wake that.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


def _train(experiment: Path, data: Path, run: Path, start: Path | None = None) -> None:
    config = from_record(read_experiment(experiment), source=str(experiment))
    code_hash(config)  # of the code as it is now, which is what runs: reading the log may take minutes
    runner.run(config, read(str(data)), folder=run, start=start, show="lines")


def _analyse(request: Path, data: Path, run: Path, out: Path) -> None:
    told = json.loads(request.read_text(encoding="utf-8"))
    asked = asked_for(told["analysis"], told["history"], source=str(request))
    config = from_record(read_experiment(run / "config.json"), source=str(run))
    asked.stamped({}, config)  # the hash of the code as it is now, which is what runs
    found = analyse(asked.name, asked.given, run, read(str(data)), history=asked.history, show="lines")
    atomic_write(out, json.dumps(asked.stamped(found, config)) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
