"""Doubts about a result: what makes figures wrong or meaningless, by its cause and its remedy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from langchain_core.documents import Document

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.judgements import Qrels, relevant_ids
from langchain_crossrerank.evaluation.query_runs import QueryRun


def with_relevant(qrels: Qrels) -> Qrels:
    """Leave out queries without any relevant document, as `trec_eval` does: no order of documents can serve them.

    Raises:
        InvalidInputError: If no query has a relevant document.
    """
    kept = {key: grades for key, grades in qrels.items() if relevant_ids(grades)}
    if not kept:
        raise InvalidInputError(
            "no query has a relevant document, that is one with a grade above 0; there is nothing to find."
        )
    return kept


@dataclass
class Doubts:
    """Collects what is suspicious while queries run.

    Attributes:
        qrels: The judgements.
        id_keys: Metadata keys that hold judged ids, with the number of candidates where they do.
    """

    qrels: Qrels
    id_keys: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._judged = {name for grades in self.qrels.values() for name in grades}

    def see(self, candidates: list[Document]) -> None:
        """Look at a query's candidates for judged ids in their metadata."""
        for document in candidates:
            for key, value in document.metadata.items():
                if isinstance(value, str | int) and str(value) in self._judged:
                    self.id_keys[key] = self.id_keys.get(key, 0) + 1

    def warnings(self, runs: Mapping[str, QueryRun]) -> list[str]:
        """Say what is suspicious about finished runs."""
        found = {name for run in runs.values() for name in run.before}
        warnings = []
        if found and not found & self._judged:
            key = max(self.id_keys, key=lambda key: self.id_keys[key], default=None)
            remedy = (
                f"the metadata key {key!r} holds judged ids: pass id_key={key!r}."
                if key is not None
                else "if the store made ids of its own, name the metadata key of the judged ids with id_key=."
            )
            warnings.append(
                f"No judged document was retrieved for any query. Ids found look like {min(found)!r}, judged ones like "
                f"{min(self._judged)!r}; {remedy}"
            )
        blank = sum(run.blank for run in runs.values())
        if blank:
            warnings.append(f"{blank} candidates have no text; a cross-encoder cannot judge them. Check the index.")
        itself = sum(run.itself for run in runs.values())
        if itself:
            warnings.append(
                f"{itself} queries are documents of the corpus and found themselves; each was left out of its own list."
            )
        cut = sum(run.truncated for run in runs.values())
        if cut:
            reranked = sum(run.passages for run in runs.values())
            warnings.append(
                f"{cut} of {reranked} passages were longer than the model reads, which judged their beginnings; split "
                "them, or use WindowedCrossEncoder."
            )
        ranked = [run for run in runs.values() if len(run.before) > 1 and not run.degraded]
        if ranked and all(run.before == run.after for run in ranked):
            warnings.append(
                "Reranking left every list as it was. Check that the model is the right one and reads the passages: "
                "equal scores keep the first stage's order."
            )
        return warnings
