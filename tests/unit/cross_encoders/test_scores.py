"""One relevance logit a pair, whatever the head puts out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from langchain_crossrerank.cross_encoders.scores import check_num_labels, relevance_logits, sigmoid
from langchain_crossrerank.errors import UnsupportedModelError


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        pytest.param([1.5, -2.0], [1.5, -2.0], id="one dimension"),
        pytest.param([[1.5], [-2.0]], [1.5, -2.0], id="one logit"),
        pytest.param([[1.0, 3.0], [2.0, -1.0]], [2.0, -3.0], id="two logits"),
        pytest.param([[0.25]], [0.25], id="one pair, one logit"),
        pytest.param([[0.5, 0.25]], [-0.25], id="one pair, two logits"),
        pytest.param(np.empty(0), [], id="no pairs, one dimension"),
        pytest.param(np.empty((0, 1)), [], id="no pairs, one logit"),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_one_or_two_outputs_give_one_plain_float_a_pair(
    logits: object, expected: list[float], dtype: type[np.floating]
) -> None:
    """One output is the logit, two are (not relevant, relevant) and give their difference."""
    scores = relevance_logits(np.array(logits, dtype=dtype), "model")
    assert scores == expected
    assert all(type(score) is float for score in scores)


def test_two_logits_give_the_log_odds_of_the_second_class() -> None:
    """The sigmoid of what two logits give is the softmax probability of the relevant class."""
    logits = np.random.default_rng(0).normal(scale=4, size=(50, 2))
    softmax = [math.exp(yes) / (math.exp(no) + math.exp(yes)) for no, yes in logits]
    assert [sigmoid(logit) for logit in relevance_logits(logits, "model")] == pytest.approx(softmax)


@pytest.mark.parametrize("shape", [(4, 3), (4, 0), (1, 384), (4, 1, 1), (4, 12, 384), ()], ids=str)
def test_any_other_shape_is_refused(shape: tuple[int, ...]) -> None:
    """What is no relevance head raises, names the model and says what it may be."""
    with pytest.raises(UnsupportedModelError, match=r"'some/model'.*embedding model"):
        relevance_logits(np.zeros(shape), "some/model")


@pytest.mark.parametrize("num_labels", [1, 2])
def test_one_or_two_labels_are_taken(num_labels: int) -> None:
    """A head that can rank passes the check."""
    assert check_num_labels(num_labels, "some/model") is None  # type: ignore[func-returns-value]  # it returns


@pytest.mark.parametrize("num_labels", [0, 3, 384])
def test_other_numbers_of_labels_are_refused(num_labels: int) -> None:
    """A head that cannot rank raises, with its number of outputs."""
    with pytest.raises(UnsupportedModelError, match=rf"'some/model' has a head with {num_labels} outputs"):
        check_num_labels(num_labels, "some/model")
