"""The settings of a training run."""

from __future__ import annotations

from typing import Any

import pytest

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.training import TrainingSettings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("steps", "10"),
        ("steps", True),
        ("negatives", 0),
        ("groups_per_step", 0),
        ("validate_every", 0),
        ("patience", 0),
        ("max_batch_tokens", 0),
        ("learning_rate", 0),
        ("learning_rate", float("nan")),
        ("average", 1.0),
        ("keep_start", 1.0),
        ("keep_start", -0.1),
        ("cooldown", 1.5),
        ("distillation", -1),
        ("bfloat16", "yes"),
    ],
)
def test_settings_out_of_range_are_named(name: str, value: Any) -> None:
    """A setting that is out of range or of another type is an error with its name and value."""
    with pytest.raises(InvalidInputError, match=f"{name} is {value!r}"):
        TrainingSettings(**{name: value})


def test_the_learning_rate_rises_holds_and_falls() -> None:
    """The learning rate rises through the warmup, holds, and falls to nearly zero in the cooldown."""
    settings = TrainingSettings(steps=100, warmup=9, cooldown=0.5)
    rates = [settings.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[50] == 1.0
    assert rates[99] == pytest.approx(0.02)


def test_the_end_of_a_run_may_change() -> None:
    """What only decides when a run ends is not part of the resume key."""
    settings = TrainingSettings()
    assert settings.resume_key() == TrainingSettings(steps=7, patience=3, cooldown=0.1).resume_key()
    assert settings.resume_key() != TrainingSettings(seed=1).resume_key()
