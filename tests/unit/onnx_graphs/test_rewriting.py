"""Graphs made faster: the same logits, the last layer on one token, and what is not understood left alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER
from langchain_crossrerank.errors import GraphRewriteError, UnsupportedModelError
from langchain_crossrerank.onnx_graphs import first_token, rewriting, structure
from langchain_crossrerank.onnx_graphs.cache import prepare_graph
from langchain_crossrerank.onnx_graphs.rewriting import TOLERANCE, rewrite_file
from langchain_crossrerank.onnx_graphs.sessions import open_session
from langchain_crossrerank.onnx_graphs.stored_weights import WeightFiles
from langchain_crossrerank.onnx_graphs.structure import read_structure, whole_model

WORDS, HIDDEN, INNER = 200, 32, 48
"""Sizes of the tiny models; nothing else in them is as wide as `INNER`, the feed-forward's middle."""

KINDS = ("bert", "roberta", "xlm-roberta", "electra", "distilbert", "deberta-v2", "modernbert")
UNDERSTOOD_WHOLE = ("bert", "roberta", "xlm-roberta", "electra", "distilbert")
DISTILBERT_SHARES = ("vocab_size", "max_position_embeddings", "num_labels", "initializer_range")
ATTENTIONS = ("eager", "sdpa")

Family = Callable[..., Path]
Feed = dict[str, Any]


@pytest.fixture(autouse=True)
def small_weights_stay_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The matrices of the tiny models are left in their files like those of large ones."""
    monkeypatch.setattr(structure, "INLINE_BYTES", 256)


@dataclass(frozen=True)
class Made:
    """A rewritten graph with its weights inside, and what `rewrite` said of it."""

    model: onnx.ModelProto
    difference: float
    first_token_only: int


def rewrite(path: Path) -> Made:
    """Rewrite the graph in a file."""
    original = read_structure(path)
    files = WeightFiles(path, original.weights)
    made = rewriting.rewrite(original, files)
    return Made(whole_model(made.structure, files), made.difference, made.first_token_only)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Return the exported graph of a tiny random model by kind and attention, made once."""
    pytest.importorskip("torch", reason="needs the export extra")
    pytest.importorskip("transformers", reason="needs the export extra")
    folder = tmp_path_factory.mktemp("graphs")
    refused: dict[Path, str] = {}

    def get(kind: str, attention: str = "eager", *, pooler: Any = None) -> Path:
        path = folder / f"{kind}-{attention}{'-mean' if pooler else ''}.onnx"
        if not path.exists() and path not in refused:
            try:
                _export(kind, attention, path, pooler)
            except (ImportError, NotImplementedError, RuntimeError, ValueError) as err:
                refused[path] = f"{kind} with {attention} attention cannot be exported: {err}"
        if path in refused:
            pytest.skip(refused[path])
        return path

    return get


def _export(kind: str, attention: str, path: Path, pooler: Any) -> None:
    import torch
    import transformers

    from langchain_crossrerank.cross_encoders import export

    common: dict[str, Any] = {
        "vocab_size": WORDS,
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": INNER,
        "max_position_embeddings": 128,
        "num_labels": 1,
        "initializer_range": 0.3,
    }
    special = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
    configs: dict[str, tuple[str, dict[str, Any]]] = {
        "bert": ("BertConfig", {}),
        "roberta": ("RobertaConfig", {"pad_token_id": 1}),
        "xlm-roberta": ("XLMRobertaConfig", {"pad_token_id": 1}),
        "electra": ("ElectraConfig", {"embedding_size": HIDDEN}),
        "distilbert": ("DistilBertConfig", {"dim": HIDDEN, "n_layers": 2, "n_heads": 2, "hidden_dim": INNER}),
        "deberta-v2": (
            "DebertaV2Config",
            {
                "relative_attention": True,
                "pos_att_type": ["p2c", "c2p"],
                "position_buckets": 8,
                "norm_rel_ebd": "layer_norm",
                "share_att_key": True,
                "position_biased_input": False,
                "type_vocab_size": 0,
                "pooler_hidden_size": HIDDEN,
            },
        ),
        "modernbert": (
            "ModernBertConfig",
            {**dict.fromkeys(special, 1), "global_attn_every_n_layers": 2, "local_attention": 16},
        ),
    }
    name, own = configs[kind]
    # DistilBERT has names of its own for these, and takes the others for aliases of them.
    shared = common if kind != "distilbert" else {key: common[key] for key in DISTILBERT_SHARES}
    config = getattr(transformers, name)(**{**shared, **own})
    torch.manual_seed(0)
    automatic: Any = transformers.AutoModelForSequenceClassification
    network = automatic.from_config(config, attn_implementation=attention).eval()
    if pooler:
        network.bert.pooler = _mean_pooler(torch)
    words = _Words(torch, segments=kind in ("bert", "electra"))
    export._trace(SimpleNamespace(network=network, tokenizer=words, output="logits"), path)  # type: ignore[arg-type]


def _mean_pooler(torch: Any) -> Any:
    class Mean(torch.nn.Module):  # type: ignore[misc]
        def forward(self, hidden: Any) -> Any:
            return hidden.mean(dim=1)

    return Mean()


class _Words:
    """What the export needs of a tokenizer: names of inputs, and an example of two padded rows."""

    def __init__(self, torch: Any, *, segments: bool) -> None:
        self.model_input_names = ["input_ids", "attention_mask", *(["token_type_ids"] if segments else [])]
        self.torch = torch

    def __call__(self, *texts: object, **options: object) -> Feed:
        torch = self.torch
        ids, mask, types = torch.randint(5, WORDS, (2, 9)), torch.ones(2, 9).long(), torch.zeros(2, 9).long()
        mask[1, 6:] = 0
        types[:, 4:] = 1
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def random_feed(names: Sequence[str], batch: int, tokens: int, seed: int) -> Feed:
    """Random tokens; rows after the first are padded from a random place on."""
    random = np.random.default_rng(seed)
    ids = random.integers(5, WORDS, size=(batch, tokens))
    mask = np.ones_like(ids)
    types = (np.arange(tokens) >= random.integers(0, tokens, size=(batch, 1))).astype(np.int64)
    for row in range(1, batch):
        mask[row, random.integers(1, tokens + 1) :] = 0
    ids[mask == 0] = 1
    every = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types * mask}
    return {name: every[name] for name in names}


def session(model: str | Path | bytes) -> Any:
    """Open a graph on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(model) if isinstance(model, Path) else model, options)


def inner_widths(model: onnx.ModelProto, batch: int = 2, tokens: int = 7) -> list[tuple[int, ...]]:
    """Shapes of everything between the two halves of each feed-forward, in the graph's order."""
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    names = [node.output[0] for node in model.graph.node]
    there = {entry.name for entry in model.graph.output}
    observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in there)
    feed = random_feed([entry.name for entry in model.graph.input], batch, tokens, seed=0)
    values = session(observed.SerializeToString()).run(names, feed)
    shapes = [np.shape(value) for value in values]
    return [shape for shape in shapes if len(shape) >= 2 and shape[-1] == INNER and INNER not in shape[:-1]]


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_rewritten_graph_returns_the_same_logits(family: Family, kind: str, attention: str) -> None:
    """On random tokens with padding, batches of 1 to 4 and 1 to 40 tokens, logits stay within 1e-4."""
    path = family(kind, attention)
    original, faster = session(path), session(rewrite(path).model.SerializeToString())
    names = [entry.name for entry in original.get_inputs()]
    seen: list[float] = []
    for batch in (1, 2, 3, 4):
        for tokens in (1, 2, 3, 7, 15, 16, 17, 33, 40):
            feed = random_feed(names, batch, tokens, seed=100 * batch + tokens)
            expected, found = (each.run(None, feed)[0] for each in (original, faster))
            assert found.shape == expected.shape == (batch, 1)
            assert found == pytest.approx(expected, abs=TOLERANCE)
            seen += expected.ravel().tolist()
    # Equal logits of a model that says the same of everything would prove nothing.
    assert np.std(seen) > 0.01


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("kind", UNDERSTOOD_WHOLE)
def test_the_last_feed_forward_runs_on_one_token(family: Family, kind: str, attention: str) -> None:
    """The first layer's feed-forward sees all tokens, the last layer's one; in the original both see all."""
    path = family(kind, attention)
    made = rewrite(path)
    shapes = inner_widths(made.model)
    narrow = [shape for shape in shapes if shape[1] == 1]
    wide = [shape for shape in shapes if shape[1] == 7]
    assert len(narrow) == len(wide) > 0
    assert shapes == [*wide, *narrow]
    assert {shape[1] for shape in inner_widths(onnx.load(str(path)))} == {7}
    assert made.first_token_only > 10


def test_normalisations_written_out_are_understood(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph in which layer normalisation is means, differences and a root is narrowed just as far."""
    torch = pytest.importorskip("torch", reason="needs the export extra")
    export, whole = torch.onnx.export, family("bert")

    def older(*args: Any, **options: Any) -> None:
        export(*args, **{**options, "opset_version": 14})

    monkeypatch.setattr(torch.onnx, "export", older)
    path = whole.with_name("bert-opset14.onnx")
    _export("bert", "eager", path, None)
    assert any(node.op_type == "ReduceMean" for node in onnx.load(str(path)).graph.node)
    shapes = inner_widths(rewrite(path).model)
    assert {shape[1] for shape in shapes} == {1, 7}


def test_a_graph_that_reads_every_token_is_left_equal(family: Family) -> None:
    """Where the head takes the mean of all tokens, nothing is narrowed, and logits stay the same."""
    path = family("bert", pooler="mean")
    made = rewrite(path)
    assert {shape[1] for shape in inner_widths(made.model)} == {7}
    feed = random_feed([entry.name for entry in made.model.graph.input], 3, 20, seed=1)
    assert session(made.model.SerializeToString()).run(None, feed)[0] == pytest.approx(
        session(path).run(None, feed)[0], abs=TOLERANCE
    )


def test_the_bundled_graph_keeps_its_logits() -> None:
    """The model inside the package is made already; making it again changes nothing."""
    made = rewrite(BUNDLED_FOLDER / "model.onnx")
    assert made.difference <= TOLERANCE


def tiny_graph(
    path: Path,
    *,
    nodes: Sequence[onnx.NodeProto] = (),
    last: str = "pooled",
    inputs: Sequence[str] = ("input_ids",),
    outputs: Sequence[tuple[str, list[Any]]] = (("logits", ["batch", 1]),),
) -> Path:
    """Write a graph that looks tokens up, puts them through `nodes`, takes the first token, and makes a logit of it."""
    random = np.random.default_rng(0)
    weights = {
        "table": random.normal(size=(WORDS, 8)),
        "square": random.normal(size=(8, 8)),
        "head": random.normal(size=(8, 1)),
    }
    before = [helper.make_node("Gather", ["table", "input_ids"], ["rows"])]
    middle = list(nodes) or [
        helper.make_node("MatMul", ["rows", "square"], ["mixed"]),
        helper.make_node("Tanh", ["mixed"], ["tokens"]),
    ]
    after = [
        helper.make_node("Gather", ["tokens", "zero"], ["pooled"], axis=1),
        helper.make_node("MatMul", [last, "head"], ["logits"]),
    ]
    initializers = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    initializers.append(numpy_helper.from_array(np.array(0, dtype=np.int64), "zero"))
    made = helper.make_graph(
        [*before, *middle, *after],
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        initializers,
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def check_scores_stay(path: Path) -> None:
    """Whatever becomes of a graph, what is used in its place returns the same logits."""
    prepared = prepare_graph(path)
    feed = {
        entry.name: np.random.default_rng(0).integers(5, WORDS, size=(3, 9)) for entry in session(path).get_inputs()
    }
    assert open_session(prepared.graph).run(["logits"], feed)[0] == pytest.approx(
        session(path).run(["logits"], feed)[0], abs=TOLERANCE
    )


def test_a_tiny_graph_is_narrowed(tmp_path: Path) -> None:
    """The graph that the following tests modify is understood: product and tanh run on one token."""
    made = rewrite(tiny_graph(tmp_path / "model.onnx"))
    assert made.first_token_only == 2
    check_scores_stay(tmp_path / "model.onnx")


def unknown_input(path: Path) -> Path:
    """A graph with an input that no tokenizer provides."""
    add = helper.make_node("Cast", ["entity_ids"], ["places"], to=TensorProto.FLOAT)
    wide = helper.make_node("Unsqueeze", ["places", "minus"], ["wide"])
    tokens = helper.make_node("Add", ["rows", "wide"], ["tokens"])
    constant = helper.make_node("Constant", [], ["minus"], value_ints=[2])
    return tiny_graph(path, nodes=[constant, add, wide, tokens], inputs=("input_ids", "entity_ids"))


def branch(path: Path) -> Path:
    """A graph that does one thing or another, by what it is given."""
    out = [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)]
    one = helper.make_graph([helper.make_node("Tanh", ["rows"], ["chosen"])], "one", [], out)
    other = helper.make_graph([helper.make_node("Neg", ["rows"], ["chosen"])], "other", [], out)
    nodes = [
        helper.make_node("ReduceMax", ["input_ids"], ["largest"], keepdims=0),
        helper.make_node("Constant", [], ["limit"], value_int=150),
        helper.make_node("Greater", ["largest", "limit"], ["large"]),
        helper.make_node("If", ["large"], ["tokens"], then_branch=one, else_branch=other),
    ]
    return tiny_graph(path, nodes=nodes)


def loop(path: Path) -> Path:
    """A graph that does something twice."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["again"], ["still"]), helper.make_node("Tanh", ["state"], ["next"])],
        "body",
        [
            info("number", TensorProto.INT64, []),
            info("again", TensorProto.BOOL, []),
            info("state", TensorProto.FLOAT, None),
        ],
        [info("still", TensorProto.BOOL, []), info("next", TensorProto.FLOAT, None)],
    )
    twice = helper.make_node("Constant", [], ["twice"], value_int=2)
    return tiny_graph(path, nodes=[twice, helper.make_node("Loop", ["twice", "", "rows"], ["tokens"], body=body)])


@pytest.mark.parametrize(("make", "reason"), [(unknown_input, "entity_ids"), (branch, "branches"), (loop, "loops")])
def test_what_is_not_understood_is_said_and_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Callable[[Path], Path], reason: str
) -> None:
    """Unknown inputs, branches and loops raise with their reason; prepared, the original runs and the log says why."""
    path = make(tmp_path / "model.onnx")
    with pytest.raises(GraphRewriteError, match=reason):
        rewrite(path)
    with caplog.at_level(logging.INFO, "langchain_crossrerank"):
        prepared = prepare_graph(path)
    assert (prepared.origin, prepared.precision, prepared.rewritten) == (path, "fp32", False)
    assert reason in caplog.text


def test_a_second_output_is_not_computed(tmp_path: Path) -> None:
    """If the graph returns all tokens as well, only those that the logits need are computed."""
    path = tiny_graph(tmp_path / "model.onnx", outputs=[("tokens", ["batch", "tokens", 8]), ("logits", ["batch", 1])])
    assert rewrite(path).first_token_only == 2
    check_scores_stay(path)


MIXING = {
    # Summed from the end, so that the first entry is the sum of all.
    "running sum": [helper.make_node("CumSum", ["rows", "one"], ["tokens"], reverse=1)],
    "softmax over tokens": [helper.make_node("Softmax", ["rows"], ["tokens"], axis=1)],
    "norm over tokens": [helper.make_node("LpNormalization", ["rows"], ["tokens"], axis=1)],
    "twice as many tokens": [helper.make_node("Concat", ["rows", "rows"], ["tokens"], axis=1)],
    "tokens backwards": [helper.make_node("Slice", ["rows", "minus", "end", "one_axis", "minus"], ["tokens"])],
    "mean over tokens": [
        helper.make_node("ReduceMean", ["rows"], ["mean"], axes=[1]),
        helper.make_node("Sub", ["rows", "mean"], ["tokens"]),
    ],
    "mean over everything": [
        helper.make_node("ReduceMean", ["rows"], ["mean"]),
        helper.make_node("Sub", ["rows", "mean"], ["tokens"]),
    ],
    "attention": [
        helper.make_node("Transpose", ["rows"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["rows", "turned"], ["tokens_by_tokens"]),
        helper.make_node("MatMul", ["tokens_by_tokens", "rows"], ["tokens"]),
    ],
}


@pytest.mark.parametrize("kind", MIXING)
def test_operations_that_mix_tokens_get_all_they_need(tmp_path: Path, kind: str) -> None:
    """An operation whose first entry depends on other tokens still sees them, and the graph is taken."""
    given = {"one": np.array(1), "minus": np.array([-1]), "end": np.array([-1000]), "one_axis": np.array([1])}
    constants = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value)) for name, value in given.items()
    ]
    path = tiny_graph(tmp_path / "model.onnx", nodes=[*constants, *MIXING[kind]])
    rewrite(path)
    check_scores_stay(path)


@pytest.mark.parametrize("place", [1, -1, 2])
def test_another_token_than_the_first_is_not_taken_for_it(tmp_path: Path, place: int) -> None:
    """A head that reads the second, third or last token keeps it."""
    path = tiny_graph(tmp_path / "model.onnx")
    model = onnx.load(str(path))
    (zero,) = [tensor for tensor in model.graph.initializer if tensor.name == "zero"]
    zero.CopyFrom(numpy_helper.from_array(np.array(place, dtype=np.int64), "zero"))
    onnx.save(model, str(path))
    assert rewrite(path).first_token_only == 0
    check_scores_stay(path)


def test_external_weights_are_used(tmp_path: Path) -> None:
    """A graph with its weights in another file is rewritten, with the same logits."""
    path = tiny_graph(tmp_path / "whole.onnx")
    onnx.save(
        onnx.load(str(path)),
        str(tmp_path / "model.onnx"),
        save_as_external_data=True,
        location="w.bin",
        size_threshold=0,
    )
    prepared = prepare_graph(tmp_path / "model.onnx")
    assert prepared.rewritten
    check_scores_stay(tmp_path / "model.onnx")


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "missing weights"])
def test_a_damaged_graph_is_not_understood(tmp_path: Path, damage: str) -> None:
    """A file that is not a whole graph raises the package's own error, never another."""
    path = tiny_graph(tmp_path / "whole.onnx")
    target = tmp_path / "model.onnx"
    if damage == "missing weights":
        onnx.save(onnx.load(str(path)), str(target), save_as_external_data=True, location="w.bin", size_threshold=0)
        (tmp_path / "w.bin").unlink()
    else:
        content = {"cut": path.read_bytes()[:-99], "empty": b"", "text": b"no graph at all"}[damage]
        target.write_bytes(content)
    with pytest.raises(UnsupportedModelError):
        rewrite(target)


def test_a_wrong_rewrite_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If an operation is taken for one that treats tokens one by one and is not, the comparison sees it."""
    nodes = [helper.make_node("Softmax", ["rows"], ["tokens"], axis=1)]
    path = tiny_graph(tmp_path / "model.onnx", nodes=nodes)
    understood = first_token._input_axes

    def careless(node: onnx.NodeProto, *rest: Any) -> Any:
        return {0: 1} if node.op_type == "Softmax" else understood(node, *rest)

    assert rewrite(path).first_token_only == 0
    monkeypatch.setattr(first_token, "_input_axes", careless)
    with pytest.raises(GraphRewriteError, match="came out different"):
        rewrite(path)


def test_a_rewrite_that_returns_nan_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A difference that is not a number counts as a difference."""
    path = tiny_graph(tmp_path / "model.onnx")
    monkeypatch.setattr(rewriting, "_largest_difference", lambda *_: float("nan"))
    with pytest.raises(GraphRewriteError, match="came out different"):
        rewrite(path)


def test_a_file_is_rewritten_in_place(tmp_path: Path) -> None:
    """A graph's file is replaced by one that is whole, narrower and computes the same."""
    path = tiny_graph(tmp_path / "model.onnx")
    feed = random_feed(["input_ids"], 3, 9, seed=0)
    expected = session(path).run(None, feed)[0]
    rewrite_file(path)
    assert session(path).run(None, feed)[0] == pytest.approx(expected, abs=TOLERANCE)
    assert [node.op_type for node in onnx.load(str(path)).graph.node].count("Slice") == 1


def test_a_file_that_cannot_be_rewritten_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A graph that is not understood keeps its file, and the reason is logged."""
    path = branch(tmp_path / "model.onnx")
    before = path.read_bytes()
    with caplog.at_level(logging.INFO, "langchain_crossrerank"):
        rewrite_file(path)
    assert path.read_bytes() == before
    assert "branches" in caplog.text
