"""Platt scaling."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the training extra")

from langchain_crossrerank.training.platt import fit_platt  # noqa: E402


def test_the_line_is_found() -> None:
    """Logits that are off by a known line are corrected for the given prior."""
    draw = torch.Generator().manual_seed(0)
    true = 3 * torch.randn(4000, generator=draw)
    relevant = (torch.rand(4000, generator=draw) < torch.sigmoid(true)).tolist()
    share = sum(relevant) / len(relevant)
    factor, shift = fit_platt((true / 2 - 3).tolist(), relevant, prior=share)
    assert (factor, shift) == (pytest.approx(2.0, abs=0.2), pytest.approx(6.0, abs=0.6))
    assert fit_platt((true / 2 - 3).tolist(), relevant, prior=share / 2)[1] < shift - 0.5


def test_nothing_to_fit_changes_nothing() -> None:
    """Without pairs of both kinds, logits stay as they are."""
    assert fit_platt([1.0, 2.0], [True, True], prior=0.3) == (1.0, 0.0)
    assert fit_platt([], [], prior=0.3) == (1.0, 0.0)


def test_the_order_never_turns_round() -> None:
    """The factor stays above 0 even if relevant pairs have the lower logits."""
    assert fit_platt([2.0, -2.0] * 20, [False, True] * 20, prior=0.5)[0] > 0
