"""The two stages that a command's options describe: bi-encoder and index, then cross-encoder."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_crossrerank.checks import check_whole_numbers
from langchain_crossrerank.cli.output import note

if TYPE_CHECKING:
    from langchain_classic.retrievers import ContextualCompressionRetriever
    from langchain_core.embeddings import Embeddings

    from langchain_crossrerank.cross_encoders.base import CrossEncoder

_NAMED = 5
"""The most files that are named one by one."""


@dataclass(frozen=True)
class Stages:
    """Models and sizes of the two stages.

    Attributes:
        model: Cross-encoder; `None` for the default.
        embeddings: Bi-encoder; `None` for the default.
        offline: Whether the defaults are the bundled models, and nothing is downloaded for others.
        k: Candidates of the first stage.
        top_n: Documents to keep; `None` for all.
        loading: Further arguments of `load_cross_encoder`.
    """

    model: str | None = None
    embeddings: str | None = None
    offline: bool = False
    k: int = 20
    top_n: int | None = 5
    loading: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raise `InvalidInputError` unless `--k` and `--top-n` can be used."""
        check_whole_numbers(**{"--k": (self.k, 1), "--top-n": (1 if self.top_n is None else self.top_n, 1)})

    def load_model(self) -> CrossEncoder:
        """Load the cross-encoder."""
        from langchain_crossrerank.cross_encoders.loading import DEFAULT_MODEL, load_cross_encoder
        from langchain_crossrerank.cross_encoders.settings import is_url

        default = "bundled" if self.offline else DEFAULT_MODEL
        name = default if self.model is None else self.model
        # A server has no files, and may well be on this machine.
        local_files_only = self.offline and not is_url(name)
        return load_cross_encoder(name, local_files_only=local_files_only, **self.loading)

    @property
    def embeddings_name(self) -> str:
        """The name of the bi-encoder."""
        from langchain_crossrerank.embeddings import DEFAULT_EMBEDDINGS, OFFLINE_EMBEDDINGS

        default = OFFLINE_EMBEDDINGS if self.offline else DEFAULT_EMBEDDINGS
        return default if self.embeddings is None else self.embeddings

    def load_embeddings(self) -> Embeddings:
        """Load the bi-encoder."""
        from langchain_crossrerank.embeddings import load_embeddings

        return load_embeddings(self.embeddings_name, local_files_only=self.offline)

    def over_files(
        self, files: Sequence[str | os.PathLike[str]], *, persist: str | None = None, all_files: bool = False
    ) -> tuple[ContextualCompressionRetriever, str]:
        """Index files and put the cross-encoder on top; what was left out is said on standard error.

        Args:
            files: Files and folders.
            persist: Folder of an index that is kept.
            all_files: Whether to search everything that the kept index has.

        Returns:
            The retriever, and a sentence that says what it searches.
        """
        from langchain_crossrerank.indexing import index_files
        from langchain_crossrerank.indexing.finding import check_found, search_files
        from langchain_crossrerank.retrievers import create_rerank_retriever

        self.check()
        found = search_files(files)
        if persist is None or not os.path.exists(persist):
            # Otherwise the index is cleaned first, even if nothing is left to read.
            check_found(found)
        model = self.load_model()
        report = index_files(
            files,
            embeddings=self.load_embeddings(),
            persist_directory=persist,
            all_files=all_files,
            show_progress=sys.stderr.isatty(),
        )
        for failure in report.failures:
            note(f"skipped: {failure}")
        for left_out in report.notes:
            note(left_out)
        if self.top_n is not None and self.k <= self.top_n:
            note(f"--k {self.k} with --top-n {self.top_n}: only the order can change")
        retriever = create_rerank_retriever(report.vector_store, model=model, k=self.k, top_n=self.top_n)
        return retriever, _describe_searched(report.sources)


def _describe_searched(sources: Sequence[str]) -> str:
    """Name the files that are searched, or count them if they are many."""
    from langchain_core.documents import Document

    from langchain_crossrerank.sources import describe_source

    if len(sources) > _NAMED:
        return f"Searched {len(sources)} files."
    return f"Searched {', '.join(describe_source(Document('', metadata={'source': source})) for source in sources)}."
