"""Builds `notebooks/data/llm_fundamentals.pdf` from the Markdown file of the same name.

python scripts/build_pdf.py

Equal Markdown makes an equal file, byte for byte.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

from reportlab.lib.enums import TA_JUSTIFY
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle, getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, ListFlowable, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

DATA = Path(__file__).parent.parent / "notebooks" / "data"
TITLE = "LLM Fundamentals: a short course from tokens to retrieval"

_STYLES = getSampleStyleSheet()
_BODY = ParagraphStyle("Body", parent=_STYLES["BodyText"], fontSize=10.5, leading=14.5, alignment=TA_JUSTIFY)
_CELL = ParagraphStyle("Cell", parent=_BODY, fontSize=9, leading=11.5, alignment=0)
_HEADINGS = {1: _STYLES["Title"], 2: _STYLES["Heading1"], 3: _STYLES["Heading3"]}


def inline(text: str) -> str:
    """Turn bold, italic and code spans into the markup of reportlab."""
    text = html.escape(text, quote=False)
    text = re.sub(r"`([^`]+)`", r'<font face="Courier">\1</font>', text)
    text = re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", text)
    return re.sub(r"(?<!\w)\*([^*]+)\*(?!\w)", r"<i>\1</i>", text)


def flowables(markdown: str) -> list[Flowable]:
    """Lay out headings, lists, tables and paragraphs, which blank lines separate."""
    story: list[Flowable] = []
    for block in re.split(r"\n\s*\n", markdown.strip()):
        lines = block.splitlines()
        if heading := re.match(r"(#{1,3}) (.+)", block):
            story.append(Paragraph(inline(heading[2]), _HEADINGS[len(heading[1])]))
        elif block.startswith("|"):
            rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
            cells = [[Paragraph(inline(cell), _CELL) for cell in row] for row in rows if not set(row[0]) <= {"-", ":"}]
            grid = [("GRID", (0, 0), (-1, -1), 0.4, "#999999"), ("BACKGROUND", (0, 0), (-1, 0), "#eeeeee")]
            story += [Table(cells, style=TableStyle(grid), hAlign="LEFT"), Spacer(1, 3 * mm)]
        elif re.match(r"[-*] ", block):
            items = re.split(r"\n[-*] ", "\n" + block)[1:]
            story.append(
                ListFlowable([Paragraph(inline(" ".join(i.split())), _BODY) for i in items], bulletType="bullet")
            )
        else:
            story.append(Paragraph(inline(" ".join(lines)), _BODY))
    return story


def number_page(canvas: Canvas, document: SimpleDocTemplate) -> None:
    """Write the page number at the bottom of the page."""
    canvas.setFont("Helvetica", 8)
    canvas.drawCentredString(A4[0] / 2, 10 * mm, str(document.page))


def main() -> None:
    """Build the PDF."""
    margins = {"leftMargin": 25 * mm, "rightMargin": 25 * mm, "topMargin": 20 * mm, "bottomMargin": 20 * mm}
    path = DATA / "llm_fundamentals.pdf"
    document = SimpleDocTemplate(
        str(path), pagesize=A4, title=TITLE, author="langchain-crossrerank", invariant=1, **margins
    )
    markdown = (DATA / "llm_fundamentals.md").read_text(encoding="utf-8")
    document.build(flowables(markdown), onFirstPage=number_page, onLaterPages=number_page)
    print(f"{path}: {document.page} pages")


if __name__ == "__main__":
    main()
