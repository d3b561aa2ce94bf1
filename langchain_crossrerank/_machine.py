"""This machine: the cores and the memory that this process may use, and a folder for what is made here once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from langchain_crossrerank.files import write_whole

CACHE_VARIABLE = "CROSSRERANK_CACHE"
"""Environment variable that names the folder for graphs and calibrations."""

_logger = logging.getLogger(__name__)

_CPUS = Path("/sys/devices/system/cpu")
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_MEMORY = Path("/proc/meminfo")


def usable_cores() -> int | None:
    """Count the physical cores that this process may keep busy.

    Two hardware threads of one core count once, because matrix products gain nothing from the second. A quota that a
    container sets (cgroup v1 or v2) is rounded down: threads beyond it would only wait for each other.

    Returns:
        1 or more; `None` on systems without this information, which leaves the choice to onnxruntime.
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
    """Return the quotas, in cores, of this process's control groups and of all above them."""
    for folder in _control_groups("cpu"):
        yield from _quota(folder)


def _control_groups(controller: str) -> Iterator[Path]:
    """Return the folders of this process's control groups and of all above them."""
    for line in _read(_OWN_CGROUP).splitlines():
        _, _, named = line.partition(":")
        controllers, _, path = named.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        root = _CGROUPS / controller if controllers else _CGROUPS
        own = root / path.lstrip("/")
        # Inside a container the path may be the host's, and its own group is the root.
        yield from (folder for folder in {root, own, *own.parents} if folder.is_relative_to(root))


def _quota(folder: Path) -> Iterator[float]:
    """Read one group's quota: `max 100000` or `150000 100000` in version 2, two files in version 1; -1 means none."""
    written = _read(folder / "cpu.max") or f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"
    numbers = [int(word) for word in written.split() if word.lstrip("-").isdigit()]
    if len(numbers) == 2 and min(numbers) > 0:
        yield numbers[0] / numbers[1]


def available_memory() -> int | None:
    """Return the bytes of memory that this process may still take.

    That is what the machine has available, or less if a container (cgroup v1 or v2) sets a limit. Cached content of
    files, which the kernel gives up when memory is short, counts as available.

    Returns:
        Bytes, or `None` if the system does not say.
    """
    free = [int(line.split()[1]) * 1024 for line in _read(_MEMORY).splitlines() if line.startswith("MemAvailable:")]
    limits = [*free, *_memory_left()]
    return max(0, min(limits)) if limits else None


def _memory_left() -> Iterator[int]:
    """Return, in bytes, what this process's control groups and all above them leave."""
    for folder in _control_groups("memory"):
        limit = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")
        used = _read(folder / "memory.current") or _read(folder / "memory.usage_in_bytes")
        # Version 1 has a number close to 2**63 for no limit.
        if limit.isdigit() and int(limit) < 2**60:
            statistics = dict(
                line.split(maxsplit=1) for line in _read(folder / "memory.stat").splitlines() if " " in line
            )
            cached = statistics.get("total_inactive_file") or statistics.get("inactive_file") or ""
            yield int(limit) - _number(used) + _number(cached)


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def cache_folder() -> Path:
    """Return the folder for what is made once per machine: `CROSSRERANK_CACHE`, or one in the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(base) / "langchain-crossrerank"


def cached_file(file_name: str) -> Path:
    """Return the path of a file in the cache folder.

    Raises:
        OSError: If there is no cache folder because the user has no home.
    """
    try:
        return cache_folder() / file_name
    except RuntimeError as err:
        raise OSError(f"{err}; name a folder in {CACHE_VARIABLE}") from err


def recall(name: str) -> dict[str, Any] | None:
    """Return what `remember` saved under this name on this machine, or `None` if there is nothing usable."""
    try:
        content = json.loads(cached_file(f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def remember(name: str, content: dict[str, Any]) -> None:
    """Save a small finding for later processes; if the folder is not writable, each process finds it again."""
    try:
        write_whole(cached_file(f"{name}.json"), json.dumps(content) + "\n")
    except OSError as err:
        _logger.info("%s.json cannot be written (%s), so it is not saved", name, err)


def machine_key(*parts: object) -> str:
    """Return a short name for this kind of processor and everything else that decides how fast something runs."""
    # Loaded by now; the metadata of the installed distribution would take milliseconds to find and parse.
    import onnxruntime

    described = "|".join(map(str, (_processor(), onnxruntime.__version__, *parts)))
    return hashlib.blake2b(described.encode(), digest_size=12).hexdigest()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        import platform

        return platform.processor()
    # Virtual machines hide the name; the instructions decide the speed.
    wanted = ("model name", "cpu family", "model", "flags", "Features")
    named = {line.partition(":")[0].strip(): line for line in lines if line.partition(":")[0].strip() in wanted}
    return "\n".join(named.values())
