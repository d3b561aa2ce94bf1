"""Doubts about a result: what makes figures wrong or meaningless, by its cause and its remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.judgements import Qrels, relevant_ids
from langchain_crossrerank.evaluation.query_runs import Fetched, QueryRun


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
        by_id: Relevant documents among the candidates, by their ids.
        by_key: Relevant documents that the candidates' metadata names, by its key.
    """

    qrels: Qrels
    by_id: int = 0
    by_key: Counter[str] = field(default_factory=Counter)

    def see(self, query_id: str, fetched: Fetched) -> None:
        """Count a query's relevant documents among its candidates, by id and by each metadata key."""
        relevant = set(relevant_ids(self.qrels[query_id]))
        self.by_id += len(relevant.intersection(fetched.ids))
        named = {
            (key, str(value))
            for document in fetched.documents
            for key, value in document.metadata.items()
            if isinstance(value, str | int) and str(value) in relevant
        }
        self.by_key.update(key for key, _ in named)

    def warnings(self, runs: Mapping[str, QueryRun]) -> list[str]:
        """Say what is suspicious about finished runs."""
        warnings = self._about_ids({name for run in runs.values() for name in run.before})
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

    def _about_ids(self, found: set[str]) -> list[str]:
        judged = {name for grades in self.qrels.values() for name in grades}
        key = max(self.by_key, key=lambda key: self.by_key[key], default=None)
        if found and not found & judged:
            remedy = (
                f"the metadata key {key!r} holds judged ids: pass id_key={key!r}."
                if key is not None
                else "if the store made ids of its own, name the metadata key of the judged ids with id_key=."
            )
            return [
                f"No judged document was retrieved for any query. Ids found look like {min(found)!r}, judged ones like "
                f"{min(judged)!r}; {remedy}"
            ]
        if key is not None and self.by_key[key] > 2 * self.by_id:
            return [
                f"The candidates' metadata key {key!r} names {self.by_key[key]} relevant documents, and their ids only "
                f"{self.by_id}; if the store made ids of its own, pass id_key={key!r}."
            ]
        return []
