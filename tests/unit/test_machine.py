"""How many cores a process may use: hyperthreads, affinity, and quotas of control groups in both versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from langchain_crossrerank import _machine as cores
from langchain_crossrerank._machine import usable_cores


class Machine:
    """A machine made of files: processors that may be used, their siblings, and control groups."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cpus, self.cgroups, self.own = root / "cpu", root / "cgroup", root / "self-cgroup"
        self.patch = monkeypatch
        monkeypatch.setattr(cores, "_CPUS", self.cpus)
        monkeypatch.setattr(cores, "_CGROUPS", self.cgroups)
        monkeypatch.setattr(cores, "_OWN_CGROUP", self.own)

    def allow(self, *allowed: int, siblings: dict[int, str] | None = None) -> None:
        """Let the process use these processors; `siblings` is what the system says of each."""
        self.patch.setattr(os, "sched_getaffinity", lambda _: set(allowed), raising=False)
        for cpu, text in (siblings or {}).items():
            self.write(self.cpus / f"cpu{cpu}" / "topology" / "thread_siblings_list", text)

    def group(self, line: str, **files: str) -> None:
        """Put the process into a group, and write files below the root: `__` stands for a slash, `_dot_` for a dot."""
        self.write(self.own, line)
        for name, text in files.items():
            self.write(self.cgroups / name.replace("__", "/").replace("_dot_", "."), text)

    @staticmethod
    def write(file: Path, text: str) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n", encoding="ascii")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with nothing on it yet."""
    return Machine(tmp_path, monkeypatch)


def test_hyperthreads_count_once(machine: Machine) -> None:
    """Eight hardware threads on four cores are four."""
    machine.allow(*range(8), siblings={cpu: f"{cpu % 4},{cpu % 4 + 4}" for cpu in range(8)})
    assert usable_cores() == 4


def test_both_ways_to_write_siblings_are_read(machine: Machine) -> None:
    """A range such as `0-1` names siblings as a list does."""
    machine.allow(0, 1, 2, 3, siblings={0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"})
    assert usable_cores() == 2


def test_affinity_limits_the_count(machine: Machine) -> None:
    """Of many cores only those that the process may run on count."""
    machine.allow(0, 4, 1, siblings={cpu: f"{cpu % 4},{cpu % 4 + 4}" for cpu in range(8)})
    assert usable_cores() == 2


def test_without_topology_every_processor_counts(machine: Machine) -> None:
    """Where nothing says which threads share a core, each counts as one, and no group means no quota."""
    machine.allow(0, 1, 2)
    assert usable_cores() == 3


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 8),
        ("400000 100000", 4),
        ("250000 100000", 2),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("1600000 100000", 8),
        ("", 8),
        ("nonsense", 8),
        ("100000 0", 8),
    ],
)
def test_a_quota_of_version_2_is_rounded_down(machine: Machine, quota: str, expected: int) -> None:
    """`cpu.max` limits the count to whole cores, at least one; `max` and what is no quota limit nothing."""
    machine.allow(*range(8))
    machine.group("0::/", cpu_dot_max=quota)
    assert usable_cores() == expected


@pytest.mark.parametrize(
    ("quota", "period", "expected"), [("-1", "100000", 8), ("300000", "100000", 3), ("20000", "100000", 1)]
)
def test_a_quota_of_version_1_is_read(machine: Machine, quota: str, period: str, expected: int) -> None:
    """Version 1 keeps quota and period in two files of the `cpu` controller; -1 is no quota."""
    machine.allow(*range(8))
    machine.group(
        "5:memory:/box\n4:cpu,cpuacct:/box\n0::/",
        cpu__box__cpu_dot_cfs_quota_us=quota,
        cpu__box__cpu_dot_cfs_period_us=period,
    )
    assert usable_cores() == expected


def test_another_controllers_group_is_not_read(machine: Machine) -> None:
    """A group of `cpuset` is no group of `cpu`."""
    machine.allow(*range(8))
    machine.group("4:cpuset:/box", cpu__box__cpu_dot_cfs_quota_us="100000", cpu__box__cpu_dot_cfs_period_us="100000")
    assert usable_cores() == 8


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [("300000 100000", "max 100000", 3), ("max 100000", "200000 100000", 2), ("300000 100000", "500000 100000", 3)],
)
def test_the_tightest_of_nested_groups_counts(machine: Machine, outer: str, inner: str, expected: int) -> None:
    """A quota on any group above the process's own limits it too."""
    machine.allow(*range(8))
    machine.group("0::/pods/one/app", pods__cpu_dot_max=outer, pods__one__app__cpu_dot_max=inner)
    assert usable_cores() == expected


def test_the_hosts_path_in_a_container_falls_back_to_the_root(machine: Machine) -> None:
    """A container may see its host's path, which is not there, with its own group at the root."""
    machine.allow(*range(8))
    machine.group("0::/docker/0123456789", cpu_dot_max="200000 100000")
    assert usable_cores() == 2


def test_groups_outside_the_root_are_not_read(machine: Machine) -> None:
    """What stands above the root of the groups is no group."""
    machine.allow(*range(8))
    machine.group("0::/a")
    machine.write(machine.cgroups.parent / "cpu.max", "100000 100000")
    assert usable_cores() == 8


@pytest.mark.parametrize("content", ["", "no colons", "only:one", "\x00"])
def test_a_strange_list_of_groups_limits_nothing(machine: Machine, content: str) -> None:
    """What is not written as the kernel writes it is passed over."""
    machine.allow(0, 1)
    machine.group(content)
    assert usable_cores() == 2


def test_a_list_of_groups_that_is_no_text_limits_nothing(machine: Machine) -> None:
    """Bytes that are no ASCII are passed over."""
    machine.allow(0, 1)
    machine.own.write_bytes(b"0::/\xff\xfe")
    assert usable_cores() == 2


def test_a_system_that_does_not_tell_leaves_the_choice(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without affinities, as on macOS and Windows, there is no answer."""
    machine.group("0::/", cpu_dot_max="100000 100000")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cores() is None


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not tell affinities")
def test_the_real_machine_has_at_least_one() -> None:
    """Here and now the answer lies between one and the processors there are."""
    found = usable_cores()
    assert found is not None
    assert 1 <= found <= len(os.sched_getaffinity(0))
