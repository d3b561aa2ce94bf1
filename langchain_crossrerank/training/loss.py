"""The loss of one group: its positive must win, and its scores must mean something."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def ranking_loss(
    logits: Tensor, *, calibration: float, teacher: Tensor | None = None, distillation: float = 0.0
) -> Tensor:
    """Compute the loss of each group.

    The sum of three terms. Listwise: cross-entropy of the positive among all passages of the group. Calibration:
    binary cross-entropy of each passage by itself, so that the sigmoid of a logit is a probability; the positive
    weighs as much as all negatives of a group with two positives would, or large groups would push every score down.
    Distillation: cross-entropy between the teacher's distribution over the group and the model's.

    Args:
        logits: Shape (groups, passages); the first passage of a group is its positive.
        calibration: Weight of the calibration term.
        teacher: Another model's logits, of the same shape.
        distillation: Weight of the distillation term.

    Returns:
        Shape (groups,).
    """
    log_shares = torch.log_softmax(logits, dim=1)
    loss = -log_shares[:, 0]
    if calibration:
        truth = torch.zeros_like(logits)
        truth[:, 0] = 1
        weight = torch.tensor(2.0, device=logits.device)
        binary = functional.binary_cross_entropy_with_logits(logits, truth, pos_weight=weight, reduction="none")
        loss = loss + calibration * binary.mean(1)
    if teacher is not None and distillation:
        loss = loss - distillation * (torch.softmax(teacher, dim=1) * log_shares).sum(1)
    return loss
