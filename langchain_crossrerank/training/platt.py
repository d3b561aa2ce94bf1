"""Platt scaling: maps logits to calibrated logits without changing their order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

_MIN_FACTOR = 0.05
_ITERATIONS = 100


def fit_platt(logits: Sequence[float], relevant: Sequence[bool], *, prior: float) -> tuple[float, float]:
    """Fit `factor * logit + shift` to judgements (Platt, 1999).

    Args:
        logits: A model's logits.
        relevant: Whether each pair is relevant.
        prior: The fraction of relevant pairs to assume, in place of the fraction among these.

    Returns:
        The factor, always above 0, and the shift; `(1.0, 0.0)` if all pairs are relevant, or none.
    """
    truth = torch.tensor(relevant, dtype=torch.float64)
    share = float(truth.mean()) if len(truth) else 0.0
    if share in (0.0, 1.0):
        return 1.0, 0.0
    values = torch.tensor(logits, dtype=torch.float64)
    weights = torch.where(truth > 0, prior / share, (1 - prior) / (1 - share))
    line = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([line], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        found = functional.binary_cross_entropy_with_logits(line[0] * values + line[1], truth, weights)
        found.backward()  # type: ignore[no-untyped-call]
        return found

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    factor, shift = line.detach().tolist()
    # A model that ranks no better than chance would turn the order round.
    return max(factor, _MIN_FACTOR), shift
