"""The command that serves agents: mcp."""

from __future__ import annotations

from typing import Annotated

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

_HOST = "127.0.0.1"


def mcp_command(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILE...", help="Files and folders that agents may search.")
    ] = None,
    *,
    http: Annotated[
        bool, typer.Option("--http", help="Serve streamable HTTP on this machine instead of standard input.")
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
    from langchain_crossrerank.reranker import CrossEncoderReranker

    if min_probability is not None:
        check_threshold(**{"--min-probability": min_probability})
    if not files and (persist or all_files):
        raise InvalidInputError("--persist and --all are for searching; name files.")
    loading = given(backend=backend, precision=precision, subfolder=subfolder, file_name=file_name)
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
        note(f"listening on http://{_HOST}:{port}/mcp")
        server.run("streamable-http")
    else:
        server.run("stdio")
