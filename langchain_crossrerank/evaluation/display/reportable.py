"""The base of results: what describes itself as a report can be printed, drawn, and shown as HTML."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from langchain_crossrerank.evaluation.display.charts import draw
from langchain_crossrerank.evaluation.display.html import can_show_html, report_html, report_page
from langchain_crossrerank.evaluation.display.plain import report_text
from langchain_crossrerank.evaluation.display.reports import Report


class Reportable(ABC):
    """A result that describes itself as a report."""

    @abstractmethod
    def report(self) -> Report:
        """Describe the result in plain data."""

    def to_text(self, width: int | None = None) -> str:
        """Lay the result out for a terminal.

        Args:
            width: Columns of the terminal; `None` leaves sentences on one line, and long texts share 110 columns.
        """
        return report_text(self.report(), width)

    def to_html(self, notes: Sequence[str] = (), others: Sequence[Reportable] = ()) -> str:
        """Lay the result out as a page of its own, which fetches nothing and can be sent to somebody.

        Args:
            notes: What else to say about the result.
            others: Results to show below it.

        Raises:
            MissingExtraError: If jinja2, from the `eval` or the `rag` extra, is not installed.
        """
        return report_page([self.report(), *(other.report() for other in others)], notes)

    def plot(self) -> Any:
        """Draw the result as a matplotlib figure.

        Raises:
            MissingExtraError: If the `eval` extra is not installed.
        """
        return draw(self.report().chart)

    def __str__(self) -> str:
        return self.to_text()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:  # noqa: ARG002 - IPython's signature
        # Without this, IPython's text form is the repr, with every field.
        return {"text/plain": str(self)}

    def _repr_html_(self) -> str | None:
        # A notebook shows the text where this is None.
        return report_html(self.report()) if can_show_html() else None
