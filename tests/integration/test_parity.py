"""Every backend gives what sentence-transformers gives, and exported and packed graphs give what torch gives."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder
from langchain_crossrerank.cross_encoders.base import CrossEncoder
from langchain_crossrerank.cross_encoders.loading import load_cross_encoder
from langchain_crossrerank.cross_encoders.model_files import ModelSource
from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.cross_encoders.scheduling import drain
from langchain_crossrerank.cross_encoders.scores import sigmoid
from langchain_crossrerank.errors import InvalidInputError, ModelError, ModelNotFoundError, UnsupportedModelError
from langchain_crossrerank.onnx_graphs.cache import own_graph
from langchain_crossrerank.onnx_graphs.sessions import open_session
from langchain_crossrerank.testing import check_cross_encoder

torch = pytest.importorskip("torch", reason="needs the torch extra")
transformers = pytest.importorskip("transformers", reason="needs the torch extra")
sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs the torch extra")
onnx = pytest.importorskip("onnx", reason="needs the export extra")

from langchain_crossrerank.cross_encoders import export  # noqa: E402
from langchain_crossrerank.onnx_graphs import packing  # noqa: E402
from tests.conftest import make_tiny_model  # noqa: E402 - it needs what the lines above ask for

Load = Callable[..., CrossEncoder]

BACKENDS = ("torch", "onnx")
PROMISED = 1e-4
"""How far a backend's score may be from that of sentence-transformers."""

PAIRS: list[TextPair] = [
    ("What is LoRA?", "LoRA trains two small matrices beside each frozen weight matrix."),
    ("What is LoRA?", "The ferry to the island leaves at nine."),
    ("who wrote hamlet", "Hamlet is a tragedy by William Shakespeare. " * 40),
    ("naïve café 東京", "Emoji 🙂 and right-to-left text: שלום."),
    ("a", "b"),
]


@pytest.fixture(scope="session")
def folders(tiny_model_folder: Path, tiny_onnx_folder: Path) -> dict[tuple[str, int], Path]:
    """Model folders by backend and number of labels."""
    two = make_tiny_model(tiny_model_folder.parent / "two-labels", num_labels=2, seed=1)
    export.export_onnx(str(two), two.parent / "two-labels-onnx")
    return {
        ("torch", 1): tiny_model_folder,
        ("onnx", 1): tiny_onnx_folder,
        ("torch", 2): two,
        ("onnx", 2): two.parent / "two-labels-onnx",
    }


@pytest.fixture(scope="session")
def reference(folders: dict[tuple[str, int], Path]) -> Callable[[int], Any]:
    """The same models by sentence-transformers directly."""
    models = {
        labels: sentence_transformers.CrossEncoder(
            str(folders["torch", labels]), device="cpu", model_kwargs={"use_safetensors": True}
        )
        for labels in (1, 2)
    }
    return models.__getitem__


@pytest.fixture(params=BACKENDS)
def load(request: pytest.FixtureRequest, folders: dict[tuple[str, int], Path]) -> Load:
    """Load the tiny model on each backend in turn."""
    backend: Any = request.param

    def load(labels: int = 1, **settings: Any) -> CrossEncoder:
        model = load_cross_encoder(folders[backend, labels], backend=backend, **settings)
        assert model.backend == backend
        return model

    return load


@pytest.mark.parametrize("activation", ["identity", "sigmoid"])
def test_one_logit_scores_as_sentence_transformers_does(
    load: Load, reference: Callable[[int], Any], activation: Any
) -> None:
    """Logits and probabilities of long, blank and odd pairs are those of `CrossEncoder.predict` within 1e-4."""
    function = torch.nn.Sigmoid() if activation == "sigmoid" else torch.nn.Identity()
    expected = reference(1).predict(PAIRS, activation_fn=function, show_progress_bar=False)
    scores = load(activation=activation).score(PAIRS)
    assert scores == pytest.approx(expected.tolist(), abs=PROMISED)
    assert len({round(score, 3) for score in scores}) == len(PAIRS)


def test_the_default_unit_is_that_of_sentence_transformers(load: Load, reference: Callable[[int], Any]) -> None:
    """Without being told, a model scores in the unit in which `CrossEncoder.predict` does."""
    assert load().score(PAIRS) == pytest.approx(
        reference(1).predict(PAIRS, show_progress_bar=False).tolist(), abs=PROMISED
    )


def test_two_logits_give_log_odds(load: Load, reference: Callable[[int], Any]) -> None:
    """A two-logit head scores the log-odds of class 1, whose sigmoid is that class's softmax probability."""
    softmax = reference(2).predict(PAIRS, apply_softmax=True, show_progress_bar=False)[:, 1].tolist()
    log_odds = load(2).score(PAIRS)
    assert load(2).activation == "identity"
    assert [sigmoid(score) for score in log_odds] == pytest.approx(softmax, abs=PROMISED)
    assert load(2, activation="sigmoid").score(PAIRS) == pytest.approx(softmax, abs=PROMISED)
    logits = reference(2).predict(PAIRS, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    assert log_odds == pytest.approx((logits[:, 1] - logits[:, 0]).tolist(), abs=PROMISED)


def test_a_blank_passage_is_still_a_passage(
    load: Load, reference: Callable[[int], Any], request: pytest.FixtureRequest
) -> None:
    """A pair with an empty passage is encoded as a pair, and scores as `CrossEncoder.predict` has it."""
    pairs = [("who wrote hamlet", ""), ("who wrote hamlet", " \n")]
    (expected,) = reference(1).predict(pairs[:1], show_progress_bar=False).tolist()
    assert load().score(pairs) == pytest.approx([expected] * 2, abs=PROMISED)


@pytest.mark.parametrize("max_batch_tokens", [1, 100, 4096])
def test_batching_does_not_change_scores(load: Load, max_batch_tokens: int) -> None:
    """Alone, in company of like length or all in one padded batch, a pair scores the same."""
    alone = [load().score([pair])[0] for pair in PAIRS]
    assert load(max_batch_tokens=max_batch_tokens).score(PAIRS) == pytest.approx(alone, abs=PROMISED)


def test_every_backend_keeps_the_contract(load: Load) -> None:
    """The shipped check passes on every backend."""
    model = load()
    check_cross_encoder(model)
    assert model.max_length == 128


def test_every_backend_cuts_what_is_too_long(load: Load) -> None:
    """A long passage loses its end, a long query its middle, and both say so."""
    model = load(max_length=32)
    results = drain(model.score_steps([("a query", "word " * words) for words in (27, 28, 500)]))
    assert [result.truncated for result in results] == [False, True, True]
    assert results[1].score == pytest.approx(results[2].score)
    (cut,) = drain(model.score_steps([("word " * 29, "a passage")]))
    assert (cut.query_truncated, cut.truncated) == (True, False)


def test_every_backend_refuses_a_long_query_if_asked(load: Load) -> None:
    """With `long_query="error"` a query is read whole, or refused if it leaves no token for the passage."""
    model = load(max_length=32, long_query="error")
    (scored,) = drain(model.score_steps([("word " * 28, "a passage")]))
    assert not scored.query_truncated
    with pytest.raises(InvalidInputError, match=r"29 tokens, and 28 fit into the 32"):
        model.score([("word " * 29, "a passage")])


def test_many_threads_share_one_model(load: Load, request: pytest.FixtureRequest) -> None:
    """A model that is shared by threads gives each of them the scores that it would get alone."""
    model = load()
    pairs = [("what is lora", "words and more " * length) for length in range(20, 60)]
    expected = model.score(pairs)
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda _: model.score(pairs), range(16)))
    assert all(scores == pytest.approx(expected, abs=PROMISED) for scores in outcomes)


@pytest.fixture(scope="session")
def three_labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of three classes, as for NLI."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "three-labels", num_labels=3)


def _constant_graph(path: Path, *, width: int, shape: list[object], pooled: bool = True) -> None:
    """Write a graph that looks tokens up in a table of `width` columns and puts out their mean, or all of them."""
    helper, tensor = onnx.helper, onnx.TensorProto
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["rows" if pooled else "logits"])]
    if pooled:
        nodes.append(helper.make_node("ReduceMean", ["rows"], ["logits"], axes=[1], keepdims=0))
    table = np.random.default_rng(0).normal(size=(30522, width)).astype(np.float32)
    made = helper.make_graph(
        nodes,
        "constant",
        [helper.make_tensor_value_info("input_ids", tensor.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("logits", tensor.FLOAT, shape)],
        [onnx.numpy_helper.from_array(table, "table")],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


@pytest.mark.parametrize("backend", BACKENDS)
def test_three_logits_are_refused_on_every_backend(three_labels: Path, tmp_path: Path, backend: Any) -> None:
    """A head that gives no relevance is refused when it is loaded, with its number of outputs."""
    folder = tmp_path / "model"
    shutil.copytree(three_labels, folder)
    if backend == "onnx":
        _constant_graph(folder / "model.onnx", width=3, shape=["batch", 3])
    with pytest.raises(UnsupportedModelError, match="3 outputs"):
        load_cross_encoder(folder, backend=backend)


@pytest.mark.parametrize(
    ("shape", "pooled"),
    [(["batch", "labels"], True), (["batch", "tokens", 3], False)],
    ids=["width not told", "tokens"],
)
def test_a_graph_that_is_no_reranker_never_scores(
    tiny_model_folder: Path, tmp_path: Path, shape: list[object], pooled: bool
) -> None:
    """Whatever a graph says about its output, one that does not give one or two logits a pair raises."""
    shutil.copytree(tiny_model_folder, tmp_path / "model")
    _constant_graph(tmp_path / "model" / "model.onnx", width=3, shape=shape, pooled=pooled)
    with pytest.raises(UnsupportedModelError, match="a reranker needs"):
        load_cross_encoder(tmp_path / "model", backend="onnx").score(PAIRS)


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda model, target: load_cross_encoder(model), id="auto"),
        pytest.param(lambda model, target: load_cross_encoder(model, backend="torch"), id="torch"),
        pytest.param(lambda model, target: export.export_onnx(str(model), target), id="export"),
    ],
)
def test_pickled_weights_are_refused(tiny_model_folder: Path, tmp_path: Path, use: Callable[..., object]) -> None:
    """A folder whose weights are only a pickle is not loaded, by no way."""
    from safetensors.torch import load_file

    folder = tmp_path / "pickled"
    shutil.copytree(tiny_model_folder, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match="safetensors"):
        use(folder, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


@pytest.fixture(scope="session")
def embedding_folder(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder without a classification head, saved as such."""
    folder = tmp_path_factory.mktemp("models") / "embedding"
    shutil.copytree(tiny_model_folder, folder)
    (folder / "model.safetensors").unlink()
    transformers.BertModel(transformers.BertConfig.from_pretrained(tiny_model_folder)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda model, target: load_cross_encoder(model, backend="torch"), id="torch"),
        pytest.param(
            lambda model, target: export.export_onnx(str(model), target),
            id="export",
        ),
    ],
)
def test_a_model_without_a_head_is_refused(embedding_folder: Path, tmp_path: Path, use: Callable[..., object]) -> None:
    """Loading an embedding model would make up a head at random, so it raises and nothing is written."""
    with pytest.raises(UnsupportedModelError):
        use(embedding_folder, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize(
    "backend",
    [
        "torch",
        pytest.param(
            "onnx",
        ),
    ],
)
def test_a_saved_unit_is_kept_on_every_backend(
    reference: Callable[[int], Any], tiny_onnx_folder: Path, tmp_path: Path, backend: Any
) -> None:
    """A model that sentence-transformers saved with another activation scores in that unit wherever it runs."""
    model = sentence_transformers.CrossEncoder(
        str(tiny_onnx_folder.parent / "tiny-bert"), device="cpu", activation_fn=torch.nn.Identity()
    )
    model.save_pretrained(str(tmp_path / "saved"))
    shutil.copyfile(tiny_onnx_folder / "model.onnx", tmp_path / "saved" / "model.onnx")
    loaded = load_cross_encoder(tmp_path / "saved", backend=backend)
    expected = reference(1).predict(PAIRS, activation_fn=torch.nn.Identity(), show_progress_bar=False).tolist()
    assert loaded.activation == "identity"
    assert loaded.score(PAIRS) == pytest.approx(expected, abs=PROMISED)


def test_a_folder_in_the_home_is_found_on_torch(tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` stands for the home folder on this backend as on the other."""
    monkeypatch.setenv("HOME", str(tiny_model_folder.parent))
    monkeypatch.setenv("USERPROFILE", str(tiny_model_folder.parent))
    model = load_cross_encoder(f"~/{tiny_model_folder.name}", backend="torch")
    assert model.score(PAIRS) == load_cross_encoder(tiny_model_folder, backend="torch").score(PAIRS)


def test_an_export_reports_how_far_it_is_from_torch(tiny_model_folder: Path, tmp_path: Path) -> None:
    """A new or empty folder gets graph, config and tokenizer, and the difference in logits is within the promise."""
    target = tmp_path / "exported"
    target.mkdir()
    rows = export.export_onnx(str(tiny_model_folder), target)
    assert [row.text_pair for row in rows] == list(export.PARITY_PAIRS)
    assert all(0 <= row.difference <= export.PARITY_TOLERANCE for row in rows)
    assert {"config.json", "model.onnx", "tokenizer.json"} <= {file.name for file in target.iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]


def test_an_exported_folder_needs_no_torch(tiny_onnx_folder: Path) -> None:
    """Where torch cannot be imported, an exported folder loads and scores."""
    script = f"""
import sys
for name in ("torch", "transformers", "sentence_transformers", "onnx"):
    sys.modules[name] = None
from langchain_crossrerank import load_cross_encoder
print(load_cross_encoder({str(tiny_onnx_folder)!r}, backend="onnx").score({PAIRS!r}))
"""
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    scores = [float(score) for score in done.stdout.strip("[] \n").split(",")]
    assert scores == pytest.approx(load_cross_encoder(tiny_onnx_folder).score(PAIRS), abs=PROMISED)


@pytest.mark.parametrize("taken", ["file", "folder"])
def test_an_export_never_overwrites(tiny_model_folder: Path, tmp_path: Path, taken: str) -> None:
    """A file, or a folder with anything in it, is refused before the model is loaded, and stays as it was."""
    target = tmp_path / "exported"
    kept = target if taken == "file" else target / "notes.txt"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("mine", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="not an empty folder"):
        export.export_onnx(str(tiny_model_folder), target)
    assert kept.read_text(encoding="utf-8") == "mine"
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted({target.name, kept.name})


@pytest.fixture(params=["no model", "three labels", "no parity"])
def failing_export(
    request: pytest.FixtureRequest, tiny_model_folder: Path, three_labels: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """A model whose export fails: before loading, after loading, or after the graph was written."""
    if request.param == "no parity":
        monkeypatch.setattr(export, "PARITY_TOLERANCE", -1.0)
    models = {"no model": tiny_model_folder / "nope", "three labels": three_labels, "no parity": tiny_model_folder}
    return str(models[request.param])


def test_a_failed_export_leaves_nothing_behind(failing_export: str, tmp_path: Path) -> None:
    """Whenever it fails, an export into a new folder leaves neither that folder nor its own workings."""
    with pytest.raises(ModelError):
        export.export_onnx(failing_export, tmp_path / "exported")
    assert list(tmp_path.rglob("*")) == []


def test_a_failed_export_leaves_an_empty_folder_empty(three_labels: Path, tmp_path: Path) -> None:
    """A folder that was there stays, with nothing in it."""
    (tmp_path / "exported").mkdir()
    with pytest.raises(UnsupportedModelError):
        export.export_onnx(str(three_labels), tmp_path / "exported")
    assert list(tmp_path.rglob("*")) == [tmp_path / "exported"]


def test_a_failed_export_leaves_no_parents_behind(three_labels: Path, tmp_path: Path) -> None:
    """Parents that the export would have made are not made, or taken away again."""
    with pytest.raises(UnsupportedModelError):
        export.export_onnx(str(three_labels), tmp_path / "new" / "parents" / "exported")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(params=[16, 8])
def packed(request: pytest.FixtureRequest, tiny_onnx_folder: Path, tmp_path: Path) -> Path:
    """The exported folder with its graph in fewer bits."""
    folder = tmp_path / "packed"
    shutil.copytree(tiny_onnx_folder, folder)
    packing.pack_weights(tiny_onnx_folder / "model.onnx", folder / "model.onnx", matrix_bits=request.param)
    return folder


def test_packed_weights_keep_scores_close(packed: Path, tiny_onnx_folder: Path) -> None:
    """Packed in sixteen or eight bits, a graph gives probabilities within 0.02, the tolerance of the bundled model."""
    exact, stored = (
        OnnxCrossEncoder(ModelSource(folder.name, folder), activation="sigmoid").score(PAIRS)
        for folder in (tiny_onnx_folder, packed)
    )
    assert stored == pytest.approx(exact, abs=0.02)
    assert stored != exact
    assert all(math.isfinite(score) for score in stored)


def test_packed_weights_take_less_room(packed: Path, tiny_onnx_folder: Path) -> None:
    """Packing shrinks the file to less than a third, for most weights are embeddings, and leaves the original alone."""
    before = (tiny_onnx_folder / "model.onnx").stat().st_size
    assert (packed / "model.onnx").stat().st_size < before / 3
    assert onnx.load(str(tiny_onnx_folder / "model.onnx")).graph.initializer


def test_fewer_bits_take_less_room(tiny_onnx_folder: Path, tmp_path: Path) -> None:
    """Matrices in eight bits take less room than in sixteen."""
    sizes = []
    for bits in (16, 8):
        packing.pack_weights(tiny_onnx_folder / "model.onnx", tmp_path / f"{bits}.onnx", matrix_bits=bits)
        sizes.append((tmp_path / f"{bits}.onnx").stat().st_size)
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("bits", [4, 32])
def test_other_numbers_of_bits_are_refused(tiny_onnx_folder: Path, tmp_path: Path, bits: Any) -> None:
    """Only the two packings that exist can be asked for."""
    with pytest.raises(InvalidInputError, match="matrix_bits"):
        packing.pack_weights(tiny_onnx_folder / "model.onnx", tmp_path / "packed.onnx", matrix_bits=bits)


def test_rounded_weights_are_packed_without_loss(tmp_path: Path) -> None:
    """A table and a linear layer that were rounded before give the same numbers in eight bits as in thirty-two."""
    draw = np.random.default_rng(0)
    table, layer = (draw.normal(size=shape).astype(np.float32) for shape in ((50, 64), (96, 64)))
    for weight in (table, layer):
        assert not np.array_equal(packing.rounded(weight), weight)
        assert np.abs(packing.rounded(weight) - weight).max() < np.abs(weight).max() / 100
    table, layer = packing.rounded(table), packing.rounded(layer)
    helper, numbers = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["rows"]),
            helper.make_node("MatMul", ["rows", "layer"], ["out"]),
        ],
        "rounded",
        [helper.make_tensor_value_info("ids", numbers.INT64, ["n", "m"])],
        [helper.make_tensor_value_info("out", numbers.FLOAT, ["n", "m", 96])],
        # torch keeps a linear layer's weight the other way round.
        [onnx.numpy_helper.from_array(table, "table"), onnx.numpy_helper.from_array(layer.T.copy(), "layer")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "a.onnx")
    packing.pack_weights(tmp_path / "a.onnx", tmp_path / "b.onnx", matrix_bits=8)
    ids = np.arange(50, dtype=np.int64).reshape(5, 10)
    results = []
    for file in (tmp_path / "a.onnx", tmp_path / "b.onnx"):
        session = open_session(own_graph(file).graph)
        results.append(session.run(None, {"ids": ids})[0])
    assert np.array_equal(*results)
    assert (tmp_path / "b.onnx").stat().st_size < (tmp_path / "a.onnx").stat().st_size / 2
