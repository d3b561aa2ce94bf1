"""Mining negatives: what is used, what is excluded, and what is kept on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings

from langchain_crossrerank.errors import InvalidInputError, TrainingError
from langchain_crossrerank.training.data import TrainingData, TrainingExample

mining = pytest.importorskip("langchain_crossrerank.training.mining", reason="needs the training extra")


class FakeEmbeddings(Embeddings):
    """Places each known text at a given cosine from every query, and others at 0.1."""

    def __init__(self, cosines: dict[str, float]) -> None:
        self.cosines = cosines

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[c := self.cosines.get(text, 0.1), (1 - c * c) ** 0.5] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [1.0, 0.0]


class CountingEmbeddings(FakeEmbeddings):
    """Counts the passages that it embeds."""

    _embedded = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        CountingEmbeddings._embedded += len(texts)
        return super().embed_documents(texts)


def test_near_copies_and_answers_are_excluded(mine_herons: Callable[..., Any]) -> None:
    """The positive, a near-copy and a passage with the answer are not mined; the rest comes hardest first."""
    (found,) = mine_herons().examples
    assert found.positives == (0,)
    assert found.negatives[0] == 1
    assert {0, 5}.isdisjoint(found.negatives)
    assert {0, 5} <= set(found.candidates)
    assert found.rejected == (5,)
    (answered,) = mine_herons(answers=("dawn",)).examples
    assert 1 not in answered.negatives
    assert set(answered.rejected) == {1, 5}
    (partly,) = mine_herons(answers=("daw",)).examples
    assert 1 in partly.negatives


def test_a_bi_encoder_adds_negatives_and_drops_likely_answers(
    mine_herons: Callable[..., Any], passages: list[str]
) -> None:
    """What only the bi-encoder finds is mined, too; what it puts far above the positive is not."""
    embeddings = FakeEmbeddings({passages[0]: 0.7, passages[4]: 0.75, passages[1]: 0.95})
    (found,) = mine_herons(embeddings=embeddings, k=3).examples
    assert 4 in found.negatives
    assert 1 not in found.negatives
    assert 1 in found.rejected


def test_positives_of_the_same_query_are_not_negatives(passages: list[str]) -> None:
    """Examples of one query, in whatever source, are merged before mining, so that none mines another's positive."""
    examples = [
        TrainingExample("heron in shallow water", (passages[0],), source="one"),
        TrainingExample("Heron in  shallow water", (passages[1],), source="two"),
    ]
    mined = mining.mine(TrainingData(examples, {"one": passages, "two": passages}))
    (found,) = mined["one"].examples
    assert {mined["one"].passages[place] for place in found.positives} == {passages[0], passages[1]}
    assert set(found.positives).isdisjoint(found.negatives)
    assert "two" not in mined


def _emptied(file: Path, passages: int) -> None:
    kept = json.loads(file.read_text(encoding="utf-8"))
    kept["sources"] = {source: [] for source in kept["sources"]}
    file.write_text(json.dumps(kept), encoding="utf-8")


def _out_of_range(file: Path, passages: int) -> None:
    kept = json.loads(file.read_text(encoding="utf-8"))
    kept["sources"] = {source: [[[0], [0], [passages], []] for _ in rows] for source, rows in kept["sources"].items()}
    file.write_text(json.dumps(kept), encoding="utf-8")


@pytest.mark.parametrize("damage", ["not JSON", '{"key": 3}', "[]", "[" * 200_000, _emptied, _out_of_range])
def test_a_damaged_file_is_mined_again(
    tmp_path: Path, mine_herons: Callable[..., Any], passages: list[str], damage: Any
) -> None:
    """A damaged or edited file of mined negatives costs the time to mine again, and nothing else."""
    CountingEmbeddings._embedded = 0
    options: dict[str, Any] = {"embeddings": CountingEmbeddings({passages[0]: 0.7}), "file": tmp_path / "mined.json"}
    first = mine_herons(**options)
    if callable(damage):
        damage(options["file"], len(first.passages))
    else:
        options["file"].write_text(damage)
    assert mine_herons(**options).examples == first.examples
    assert CountingEmbeddings._embedded == 2 * len(first.passages)


def test_mined_negatives_are_kept(tmp_path: Path, mine_herons: Callable[..., Any], passages: list[str]) -> None:
    """Mining the same again reads the file; other data or another `k` is mined again."""
    CountingEmbeddings._embedded = 0
    options: dict[str, Any] = {"embeddings": CountingEmbeddings({passages[0]: 0.7}), "file": tmp_path / "mined.json"}
    first = mine_herons(**options)
    once = CountingEmbeddings._embedded
    assert once == len(first.passages)
    assert mine_herons(**options).examples == first.examples
    assert CountingEmbeddings._embedded == once
    assert mine_herons(**options, answers=("dawn",)).examples != first.examples
    mine_herons(**options, k=3)
    assert CountingEmbeddings._embedded == 3 * once


def test_a_full_disk_is_named(tmp_path: Path, mine_herons: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """If the mined negatives cannot be written, the error names the file and what to do."""

    def full(path: Any, content: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(mining, "write_whole", full)
    with pytest.raises(TrainingError, match=r"cannot write .*mined.json .*No space left.*free some space"):
        mine_herons(file=tmp_path / "mined.json")


def test_nothing_to_mine_is_an_error(passages: list[str]) -> None:
    """If no query has a negative, there is nothing to train on."""
    example = TrainingExample("heron", (passages[0],))
    with pytest.raises(InvalidInputError, match="no negatives were found for any of 1 queries"):
        mining.mine(TrainingData([example], {"": [passages[0]]}))
