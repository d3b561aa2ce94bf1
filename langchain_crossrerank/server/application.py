"""The application: routes, access, and the path of a request from its body to its answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from langchain_crossrerank.errors import CrossRerankError
from langchain_crossrerank.server import metrics
from langchain_crossrerank.server.access import Access, route_path
from langchain_crossrerank.server.bodies import beside_the_loop, check_counts, decode, read_body
from langchain_crossrerank.server.config import ServerConfig
from langchain_crossrerank.server.dialects import cohere, tei, vllm
from langchain_crossrerank.server.dialects.base import Call, Dialect
from langchain_crossrerank.server.models import ServedModels
from langchain_crossrerank.server.openapi import openapi_document
from langchain_crossrerank.server.page import Page
from langchain_crossrerank.server.problems import Problem
from langchain_crossrerank.server.scoring import ClientGoneError, Queue, Scoring, while_connected

CLIENT_GONE = 499
"""The status, never sent, of a request whose client went away, as in nginx's logs."""

Choose = Callable[[Mapping[str, Any]], Dialect[Call]]
"""Chooses the dialect of a request by its body."""

Content = TypeVar("Content")

_logger = logging.getLogger(__name__)


def _either_error(problem: Problem, status: int) -> dict[str, Any]:
    return {**cohere.V1.error_body(problem, status), **tei.DIALECT.error_body(problem, status)}


UNDECIDED = Dialect("unknown", cohere.V1.read, _either_error)
"""The dialect of `/rerank` until the body is read: clients of both Cohere and TEI understand its errors."""


_FAILURE = Problem("failed", "the server failed; its log has the details.")

_PAGE: Dialect[Mapping[str, Any]] = Dialect("page", lambda payload: payload, _either_error)


def _by_body(payload: Mapping[str, Any]) -> Dialect[Call]:
    return tei.DIALECT if "texts" in payload else cohere.V1


_DIALECTS: dict[str, tuple[Dialect[Call], Choose]] = {
    "/rerank": (UNDECIDED, _by_body),
    "/v1/rerank": (cohere.V1, lambda _: cohere.V1),
    "/v2/rerank": (cohere.V2, lambda _: cohere.V2),
    "/score": (vllm.DIALECT, lambda _: vllm.DIALECT),
    "/v1/score": (vllm.DIALECT, lambda _: vllm.DIALECT),
}


def create_app(config: ServerConfig, *, on_load_failure: Callable[[Exception], None] | None = None) -> Starlette:
    """Create the application, which loads its models when it starts up and answers 503 until they are ready.

    Args:
        config: Models, keys and limits.
        on_load_failure: Called if a model cannot be loaded, so that the server can be stopped. Without it the server
            stays up and answers 503.

    Raises:
        InvalidInputError: If a setting cannot be used.
    """
    return _Server(config, on_load_failure).app()


class _Server:
    def __init__(self, config: ServerConfig, on_load_failure: Callable[[Exception], None] | None) -> None:
        self._config = config
        self._on_load_failure = on_load_failure
        self._models = ServedModels(config)
        self._metrics = metrics.Metrics()
        self._scoring = Scoring(self._models, config.limits, self._metrics)
        self._queue = Queue(config.limits.queue)
        self._page = Page(config, self._models, self._scoring, self._answer_page)
        self._openapi = openapi_document(needs_key=bool(config.api_keys))

    def app(self) -> Starlette:
        routes = [
            *(Route(path, self._answer, methods=["POST"]) for path in _DIALECTS),
            Route("/v1/models", self._list_models),
            Route("/health", self._health),
            Route("/metrics", self._show_metrics),
            Route("/openapi.json", self._show_openapi),
            *self._page.routes(),
        ]
        return Starlette(
            routes=routes,
            middleware=[
                Middleware(
                    Access, api_keys=self._config.api_keys, allowed_hosts=self._config.allowed_hosts, refuse=_refuse
                )
            ],
            exception_handlers={404: _not_found, 405: _wrong_method, Exception: _failed},
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        loading = asyncio.create_task(self._load())
        try:
            yield
        finally:
            loading.cancel()

    async def _load(self) -> None:
        try:
            await self._models.load()
        except Exception as err:
            # The errors of this package say what to do; of any other, the place where it was raised is needed, too.
            _logger.error("A model cannot be loaded: %s", err, exc_info=not isinstance(err, CrossRerankError))
            if self._on_load_failure is not None:
                self._on_load_failure(err)
            return
        self._metrics.ready()

    async def _answer(self, request: Request) -> Response:
        """Answer a request to score or rank."""
        dialect, choose = _DIALECTS[route_path(request.scope)]
        return await self._answering(request, dialect, choose, lambda call: self._score(request, call))

    async def _score(self, request: Request, call: Call) -> Any:
        return call.render(await while_connected(request, self._scoring.run(call)))

    async def _answer_page(self, request: Request, answer: Callable[[Mapping[str, Any]], Awaitable[Any]]) -> Response:
        return await self._answering(request, _PAGE, lambda _: _PAGE, answer)

    async def _answering(
        self,
        request: Request,
        dialect: Dialect[Content],
        choose: Callable[[Mapping[str, Any]], Dialect[Content]],
        answer: Callable[[Content], Awaitable[Any]],
    ) -> Response:
        """Take a place in the queue, read the body, have it answered, and count it."""
        started = time.monotonic()
        response: Response
        try:
            with self._queue.place():
                self._metrics.in_flight(self._queue.length)
                body = await read_body(request, self._config.limits)
                payload = await beside_the_loop(body, decode, body)
                dialect = choose(payload)
                check_counts(payload, self._config.limits)
                content = await beside_the_loop(body, dialect.read, payload)
                response = _as_json(await answer(content))
        except Problem as problem:
            response = error_response(dialect, problem)
        except ClientGoneError:
            response = Response(status_code=CLIENT_GONE)
        except Exception:
            # Answered by `_failed`.
            self._metrics.answered(dialect.name, dialect.status(_FAILURE), time.monotonic() - started)
            raise
        finally:
            self._metrics.in_flight(self._queue.length)
        self._metrics.answered(dialect.name, response.status_code, time.monotonic() - started)
        return response

    async def _list_models(self, _: Request) -> Response:
        models = [
            {
                "id": model.name,
                "object": "model",
                "created": model.created,
                "owned_by": "crossrerank",
                "max_model_len": None if model.encoder is None else model.encoder.max_length,
            }
            for model in self._models.all
        ]
        return JSONResponse({"object": "list", "data": models})

    async def _health(self, _: Request) -> Response:
        if self._models.is_ready:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "loading"}, 503, headers={"retry-after": "1"})

    async def _show_metrics(self, _: Request) -> Response:
        return Response(self._metrics.text(), media_type=metrics.CONTENT_TYPE)

    async def _show_openapi(self, _: Request) -> Response:
        return JSONResponse(self._openapi)


def _as_json(answer: Any) -> Response:
    try:
        return JSONResponse(answer)
    except ValueError:
        # Scores are finite, so it is a document that is sent back: 1e999 is read as infinity.
        raise Problem(
            "invalid", "a document contains a number too large for JSON; send it as text, or without return_documents."
        ) from None


def _refuse(request: Request, problem: Problem) -> Response:
    return error_response(_dialect_at(request.scope), problem)


def error_response(dialect: Dialect[Any], problem: Problem) -> Response:
    """Return the response that reports a problem in a dialect."""
    status = dialect.status(problem)
    headers = {} if problem.retry_after is None else {"retry-after": str(problem.retry_after)}
    if problem.kind == "unauthorized":
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(dialect.error_body(problem, status), status, headers=headers)


def _dialect_at(scope: Scope) -> Dialect[Call]:
    path = route_path(scope)
    return _DIALECTS[path][0] if path in _DIALECTS else UNDECIDED


async def _not_found(request: Request, _: Exception) -> Response:
    path = route_path(request.scope)[:80]
    problem = Problem("not_found", f"there is nothing at {path!r}; see /openapi.json for the routes.")
    return error_response(_dialect_at(request.scope), problem)


async def _wrong_method(request: Request, err: Exception) -> Response:
    problem = Problem(
        "wrong_method", f"{route_path(request.scope)!r} does not take {request.method}; see /openapi.json."
    )
    response = error_response(_dialect_at(request.scope), problem)
    # Which methods the route takes.
    response.headers.update(getattr(err, "headers", None) or {})
    return response


async def _failed(request: Request, _: Exception) -> Response:
    return error_response(_dialect_at(request.scope), _FAILURE)
