"""The warm-started cross-encoder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the training extra")
transformers = pytest.importorskip("transformers", reason="needs the training extra")

from langchain_crossrerank.training.loading import load_trainable  # noqa: E402
from langchain_crossrerank.training.models import WarmStartModel  # noqa: E402
from langchain_crossrerank.training.warm_start import WarmStartConfig, WarmStartCrossEncoder  # noqa: E402


def test_a_warm_start_begins_as_its_bi_encoder(bi_encoder_folder: Path) -> None:
    """Without matching and attention between the texts, the score is the scaled cosine of their mean-pooled states."""
    model = load_trainable(bi_encoder_folder, max_length=48)
    assert isinstance(model, WarmStartModel)
    closed = {"query_opening": -1e4, "passage_opening": -1e4}
    model.network.config = dataclasses.replace(model.network.config, **closed)
    pairs = [("when the heron eats", "The heron eats in the morning."), ("a", "A ferry crosses. " * 30)]
    with torch.no_grad():
        model.network.matching.weight.zero_()
    model.network.eval()
    encoder = transformers.BertModel.from_pretrained(bi_encoder_folder, add_pooling_layer=False).eval()
    with torch.inference_mode():
        for pair, logit in zip(pairs, model.logits(pairs).tolist(), strict=True):
            (entry,) = model.tokenizer.encode_batch([pair])
            split = entry.type_ids.index(1)
            first, second = (
                encoder(torch.tensor([ids])).last_hidden_state.mean(1) for ids in (entry.ids[:split], entry.ids[split:])
            )
            config = model.network.config
            cosine = torch.nn.functional.cosine_similarity(first, second).item()
            assert logit == pytest.approx(config.scale * cosine + config.bias, abs=1e-3)


def test_query_and_passage_meet_only_in_the_upper_layers() -> None:
    """The query's states depend on the passage only if there is a layer in which both attend to each other."""
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    for separate, meets in ((2, False), (1, True)):
        torch.manual_seed(0)
        network = WarmStartCrossEncoder(WarmStartConfig(**sizes, num_hidden_layers=2, separate_layers=separate)).eval()
        inputs = [torch.tensor([[1, 5, 6, 2, 1, last, 2]]) for last in (7, 8)]
        types = torch.tensor([[0, 0, 0, 0, 1, 1, 1]])
        last_states: list[torch.Tensor] = []
        network.layers[-1].register_forward_hook(
            lambda _layer, _inputs, output, kept=last_states: kept.append(output[:, :4])
        )
        with torch.inference_mode():
            apart = [network.logits_and_states(ids, torch.ones_like(ids), types)[1][:, :4] for ids in inputs]
        assert torch.allclose(*last_states, atol=1e-6) is not meets
        assert torch.allclose(*apart, atol=1e-6)
