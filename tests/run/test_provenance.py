"""The hash of the code that decides a result: what moves it, and what does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conseq.run import provenance
from conseq.run.config import RunConfig, from_record
from conseq.run.provenance import bare, code_hash, commit, machine

SOURCE = '''"""What it is."""

import os  # why

X = "a # b"  # no comment within the string


class A:
    """Doc."""

    y: int = 1
    """Doc of y."""

    def f(self) -> str:
        """Doc."""
        # a remark

        return """kept"""
'''


def config(method: str) -> RunConfig:
    return from_record({"method": {"name": method}}, source="test")


def test_comments_docstrings_and_empty_lines_are_left_out_and_nothing_else() -> None:
    expected = 'import os\nX = "a # b"\nclass A:\n    y: int = 1\n    def f(self) -> str:\n        return """kept"""'
    assert bare(SOURCE) == expected


def test_what_a_method_needs_is_among_its_modules_and_other_methods_are_not() -> None:
    found = provenance._reached([*provenance._START, "conseq.methods.iclrec", "conseq.encoders.sasrec"])
    needed = {
        "methods.iclrec",
        "encoders.sasrec",
        "nn.attention",
        "signals.clusters",
        "training.trainer",
        "data.splits",
    }
    assert {f"conseq.{one}" for one in needed} <= set(found)
    assert not {"conseq.methods.duorec", "conseq.encoders.caser", "conseq.cli.train", "conseq.config"} & set(found)


def test_the_hash_changes_with_the_code_of_the_method_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def hashes() -> dict[str, str]:
        provenance._code_hash.cache_clear()
        return {name: code_hash(config(name)) for name in ("duorec", "iclrec")}

    before = hashes()
    file = Path(provenance._ROOT / "methods/duorec.py")
    changed = tmp_path / "duorec.py"
    text = file.read_text(encoding="utf-8")
    real = provenance._path

    def path(name: str) -> Path | None:
        return changed if name == "conseq.methods.duorec" else real(name)

    monkeypatch.setattr(provenance, "_path", path)
    changed.write_text(text + "\n\n# only a remark\n", encoding="utf-8")
    assert hashes() == before
    changed.write_text(text + "\nMORE = 1\n", encoding="utf-8")
    after = hashes()
    assert after["duorec"] != before["duorec"]
    assert after["iclrec"] == before["iclrec"]
    provenance._code_hash.cache_clear()


def test_how_weights_are_taken_over_decides_a_run_that_starts_from_some() -> None:
    assert provenance._STARTING not in provenance._starts(config("iclrec"))
    for start in (config("s3rec"), 64 * "a"):
        found = provenance._starts(replace(config("iclrec"), start=start))
        assert provenance._STARTING in found
        reached = provenance._reached(found)
        assert provenance._STARTING in reached
        assert "conseq.serving.bundle" not in reached


def test_a_method_of_the_user_s_own_is_hashed_by_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "own_method.py").write_text(
        "from conseq.methods.next_item import NextItem, NextItemConfig\n\n\nclass Own(NextItem):\n"
        "    def __init__(self, config: NextItemConfig, train: object, backbone: object) -> None: ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    own = config("own_method:Own")
    assert len(code_hash(own)) == 12
    assert code_hash(own) != code_hash(config("next_item"))


def test_the_machine_and_the_commit_are_told() -> None:
    assert machine().endswith("cores")
    assert commit() == "" or len(commit().rstrip("+")) == 10
