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
    "Does QLoRA compute in four bits?": "The computation is not carried out in four bits",
    "What is catastrophic forgetting?": "known as catastrophic forgetting",
    "What is LoRA?": "freezes the original weight matrices and trains two small matrices",
}
"""What the first passage must say, for each question of the demo."""


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


@pytest.mark.slow
@pytest.mark.parametrize("question", DEMO_QUESTIONS)
def test_the_demo_finds_the_passage_that_answers(
    demo: tuple[int, str, str, dict[str, Comparison]], question: str
) -> None:
    """For every question the first passage after reranking has the answer, and the demo shows it with its source."""
    _, output, _, comparisons = demo
    best = comparisons[question].reranked[0]
    assert ANSWERS[question] in " ".join(best.text.split())
    shown = output[output.index(f"Query: {question}") :].split("=" * 60)[0]
    assert re.search(rf"^ 1 +{best.initial_rank} +{best.score:.3f} ", shown, re.MULTILINE)
    assert "Answer, quoted without a language model:\n- " in shown
    assert f"[1] {best.score:.3f}  llm_fundamentals.pdf, page {best.metadata['page'] + 1}" in shown
    assert re.search(r"^First stage \d+ ms, rerank \d+ ms$", shown, re.MULTILINE)


@pytest.mark.slow
def test_the_demo_says_where_reranking_helps_and_where_it_does_not(
    demo: tuple[int, str, str, dict[str, Comparison]],
) -> None:
    """The first stage gets the first questions wrong and the last one right, and the demo says so for each."""
    code, output, errors, comparisons = demo
    assert (code, errors) == (0, "")
    assert output.startswith("Indexed llm_fundamentals.pdf in ")
    assert list(comparisons) == list(ANSWERS) == list(DEMO_QUESTIONS)
    *wrong, right = (comparisons[question].reranked[0].initial_rank for question in DEMO_QUESTIONS)
    assert all(f"The first stage had this passage in place {rank}." in output for rank in wrong)
    assert min(wrong) > right == 1
    assert "reranking was not needed here" in output.split("=" * 60)[len(DEMO_QUESTIONS) - 1]


@pytest.mark.slow
def test_the_demo_ends_with_what_to_type_next(demo: tuple[int, str, str, dict[str, Comparison]]) -> None:
    """The last lines are commands for the reader's own files."""
    assert [line.split(":  ")[1].split()[:2] for line in demo[1].splitlines()[-2:]] == [
        ["crossrerank", "ask"],
        ["crossrerank", "compare"],
    ]


@pytest.mark.slow
def test_the_demo_fits_into_80_columns(demo: tuple[int, str, str, dict[str, Comparison]]) -> None:
    """No line of the tables and the text around them is wider than a plain terminal; quotes are as long as they are."""
    wide = [line for line in demo[1].splitlines() if len(line) > 80]
    assert all(line.startswith('- "') for line in wide)
