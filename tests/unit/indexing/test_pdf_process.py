"""Reading PDF files in a process of its own: its limits, and what is left when it ends at one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from langchain_crossrerank.errors import IndexingError
from langchain_crossrerank.indexing import pdf_process
from langchain_crossrerank.indexing.pdf_process import read_pages

PROSE = ["The ferry leaves at nine in the morning.", "It takes two hours to the island."]
BOMB = b"BT /F1 9 Tf " + b"(x) Tj " * 2_000_000 + b"ET"


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a page take less memory than a bomb needs."""
    if sys.platform != "linux":
        pytest.skip("the limit on memory holds on Linux")
    monkeypatch.setattr(pdf_process, "MAX_MEMORY", 300 << 20)


@pytest.mark.usefixtures("little_memory")
def test_a_page_that_exhausts_memory_does_not_stop_the_others(write_pdf: Callable[..., Path]) -> None:
    """The page that ends the process is reported, and reading goes on after it."""
    seen: list[int] = []
    file = read_pages(
        write_pdf("a.pdf", [PROSE, BOMB, PROSE]), "a.pdf", on_page=lambda page, total: seen.append(page / total)
    )
    assert ([page.number for page in file.pages], file.unreadable) == ([0, 2], [2])
    assert seen[-1] == 1.0


@pytest.mark.usefixtures("little_memory")
def test_a_last_page_that_exhausts_memory_leaves_the_outline_unread(write_pdf: Callable[..., Path]) -> None:
    """What was read before the process ended is kept."""
    file = read_pages(write_pdf("a.pdf", [PROSE, BOMB], outline=[("Fares", 0)]), "a.pdf")
    assert ([page.number for page in file.pages], file.unreadable) == ([0], [2])


@pytest.mark.usefixtures("little_memory")
def test_a_file_full_of_bombs_is_given_up(write_pdf: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many ended processes the rest of the file is reported as unreadable."""
    monkeypatch.setattr(pdf_process, "_MAX_STARTS", 2)
    file = read_pages(write_pdf("a.pdf", [PROSE, BOMB, BOMB, PROSE, PROSE]), "a.pdf")
    assert ([page.number for page in file.pages], file.unreadable) == ([0], [2, 3, 4, 5])


def test_a_file_has_a_limit_on_its_time_in_all(write_pdf: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of pages, each a little faster than a page must be, would take days; what is left is unreadable."""
    monkeypatch.setattr(pdf_process, "MAX_FILE_SECONDS", 0.0)
    monkeypatch.setattr(pdf_process, "MAX_SECONDS_EACH", 60.0)
    path = write_pdf("a.pdf", [PROSE] * 4)
    assert [page.number for page in read_pages(path, "a.pdf").pages] == [0, 1, 2, 3]
    monkeypatch.setattr(pdf_process, "MAX_SECONDS_EACH", 0.0)
    file = read_pages(path, "a.pdf")
    assert ([page.number for page in file.pages], file.unreadable) == ([0], [2, 3, 4])


@pytest.mark.parametrize(
    ("page", "labels"),
    [
        (["The ferry leaves at nine in the morning."] * 3, ""),
        ([f"x{number}" for number in range(6)], ""),
        (["x"], "/PageLabels<</Nums[0<</P(" + "x" * 100 + ")>>]>>"),
    ],
    ids=["text", "short lines", "labels"],
)
def test_pages_have_a_limit_on_their_text_in_all(
    write_pdf: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, page: list[str], labels: str
) -> None:
    """A small file whose pages share one long text stops when the limit is reached, not when memory is used up."""
    monkeypatch.setattr(pdf_process, "MAX_TEXT", 1000)
    read: list[int] = []
    path = write_pdf("a.pdf", [page] * 50, labels=labels)
    with pytest.raises(
        IndexingError, match=r"'a\.pdf' has more than .* of text in its first \d+ of 50 pages.*Split it"
    ):
        read_pages(path, "a.pdf", on_page=lambda page, total: read.append(page))
    assert 5 <= len(read) <= 10
    write_pdf("a.pdf", [page] * 5, labels=labels)
    assert len(read_pages(path, "a.pdf").pages) == 5


def test_a_file_that_cannot_be_opened_in_time_is_an_indexing_error(
    write_pdf: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the file and the limits."""
    monkeypatch.setattr(pdf_process, "MAX_PAGE_SECONDS", 0.001)
    with pytest.raises(IndexingError, match=r"'a\.pdf' .* opening it .* 1024 MB"):
        read_pages(write_pdf("a.pdf", [PROSE]), "a.pdf")


def test_giving_up_ends_the_process(write_pdf: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """An error or Ctrl-C while a file is read leaves no process behind."""
    started: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)  # type: ignore[call-overload]
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)

    def interrupt(page: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_pages(write_pdf("a.pdf", [PROSE] * 50), "a.pdf", on_page=interrupt)
    assert [process.poll() is not None for process in started] == [True]


def test_a_frozen_application_reads_without_another_process(
    write_pdf: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its executable is not Python, so it must not be started again."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(subprocess, "Popen", None)
    file = read_pages(write_pdf("a.pdf", [PROSE, PROSE]), "a.pdf")
    assert [page.lines[0].text for page in file.pages] == [PROSE[0]] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="file names of arbitrary bytes")
def test_a_file_name_of_any_bytes_reaches_the_process(write_pdf: Callable[..., Path]) -> None:
    """A name that is not UTF-8, or begins with a hyphen, is read like any other."""
    path = write_pdf("a.pdf", [PROSE])
    odd = path.with_name(os.fsdecode(b"-\xff\n.pdf"))
    path.rename(odd)
    assert [page.number for page in read_pages(odd, "odd").pages] == [0]
