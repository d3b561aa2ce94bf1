"""One layer of a BERT encoder, and the names of its weights in transformers."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn
from torch.nn import functional

CLOSED = -1e4
"""Added to an attention logit or a score, keeps the token out."""


class LayerShape(Protocol):
    """What a layer must know of its encoder's shape."""

    @property
    def hidden_size(self) -> int:
        """Width of a token's state."""
        ...

    @property
    def num_attention_heads(self) -> int:
        """Attention heads."""
        ...

    @property
    def intermediate_size(self) -> int:
        """Width inside the feed-forward part."""
        ...


class Layer(nn.Module):
    """One BERT layer whose attention takes an additive bias.

    Args:
        shape: The shape of the encoder.

    Raises:
        ValueError: If its width cannot be divided among its heads.
    """

    def __init__(self, shape: LayerShape) -> None:
        super().__init__()
        width = shape.hidden_size
        if width % shape.num_attention_heads:
            raise ValueError(f"hidden_size {width} is no multiple of num_attention_heads {shape.num_attention_heads}")
        self.heads = shape.num_attention_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.attended = nn.Linear(width, width)
        self.attended_norm = nn.LayerNorm(width, eps=1e-12)
        self.inner = nn.Linear(width, shape.intermediate_size)
        self.outer = nn.Linear(shape.intermediate_size, width)
        self.outer_norm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, states: Tensor, attention_bias: Tensor) -> Tensor:
        """Map states of shape (pairs, tokens, width); the bias broadcasts to (pairs, heads, tokens, tokens)."""
        pairs, tokens, width = states.shape

        def split(part: Tensor) -> Tensor:
            return part.view(pairs, tokens, self.heads, width // self.heads).transpose(1, 2)

        mixed = functional.scaled_dot_product_attention(
            split(self.query(states)),
            split(self.key(states)),
            split(self.value(states)),
            attn_mask=attention_bias.to(states.dtype),
        )
        mixed = mixed.transpose(1, 2).reshape(pairs, tokens, width)
        states = self.attended_norm(states + self.attended(mixed))
        mapped: Tensor = self.outer_norm(states + self.outer(functional.gelu(self.inner(states))))
        return mapped


_NAMES = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attended",
    "attention.output.LayerNorm": "attended_norm",
    "intermediate.dense": "inner",
    "output.dense": "outer",
    "output.LayerNorm": "outer_norm",
}


def layer_weights(weights: dict[str, Tensor], layers: int, *, prefix: str = "") -> dict[str, Tensor]:
    """Rename the weights of a BERT encoder's layers for a list of `Layer` called `layers`.

    Args:
        weights: The weights under their names in transformers.
        layers: Number of layers.
        prefix: What those names start with.

    Raises:
        KeyError: If a weight is missing.
    """
    return {
        f"layers.{number}.{ours}.{kind}": weights[f"{prefix}encoder.layer.{number}.{theirs}.{kind}"]
        for number in range(layers)
        for theirs, ours in _NAMES.items()
        for kind in ("weight", "bias")
    }
