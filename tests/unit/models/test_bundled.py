"""The model inside the package: its golden scores, what loading it costs, how it encodes and cuts pairs."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from tokenizers import Tokenizer

from langchain_crossrerank.cross_encoders.base import CrossEncoder
from langchain_crossrerank.cross_encoders.loading import load_cross_encoder
from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER
from langchain_crossrerank.cross_encoders.pairs import PairScore, TextPair
from langchain_crossrerank.cross_encoders.scheduling import drain
from langchain_crossrerank.cross_encoders.scores import sigmoid
from langchain_crossrerank.cross_encoders.wrappers.cascade import CascadeCrossEncoder
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.model_catalogue import MODELS
from langchain_crossrerank.onnx_graphs.sessions import Graph, open_session
from langchain_crossrerank.onnx_graphs.splitting import write_part
from langchain_crossrerank.onnx_graphs.structure import read_structure
from langchain_crossrerank.onnx_graphs.tensor_names import SPARSE_SCORES
from langchain_crossrerank.testing import check_cross_encoder

GOLDEN = json.loads((BUNDLED_FOLDER / "golden.json").read_text(encoding="utf-8"))

TOLERANCE = 0.02
"""How far a stored score, as a probability, may be from the trained model's in fp32."""

SPARSE_GRAPH = BUNDLED_FOLDER / "sparse.onnx"

ODD_PAIRS = [
    ("What is LoRA?", "LoRA trains two small matrices."),
    ("What is LoRA?", ""),
    ("naïve café 東京", "Emoji 🙂 and right-to-left text: שלום."),
    ("[CLS] [SEP]", "[SEP] [PAD] [MASK]"),
    ("a" * 200, "x" * 1000),
]


@pytest.fixture(scope="module")
def bundled() -> CrossEncoder:
    """The bundled model as everybody gets it."""
    return load_cross_encoder("bundled")


@pytest.fixture(scope="module")
def branch() -> CrossEncoder:
    """The sparse branch of the bundled model alone."""
    return load_cross_encoder("bundled", file_name="sparse.onnx")


@pytest.fixture(scope="module")
def short() -> CrossEncoder:
    """The bundled model reading 32 tokens only."""
    return load_cross_encoder("bundled", max_length=32)


@pytest.fixture(scope="module")
def strict() -> CrossEncoder:
    """The bundled model reading 32 tokens only, and refusing queries that fill them."""
    return load_cross_encoder("bundled", max_length=32, long_query="error")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """The model's own tokenizer, untouched by the package."""
    return Tokenizer.from_file(str(BUNDLED_FOLDER / "tokenizer.json"))


def score_pairs(model: CrossEncoder, text_pairs: list[TextPair]) -> list[PairScore]:
    """All that scoring gives."""
    return drain(model.score_steps(text_pairs))


def test_golden_pairs_score_as_the_trained_model(bundled: CrossEncoder) -> None:
    """Packed into fewer bits, the model gives each golden pair the trained model's probability within 0.02."""
    scores = bundled.score([(row["query"], row["passage"]) for row in GOLDEN])
    assert scores == pytest.approx([sigmoid(row["logit"]) for row in GOLDEN], abs=TOLERANCE)
    assert len(GOLDEN) == 63


@pytest.mark.parametrize("query", dict.fromkeys(row["query"] for row in GOLDEN))
def test_golden_passages_keep_their_order(bundled: CrossEncoder, query: str) -> None:
    """For each golden query the passages come in the trained model's order."""
    rows = [row for row in GOLDEN if row["query"] == query]
    scores = bundled.score([(query, row["passage"]) for row in rows])
    assert sorted(range(len(rows)), key=lambda i: -scores[i]) == sorted(
        range(len(rows)), key=lambda i: -rows[i]["logit"]
    )


KNOWN_WEAKNESS = "What is LoRA?"
"""The base model is older than the word: it does not know that LoRA has to do with fine-tuning."""


@pytest.mark.parametrize(
    "query",
    [
        pytest.param(query, marks=pytest.mark.xfail(reason="the card tells of it") if query == KNOWN_WEAKNESS else ())
        for query in dict.fromkeys(row["query"] for row in GOLDEN)
    ],
)
def test_what_answers_comes_before_what_is_near_and_what_is_not(bundled: CrossEncoder, query: str) -> None:
    """Of each golden triple the answer scores highest, a sentence on the subject next, and one on another last."""
    answer, near, other = bundled.score([(query, row["passage"]) for row in GOLDEN if row["query"] == query])
    assert answer > near > other


@pytest.mark.parametrize("query", dict.fromkeys(row["query"] for row in GOLDEN))
def test_an_answer_stands_out(bundled: CrossEncoder, query: str) -> None:
    """Of each golden triple the answer has clearly the best odds, and what is on another subject next to none."""
    answer, near, other = bundled.score([(query, row["passage"]) for row in GOLDEN if row["query"] == query])
    assert answer / (1 - answer) > 2.5 * near / (1 - near)
    assert other < 0.025


def test_its_scores_are_probabilities_by_default(bundled: CrossEncoder) -> None:
    """Without being told, the bundled model gives the sigmoid of its logit, as its config says."""
    assert bundled.activation == "sigmoid"
    logits = load_cross_encoder("bundled", activation="identity").score(ODD_PAIRS)
    assert bundled.score(ODD_PAIRS) == pytest.approx([sigmoid(logit) for logit in logits])
    assert any(not 0 <= logit <= 1 for logit in logits)


def test_it_keeps_the_contract(bundled: CrossEncoder) -> None:
    """The shipped check passes on the shipped model."""
    assert check_cross_encoder(bundled) is None  # type: ignore[func-returns-value]  # the promise is that it returns


def test_its_repr_shows_backend_unit_and_limits(bundled: CrossEncoder) -> None:
    """`repr` says what computes the scores, in which unit, from how many tokens."""
    assert repr(bundled).startswith(
        "OnnxCrossEncoder('bundled', backend='onnx', activation='sigmoid', max_length=256, max_batch_tokens="
    )


def test_a_larger_max_length_is_cut_to_the_positions(bundled: CrossEncoder) -> None:
    """By default the model reads what it was trained on; more can be asked for, up to the positions that it has."""
    assert bundled.max_length == 256
    assert load_cross_encoder("bundled", max_length=100_000).max_length == 512


def test_pairs_are_encoded_by_the_models_own_template(bundled: CrossEncoder, tokenizer: Tokenizer) -> None:
    """Ids and type ids are those of the tokenizer's own pair encoding; no special token is put in by hand."""
    for pair, encoded in zip(ODD_PAIRS, bundled._encode(ODD_PAIRS), strict=True):
        expected = tokenizer.encode(*pair)
        ids, type_ids = encoded.features
        assert (ids.tolist(), type_ids.tolist()) == (expected.ids, expected.type_ids)
        assert encoded.tokens == len(expected.ids)


def test_truncation_cuts_the_passage_and_never_the_query(short: CrossEncoder, tokenizer: Tokenizer) -> None:
    """Of a pair that is too long the passage's end goes; the query, all special tokens and the start stay."""
    # The query takes more than half of the limit, so that cutting the longer of the two would show.
    query, passage = "who wrote the play about the prince of denmark " * 2, "hamlet is a tragedy by shakespeare " * 20
    (encoded,) = short._encode([(query, passage)])
    ids = encoded.features[0].tolist()
    whole = tokenizer.encode(query, passage).ids
    assert len(whole) > len(ids) == 32
    assert ids == [*whole[:31], whole[-1]]
    assert ids[: len(tokenizer.encode(query).ids)] == tokenizer.encode(query).ids


def test_what_is_cut_does_not_change_the_score(short: CrossEncoder) -> None:
    """Two passages that differ only beyond the limit score the same, and both say that they were cut."""
    ends = ("the end " * 50, "another close " * 70)
    first, second = score_pairs(short, [("who wrote hamlet", "word " * 40 + end) for end in ends])
    assert first == second
    assert first.truncated


@pytest.mark.parametrize(("words", "truncated"), [(0, False), (24, False), (25, True), (500, True)])
def test_a_score_says_whether_the_passage_was_cut(short: CrossEncoder, words: int, truncated: bool) -> None:
    """`PairScore.truncated` is true from the first token on that does not fit: 32 less 4 special and 4 of the query."""
    (scored,) = score_pairs(short, [("who wrote hamlet ?", "word " * words)])
    assert scored.truncated is truncated


def test_truncation_is_told_pair_by_pair(short: CrossEncoder) -> None:
    """Among many pairs each has its own mark, whatever batch it ran in."""
    lengths = [1, 400, 3, 2, 90, 5] * 20
    scores = score_pairs(
        short, [("who wrote hamlet ?", f"{n} " + "word " * length) for n, length in enumerate(lengths)]
    )
    assert [scored.truncated for scored in scores] == [length > 24 for length in lengths]


async def test_a_query_may_take_all_but_one_token(strict: CrossEncoder) -> None:
    """With `long_query="error"` a query that leaves a single token to the passage is scored, by both ways to score."""
    pair = ("word " * 27, "another passage")
    (scored,) = score_pairs(strict, [pair])
    assert scored.truncated
    assert not scored.query_truncated
    assert await strict.ascore([pair]) == [scored.score]


@pytest.mark.parametrize("words", [28, 29, 32, 33, 5000])
@pytest.mark.parametrize("passage", ["", "a passage"])
async def test_a_query_that_fills_the_limit_is_refused(strict: CrossEncoder, words: int, passage: str) -> None:
    """With `long_query="error"` a query that leaves no token for the passage raises and names the limit."""
    pairs = [("fine", "a passage"), ("word " * words, passage)]
    with pytest.raises(InvalidInputError, match=r"32 that 'bundled' reads"):
        strict.score(pairs)
    with pytest.raises(InvalidInputError, match=r"32 that 'bundled' reads"):
        await strict.ascore(pairs)


@pytest.mark.parametrize("words", [17, 29, 32, 5000])
async def test_a_long_query_is_cut_and_marked(short: CrossEncoder, words: int) -> None:
    """A query that takes more than half of the limit loses its middle, and the score says so, by both ways to score."""
    pairs = [("fine", "a passage"), (f"first {'word ' * words}last", "a passage")]
    plain, cut = score_pairs(short, pairs)
    assert (plain.query_truncated, cut.query_truncated) == (False, True)
    assert not cut.truncated
    assert await short.ascore(pairs) == pytest.approx([plain.score, cut.score], abs=1e-6)


def test_a_query_in_hangul_that_fills_the_limit_is_cut(bundled: CrossEncoder) -> None:
    """The limit counts tokens: one character can be several of them."""
    query = "각각각각각각각각각 " * 12
    assert len(query) < 128
    (scored,) = score_pairs(bundled, [(query, "a passage")])
    assert scored.query_truncated


def _run(script: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "TOKENIZERS_PARALLELISM"}
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**environment, "HF_HUB_OFFLINE": "1"},
    )


def test_loading_and_scoring_needs_no_torch() -> None:
    """In a fresh process the bundled model loads and scores without torch, transformers or a socket."""
    done = _run(
        """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("a socket was opened")
socket.socket.connect = refuse
from langchain_crossrerank import load_cross_encoder
model = load_cross_encoder("bundled")
assert 0 <= model.score([("What is LoRA?", "Low-rank adaptation.")])[0] <= 1
print(sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "transformers", "sentence_transformers"}))
"""
    )
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("[]", "", 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_scores_with_an_inherited_model() -> None:
    """A model loaded before a fork gives the child the same scores, by both ways to score."""
    done = _run(
        """
import asyncio, os, signal, sys, warnings
from langchain_crossrerank import load_cross_encoder
pairs = [("What is LoRA?", "Low-rank adaptation."), ("What is LoRA?", "The weather.")]
model = load_cross_encoder("bundled")
expected = model.score(pairs)
assert asyncio.run(model.ascore(pairs)) == expected
child = os.fork()
if child == 0:
    signal.alarm(60)
    same = model.score(pairs) == expected and asyncio.run(model.ascore(pairs)) == expected
    os._exit(0 if same and load_cross_encoder("bundled") is model else 3)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""
    )
    assert done.returncode == 0, done.stderr


def test_the_sparse_graph_is_a_part_of_the_whole_one(tmp_path: Path) -> None:
    """It is what is cut out of the graph beside it, reads its weights from there, and costs the wheel little."""
    write_part(BUNDLED_FOLDER / "model.onnx", SPARSE_SCORES, tmp_path / "part.onnx")
    assert (tmp_path / "part.onnx").read_bytes() == SPARSE_GRAPH.read_bytes()
    assert SPARSE_GRAPH.stat().st_size < 300_000
    assert read_structure(SPARSE_GRAPH).external_files == ("model.onnx",)


def test_its_sizes_are_those_that_are_told() -> None:
    """The card and the catalogue count the parameters in the graph, those of the sparse branch apart and with them."""
    branch, total = _parameters(SPARSE_GRAPH), _parameters(BUNDLED_FOLDER / "model.onnx")
    card = (BUNDLED_FOLDER / "README.md").read_text(encoding="utf-8")
    assert (
        f"{(total - branch) / 1e6:.1f} M parameters; and a sparse encoder: 2 layers x 128, {branch / 1e6:.1f} M" in card
    )
    assert [model.parameters for model in MODELS if model.name == "bundled"] == [round(total / 1e6, 1)]


def _parameters(file: Path) -> int:
    weights = onnx.load(file, load_external_data=False).graph.initializer
    # Scales, and the shapes of what is stored in blocks, are how weights are packed.
    learned = [weight for weight in weights if not weight.name.endswith(("_scale", "_merge"))]
    return sum(math.prod(weight.dims) for weight in learned)


def test_the_sparse_branch_alone_scores_what_it_adds_to_the_whole(branch: CrossEncoder) -> None:
    """Its score is that of the tensor inside the whole graph, pair by pair."""
    pairs = [(row["query"], row["passage"]) for row in GOLDEN[:6]]
    model = onnx.load(BUNDLED_FOLDER / "model.onnx")
    model.graph.output.append(onnx.helper.make_tensor_value_info(SPARSE_SCORES, onnx.TensorProto.FLOAT, None))
    session = open_session(Graph(model.SerializeToString(), unpack=True))
    tokenizer = Tokenizer.from_file(str(BUNDLED_FOLDER / "tokenizer.json"))
    expected = []
    for pair in pairs:
        encoded = tokenizer.encode(*pair)
        inputs = {
            "input_ids": encoded.ids,
            "attention_mask": encoded.attention_mask,
            "token_type_ids": encoded.type_ids,
        }
        (found,) = session.run([SPARSE_SCORES], {name: np.array([values]) for name, values in inputs.items()})
        expected.append(float(found[0, 0]))
    assert branch.score(pairs) == pytest.approx(expected, abs=1e-4)
    assert max(expected) > 1


def test_the_sparse_branch_makes_up_no_probabilities(branch: CrossEncoder) -> None:
    """By default it returns what it adds to the logit, of which a sigmoid says little; that can still be asked for."""
    assert branch.activation == "identity"
    assert load_cross_encoder("bundled", file_name="sparse.onnx", activation="sigmoid").activation == "sigmoid"


def test_the_sparse_branch_ranks_the_answer_first(branch: CrossEncoder) -> None:
    """Of the three passages of each golden query it puts the answer first, so that a cascade keeps it."""
    scores = branch.score([(row["query"], row["passage"]) for row in GOLDEN])
    assert all(scores[first] > max(scores[first + 1 : first + 3]) for first in range(0, len(GOLDEN), 3))


def test_a_cascade_of_branch_and_whole_has_the_scores_of_the_whole(branch: CrossEncoder, bundled: CrossEncoder) -> None:
    """Survivors have exactly the score of the whole model, and the best one survives."""
    passages = [row["passage"] for row in GOLDEN]
    pairs = [(GOLDEN[0]["query"], passage) for passage in passages]
    whole = bundled.score(pairs)
    scores = CascadeCrossEncoder(branch, bundled, keep=10).score(pairs)
    assert scores[0] == max(scores) == pytest.approx(whole[0], abs=1e-6)
    assert sum(score == pytest.approx(exact, abs=1e-6) for score, exact in zip(scores, whole, strict=True)) >= 10
