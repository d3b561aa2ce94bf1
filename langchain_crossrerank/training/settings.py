"""The settings of a training run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from langchain_crossrerank.checks import shorten
from langchain_crossrerank.errors import InvalidInputError

_Count = Annotated[int, Field(ge=1)]
_Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Fraction = Annotated[float, Field(ge=0, lt=1)]

_MAY_CHANGE = ("steps", "cooldown", "keep_start", "patience", "checkpoint_minutes", "max_batch_tokens")


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        steps: Maximum number of optimiser steps. A resumed run may have another number.
        groups_per_step: Groups in a step; a group is one positive and its negatives.
        negatives: Negatives in a group.
        learning_rate: Peak learning rate of the pretrained layers; new layers learn faster.
        warmup: Steps during which the learning rate rises to its peak.
        cooldown: Fraction of the steps, at the end, during which the learning rate falls to zero.
        calibration: Weight of the loss term that turns scores into probabilities.
        distillation: Weight of the loss term that pulls scores towards a teacher's. The teacher scores every pair of
            every step.
        average: Decay of the exponential moving average of the weights. The averaged weights are the ones that are
            validated and exported; 0 uses the weights of the last step.
        keep_start: Fraction of the starting weights in the exported model (Wortsman et al., 2022, "Robust fine-tuning
            of zero-shot models"). Costs little on data like the training data and helps on other data. The scores are
            calibrated again afterwards.
        validate_every: Steps between validations.
        patience: Validations without a better nDCG@10 after which training stops.
        checkpoint_minutes: Minutes between checkpoints; each validation writes one, too.
        max_batch_tokens: Maximum number of tokens, padding included, in one forward pass. Memory for the backward pass
            grows with the whole step: lower `groups_per_step` if it runs short.
        bfloat16: Compute matrix products in bfloat16, which is faster on processors that support it.
        seed: Seed of every random choice.

    Raises:
        InvalidInputError: If a value is out of range; the message names it.
    """

    steps: _Count = 2000
    groups_per_step: _Count = 8
    negatives: _Count = 7
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5e-5
    warmup: Annotated[int, Field(ge=0)] = 100
    cooldown: Annotated[float, Field(ge=0, le=1)] = 0.3
    calibration: _Weight = 0.2
    distillation: _Weight = 0.0
    average: _Fraction = 0.995
    keep_start: _Fraction = 0.0
    validate_every: _Count = 200
    patience: _Count = 10
    checkpoint_minutes: _Weight = 5.0
    max_batch_tokens: _Count = 4096
    bfloat16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self), include_extras=True).items():
            value = getattr(self, name)
            try:
                TypeAdapter(kind).validate_python(value, strict=True)
            except ValidationError as err:
                raise InvalidInputError(f"{name} is {shorten(value)}; {err.errors()[0]['msg'].lower()}.") from err

    def resume_key(self) -> dict[str, Any]:
        """Return the settings that must be the same when a run is resumed."""
        return {name: value for name, value in asdict(self).items() if name not in _MAY_CHANGE}

    def rate(self, step: int) -> float:
        """Return the fraction of the peak learning rate at a step, counted from 0."""
        rising = (step + 1) / (self.warmup + 1)
        falling = (self.steps - step) / max(self.cooldown * self.steps, 1)
        return min(rising, falling, 1.0)
