"""Charts of results, drawn by matplotlib from plain figures, without touching its global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from langchain_crossrerank.evaluation.display import COLOURS, clip
from langchain_crossrerank.extras import check_extra

UP, DOWN, FLAT = COLOURS["up"], COLOURS["down"], COLOURS["flat"]


def rank_chart(moves: Sequence[tuple[str, int, int | None]], title: str) -> Any:
    """Draw rank moves as a bump chart: places in the first stage on the left, after reranking on the right.

    Args:
        moves: For each document its text, its place in the first stage and its place after reranking, `None` if it
            was not kept.
        title: What is searched for.
    """
    axes = _axes((8, 0.32 * max(6, len(moves)) + 1))
    for text, before, after in moves:
        if after is None:
            axes.plot([0], [before], "o", color=FLAT, alpha=0.5)
            continue
        colour = FLAT if after == before else UP if after < before else DOWN
        axes.plot([0, 1], [before, after], "-o", color=colour)
        axes.annotate(
            clip(text, 42), (1, after), xytext=(8, 0), textcoords="offset points", va="center", parse_math=False
        )
    axes.set(xlim=(-0.1, 2.4), xticks=[0, 1], xticklabels=["first stage", "reranked"], ylabel="rank")
    axes.invert_yaxis()
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_title(clip(title, 70), loc="left", parse_math=False)
    return axes.figure


def difference_chart(differences: Sequence[float], label: str, title: str) -> Any:
    """Draw one bar for each query's difference, largest gain first.

    Args:
        differences: One for each query.
        label: What the bars measure.
        title: The chart's title.
    """
    falling = sorted(differences, reverse=True)
    axes = _axes((8, 3.5))
    colours = [UP if value > 0 else DOWN if value < 0 else FLAT for value in falling]
    axes.bar(range(1, len(falling) + 1), falling, color=colours, width=0.9)
    axes.axhline(0, color=FLAT, linewidth=0.8)
    axes.set_xlabel("queries, by difference")
    axes.set_ylabel(clip(label, 60), parse_math=False)
    axes.set_title(clip(title, 90), loc="left", parse_math=False)
    return axes.figure


def stage_chart(milliseconds: Mapping[str, float]) -> Any:
    """Draw the stages' medians, in milliseconds, as one stacked bar."""
    axes = _axes((8, 2.2))
    left = 0.0
    for name, median in milliseconds.items():
        axes.barh([""], [median], left=left, label=f"{clip(name, 40)} {median:.0f} ms")
        left += median
    axes.set(xlabel="milliseconds (medians)")
    axes.figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return axes.figure


def tradeoff_chart(points: Sequence[tuple[str, float, float]], measure: str, baseline: float) -> Any:
    """Draw quality against the rerank's median milliseconds.

    Args:
        points: For each number of candidates its label, milliseconds and quality.
        measure: What quality is measured by.
        baseline: Quality without reranking.
    """
    axes = _axes((8, 4))
    axes.plot([time for _, time, _ in points], [quality for _, _, quality in points], "-o", color=UP)
    for label, time, quality in points:
        axes.annotate(clip(label, 40), (time, quality), xytext=(6, -12), textcoords="offset points", parse_math=False)
    axes.axhline(baseline, color=FLAT, linestyle="--", label="without reranking")
    axes.set_xlabel("rerank, median milliseconds")
    axes.set_ylabel(clip(measure, 60), parse_math=False)
    axes.margins(x=0.12, y=0.15)
    axes.legend(frameon=False)
    return axes.figure


def _axes(size: tuple[float, float]) -> Any:
    """Create a figure outside pyplot, and return its axes."""
    check_extra("eval", needed_for="plots")
    from matplotlib.figure import Figure

    class NotebookFigure(Figure):
        def _repr_png_(self) -> bytes:
            picture = BytesIO()
            self.savefig(picture, format="png")
            return picture.getvalue()

    axes = NotebookFigure(figsize=size, layout="constrained").subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return axes
