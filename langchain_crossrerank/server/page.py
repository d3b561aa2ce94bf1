"""The page at `/`: its files, and the requests that it makes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any, Literal, TypeVar

from langchain_core.documents import Document
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from langchain_crossrerank.checks import shorten
from langchain_crossrerank.errors import IndexingError, InvalidInputError
from langchain_crossrerank.extractive import choose_statements, find_quotes
from langchain_crossrerank.lexical import LexicalIndex
from langchain_crossrerank.passages import flat_text
from langchain_crossrerank.redaction import show_url
from langchain_crossrerank.server.config import PagePassage, ServerConfig
from langchain_crossrerank.server.dialects.base import Call, ListOf, RequestBody, Scored, read_query, validate
from langchain_crossrerank.server.models import ServedModels
from langchain_crossrerank.server.scoring import Scoring, check_characters, while_connected
from langchain_crossrerank.sources import describe_source

MAX_SHOWN = 100
"""Maximum candidates that the page asks for."""

Argument = TypeVar("Argument")
Result = TypeVar("Result")

_THREADS = 2

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}

_FILES = {
    "/": ("langchain_crossrerank.server", "static/index.html", "text/html"),
    "/page/try.js": ("langchain_crossrerank.server", "static/try.js", "text/javascript"),
    "/page/try.css": ("langchain_crossrerank.server", "static/try.css", "text/css"),
    "/page/examples.json": ("langchain_crossrerank.server", "static/examples.json", "application/json"),
    "/page/icon.svg": ("langchain_crossrerank.server", "static/icon.svg", "image/svg+xml"),
    # The look that the page shares with reports.
    "/page/style.css": ("langchain_crossrerank.pages", "templates/style.css", "text/css"),
    "/page/page.css": ("langchain_crossrerank.pages", "templates/page.css", "text/css"),
}

Answering = Callable[[Request, Callable[[Mapping[str, Any]], Awaitable[Any]]], Awaitable[Response]]
"""Reads the body of a request, has it answered, and reports what is wrong."""


class SearchRequest(RequestBody):
    """Find candidates and rerank them.

    Attributes:
        query: The search text.
        passages: What to search; `None` for the files that the server was started with.
        model: The name of a model; `None` for the default.
        order: How the first stage orders the passages.
        k: Candidates that the first stage fetches.
    """

    query: str
    passages: ListOf[str] | None = None
    model: str | None = None
    order: Literal["bm25", "given"] = "bm25"
    k: int = Field(default=20, ge=1, le=MAX_SHOWN)


class SentencesRequest(RequestBody):
    """Find the sentence in each passage that answers the query best, among the first ones of a long passage."""

    query: str
    passages: ListOf[str] = Field(max_length=MAX_SHOWN)
    model: str | None = None


class Page:
    """The page of a server.

    Args:
        config: The passages that it searches, and the models.
        models: The models.
        scoring: Scores its requests like those of any client.
        answering: Answers a request of the page.
    """

    def __init__(self, config: ServerConfig, models: ServedModels, scoring: Scoring, answering: Answering) -> None:
        self._config = config
        self._models = models
        self._scoring = scoring
        self._answering = answering
        self._texts = [passage.text for passage in config.passages]
        self._index = LexicalIndex(self._texts) if self._texts else None
        # Its own, so that searches in long texts leave the other requests the threads of the event loop.
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="crossrerank-page")

    def routes(self) -> list[Route]:
        """Return the routes of the page."""
        shown = [Route(path, _file(*place)) for path, place in _FILES.items()]
        return [
            *shown,
            Route("/try/state", self._state),
            Route("/try/search", self._search_endpoint, methods=["POST"]),
            Route("/try/sentences", self._sentences_endpoint, methods=["POST"]),
        ]

    async def _state(self, _: Request) -> Response:
        models = [
            {"name": model.name, "model": show_url(model.settings.model), "ready": model.encoder is not None}
            for model in self._models.all
        ]
        names = list(dict.fromkeys(passage.file for passage in self._config.passages))
        return JSONResponse({"models": models, "passages": len(self._texts), "files": names})

    async def _search_endpoint(self, request: Request) -> Response:
        return await self._answering(request, lambda payload: while_connected(request, self._search(payload)))

    async def _sentences_endpoint(self, request: Request) -> Response:
        return await self._answering(request, lambda payload: while_connected(request, self._sentences(payload)))

    async def _search(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        body = validate(SearchRequest, payload)
        query = read_query(body.query)
        check_characters((query, *(body.passages or ())), self._config.limits)
        started = time.perf_counter()
        found = await self._in_thread(self._first_stage, body)
        retrieved = time.perf_counter()
        call = Call(model=body.model, pairs=[(query, passage.text) for passage in found], render=lambda scored: scored)
        scored: Scored = await self._scoring.run(call)
        reranked = time.perf_counter()
        return {
            "model": scored.model,
            "retrieve_ms": 1000 * (retrieved - started),
            "rerank_ms": 1000 * (reranked - retrieved),
            "passages": [
                {"text": passage.text, "source": passage.source, "score": score}
                for passage, score in zip(found, scored.scores, strict=True)
            ],
        }

    def _first_stage(self, body: SearchRequest) -> list[PagePassage]:
        """Return the candidates in the first stage's order.

        BM25 puts passages of the request that share no word with the query last, and leaves out such passages of files.
        """
        if body.passages is None:
            passages, index = self._config.passages, self._index
        else:
            distinct: dict[str, str] = {}
            for text in body.passages:
                distinct.setdefault(flat_text(text), text)
            passages = tuple(PagePassage(text) for key, text in distinct.items() if key)
            index = LexicalIndex([passage.text for passage in passages]) if body.order == "bm25" and passages else None
        places: list[int] = []
        if index is not None and body.order == "bm25":
            places = index.search(body.query, body.k)
        if body.passages is not None or body.order == "given":
            known = set(places)
            places += [place for place in range(len(passages)) if place not in known]
        return [passages[place] for place in places[: body.k]]

    async def _sentences(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        body = validate(SentencesRequest, payload)
        query = read_query(body.query)
        check_characters((query, *body.passages), self._config.limits)
        most = max(1, self._config.limits.documents // max(1, len(body.passages)))
        found = []
        for text in body.passages:
            # One passage after the other, so that nothing goes on for long after the client has gone.
            quotes = await self._in_thread(find_quotes, [Document(text)])
            found.append(quotes[:most])
        pairs = [(query, quote.passage) for quotes in found for quote in quotes]
        scored = await self._scoring.run(Call(model=body.model, pairs=pairs, render=lambda scored: scored))
        best = choose_statements(found, scored.scores)
        return {"spans": [None if quote is None else [quote.start, quote.end] for quote in best]}

    async def _in_thread(self, work: Callable[[Argument], Result], argument: Argument) -> Result:
        """Do work on a thread of the page; if cancelled, end only once the thread has ended."""
        future = self._executor.submit(work, argument)
        waiting = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waiting)
        finally:
            if not future.cancel():
                await asyncio.wait({waiting})


def _file(package: str, name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    content = files(package).joinpath(name).read_bytes()

    async def endpoint(_: Request) -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return endpoint


def cut_into_passages(paths: Sequence[str]) -> tuple[tuple[PagePassage, ...], list[str]]:
    """Read files and folders and cut them into passages.

    Args:
        paths: Files and folders.

    Returns:
        The passages, and a message for each file that cannot be read.

    Raises:
        InvalidInputError: If a path does not exist, or nothing can be read.
        MissingExtraError: If the `rag` extra is not installed.
    """
    from langchain_crossrerank.indexing import find_files, load_documents, split_documents

    passages: list[PagePassage] = []
    failures: list[str] = []
    for file in find_files(paths):
        try:
            chunks = split_documents(load_documents(file))
        except IndexingError as err:
            failures.append(str(err))
            continue
        passages += [PagePassage(chunk.page_content, describe_source(chunk), file.name) for chunk in chunks]
    if not passages:
        reasons = " ".join(failures) or f"{shorten(list(paths))}: nothing was found."
        raise InvalidInputError(f"no text can be read; name other files. {reasons}")
    return tuple(passages), failures
