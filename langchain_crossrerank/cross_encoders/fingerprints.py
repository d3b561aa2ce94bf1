"""What makes a score: the files that a model was loaded from and its settings, as one text for caches to use as a key.

Every backend builds its `fingerprint` here, so that none can leave out an ingredient that another one has.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from langchain_crossrerank.files import hash_files

READ_SUFFIXES = frozenset({".json", ".safetensors", ".txt", ".model", ".spm", ".jinja", ".py", ".onnx", ".xml", ".bin"})
"""Suffixes of the files in a model folder that some loader reads: settings, weights, vocabularies, templates, code."""

_logger = logging.getLogger(__name__)


class ReadFiles:
    """The files that a model is loaded from, as they were at that moment.

    Make it just before the files are read. It notes each file's identity, size and times of change, which is quick, and
    hashes the content when the digest is first asked for. If a file was changed or replaced in between, its old content
    can no longer be known: the digest is then unlike any other, so that scores of the old content are never found
    under the new content's key.

    Args:
        folder: The model's folder; files are named relative to it.
        paths: The files; a missing one is left out.
    """

    def __init__(self, folder: str | os.PathLike[str], paths: Iterable[str | os.PathLike[str]]) -> None:
        self._folder = Path(folder)
        # Most of the files that a model may have are not there, and only those that are become paths.
        found = {path: state for path in paths if (state := _state(path))}
        self._states = dict(sorted((Path(path), state) for path, state in found.items()))

    @classmethod
    def of_folder(cls, folder: str | os.PathLike[str], *, suffixes: frozenset[str] = READ_SUFFIXES) -> ReadFiles:
        """Note every file below `folder` with one of the `suffixes`, leaving out hidden folders."""
        root = Path(folder)
        found = [Path(place, name) for place, _, names in os.walk(root) for name in names]
        visible = [path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts)]
        return cls(root, [path for path in visible if path.suffix in suffixes])

    @cached_property
    def digest(self) -> str:
        """A hash of the names and contents of the files, 32 hexadecimal digits."""
        digest = hashlib.blake2b(digest_size=16)
        for path, state in self._states.items():
            content = _content_hash(path, state)
            if content is None or _state(path) != state:
                _logger.warning(
                    "%s has changed since the model was loaded, or is not a regular file, so scores are cached for "
                    "this copy of the model only; load it again to use the new file.",
                    path,
                )
                return uuid4().hex
            digest.update(f"{os.path.relpath(path, self._folder)}\0{content}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def fingerprint(backend: str, files: ReadFiles | str, **settings: Any) -> str:
    """Return the text that differs whenever the same pair could get another score.

    Args:
        backend: What computes the scores.
        files: The files that were read, or another text that stands for the content of the weights, such as a commit.
        settings: Everything else that decides a score, by name: activation, `max_length`, precision, instruction.

    Returns:
        One line of text.
    """
    content = files.digest if isinstance(files, ReadFiles) else files
    return f"{backend}:{content}:{json.dumps(settings, sort_keys=True, default=repr)}"


def _state(path: str | os.PathLike[str]) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _content_hash(path: Path, state: tuple[int, ...]) -> str | None:
    size = state[2]
    try:
        return hash_files([path], most=size)
    except OSError:
        return None
