"""A disk that is really full: what was there stays whole, scores stay right, and errors are the package's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from langchain_crossrerank import index_files, load_cross_encoder
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.sqlite_score_cache import SQLiteScoreCache
from langchain_crossrerank.errors import CrossRerankError
from langchain_crossrerank.files import write_whole
from langchain_crossrerank.testing import FakeCrossEncoder
from tests.fault_tally import Tally

MakeDisk = Callable[[int], Path]


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[MakeDisk]:
    """Mount a disk of so many kilobytes, or skip where that is not allowed."""
    mounted: list[Path] = []

    def make(kilobytes: int) -> Path:
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
        if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(command, check=False).returncode:
            pytest.skip("needs the right to mount a disk")
        mounted.append(place)
        return place

    yield make
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_score_cache_costs_no_scores(make_disk: MakeDisk, tally: Tally) -> None:
    """When a cache's disk runs full in the middle, scores are computed."""
    tally("a full disk, score cache", 40)
    cached = CachedCrossEncoder(FakeCrossEncoder(), SQLiteScoreCache(make_disk(64) / "scores.db"))
    for number in range(40):
        pairs = [(f"query {number}", f"query {place} in a passage") for place in range(50)]
        assert cached.score(pairs) == FakeCrossEncoder().score(pairs)


def test_a_prepared_graph_that_cannot_be_kept(
    make_disk: MakeDisk, tiny_onnx_folder: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    """A model loads and scores the same when its prepared graph does not fit on the disk."""
    tally("a full disk, prepared graph")
    pairs = [("what is lora", "LoRA trains two small matrices."), ("a", "b")]
    expected = load_cross_encoder(tiny_onnx_folder, max_length=64).score(pairs)
    disk = make_disk(8)
    monkeypatch.setenv("CROSSRERANK_CACHE", str(disk / "cache"))
    assert load_cross_encoder(tiny_onnx_folder, max_length=65).score(pairs) == pytest.approx(expected, abs=1e-5)
    assert [path for path in disk.rglob(".*") if path.is_file()] == []


def test_an_output_that_does_not_fit_leaves_the_old_one(make_disk: MakeDisk, tally: Tally) -> None:
    """A result is replaced whole or not at all."""
    tally("a full disk, output")
    disk = make_disk(64)
    (disk / "result.json").write_text("old", encoding="utf-8")
    with pytest.raises(OSError, match="No space left"):
        write_whole(disk / "result.json", "x" * 100_000)
    assert [(path.name, path.read_text(encoding="utf-8")) for path in disk.iterdir()] == [("result.json", "old")]


def test_a_kept_index_that_does_not_fit_is_an_error_of_the_package(
    make_disk: MakeDisk, tmp_path: Path, tally: Tally
) -> None:
    """What cannot be stored is reported by name, or the index is refused; nothing raw comes up."""
    pytest.importorskip("langchain_chroma", reason="needs the rag extra")
    tally("a full disk, kept index", 2)
    note = tmp_path / "note.txt"
    note.write_text("The ferry to the island leaves at nine in the morning. " * 2000, encoding="utf-8")
    for size in (4, 400):
        with pytest.raises(CrossRerankError, match=r"note\.txt|No space left|disk"):
            index_files(
                note,
                embeddings=DeterministicFakeEmbedding(size=64),
                persist_directory=make_disk(size) / "kept",
                show_progress=False,
            )
