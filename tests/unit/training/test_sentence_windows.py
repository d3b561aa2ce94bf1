"""Cutting passages to a few sentences."""

from __future__ import annotations

import random

import pytest

windows = pytest.importorskip("langchain_crossrerank.training.sentence_windows", reason="needs the training extra")


def test_windows_contain_the_sentence_that_matters() -> None:
    """A window has the requested number of neighbouring sentences, including the one closest to the query."""
    passage = "One. Two birds sing. Three. A heron waits. Five."
    assert windows.sentences(passage) == ("One.", "Two birds sing.", "Three.", "A heron waits.", "Five.")
    for seed in range(20):
        text = windows.sentence_window("heron", passage, 2, lambda word: 1.0, random.Random(seed))
        assert "A heron waits." in text
        assert len(windows.sentences(text)) == 2


@pytest.mark.parametrize("size", [0, 9])
def test_short_passages_stay_whole(size: int) -> None:
    """Size 0, or more sentences than there are, returns the whole passage."""
    passage = "One. A heron waits. Three."
    assert windows.sentence_window("heron", passage, size, lambda word: 1.0, random.Random(0)) == passage
