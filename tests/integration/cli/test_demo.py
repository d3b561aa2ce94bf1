"""`crossrerank demo`."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import pytest

from langchain_crossrerank import Comparison, cli, evaluation
from langchain_crossrerank.cli.demo import DEMO_QUESTIONS

ANSWERS = {
    "What is LoRA?": "freezes the original weight matrices and trains two small matrices",
    "How does QLoRA reduce memory?": "quantising the frozen weights from 16 bits to 4 bits",
    "How do the storage type and the computation type differ in QLoRA?": "Four bits is thus a storage type and 16 bits",
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
        patch.setenv("COLUMNS", "120")
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = cli.main(["demo"])
    return code, output.getvalue(), errors.getvalue(), seen


@pytest.mark.slow
@pytest.mark.parametrize("question", DEMO_QUESTIONS)
def test_the_demo_finds_the_passage_that_answers(
    demo: tuple[int, str, str, dict[str, Comparison]], question: str
) -> None:
    """For every question the first passage after reranking has the answer, and the demo shows it."""
    _, output, _, comparisons = demo
    best = comparisons[question].reranked[0]
    assert ANSWERS[question] in " ".join(best.text.split())
    shown = output[output.index(f"Query: {question}") :].split("=" * 60)[0]
    assert comparisons[question].to_text(120) in shown
    assert "Extractive answer" in shown
    assert f"[1] {best.score:.3f}  llm_fundamentals.pdf, page {best.metadata['page'] + 1}" in shown
    assert "\nMilliseconds: first stage " in shown


@pytest.mark.slow
def test_the_demo_shows_that_reranking_helps(demo: tuple[int, str, str, dict[str, Comparison]]) -> None:
    """The third question is one that the first stage gets wrong; nothing is said on standard error."""
    code, output, errors, comparisons = demo
    assert (code, errors) == (0, "")
    assert output.startswith("Indexed llm_fundamentals.pdf in ")
    assert list(comparisons) == list(ANSWERS) == list(DEMO_QUESTIONS)
    assert comparisons[DEMO_QUESTIONS[2]].reranked[0].initial_rank > 1
