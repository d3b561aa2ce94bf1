"""Draws a report's chart with matplotlib, without touching its global state."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from langchain_crossrerank.evaluation.display.plain import clip, cut_words
from langchain_crossrerank.evaluation.display.reports import (
    COLOURS,
    Chart,
    Differences,
    QueryDifference,
    Ribbons,
    Stages,
    Tradeoff,
)
from langchain_crossrerank.extras import check_extra

UP, DOWN, FLAT = COLOURS["up"], COLOURS["down"], COLOURS["flat"]

_NAMED_BARS = 40
"""Queries up to which each bar has its query next to it; beyond, only those that moved most have."""

_EXTREMES = 5
_LABEL = 48


def draw(chart: Chart) -> Any:
    """Draw a chart as a matplotlib figure.

    Raises:
        MissingExtraError: If the `eval` extra is not installed.
    """
    if isinstance(chart, Ribbons):
        return _draw_ribbons(chart)
    if isinstance(chart, Differences):
        return _draw_named_bars(chart) if len(chart.queries) <= _NAMED_BARS else _draw_many_bars(chart)
    return _draw_tradeoff(chart) if isinstance(chart, Tradeoff) else _draw_stages(chart)


def _draw_ribbons(chart: Ribbons) -> Any:
    """Draw places in the first stage on the left and after reranking on the right; what was dropped has its name left.

    The names of kept documents are next to their new places.
    """
    axes = _axes((9, 0.32 * max(6, len(chart.passages)) + 1))
    for passage in sorted(chart.passages, key=lambda passage: passage.before):
        name = cut_words(passage.own_text, _LABEL)
        if passage.kept:
            colour = COLOURS[passage.kind]
            axes.plot([0, 1], [passage.before, passage.after], "-o", color=colour)
            _write(axes, name, (1, passage.after), "left")
        else:
            axes.plot([0], [passage.before], "o", color=FLAT, alpha=0.5)
            _write(axes, name, (0, passage.before), "right", color=FLAT)
    axes.set(xlim=(-1.5, 2.5), xticks=[0, 1], xticklabels=["first stage", "reranked"], ylabel="rank")
    axes.invert_yaxis()
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_title(clip(chart.query, 80), loc="left", parse_math=False)
    return axes.figure


def _write(axes: Any, text: str, place: tuple[float, float], side: str, *, color: str | None = None) -> None:
    offset, align = (8, "left") if side == "left" else (-8, "right")
    more = {} if color is None else {"color": color}
    axes.annotate(
        text,
        place,
        xytext=(offset, 0),
        textcoords="offset points",
        ha=align,
        va="center",
        fontsize=8,
        parse_math=False,
        **more,
    )


def _draw_named_bars(chart: Differences) -> Any:
    """Draw a horizontal bar for each query, named by the query."""
    axes = _axes((8, 0.32 * max(3, len(chart.queries)) + 1.1))
    places = range(len(chart.queries))
    values = [query.difference for query in chart.queries]
    axes.barh(places, values, color=_colours(chart.queries), height=0.75)
    axes.axvline(0, color=FLAT, linewidth=0.8)
    axes.set_yticks(places, [_two_lines(query.text) for query in chart.queries], fontsize=7.5, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlabel(clip(chart.measure, 60), parse_math=False)
    axes.set_title(clip(chart.title, 90), loc="left", parse_math=False)
    return axes.figure


def _draw_many_bars(chart: Differences) -> Any:
    """Draw a vertical bar for each query, and list those that moved most in the corners that falling bars leave."""
    axes = _axes((9, 4.2))
    places = range(1, len(chart.queries) + 1)
    axes.bar(places, [query.difference for query in chart.queries], color=_colours(chart.queries), width=0.9)
    axes.axhline(0, color=FLAT, linewidth=0.8)
    axes.set_xlabel("queries, by difference")
    axes.set_ylabel(clip(chart.measure, 60), parse_math=False)
    axes.set_title(clip(chart.title, 90), loc="left", parse_math=False)
    gained = [query for query in chart.queries if query.kind == "up"][:_EXTREMES]
    lost = [query for query in chart.queries if query.kind == "down"][: -_EXTREMES - 1 : -1]
    corners = ((gained, UP, 0.99, 0.97, "right", "top"), (lost, DOWN, 0.01, 0.03, "left", "bottom"))
    for queries, colour, x, y, horizontal, vertical in corners:
        lines = [f"{query.difference:+.3f}  {cut_words(query.text, 64)}" for query in queries]
        if lines:
            axes.text(
                *(x, y, "\n".join(lines)),
                transform=axes.transAxes,
                ha=horizontal,
                va=vertical,
                fontsize=8,
                color=colour,
                parse_math=False,
            )
    return axes.figure


def _two_lines(text: str) -> str:
    """Break a text into two lines of a label."""
    return "\n".join(textwrap.wrap(cut_words(text, 2 * _LABEL), _LABEL + 4, max_lines=2, placeholder=" ..."))


def _colours(queries: Sequence[QueryDifference]) -> list[str]:
    return [COLOURS[query.kind] for query in queries]


def _draw_stages(chart: Stages) -> Any:
    """Draw the stages' medians, in milliseconds, as one stacked bar."""
    axes = _axes((8, 2.2))
    left = 0.0
    for name, median in chart.stages:
        axes.barh([""], [median], left=left, label=f"{clip(name, 40)} {median:.0f} ms")
        left += median
    axes.set(xlabel="milliseconds (medians)")
    axes.figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return axes.figure


def _draw_tradeoff(chart: Tradeoff) -> Any:
    """Draw quality against the rerank's median milliseconds."""
    axes = _axes((8, 4))
    axes.plot([p.milliseconds for p in chart.points], [p.quality for p in chart.points], "-o", color=UP)
    for point in chart.points:
        axes.annotate(
            clip(point.label, 40),
            (point.milliseconds, point.quality),
            xytext=(6, -12),
            textcoords="offset points",
            parse_math=False,
        )
    axes.axhline(chart.baseline, color=FLAT, linestyle="--", label="without reranking")
    axes.set_xlabel("rerank, median milliseconds")
    axes.set_ylabel(clip(chart.measure, 60), parse_math=False)
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
