"""What a cached model keeps, under which key, and what it counts."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.cross_encoders import BaseCrossEncoder

from langchain_crossrerank import load_cross_encoder
from langchain_crossrerank.cross_encoders.base import ScoreSteps
from langchain_crossrerank.cross_encoders.pairs import PairScore, TextPair, check_text_pairs
from langchain_crossrerank.cross_encoders.scheduling import drain
from langchain_crossrerank.cross_encoders.wrappers.cached import CacheCounts, CachedCrossEncoder
from langchain_crossrerank.cross_encoders.wrappers.score_caches import MemoryScoreCache
from langchain_crossrerank.cross_encoders.wrappers.windowed import WindowedCrossEncoder
from langchain_crossrerank.errors import ScoringError
from langchain_crossrerank.testing import FakeCrossEncoder, ScriptedCrossEncoder
from tests.unit.cross_encoders.scheduling.jobs import WATCHDOG, Gate, counted

PAIRS = [("how does lora work", f"passage {place} on low rank adapters") for place in range(30)]

Score = Callable[[CachedCrossEncoder, Sequence[TextPair]], list[float]]

texts = st.text(st.characters(codec="utf-8") | st.just("\ud800"), max_size=12)
queries = texts.filter(lambda text: bool(text) and not text.isspace())


@pytest.fixture(
    params=[lambda model, pairs: model.score(pairs), lambda model, pairs: asyncio.run(model.ascore(pairs))],
    ids=["sync", "async"],
)
def score(request: pytest.FixtureRequest) -> Score:
    """Both ways to score, behind one signature."""
    way: Score = request.param
    return way


def true_scores(pairs: Sequence[TextPair]) -> list[float]:
    """The model's scores without a cache."""
    return FakeCrossEncoder().score(pairs)


@given(pairs=st.lists(st.tuples(queries, texts), max_size=8))
def test_every_pair_has_a_key_of_its_own(pairs: list[TextPair]) -> None:
    """Each different pair is a miss once and a hit ever after, with the model's score, whatever the texts."""
    model = CachedCrossEncoder(FakeCrossEncoder())
    different = len(set(check_text_pairs(pairs)))
    assert model.score(pairs) == true_scores(pairs)
    assert model.counts == CacheCounts(hits=0, misses=different)
    assert model.score(pairs[::-1]) == true_scores(pairs[::-1])
    assert model.counts == CacheCounts(hits=different, misses=different)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("ab", "c"), ("a", "bc")),
        (("a", "b"), ("b", "a")),
        (("a", "b"), ("A", "b")),
        (("a", "b"), ("a ", "b")),
        (("a", ""), ("a", "a")),
        (("a\0", "b"), ("a", "\0b")),
        (("é", "b"), ("e\u0301", "b")),
    ],
)
def test_similar_pairs_have_different_keys(first: TextPair, second: TextPair) -> None:
    """Where query and passage meet, case, white space and composition all count."""
    model = CachedCrossEncoder(FakeCrossEncoder())
    model.score([first])
    model.score([second])
    assert model.counts == CacheCounts(hits=0, misses=2)


def variant(**settings: Any) -> FakeCrossEncoder:
    """Make a fake model with other settings."""
    model = FakeCrossEncoder()
    vars(model).update(settings)
    return model


MODELS: dict[str, Callable[[], BaseCrossEncoder]] = {
    "another name": lambda: variant(name="other"),
    "another activation": lambda: variant(activation="identity"),
    "another max_length": lambda: variant(max_length=64),
    "windows": lambda: WindowedCrossEncoder(FakeCrossEncoder()),
    "another overlap of windows": lambda: WindowedCrossEncoder(FakeCrossEncoder(), overlap=3),
    "another class": lambda: ScriptedCrossEncoder({}),
}


@pytest.mark.parametrize("kind", MODELS)
def test_another_model_or_setting_has_other_keys(kind: str) -> None:
    """Scores in a shared cache are not found by another model or with other settings."""
    fingerprints = {
        FakeCrossEncoder().fingerprint,
        *(CachedCrossEncoder(make()).fingerprint for make in MODELS.values()),
    }
    assert len(fingerprints) == len(MODELS) + 1
    cache = MemoryScoreCache()
    CachedCrossEncoder(FakeCrossEncoder(), cache).score(PAIRS)
    model = CachedCrossEncoder(MODELS[kind](), cache)
    assert model._look_up(PAIRS) == {}
    assert model.counts == CacheCounts(hits=0, misses=len(PAIRS))


def test_settings_of_the_bundled_model_have_different_keys() -> None:
    """Each activation, `max_length` and overlap of the bundled model has its own scores, and they are right."""
    cache = MemoryScoreCache()
    pair = ("what is lora", "low rank adaptation of large language models " * 30)
    plain = [
        load_cross_encoder("bundled"),
        load_cross_encoder("bundled", activation="identity"),
        load_cross_encoder("bundled", max_length=32),
    ]
    models = [*plain, WindowedCrossEncoder(plain[0]), WindowedCrossEncoder(plain[0], overlap=5)]
    for model in models:
        cached = CachedCrossEncoder(model, cache)
        assert cached.score([pair]) == model.score([pair]) == cached.score([pair])
        assert cached.counts == CacheCounts(hits=1, misses=1)


class Trained(BaseCrossEncoder):
    """A cross-encoder of another package, with weights and without a name."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Score by the passage's length."""
        return [self.weight * len(passage) for _, passage in text_pairs]


def test_models_of_other_packages_have_different_keys() -> None:
    """Two models of one class about which nothing else is known never share scores."""
    cache = MemoryScoreCache()
    for weight in (1.0, -2.0):
        cached = CachedCrossEncoder(Trained(weight), cache)
        assert cached.score([("q", "four")]) == [4 * weight]
        assert cached.score([("q", "four")]) == [4 * weight]
        assert cached.counts == CacheCounts(hits=1, misses=1)


def make_external_model(folder: Path, weight: float) -> Path:
    """Make a model whose graph is the same for every weight, because its weights are in a separate file."""
    onnx = pytest.importorskip("onnx", reason="needs the export extra")
    numpy = pytest.importorskip("numpy")
    from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER

    folder.mkdir()
    helper, types = onnx.helper, onnx.TensorProto
    table = numpy.full((30522, 1), weight, dtype=numpy.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["looked_up"]),
            helper.make_node("ReduceMean", ["looked_up"], ["logits"], axes=[1], keepdims=0),
        ],
        "sum",
        [helper.make_tensor_value_info("input_ids", types.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("logits", types.FLOAT, ["batch", 1])],
        [onnx.numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save_model(model, folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(BUNDLED_FOLDER / name, folder / name)
    return folder


def test_weights_in_a_file_beside_the_graph_count_too(tmp_path: Path) -> None:
    """Two models with equal graphs and different external weights do not share scores."""
    folders = [make_external_model(tmp_path / f"m{weight}", weight) for weight in (1.0, 2.0)]
    assert folders[0].joinpath("model.onnx").read_bytes() == folders[1].joinpath("model.onnx").read_bytes()
    cache = MemoryScoreCache()
    scores = []
    for folder in folders:
        model = load_cross_encoder(folder, activation="identity")
        cached = CachedCrossEncoder(model, cache)
        assert cached.score([("q", "p")]) == model.score([("q", "p")])
        scores += cached.score([("q", "p")])
    assert scores == [1.0, 2.0]


def test_hits_and_misses_are_counted(score: Score, tmp_path: Path) -> None:
    """Each different pair of a call counts once, in memory and in a file."""
    for cache in (None, tmp_path / "scores.db"):
        model = CachedCrossEncoder(FakeCrossEncoder(), cache)
        score(model, [*PAIRS[:10], *PAIRS[:5]])
        assert model.counts == CacheCounts(hits=0, misses=10)
        score(model, PAIRS[5:15])
        assert model.counts == CacheCounts(hits=5, misses=15)
        assert score(model, []) == []
        assert model.counts == CacheCounts(hits=5, misses=15)


def test_a_failing_model_leaves_nothing_in_the_cache(score: Score) -> None:
    """Scores of a failed call are not kept, not even the good ones next to a NaN."""
    cache = MemoryScoreCache()
    model = CachedCrossEncoder(ScriptedCrossEncoder({"bad": float("nan")}, default=0.5), cache)
    with pytest.raises(ScoringError):
        score(model, [("q", "good"), ("q", "bad")])
    assert cache.size_bytes == 0


@pytest.mark.parametrize(
    "scored",
    [
        PairScore(0.5),
        PairScore(0.5, truncated=True),
        PairScore(0.5, query_truncated=True),
        PairScore(-3.25, window=(7, 900)),
        PairScore(1e-9, truncated=True, window=(0, 1), query_truncated=True),
    ],
    ids=str,
)
def test_all_that_is_known_of_a_score_is_kept(scored: PairScore) -> None:
    """A cached score is equal to the original, including its marks."""

    class Known(FakeCrossEncoder):
        def score_steps(self, text_pairs: Iterable[TextPair]) -> ScoreSteps:
            yield 1.0
            return [scored for _ in text_pairs]

    model = CachedCrossEncoder(Known())
    results = [drain(model.score_steps([("query", "passage")])) for _ in range(2)]
    assert results == [[scored], [scored]]
    assert model.counts == CacheCounts(hits=1, misses=1)


class NotingCache(MemoryScoreCache):
    """A cache that writes into a log what is asked of it."""

    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self.log = log

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        self.log.append("look-up")
        return super().get_many(keys)

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        self.log.append("keep")
        super().put_many(values)


class FakeSoughtAfterCrossEncoder(FakeCrossEncoder):
    """A fake model whose worker has another call's work as soon as a call is scored."""

    def __init__(self, log: list[str], gate: Gate) -> None:
        super().__init__()
        self.log, self.gate = log, gate

    async def ascore_pairs(self, text_pairs: Iterable[TextPair], *, deadline: float | None = None) -> list[PairScore]:
        scored = await super().ascore_pairs(text_pairs, deadline=deadline)
        self.scheduler.submit(counted("other", 1, self.log, gate=self.gate))
        assert await asyncio.to_thread(self.gate.begun.wait, WATCHDOG)
        return scored


async def test_a_deadline_covers_no_second_turn() -> None:
    """Scores that are there in time are returned although the worker is busy again, and kept once it is free."""
    log: list[str] = []
    gate = Gate()
    model = CachedCrossEncoder(FakeSoughtAfterCrossEncoder(log, gate), NotingCache(log))
    scored = await model.ascore_pairs(PAIRS, deadline=time.monotonic() + WATCHDOG)
    assert [pair.score for pair in scored] == true_scores(PAIRS)
    assert log == ["look-up"]
    gate.opened.set()
    assert await model.ascore(PAIRS) == true_scores(PAIRS)
    assert log == ["look-up", "other0", "keep", "look-up"]
    assert model.counts == CacheCounts(hits=30, misses=30)


class FakeBrokenCache(MemoryScoreCache):
    """A cache that raises, which none should."""

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        raise OSError("the disk is full")


async def test_a_cache_that_raises_after_a_deadline_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The caller has the scores by then, so the log has the error."""
    model = CachedCrossEncoder(FakeCrossEncoder(), FakeBrokenCache())
    scored = await model.ascore_pairs(PAIRS, deadline=time.monotonic() + WATCHDOG)
    assert [pair.score for pair in scored] == true_scores(PAIRS)
    await model.scheduler.run(counted("after", 1, []))
    assert "the disk is full" in caplog.text


async def test_a_hit_waits_for_one_turn() -> None:
    """A call whose scores are known has them after one step of another call's work."""
    log: list[str] = []
    model = CachedCrossEncoder(FakeCrossEncoder(), NotingCache(log))
    model.score(PAIRS)
    log.clear()
    gate = Gate()
    model.scheduler.submit(counted("other", 3, log, gate=gate))
    assert await asyncio.to_thread(gate.begun.wait, WATCHDOG)
    hit = asyncio.ensure_future(model.ascore(PAIRS))
    await asyncio.sleep(0)
    gate.opened.set()
    assert await hit == true_scores(PAIRS)
    assert log[:2] == ["other0", "look-up"]
