"""A learned sparse encoder as a branch of a cross-encoder: the words of a text, and the words that it implies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from langchain_crossrerank.training.bert_layer import CLOSED, Layer, layer_weights


@dataclass(frozen=True)
class SparseBranchConfig:
    """The shape of a sparse branch.

    Attributes:
        hidden_size: Width of a token's state.
        num_hidden_layers: Transformer layers.
        num_attention_heads: Attention heads of a layer.
        intermediate_size: Width inside a layer's feed-forward part.
        terms: Number of the query's strongest terms that are sought in the passage.
        weight: Initial factor of the branch's score.
    """

    hidden_size: int = 128
    num_hidden_layers: int = 2
    num_attention_heads: int = 2
    intermediate_size: int = 512
    terms: int = 64
    weight: float = 1.0


class SparseBranch(nn.Module):
    """Scores query and passage by SPLADE (Formal, Piwowarski and Clinchant, SIGIR 2021).

    A text's vector has an entry for each word of the vocabulary: the maximum over the text's tokens of
    log(1 + relu(logit)), where the logit is that of a masked language model. The score is the dot product of both
    vectors over the norm of the query's, so that it does not grow with the query's length. Only the query's `terms`
    largest entries count, so that of a passage only these are computed.

    Args:
        config: The shape.
        vocab_size: Number of words.
        positions: Rows of the position table.
    """

    def __init__(self, config: SparseBranchConfig, *, vocab_size: int, positions: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.config = config
        self.words = nn.Embedding(vocab_size, width)
        self.positions = nn.Embedding(positions, width)
        self.text_type = nn.Parameter(torch.zeros(width))
        self.embedding_norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.transform = nn.Linear(width, width)
        self.transform_norm = nn.LayerNorm(width, eps=1e-12)
        self.word_bias = nn.Parameter(torch.zeros(vocab_size))
        self.weight = nn.Parameter(torch.tensor(config.weight))

    def forward(self, input_ids: Tensor, places: Tensor, apart: Tensor, query: Tensor, passage: Tensor) -> Tensor:
        """Compute weighted scores of shape (pairs, 1).

        Args:
            input_ids: Token ids, shape (pairs, tokens), the query's first.
            places: Each token's place in its own text, same shape.
            apart: Attention bias that keeps query and passage apart, shape (pairs, 1, tokens, tokens).
            query: Mask of the query's tokens, shape (pairs, tokens).
            passage: Mask of the passage's tokens, same shape.
        """
        states = self.encode(input_ids, places, apart)
        return self.compare(states, self.query_terms(input_ids, states, query), passage)

    def encode(self, input_ids: Tensor, places: Tensor, apart: Tensor) -> Tensor:
        """Compute states of shape (pairs, tokens, width), each text's by itself; see `forward`."""
        states = self.embedding_norm(self.words(input_ids) + self.positions(places) + self.text_type)
        for layer in self.layers:
            states = layer(states, apart)
        encoded: Tensor = self.transform_norm(functional.gelu(self.transform(states)))
        return encoded.float()

    def query_terms(self, input_ids: Tensor, states: Tensor, query: Tensor) -> Tensor:
        """Choose each query's strongest terms.

        Args:
            input_ids: Token ids, shape (pairs, tokens), the query's first.
            states: What `encode` returned for them.
            query: Mask of the query's tokens, shape (pairs, tokens).

        Returns:
            What `compare` needs of each term: its vector, its bias and its weight in the query, shape (pairs, terms,
            width + 2).
        """
        # The pairs of a batch mostly share one query, and the whole vocabulary is large: compute each query once.
        asked = torch.where(query, input_ids, torch.zeros_like(input_ids))
        distinct, which = torch.unique(asked, dim=0, return_inverse=True)
        pairs = torch.arange(input_ids.shape[0], device=input_ids.device)
        rows = torch.zeros_like(distinct[:, 0]).scatter(0, which, pairs)
        length = query.long().sum(1).max()
        # Words first, so that the table is multiplied as it is stored. Shape (queries, words, tokens).
        logits = self.words.weight @ states[rows][:, :length].transpose(1, 2) + self.word_bias[:, None]
        logits = logits.masked_fill(~query[rows][:, None, :length], CLOSED).amax(2)
        values, terms = torch.topk(logits, self.config.terms, dim=1)
        weights = torch.log1p(functional.relu(values))
        weights = weights / weights.norm(dim=1, keepdim=True).clamp(min=1e-6)
        return torch.cat([self.words(terms), self.word_bias[terms][:, :, None], weights[:, :, None]], dim=2)[which]

    def compare(self, states: Tensor, terms: Tensor, passage: Tensor) -> Tensor:
        """Compute weighted scores of shape (pairs, 1).

        Args:
            states: What `encode` returned, shape (pairs, tokens, width).
            terms: What `query_terms` returned.
            passage: Mask of the passage's tokens, shape (pairs, tokens).
        """
        vectors, biases, weights = terms[:, :, :-2], terms[:, :, -2], terms[:, :, -1]
        # Shape (pairs, tokens, terms).
        found = states @ vectors.transpose(1, 2) + biases[:, None]
        found = found.masked_fill(~passage[:, :, None], CLOSED).amax(1)
        return self.weight * (weights * torch.log1p(functional.relu(found))).sum(1, keepdim=True)


def splade_weights(weights: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Rename the weights of a SPLADE encoder, a BERT masked language model, for `SparseBranch`.

    Args:
        weights: The weights under their names in transformers.
        layers: Number of layers.

    Raises:
        KeyError: If a weight is missing.
    """
    # Checkpoints converted from TensorFlow keep its names of a norm's weights.
    weights = {name.replace(".gamma", ".weight").replace(".beta", ".bias"): value for name, value in weights.items()}
    embeddings, head = "bert.embeddings.", "cls.predictions."
    return {
        "words.weight": weights[f"{embeddings}word_embeddings.weight"],
        "positions.weight": weights[f"{embeddings}position_embeddings.weight"],
        "text_type": weights[f"{embeddings}token_type_embeddings.weight"][0],
        "embedding_norm.weight": weights[f"{embeddings}LayerNorm.weight"],
        "embedding_norm.bias": weights[f"{embeddings}LayerNorm.bias"],
        **layer_weights(weights, layers, prefix="bert."),
        "transform.weight": weights[f"{head}transform.dense.weight"],
        "transform.bias": weights[f"{head}transform.dense.bias"],
        "transform_norm.weight": weights[f"{head}transform.LayerNorm.weight"],
        "transform_norm.bias": weights[f"{head}transform.LayerNorm.bias"],
        "word_bias": weights[f"{head}bias"],
    }
