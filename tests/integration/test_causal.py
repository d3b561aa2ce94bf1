"""LLM rerankers: causal models that answer yes or no."""

from __future__ import annotations

from pathlib import Path

import pytest

from langchain_crossrerank.cross_encoders.loading import load_cross_encoder
from langchain_crossrerank.cross_encoders.model_files import ModelSource
from langchain_crossrerank.cross_encoders.scheduling import drain
from langchain_crossrerank.errors import InvalidInputError, UnsupportedModelError
from langchain_crossrerank.testing import check_cross_encoder

torch = pytest.importorskip("torch", reason="needs the torch extra")
transformers = pytest.importorskip("transformers", reason="needs the torch extra")
causal = pytest.importorskip("langchain_crossrerank.cross_encoders.backends.causal", reason="needs the torch extra")


def make_tiny_causal_model(folder: Path, *, steps: int) -> Path:
    """Save a tiny Qwen3 model; with `steps` it learns the two sanity pairs by heart, without it stays random."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    torch.manual_seed(0)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    texts = [causal._PREFIX, causal._SUFFIX, "yes no", *(text for pair in causal.SANITY_PAIRS for text in pair)]
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<|im_start|>", "<|im_end|>", "<think>", "</think>", "yes", "no"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    config = transformers.Qwen3Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    model = transformers.Qwen3ForCausalLM(config)
    model.save_pretrained(folder)
    if steps:
        train(model, folder, steps)
        model.save_pretrained(folder)
    return folder


def train(model: object, folder: Path, steps: int) -> None:
    """Teach a model to say yes to the sanity pairs and no when their answers are exchanged."""
    reranker = causal.CausalCrossEncoder.__new__(causal.CausalCrossEncoder)
    reranker.name, reranker.instruction, reranker.max_length = "training", causal.DEFAULT_INSTRUCTION, 512
    reranker._tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    (first, second) = causal.SANITY_PAIRS
    encoded = reranker._encode([first, second, (first[0], second[1]), (second[0], first[1])])
    yes, no = (reranker._tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        loss = torch.zeros(())
        for item, target in zip(encoded, (1.0, 1.0, 0.0, 0.0), strict=True):
            last = model(input_ids=torch.tensor([item.features])).logits[0, -1]
            odds = last[yes] - last[no]
            loss = loss + torch.nn.functional.binary_cross_entropy_with_logits(odds, torch.tensor(target))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny causal model that passes the sanity check."""
    return make_tiny_causal_model(tmp_path_factory.mktemp("causal") / "trained", steps=60)


def test_a_causal_model_loads_by_its_folder_and_ranks(trained: Path) -> None:
    """`load_cross_encoder` sees what kind of model it is, and yes and no become scores from 0 to 1."""
    model = load_cross_encoder(trained)
    (query, answer), (_, other) = causal.SANITY_PAIRS
    right, wrong = model.score([(query, answer), (query, other)])
    assert type(model).__name__ == "CausalCrossEncoder"
    assert 0 <= wrong < right <= 1
    odds = load_cross_encoder(trained, activation="identity").score([(query, answer)])[0]
    assert right == pytest.approx(1 / (1 + 2.718281828459045**-odds), abs=1e-5)


def test_scores_are_those_of_the_unpadded_prompt(trained: Path) -> None:
    """Padding on the left changes nothing: a batch gives what the model gives for each prompt alone."""
    model = load_cross_encoder(trained, activation="identity")
    pairs = [("a query", "short"), ("a query", "a much longer passage " * 5)]
    network = transformers.AutoModelForCausalLM.from_pretrained(trained)
    tokenizer = model._tokenizer
    yes, no = (tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    for (query, passage), score in zip(pairs, model.score(pairs), strict=True):
        body = f"<Instruct>: {causal.DEFAULT_INSTRUCTION}\n<Query>: {query}\n<Document>: {passage}"
        ids = tokenizer([causal._PREFIX, body, causal._SUFFIX])["input_ids"]
        ids = torch.tensor([[*ids[0], *ids[1], *ids[2]]])
        with torch.inference_mode():
            last = network(input_ids=ids).logits[0, -1]
        assert score == pytest.approx(float(last[yes] - last[no]), abs=1e-4)


def test_the_suffix_is_never_cut(trained: Path) -> None:
    """However long the passage, the prompt ends with the whole suffix and keeps to `max_length`."""
    model = load_cross_encoder(trained, max_length=256)
    (item,) = model._encode([("a query", "word " * 3000)])
    suffix = model._ids(causal._SUFFIX)
    assert item.features[-len(suffix) :] == suffix
    assert item.tokens == 256
    assert item.truncated


def test_the_instruction_reaches_the_prompt(trained: Path) -> None:
    """Another instruction gives another prompt, another score and another cache key."""
    usual = load_cross_encoder(trained)
    other = load_cross_encoder(trained, instruction="Find jokes")
    (item,) = other._encode([("a query", "a passage")])
    assert "Find jokes" in model_text(other, item.features)
    assert usual.score([("a query", "a passage")]) != other.score([("a query", "a passage")])
    assert usual.fingerprint != other.fingerprint


def model_text(model: object, ids: list[int]) -> str:
    """The text of token ids."""
    return str(model._tokenizer.decode(ids))


def test_a_random_head_is_refused(tmp_path: Path) -> None:
    """A model that was never trained to answer fails the sanity check at load, with its margin."""
    folder = make_tiny_causal_model(tmp_path / "random", steps=0)
    with pytest.raises(UnsupportedModelError, match="log-odds"):
        load_cross_encoder(folder)


def test_a_query_that_fills_the_prompt_is_cut(trained: Path) -> None:
    """A long query is cut in its middle and leaves half of the prompt to the passage."""
    (scored,) = drain(load_cross_encoder(trained, max_length=256).score_steps([("word " * 500, "a passage")]))
    assert scored.query_truncated
    assert not scored.truncated


def test_a_query_that_fills_the_prompt_is_refused_if_asked(trained: Path) -> None:
    """With `long_query="error"` a query that fills the prompt raises and is not cut."""
    model = load_cross_encoder(trained, max_length=256, long_query="error")
    with pytest.raises(InvalidInputError, match="shorten the query"):
        drain(model.score_steps([("word " * 500, "a passage")]))


def test_the_contract_holds(trained: Path) -> None:
    """Order, company and hostile texts change nothing."""
    check_cross_encoder(load_cross_encoder(trained), tolerance=1e-3)


def test_an_embedding_model_is_refused(tmp_path: Path) -> None:
    """Weights without a classification head would get a random one; that is refused before loading."""
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"]}', encoding="utf-8")
    with pytest.raises(UnsupportedModelError, match="BertModel"):
        ModelSource("x", tmp_path).check_classifier()
    with pytest.raises(UnsupportedModelError, match="no classification head"):
        load_cross_encoder(tmp_path, backend="torch")
