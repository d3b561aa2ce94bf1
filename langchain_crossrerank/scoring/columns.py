"""Which columns of a table hold the texts to score, and the texts that a row has in them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_crossrerank.checks import check_query, shorten
from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.records import plain_key

QUERIES = ("query", "question", "querytext", "userinput", "q")
PASSAGES = ("passage", "text", "document", "content", "contents", "pagecontent", "body", "chunk")
CANDIDATES = ("candidates", "passages", "documents", "contexts", "chunks", "texts")

SCORE = "score"
"""Name of the new column of rows with one passage."""

SCORES = "scores"
"""Name of the new column of rows with a list of candidates."""


@dataclass(frozen=True)
class Columns:
    """The columns to read and the one to write.

    Attributes:
        query: Column of the queries.
        texts: Column of the passages, or of the lists of candidates.
        is_list: Whether `texts` has a list in each row.
        score: Column to write: a score, or a list of scores in the order of the candidates.
    """

    query: str
    texts: str
    is_list: bool
    score: str

    @classmethod
    def choose(
        cls,
        names: Sequence[str],
        where: str,
        *,
        query: str | None = None,
        passage: str | None = None,
        candidates: str | None = None,
        score: str | None = None,
    ) -> Columns:
        """Find the columns by their names.

        Args:
            names: All columns of the table.
            where: What to call the table in an error.
            query: Column of the queries; `None` finds it by its name: query, question.
            passage: Column of the passages; `None` finds it by its name: passage, text, document, content.
            candidates: Column of lists of passages; `None` finds it by its name: candidates, passages, documents.
            score: The new column; `None` for `"score"`, or `"scores"` with candidates.

        Raises:
            InvalidInputError: If a column does not exist, several could be meant, one would be both query and passage,
                or the new one exists already.
        """
        if passage is not None and candidates is not None:
            raise InvalidInputError(
                f"passage_column is {passage!r} and candidates_column is {candidates!r}; pass one of them: a row has "
                "either one passage or a list of candidates."
            )
        repeated = sorted(name for name, count in Counter(names).items() if count > 1)
        if repeated:
            raise InvalidInputError(f"{where}: the column {repeated[0]!r} comes twice; rename one.")
        query = _named(query, names, where, "query_column") or _found(QUERIES, names, where, "query_column")
        texts = _named(passage, names, where, "passage_column") or _named(candidates, names, where, "candidates_column")
        if texts is None:
            texts = _found((*PASSAGES, *CANDIDATES), names, where, "passage_column or candidates_column")
        if texts == query:
            other = "query_column" if passage or candidates else "passage_column or candidates_column"
            raise InvalidInputError(
                f"{where}: the column {query!r} would be both the query and the passage; name the other column with "
                f"{other}. The columns are {shorten(list(names), 200)}."
            )
        is_list = candidates is not None or (passage is None and plain_key(texts) in CANDIDATES)
        score = score or (SCORES if is_list else SCORE)
        if score in names:
            raise InvalidInputError(
                f"{where}: there is already a column {score!r}; name the new one with score_column."
            )
        return cls(query, texts, is_list, score)

    def text_pairs(self, row: Mapping[str, Any], where: str) -> list[TextPair]:
        """Return the pairs of a row: one, or one for each candidate.

        Args:
            row: The row's values by column.
            where: What to call the row in an error.

        Raises:
            InvalidInputError: If a text is missing or is not text, or the query is blank.
        """
        for name in (self.query, self.texts):
            if name not in row:
                raise InvalidInputError(f"{where}: there is no {name!r}; the keys are {shorten(list(row), 200)}.")
        query = check_query(row[self.query], what=f"{where}: {self.query}")
        if not self.is_list:
            return [(query, _text(row[self.texts], f"{where}: {self.texts}"))]
        candidates = _list(row[self.texts], f"{where}: {self.texts}")
        return [
            (query, _text(candidate, f"{where}: {self.texts}[{place}]")) for place, candidate in enumerate(candidates)
        ]


def _named(name: str | None, names: Sequence[str], where: str, option: str) -> str | None:
    if name is not None and name not in names:
        raise InvalidInputError(f"{where}: {option} is {name!r}; the columns are {shorten(list(names), 200)}.")
    return name


def _found(known: Sequence[str], names: Sequence[str], where: str, option: str) -> str:
    found = [name for name in names if plain_key(name) in known]
    if len(found) != 1:
        problem = f"any of the columns {found} could be meant" if found else f"there is no column {known[0]!r}"
        raise InvalidInputError(
            f"{where}: {problem}; name the column with {option}. The columns are {shorten(list(names), 200)}."
        )
    return found[0]


def _text(value: object, what: str) -> str:
    if isinstance(value, Mapping):
        texts = [entry for key, entry in value.items() if plain_key(key) in PASSAGES]
        value = texts[0] if len(texts) == 1 else value
    if not isinstance(value, str):
        raise InvalidInputError(f"{what} is {shorten(value)} of type {type(value).__name__}; it must be text.")
    return value


def _list(value: object, what: str) -> Sequence[Any]:
    if isinstance(value, str):
        # A cell of a CSV file.
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as err:
            raise InvalidInputError(f"{what} is {shorten(value)}; it must be a list of texts as JSON.") from err
    if hasattr(value, "tolist"):
        # pandas and Ray turn lists into numpy arrays.
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise InvalidInputError(
            f"{what} is {shorten(value)} of type {type(value).__name__}; it must be a list of texts."
        )
    return value
