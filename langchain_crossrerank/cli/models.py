"""The commands that work on model files: export."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from langchain_crossrerank.cli.output import say


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
