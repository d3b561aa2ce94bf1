"""How many processor cores this process may use: physical ones, within its affinity and its container's quota."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def usable_cores() -> int | None:
    """Count the physical cores that this process may keep busy.

    Two hardware threads of one core count once, because matrix products gain nothing from the second. A quota that a
    container sets (cgroup v1 or v2) is rounded down: threads beyond it would only wait for each other.

    Returns:
        At least 1; `None` where the system does not tell, which leaves the choice to onnxruntime.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = os.sched_getaffinity(0)
    cores = {_siblings(cpu) for cpu in allowed}
    limits = [len(cores), *(int(quota) for quota in _quotas())]
    return max(1, min(limits))


def _siblings(cpu: int) -> str:
    file = _CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list"
    return _read(file) or str(cpu)


def _quotas() -> Iterator[float]:
    """Give the quotas, in cores, of this process's control groups and of all above them."""
    for line in _read(_OWN_CGROUP).splitlines():
        _, _, named = line.partition(":")
        controllers, _, path = named.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = _CGROUPS / "cpu" if controllers else _CGROUPS
        own = root / path.lstrip("/")
        # Inside a container the path may be the host's, and its own group is the root.
        for folder in {root, own, *own.parents}:
            if folder.is_relative_to(root):
                yield from _quota(folder)


def _quota(folder: Path) -> Iterator[float]:
    """Read one group's quota: `max 100000` or `150000 100000` in version 2, two files in version 1; -1 is none."""
    written = _read(folder / "cpu.max") or f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"
    numbers = [int(word) for word in written.split() if word.lstrip("-").isdigit()]
    if len(numbers) == 2 and min(numbers) > 0:
        yield numbers[0] / numbers[1]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
