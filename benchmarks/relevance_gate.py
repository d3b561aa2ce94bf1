"""How well a threshold on the best score tells questions with an answer from questions without one.

    python benchmarks/relevance_gate.py [--model bundled] [--embeddings bundled] [--k 20]

The 60 judged questions of `notebooks/data` have an answer, and the 50 in `unanswerable.jsonl` have none. For each, the
`k` nearest chunks are graded. Prints the best threshold of the cross-encoder, which belongs in
`langchain_crossrerank/agents/thresholds.py`; its accuracy at that threshold, at the recorded one, and where each
question is left out in turn when the threshold is chosen; and that of the bi-encoder's cosine at its own best
threshold. The difference is paired, with its 95 % interval.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from shares import wilson

from langchain_crossrerank import load_cross_encoder, load_embeddings
from langchain_crossrerank.agents.thresholds import MEASURED
from langchain_crossrerank.evaluation.significance import paired_difference

QUESTIONS = Path(__file__).parent.parent / "notebooks" / "data" / "llm_fundamentals_questions"

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Graded:
    """Every question with the best score of its candidates.

    Attributes:
        kinds: Kind of each question.
        answerable: Whether the document answers it.
        probability: Highest probability by the cross-encoder.
        cosine: Highest cosine by the bi-encoder.
    """

    kinds: list[str]
    answerable: Flags
    probability: Array
    cosine: Array


def read(name: str) -> list[dict[str, object]]:
    """Read a file of JSON lines."""
    with (QUESTIONS / name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def grade(model: str, embeddings: str, k: int) -> Graded:
    """Search and score all questions."""
    passages = [str(row["text"]) for row in read("corpus.jsonl")]
    answerable, unanswerable = read("queries.jsonl"), read("unanswerable.jsonl")
    rows = [*answerable, *unanswerable]
    queries = [str(row["text"]) for row in rows]
    bi_encoder, cross_encoder = load_embeddings(embeddings), load_cross_encoder(model)
    cosines = unit(bi_encoder.embed_documents(queries)) @ unit(bi_encoder.embed_documents(passages)).T
    best = []
    for query, row in zip(queries, cosines, strict=True):
        nearest = np.argsort(-row)[:k]
        scores = cross_encoder.score([(query, passages[place]) for place in nearest])
        best.append(cross_encoder.probability(max(scores)))
    return Graded(
        kinds=[str(row["metadata"]["kind"]) for row in rows],  # type: ignore[index]
        answerable=np.arange(len(rows)) < len(answerable),
        probability=np.array(best),
        cosine=cosines.max(axis=1),
    )


def unit(vectors: list[list[float]]) -> Array:
    """Scale vectors to length 1."""
    array = np.array(vectors)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def best_threshold(scores: Array, answerable: Flags) -> float:
    """Return the threshold of the highest accuracy: halfway between two neighbouring scores, the middle one of ties."""
    ordered = np.unique(scores)
    between = (ordered[1:] + ordered[:-1]) / 2
    right = [int(((scores >= threshold) == answerable).sum()) for threshold in between]
    best = [threshold for threshold, count in zip(between, right, strict=True) if count == max(right)]
    return float(best[len(best) // 2])


def left_out(scores: Array, answerable: Flags) -> Flags:
    """Whether each question is judged right by the threshold that the other questions choose."""
    right = []
    for place in range(len(scores)):
        others = np.arange(len(scores)) != place
        right.append((scores[place] >= best_threshold(scores[others], answerable[others])) == answerable[place])
    return np.array(right)


def report(name: str, graded: Graded, scores: Array, threshold: float) -> Flags:
    """Print accuracy, precision and recall at a threshold, and return which questions were judged right."""
    passed, right = scores >= threshold, (scores >= threshold) == graded.answerable
    precision = graded.answerable[passed].mean() if passed.any() else float("nan")
    recall = passed[graded.answerable].mean()
    print(f"{name} at {threshold:.3f}: accuracy {wilson(right)}, precision {precision:.3f}, recall {recall:.3f}")
    for kind in dict.fromkeys(graded.kinds):
        members = np.array([other == kind for other in graded.kinds])
        print(f"    {kind:11} {passed[members].sum():3} of {members.sum():2} pass")
    return right


def main() -> None:
    """Grade all questions and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--embeddings", default="bundled")
    parser.add_argument("--k", type=int, default=20)
    options = parser.parse_args()
    graded = grade(options.model, options.embeddings, options.k)
    best = best_threshold(graded.probability, graded.answerable)
    ours = report(f"{options.model}, best threshold", graded, graded.probability, best)
    if options.model in MEASURED:
        recorded = MEASURED[options.model].passage
        ours = report(f"{options.model}, recorded threshold", graded, graded.probability, recorded)
    theirs = report("cosine, best threshold", graded, graded.cosine, best_threshold(graded.cosine, graded.answerable))
    print(f"{options.model}, each question left out: {wilson(left_out(graded.probability, graded.answerable))}")
    print(f"cosine, each question left out: {wilson(left_out(graded.cosine, graded.answerable))}")
    found = paired_difference(theirs.astype(float).tolist(), ours.astype(float).tolist())
    print(f"difference in accuracy: {found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f}), target: not below 0")
    refused = float((graded.probability[~graded.answerable] < best).mean())
    print(f"questions without an answer below the best threshold: {refused:.0%} (target: 80 %)")


if __name__ == "__main__":
    main()
