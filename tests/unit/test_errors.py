"""The errors: what they carry, and that it survives pickling and copying."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from langchain_crossrerank import errors
from langchain_crossrerank.errors import CrossRerankError

ATTRIBUTES = {
    "backend": "torch",
    "extra": "export",
    "positions": [1, 3],
    "path": "notes.pdf",
    "status_code": 503,
    "retry_after": 1.5,
}
"""A value other than the default for each attribute that an error can have."""


@pytest.fixture(params=errors.__all__)
def error(request: pytest.FixtureRequest) -> CrossRerankError:
    """One of each class, with every attribute set."""
    kind: type[CrossRerankError] = getattr(errors, request.param)
    keywords = inspect.signature(kind).parameters.values() if "__init__" in vars(kind) else ()
    attributes = {each.name: ATTRIBUTES[each.name] for each in keywords if each.kind is each.KEYWORD_ONLY}
    return kind("what happened, 'the value', what to do", **attributes)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_survives_pickling(error: CrossRerankError, protocol: int) -> None:
    """From another process an error comes back as the same class, with its message and attributes."""
    back = pickle.loads(pickle.dumps(error, protocol))
    assert type(back) is type(error)
    assert (str(back), back.args, vars(back)) == (str(error), error.args, vars(error))


def test_every_error_survives_copying(error: CrossRerankError) -> None:
    """A copy has the message and attributes of the original."""
    back = copy.copy(error)
    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))


def test_errors_carry_what_a_program_needs() -> None:
    """Attributes are set by keyword, have empty defaults, and positions cannot be changed later."""
    assert errors.ScoringError("no", positions=[2, 5]).positions == (2, 5)
    assert errors.ScoringError("no").positions == ()
    assert vars(errors.IndexingError("no"))["path"] == ""
    assert (errors.MissingExtraError("no").backend, errors.MissingExtraError("no").extra) == ("", "")
    assert errors.OverloadedError("no").retry_after is None
    assert errors.ModelNotFoundError("no").retry_after is None
