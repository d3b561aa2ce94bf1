"""Every backend gives what sentence-transformers gives, and exported and packed graphs give what torch gives."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from langchain_crossrerank.cross_encoders.base import CrossEncoder
from langchain_crossrerank.cross_encoders.loading import load_cross_encoder
from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.cross_encoders.scheduling import drain
from langchain_crossrerank.cross_encoders.scores import sigmoid
from langchain_crossrerank.errors import InvalidInputError, ModelNotFoundError, UnsupportedModelError
from langchain_crossrerank.testing import check_cross_encoder

torch = pytest.importorskip("torch", reason="needs the torch extra")
transformers = pytest.importorskip("transformers", reason="needs the torch extra")
sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs the torch extra")
onnx = pytest.importorskip("onnx", reason="needs the export extra")

from langchain_crossrerank.cross_encoders import export  # noqa: E402
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
