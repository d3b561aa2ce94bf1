"""Short measurements with a clock that tests move: what is chosen, kept, asked again, and never touched."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from langchain_crossrerank._machine import remember
from langchain_crossrerank.cross_encoders import calibration
from langchain_crossrerank.cross_encoders.backends import onnx
from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder
from langchain_crossrerank.cross_encoders.calibration import (
    BATCH_TOKENS,
    DEFAULT_BATCH_TOKENS,
    WORTH_CALIBRATING,
    faster_precision,
    known_batch_tokens,
    measure_batch_tokens,
)
from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER, ModelSource
from langchain_crossrerank.cross_encoders.pairs import EncodedPair, TextPair
from langchain_crossrerank.cross_encoders.scheduling import drain
from langchain_crossrerank.errors import ScoringError

KEY = "this-machine"
TOKENS = 64


class Clock:
    """A clock that only work moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for each test."""
    monkeypatch.setenv("CROSSRERANK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the measurements."""
    clock = Clock()
    monkeypatch.setattr(calibration, "time", clock)
    return clock


def forward(clock: Clock, a_token: Mapping[int, float]) -> tuple[Callable[[int], None], list[int]]:
    """A forward pass that takes so many seconds a token at each batch size, and the sizes it was run at."""
    seen: list[int] = []

    def run(pairs: int) -> None:
        seen.append(pairs * TOKENS)
        clock.now += a_token[pairs * TOKENS] * pairs * TOKENS

    return run, seen


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ((1.0, 1.0, 1.0), 256),
        ((1.5, 1.0, 1.2), 512),
        ((1.5, 1.4, 0.5), 1024),
        ((1.02, 1.01, 1.0), 256),
        ((1.04, 1.02, 1.0), 512),
        ((1.5, 1.031, 1.0), 1024),
    ],
)
def test_the_smallest_nearly_fastest_size_is_chosen(clock: Clock, seconds: tuple[float, ...], chosen: int) -> None:
    """Of the sizes within 3 % of the fastest, counted by token, the smallest wins."""
    run, _ = forward(clock, dict(zip(BATCH_TOKENS, seconds, strict=True)))
    assert measure_batch_tokens(run, TOKENS, KEY) == chosen


def test_the_best_round_of_a_size_counts(clock: Clock) -> None:
    """A disturbance during one round does not decide: each size is judged by its best round."""
    run, seen = forward(clock, dict(zip(BATCH_TOKENS, (1.0, 2.0, 2.0), strict=True)))

    def disturbed(pairs: int) -> None:
        run(pairs)
        clock.now += 10_000.0 if len(seen) == 1 else 0.0

    assert measure_batch_tokens(disturbed, TOKENS, KEY) == 256
    assert len(seen) > len(BATCH_TOKENS)


@pytest.mark.parametrize("tokens", [1, 100, 300, 5000])
def test_pairs_of_any_length_can_be_measured(clock: Clock, tokens: int) -> None:
    """A pair longer than a batch still runs alone, and at least one pair is in each pass."""
    counts: list[int] = []

    def run(pairs: int) -> None:
        counts.append(pairs)
        clock.now += pairs

    assert measure_batch_tokens(run, tokens, KEY) == 256
    assert min(counts) >= 1
    assert max(counts) <= max(1, max(BATCH_TOKENS) // tokens)


def test_a_finding_is_remembered(clock: Clock) -> None:
    """What was measured is known afterwards, under its own key only."""
    run, _ = forward(clock, dict(zip(BATCH_TOKENS, (2.0, 2.0, 1.0), strict=True)))
    assert known_batch_tokens(KEY) is None
    measure_batch_tokens(run, TOKENS, KEY)
    assert (known_batch_tokens(KEY), known_batch_tokens("another")) == (1024, None)


DAMAGED = [
    "",
    "{",
    "[]",
    "null",
    '"512"',
    "{}",
    '{"max_batch_tokens": 3}',
    '{"max_batch_tokens": "512"}',
    '{"max_batch_tokens": [512]}',
    '{"max_batch_tokens": null}',
    '{"precision": ["int8"]}',
    '{"precision": {}}',
    '{"precision": "fp64"}',
    "\udcff",
]


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_memory_of_sizes_is_ignored(cache: Path, content: str) -> None:
    """What is no JSON, no object, or no size that could have been chosen counts as nothing known."""
    cache.mkdir()
    (cache / f"batch-tokens-{KEY}.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert known_batch_tokens(KEY) is None


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_memory_of_precisions_is_measured_again(cache: Path, clock: Clock, content: str) -> None:
    """What is no JSON, no object, or no precision that there is counts as nothing known, and is written anew."""
    cache.mkdir()
    file = cache / f"precision-{KEY}.json"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert faster_precision(runs(clock, fp32=2.0, int8=1.0), KEY) == "int8"
    assert json.loads(file.read_text(encoding="utf-8"))["precision"] == "int8"


def runs(clock: Clock, **seconds: float) -> Any:
    """Forward passes that take so many seconds each."""

    def taking(spent: float) -> Callable[[], None]:
        def run() -> None:
            clock.now += spent

        return run

    return {name: taking(spent) for name, spent in seconds.items()}


@pytest.mark.parametrize(
    ("fp32", "int8", "chosen"), [(1.0, 0.5, "int8"), (1.2, 1.0, "int8"), (1.05, 1.0, "fp32"), (1.0, 2.0, "fp32")]
)
def test_eight_bits_must_be_clearly_faster(clock: Clock, fp32: float, int8: float, chosen: str) -> None:
    """Eight bits move scores, so a tenth of the time is the least they have to save."""
    assert faster_precision(runs(clock, fp32=fp32, int8=int8), KEY) == chosen


def test_without_eight_bits_nothing_is_measured(clock: Clock, cache: Path) -> None:
    """A graph that cannot be quantised is used in fp32, and nothing is written."""
    assert faster_precision(runs(clock, fp32=1.0), KEY) == "fp32"
    assert (clock.now, cache.exists()) == (0.0, False)


def test_a_precision_is_measured_once(clock: Clock) -> None:
    """The second question is answered from memory, whatever the machine does meanwhile."""
    assert faster_precision(runs(clock, fp32=2.0, int8=1.0), KEY) == "int8"
    spent = clock.now
    assert faster_precision(runs(clock, fp32=1.0, int8=2.0), KEY) == "int8"
    assert clock.now == spent


def encoder(**settings: Any) -> OnnxCrossEncoder:
    """The bundled model, a new object each time."""
    return OnnxCrossEncoder(ModelSource("bundled", BUNDLED_FOLDER), **settings)


LONG: list[TextPair] = [("a query", f"{number} " + "word " * 300) for number in range(WORTH_CALIBRATING // 256 + 1)]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Measurements that were asked for, by the tokens of their pair; each finds 1024, and scoring takes no time."""
    calls: list[int] = []

    def measure(run: Callable[[int], object], tokens: int, key: str) -> int:
        calls.append(tokens)
        return 1024

    monkeypatch.setattr(onnx, "measure_batch_tokens", measure)
    monkeypatch.setattr(OnnxCrossEncoder, "_score_batch", lambda _, batch: [0.5] * len(batch))
    return calls


def test_much_work_is_worth_a_measurement_once(measured: list[int]) -> None:
    """The first call with 50 000 tokens measures on a pair of typical length; later ones use what was found."""
    model = encoder()
    assert model.max_batch_tokens == DEFAULT_BATCH_TOKENS
    for _ in range(2):
        model.score(LONG)
    assert (measured, model.max_batch_tokens) == ([256], 1024)


def test_little_work_is_not_worth_a_measurement(measured: list[int]) -> None:
    """Below 50 000 tokens nothing is measured, however often it comes."""
    model = encoder()
    for _ in range(3):
        model.score(LONG[: len(LONG) // 2])
    assert (measured, model.max_batch_tokens) == ([], DEFAULT_BATCH_TOKENS)


@pytest.mark.parametrize("known", [False, True])
def test_a_size_that_was_asked_for_stays(measured: list[int], known: bool) -> None:
    """With `max_batch_tokens` given nothing is measured, and no finding of earlier replaces it."""
    if known:
        remember(f"batch-tokens-{encoder()._machine_key}", {"max_batch_tokens": 1024})
    model = encoder(max_batch_tokens=300)
    model.score(LONG)
    assert (measured, model.max_batch_tokens) == ([], 300)


def test_a_finding_of_an_earlier_process_is_used(measured: list[int]) -> None:
    """What is remembered is taken at loading, and not measured again."""
    remember(f"batch-tokens-{encoder()._machine_key}", {"max_batch_tokens": 1024})
    model = encoder()
    model.score(LONG)
    assert (measured, model.max_batch_tokens) == ([], 1024)


@pytest.mark.parametrize(
    "settings", [{"num_threads": 7}, {"precision": "int8"}], ids=lambda settings: next(iter(settings))
)
def test_a_finding_holds_for_its_own_settings(settings: dict[str, Any]) -> None:
    """Threads and precision decide how fast a batch is, so each has findings of its own."""
    assert encoder(**settings)._machine_key != encoder()._machine_key


def test_a_finding_holds_for_its_own_backend() -> None:
    """What is fastest on onnxruntime says nothing about OpenVINO."""
    pytest.importorskip("openvino", reason="needs the openvino extra")
    from langchain_crossrerank.cross_encoders.backends.openvino import OpenVinoCrossEncoder

    other = OpenVinoCrossEncoder(ModelSource("bundled", BUNDLED_FOLDER))
    assert other._machine_key != encoder()._machine_key


def test_a_failing_measurement_leaves_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where measuring fails, scoring goes on with the size there was."""
    monkeypatch.setattr(OnnxCrossEncoder, "_score_batch", lambda _, batch: [0.5] * len(batch))

    def fail(*_: object) -> int:
        raise MemoryError("no room")

    monkeypatch.setattr(onnx, "measure_batch_tokens", fail)
    model = encoder()
    assert set(model.score(LONG)) == {0.5}
    assert model.max_batch_tokens == DEFAULT_BATCH_TOKENS


def test_a_model_that_fails_while_measured_fails_as_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forward pass that raises is reported with its pairs, also if a measurement met it first."""

    def fail(self: OnnxCrossEncoder, batch: Sequence[EncodedPair]) -> list[float]:
        raise RuntimeError("broken")

    monkeypatch.setattr(OnnxCrossEncoder, "_score_batch", fail)
    with pytest.raises(ScoringError, match="broken") as caught:
        drain(encoder().score_steps(LONG))
    assert caught.value.positions
