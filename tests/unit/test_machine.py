"""What a process may use, by the machine and by control groups in both versions, and what it keeps for the next one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from langchain_crossrerank import _machine
from langchain_crossrerank._machine import available_memory, cache_folder, machine_key, recall, remember, usable_cores


class Machine:
    """A machine made of files: processors that may be used, their siblings, and control groups."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cpus, self.cgroups, self.own = root / "cpu", root / "cgroup", root / "self-cgroup"
        self.patch = monkeypatch
        monkeypatch.setattr(_machine, "_CPUS", self.cpus)
        monkeypatch.setattr(_machine, "_CGROUPS", self.cgroups)
        monkeypatch.setattr(_machine, "_OWN_CGROUP", self.own)
        monkeypatch.setattr(_machine, "_MEMORY", root / "meminfo")

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


GB = 10**9


def test_without_a_limit_the_machine_decides(machine: Machine, tmp_path: Path) -> None:
    """What the system calls available is what a process may take, if no group limits it."""
    assert available_memory() is None
    machine.write(tmp_path / "meminfo", "MemTotal: 16000000 kB\nMemAvailable:    8000000 kB")
    machine.group("0::/app", app__memory_dot_max="max", app__memory_dot_current="5")
    assert available_memory() == 8_000_000 * 1024


@pytest.mark.parametrize(
    ("limit", "used", "cached", "expected"), [(4, 1, 0, 3), (4, 3, 2, 3), (1, 2, 0, 0), (99, 1, 0, 8)]
)
def test_a_containers_limit_is_obeyed(
    machine: Machine, tmp_path: Path, limit: int, used: int, cached: int, expected: int
) -> None:
    """A group's limit less what it uses counts, if the machine has more; files in its cache are given up on demand."""
    machine.write(tmp_path / "meminfo", f"MemAvailable: {8 * GB // 1000} kB")
    machine.group(
        "0::/app",
        app__memory_dot_max=str(limit * GB),
        app__memory_dot_current=str(used * GB),
        app__memory_dot_stat=f"anon 5\ninactive_file {cached * GB}",
    )
    assert available_memory() == (8 * GB // 1000 * 1024 if expected == 8 else expected * GB)


def test_a_limit_of_a_group_above_counts(machine: Machine) -> None:
    """The tightest limit on the way up to the root is obeyed."""
    machine.group(
        "0::/pod/app",
        pod__app__memory_dot_max=str(4 * GB),
        pod__app__memory_dot_current="0",
        pod__memory_dot_max=str(2 * GB),
        pod__memory_dot_current=str(GB),
    )
    assert available_memory() == GB


def test_limits_of_the_first_version_are_read(machine: Machine) -> None:
    """Version 1 has other names, and a huge number for no limit."""
    machine.group(
        "4:cpu:/app\n5:memory:/app",
        memory__app__memory_dot_limit_in_bytes=str(3 * GB),
        memory__app__memory_dot_usage_in_bytes=str(GB),
        memory__memory_dot_limit_in_bytes="9223372036854771712",
        memory__memory_dot_usage_in_bytes="5",
    )
    assert available_memory() == 2 * GB


@pytest.mark.parametrize("written", ["", "max", "nonsense", "-1"])
def test_a_limit_that_cannot_be_read_is_none(machine: Machine, written: str) -> None:
    """Files with other content limit nothing."""
    machine.group("0::/app", app__memory_dot_max=written, app__memory_dot_current="x", app__memory_dot_stat="y")
    assert available_memory() is None


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"CROSSRERANK_CACHE": "/own/place", "XDG_CACHE_HOME": "/xdg"}, "/own/place"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/langchain-crossrerank"),
        ({"CROSSRERANK_CACHE": "", "XDG_CACHE_HOME": "/xdg"}, "/xdg/langchain-crossrerank"),
        ({"HOME": "/home/me", "USERPROFILE": "/home/me"}, "/home/me/.cache/langchain-crossrerank"),
        ({"HOME": "/home/me", "USERPROFILE": "/home/me", "CROSSRERANK_CACHE": "~/mine"}, "/home/me/mine"),
    ],
)
def test_the_folder_is_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    """`CROSSRERANK_CACHE` wins, then the user's cache folder; `~` is the home folder."""
    for name in ("CROSSRERANK_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


def test_a_finding_is_kept_and_given_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`recall` returns what `remember` kept under the name, and nothing under another."""
    monkeypatch.setenv("CROSSRERANK_CACHE", str(tmp_path))
    remember("finding", {"a": [1, 2]})
    assert (recall("finding"), recall("another")) == ({"a": [1, 2]}, None)


def test_the_machine_is_part_of_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another processor or setting makes another key; the same ones make the same key."""
    key = machine_key("model", 2)
    assert key == machine_key("model", 2) != machine_key("model", 4)
    monkeypatch.setattr(_machine, "_processor", lambda: "another")
    assert machine_key("model", 2) != key
