"""The commands that work on model files: verify and export."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from langchain_crossrerank.cli.options import Backend, FileName, Precision, Subfolder, finite_number, given
from langchain_crossrerank.cli.output import say
from langchain_crossrerank.errors import InvalidInputError


def verify_command(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help='"bundled", a folder, a hub name or a server\'s URL.')
    ] = None,
    *,
    goldens: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Expected scores.  [dim]default: golden.json in the model's folder[/dim]"),
    ] = None,
    golden_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Take the expected scores of this model from the file.")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(metavar="X", parser=finite_number, help="Allowed difference of every score.")
    ] = None,
    all_models: Annotated[bool, typer.Option("--all", help="Verify every model that the file has scores for.")] = False,
    backend: Backend = None,
    precision: Precision = None,
    subfolder: Subfolder = None,
    file_name: FileName = None,
) -> int:
    """Check that a model returns the expected scores; exit with 1 if it does not."""
    loading = given(backend=backend, precision=precision, subfolder=subfolder, file_name=file_name)
    if all_models == (model is not None):
        raise InvalidInputError("name a model, or pass --all with --goldens FILE; not both.")
    from langchain_crossrerank.verification import verify, verify_all

    if model is not None:
        results = iter([verify(model, goldens, golden_model=golden_model, tolerance=tolerance, **loading)])
    elif goldens is None or golden_model is not None or tolerance is not None:
        raise InvalidInputError("--all needs --goldens FILE, and takes neither --golden-model nor --tolerance.")
    else:
        results = verify_all(goldens, **loading)
    passed = []
    for result in results:
        say(result.to_text())
        passed.append(result.passed)
    return 0 if passed and all(passed) else 1


def export_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A hub name or a folder.")],
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where to write; must not exist, or be empty.")],
    precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        typer.Option(help="fp32 is exact, fp16 halves the file, int8 is for processors with int8 instructions."),
    ] = "fp32",
) -> None:
    """Export a cross-encoder to a folder that needs no torch."""
    from langchain_crossrerank.extras import check_extra

    check_extra("export", needed_for="exporting a model")
    from langchain_crossrerank.cross_encoders.export import export_onnx

    rows = export_onnx(model, folder, precision=precision)
    lines = [f"{'query':<24}  {'passage':<40}  {'torch':>9}  {'exported':>9}"]
    for row in rows:
        query, passage = row.text_pair
        lines.append(f"{query:<24.24}  {passage:<40.40}  {row.torch:>9.5f}  {row.exported:>9.5f}")
    largest = max(row.difference for row in rows)
    lines.append(f"Wrote {folder}; largest difference from torch {largest:.1e} in logits.")
    say("\n".join(lines))
