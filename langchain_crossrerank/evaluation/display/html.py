"""Lays a report out as HTML: a fragment for a notebook, or a page of its own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_crossrerank.evaluation.display.plain import cut_words
from langchain_crossrerank.evaluation.display.reports import (
    Chart,
    Differences,
    Listed,
    Passage,
    Point,
    Report,
    Ribbons,
    Stages,
    Tradeoff,
)
from langchain_crossrerank.extras import missing_modules
from langchain_crossrerank.pages import render, render_page

_IN_NOTEBOOK = 20
"""Candidates that a notebook shows of each list; a page shows all."""

_LISTED_QUERIES = 100
"""Queries of a page that open their lists, of the largest gains and of the largest losses each."""

_PREVIEW = 220
"""Characters of a passage that is not opened."""

_FULL_LINE = 50
"""Characters of a line from which on its break may be one of layout."""

_LEAST_BAR = 2.0
"""Per cent of a bar's width that the lowest score still has."""


def can_show_html() -> bool:
    """Whether the template engine is installed."""
    return not missing_modules("eval", ("jinja2",))


def report_html(report: Report) -> str:
    """Lay a report out for a notebook; markup in its texts is shown and not obeyed."""
    return render("fragment.html", report=report, view=_view(report))


def report_page(reports: Sequence[Report], notes: Sequence[str] = ()) -> str:
    """Lay reports out as one page that fetches nothing; markup in their texts is shown and not obeyed.

    Args:
        reports: The reports, in their order on the page.
        notes: What else to say below the first.
    """
    first = reports[0]
    return render_page(
        "report.html",
        title=f"{first.heading or first.caption} - crossrerank {first.kind}",
        script="report.js" if any(isinstance(report.chart, Ribbons) for report in reports) else None,
        sections=[(report, _view(report, part=part)) for part, report in enumerate(reports, start=1)],
        notes=notes,
    )


def _view(report: Report, *, part: int | None = None) -> dict[str, Any]:
    """Compute what the templates show of a report: heading and lead, and the chart's measures.

    Args:
        report: The report.
        part: Which part of a page it is, from 1, so that names are unique on it; `None` in a notebook.
    """
    heading, lead = report.heading or report.caption, ""
    if isinstance(report.chart, Differences):
        # A verdict and its figures.
        heading, _, lead = heading.partition(": ")
        lead = lead.replace("->", "\N{RIGHTWARDS ARROW}")
    chart = _chart_view(report.chart, whole=part is not None)
    return {"heading": heading, "lead": lead, "part": part, **chart}


def _chart_view(chart: Chart, *, whole: bool) -> dict[str, Any]:
    """Compute what a chart's template places: shares of the width and the height, in per cent."""
    if isinstance(chart, Ribbons):
        return _ribbons(chart, whole=whole)
    if isinstance(chart, Differences):
        return _differences(chart)
    return _tradeoff(chart) if isinstance(chart, Tradeoff) else _stages(chart)


@dataclass(frozen=True)
class _Row:
    """A passage in the reranked list, with its bar's width in per cent and three pieces of its text to preview."""

    passage: Passage
    bar: float
    preview: tuple[str, str, str]
    whole: tuple[str, str, str]


def _ribbons(chart: Ribbons, *, whole: bool) -> dict[str, Any]:
    count = len(chart.passages)
    kept = sum(passage.kept for passage in chart.passages)
    shown = count if whole else min(count, max(_IN_NOTEBOOK, kept))
    scores = [passage.score for passage in chart.passages if passage.score is not None]
    low, high = (min(scores), max(scores)) if scores else (0.0, 1.0)
    is_share = low >= 0 and high <= 1
    floor, span = (0.0, 1.0) if is_share else (low, (high - low) or 1.0)
    # The threshold's slider reaches from the lowest score to the highest, and to what is set.
    reach = [low, high, *([] if chart.score_threshold is None else [chart.score_threshold])]
    rows = [
        _Row(
            passage,
            0.0 if passage.score is None else max(_LEAST_BAR, 100 * (passage.score - floor) / span),
            _preview(passage),
            _parts(replace(passage, text=_reflow(passage.text))),
        )
        for passage in chart.passages
    ]
    return {
        "template": "ribbons",
        "chart": chart,
        "rows": rows[:shown],
        "before": sorted(rows, key=lambda row: row.passage.before)[:shown],
        "paths": [row.passage for row in rows if min(row.passage.before, row.passage.after) <= shown],
        "shown": shown,
        "hidden": count - shown,
        "low": min(reach),
        "high": max(reach),
        "has_order": any(passage.uncut for passage in chart.passages),
        "is_share": is_share,
    }


def _parts(passage: Passage) -> tuple[str, str, str]:
    """A passage's text before, in and after the sentence that answers."""
    start, end = passage.answer or (0, 0)
    return passage.text[:start], passage.text[start:end], passage.text[end:]


def _reflow(text: str) -> str:
    """Put a space in place of each line break inside a sentence, as in the text of a PDF; no character moves."""
    lines = text.split("\n")
    flowing = lines[0]
    for line, following in itertools.pairwise(lines):
        continues = (
            len(line) >= _FULL_LINE and not line.rstrip().endswith((".", ":", "!", "?")) and following[:1].islower()
        )
        flowing += (" " if continues else "\n") + following
    return flowing


def _preview(passage: Passage) -> tuple[str, str, str]:
    """The sentence that answers with a little of what surrounds it, or else the start of the passage's own text."""
    before, answer, after = _parts(passage)
    skipped = min(passage.start, len(before))
    before, after = before[skipped:], after[0 if answer else passage.start :]
    before, answer, after = (" ".join(part.split()) for part in (before, answer, after))
    if not answer:
        return cut_words(after, _PREVIEW), "", ""
    words = before.split()
    head = " ".join(words[-4:])
    head = f"... {head} " if len(words) > 4 else f"{head} " if head else ""
    return head, answer, f" {cut_words(after, max(40, _PREVIEW - len(answer)))}" if after else ""


def _differences(chart: Differences) -> dict[str, Any]:
    count = len(chart.queries)
    high = max([0.0, *(query.difference for query in chart.queries)])
    low = min([0.0, *(query.difference for query in chart.queries)])
    span = (high - low) or 1.0
    bars = [
        {
            "query": query,
            "top": 100 * (high - max(query.difference, 0)) / span,
            "height": max(0.6, 100 * abs(query.difference) / span),
            "opens": place < _LISTED_QUERIES or place >= count - _LISTED_QUERIES,
            "before": _previews(query.before),
            "after": _previews(query.after),
        }
        for place, query in enumerate(chart.queries)
    ]
    kinds = [query.kind for query in chart.queries]
    return {
        "template": "differences",
        "chart": chart,
        "bars": bars,
        "high": high,
        "low": low,
        "zero": 100 * high / span,
        "counts": {"up": kinds.count("up"), "down": kinds.count("down"), "": count},
    }


def _previews(documents: Sequence[Listed]) -> list[tuple[Listed, str]]:
    """Documents with the start of each to preview."""
    return [(replace(listed, text=_reflow(listed.text)), cut_words(listed.text, _PREVIEW)) for listed in documents]


def _tradeoff(chart: Tradeoff) -> dict[str, Any]:
    qualities = [chart.baseline, *(point.quality for point in chart.points)]
    low, high = min(qualities), max(qualities)
    pad = 0.12 * ((high - low) or 0.1)
    low, high = low - pad, high + 2 * pad
    slowest = max([point.milliseconds for point in chart.points], default=0.0) or 1.0

    def place(point: Point) -> tuple[float, float]:
        return 96 * point.milliseconds / slowest, 100 * (high - point.quality) / (high - low)

    points = [(point, *place(point)) for point in chart.points]
    return {
        "template": "tradeoff",
        "chart": chart,
        "points": points,
        "line": " ".join(f"{x:.2f},{y:.2f}" for _, x, y in points),
        "baseline": 100 * (high - chart.baseline) / (high - low),
        "y_ticks": [(value, 100 * (high - value) / (high - low)) for value in sorted({min(qualities), max(qualities)})],
        "x_ticks": [(0.0, 0.0), (slowest / 2, 48.0), (slowest, 96.0)],
    }


def _stages(chart: Stages) -> dict[str, Any]:
    total = sum(milliseconds for _, milliseconds in chart.stages) or 1.0
    longest = max((milliseconds for _, milliseconds in chart.growth), default=0.0) or 1.0
    return {
        "template": "stages",
        "chart": chart,
        "total": total,
        "stages": [(name, milliseconds, 100 * milliseconds / total) for name, milliseconds in chart.stages],
        "growth": [(k, milliseconds, 100 * milliseconds / longest) for k, milliseconds in chart.growth],
    }
