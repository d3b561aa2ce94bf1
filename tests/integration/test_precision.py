"""What forward passes compute in: how close each precision and backend stays, and what is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from langchain_crossrerank._machine import cache_folder
from langchain_crossrerank.cross_encoders.backends import onnx
from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder
from langchain_crossrerank.cross_encoders.base import CrossEncoder
from langchain_crossrerank.cross_encoders.loading import load_cross_encoder
from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER, ModelSource
from langchain_crossrerank.cross_encoders.pairs import EncodedPair, TextPair
from langchain_crossrerank.cross_encoders.wrappers.cached import CachedCrossEncoder
from langchain_crossrerank.errors import InvalidInputError

QUERIES = ("What is low-rank adaptation?", "When does the ferry leave?", "How is tea brewed?")
PASSAGES = (
    "LoRA trains two small matrices beside each frozen weight matrix of a large model.",
    "Low-rank adaptation adds few parameters to a network, so that fine-tuning takes little memory.",
    "Fine-tuning changes all weights of a model, which takes much memory.",
    "A matrix of low rank is the product of two thin ones.",
    "The ferry to the island leaves at nine in the morning and at five in the afternoon.",
    "Ferries carry cars and passengers; tickets are sold at the harbour.",
    "Buses to the harbour leave every twenty minutes from the station.",
    "Green tea is brewed for two minutes in water of eighty degrees.",
    "Black tea takes boiling water and four minutes; milk comes last.",
    "Coffee beans are ground before hot water is poured over them.",
    "The weather will be sunny with a light wind from the west.",
)
PAIRS: list[TextPair] = [(query, passage) for query in QUERIES for passage in PASSAGES]
"""Three queries, each with passages that answer it, that come near, and that do not."""

Load = Callable[..., CrossEncoder]


@pytest.fixture(params=["bundled", "exported"])
def model(request: pytest.FixtureRequest) -> Path:
    """The bundled model's folder, or that of an exported tiny one."""
    if request.param == "bundled":
        return BUNDLED_FOLDER
    folder: Path = request.getfixturevalue("tiny_onnx_folder")
    return folder


def logits(model: Path | str, **settings: Any) -> list[float]:
    """Score all pairs in logits."""
    return load_cross_encoder(model, activation="identity", **settings).score(PAIRS)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's coefficient, for scores without ties."""
    ranks = np.array([np.argsort(np.argsort(scores)) for scores in (first, second)], dtype=np.float64)
    table: Any = np.corrcoef(ranks)
    return float(table[0, 1])


@pytest.fixture
def needs_openvino() -> None:
    """Skip where OpenVINO is not installed."""
    pytest.importorskip("openvino", reason="needs the openvino extra")


@pytest.fixture
def needs_bf16(needs_openvino: None) -> None:
    """Skip where this processor has no instructions for bf16."""
    import openvino

    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no instructions for bf16")


def test_openvino_scores_as_onnxruntime_does(model: Path, needs_openvino: None) -> None:
    """In fp32 the two backends agree within 1e-4 in logits."""
    expected = logits(model, backend="onnx")
    assert logits(model, backend="openvino") == pytest.approx(expected, abs=1e-4)
    assert len({round(score, 3) for score in expected}) > len(PAIRS) / 2


def test_openvino_keeps_the_order_in_bf16(needs_bf16: None) -> None:
    """In bf16 the bundled model ranks some thirty pairs nearly as in fp32, and really computes otherwise."""
    exact, rough = (logits("bundled", backend="openvino", precision=kind) for kind in ("fp32", "bf16"))
    assert rank_correlation(exact, rough) > 0.99
    assert rough == pytest.approx(exact, abs=0.2)
    assert rough != pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize("able", [True, False])
def test_openvino_takes_bf16_by_itself_where_it_can(
    needs_openvino: None, monkeypatch: pytest.MonkeyPatch, able: bool
) -> None:
    """`"auto"` is bf16 on a processor with instructions for it, and fp32 on another; `repr` shows which."""
    made = openvino_on(monkeypatch, able=able, precision="auto")
    assert f"precision={'bf16' if able else 'fp32'!r}" in repr(made)


def test_bf16_without_instructions_is_refused(needs_openvino: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that would only emulate bf16 is refused with the way out."""
    with pytest.raises(InvalidInputError, match='use "fp32"'):
        openvino_on(monkeypatch, able=False, precision="bf16")


def openvino_on(monkeypatch: pytest.MonkeyPatch, *, able: bool, precision: Any) -> CrossEncoder:
    """Load the bundled model on a processor that says whether it has bf16."""
    import openvino

    from langchain_crossrerank.cross_encoders.backends.openvino import OpenVinoCrossEncoder

    core = openvino.Core

    class Core:
        """A core whose processor says what the test wants."""

        def __init__(self) -> None:
            self.real = core()

        def get_property(self, device: str, name: str) -> Any:
            found = [kind for kind in self.real.get_property(device, name) if kind != "BF16"]
            return [*found, "BF16"] if able else found

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    monkeypatch.setattr(openvino, "Core", Core)
    return OpenVinoCrossEncoder(ModelSource("bundled", BUNDLED_FOLDER), precision=precision)


def test_openvino_reads_a_graph_from_memory(
    tiny_onnx_folder: Path, tmp_path: Path, needs_openvino: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no cache folder can be written, a graph made ready in memory is compiled all the same."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("CROSSRERANK_CACHE", str(tmp_path / "file"))
    loaded: Any = load_cross_encoder(tiny_onnx_folder, backend="openvino", activation="identity")
    assert isinstance(loaded._graph.graph.model, bytes)
    assert loaded.score(PAIRS) == pytest.approx(logits(tiny_onnx_folder, backend="onnx"), abs=1e-4)


def test_eight_bits_keep_the_order() -> None:
    """In eight bits the bundled model ranks some thirty pairs nearly as in fp32, and really computes otherwise."""
    exact, rough = (logits("bundled", precision=kind) for kind in ("fp32", "int8"))
    assert len(exact) > 30
    assert rank_correlation(exact, rough) > 0.9
    assert rough != pytest.approx(exact, abs=1e-3)


def test_eight_bits_score_an_exported_model(tiny_onnx_folder: Path) -> None:
    """An exported model can be asked for in eight bits too; its scores move, and follow fp32."""
    exact, rough = (logits(tiny_onnx_folder, precision=kind) for kind in ("fp32", "int8"))
    assert rank_correlation(exact, rough) > 0.9
    assert rough != exact


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_repr_says_the_precision(precision: Any) -> None:
    """What a model computes in can be seen."""
    assert f"precision={precision!r}" in repr(load_cross_encoder("bundled", precision=precision))


def test_eight_bits_depend_on_the_company() -> None:
    """Activations of a batch share one scale, so such a model says that pairs are not scored alone; fp32 are."""
    exact, rough = (load_cross_encoder("bundled", precision=kind) for kind in ("fp32", "int8"))
    assert (exact.scores_pairs_alone, rough.scores_pairs_alone) == (True, False)
    assert rough.score(PAIRS[:1]) != rough.score(PAIRS)[:1]
    with pytest.raises(InvalidInputError, match="cannot be cached"):
        CachedCrossEncoder(rough)


def test_every_precision_has_its_own_fingerprint(needs_bf16: None) -> None:
    """Caches never mix scores of different precisions or backends."""
    settings: list[dict[str, Any]] = [
        {"backend": "onnx", "precision": "fp32"},
        {"backend": "onnx", "precision": "int8"},
        {"backend": "openvino", "precision": "fp32"},
        {"backend": "openvino", "precision": "bf16"},
    ]
    found = [load_cross_encoder("bundled", **each).fingerprint for each in settings]
    assert len(set(found)) == len(settings)
    assert load_cross_encoder("bundled").fingerprint == found[0]


@pytest.mark.parametrize(
    ("backend", "precision", "remedy"),
    [
        ("onnx", "bf16", r"backend='openvino' or 'torch'"),
        ("onnx", "fp16", r"backend='torch'"),
        ("openvino", "int8", r"backend='onnx'"),
        ("openvino", "fp16", r"backend='torch'"),
        ("torch", "int8", r"backend='onnx'"),
        ("auto", "bf16", r"backend='openvino' or 'torch'"),
    ],
)
def test_an_unsupported_precision_is_refused(backend: Any, precision: Any, remedy: str) -> None:
    """The error names the backends that support what was asked for."""
    with pytest.raises(InvalidInputError, match=remedy):
        load_cross_encoder("bundled", backend=backend, precision=precision)


@pytest.mark.parametrize(("backend", "precision"), [("onnx", "int8"), ("openvino", "fp32")])
def test_a_pickled_copy_is_the_same_model(tiny_onnx_folder: Path, backend: Any, precision: Any) -> None:
    """A copy that went through pickle computes on the same backend in the same precision."""
    if backend == "openvino":
        pytest.importorskip("openvino", reason="needs the openvino extra")
    loaded = load_cross_encoder(tiny_onnx_folder, backend=backend, precision=precision)
    copy = pickle.loads(pickle.dumps(loaded))
    assert (type(copy), copy.fingerprint, repr(copy)) == (type(loaded), loaded.fingerprint, repr(loaded))
    assert copy.score(PAIRS) == pytest.approx(loaded.score(PAIRS), abs=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_torch_computes_on_a_cpu(tiny_model_folder: Path, precision: Any) -> None:
    """Torch on a CPU takes bf16 too: scores stay near, and the fingerprint is another."""
    pytest.importorskip("sentence_transformers", reason="needs the torch extra")
    settings: dict[str, Any] = {"backend": "torch", "device": "cpu", "activation": "identity"}
    exact = load_cross_encoder(tiny_model_folder, **settings)
    loaded = load_cross_encoder(tiny_model_folder, **settings, precision=precision)
    assert (loaded.fingerprint == exact.fingerprint) == (precision == "fp32")
    expected, found = exact.score(PAIRS), loaded.score(PAIRS)
    assert rank_correlation(expected, found) > 0.9
    assert (found == expected) == (precision == "fp32")


@pytest.mark.parametrize("winner", ["fp32", "int8"])
def test_auto_takes_what_was_measured(tiny_onnx_folder: Path, monkeypatch: pytest.MonkeyPatch, winner: Any) -> None:
    """`precision="auto"` runs both graphs on the same batch, takes the one that the measurement names, and says so."""
    shapes: list[dict[str, tuple[int, ...]]] = []

    def choose(runs: Mapping[str, Callable[[], Any]], key: str) -> Any:
        shapes.append({name: run().shape for name, run in runs.items()})
        return winner

    monkeypatch.setattr(onnx, "faster_precision", choose)
    loaded = OnnxCrossEncoder(ModelSource("tiny", tiny_onnx_folder), activation="identity", precision="auto")
    assert shapes == [{"fp32": (4, 1), "int8": (4, 1)}]
    assert (loaded.precision, f"precision={winner!r}" in repr(loaded)) == (winner, True)
    fixed = OnnxCrossEncoder(ModelSource("tiny", tiny_onnx_folder), activation="identity", precision=winner)
    assert loaded.fingerprint == fixed.fingerprint
    assert loaded.score(PAIRS) == fixed.score(PAIRS)


BATCHES = (64, 200, 1024, 4096)
MIXED: list[TextPair] = [*PAIRS, *((QUERIES[0], passage * times) for passage in PASSAGES[::3] for times in (2, 5, 30))]


@pytest.fixture(params=["onnx", "openvino"])
def by_batch(request: pytest.FixtureRequest, model: Path) -> dict[int, list[float]]:
    """Logits of short and long pairs for every batch size."""
    if request.param == "openvino":
        pytest.importorskip("openvino", reason="needs the openvino extra")
    backend: Any = request.param
    return {size: load_cross_encoder(model, backend=backend, max_batch_tokens=size).score(MIXED) for size in BATCHES}


def test_batches_of_any_size_give_the_same_scores(by_batch: dict[int, list[float]]) -> None:
    """Whatever `max_batch_tokens`, a probability stays within 1e-6, and the order is exactly the same."""
    expected = by_batch[BATCHES[0]]
    orders = set()
    for scores in by_batch.values():
        assert scores == pytest.approx(expected, abs=1e-6)
        orders.add(tuple(sorted(range(len(scores)), key=lambda place: -scores[place])))
    assert len(orders) == 1


def test_the_limit_of_a_batch_is_kept(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No forward pass holds more tokens than allowed, padding included, except a single longer pair."""
    seen: list[tuple[int, int]] = []
    score = OnnxCrossEncoder._score_batch

    def watch(self: OnnxCrossEncoder, batch: Sequence[EncodedPair]) -> Sequence[float]:
        seen.append((len(batch), max(item.tokens for item in batch)))
        return score(self, batch)

    monkeypatch.setattr(OnnxCrossEncoder, "_score_batch", watch)
    load_cross_encoder(model, max_batch_tokens=100).score(MIXED)
    assert all(pairs == 1 or pairs * tokens <= 100 for pairs, tokens in seen)
    assert any(pairs > 1 for pairs, _ in seen)


def test_graphs_of_tests_stay_out_of_the_users_cache(own_cache: Path) -> None:
    """Nothing that tests make ready is written into the folder of whoever runs them."""
    assert cache_folder() == own_cache


@pytest.mark.parametrize(("asked", "shown"), [("fp32", "fp32"), ("bf16", "bf16"), ("auto", "fp32")])
def test_torch_says_what_it_computes_in(tiny_model_folder: Path, asked: Any, shown: str) -> None:
    """The settled precision stands in `repr`, in the words in which it is asked for."""
    model = load_cross_encoder(tiny_model_folder, backend="torch", device="cpu", precision=asked)
    assert f"precision={shown!r}" in repr(model)


@pytest.mark.parametrize(
    ("backend", "precision"), [("torch", "fp32"), ("torch", "bf16"), ("torch", "fp16"), ("onnx", None)]
)
def test_a_gpu_gives_what_the_cpu_gives(
    tiny_onnx_folder: Path, tiny_model_folder: Path, backend: Any, precision: Any
) -> None:
    """On a GPU the scores are the CPU's, to what the precision allows."""
    torch = pytest.importorskip("torch", reason="needs torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    if backend == "onnx" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("needs onnxruntime-gpu")
    folder = tiny_onnx_folder if backend == "onnx" else tiny_model_folder
    pairs = [("what is lora", "low-rank adaptation"), ("what is lora", "the ferry leaves at nine " * 9)]
    on_cpu, on_gpu = (
        load_cross_encoder(folder, backend=backend, device=device, precision=kind, activation="identity").score(pairs)
        for device, kind in (("cpu", None), ("cuda", precision))
    )
    assert on_gpu == pytest.approx(on_cpu, abs=1e-3 if precision in (None, "fp32") else 5e-2)
