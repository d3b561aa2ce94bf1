"""The commands that start the rerank server: serve and ui."""

from __future__ import annotations

import secrets
import webbrowser
from typing import Annotated

import typer

from langchain_crossrerank.checks import check_whole_numbers
from langchain_crossrerank.cli.options import Backend, FileName, Files, Precision, Subfolder, given
from langchain_crossrerank.cli.output import note
from langchain_crossrerank.extras import check_extra

_ACCESS = "Access"
_LIMITS = "Limits"

Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")]


def serve_command(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL...", help='"bundled", folders, hub names; NAME=MODEL chooses the name that clients use.'
        ),
    ] = None,
    *,
    host: Annotated[str, typer.Option(metavar="HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Port = 8000,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of processes. They share the weights in memory; each needs its own copy of everything "
            "else, and the cores are divided among them.",
        ),
    ] = 1,
    cache: Annotated[
        str | None, typer.Option(metavar="FILE", help='Keep scores in this SQLite file, or in "memory".')
    ] = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="A key that clients must send; may be repeated. Other users of this machine see it in the list of "
            "processes, so prefer CROSSRERANK_API_KEY.",
            rich_help_panel=_ACCESS,
        ),
    ] = None,
    no_auth: Annotated[
        bool,
        typer.Option("--no-auth", help="Let other machines use the server without a key.", rich_help_panel=_ACCESS),
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name by which clients may reach the server, such as that of a proxy; may be repeated. On the "
            "loopback address, and wherever a name is given, other names are refused.",
            rich_help_panel=_ACCESS,
        ),
    ] = None,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="Log each request.", rich_help_panel=_ACCESS)
    ] = False,
    max_queue: Annotated[
        int | None, typer.Option(help="Maximum requests in progress; more get 429.", rich_help_panel=_LIMITS)
    ] = None,
    max_documents: Annotated[
        int | None, typer.Option(help="Maximum documents in a request.", rich_help_panel=_LIMITS)
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Maximum tokens in a request.", rich_help_panel=_LIMITS)
    ] = None,
    max_body_bytes: Annotated[
        int | None, typer.Option(help="Maximum bytes in the body of a request.", rich_help_panel=_LIMITS)
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Maximum tokens of a pair.")] = None,
    backend: Backend = None,
    precision: Precision = None,
    subfolder: Subfolder = None,
    file_name: FileName = None,
) -> None:
    """Serve models over HTTP, to the clients of Cohere, Jina, Infinity, vLLM and Text Embeddings Inference."""
    check_extra("server", needed_for="the rerank server")
    from langchain_crossrerank.server.config import (
        Limits,
        ServerConfig,
        check_exposure,
        keys_from_environment,
        local_hosts,
        named_models,
    )
    from langchain_crossrerank.server.running import listen, serve

    check_whole_numbers(**{"--workers": (workers, 1)})
    api_keys = (*(api_key or ()), *keys_from_environment())
    limits = given(documents=max_documents, tokens=max_tokens, body_bytes=max_body_bytes, queue=max_queue)
    config = ServerConfig(
        models=named_models(models or []),
        loading=given(
            backend=backend, precision=precision, subfolder=subfolder, file_name=file_name, max_length=max_length
        ),
        api_keys=api_keys,
        cache=cache,
        limits=Limits(**limits),
        allowed_hosts=local_hosts(host, allow_host or ()),
    )
    check_exposure(host, api_keys, no_auth=no_auth)
    listener = listen(host, port)
    note(f"serving {', '.join(config.models)} on {_url(host, listener.getsockname()[1])}, with a page to try it")
    serve(config, listener, workers=workers, access_log=access_log)


def ui_command(
    files: Files,
    *,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="MODEL", help='Cross-encoder; may be repeated.  [dim]default: "bundled"[/dim]'),
    ] = None,
    port: Port = 8000,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Index files and open a page that shows how a cross-encoder reorders their passages.

    The first stage is BM25. Everything stays on this machine, and the page's address contains a key that other users of
    the machine do not have.
    """
    check_extra("server", needed_for="the page")
    from langchain_crossrerank.server.config import ServerConfig, keys_from_environment, local_hosts, named_models
    from langchain_crossrerank.server.page import cut_into_passages
    from langchain_crossrerank.server.running import listen, serve

    passages, failures = cut_into_passages(files)
    for failure in failures:
        note(f"skipped: {failure}")
    key = secrets.token_urlsafe(24)
    config = ServerConfig(
        models=named_models(models or ["bundled"]),
        api_keys=(key, *keys_from_environment()),
        passages=passages,
        allowed_hosts=local_hosts("127.0.0.1"),
    )
    listener = listen("127.0.0.1", port)
    # A browser sends no fragment; the page's script reads the key from it.
    url = f"{_url('127.0.0.1', listener.getsockname()[1])}/#key={key}"
    note(f"showing {len(passages)} passages on {url}; press Ctrl+C to stop")
    if browser:
        # Connections wait in the socket's queue until the server accepts them.
        webbrowser.open(url)
    serve(config, listener)


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
