"""What must hold of the repository as a whole."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import conseq
from conseq.encoders import ENCODERS
from conseq.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HEAVY = ["torch", "polars", "scipy", "pandas", "pyarrow", "tensorboard", "optuna"]


def tracked() -> list[Path]:
    """Gives the files that git tracks; skips outside a clone."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0 or not listed.stdout:
        pytest.skip("not a clone with tracked files")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


def name_of(requirement: str) -> str:
    """Gives the normalised name of a requirement such as ``mkdocstrings[python]>=0.26``."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def requirements() -> dict[str, str]:
    """Gives the lower bound (or an empty string) of each requirement of the project and its extras, by name."""
    extras = [one for extra in PYPROJECT["optional-dependencies"].values() for one in extra]
    bounds = {}
    for one in [*PYPROJECT["dependencies"], *extras]:
        if name_of(one) != "conseq":
            bound = re.search(r">=([\d.]+)$", one)
            bounds[name_of(one)] = bound[1] if bound else ""
    return bounds


def pins(file: str) -> dict[str, str]:
    """Gives the version of each package that a constraints file names."""
    lines = [line for line in (ROOT / file).read_text().splitlines() if line and not line.startswith("#")]
    pairs = [line.split("==") for line in lines]
    assert all(len(pair) == 2 for pair in pairs), f"{file} must hold exact versions only"
    return {name_of(name): version for name, version in pairs}


def release(version: str) -> tuple[int, ...]:
    """Gives a version as numbers, without trailing zeros: 2.0 equals 2.0.0."""
    numbers = [int(part) for part in version.split(".") if part.isdigit()]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def test_no_weights_data_or_caches_are_tracked() -> None:
    refused = re.compile(
        r"\.(pt|pth|ckpt|safetensors|parquet|npy|npz|pkl|pickle|pyc)$|(^|/)(__pycache__|\.ipynb_checkpoints|\.idea|\.vscode)/"
    )

    assert [str(file) for file in tracked() if refused.search(str(file.relative_to(ROOT)))] == []


def test_no_tracked_file_is_large() -> None:
    assert [str(file) for file in tracked() if file.stat().st_size > 512_000] == []


def test_the_package_and_its_metadata_have_one_version() -> None:
    assert conseq.__version__ == PYPROJECT["version"]


def test_the_tested_set_names_every_requirement_within_its_bound() -> None:
    tested = pins("constraints.txt")

    for name, bound in requirements().items():
        assert name in tested, f"constraints.txt lacks {name}"
        assert release(tested[name]) >= release(bound), name


def test_the_lowest_set_is_the_bounds_of_what_users_install() -> None:
    extras = ("pandas", "report", "serve", "tensorboard", "tune", "test")
    asked = [one for extra in extras for one in PYPROJECT["optional-dependencies"][extra]]
    users = {name_of(one) for one in PYPROJECT["dependencies"] + asked} - {"conseq"}
    lowest, bounds = pins("constraints-lowest.txt"), requirements()

    assert set(lowest) == users
    for name in users - {"torch"}:  # torch: the file says why it stands higher
        assert release(lowest[name]) == release(bounds[name]), name


@pytest.mark.parametrize("program", ["import conseq", "from conseq.cli.main import main; main(['--help'])"])
def test_importing_and_asking_for_help_load_nothing_heavy(program: str) -> None:
    code = (
        "import contextlib, sys\n"
        f"with contextlib.suppress(SystemExit):\n    {program}\n"
        f"print('HEAVY', [name for name in {HEAVY} if name in sys.modules])\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize("file", sorted((ROOT / "src").rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT)))
def test_a_source_file_stays_within_the_size_limits(file: Path) -> None:
    text = file.read_text()
    functions = [one for one in ast.walk(ast.parse(text)) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]

    assert len(text.splitlines()) <= 400
    assert [one.name for one in functions if (one.end_lineno or 0) - one.lineno >= 60] == []


def test_every_public_module_has_a_place_in_the_reference() -> None:
    pages = "\n".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    shown = set(re.findall(r"^::: ([\w.]+)$", pages, re.MULTILINE))
    names = {
        "conseq" + "." + path.relative_to(ROOT / "src/conseq").parts[0].removesuffix(".py")
        for path in (ROOT / "src/conseq").rglob("*.py")
        if path.stat().st_size
    }
    hidden = {"conseq.__init__", "conseq.__main__", "conseq.cli"}

    assert names - hidden - shown == set()


@pytest.mark.parametrize("name", [name for name in METHODS if name != "next_item"])
def test_every_papers_method_has_a_page(name: str) -> None:
    page = ROOT / "docs" / "methods" / f"{name}.md"

    assert page.read_text().startswith("# ")


def test_the_guide_names_every_encoder() -> None:
    guide = (ROOT / "docs" / "guides" / "train.md").read_text()

    assert [name for name in ENCODERS if f"| `{name}` |" not in guide] == []
