"""A cross-encoder that starts as a bi-encoder with late interaction, so that training starts from a good ranking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from langchain_crossrerank.training.bert_layer import CLOSED, Layer, layer_weights
from langchain_crossrerank.training.sparse_branch import SparseBranch, SparseBranchConfig


@dataclass(frozen=True)
class WarmStartConfig:
    """The shape of a warm-started cross-encoder.

    Attributes:
        vocab_size: Rows of the embedding table.
        hidden_size: Width of a token's state.
        num_hidden_layers: Transformer layers.
        num_attention_heads: Attention heads of a layer.
        intermediate_size: Width inside a layer's feed-forward part.
        max_position_embeddings: Rows of the position table.
        separate_layers: Number of lower layers in which query and passage do not attend to each other.
        query_opening: Added to the attention logits from query to passage in the upper layers. Low, because a query
            token that has read the passage matches it in any case.
        passage_opening: Added to the attention logits from passage to query.
        scale: Initial factor of the cosine.
        bias: Initial constant of the score.
        matching: Initial factors of the four matching features. `scale`, `bias` and `matching` were fitted to 340
            training queries with the states of all-MiniLM-L6-v2.
        sparse: The shape of a sparse branch whose score is added; `None` for no branch.
    """

    vocab_size: int = 30522
    hidden_size: int = 384
    num_hidden_layers: int = 6
    num_attention_heads: int = 12
    intermediate_size: int = 1536
    max_position_embeddings: int = 512
    separate_layers: int = 3
    query_opening: float = -4.0
    passage_opening: float = -1.0
    scale: float = 12.0
    bias: float = -11.5
    matching: tuple[float, ...] = (11.7, 0.0, 2.5, 1.0)
    sparse: SparseBranchConfig | None = None

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> WarmStartConfig:
        """Read the shape from a `config.json` that training wrote.

        Raises:
            KeyError: If a value is missing.
        """
        values = {field.name: described[field.name] for field in fields(cls) if field.name != "sparse"}
        sparse = described.get("sparse")
        return cls(**values, sparse=None if sparse is None else SparseBranchConfig(**sparse))


class WarmStartCrossEncoder(nn.Module):
    """Scores pairs encoded as `[CLS] query [SEP] [CLS] passage [SEP]`, with type 1 from the second `[CLS]`.

    score = scale x cosine of the two mean-pooled segments + bias
          + matching: how well each query token is found in the passage, by state and by token, weighted by idf
          + pointing: the passage token that looks most like an answer
          + reading: a small network over the pooled segments and the features
          + optionally, the score of a learned sparse encoder; see `SparseBranch`.

    Pointing and reading start at zero, and query and passage begin to attend to each other only in the upper layers
    (as in PreTTR, MacAvaney et al. 2020), so that at step 0 the score is the bi-encoder's plus late interaction.

    Args:
        config: The shape.
    """

    def __init__(self, config: WarmStartConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.words = nn.Embedding(config.vocab_size, width)
        self.positions = nn.Embedding(config.max_position_embeddings, width)
        self.types = nn.Embedding(2, width)
        self.embedding_norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.scale = nn.Parameter(torch.tensor(config.scale))
        self.bias = nn.Parameter(torch.tensor(config.bias))
        self.idf = nn.Parameter(torch.ones(config.vocab_size))
        self.gate = nn.Linear(width, 1)
        self.matching = nn.Linear(4, 1)
        self.pointer = nn.Linear(width, 1)
        self.reading = nn.Sequential(nn.Linear(3 * width + 5, width), nn.GELU(), nn.Linear(width, 1))
        self.sparse = None
        if config.sparse is not None:
            self.sparse = SparseBranch(
                config.sparse, vocab_size=config.vocab_size, positions=config.max_position_embeddings
            )
        with torch.no_grad():
            for part in (self.gate, self.matching, self.pointer, self.reading[-1]):
                for value in part.parameters():
                    value.zero_()
            self.matching.weight.copy_(torch.tensor([config.matching]))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Compute logits of shape (pairs, 1)."""
        return self.logits_and_states(input_ids, attention_mask, token_type_ids)[0]

    def logits_and_states(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> tuple[Tensor, ...]:
        """Compute logits, and the states of each token that do not depend on the other text.

        Returns:
            Logits of shape (pairs, 1), and the states in which query and passage have not met, shape (pairs, tokens,
            width); then, if there is a sparse branch, its states, its query's terms and its scores.
        """
        query, passage = _segments(attention_mask, token_type_ids)
        places = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        places = (places - passage.long() * query.long().sum(1, keepdim=True)).clamp(min=0)
        apart = self._apart_bias(attention_mask.bool(), passage)
        lower = self.embedding_norm(self.words(input_ids) + self.positions(places) + self.types.weight[0])
        for layer in self.layers[: self.config.separate_layers]:
            lower = layer(lower, apart)
        logits = self.logits_from(lower, input_ids, attention_mask, token_type_ids)
        if self.sparse is None:
            return logits, lower
        sparse = self.sparse.encode(input_ids, places, apart)
        terms = self.sparse.query_terms(input_ids, sparse, query)
        scores = self.sparse.compare(sparse, terms, passage)
        return logits + scores, lower, sparse, terms, scores

    def logits_from(self, lower: Tensor, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Compute logits without the sparse branch, shape (pairs, 1).

        Args:
            lower: The states in which query and passage have not met, shape (pairs, tokens, width).
            input_ids: As in `forward`, and so are the masks.
            attention_mask: See there.
            token_type_ids: See there.
        """
        query, passage = _segments(attention_mask, token_type_ids)
        joined = self._joined_bias(attention_mask.bool(), passage)
        states = lower
        for layer in self.layers[self.config.separate_layers :]:
            states = layer(states, joined)
        return self.read_out(input_ids, states, query, passage)

    def _apart_bias(self, present: Tensor, passage: Tensor) -> Tensor:
        """Return the bias of the lower layers, shape (pairs, 1, tokens, tokens)."""
        same = passage[:, :, None] == passage[:, None, :]
        closed = ~(same & present[:, None, :])[:, None]
        return torch.zeros_like(closed, dtype=torch.float32).masked_fill(closed, CLOSED)

    def _joined_bias(self, present: Tensor, passage: Tensor) -> Tensor:
        """Return the bias of the upper layers, shape (pairs, 1, tokens, tokens)."""
        same = passage[:, :, None] == passage[:, None, :]
        across = torch.where(passage[:, :, None], self.config.passage_opening, self.config.query_opening)
        return torch.where(same, 0.0, across)[:, None].masked_fill(~present[:, None, None, :], CLOSED)

    def read_out(self, input_ids: Tensor, states: Tensor, query: Tensor, passage: Tensor) -> Tensor:
        """Compute logits from the last layer's states."""
        states = states.float()
        pooled_query, pooled_passage = _mean(states, query), _mean(states, passage)
        cosine = functional.cosine_similarity(pooled_query, pooled_passage, dim=-1)[:, None]
        matching = self._matching(input_ids, states, query, passage)
        pointed = self.pointer(states).squeeze(-1).masked_fill(~passage, CLOSED).amax(1, keepdim=True)
        features = torch.cat([matching, cosine], dim=1)
        reading = self.reading(
            torch.cat([pooled_query, pooled_passage, pooled_query * pooled_passage * 20, features], dim=1)
        )
        logits: Tensor = self.scale * cosine + self.bias + self.matching(matching) + pointed + reading
        return logits

    def _matching(self, input_ids: Tensor, states: Tensor, query: Tensor, passage: Tensor) -> Tensor:
        normed = functional.normalize(states, dim=-1)
        # The first and last token of each segment are [CLS] and [SEP], which match in every pair.
        query_inner = query & query.roll(1, 1) & query.roll(-1, 1)
        passage_inner = passage & passage.roll(1, 1) & passage.roll(-1, 1)
        outside = ~passage_inner[:, None, :]
        by_state = (normed @ normed.transpose(1, 2)).masked_fill(outside, -1.0).amax(2)
        equal = (input_ids[:, :, None] == input_ids[:, None, :]).float().masked_fill(outside, 0.0)
        by_token = equal.amax(2)
        often = equal.sum(2)
        weights = self.idf[input_ids].clamp(min=0) * torch.exp(self.gate(states).squeeze(-1)) * query_inner.float()
        weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-6)
        missed = (weights * (1 - by_token)).amax(1, keepdim=True)
        return torch.cat(
            [
                (weights * by_state).sum(1, keepdim=True),
                (weights * by_token).sum(1, keepdim=True),
                (weights * often / (often + 1.5)).sum(1, keepdim=True),
                missed,
            ],
            dim=1,
        )


def _segments(attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the masks of the query's tokens and of the passage's, both of shape (pairs, tokens)."""
    present, second = attention_mask.bool(), token_type_ids.bool()
    return ~second & present, second & present


def _mean(states: Tensor, chosen: Tensor) -> Tensor:
    mask = chosen[:, :, None].float()
    return (states * mask).sum(1) / mask.sum(1).clamp(min=1)


def bi_encoder_weights(weights: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Rename the weights of a BERT bi-encoder for `WarmStartCrossEncoder`.

    Args:
        weights: The weights under their names in transformers.
        layers: Number of layers.

    Raises:
        KeyError: If a weight is missing.
    """
    return {
        "words.weight": weights["embeddings.word_embeddings.weight"],
        "positions.weight": weights["embeddings.position_embeddings.weight"],
        "types.weight": weights["embeddings.token_type_embeddings.weight"],
        "embedding_norm.weight": weights["embeddings.LayerNorm.weight"],
        "embedding_norm.bias": weights["embeddings.LayerNorm.bias"],
        **layer_weights(weights, layers),
    }
