"""Which graph a model runs: its own, or a faster one that is made once on each machine and kept on disk.

What is kept of a graph is its structure; the weights stay in the model's files. Beside each structure is a record with
the hash of its content: only what this record lists is opened, and a file's own claims about itself count for nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import onnxruntime
from pydantic import BaseModel, ConfigDict, ValidationError

from langchain_crossrerank._machine import available_memory, cached_file, recall, remember, usable_cores
from langchain_crossrerank.errors import GraphRewriteError, UnsupportedModelError
from langchain_crossrerank.files import PRIVATE, open_regular, write_whole
from langchain_crossrerank.onnx_graphs.head_layers import Layer, head_hash
from langchain_crossrerank.onnx_graphs.sessions import Graph
from langchain_crossrerank.onnx_graphs.stored_weights import StoredWeight, WeightFiles, check_location

if TYPE_CHECKING:
    from langchain_crossrerank.onnx_graphs.structure import Structure

GraphPrecision = Literal["fp32", "int8", "bf16"]
"""`"fp32"` computes what the graph says; `"int8"` multiplies matrices in eight bits, `"bf16"` is OpenVINO's."""

LOCK_SECONDS = 120.0
"""How long a process waits for another one that is preparing the same graph, in seconds; then it runs the original."""

REWRITING_BYTES, QUANTISING_BYTES = 1.2, 6.0
"""Memory that preparing and opening a graph takes, in bytes for each byte of its weights."""

_OVERHEAD_BYTES = 256 * 2**20
_PART_BYTES = 64 * 2**20
_FORMAT = 4

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedGraph:
    """A graph to run.

    Attributes:
        origin: The model's own graph.
        external_files: The other files that it reads.
        graph: What is run.
        precision: What it computes in.
        rewritten: Whether it is another graph than the model came with.
        content_hash: Hash of the content of the model's graph and the other files that it reads, as they were when it
            was loaded; empty for a graph that is part of this package.
    """

    origin: Path
    external_files: tuple[Path, ...]
    graph: Graph
    precision: GraphPrecision
    rewritten: bool
    content_hash: str = ""


@dataclass(frozen=True)
class SplitGraph:
    """A graph in parts; see `splitting`.

    Attributes:
        reading: Computes the states of texts.
        terms: Computes the terms of queries from their tokens and states, if the graph has any.
        scoring: Computes logits from the tokens and states of pairs, and the query's terms.
        states: Names of the states.
    """

    reading: Graph
    terms: Graph | None
    scoring: Graph
    states: tuple[str, ...]


class _Record(BaseModel):
    """What is known of a graph, kept beside its structure."""

    model_config = ConfigDict(defer_build=True)

    structure: str = ""
    weights: list[StoredWeight] = []
    external_files: list[str] = []
    rewritten: bool = False
    unpack: bool = False
    reason: str = ""
    states: list[str] = []
    parts: list[str] = []


def trusted_graph(onnx_file: Path) -> PreparedGraph:
    """Return a graph that is part of this package, which is opened from its file."""
    return PreparedGraph(onnx_file, (), Graph(onnx_file, unpack=True), "fp32", rewritten=False)


def own_graph(onnx_file: Path, head: Sequence[Layer] = ()) -> PreparedGraph:
    """Return a model's own graph, checked and otherwise unchanged.

    Args:
        onnx_file: The model's own graph.
        head: Layers to append to it.

    Raises:
        UnsupportedModelError: If it is not a whole ONNX graph, or reads files outside its folder.
    """
    from langchain_crossrerank.onnx_graphs.rewriting import as_graph
    from langchain_crossrerank.onnx_graphs.structure import read_structure

    structure = read_structure(onnx_file, head)
    graph = as_graph(structure, WeightFiles(onnx_file, structure.weights))
    external = _external(onnx_file, structure.external_files)
    return _with_hash(PreparedGraph(onnx_file, external, graph, "fp32", rewritten=False))


def prepare_graph(onnx_file: Path, precision: GraphPrecision = "fp32", head: Sequence[Layer] = ()) -> PreparedGraph:
    """Find the prepared form of a model's graph, or make it.

    A graph that cannot be made faster runs unchanged, and the reason is logged. The cache's names are hashes of the
    content of the model's files, so that another graph never finds them. Of several processes one prepares the graph
    while the others wait.

    Args:
        onnx_file: The model's own graph.
        precision: `"int8"` quantises matrices, each column with a scale of its own, and activations as they come.
        head: Layers to append to the graph first.

    Raises:
        UnsupportedModelError: If the file is not a whole ONNX graph, or reads files outside its folder.
    """
    content_hash = _hash(onnx_file)
    parts = [content_hash, *([head_hash(head)] if head else []), _FORMAT, onnxruntime.__version__, precision]
    name = "-".join(map(str, parts))
    found = _find(onnx_file, name, precision, head) or _make_once(onnx_file, name, precision, head)
    prepared = _with_hash(found)
    if not prepared.content_hash.startswith(content_hash):
        raise UnsupportedModelError(f"{onnx_file} was changed while it was loaded; load the model again.")
    return prepared


def split_graph(onnx_file: Path) -> SplitGraph | None:
    """Find the parts of a graph in which query and passage meet late, or make them; `None` for another graph.

    Raises:
        UnsupportedModelError: If the file is not a whole ONNX graph, or reads files outside its folder.
    """
    prefix = f"{_hash(onnx_file)}-{_FORMAT}-{onnxruntime.__version__}"
    record = _record(f"{prefix}-reading")
    if record is not None and record.parts:
        found = {part: _find(onnx_file, f"{prefix}-{part}", "fp32", ()) for part in record.parts}
        graphs = {part: prepared.graph for part, prepared in found.items() if prepared is not None}
        if len(graphs) == len(found):
            return SplitGraph(graphs["reading"], graphs.get("terms"), graphs["scoring"], tuple(record.states))
    from langchain_crossrerank.onnx_graphs.rewriting import as_graph
    from langchain_crossrerank.onnx_graphs.splitting import split, state_names
    from langchain_crossrerank.onnx_graphs.structure import read_structure

    structure = read_structure(onnx_file)
    states = state_names(structure)
    if not states:
        return None
    parts = split(structure)
    # The record of `reading` is the one that is looked for, so it is kept last: where it is, the others are.
    made = {"terms": parts.terms, "scoring": parts.scoring, "reading": parts.reading}
    graphs = {part: as_graph(cut, WeightFiles(onnx_file, cut.weights)) for part, cut in made.items() if cut is not None}
    external = structure.external_files
    for part, graph in graphs.items():
        prepared = PreparedGraph(onnx_file, _external(onnx_file, external), graph, "fp32", rewritten=True)
        _keep(f"{prefix}-{part}", prepared, external, states=states, parts=list(graphs))
    return SplitGraph(graphs["reading"], graphs.get("terms"), graphs["scoring"], tuple(states))


def _make_once(onnx_file: Path, name: str, precision: GraphPrecision, head: Sequence[Layer]) -> PreparedGraph:
    with _only_one(name) as is_this_one:
        # Another process may have finished in the meantime.
        found = _find(onnx_file, name, precision, head)
        if found is None and not is_this_one:
            found = own_graph(onnx_file, head)
        if found is None:
            make = _quantised if precision == "int8" else _rewritten
            found = make(onnx_file, name, head)
    return found


def _with_hash(prepared: PreparedGraph) -> PreparedGraph:
    return replace(prepared, content_hash=_hash(prepared.origin, *prepared.external_files))


def _rewritten(onnx_file: Path, name: str, head: Sequence[Layer]) -> PreparedGraph:
    from langchain_crossrerank.onnx_graphs.rewriting import as_graph, rewrite
    from langchain_crossrerank.onnx_graphs.structure import read_structure

    original = structure = read_structure(onnx_file, head)
    is_affordable = _is_affordable(onnx_file, original, REWRITING_BYTES)
    files = WeightFiles(onnx_file, original.weights)
    reason, is_final = "", is_affordable
    if is_affordable:
        try:
            made = rewrite(original, files)
        except GraphRewriteError as err:
            reason = str(err)
            _logger.info("%s runs unchanged: %s", onnx_file, reason)
        except Exception as err:  # noqa: BLE001 - memory or disk ran out; onnxruntime's errors have no public class
            is_final = False
            _logger.warning(
                "%s runs unchanged this time, because making it faster failed (%s: %s); the next process tries again.",
                onnx_file,
                type(err).__name__,
                err,
            )
        else:
            structure = made.structure
            _logger.info("rewrote %s: %d operations work on the first token alone", onnx_file, made.first_token_only)
    graph = as_graph(structure, files)
    is_new = structure is not original
    prepared = PreparedGraph(onnx_file, _external(onnx_file, original.external_files), graph, "fp32", rewritten=is_new)
    if is_final:
        _keep(name, prepared, original.external_files, reason=reason)
    return prepared


def _quantised(onnx_file: Path, name: str, head: Sequence[Layer]) -> PreparedGraph:

    exact = prepare_graph(onnx_file, head=head)
    external = [os.path.relpath(path, onnx_file.parent) for path in exact.external_files]
    try:
        from langchain_crossrerank.onnx_graphs.quantising import quantise

        structure, files = _structure(exact)
        if not _is_affordable(onnx_file, structure, QUANTISING_BYTES):
            return exact
        graph = Graph(quantise(structure, files))
    except GraphRewriteError as err:
        _logger.info("%s is not quantised: %s", onnx_file, err)
        _keep_record(name, exact, external, _Record(external_files=external, reason=str(err)))
        return exact
    except (OSError, MemoryError) as err:
        _logger.warning("%s is not quantised this time (%s); the next process tries again.", onnx_file, err)
        return exact
    prepared = PreparedGraph(onnx_file, exact.external_files, graph, "int8", rewritten=True)
    _keep(name, prepared, external)
    return prepared


def _structure(prepared: PreparedGraph) -> tuple[Structure, WeightFiles]:
    from langchain_crossrerank.onnx_graphs.structure import Structure, parse_own, read_structure

    graph = prepared.graph
    if isinstance(graph.model, bytes) and graph.files is not None:
        return Structure(parse_own(graph.model), graph.weights, ()), graph.files
    structure = read_structure(prepared.origin)
    return structure, WeightFiles(prepared.origin, structure.weights)


def _is_affordable(onnx_file: Path, structure: Structure, factor: float) -> bool:
    """Say whether there is enough memory to prepare a graph, and log it if not."""
    size = sum(weight.length for weight in structure.weights)
    needed, available = int(factor * size) + _OVERHEAD_BYTES, available_memory()
    if size < _OVERHEAD_BYTES or available is None or needed <= available:
        return True
    _logger.warning(
        "%s runs unchanged this time: preparing it takes about %.1f GB of memory, and %.1f GB are available.",
        onnx_file,
        needed / 1e9,
        available / 1e9,
    )
    return False


def _find(onnx_file: Path, name: str, precision: GraphPrecision, head: Sequence[Layer]) -> PreparedGraph | None:
    """Return what an earlier process made of these very files, if it is there and undamaged."""
    record = _record(name)
    if record is not None and record.external_files:
        try:
            name = _name_with_external(name, onnx_file, record.external_files)
        except UnsupportedModelError:
            return None
        record = _record(name)
    if record is None:
        return None
    if precision == "int8" and record.reason:
        return prepare_graph(onnx_file, head=head)
    content = _read_own(f"{name}.onnx")
    if content is None or _hash_bytes(content) != record.structure:
        return None
    try:
        files = WeightFiles(onnx_file, record.weights)
    except UnsupportedModelError:
        # Whether it is the record or the model that is wrong shows when the model's own graph is read.
        return None
    return PreparedGraph(
        onnx_file,
        _external(onnx_file, record.external_files),
        Graph(content, tuple(record.weights), files, record.unpack),
        precision,
        record.rewritten,
    )


def _keep(
    name: str,
    prepared: PreparedGraph,
    external_files: Sequence[str],
    *,
    reason: str = "",
    states: Sequence[str] = (),
    parts: Sequence[str] = (),
) -> None:
    graph = prepared.graph
    if not isinstance(graph.model, bytes):
        return
    record = _Record(
        structure=_hash_bytes(graph.model),
        weights=list(graph.weights),
        external_files=list(external_files),
        rewritten=prepared.rewritten,
        unpack=graph.unpack,
        reason=reason,
        states=list(states),
        parts=list(parts),
    )
    _keep_record(name, prepared, external_files, record, graph.model)


def _keep_record(
    name: str, prepared: PreparedGraph, external_files: Sequence[str], record: _Record, structure: bytes = b""
) -> None:
    """Keep a record, and before it the structure that it lists; where nothing can be written, go on without."""
    full_name = _name_with_external(name, prepared.origin, external_files) if external_files else name
    if structure:
        try:
            write_whole(cached_file(f"{full_name}.onnx"), structure, mode=PRIVATE)
        except OSError as err:
            _logger.info("%s.onnx cannot be written (%s); each process prepares the graph for itself", full_name, err)
            return
    remember(full_name, record.model_dump())
    if external_files:
        stub = _Record(external_files=list(external_files), states=record.states, parts=record.parts)
        remember(name, stub.model_dump())


def _record(name: str) -> _Record | None:
    try:
        content = recall(name)
        return _Record.model_validate(content) if content is not None and _is_own(cached_file(f"{name}.json")) else None
    except (OSError, ValidationError):
        return None


def _read_own(file_name: str) -> bytes | None:
    try:
        file = cached_file(file_name)
        if not _is_own(file):
            return None
        with open_regular(file) as opened:
            return opened.read()
    except OSError:
        return None


def _is_own(file: Path) -> bool:
    """Whether a file belongs to this user or to the system, so that no other user can have planted it."""
    return not hasattr(os, "geteuid") or file.stat().st_uid in (os.geteuid(), 0)


@contextlib.contextmanager
def _only_one(name: str) -> Iterator[bool]:
    """Let one process in at a time; yield whether this one may work, or has waited too long."""
    from filelock import FileLock, Timeout

    try:
        file = cached_file(f"{name}.lock")
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file)
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        _logger.warning(
            "another process holds %s.lock for more than %.0f s; the graph runs unchanged", name, LOCK_SECONDS
        )
        yield False
    except (OSError, NotImplementedError):
        # Where no file can be written, each process works for itself.
        yield True
    else:
        try:
            yield True
        finally:
            lock.release()


def _name_with_external(name: str, onnx_file: Path, external_files: Sequence[str]) -> str:
    return f"{name}-{_hash_bytes(_hash(*(check_location(onnx_file, file) for file in external_files)).encode())}"


def _external(onnx_file: Path, files: Iterable[str]) -> tuple[Path, ...]:
    return tuple(onnx_file.parent / file for file in files)


def _hash(*files: Path) -> str:
    """Hash the content of files.

    Raises:
        UnsupportedModelError: If one is not a regular file, or cannot be read.
    """
    try:
        return "-".join(_hash_unchanged(file, _state(file)) for file in files)
    except OSError as err:
        raise UnsupportedModelError(f"the model's file {err.filename} cannot be read: {err.strerror}.") from err


def _state(file: Path) -> tuple[int, ...]:
    with open_regular(file) as opened:
        state = os.fstat(opened.fileno())
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


@lru_cache(maxsize=64)
def _hash_unchanged(file: Path, state: tuple[int, ...]) -> str:  # noqa: ARG001 - a file with another state is another
    """Hash a file's content: the hash of the hashes of its parts, which are computed at the same time."""

    def hash_part(start: int) -> bytes:
        digest = hashlib.blake2b(digest_size=16)
        with file.open("rb") as opened:
            opened.seek(start)
            while (left := start + _PART_BYTES - opened.tell()) > 0 and (chunk := opened.read(min(left, 1 << 20))):
                digest.update(chunk)
        return digest.digest()

    size = file.stat().st_size
    with ThreadPoolExecutor(usable_cores() or 2) as pool:
        return _hash_bytes(b"".join(pool.map(hash_part, range(0, max(1, size), _PART_BYTES))))


def _hash_bytes(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
