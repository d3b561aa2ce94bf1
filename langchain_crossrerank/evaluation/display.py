"""How results are shown: text for terminals, HTML for notebooks, pictures by matplotlib."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Any

from langchain_crossrerank.extras import check_extra

if TYPE_CHECKING:
    from langchain_crossrerank.evaluation.comparison import Comparison
    from langchain_crossrerank.evaluation.evaluating import EvaluationResult
    from langchain_crossrerank.evaluation.profiling import ProfileResult
    from langchain_crossrerank.evaluation.sweeping import SweepResult

# Colours that are legible on white and on dark notebooks; everything else is inherited from the notebook.
_UP, _DOWN, _FLAT = "#2a9d5c", "#d0603f", "#8a8a8a"
_STYLE = (
    "<style>.crossrerank{overflow-x:auto;max-width:100%;font-size:13px;overflow-wrap:anywhere}"
    ".crossrerank table{border-collapse:collapse;table-layout:fixed;width:100%}"
    ".crossrerank th,.crossrerank td{text-align:left;vertical-align:top;padding:4px 8px;"
    "border-bottom:1px solid rgba(128,128,128,.35);color:inherit;background:none}"
    ".crossrerank .n{width:3.5em;text-align:right;font-variant-numeric:tabular-nums}"
    f".crossrerank .up{{color:{_UP}}}.crossrerank .down{{color:{_DOWN}}}.crossrerank .flat{{color:{_FLAT}}}"
    "</style>"
)
_SNIPPET = 160

_NARROWEST = 46
"""Columns that a comparison's heads need."""


def comparison_text(comparison: Comparison, width: int) -> str:
    """Lay both lists of a comparison side by side."""
    after = comparison.reranked
    width = max(width, _NARROWEST)
    shown = max(len(after), min(len(comparison.documents), 5))
    column = (width - 24) // 2
    head = f"{'#':>2}  {'first stage':<{column}}  {'move':>4}  {'score':>6}  {'reranked':<{column}}"
    query = textwrap.wrap(f"Query: {' '.join(comparison.query.split())}", width)
    lines = [*query, "", head.rstrip(), "-" * min(width, len(head))]
    for row in range(shown):
        line = f"{row + 1:>2}  {clip(comparison.documents[row].text, column):<{column}}"
        if row < len(after):
            score = "-" if after[row].score is None else f"{after[row].score:.3f}"
            line += f"  {after[row].move:>4}  {score:>6}  {clip(after[row].text, column)}"
        lines.append(line.rstrip())
    return "\n".join([*lines, "", *textwrap.wrap(_comparison_foot(comparison), width)])


def comparison_html(comparison: Comparison) -> str:
    """Lay both lists of a comparison side by side, for a notebook."""
    after = comparison.reranked
    rows = []
    for row in range(max(len(after), min(len(comparison.documents), 5))):
        first = comparison.documents[row]
        cells = f'<td class="n">{row + 1}</td><td>{escape(clip(first.text, _SNIPPET))}</td>'
        if row < len(after):
            kept = after[row]
            kind = {"+": "up", "-": "down"}.get(kept.move[0], "flat")
            score = "-" if kept.score is None else f"{kept.score:.3f}"
            text = escape(clip(kept.text, _SNIPPET))
            cells += f'<td class="n {kind}">{escape(kept.move)}</td><td class="n">{score}</td><td>{text}</td>'
        else:
            cells += "<td></td><td></td><td></td>"
        rows.append(f"<tr>{cells}</tr>")
    head = '<th class="n">#</th><th>first stage</th><th class="n">move</th><th class="n">score</th><th>reranked</th>'
    foot = escape(_comparison_foot(comparison))
    return _html(f"<b>{escape(comparison.query)}</b>", head, rows, foot)


def plot_comparison(comparison: Comparison) -> Any:
    """Draw rank moves as a bump chart: places in the first stage on the left, after reranking on the right."""
    axes = _axes((8, 0.32 * max(6, len(comparison.documents)) + 1))
    for document in comparison.documents:
        if document.rank is None:
            axes.plot([0], [document.initial_rank], "o", color=_FLAT, alpha=0.5)
            continue
        colour = _FLAT if document.move == "=" else _UP if document.rank < document.initial_rank else _DOWN
        axes.plot([0, 1], [document.initial_rank, document.rank], "-o", color=colour)
        axes.annotate(
            clip(document.text, 42),
            (1, document.rank),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            parse_math=False,
        )
    axes.set(xlim=(-0.1, 2.4), xticks=[0, 1], xticklabels=["first stage", "reranked"], ylabel="rank")
    axes.invert_yaxis()
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_title(clip(comparison.query, 70), loc="left", parse_math=False)
    return axes.figure


def evaluation_text(result: EvaluationResult) -> str:
    """Lay an evaluation out for a terminal."""
    head = (
        f"{'measure':<10} {'before':>7} {'after':>7} {'ceiling':>8} {'difference':>11}  {'95 % interval':<18} {'p':>7}"
    )
    lines = [result.verdict, "", head, "-" * len(head)]
    for row in result.measures:
        interval = f"{row.low:+.3f} to {row.high:+.3f}"
        lines.append(
            f"{row.name:<10} {row.before:>7.3f} {row.after:>7.3f} {row.ceiling:>8.3f} {row.difference:>+11.3f}  "
            f"{interval:<18} {row.p_value:>7.2g}"
        )
    gained, lost = result.extremes()
    for title, entries in (("Gained most", gained), ("Lost most", lost)):
        if entries:
            lines += ["", f"{title}:", *(f"  {d:+.3f}  {clip(result.texts[key], 80)}" for key, d in entries)]
    return "\n".join([*lines, "", _evaluation_foot(result)])


def evaluation_html(result: EvaluationResult) -> str:
    """Lay an evaluation out for a notebook."""
    head = "".join(
        f"<th>{t}</th>" for t in ("measure", "before", "after", "ceiling", "difference", "95 % interval", "p")
    )
    rows = [
        f"<tr><td>{escape(row.name)}</td><td>{row.before:.3f}</td><td>{row.after:.3f}</td><td>{row.ceiling:.3f}</td>"
        f'<td class="{ {"helped": "up", "hurt": "down"}.get(row.verdict, "flat") }">{row.difference:+.3f}</td>'
        f"<td>{row.low:+.3f} to {row.high:+.3f}</td><td>{row.p_value:.2g}</td></tr>"
        for row in result.measures
    ]
    gained, lost = result.extremes()
    lists = "".join(
        f"<p>{title}</p><ul>"
        + "".join(
            f'<li><span class="{kind}">{difference:+.3f}</span> {escape(clip(result.texts[key], _SNIPPET))}</li>'
            for key, difference in entries
        )
        + "</ul>"
        for title, kind, entries in (("Gained most", "up", gained), ("Lost most", "down", lost))
        if entries
    )
    return _html(f"<b>{escape(result.verdict)}</b>", head, rows, escape(_evaluation_foot(result)), more=lists)


def plot_evaluation(result: EvaluationResult) -> Any:
    """Draw each query's difference by the first measure, largest gain first."""
    first = result.measures[0]
    differences = sorted((after - before for before, after in first.per_query.values()), reverse=True)
    axes = _axes((8, 3.5))
    colours = [_UP if value > 0 else _DOWN if value < 0 else _FLAT for value in differences]
    axes.bar(range(1, len(differences) + 1), differences, color=colours, width=0.9)
    axes.axhline(0, color=_FLAT, linewidth=0.8)
    axes.set(xlabel="queries, by difference", ylabel=f"{first.name}: after - before")
    axes.set_title(f"mean {first.difference:+.3f}, 95 % interval {first.low:+.3f} to {first.high:+.3f}", loc="left")
    return axes.figure


def profile_text(result: ProfileResult) -> str:
    """Lay a profile out for a terminal."""
    head = f"{'stage':<12} {'p50 ms':>9} {'p95 ms':>9} {'share':>7}"
    lines = [head, "-" * len(head)]
    lines += [f"{row.name:<12} {row.p50_ms:>9.1f} {row.p95_ms:>9.1f} {row.share:>7.0%}" for row in result.stages]
    if result.by_k:
        lines += ["", "rerank by number of candidates:"]
        lines += [f"  k={k:<5} {milliseconds:>9.1f} ms" for k, milliseconds in result.by_k.items()]
    return "\n".join([*lines, "", _profile_foot(result)])


def profile_html(result: ProfileResult) -> str:
    """Lay a profile out for a notebook."""
    head = "".join(f"<th>{title}</th>" for title in ("stage", "p50 ms", "p95 ms", "share"))
    rows = [
        f"<tr><td>{escape(r.name)}</td><td>{r.p50_ms:.1f}</td><td>{r.p95_ms:.1f}</td><td>{r.share:.0%}</td></tr>"
        for r in result.stages
    ]
    return _html("<b>Milliseconds a query</b>", head, rows, escape(_profile_foot(result)))


def plot_profile(result: ProfileResult) -> Any:
    """Draw the stages' medians as one stacked bar."""
    axes = _axes((8, 2.2))
    left = 0.0
    for row in result.stages:
        axes.barh([""], [row.p50_ms], left=left, label=f"{row.name} {row.p50_ms:.0f} ms")
        left += row.p50_ms
    axes.set(xlabel="milliseconds (medians)")
    axes.figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return axes.figure


def sweep_text(result: SweepResult) -> str:
    """Lay a sweep out for a terminal."""
    head = f"{'k':>5} {result.measure:>9} {'ceiling':>8} {'rerank p50 ms':>14} {'p95 ms':>8}"
    lines = [head, "-" * len(head)]
    for row in result.rows:
        mark = "  <- knee" if row is result.knee else ""
        lines.append(f"{row.k:>5} {row.quality:>9.3f} {row.ceiling:>8.3f} {row.p50_ms:>14.0f} {row.p95_ms:>8.0f}{mark}")
    lines += ["", f"Without reranking: {result.measure} {result.baseline:.3f}."]
    lines += [f"top_n={n}: {r:.0%} of the relevant documents among the kept" for n, r in result.top_n_recall.items()]
    return "\n".join([*lines, *_degraded_note(result.degraded)])


def sweep_html(result: SweepResult) -> str:
    """Lay a sweep out for a notebook."""
    titles = ("k", result.measure, "ceiling", "rerank p50 ms", "p95 ms", "")
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    rows = [
        f"<tr><td>{row.k}</td><td>{row.quality:.3f}</td><td>{row.ceiling:.3f}</td><td>{row.p50_ms:.0f}</td>"
        f"<td>{row.p95_ms:.0f}</td><td>{'knee' if row is result.knee else ''}</td></tr>"
        for row in result.rows
    ]
    foot = "; ".join([f"Without reranking: {result.baseline:.3f}", *_degraded_note(result.degraded)])
    return _html("<b>Quality against latency</b>", head, rows, escape(foot))


def plot_sweep(result: SweepResult) -> Any:
    """Draw quality against the rerank's median milliseconds, one point for each k, the knee marked."""
    axes = _axes((8, 4))
    axes.plot([row.p50_ms for row in result.rows], [row.quality for row in result.rows], "-o", color=_UP)
    for row in result.rows:
        label = f"k={row.k}" + (" (knee)" if row is result.knee else "")
        axes.annotate(label, (row.p50_ms, row.quality), xytext=(6, -12), textcoords="offset points")
    axes.axhline(result.baseline, color=_FLAT, linestyle="--", label="without reranking")
    axes.set(xlabel="rerank, median milliseconds", ylabel=result.measure)
    axes.margins(x=0.12, y=0.15)
    axes.legend(frameon=False)
    return axes.figure


def clip(text: str, width: int) -> str:
    """Put a text on one line of at most `width` characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= width else f"{flat[: width - 3]}..."


def _comparison_foot(comparison: Comparison) -> str:
    return (
        f"{len(comparison.documents)} candidates, {len(comparison.reranked)} kept by {comparison.model}; "
        f"first stage {comparison.retrieve_ms:.0f} ms, rerank {comparison.rerank_ms:.0f} ms"
    )


def _evaluation_foot(result: EvaluationResult) -> str:
    times = result.latency_ms()
    notes = [
        f"{result.queries} queries, {result.k} candidates at most, {result.model}",
        f"first stage {times['retrieve_p50']:.0f} ms, rerank {times['rerank_p50']:.0f} ms "
        f"(p95 {times['rerank_p95']:.0f} ms)",
    ]
    if result.empty:
        notes.append(f"{result.empty} queries found nothing and count as 0")
    return "; ".join([*notes, *_degraded_note(result.degraded)])


def _degraded_note(count: int) -> list[str]:
    return [f"{count} queries kept the first stage's order because the model failed"] if count else []


def _profile_foot(result: ProfileResult) -> str:
    return f"{result.queries} queries x {result.repeats}, {result.model}; shares are of the medians' sum"


def _html(title: str, head: str, rows: Sequence[str], foot: str, *, more: str = "") -> str:
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'{_STYLE}<div class="crossrerank"><p>{title}</p>{table}{more}<p>{foot}</p></div>'


def _axes(size: tuple[float, float]) -> Any:
    """Make a figure of its own, so that nothing global changes, and give its axes."""
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
