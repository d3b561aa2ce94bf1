"""Pictures of results: everything is named and inside, any text can be drawn, and nothing global is touched."""

from __future__ import annotations

import subprocess
import sys
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

from langchain_crossrerank.evaluation.display.reports import COLOURS
from tests.unit.evaluation.display.made_results import (
    LONG,
    comparison,
    evaluation,
    every_hostile,
    every_result,
)


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
    assert axes.yaxis_inverted()


def test_every_candidate_of_the_bump_chart_is_named() -> None:
    """A kept document has its name at its new place, on the right, and a dropped one at its old place, on the left."""
    (axes,) = comparison([3, None, 1, 2]).plot().axes
    assert {text.get_text(): (text.xy, text.get_ha()) for text in axes.texts} == {
        "passage 1": ((1, 3), "left"),
        "passage 2": ((0, 2), "right"),
        "passage 3": ((1, 1), "left"),
        "passage 4": ((1, 2), "left"),
    }


def test_the_bump_charts_colours_are_the_reports() -> None:
    """Up, down and flat have the same colours in the picture and on a page."""
    (axes,) = comparison([3, 2, 1]).plot().axes
    assert [line.get_color() for line in axes.get_lines()] == [COLOURS[kind] for kind in ("down", "flat", "up")]


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


@pytest.mark.parametrize(("count", "length"), [(1, "width"), (40, "width"), (41, "height"), (500, "height")])
def test_an_evaluations_plot_has_a_bar_for_each_query(count: int, length: str) -> None:
    """As many bars as queries, falling; they lie while there is space for the queries' names, and stand otherwise."""
    (axes,) = evaluation(count).plot().axes
    lengths = [getattr(bar, f"get_{length}")() for bar in axes.patches]
    assert lengths == sorted((i / max(1, count - 1) - 0.5 for i in range(count)), reverse=True)


def test_the_bars_of_few_queries_are_named_by_them() -> None:
    """Each bar has its query, from the largest gain down."""
    (axes,) = evaluation(5).plot().axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"query q{number}" for number in (4, 3, 2, 1, 0)]


def test_the_bars_of_many_queries_come_with_those_that_moved_most() -> None:
    """The five largest gains and the five largest losses are listed with their queries."""
    (axes,) = evaluation(101).plot().axes
    gained, lost = (text.get_text().splitlines() for text in axes.texts)
    assert gained == [f"+{0.5 - i / 100:.3f}  query q{100 - i}" for i in range(5)]
    assert lost == [f"-{0.5 - i / 100:.3f}  query q{i}" for i in range(5)]


@pytest.mark.parametrize("count", [5, 60])
def test_a_long_query_is_cut_between_words(count: int) -> None:
    """A label that does not fit ends in dots after a whole word."""
    (axes,) = evaluation(count, LONG).plot().axes
    labels = [*axes.texts, *axes.get_yticklabels()]
    cut = [line for label in labels for line in label.get_text().splitlines() if line.endswith("...")]
    assert cut
    assert all(line.removesuffix(" ...").rsplit(" ", 1)[-1] in LONG.split() for line in cut)


@every_hostile
def test_hostile_text_can_be_drawn(result: Any) -> None:
    """A picture is drawn from any text, without a warning about characters that no font has."""
    result.plot().savefig(BytesIO(), format="png")
