"""Writing files whole, with the right permissions, and never through a planted link."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from langchain_crossrerank import files
from langchain_crossrerank.files import (
    PRIVATE,
    READABLE,
    hash_files,
    open_new,
    open_whole,
    remove_unfinished,
    write_whole,
)

posix = pytest.mark.skipif(os.name != "posix", reason="permissions and links of POSIX")


@pytest.fixture
def umask() -> Iterator[None]:
    """A umask of 0o027 during the test."""
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.parametrize("content", ["text, naïve", b"bytes\0"])
def test_a_file_is_written_with_its_folder(tmp_path: Path, content: str | bytes) -> None:
    """Text becomes UTF-8, bytes stay, the folder is made, and nothing else is left in it."""
    path = tmp_path / "new" / "result.json"
    write_whole(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(path.parent.iterdir()) == [path]


def test_a_file_stays_as_it_was_when_writing_fails(tmp_path: Path) -> None:
    """A block that raises leaves the old file alone, and no temporary file."""
    path = tmp_path / "result.json"
    path.write_text("old")

    def fail_half_way() -> None:
        with open_whole(path) as file:
            file.write(b"new")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_not_seen_before_it_is_whole(tmp_path: Path) -> None:
    """Until the block ends, the name is free."""
    path = tmp_path / "result.json"
    with open_whole(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"


@posix
@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(("mode", "expected"), [(READABLE, 0o640), (PRIVATE, 0o600)])
def test_permissions_follow_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, expected: int
) -> None:
    """A result has the permissions that the umask allows, a private file only its owner's; the umask is not touched."""
    path = tmp_path / "result.json"
    monkeypatch.setattr(os, "umask", lambda _: pytest.fail("the umask is seen by every thread"))
    with open_whole(path, mode=mode) as file:
        (temporary,) = tmp_path.iterdir()
        assert stat.S_IMODE(temporary.stat().st_mode) == expected
        file.write(b"new")
    monkeypatch.undo()
    assert stat.S_IMODE(path.stat().st_mode) == expected


@posix
def test_a_planted_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link at the temporary name is refused, a link at the name itself is replaced; its target stays as it was."""
    victim, path = tmp_path / "victim", tmp_path / "folder" / "result.json"
    victim.write_text("precious")
    path.parent.mkdir()
    path.symlink_to(victim)
    write_whole(path, "new")
    assert not path.is_symlink()
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: "guessed")
    planted = path.with_name(f"{files._unfinished_prefix(path)}guessed")
    planted.symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_whole(path, "newer")
    assert (victim.read_text(), path.read_text()) == ("precious", "new")
    assert planted.is_symlink(), "what somebody else put there is not removed"


@posix
def test_a_new_file_is_never_an_old_one(tmp_path: Path) -> None:
    """`open_new` refuses a file, a link and a link that leads nowhere."""
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link", "dangling"):
        with pytest.raises(FileExistsError):
            open_new(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file", "link"]


@pytest.mark.parametrize("name", ["n" * 251 + ".txt", "名" * 85])
def test_a_long_name_can_be_written(tmp_path: Path, name: str) -> None:
    """A name of 255 bytes, the most that file systems allow, has a temporary name that fits."""
    path = tmp_path / name
    write_whole(path, "new")
    assert path.read_text() == "new"


def test_what_a_killed_writer_left_can_be_removed(tmp_path: Path) -> None:
    """Unfinished content of one file is removed; the file itself and its neighbours' unfinished content stay."""
    names = ["rows.csv", "rows.csv.errors.jsonl", "x" * 60 + "1", "x" * 60 + "2"]
    for name in names:
        write_whole(tmp_path / name, "whole")
        child = f"""
import os
from langchain_crossrerank.files import open_whole
with open_whole({str(tmp_path / name)!r}) as file:
    file.write(b"half")
    file.flush()
    os._exit(0)
"""
        subprocess.run([sys.executable, "-c", child], check=True)
    assert len(list(tmp_path.iterdir())) == 2 * len(names)
    for removed, name in enumerate(names, 1):
        remove_unfinished(tmp_path / name)
        assert len(list(tmp_path.iterdir())) == 2 * len(names) - removed
        assert (tmp_path / name).read_text() == "whole"


@posix
def test_only_regular_files_are_hashed(tmp_path: Path) -> None:
    """A device never ends and a pipe may never begin; a link to a file is that file."""
    (tmp_path / "file").write_text("content")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "device").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    assert hash_files([tmp_path / "link"]) == hash_files([tmp_path / "file"])
    for name in ("device", "pipe"):
        with pytest.raises(OSError, match="not a regular file"):
            hash_files([tmp_path / name])


@pytest.mark.parametrize(("most", "same"), [(None, False), (3, True), (0, True)])
def test_no_more_of_a_file_is_hashed_than_asked(tmp_path: Path, most: int | None, same: bool) -> None:
    """What lies behind the last byte makes no difference."""
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"and {name}")
    assert (hash_files([tmp_path / "one"], most=most) == hash_files([tmp_path / "two"], most=most)) is same
