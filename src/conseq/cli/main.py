"""The ``conseq`` command: finds the sub-command and turns a user's mistake into one message and status 2."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import conseq
from conseq.cores import SHARED_CORES, cores

COMMANDS = {
    "prepare": "read a log, filter it, and store it for training",
    "train": "train a method on a prepared folder or a log, and judge it",
    "snapshot": "write the bundle of the best epoch so far, of a run that is not finished",
    "tune": "search for settings: trials compared on validation, the winner judged",
    "evaluate": "judge a run or a bundle on held-out items under a stated protocol",
    "evaluate-lists": "judge recommendations that something else made, from a table",
    "compare": "compare finished runs with one another",
    "analyse": "noise, user groups, cost, representations, views and clusters of a stored model",
    "recommend": "recommend items for histories from a bundle",
    "similar": "give the items nearest to items, from a bundle",
    "serve": "answer requests for recommendations over HTTP",
    "export": "write the item vectors of a bundle",
    "import-weights": "turn published weights into a bundle",
    "data": "list known data sets, fetch one",
    "reproduce": "run a paper's table and print it beside ours",
    "report": "write records and runs as a static HTML report",
    "demo": "the main job on a built-in synthetic log",
}


def main(argv: list[str] | None = None) -> int:
    """Runs a sub-command.

    Args:
        argv: The arguments after ``conseq``; those of the process where None.

    Returns:
        The exit status: 0, or 2 for a user's mistake, or 130 after Ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in COMMANDS:
        return _run(argv[0], argv[1:])
    if argv and argv[0] in {"-h", "--help", "--version"}:
        print(f"conseq {conseq.__version__}" if argv[0] == "--version" else _usage())
        return 0
    problem = f"unknown command {argv[0]!r}" if argv else "a command is missing"
    print(f"conseq: {problem}\n\n{_usage()}", file=sys.stderr)
    return 2


def _run(name: str, argv: list[str]) -> int:
    """Runs the command called ``name``; a mistake of the user's becomes one message and status 2."""
    # A refused value is told with what was found and expected; a web address of the checker's adds nothing.
    os.environ.setdefault("PYDANTIC_ERRORS_INCLUDE_URL", "0")
    _share_the_cores()
    command = importlib.import_module(f"conseq.cli.{name.replace('-', '_')}")
    try:
        with _hints(name, argv):
            return int(command.run(argv))
    except KeyboardInterrupt as stopped:
        if str(stopped):  # a training that saved its state
            print(f"conseq {name}: {stopped}; its state is saved, and the same command goes on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output is gone (`| head`); Python would complain once more while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, KeyError, TypeError, FloatingPointError, ModuleNotFoundError) as error:
        if os.environ.get("CONSEQ_DEBUG"):
            raise
        if _comes_from_elsewhere(error):
            import traceback

            traceback.print_exception(error)
        from conseq.cli.hints import of_a_search

        message = str(_message(error))
        hint = of_a_search(argv, message) if name != "tune" else ""
        print(f"conseq {name}: {message}{hint}", file=sys.stderr)
        return 2


@contextmanager
def _hints(name: str, argv: list[str]) -> Iterator[None]:
    """Says where arguments belong that the command refuses."""
    try:
        yield
    except SystemExit as ended:
        if ended.code:  # tyro has shown what it refuses
            from conseq.cli.hints import hints

            for hint in hints(name, argv):
                print(f"conseq {name}: {hint}", file=sys.stderr)
        raise


def _comes_from_elsewhere(error: BaseException) -> bool:
    """Whether a file of the user's own, such as a method, was at work: then the message alone does not say where."""
    import sysconfig
    import traceback
    from pathlib import Path

    roots = [str(Path(__file__).parents[1]), *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))]
    files: list[str] = []
    told: BaseException | None = error
    while told is not None:
        files += [frame.filename for frame in traceback.extract_tb(told.__traceback__)]
        told = told.__cause__
    return any(not one.startswith(("<", *roots)) for one in files)


def _share_the_cores() -> None:
    """Lets threads be as many as this process may use, and sleep soon; must come before torch is imported."""
    # GNU's OpenMP, which torch has on Linux, lets them spin for about a millisecond. Where others are at work on the
    # cores, they take from the very thread that is waited for: twice the time. This is some 30 microseconds, and costs
    # nothing where the machine is idle.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if "OMP_NUM_THREADS" not in os.environ and (mine := cores()) < (os.cpu_count() or 1):
        # torch would count the cores of the machine, not a container's share
        os.environ["OMP_NUM_THREADS"] = os.environ[SHARED_CORES] = str(mine)


def _message(error: Exception) -> object:
    """Gives what is said of an error; the system's own name their file last and begin with a number."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    return error.args[0] if isinstance(error, KeyError) and error.args else error


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: conseq COMMAND ...",
            "",
            "Train, judge and serve next-item recommenders.",
            "",
            "commands:",
            *lines,
            "",
            "`conseq COMMAND --help` tells of its options; `conseq --version` prints the version.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
