"""`crossrerank demo`."""

from __future__ import annotations

import contextlib
import io
import re
from typing import Any

import pytest

from langchain_crossrerank import Comparison, cli, evaluation
from langchain_crossrerank.cli.demo import DEMO_QUESTIONS

ANSWERS = {
    "What is catastrophic forgetting?": "known as catastrophic forgetting",
    "How do the storage type and the computation type differ in QLoRA?": "Four bits is thus a storage type",
    "How large is the vocabulary of GPT-2?": "a vocabulary of 50,257",
}
"""What the sentence highlighted first must say, for each question of the demo."""


@pytest.fixture(scope="module")
def demo(quiet: None) -> tuple[int, str, str, dict[str, Comparison]]:
    """The demo, run once, although a key is at hand: exit code, output, errors, and the comparisons it printed."""
    seen: dict[str, Comparison] = {}
    compare = evaluation.compare

    def noted(retriever: Any, query: str) -> Comparison:
        seen[query] = compare(retriever, query)
        return seen[query]

    output, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "compare", noted)
        patch.setenv("OPENAI_API_KEY", "sk-not-to-be-used")
        patch.delenv("COLUMNS", raising=False)
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = cli.main(["demo"])
    return code, output.getvalue(), errors.getvalue(), seen


def part(output: str, question: str) -> str:
    """What the demo says about one question."""
    start = output.index(f"{question} ─")
    return output[start : output.index("\nFirst stage ", start)]


@pytest.mark.slow
@pytest.mark.parametrize("question", DEMO_QUESTIONS)
def test_the_demo_highlights_the_sentence_that_answers(
    demo: tuple[int, str, str, dict[str, Comparison]], question: str
) -> None:
    """For every question the first passage after reranking is shown with its answer, its score and its source."""
    _, output, _, comparisons = demo
    best = comparisons[question].reranked[0]
    assert best.score is not None
    shown = part(output, question)
    line = re.search(rf"^1 +was {best.initial_rank} +{best.score:.3f} +━+.*$", shown, re.MULTILINE)
    assert line is not None
    assert line.group().endswith(f"llm_fundamentals.pdf, page {best.metadata['page'] + 1}")
    (highlighted, *_) = re.findall(r"\*([^*]+)\*", " ".join(shown.split()))
    assert ANSWERS[question] in highlighted


@pytest.mark.slow
def test_the_demo_says_where_reranking_helps_and_where_it_does_not(
    demo: tuple[int, str, str, dict[str, Comparison]],
) -> None:
    """The first stage gets the first questions wrong and the last one right, and the demo shows it for each."""
    code, output, errors, comparisons = demo
    assert (code, errors) == (0, "")
    assert output.startswith("Indexed llm_fundamentals.pdf in ")
    assert list(comparisons) == list(ANSWERS) == list(DEMO_QUESTIONS)
    *wrong, right = DEMO_QUESTIONS
    for question in wrong:
        first, best = comparisons[question].documents[0], comparisons[question].reranked[0]
        place = "dropped" if first.rank is None else f"place {first.rank}"
        assert best is not first
        assert f"(the reranker: {place}, score {first.score:.3f}):" in part(output, question)
        assert f"comes up from place {best.initial_rank}:" in part(output, question)
    assert comparisons[right].reranked[0].initial_rank == 1
    assert "reranking is not needed here" in part(output, right)


@pytest.mark.slow
def test_the_demos_first_passages_are_clear(demo: tuple[int, str, str, dict[str, Comparison]]) -> None:
    """The demo asks what the model is sure of: the first passage scores half as much again as the second."""
    for comparison in demo[3].values():
        first, second = (document.score or 0.0 for document in comparison.reranked[:2])
        assert first > 1.5 * second, comparison.query


@pytest.mark.slow
def test_the_demo_ends_with_what_to_type_next(demo: tuple[int, str, str, dict[str, Comparison]]) -> None:
    """The last lines are commands for the reader's own files."""
    commands = [line.split()[:2] for line in demo[1].splitlines()[-4:] if line.startswith("  ")]
    assert commands == [["crossrerank", "ask"], ["crossrerank", "compare"]]


@pytest.mark.slow
def test_the_demo_fits_into_80_columns(demo: tuple[int, str, str, dict[str, Comparison]]) -> None:
    """No line is wider than a plain terminal."""
    assert [line for line in demo[1].splitlines() if len(line) > 80] == []
