"""Passages that are read once: the same scores, bounded memory, models that cannot."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from langchain_crossrerank import CrossEncoder, load_cross_encoder
from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder
from langchain_crossrerank.cross_encoders.settings import check_settings
from langchain_crossrerank.errors import InvalidInputError

QUERIES = ["What is LoRA?", "when does the ferry leave"]
PASSAGES = [
    "LoRA trains two small matrices beside frozen weights.",
    "",
    "The ferry leaves at nine.",
    "word " * 400,
    "naïve café 東京 🙂",
]
PAIRS = [(query, passage) for query in QUERIES for passage in PASSAGES]


@pytest.fixture(scope="module")
def plain() -> CrossEncoder:
    """The bundled model as it is loaded by default, as logits."""
    return load_cross_encoder("bundled", activation="identity")


@pytest.fixture
def keeping() -> OnnxCrossEncoder:
    """The bundled model with an empty passage cache of its own."""
    model = load_cross_encoder("bundled", activation="identity", passage_cache="20MB")
    assert isinstance(model, OnnxCrossEncoder)
    copy: OnnxCrossEncoder = pickle.loads(pickle.dumps(model))
    return copy


def test_scores_are_the_same_whether_a_passage_was_seen_or_not(plain: CrossEncoder, keeping: OnnxCrossEncoder) -> None:
    """Logits equal those without a cache within 1e-5, for passages read now and for kept ones."""
    expected = pytest.approx(plain.score(PAIRS), abs=1e-5)
    assert keeping.score(PAIRS) == expected
    found, read = keeping.passage_counts
    assert keeping.score(PAIRS) == expected
    assert keeping.passage_counts[0] > found
    assert keeping.passage_counts[1] == read


def test_its_repr_says_what_it_may_keep(plain: CrossEncoder, keeping: OnnxCrossEncoder) -> None:
    """`repr` shows the bytes of a passage cache, and nothing where there is none."""
    assert "num_threads=" in repr(keeping)
    assert ", passage_cache=20000000" in repr(keeping)
    assert "passage_cache" not in repr(plain)


def test_each_text_is_read_once(keeping: OnnxCrossEncoder) -> None:
    """A passage that comes back with another query is found and not read again."""
    keeping.score([("first query", passage) for passage in PASSAGES[:3]])
    assert keeping.passage_counts == (0, 3)
    keeping.score([("second query", passage) for passage in PASSAGES[:3]])
    assert keeping.passage_counts == (3, 3)


def test_only_passages_are_counted(keeping: OnnxCrossEncoder) -> None:
    """A query that comes back with other passages, in the same call or later, is not a passage that was found."""
    keeping.max_batch_tokens = 32
    for start in (0, 20):
        keeping.score([("the same query", f"a passage with number {start + place}") for place in range(20)])
    assert keeping.passage_counts == (0, 40)


def test_memory_is_bounded(plain: CrossEncoder) -> None:
    """A cache too small for the passages keeps what fits, and scores are the same."""
    small = load_cross_encoder("bundled", activation="identity", passage_cache="1MB")
    assert isinstance(small, OnnxCrossEncoder)
    expected = pytest.approx(plain.score(PAIRS), abs=1e-5)
    assert [small.score(PAIRS), small.score(PAIRS)] == [expected, expected]
    kept = small._session._kept  # type: ignore[union-attr]
    with kept as states:
        assert 0 < states.currsize <= 1_000_000


def test_a_model_whose_texts_meet_at_once_is_refused(tiny_onnx_folder: Path) -> None:
    """A graph without separate lower layers raises an error that says why, when it is loaded."""
    with pytest.raises(InvalidInputError, match=r"query and passage together .* without passage_cache"):
        load_cross_encoder(tiny_onnx_folder, passage_cache="1MB")


def test_eight_bits_are_refused() -> None:
    """A cache of exact states does not go with eight-bit products."""
    with pytest.raises(InvalidInputError, match="passage_cache needs precision='fp32'"):
        load_cross_encoder("bundled", passage_cache="1MB", precision="int8")


@pytest.mark.parametrize(("given", "size"), [("256MB", 256_000_000), ("1.5 gb", 1_500_000_000), (1_000_000, 1_000_000)])
def test_a_size_is_bytes_or_a_text(given: int | str, size: int) -> None:
    """Sizes are numbers of bytes, or numbers with a unit."""
    assert check_settings("bundled", passage_cache=given).passage_cache == size


@pytest.mark.parametrize("backend", ["openvino", "torch", "remote"])
def test_other_backends_refuse_it(backend: str) -> None:
    """Only the onnx backend keeps passages; the others say so before anything is loaded."""
    with pytest.raises(InvalidInputError, match=rf"passage_cache is 1000000, .* {backend} backend"):
        check_settings("http://localhost" if backend == "remote" else "some/model", backend, passage_cache="1MB")


def test_a_second_start_needs_no_onnx_import() -> None:
    """The split graphs are kept on disk, so a later process opens them without the `onnx` package."""
    load_cross_encoder("bundled", passage_cache="1MB")
    code = (
        "import sys; from langchain_crossrerank import load_cross_encoder; "
        "load_cross_encoder('bundled', passage_cache='1MB').score([('a', 'b')]); sys.exit('onnx' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
