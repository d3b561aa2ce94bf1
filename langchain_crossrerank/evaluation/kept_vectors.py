"""Vectors of texts on disk, by the text's content: each text is embedded once, whatever collection it is in."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from langchain_crossrerank.errors import IndexingError
from langchain_crossrerank.files import write_whole

KEY_BYTES = 16

Floats = npt.NDArray[np.float32]

_logger = logging.getLogger(__name__)


class _Note(BaseModel):
    """What is written next to the vectors: whose they are, and what is in the names of their files."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    probe: list[float]
    generation: str = Field(pattern="^[0-9a-f]{16}$")


def text_key(text: str) -> bytes:
    """The key of a text: a hash of its content."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


class KeptVectors:
    """Unit vectors in a file that only grows, and the keys of their texts in another, in the same order.

    What a killed process left half-written is cut off at the next append, so a run that was stopped continues. Other
    processes may append at the same time.

    Args:
        folder: Where the files are; made if it is not there.
        name: Name of the embeddings.
        probe: The embeddings' vector of a fixed text. Vectors of other embeddings under the same name are thrown away.
    """

    def __init__(self, folder: Path, name: str, probe: Sequence[float]) -> None:
        self.dimension = len(probe)
        self._note = folder / "note.json"
        from filelock import FileLock

        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / "lock")
        with self._lock:
            self._vectors, self._keys = self._files_of(name, probe) or self._begin(name, probe)
        self.rows: dict[bytes, int] = {}
        self._count = 0
        self._read_keys()

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """Return the places of the first of each key that has no vector yet."""
        places: dict[bytes, int] = {}
        for place, key in enumerate(keys):
            if key not in self.rows:
                places.setdefault(key, place)
        return list(places.values())

    def append(self, keys: Sequence[bytes], vectors: Sequence[Sequence[float]]) -> None:
        """Keep the vectors of new texts, scaled to length 1.

        Raises:
            IndexingError: If another process has begun to keep vectors of other embeddings under this name.
        """
        block = unit_rows(vectors)
        with self._lock, self._own_files():
            self._read_keys()
            with self._vectors.open("r+b") as file:
                file.seek(self._count * self._row_bytes)
                file.truncate()
                file.write(block.tobytes())
                file.flush()
                os.fsync(file.fileno())
            # After the vectors: a key without its vector would be a wrong one.
            with self._keys.open("r+b") as file:
                file.seek(self._count * KEY_BYTES)
                file.truncate()
                file.write(b"".join(keys))
            self._read_keys()

    def open(self) -> Floats:
        """Map all vectors into memory, so that only what is read is loaded: an array of (texts, dimension).

        Raises:
            IndexingError: As `append` does.
        """
        if not self._count:
            return np.zeros((0, self.dimension), dtype=np.float32)
        with self._own_files():
            return np.memmap(self._vectors, dtype=np.float32, mode="r", shape=(self._count, self.dimension))

    @contextmanager
    def _own_files(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as err:
            raise IndexingError(
                f"the kept vectors in {str(self._note.parent)!r} were replaced by those of other embeddings with the "
                "same name while they were in use; run this again, or give one of the two models another name.",
                path=str(self._note.parent),
            ) from err

    @property
    def _row_bytes(self) -> int:
        return 4 * self.dimension

    def _read_keys(self) -> None:
        kept = self._keys.read_bytes()
        whole = min(len(kept) // KEY_BYTES, self._vectors.stat().st_size // self._row_bytes)
        for row in range(self._count, whole):
            # Two processes may have embedded the same text.
            self.rows.setdefault(kept[row * KEY_BYTES : (row + 1) * KEY_BYTES], row)
        self._count = whole

    def _files_of(self, name: str, probe: Sequence[float]) -> tuple[Path, Path] | None:
        """The files of vectors and keys, if they are there and those of these embeddings."""
        try:
            note = _Note.model_validate_json(self._note.read_text(encoding="utf-8"))
        except (OSError, ValidationError, UnicodeDecodeError):
            return None
        vectors, keys = self._named(note.generation)
        if not vectors.is_file() or not keys.is_file():
            return None
        same = note.name == name and len(note.probe) == len(probe)
        # Rounding may differ between machines and numbers of threads; another model is far away.
        if same and float(unit_rows([note.probe])[0] @ unit_rows([probe])[0]) > 0.999:
            return vectors, keys
        _logger.warning("The embeddings %r are not those of the kept vectors; all texts are embedded again.", name)
        return None

    def _begin(self, name: str, probe: Sequence[float]) -> tuple[Path, Path]:
        """Make files of another name, so that a process that still uses the old ones never writes into these."""
        for old in (*self._note.parent.glob("vectors-*.f32"), *self._note.parent.glob("keys-*.bin")):
            # On Windows a file that another process has mapped cannot be removed.
            with suppress(OSError):
                old.unlink()
        note = _Note(name=name, probe=[float(value) for value in probe], generation=secrets.token_hex(8))
        vectors, keys = self._named(note.generation)
        vectors.touch()
        keys.touch()
        write_whole(self._note, note.model_dump_json())
        return vectors, keys

    def _named(self, generation: str) -> tuple[Path, Path]:
        folder = self._note.parent
        return folder / f"vectors-{generation}.f32", folder / f"keys-{generation}.bin"


def unit_rows(vectors: Sequence[Sequence[float]]) -> Floats:
    """Scale vectors to length 1; a vector of zeros stays."""
    block = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(block, axis=1, keepdims=True)
    scaled: Floats = np.divide(block, lengths, out=np.zeros_like(block), where=lengths > 0)
    return scaled


def folder_name(name: str) -> str:
    """A folder's name for embeddings of any name."""
    return hashlib.blake2b(json.dumps(name).encode(), digest_size=12).hexdigest()


def pieces(count: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover `count`."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
