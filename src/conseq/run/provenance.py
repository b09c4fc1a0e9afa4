"""What made a run: the commit, a hash of the modules that decide its result, the machine and the versions."""

from __future__ import annotations

import ast
import hashlib
import io
import platform
import subprocess
import sys
import tokenize
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path

from conseq.cores import cores
from conseq.run.config import RunConfig, encoder_class, method_class

_ROOT = Path(__file__).resolve().parents[1]
# What every run computes with; the runner only joins these and writes files.
_START = (
    "conseq.data.train_set",
    "conseq.evaluation.evaluator",
    "conseq.run.splitting",
    "conseq.training.trainer",
)
# How a run takes over weights; what this imports reads files and settings, and decides nothing of what they hold.
_STARTING = "conseq.run.starting"
# Lists of names, reading of settings, and what is shown: none of them decides what a run learns.
_LEFT_OUT = frozenset({"conseq.methods", "conseq.encoders", "conseq.config", "conseq.training.records"})
# An analysis is made of a run: what joins the run's parts, and puts folders in their place, decides no more of the one
# than of the other.
_LEFT_OUT_OF_ANALYSES = _LEFT_OUT | {
    "conseq.analyses",
    "conseq.data.folders",
    "conseq.run.config",
    "conseq.run.provenance",
    "conseq.run.runner",
}


def code_hash(config: RunConfig) -> str:
    """Gives 12 digits that change when code changes that decides the result of ``config``.

    They are of the text of the method's and the encoder's modules, of those that train, cut and evaluate, and of all
    that these import from this package, without comments, docstrings and empty lines.

    Args:
        config: The experiment.

    Returns:
        The first 12 digits of a SHA-256.
    """
    return _code_hash(_starts(config))


def analysis_hash(module: str, config: RunConfig) -> str:
    """Gives 12 digits that change when code changes that decides what an analysis finds in a run of ``config``.

    They are of the text of the analysis's module and of all that it imports from this package, as in :func:`code_hash`,
    but for what that hash holds already: the run's record tells of that.

    Args:
        module: The analysis's module, such as ``conseq.analyses.noise``.
        config: The experiment whose run is analysed.

    Returns:
        The first 12 digits of a SHA-256.
    """
    return _analysis_hash(module, _starts(config))


@cache
def commit() -> str:
    """Gives the commit of the source tree, with ``+`` where the code was edited since; empty outside a repository."""
    here = _ROOT.parents[1]
    if not (here / ".git").exists():
        return ""
    found = _git("rev-parse", "--short=10", "HEAD")
    return f"{found}+" if found and _git("status", "--porcelain", "--", "src") else found


@cache
def machine(gpu: str = "") -> str:
    """Gives the processor and the number of its cores that may be used.

    Args:
        gpu: The name of the GPU that computes, if one does.

    Returns:
        One line.
    """
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return ", ".join(filter(None, (name, f"{cores()} cores", gpu)))


def versions() -> dict[str, str]:
    """Gives the versions of what computes a run."""
    found = {name: metadata.version(name) for name in ("conseq", "torch", "numpy", "polars")}
    return {**found, "python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _starts(config: RunConfig) -> tuple[str, ...]:
    own = method_class(config.method_name)[0].__module__, encoder_class(config.encoder_name).__module__
    if config.start is None:
        return own
    # What made the weights that a run starts from decides its result, too, and how it takes them over.
    before = _starts(config.start) if isinstance(config.start, RunConfig) else ()
    return (*own, _STARTING, *before)


@cache
def _code_hash(starts: tuple[str, ...]) -> str:
    return _hashed(_reached([*_START, *starts]))


@cache
def _analysis_hash(module: str, starts: tuple[str, ...]) -> str:
    of_run = _reached([*_START, *starts])
    own = _reached([module], _LEFT_OUT_OF_ANALYSES)
    return _hashed({name: text for name, text in own.items() if name not in of_run})


def _hashed(texts: Mapping[str, str]) -> str:
    found = hashlib.sha256()
    for name, text in sorted(texts.items()):
        found.update(f"{name}\n{text}\n".encode())
    return found.hexdigest()[:12]


def _reached(starts: Sequence[str], left_out: Set[str] = _LEFT_OUT) -> dict[str, str]:
    """Gives the bare text of the modules and of all that they import from this package, by name."""
    texts: dict[str, str] = {}
    waiting = list(starts)
    while waiting:
        name = waiting.pop()
        path = _path(name)
        if name in texts or name in left_out or path is None:
            continue
        source = path.read_text(encoding="utf-8")
        texts[name], imports = _told(source)
        waiting.extend(imports if name != _STARTING else ())
    return texts


def _path(name: str) -> Path | None:
    if name == "conseq" or name.startswith("conseq."):
        place = _ROOT.joinpath(*name.split(".")[1:])
        options = (place.with_suffix(".py"), place / "__init__.py")
        return next((one for one in options if one.is_file()), None)
    file = getattr(sys.modules.get(name), "__file__", None)  # a method or an encoder of the user's own
    return Path(file) if file else None


@lru_cache(maxsize=512)  # by text, which may change under a name; one page of results asks for each 60 times
def _told(source: str) -> tuple[str, tuple[str, ...]]:
    """Gives the bare text of a module and what it imports from this package."""
    lines, imports = source.splitlines(), list[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            _blank_docstrings(node, lines)
        imports += _imported(node)
    return "\n".join(line.rstrip() for line in lines if line.strip()), tuple(imports)


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (one.name for one in node.names if one.name.startswith("conseq"))
    elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("conseq"):
        yield node.module
        yield from (f"{node.module}.{one.name}" for one in node.names)


def bare(source: str) -> str:
    """Gives Python source without comments, docstrings and empty lines.

    It works on the text: what ``ast`` would print differs between versions of Python.

    Args:
        source: The source of a module.

    Returns:
        What is left.
    """
    return _told(source)[0]


def _blank_docstrings(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]
) -> None:
    """Empties the lines of a docstring, and of the strings that document the attributes of a class."""
    for statement in node.body:
        value = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            for row in range(statement.lineno - 1, statement.end_lineno or statement.lineno):
                lines[row] = ""
