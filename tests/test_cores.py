"""Cores are counted as the control groups of Linux allow them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import conseq.cores
from conseq.cores import cores


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 64 cores whose control groups a test writes."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(conseq.cores, "SYSTEM", tmp_path / "groups")
    monkeypatch.setattr(conseq.cores, "OWN", tmp_path / "own")
    return tmp_path


def _write(system: Path, own: str, files: Mapping[str, str] | None = None) -> None:
    (system / "own").write_text(own)
    for name, text in (files or {}).items():
        path = system / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("200000 100000\n", 2), ("150000 100000\n", 2), ("50000 100000\n", 1), ("max 100000\n", 64), ("damaged", 64)],
)
def test_a_container_has_its_quota(system: Path, quota: str, expected: int) -> None:
    _write(system, "0::/\n", {"cpu.max": quota})
    assert cores() == expected


def test_the_smallest_quota_of_a_group_and_those_around_it_counts(system: Path) -> None:
    files = {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000", "cpu.max": "800000 100000"}
    _write(system, "0::/a/b\n", files)
    assert cores() == 3


def test_a_path_of_outside_the_container_leads_to_its_root(system: Path) -> None:
    _write(system, "0::/docker/1234\n", {"cpu.max": "400000 100000"})
    assert cores() == 4


@pytest.mark.parametrize(("quota", "expected"), [("250000\n", 3), ("-1\n", 64)])
def test_the_older_groups_are_read_too(system: Path, quota: str, expected: int) -> None:
    own = "9:name=systemd:/\n3:cpu,cpuacct:/kube\n1:memory:/kube\n"
    kube = "cpu,cpuacct/kube"
    _write(system, own, {f"{kube}/cpu.cfs_quota_us": quota, f"{kube}/cpu.cfs_period_us": "100000\n"})
    assert cores() == expected


def test_the_folder_of_the_older_groups_may_name_the_controllers_in_another_order(system: Path) -> None:
    quota = {"cpu,cpuacct/x/cpu.cfs_quota_us": "200000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"}
    _write(system, "4:cpuacct,cpu:/x\n", quota)
    assert cores() == 2


@pytest.mark.parametrize("own", ["", "nonsense\n", "0:\n", "a:b:c:d\n"])
def test_a_line_that_is_none_is_passed_over(system: Path, own: str) -> None:
    _write(system, own)
    assert cores() == 64


def test_more_than_there_are_is_not_believed(system: Path) -> None:
    _write(system, "0::/\n", {"cpu.max": "12800000 100000"})
    assert cores() == 64


def test_where_there_are_no_groups_the_cores_count(system: Path) -> None:
    assert cores() == 64


@pytest.mark.parametrize(("own", "expected"), [(None, "3"), ("5", "5")])
def test_the_command_starts_no_more_threads_than_it_may_use(own: str | None, expected: str) -> None:
    code = (
        "import os, conseq.cores\n"
        "os.cpu_count = lambda: 64\n"
        "os.sched_getaffinity = lambda _: set(range(64))\n"
        "conseq.cores._quotas = lambda system, own: iter([3.0])\n"
        "from conseq.cli.main import main\n"
        "main(['data', 'list'])\n"
        "print('THREADS', os.environ.get('OMP_NUM_THREADS'))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {} if own is None else {"OMP_NUM_THREADS": own}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == f"THREADS {expected}"
