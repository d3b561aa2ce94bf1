"""Keeps the finished queries of an evaluation in a file, so that a run that was stopped can continue."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.evaluation.query_runs import QueryRun
from langchain_crossrerank.files import write_whole


class Checkpoint:
    """Finished queries, one JSON line each, after a line that says which run they belong to.

    Args:
        path: The file; `None` keeps nothing.
        run_key: Everything that decides what a query finds; a file of another run is refused.

    Raises:
        InvalidInputError: If the file is damaged, of another run, or not a checkpoint.
    """

    def __init__(self, path: str | os.PathLike[str] | None, run_key: str) -> None:
        self.path = Path(path) if path is not None else None
        self._finished: dict[tuple[str, str], QueryRun] = {}
        if self.path is None:
            return
        head = json.dumps({"run": hashlib.blake2b(run_key.encode(), digest_size=16).hexdigest()}) + "\n"
        try:
            content = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        except UnicodeDecodeError as err:
            raise InvalidInputError(f"{str(self.path)!r} is not a checkpoint of evaluate; name another file.") from err
        if '{"run": "'.startswith(content) or (not content.endswith("\n") and head.startswith(content)):
            # Not begun, or stopped before the first line was whole.
            write_whole(self.path, head)
            return
        first, _, rest = content.partition("\n")
        self._check_head(first, head)
        *lines, unfinished = rest.split("\n")
        for number, line in enumerate(lines, start=2):
            self._read(line, number)
        if unfinished:
            # It was being written when the run was stopped.
            write_whole(self.path, content[: -len(unfinished)])

    def run_of(self, query_id: str, query: str) -> QueryRun | None:
        """Return what a finished query found, if its text is still the same."""
        return self._finished.get((query_id, query))

    def add(self, query_id: str, query: str, run: QueryRun) -> None:
        """Append a finished query."""
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"query_id": query_id, "query": query, **asdict(run)}) + "\n")

    def check_candidates(self, query_id: str, finished: QueryRun, candidates: str) -> None:
        """Raise unless the first stage still finds what it found when a query was finished.

        Args:
            query_id: The query.
            finished: What the file says about it.
            candidates: Digest of what the first stage finds now.

        Raises:
            InvalidInputError: If the candidates have changed.
        """
        if finished.candidates != candidates:
            raise InvalidInputError(
                f"the checkpoint {str(self.path)!r} belongs to another run: the first stage now finds other documents "
                f"for the query {query_id!r}; delete it or name another file."
            )

    def _check_head(self, first: str, head: str) -> None:
        try:
            is_checkpoint = set(json.loads(first)) == {"run"}
        except (ValueError, TypeError):
            is_checkpoint = False
        if not is_checkpoint:
            raise InvalidInputError(f"{str(self.path)!r} is not a checkpoint of evaluate; name another file.")
        if first + "\n" != head:
            raise InvalidInputError(
                f"the checkpoint {str(self.path)!r} belongs to another model, retriever or setting; "
                "delete it or name another file."
            )

    def _read(self, line: str, number: int) -> None:
        try:
            entry = _LINES.validate_json(line)
        except ValidationError as err:
            raise InvalidInputError(
                f"the checkpoint {str(self.path)!r} is damaged in line {number} ({line[:60]!r}); "
                "delete that line, or the file to start over."
            ) from err
        found = {field.name: getattr(entry, field.name) for field in fields(QueryRun)}
        self._finished[entry.query_id, entry.query] = QueryRun(**found)


@dataclass(kw_only=True)
class _Line(QueryRun):
    """A line of the file: a query, and what it found."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", strict=True)

    query_id: str
    query: str


_LINES = TypeAdapter(_Line)
