"""Makes the reference pages from the code: the API, the command line, metadata keys, errors, models."""

from __future__ import annotations

import ast
import inspect
import re
import typing
import zlib
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import griffe

import langchain_crossrerank
from langchain_crossrerank import errors
from langchain_crossrerank.cli.app import app
from langchain_crossrerank.model_catalogue import HEADINGS, table_notes, table_rows

NAME = "langchain_crossrerank"
PACKAGE = Path(langchain_crossrerank.__file__).parent

API_PAGES = {
    "reranking": (
        "Reranking",
        "The reranker, the two-stage retriever and the RAG chain.",
        ("reranker", "retrievers", "chains", "extractive"),
    ),
    "models": (
        "Models",
        "Loading a cross-encoder, the contract that every backend keeps, wrappers, and embeddings.",
        ("cross_encoders", "embeddings", "verification"),
    ),
    "agents": ("Agents", "Reranking for agents and graphs.", ("agents",)),
    "indexing": ("Indexing", "From files to a vector store.", ("indexing",)),
    "evaluation": (
        "Evaluation",
        "Comparing one query, evaluating many, and measuring time. All results have `to_dict`, `to_text` and "
        "`_repr_html_`; those with figures also have `plot`.",
        ("evaluation",),
    ),
    "training": ("Training", "Fine-tuning a cross-encoder on your own queries.", ("training",)),
    "scale": (
        "Scale",
        "Scoring batches and datasets, and serving on Ray.",
        ("scoring", "ray"),
    ),
    "testing": ("Testing", "Deterministic test doubles that ship with the package.", ("testing",)),
}
"""API pages by file name: title, first sentence, and the modules whose public names they have."""

PUBLIC_MODULES = (
    "agents.pruning",
    "agents.transformers",
    "cross_encoders.wrappers.cascade",
    "cross_encoders.wrappers.pooled",
    "evaluation",
    "indexing",
    "ray",
    "testing",
    "training",
    "verification",
)
"""Modules whose names are public although `langchain_crossrerank` itself does not export them."""


def public_names() -> dict[str, str]:
    """Return the full path of every public object, by the path that its page uses: the module that defines it."""
    found = {}
    for module, names in langchain_crossrerank._PUBLIC.items():
        for name in names:
            found[f"{NAME}.{name}"] = _definition(f"{NAME}.{module}", name)
    for module in PUBLIC_MODULES:
        path = f"{NAME}.{module}"
        for name in _names_of(path):
            found.setdefault(f"{path}.{name}", _definition(path, name))
    return found


def _names_of(path: str) -> list[str]:
    module = import_module(path)
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        # Pydantic adds parametrised bases, whose names are not identifiers.
        if not name.startswith("_") and name.isidentifier() and getattr(value, "__module__", None) == path
    ]


def _definition(module: str, name: str) -> str:
    value = getattr(import_module(module), name)
    home = getattr(value, "__module__", None)
    return f"{home if isinstance(home, str) and home.startswith(NAME) else module}.{name}"


def make_pages() -> dict[str, str]:
    """Return the text of every reference page made from the code, by file name.

    Raises:
        SystemExit: If a public name lacks documentation.
    """
    check_docstrings()
    pages = {f"{slug}.md": text for slug, text in _api_pages()}
    pages["command-line.md"] = command_line_page()
    pages["metadata.md"] = metadata_page()
    pages["errors.md"] = errors_page()
    return pages


def _api_pages() -> Iterator[tuple[str, str]]:
    by_page: dict[str, list[str]] = defaultdict(list)
    for path in dict.fromkeys(public_names().values()):
        part = path.split(".")[1]
        if part == "errors":
            continue
        slug = next((slug for slug, (_, _, parts) in API_PAGES.items() if part in parts), part)
        by_page[slug].append(path)
    for order, slug in enumerate([*API_PAGES, *sorted(set(by_page) - set(API_PAGES))], 10):
        title, first, _ = API_PAGES.get(slug, (slug.capitalize(), "", ()))
        if not first:
            first = (import_module(f"{NAME}.{slug}").__doc__ or "").strip().split("\n\n")[0]
        lines = [f"---\norder: {order}\n---\n\n# {title}\n\n{first}\n"]
        lines += [f"::: {path}\n" for path in by_page[slug]]
        yield slug, "\n".join(lines)


def check_docstrings() -> None:
    """Raise `SystemExit` with the list of public objects that lack a docstring or leave out a parameter."""
    package = griffe.load(NAME, search_paths=[str(PACKAGE.parent)], docstring_parser="google")
    faults = [fault for path in dict.fromkeys(public_names().values()) for fault in _faults(package, path)]
    if faults:
        raise SystemExit("Undocumented:\n" + "\n".join(f"  {fault}" for fault in faults))


def _faults(package: Any, path: str) -> Iterator[str]:
    thing = package[path.removeprefix(f"{NAME}.")]
    yield from _faults_of(thing)
    if thing.is_class:
        for name, member in thing.members.items():
            if not name.startswith("_") and not member.is_alias and (member.is_function or member.is_class):
                yield from _faults_of(member)


def _faults_of(thing: Any) -> Iterator[str]:
    if thing.is_function and _described_elsewhere(thing):
        return
    if not thing.has_docstring:
        yield f"{thing.path}: no docstring"
        return
    if not thing.is_function or "property" in thing.labels:
        return
    described = {
        item.name.lstrip("*").partition(" ")[0]
        for section in thing.docstring.parsed
        if section.kind in (griffe.DocstringSectionKind.parameters, griffe.DocstringSectionKind.other_parameters)
        for item in section.value
    }
    wanted = {parameter.name for parameter in thing.parameters if parameter.name not in ("self", "cls")}
    summary = thing.docstring.value
    for name in sorted(wanted - described):
        # A short docstring may name its parameters in a sentence.
        if not re.search(rf"\b{re.escape(name)}\b", summary) and len(wanted) > 1:
            yield f"{thing.path}: parameter {name!r} is not described"


def _described_elsewhere(thing: Any) -> bool:
    """Whether a base class describes the method, or it is the asynchronous twin of one that is described."""
    if not thing.parent.is_class:
        return False
    owner = getattr(import_module(thing.module.path), thing.parent.name)
    names = (thing.name, thing.name.removeprefix("a"))
    in_bases = any(inspect.getdoc(vars(base).get(thing.name)) for base in owner.__mro__[1:])
    return in_bases or (names[0] != names[1] and names[1] in thing.parent.members)


def check_inventory(inventory: Path) -> None:
    """Raise `SystemExit` if a public name has no entry in the site's list of documented objects."""
    body = inventory.read_bytes().split(b"\n", 4)[4]
    documented = {line.split(" ", 1)[0] for line in zlib.decompress(body).decode().splitlines()}
    missing = sorted(name for name, path in public_names().items() if not {name, path} & documented)
    if missing:
        raise SystemExit(f"not on the site: {', '.join(missing)}")


def as_markdown(path: str) -> str:
    """Return the signature and docstring of an object, for the text version of the site."""
    module, _, name = path.rpartition(".")
    value = getattr(import_module(module), name)
    try:
        signature = str(inspect.signature(value))
    except (TypeError, ValueError):
        signature = ""
    doc = inspect.getdoc(value) or ""
    return f"## `{name}{signature}`\n\n{doc}\n"


def command_line_page() -> str:
    """Describe every command, from the program itself."""
    import typer

    root = typer.main.get_command(app)
    lines = [
        "---\norder: 20\n---\n",
        "# Command line\n",
        "Made from the program: `crossrerank COMMAND --help` shows the same. The exit code is 0 on success, 1 on an "
        "error, 2 for a wrong call, 3 for a gain below `--min-ndcg-gain`, 4 if `score` left rows out, and 130 after an "
        "interruption.\n",
        "Control characters and escape sequences in documents, file names and questions never reach your terminal, and "
        "`NO_COLOR` turns colours off.\n",
    ]
    lines += _command(root, "crossrerank")
    return "\n".join(lines)


def _command(command: Any, name: str) -> Iterator[str]:
    commands = getattr(command, "commands", {})
    if commands:
        if name != "crossrerank":
            yield f"## {name}\n\n{_plain(command.help)}\n"
        for key, child in commands.items():
            yield from _command(child, f"{name} {key}")
        return
    yield f"## {name}\n\n{_plain(command.help)}\n"
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    usage = " ".join([name, *(_argument(argument) for argument in arguments), "[OPTIONS]" if options else ""])
    yield f"```text\n{usage.strip()}\n```\n"
    if arguments or options:
        yield "| | | Default |\n|---|---|---|"
        for parameter in [*arguments, *options]:
            yield _row(parameter)
        yield ""
    if command.epilog:
        examples = re.findall(r"\$ (crossrerank .+?)(?:\[/cyan\]|$)", command.epilog, re.MULTILINE)
        yield '```sh title="Examples"\n' + "\n".join(example.strip() for example in examples) + "\n```\n"


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    name = f"{name}..." if parameter.nargs == -1 else name
    return name if parameter.required else f"[{name}]"


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name = f"`{_argument(parameter).strip('[]')}`"
    else:
        spellings = ", ".join(f"`{spelling}`" for spelling in [*parameter.opts, *parameter.secondary_opts])
        choices = typing.get_args(parameter.type_descriptor.annotation)
        literal = typing.get_origin(parameter.type_descriptor.annotation) is typing.Literal
        kind = parameter.metavar or (" \\| ".join(map(str, choices)) if literal else "")
        name = spellings if parameter.is_flag else f"{spellings} {kind}".strip()
    default = parameter.default
    if isinstance(default, list):
        default = ",".join(map(str, default))
    empty = default is None or default is False or default == ""
    text = _plain(parameter.help).replace("|", "\\|")
    text, _, written = text.partition("default: ")
    shown = f"`{default}`" if not empty and not callable(default) else written.rstrip("]) ")
    return f"| {name} | {text.strip(' ([')} | {shown} |"


def _plain(text: str | None) -> str:
    """Remove the markup of rich, and keep words in brackets that are not markup."""
    return re.sub(r"\[/?(?:bold|dim|cyan|green|yellow|red|italic)\]", "", text or "").strip().replace("\b", "")


def model_table() -> str:
    """Return the catalogue of models as a Markdown table with its notes: what `crossrerank models` prints."""
    rows = [HEADINGS, ["---"] * len(HEADINGS), *table_rows()]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in table_notes())])


def metadata_page() -> str:
    """List every metadata key, from the constants and the docstrings below them."""
    lines = [
        "---\norder: 21\n---\n",
        "# Metadata keys\n",
        "Documents that come back are copies of yours with these keys added. Nothing else in a document changes: text, "
        "id, type and the other metadata stay. The constants are in `langchain_crossrerank.metadata`.\n",
        "| Key | Constant | Meaning |\n|---|---|---|",
    ]
    body = ast.parse((PACKAGE / "metadata.py").read_text(encoding="utf-8")).body
    for statement, following in pairwise(body):
        if isinstance(statement, ast.Assign) and isinstance(following, ast.Expr):
            name = ast.unparse(statement.targets[0])
            key, doc = ast.literal_eval(statement.value), ast.literal_eval(following.value)
            meaning = re.sub(r"^Metadata key (?:of|that is) ", "", " ".join(doc.split()))
            lines.append(f"| `{key}` | `{name}` | {meaning[0].upper()}{meaning[1:]} |")
    return "\n".join([*lines, ""])


def errors_page() -> str:
    """Describe every error, with the messages that the code raises it with: each says what to do."""
    messages = _messages()
    tree = re.search(r"```\n(.+?)```", errors.__doc__ or "", re.DOTALL)
    lines = [
        "---\norder: 22\n---\n",
        "# Errors\n",
        "Every error that this package raises on purpose is one of these. Most also have a built-in base, shown in "
        "brackets, so that `except ValueError` and `except TimeoutError` work. A message says what happened, shows the "
        "value, and says what to do. The messages below are read from the code, with `…` for what varies; search for a "
        "few words of yours.\n",
        f"```text\n{tree[1] if tree else ''}```\n",
    ]
    for name in errors.__all__:
        lines.append(f"::: {NAME}.errors.{name}\n")
        if messages[name]:
            lines.append(f'??? note "Messages: causes and remedies ({len(messages[name])})"\n')
            lines += [f"    - {_as_text(message)}" for message in sorted(messages[name])]
            lines.append("")
    return "\n".join(lines)


def _messages() -> dict[str, set[str]]:
    """Return the messages that each error is raised with in the package, with `…` for what varies."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in errors.__all__:
                text = _template(node.args[0]) if node.args else ""
                if len(re.sub(r"[\s…]", "", text)) > 20:
                    found[node.func.id].add(" ".join(text.split()))
    return found


def _template(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_template(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _template(node.left) + _template(node.right)
    return "…"


def _as_text(message: str) -> str:
    """Escape what Markdown would read as markup, outside code spans."""
    parts = re.split(r"(`[^`]*`)", message)
    return "".join(part if part.startswith("`") else re.sub(r"([\\*_<>\[\]])", r"\\\1", part) for part in parts)
