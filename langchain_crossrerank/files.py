"""Files: written whole or not at all, and hashed by content."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

READABLE = 0o666
"""Permissions of a result, before the process's umask."""

PRIVATE = 0o600
"""Permissions of a file that only its owner may read, such as a cache."""


@contextmanager
def open_whole(path: str | os.PathLike[str], *, mode: int = READABLE) -> Iterator[BinaryIO]:
    """Open a new file that takes the name `path` when the block ends, and not at all if the block raises.

    The content is first written under an unpredictable name in the same folder. That name is created exclusively, so
    a link planted there is never followed.

    Args:
        path: The file; its folder is made if it does not exist. A link of this name is replaced, not followed.
        mode: Permissions of the file, from which the process's umask is subtracted.

    Yields:
        The open file, for bytes.

    Raises:
        OSError: If the file cannot be written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{_unfinished_prefix(target)}{secrets.token_hex(8)}")
    with open_new(temporary, mode=mode) as file:
        try:
            yield file
            file.flush()
            # On Windows an open file cannot be renamed.
            file.close()
            temporary.replace(target)
        except BaseException:
            file.close()
            temporary.unlink(missing_ok=True)
            raise


def remove_unfinished(path: str | os.PathLike[str]) -> None:
    """Remove what a killed process left of a file that it was writing with `open_whole`.

    Args:
        path: The file, which nobody else may be writing.
    """
    target = Path(path)
    for left in target.parent.glob(f"{glob.escape(_unfinished_prefix(target))}{'[0-9a-f]' * 16}"):
        left.unlink(missing_ok=True)


def _unfinished_prefix(target: Path) -> str:
    # The hash keeps apart names of which the beginning is the same.
    digest = hashlib.blake2b(os.fsencode(target.name), digest_size=2).hexdigest()
    return f".{target.name[:40]}-{digest}-"


def open_new(path: Path, *, mode: int = READABLE) -> BinaryIO:
    """Create a file for writing bytes that must not exist yet, not even as a link.

    Args:
        path: The file.
        mode: Permissions of the file, from which the process's umask is subtracted.

    Raises:
        FileExistsError: If something of this name exists.
        OSError: If it cannot be created.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, mode), "wb")


def write_whole(path: str | os.PathLike[str], content: str | bytes, *, mode: int = READABLE) -> None:
    """Write a file whole or not at all; see `open_whole`.

    Args:
        path: The file; its folder is made if it does not exist.
        content: What to write; text becomes UTF-8.
        mode: Permissions of the file, from which the process's umask is subtracted.

    Raises:
        OSError: If the file cannot be written.
    """
    with open_whole(path, mode=mode) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


def hash_files(paths: Iterable[Path], *, most: int | None = None) -> str:
    """Hash the content of files with BLAKE2b.

    Args:
        paths: Regular files; links are followed.
        most: Bytes of each file that are read at most. By default it is the size that a file has when it is opened, so
            that one that keeps growing is read once.

    Returns:
        32 hexadecimal digits.

    Raises:
        OSError: If a file cannot be read or is not a regular file.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        with open_regular(path) as file:
            left = os.fstat(file.fileno()).st_size if most is None else most
            while left and (chunk := file.read(min(left, 1 << 20))):
                digest.update(chunk)
                left -= len(chunk)
    return digest.hexdigest()


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading bytes, without ever waiting for a pipe or reading a device.

    Args:
        path: The file; links are followed.

    Raises:
        OSError: If there is no such file, or it is not a regular file.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return os.fdopen(handle, "rb")


def append_line(path: Path, line: str) -> None:
    """Append a line to a text file, which is made if it does not exist, and never follow a link planted in its place.

    Raises:
        OSError: If it cannot be written, or is a link or another thing than a regular file.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with os.fdopen(os.open(path, flags | getattr(os, "O_BINARY", 0), READABLE), "ab") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        file.write(f"{line}\n".encode())
