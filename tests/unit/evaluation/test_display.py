"""How results look: HTML that keeps texts texts, lines that keep to their width, pictures that touch nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from io import BytesIO
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="needs the eval extra")

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text

from langchain_crossrerank.evaluation import (
    Comparison,
    EvaluationResult,
    MeasureResult,
    ProfileResult,
    RankedDocument,
    RerankerComparison,
    RerankerMeasure,
    StageTimes,
    SweepResult,
    SweepRow,
)
from langchain_crossrerank.evaluation.display import clip

EVIL = "</td><script>alert('x')</script> & \"quotes\" <b>bold</b>"
LONG = "a passage of many words that no column has room for " * 20

VOID = {"br", "img", "hr", "meta", "link"}


class Balanced(HTMLParser):
    """Reads HTML, and keeps its tags, cells with classes, its text, and what was closed wrongly."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[tuple[str, str]] = []
        self.paragraphs: list[str] = []
        self.wrong: list[str] = []
        self._open: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        self.wrong += [tag for tag, _ in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        classes = dict(attrs).get("class") or ""
        if tag == "td":
            self.cells.append((classes, ""))
        if tag == "p":
            self.paragraphs.append("")
        if tag not in VOID:
            self._open.append((tag, classes))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop()[0] != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        around = [tag for tag, _ in self._open]
        if "td" in around:
            classes, text = self.cells[-1]
            self.cells[-1] = (classes, text + data)
        elif "p" in around:
            self.paragraphs[-1] += data


def comparison(moves: list[int | None], *, query: str = "which?", text: str = "passage", **kwargs: Any) -> Comparison:
    """Make a comparison from each candidate's rank after reranking, in the first stage's order."""
    documents = [
        RankedDocument(f"{text} {place}", {}, place, rank, None if rank is None else -11.25 + place)
        for place, rank in enumerate(moves, start=1)
    ]
    return Comparison(query, documents, **{"model": "a model", "retrieve_ms": 12.4, "rerank_ms": 87.6, **kwargs})


def evaluation(count: int = 5, text: str = "query") -> EvaluationResult:
    """Make an evaluation of `count` queries whose differences run from loss to gain."""
    per_query = {f"q{i}": (0.5, i / max(1, count - 1)) for i in range(count)}
    measures = [MeasureResult(name, 0.5, 0.75, 0.875, 0.25, 0.125, 0.375, 0.01, per_query) for name in ("AP", "R@20")]
    times = dict.fromkeys(per_query, 12.0)
    return EvaluationResult(
        measures, count, 0, 0, 20, "a model", times, times, {key: f"{text} {key}" for key in per_query}
    )


def sweep_result(count: int = 4) -> SweepResult:
    rows = [SweepRow(5 * 2**i, 0.5 + i / 10, 0.9, 10.0 * 2**i, 12.0 * 2**i) for i in range(count)]
    return SweepResult(rows, "nDCG@10", 0.45, {1: 0.25, 5: 0.75}, "a model")


def profile_result() -> ProfileResult:
    stages = [StageTimes(name, 5.0, 9.0, 0.25) for name in ("search", "tokenise", "forward", "select")]
    return ProfileResult(stages, {5: 2.0, 10: 4.0}, 3, 2, "a model")


RESULTS: dict[str, Any] = {
    "comparison": comparison([2, 1, None]),
    "no candidates": comparison([]),
    "none kept": comparison([None, None]),
    "one candidate": comparison([1]),
    "many candidates": comparison([*range(2, 121), 1], text=LONG),
    "evaluation": evaluation(),
    "one query": evaluation(1),
    "profile": profile_result(),
    "sweep": sweep_result(),
    "one k": sweep_result(1),
}

every_result = pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS.keys())


@every_result
def test_html_is_well_formed_and_says_what_the_text_says(result: Any) -> None:
    """Every tag is closed where it belongs, there is one table, and its style does not reach beyond it."""
    html = result._repr_html_()
    read = Balanced(html)
    assert read.wrong == []
    assert read.tags.count("table") == 1
    style = re.search("<style>(.*)</style>", html)
    assert style is not None
    selectors = [selector for rule in re.findall(r"([^{}]+)\{", style.group(1)) for selector in rule.split(",")]
    assert [selector for selector in selectors if not selector.startswith(".crossrerank")] == []


@every_result
def test_html_brings_no_background_and_no_script(result: Any) -> None:
    """Dark and light notebooks keep their own colours, and nothing runs or is fetched."""
    html = result._repr_html_()
    assert not re.search(r"background(-color)?:\s*(?!none|inherit|transparent)", html)
    assert not re.search(r"<script|<link|<img|https?://|@import|url\(", html)


def test_a_move_has_the_colour_of_its_direction() -> None:
    """The cell of a move has the class of up, down or flat, and no other cell has one of these."""
    read = Balanced(comparison([3, 2, 1])._repr_html_())
    kinds = [(kind, text) for classes, text in read.cells for kind in classes.split() if kind != "n"]
    assert kinds == [("up", "+2"), ("flat", "="), ("down", "-2")]


def test_the_comparison_table_has_both_lists() -> None:
    """Each row has a place, the first stage's text, and then the move, score and text of the reranked list."""
    read = Balanced(comparison([3, None, 1, 2])._repr_html_())
    rows = [[text for _, text in read.cells[start : start + 5]] for start in range(0, len(read.cells), 5)]
    assert rows == [
        ["1", "passage 1", "+2", "-8.250", "passage 3"],
        ["2", "passage 2", "+2", "-7.250", "passage 4"],
        ["3", "passage 3", "-2", "-10.250", "passage 1"],
        ["4", "passage 4", "", "", ""],
    ]
    assert read.paragraphs == ["which?", "4 candidates, 3 kept by a model; first stage 12 ms, rerank 88 ms"]


@pytest.mark.parametrize(("count", "kept", "rows"), [(20, 3, 5), (20, 8, 8), (4, 2, 4), (0, 0, 0), (9, 0, 5)])
def test_the_table_shows_what_was_kept_and_a_little_more(count: int, kept: int, rows: int) -> None:
    """All kept documents have a row, and of the first stage at least five are shown, if there are five."""
    read = Balanced(comparison([place if place <= kept else None for place in range(1, count + 1)])._repr_html_())
    assert read.tags.count("tr") == 1 + rows
    assert f"{count} candidates, {kept} kept" in read.paragraphs[-1]


def test_a_document_without_score_is_shown() -> None:
    """A missing score, where the model failed, is a dash in both forms."""
    kept = Comparison("q", [RankedDocument("a", {}, 1, 1, None)], "m", 0, 0)
    assert [text for _, text in Balanced(kept._repr_html_()).cells] == ["1", "a", "=", "-", "a"]
    assert kept.to_text().splitlines()[4].split() == ["1", "a", "=", "-", "a"]


def test_texts_stay_texts_in_html() -> None:
    """Markup in a query, a passage or a model's name is shown and not obeyed."""
    evil = comparison([2, 1], query=EVIL, text=EVIL, model=EVIL)
    read = Balanced(evil._repr_html_())
    assert read.wrong == []
    assert "script" not in read.tags
    assert read.tags.count("b") == 1
    assert read.paragraphs[0] == EVIL
    assert EVIL in read.paragraphs[1]
    assert [text for _, text in read.cells if EVIL in text] == [f"{EVIL} {place}" for place in (1, 2, 2, 1)]


def test_queries_of_an_evaluation_stay_texts_in_html() -> None:
    """The queries that gained and lost most are listed with their differences, as text."""
    html = evaluation(text=EVIL)._repr_html_()
    read = Balanced(html)
    assert read.wrong == []
    assert "script" not in read.tags
    assert html.count("&lt;script&gt;") == 4


@pytest.mark.parametrize("width", [46, 60, 80, 110, 200])
@pytest.mark.parametrize("query", ["q", LONG], ids=["short", "long"])
def test_the_comparisons_text_keeps_to_its_width(width: int, query: str) -> None:
    """No line is wider than asked, and a wide one is made use of."""
    lines = comparison([*range(2, 31), 1], query=query, text=LONG).to_text(width).splitlines()
    assert max(len(line) for line in lines) <= width
    assert max(len(line) for line in lines) > width - 10


@pytest.mark.parametrize("width", [-1, 0, 1, 10, 24, 30, 45])
def test_a_terminal_too_narrow_for_columns_gets_the_narrowest(width: int) -> None:
    """Below the room that the heads need, the text is as wide as they are."""
    narrow = comparison([2, 1], text=LONG).to_text(width)
    assert max(len(line) for line in narrow.splitlines()) <= 46
    assert narrow == comparison([2, 1], text=LONG).to_text(46)


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("short", 10, "short"),
        ("exactly 10", 10, "exactly 10"),
        ("more than 10", 10, "more th..."),
        ("  one\n two\t three ", 20, "one two three"),
        ("", 5, ""),
    ],
)
def test_clip_puts_a_text_on_one_line(text: str, width: int, expected: str) -> None:
    """White space becomes single spaces, and what does not fit ends in dots."""
    assert clip(text, width) == expected


@pytest.mark.parametrize("result", [evaluation(), evaluation(1), profile_result(), sweep_result()])
def test_tables_of_figures_fit_a_terminal(result: Any) -> None:
    """The table, without the sentences around it, fits 80 columns."""
    lines = result.to_text().splitlines()
    rule = next(number for number, line in enumerate(lines) if set(line) == {"-"})
    end = lines.index("", rule)
    assert max(len(line) for line in lines[rule - 1 : end]) <= 80


@every_result
def test_a_plot_is_a_figure_of_its_own(result: Any) -> None:
    """Every result can be drawn, and nothing of pyplot's global state is touched."""
    settings, backend = dict(mpl.rcParams), mpl.get_backend(auto_select=False)
    figure = result.plot()
    picture = BytesIO()
    figure.savefig(picture, format="png")
    assert isinstance(figure, Figure)
    assert picture.getvalue().startswith(b"\x89PNG")
    assert pyplot.get_fignums() == []
    assert dict(mpl.rcParams) == settings
    assert mpl.get_backend(auto_select=False) == backend


@every_result
def test_everything_drawn_lies_inside_the_picture(result: Any) -> None:
    """No title, label or legend is cut off at the picture's edge."""
    figure = result.plot()
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    labels = [*axes.texts, axes.xaxis.label, axes.yaxis.label]
    titles = [
        label for label in axes.findobj(Text) if label.get_text() and label.get_text() == axes.get_title(loc="left")
    ]
    drawn = [label for label in [*labels, *titles] if label.get_text()] + axes.findobj(Legend) + figure.legends
    boxes = [(item, item.get_window_extent()) for item in drawn]
    width, height = figure.bbox.width, figure.bbox.height
    cut = [item for item, box in boxes if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1]
    assert boxes
    assert cut == []


@every_result
def test_a_notebook_shows_a_plot_by_itself(result: Any) -> None:
    """A figure as a cell's value is a picture, also where nobody asked for inline pictures before."""
    assert result.plot()._repr_png_().startswith(b"\x89PNG")


def test_drawing_loads_no_pyplot() -> None:
    """In a fresh process a plot is drawn without pyplot, which would choose a backend for the whole program."""
    script = (
        "import sys\n"
        "from langchain_crossrerank.evaluation import ProfileResult, StageTimes\n"
        "ProfileResult([StageTimes('search', 1.0, 1.0, 1.0)]).plot()\n"
        "print('matplotlib.figure' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "False"]


@pytest.mark.parametrize("moves", [[3, None, 1, 2], [1, 2], [None], [None, None, 1], []], ids=str)
def test_the_bump_chart_has_a_line_for_each_document_kept(moves: list[int | None]) -> None:
    """A line goes from the initial rank to the new one; what was dropped is a point, and each end has its text."""
    (axes,) = comparison(moves).plot().axes
    ends = [tuple(line.get_ydata()) for line in axes.get_lines()]
    assert ends == [(place,) if rank is None else (place, rank) for place, rank in enumerate(moves, start=1)]
    assert [text.get_text() for text in axes.texts] == [
        f"passage {place}" for place, rank in enumerate(moves, start=1) if rank is not None
    ]
    assert axes.yaxis_inverted()


def test_the_bump_charts_colours_are_the_tables() -> None:
    """Up, down and flat have the same colours in the picture and in the table."""
    shown = comparison([3, 2, 1])
    (axes,) = shown.plot().axes
    by_kind = dict(re.findall(r"\.(up|down|flat)\{color:(#\w+)\}", shown._repr_html_()))
    assert [line.get_color() for line in axes.get_lines()] == [by_kind[kind] for kind in ("down", "flat", "up")]


@pytest.mark.parametrize("text", ["x_{ for $5 or $6", r"$\frac{$", "costs $5_ and $6^", r"$\begin{x}$", "100 % {"])
def test_any_text_can_be_drawn(text: str) -> None:
    """Dollar signs and the like in passages and queries are no formulas that could be wrong."""
    figure = comparison([2, 1], query=text, text=text).plot()
    figure.savefig(BytesIO(), format="png")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.texts] == [f"{text} 1", f"{text} 2"]


def test_dollar_signs_are_drawn() -> None:
    """A text between dollar signs is wider than without them, because they are there to be read."""

    def width(text: str) -> float:
        figure = comparison([1], query=text, text=text).plot()
        (axes,) = figure.axes
        return float(axes.texts[0].get_window_extent().width)

    assert width("$x x x x x x$") > width("x x x x x x")


@pytest.mark.parametrize("count", [1, 40, 500])
def test_an_evaluations_plot_has_a_bar_for_each_query(count: int) -> None:
    """As many bars as queries, falling."""
    (axes,) = evaluation(count).plot().axes
    heights = [bar.get_height() for bar in axes.patches]
    assert len(heights) == count
    assert heights == sorted(heights, reverse=True)


HOSTILE = "\x1b[2J\x1b]0;owned\x07 \x9b31m a\u202eb\u2066c \x00 \r\n1  first\u2028line \ud800 \u0085 end"
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def hostile_results() -> list[Any]:
    """Every kind of result with a hostile text in each place where a document, a query or a name may be."""
    values = {"q": (0.0, 1.0), "p": (1.0, 0.0)}
    measures = [MeasureResult(HOSTILE, 0.5, 0.5, 1.0, 0.0, -1.0, 1.0, 1.0, values)]
    other = RerankerMeasure(HOSTILE, 0.5, 0.5, 0.0, -1.0, 1.0, 1.0, 1, 0, 1, values)
    texts = dict.fromkeys(values, HOSTILE)
    return [
        Comparison(
            HOSTILE, [RankedDocument(HOSTILE, {}, 1, 2, 0.5), RankedDocument(HOSTILE, {}, 2, 1, 0.7)], HOSTILE, 1, 2
        ),
        EvaluationResult(measures, 2, 0, 0, 5, HOSTILE, {}, {}, texts, warnings=[HOSTILE]),
        RerankerComparison(HOSTILE, HOSTILE, [other], 2, texts, [HOSTILE]),
        ProfileResult([StageTimes(HOSTILE, 1.0, 2.0, 1.0)], {5: 1.0}, 1, 1, HOSTILE),
        SweepResult([SweepRow(5, 0.5, 0.9, 1.0, 2.0)], HOSTILE, 0.4, {1: 0.5}, HOSTILE, doubts=[HOSTILE]),
    ]


every_hostile = pytest.mark.parametrize("result", hostile_results(), ids=lambda result: type(result).__name__)


@every_hostile
@pytest.mark.parametrize("width", [None, 60])
def test_no_text_acts_on_the_terminal(result: Any, width: int | None) -> None:
    """Escape sequences, control characters and bidirectional overrides are shown as escapes, and forge no line."""
    shown = result.to_text(width)
    assert CONTROLS.findall(shown) == []
    assert "\\x1b" in shown
    assert not any(line.startswith("1  first") for line in shown.splitlines())
    assert shown.encode()


@every_hostile
def test_no_text_acts_on_a_page(result: Any) -> None:
    """In HTML the same characters are shown as escapes, so that no text is written over another."""
    html = result._repr_html_()
    assert CONTROLS.findall(html.replace("\n", "")) == []
    assert Balanced(html).wrong == []


@every_hostile
def test_hostile_text_can_be_drawn(result: Any) -> None:
    """A picture is drawn from any text, without a warning about characters that no font has."""
    result.plot().savefig(BytesIO(), format="png")


@every_hostile
def test_plain_data_keeps_the_text(result: Any) -> None:
    """What is meant for programs is not changed: JSON has its own escapes."""
    plain = json.loads(json.dumps(result.to_dict()))
    assert HOSTILE in (plain["model"], plain.get("query"))
