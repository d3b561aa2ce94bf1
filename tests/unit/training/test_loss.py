"""The loss of a group."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the training extra")

from langchain_crossrerank.training.loss import ranking_loss  # noqa: E402


def test_the_loss_is_the_sum_of_its_terms() -> None:
    """The loss is the cross-entropy of the positive, the weighted binary term, and the teacher's cross-entropy."""
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    shares = torch.softmax(logits[0], 0)
    assert ranking_loss(logits, calibration=0).item() == pytest.approx(-shares[0].log().item())
    binary = [2 * -torch.sigmoid(logits[0, 0]).log(), *(-torch.sigmoid(-logits[0, i]).log() for i in (1, 2))]
    calibrated = -shares[0].log().item() + 0.5 * sum(map(float, binary)) / 3
    assert ranking_loss(logits, calibration=0.5).item() == pytest.approx(calibrated)
    teacher = torch.zeros(1, 3)
    distilled = -shares[0].log().item() - 0.3 * shares.log().mean().item()
    assert ranking_loss(logits, calibration=0, teacher=teacher, distillation=0.3).item() == pytest.approx(distilled)
