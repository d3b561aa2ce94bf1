"""Files to read: small PDFs written by hand, and folders of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

pytest.importorskip("pypdfium2", reason="needs the rag extra")
pytest.importorskip("sentencex", reason="needs the rag extra")

WritePdf = Callable[..., Path]


@pytest.fixture
def write_pdf(tmp_path: Path) -> WritePdf:
    """Write a PDF: a page is a list of lines of text, or a content stream; an outline is (title, page from 0) pairs."""

    def write(
        name: str,
        pages: Sequence[Sequence[str] | bytes],
        *,
        outline: Sequence[tuple[str, int]] = (),
        labels: str = "",
    ) -> Path:
        count = len(pages)
        first_entry = 5 + 2 * count
        catalog = f"<</Type/Catalog/Pages 2 0 R{labels}"
        if outline:
            catalog += "/Outlines 4 0 R"
        kids = " ".join(f"{5 + 2 * place} 0 R" for place in range(count))
        last_entry = first_entry + len(outline) - 1
        objects = [
            f"{catalog}>>".encode(),
            f"<</Type/Pages/Count {count}/Kids[{kids}]>>".encode(),
            b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
            f"<</Type/Outlines/First {first_entry} 0 R/Last {last_entry} 0 R>>".encode() if outline else b"<<>>",
        ]
        for place, page in enumerate(pages):
            stream = page if isinstance(page, bytes) else lines_of_text(page)
            objects.append(
                f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources<</Font<</F1 3 0 R>>>>"
                f"/Contents {6 + 2 * place} 0 R>>".encode()
            )
            objects.append(b"<</Length %d>>stream\n" % len(stream) + stream + b"\nendstream")
        for place, (title, page_number) in enumerate(outline):
            following = f"/Next {first_entry + place + 1} 0 R" if place + 1 < len(outline) else ""
            objects.append(
                f"<</Title({title})/Parent 4 0 R/Dest[{5 + 2 * page_number} 0 R/XYZ 0 792 0]{following}>>".encode()
            )
        path = tmp_path / name
        path.write_bytes(pdf_of(objects))
        return path

    return write


def lines_of_text(lines: Sequence[str]) -> bytes:
    """A content stream that writes lines below one another."""
    escaped = [
        line.encode("cp1252").replace(b"\\", rb"\\").replace(b"(", rb"\(").replace(b")", rb"\)") for line in lines
    ]
    return b"BT /F1 11 Tf 14 TL 60 760 Td " + b" ".join(b"(" + line + b") Tj T*" for line in escaped) + b" ET"


def pdf_of(objects: Sequence[bytes]) -> bytes:
    """Put objects into a file with its table of places."""
    out, places = b"%PDF-1.5\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    return out + b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
