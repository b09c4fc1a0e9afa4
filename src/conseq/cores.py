"""How many cores this process may use, which in a container are seldom those of the machine."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

SYSTEM = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
SHARED_CORES = "CONSEQ_CORES"
"""The variable that tells the processes of a command which number of threads is the command's own choice."""


def cores() -> int:
    """Gives the number of cores that this process may use: those that it is bound to, or its quota of their time.

    A container's quota (``docker --cpus 2``, a limit in Kubernetes, ``CPUQuota=`` of systemd) hides no core, so a
    program that counts cores starts as many threads as the whole machine has, which then wait for one another.

    Returns:
        At least 1. A quota of one core and a half counts as 2.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = min(_quotas(SYSTEM, OWN), default=math.inf)
    return max(1, bound if quota == math.inf else min(bound, math.ceil(quota)))


def _quotas(system: Path, own: Path) -> Iterator[float]:
    """Gives the quotas, in cores, of the control groups that this process is in, of both versions of Linux's."""
    try:
        lines = own.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return  # not Linux
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        # The older groups are mounted by the controllers' names, in an order that need not be the line's.
        roots = [system / one for one in {controllers, "cpu", "cpu,cpuacct"}] if controllers else [system]
        # A container sees its own group as the root, though it may be told of the path outside.
        own_path = group.lstrip("/")
        for root in roots:
            for folder in (root / own_path, *(root / one for one in Path(own_path).parents)):
                yield from _quota(folder)


def _quota(folder: Path) -> Iterator[float]:
    """Gives the quota of one group; nothing where it has none."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        if quota not in {"max", "-1"}:
            yield int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return
