"""What keeping passages saves: a rerank of passages seen before, and a day of queries over one store.

    python benchmarks/passage_cache.py [--queries 1000] [--passages 2000] [--cache 512MB]

Texts are random words of the model's vocabulary: speed depends on their lengths alone. A day's queries ask for 20
passages each, the popular ones more often (Zipf's law with exponent 1), as in a store of documentation.
"""

from __future__ import annotations

import argparse
import pickle
import random
import time

from timing import Stopwatch, in_turns
from tokenizers import Tokenizer

from langchain_crossrerank import load_cross_encoder
from langchain_crossrerank.cross_encoders.backends.onnx import OnnxCrossEncoder
from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER

CANDIDATES = 20


def words() -> list[str]:
    """Return whole words of the bundled model's vocabulary."""
    vocabulary = Tokenizer.from_file(str(BUNDLED_FOLDER / "tokenizer.json")).get_vocab()
    return sorted(word for word in vocabulary if word.isascii() and word.isalpha() and len(word) > 3)


def text(draw: random.Random, vocabulary: list[str], characters: int) -> str:
    """Return random words of about the given number of characters."""
    chosen = ""
    while len(chosen) < characters:
        chosen += f"{draw.choice(vocabulary)} "
    return chosen.strip()


def main() -> None:
    """Measure both, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--passages", type=int, default=2000)
    parser.add_argument("--cache", default="512MB")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    draw, vocabulary = random.Random(0), words()
    plain = load_cross_encoder("bundled", activation="identity")
    shared = load_cross_encoder("bundled", activation="identity", passage_cache=options.cache)

    passages = [text(draw, vocabulary, 500) for _ in range(CANDIDATES)]
    asked = [text(draw, vocabulary, 40) for _ in range(options.rounds + 2)]
    batches = [[(query, passage) for passage in passages] for query in asked]
    watches = in_turns(
        {"plain": lambda n: plain.score(batches[n]), "kept": lambda n: shared.score(batches[n])},
        rounds=options.rounds,
        warm_up=2,
        pause=0.2,
    )
    difference = max(abs(a - b) for a, b in zip(plain.score(batches[0]), shared.score(batches[0]), strict=True))
    ratio = watches["plain"].median / watches["kept"].median
    plain_ms, kept_ms = (watches[name].median * 1000 for name in ("plain", "kept"))
    print(f"{CANDIDATES} passages of 500 characters, seen before: {plain_ms:.0f} ms without a cache, {kept_ms:.0f} ms")
    print(f"with one, {ratio:.2f} times as fast; logits within {difference:.1g}")

    store = [text(draw, vocabulary, draw.randrange(200, 900)) for _ in range(options.passages)]
    popularity = [1 / (1 + rank) for rank in range(len(store))]
    day = []
    for _ in range(options.queries):
        chosen: dict[str, None] = {}
        while len(chosen) < CANDIDATES:
            chosen[draw.choices(store, popularity)[0]] = None
        query = text(draw, vocabulary, 40)
        day.append([(query, passage) for passage in chosen])
    fresh = pickle.loads(pickle.dumps(shared))
    assert isinstance(fresh, OnnxCrossEncoder)
    without, kept = Stopwatch(), Stopwatch()
    for start in range(0, len(day), 25):
        part = day[start : start + 25]
        for watch, model in ((without, plain), (kept, fresh)):
            # In turns, so that other load on the machine affects both alike, and after a pause, because the threads of
            # the other model spin for a moment.
            time.sleep(0.2)
            for pairs in part:
                watch.time(lambda pairs=pairs, model=model: model.score(pairs))  # type: ignore[misc]
    found, read = fresh.passage_counts
    hits = found / (found + read)
    print(
        f"\n{options.queries} queries over {options.passages} passages: {sum(without.seconds):.0f} s without a cache, "
        f"{sum(kept.seconds):.0f} s with {options.cache} "
        f"({sum(without.seconds) / sum(kept.seconds):.2f} times as fast); {hits:.1%} of the passages were found"
    )


if __name__ == "__main__":
    main()
