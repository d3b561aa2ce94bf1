"""How often `evaluate` finds a difference where there is none, and how often it finds one of 0.05 nDCG.

    python benchmarks/false_verdicts.py [--draws 500] [--queries 3 10 30 100] [--gain 0.05]

Two rankers of equal quality order the same candidates of every query, each with noise of its own: nothing differs but
chance. nDCG@10 of both is compared as `evaluate` compares before and after, and the share of draws with the verdict
"helped" or "hurt" is printed; it must be at most 5 %. Next to it is the power: the share of draws with the verdict
"helped" where the second ranker is better by a mean gain of 0.05. Differences have many ties, as real ones have: many
queries have one relevant document, and both rankers put it at the same place.
"""

from __future__ import annotations

import argparse
import platform

import numpy as np

from langchain_crossrerank.evaluation.significance import MIN_QUERIES, paired_difference

CANDIDATES = 20
SKILL = 1.5
"""How far a relevant document's score is above the others', in standard deviations of the noise."""


def ndcg(
    scores: np.ndarray[tuple[int, int], np.dtype[np.float64]], relevant: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """nDCG@10 of each row; the first `relevant` columns are the relevant documents."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    discounts = 1 / np.log2(np.arange(10) + 2)
    gains = (order < relevant) @ discounts
    return np.asarray(gains / discounts[:relevant].sum())


def draw(random: np.random.Generator, queries: int, skill: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Values of one ranker on `queries` queries, a third of which have one, two or three relevant documents."""
    values = np.empty(queries)
    for relevant in (1, 2, 3):
        rows = np.arange(queries) % 3 == relevant - 1
        scores = random.normal(size=(int(rows.sum()), CANDIDATES))
        scores[:, :relevant] += skill
        values[rows] = ndcg(scores, relevant)
    return values


def skill_for(gain: float) -> float:
    """The skill of a ranker whose mean nDCG@10 is higher by `gain`, by bisection on many queries."""
    base = draw(np.random.default_rng(1), 60_000, SKILL).mean()
    low, high = SKILL, SKILL + 2
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if draw(np.random.default_rng(1), 60_000, middle).mean() < base + gain else (low, middle)
        )
    return (low + high) / 2


def main() -> None:
    """Simulate and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--queries", type=int, nargs="+", default=[3, 10, 30, 100])
    parser.add_argument("--gain", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    better = skill_for(options.gain)
    print(f"Python {platform.python_version()}, {options.draws} draws; no verdict below {MIN_QUERIES} queries\n")
    print(f"| queries | helped or hurt, nothing differs (target: 5 %) | p <= 0.05 | helped, gain of {options.gain} |")
    print("|---|---|---|---|")
    for queries in options.queries:
        random = np.random.default_rng([options.seed, queries])
        false = low_p = found = 0
        for _ in range(options.draws):
            same = paired_difference(draw(random, queries, SKILL).tolist(), draw(random, queries, SKILL).tolist())
            false += same.verdict in ("helped", "hurt")
            low_p += same.p_value <= 0.05
            gained = paired_difference(draw(random, queries, SKILL).tolist(), draw(random, queries, better).tolist())
            found += gained.verdict == "helped"
        shares = " | ".join(f"{count / options.draws:.1%}" for count in (false, low_p, found))
        print(f"| {queries} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
