"""The command that serves agents: mcp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from langchain_crossrerank.cli.options import (
    AllFiles,
    Backend,
    Embeddings,
    FileName,
    K,
    Model,
    Offline,
    Persist,
    Precision,
    Subfolder,
    finite_number,
    given,
)
from langchain_crossrerank.cli.output import note
from langchain_crossrerank.cli.stages import Stages
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.extras import check_extra

if TYPE_CHECKING:
    from mcp.server.fastmcp import FastMCP
    from starlette.applications import Starlette

_HOST = "127.0.0.1"


def mcp_command(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILE...", help="Files and folders that agents may search.")
    ] = None,
    *,
    http: Annotated[
        bool,
        typer.Option(
            "--http",
            help="Serve streamable HTTP on this machine instead of standard input. If CROSSRERANK_API_KEY is set, "
            "hosts must send one of its keys as a bearer token.",
        ),
    ] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="With --http: port to listen on.")] = 8765,
    min_probability: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            parser=finite_number,
            help="Leave out passages that answer the query with a lower probability; 0 leaves nothing out. The default "
            "was measured for the bundled model; for others nothing is left out.",
        ),
    ] = None,
    model: Model = None,
    embeddings: Embeddings = None,
    k: K = 20,
    persist: Persist = None,
    all_files: AllFiles = False,
    offline: Offline = False,
    backend: Backend = None,
    precision: Precision = None,
    subfolder: Subfolder = None,
    file_name: FileName = None,
) -> None:
    """Serve agents over the Model Context Protocol: rerank passages and, with files, search in them."""
    check_extra("mcp", needed_for="the MCP server")
    from langchain_crossrerank.agents.mcp_server import create_mcp_server
    from langchain_crossrerank.agents.thresholds import MEASURED, check_threshold
    from langchain_crossrerank.cross_encoders.settings import is_url
    from langchain_crossrerank.reranker import CrossEncoderReranker
    from langchain_crossrerank.server.config import check_keys, keys_from_environment, upstream_key

    if min_probability is not None:
        check_threshold(**{"--min-probability": min_probability})
    if not files and (persist or all_files):
        raise InvalidInputError("--persist and --all are for searching; name files.")
    loading = given(backend=backend, precision=precision, subfolder=subfolder, file_name=file_name)
    api_keys = keys_from_environment() if http else ()
    check_keys(api_keys)
    if http and is_url(model):
        loading["api_key"] = upstream_key()
    stages = Stages(model, embeddings, offline, k, None, loading)
    retriever = stages.over_files(files, persist=persist, all_files=all_files)[0] if files else None
    reranker = CrossEncoderReranker(model=stages.load_model())
    if min_probability is None and reranker.model_name not in MEASURED:
        note(f"no threshold was measured for {reranker.model_name!r}: passages are returned whatever their score")
        min_probability = 0.0
    server = create_mcp_server(
        reranker,
        retriever,
        min_probability="measured" if min_probability is None else min_probability,
        host=_HOST,
        port=port,
        log_level="WARNING",
    )
    if http:
        import uvicorn

        access = "for those with a key" if api_keys else "for all users of this machine"
        note(f"listening on http://{_HOST}:{port}/mcp, {access}")
        uvicorn.run(http_app(server, api_keys), host=_HOST, port=port, log_level="warning")
    else:
        server.run("stdio")


def http_app(server: FastMCP, api_keys: Sequence[str]) -> Starlette:
    """Return the application that serves streamable HTTP.

    Args:
        server: The server.
        api_keys: Keys of which a host must send one; empty for a server that every user of the machine may use.
    """
    from starlette.responses import JSONResponse

    from langchain_crossrerank.server.access import Access
    from langchain_crossrerank.server.problems import STATUS

    app = server.streamable_http_app()
    app.add_middleware(
        Access,
        api_keys=api_keys,
        # The protocol's own application checks them.
        allowed_hosts=None,
        refuse=lambda _, problem: JSONResponse({"error": str(problem)}, STATUS[problem.kind]),
    )
    return app
