"""LLM rerankers without modules of their own: the published form of Qwen3-Reranker, and its check at load."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
transformers = pytest.importorskip("transformers", reason="needs the torch extra")
pytest.importorskip("sentence_transformers", reason="needs the torch extra")

from langchain_crossrerank.cross_encoders.backends.causal import (  # noqa: E402
    DEFAULT_INSTRUCTION,
    SANITY_PAIRS,
    CausalCrossEncoder,
)
from langchain_crossrerank.cross_encoders.loading import load_cross_encoder  # noqa: E402
from langchain_crossrerank.errors import UnsupportedModelError  # noqa: E402
from langchain_crossrerank.testing import check_cross_encoder  # noqa: E402
from tests import tiny_models  # noqa: E402


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny causal model that has learnt the pairs of the sanity check."""
    return tiny_models.save_raw_causal(tmp_path_factory.mktemp("causal") / "trained", steps=150)


def test_a_causal_model_loads_by_its_folder_and_ranks(trained: Path) -> None:
    """`load_cross_encoder` recognises the kind of model, and yes and no become scores from 0 to 1."""
    model = load_cross_encoder(trained)
    (query, answer), (_, other) = SANITY_PAIRS
    right, wrong = model.score([(query, answer), (query, other)])
    assert type(model) is CausalCrossEncoder
    assert 0 <= wrong < right <= 1
    log_odds = load_cross_encoder(trained, activation="identity").score([(query, answer)])[0]
    assert right == pytest.approx(1 / (1 + math.exp(-log_odds)), abs=1e-5)


@pytest.mark.parametrize("instruction", [None, "Find jokes"])
def test_scores_are_those_of_the_published_prompt(trained: Path, instruction: str | None) -> None:
    """In a padded batch, each score is the log-odds of "yes" that the model gives for the published prompt alone."""
    settings: dict[str, Any] = {"activation": "identity", "instruction": instruction}
    model = load_cross_encoder(trained, **settings)
    pairs = [("a query", "short"), ("a query", "a much longer passage " * 5)]
    network = transformers.AutoModelForCausalLM.from_pretrained(trained)
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained)
    yes, no = (tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    for (query, passage), score in zip(pairs, model.score(pairs), strict=True):
        prompt = tiny_models.qwen3_prompt(instruction or DEFAULT_INSTRUCTION, query, passage)
        ids = torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]])
        with torch.inference_mode():
            last = network(input_ids=ids).logits[0, -1]
        assert score == pytest.approx(float(last[yes] - last[no]), abs=1e-4)


def test_the_suffix_is_never_cut(trained: Path) -> None:
    """However long the passage is, the prompt keeps to `max_length` and ends where the answer is read."""
    model = load_cross_encoder(trained, max_length=400)
    assert isinstance(model, CausalCrossEncoder)
    (item,) = model._encode([("a query", "word " * 3000)])
    assert model._model.tokenizer.decode(item.features["input_ids"]).endswith("<think>\n\n</think>\n\n")
    assert item.tokens == 400
    assert item.truncated


def test_the_instruction_is_part_of_the_fingerprint(trained: Path) -> None:
    """Another instruction has other scores and another cache key."""
    usual, other = load_cross_encoder(trained), load_cross_encoder(trained, instruction="Find jokes")
    assert usual.score([("a query", "a passage")]) != other.score([("a query", "a passage")])
    assert usual.fingerprint != other.fingerprint


def test_the_default_instruction_can_be_named(trained: Path) -> None:
    """The published instruction, passed explicitly, changes nothing."""
    named = load_cross_encoder(trained, instruction=DEFAULT_INSTRUCTION)
    assert named.fingerprint == load_cross_encoder(trained).fingerprint


def test_the_sanity_check_asks_with_the_published_instruction(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instruction that turns relevance round does not make loading fail: it is set after the check."""
    asked = []
    score_batch = CausalCrossEncoder._score_batch

    def spy(self: CausalCrossEncoder, batch: Any) -> Any:
        asked.append(self._model.tokenizer.decode(batch[0].features["input_ids"]))
        return score_batch(self, batch)

    monkeypatch.setattr(CausalCrossEncoder, "_score_batch", spy)
    load_cross_encoder(trained, instruction="Retrieve passages on another topic", max_length=300)
    assert len(asked) == 1
    assert f"<Instruct>: {DEFAULT_INSTRUCTION}\n" in asked[0]


def test_a_random_head_is_refused(tmp_path: Path) -> None:
    """A model that was never trained to answer fails the check at load, and the error has its margin."""
    folder = tiny_models.save_raw_causal(tmp_path / "random")
    with pytest.raises(UnsupportedModelError, match="log-odds"):
        load_cross_encoder(folder)


def test_missing_answers_are_named(tmp_path: Path) -> None:
    """A tokenizer without single tokens for yes and no is an error that says so."""
    folder = tiny_models.save_raw_causal(tmp_path / "model")
    tokenizer = tiny_models.wordpiece_tokenizer()
    vocabulary = tokenizer.backend_tokenizer.to_str().replace('"yes"', '"yess"').replace('"no"', '"noo"')
    (folder / "tokenizer.json").write_text(vocabulary, encoding="utf-8")
    with pytest.raises(UnsupportedModelError, match='no single tokens "yes" and "no"'):
        load_cross_encoder(folder)


def test_the_contract_holds(trained: Path) -> None:
    """Order, batch and hostile texts change nothing."""
    check_cross_encoder(load_cross_encoder(trained), tolerance=1e-3)
