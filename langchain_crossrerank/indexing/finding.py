"""Finds the files to index, and says what a folder holds that is left out."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.extras import missing_modules
from langchain_crossrerank.indexing.conversion import CONVERTED, needed_modules
from langchain_crossrerank.indexing.reading import is_readable_type, show_path

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

_TYPES = "PDF, text, Markdown, reStructuredText, HTML, Word, PowerPoint, Excel, EPUB, notebook, CSV and source files"
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".tif", ".tiff", ".bmp", ".webp", ".heic", ".djvu")
_HINTS = {
    **dict.fromkeys(_PICTURES, "make a PDF with text of them by OCR, for example with ocrmypdf"),
    **dict.fromkeys((".doc", ".odt", ".rtf", ".pages", ".wpd"), "save them as .docx or PDF"),
    **dict.fromkeys((".xls", ".ods", ".numbers"), "save them as .xlsx or CSV"),
    **dict.fromkeys((".ppt", ".odp", ".key"), "save them as .pptx or PDF"),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz"), "unpack them"),
    **dict.fromkeys((".ps", ".dvi", ".xps"), "convert them to PDF"),
    **dict.fromkeys((".mobi", ".azw3", ".fb2"), "convert them to EPUB, for example with Calibre"),
    **dict.fromkeys((".eml", ".msg", ".mbox"), "save the messages as text or HTML"),
    **dict.fromkeys((".json", ".jsonl", ".xml", ".parquet"), "export what should be searched as Markdown or CSV"),
    **dict.fromkeys((".mp3", ".wav", ".mp4", ".m4a", ".mkv"), "transcribe them to text"),
}
_TOOLS = {"node_modules", "__pycache__", "site-packages", "__MACOSX"}
_ENVIRONMENT_MARKS = ("pyvenv.cfg", "conda-meta")
_STORE_MARK = "chroma.sqlite3"


@dataclass
class FoundFiles:
    """What was found.

    Attributes:
        files: Each file once, with links resolved, in the order of the paths and by name inside a folder.
        folders: The folders that were searched.
        notes: What was left out, one sentence each.
    """

    files: list[Path]
    folders: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_files(paths: Paths) -> list[Path]:
    """List the files to index, each once, in a fixed order.

    In folders, hidden files and folders, Python environments, `node_modules` and the like, kept indexes and links that
    lead out of the folder are left out. Name such a file or folder itself to have it read.

    Args:
        paths: A file, a folder (searched with its subfolders), or several of them.

    Raises:
        InvalidInputError: If a path does not exist, or nothing is found that can be read.
    """
    found = search_files(paths)
    check_found(found)
    return found.files


def check_found(found: FoundFiles) -> None:
    """Raise if no file was found; the error says what was left out."""
    if not found.files:
        raise InvalidInputError(" ".join(found.notes) or "no files were given; pass at least one file or folder.")


def search_files(paths: Paths) -> FoundFiles:
    """Find the files to index, as `find_files` does, and what was left out; there may be none.

    Raises:
        InvalidInputError: If a path does not exist, or is a pipe or a device.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    files: dict[Path, None] = {}
    folders: list[Path] = []
    notes: list[str] = []
    for path in map(Path, given):
        shown = show_path(path)
        if path.is_dir():
            folder = path.resolve()
            search = _FolderSearch(folder)
            inside = sorted(search.files())
            folders.append(folder)
            if not inside:
                notes.append(f"the folder {shown!r} holds no files that are read ({_TYPES}).")
            notes += search.notes()
            files.update(dict.fromkeys(inside))
        elif not path.exists():
            raise InvalidInputError(f"there is no file or folder {shown!r}; check the path.")
        elif not path.is_file():
            raise InvalidInputError(f"{shown!r} is a pipe or a device; save its content to a file first.")
        elif not is_readable_type(path):
            hint = _HINTS.get(path.suffix.lower(), "convert it to PDF, Markdown or text").replace("them", "it")
            notes.append(f"{shown!r} is of a type that is not read ({_TYPES} are); {hint}.")
        else:
            files[path.resolve()] = None
    return FoundFiles(list(files), folders, notes)


class _FolderSearch:
    """Walks through a folder once and counts what it leaves out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.types: Counter[str] = Counter()
        self.missing: Counter[str] = Counter()
        self.left_out: dict[str, list[str]] = {}

    def files(self) -> Iterator[Path]:
        for parent, folders, names in os.walk(self.folder, onerror=self._unreadable):
            folders[:] = sorted(name for name in folders if self._enters(Path(parent, name)))
            for name in names:
                found = self._look_at(Path(parent, name))
                if found is not None:
                    yield found

    def _enters(self, folder: Path) -> bool:
        if folder.is_symlink():
            if not _leads_inside(folder, self.folder):
                self._leave_out("links that lead out of the folder or nowhere", folder)
            return False
        if folder.name.startswith("."):
            self._leave_out("hidden files and folders", folder)
        elif folder.name in _TOOLS or folder.name.endswith(".egg-info"):
            self._leave_out("folders of tools", folder)
        elif any((folder / mark).exists() for mark in _ENVIRONMENT_MARKS):
            self._leave_out("Python environments", folder)
        elif (folder / _STORE_MARK).exists():
            self._leave_out("kept indexes", folder)
        else:
            return True
        return False

    def _look_at(self, path: Path) -> Path | None:
        """Return a file's path, with links resolved, if it is to be read."""
        reason = self._reason_against(path)
        if reason is not None:
            self._leave_out(reason, path)
            return None
        suffix = path.suffix.lower()
        if not is_readable_type(path):
            self.types[suffix] += 1
            return None
        if suffix in CONVERTED and missing_modules("documents", needed_modules(suffix)):
            self.missing[suffix] += 1
            return None
        return path.resolve()

    def _reason_against(self, path: Path) -> str | None:
        if path.name.startswith("."):
            return "hidden files and folders"
        if path.is_symlink() and not _leads_inside(path, self.folder):
            return "links that lead out of the folder or nowhere"
        try:
            return None if stat.S_ISREG(path.stat().st_mode) else "pipes and devices"
        except OSError:
            return "files that cannot be read"

    def _unreadable(self, err: OSError) -> None:
        self._leave_out("folders that cannot be read", Path(os.fsdecode(err.filename)))

    def _leave_out(self, kind: str, path: Path) -> None:
        self.left_out.setdefault(kind, []).append(show_path(path.relative_to(self.folder)))

    def notes(self) -> list[str]:
        """Say what was left out, one sentence for each kind."""
        where = repr(show_path(self.folder))
        notes = [
            f"{where}: left out {kind}: {', '.join(map(repr, sorted(names)[:5]))}"
            + (f" and {len(names) - 5} more." if len(names) > 5 else ".")
            for kind, names in sorted(self.left_out.items())
        ]
        for suffix, count in sorted(self.types.items()):
            hint = _HINTS.get(suffix, "convert them to PDF, Markdown or text")
            what = f"{suffix} file" if suffix else "file without an extension"
            notes.append(f"{where}: left out {count} {what}{'s' if count > 1 else ''}; {hint}.")
        for suffix, count in sorted(self.missing.items()):
            notes.append(
                f"{where}: left out {count} {suffix} file{'s' if count > 1 else ''}; to read them, run "
                '`pip install "langchain-crossrerank[documents]"`.'
            )
        return notes


def _leads_inside(link: Path, folder: Path) -> bool:
    try:
        return link.resolve(strict=True).is_relative_to(folder)
    except (OSError, RuntimeError):
        return False
