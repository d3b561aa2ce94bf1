"""Finding files: what a folder search takes, and what it leaves out and says so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.indexing import find_files
from langchain_crossrerank.indexing.finding import search_files


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with two files to read, and much else."""
    folder = tmp_path / "project"
    for name in (
        "notes.md",
        "docs/a.txt",
        ".hidden.md",
        ".git/description.txt",
        ".venv/lib/x/LICENSE.txt",
        "env/pyvenv.cfg",
        "env/lib/readme.txt",
        "node_modules/y/README.md",
        "__pycache__/a.txt",
        "index/chroma.sqlite3",
        "index/embeddings.txt",
        "photo.png",
        "old.doc",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("The ferry leaves at nine.\n")
    return folder


def names(files: list[Path], folder: Path) -> list[str]:
    return [str(file.relative_to(folder.resolve())) for file in files]


def test_hidden_folders_environments_and_tools_are_left_out(project: Path) -> None:
    """Only what people write is found."""
    assert names(find_files(project), project) == ["docs/a.txt", "notes.md"]


def test_what_is_left_out_is_named(project: Path) -> None:
    """Each kind is one note, and a type that is not read is named with what would read it."""
    notes = "\n".join(search_files(project).notes)
    for word in (
        "hidden",
        ".git",
        "env",
        "node_modules",
        "kept indexes",
        "1 .png file; make a PDF",
        "1 .doc file; save",
    ):
        assert word in notes


def test_a_named_file_or_folder_is_read_although_it_is_hidden(project: Path) -> None:
    """What the caller names is meant."""
    assert names(find_files([project / ".git", project / ".hidden.md"]), project) == [
        ".git/description.txt",
        ".hidden.md",
    ]


def test_links_are_followed_inside_the_folder_only(project: Path, tmp_path: Path) -> None:
    """A link out of the folder, to nothing or to itself is left out and named; inside it is the same file."""
    (tmp_path / "secret.txt").write_text("Secret.")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key.txt").write_text("Secret.")
    for name, target in (
        ("out.txt", tmp_path / "secret.txt"),
        ("folder", tmp_path / "private"),
        ("loop.txt", "loop.txt"),
        ("broken.txt", "nowhere.txt"),
        ("inside.txt", project / "notes.md"),
        ("circle", "."),
    ):
        (project / name).symlink_to(target)
    found = search_files(project)
    assert names(found.files, project) == ["docs/a.txt", "notes.md"]
    (note,) = [note for note in found.notes if "links that lead out" in note]
    assert all(name in note for name in ("out.txt", "folder", "loop.txt", "broken.txt"))
    assert names(find_files(project / "out.txt"), tmp_path) == ["secret.txt"]


def test_pipes_are_left_out_and_refused(project: Path) -> None:
    """A pipe in a folder is noted, and one that is named is refused."""
    os.mkfifo(project / "pipe.txt")
    assert "pipe.txt" in "\n".join(search_files(project).notes)
    with pytest.raises(InvalidInputError, match="is a pipe or a device"):
        find_files(project / "pipe.txt")


def test_a_name_that_is_not_utf_8_is_found(project: Path) -> None:
    """Any name that the file system takes is read."""
    odd = Path(os.fsdecode(os.fsencode(project) + b"/odd\xff.txt"))
    odd.write_text("It is late.")
    assert odd.resolve() in find_files(project)


def test_types_whose_extra_is_missing_are_named_with_its_pip_line(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the documents extra a folder's Word files are left out, and the note says what installs it."""
    (project / "a.docx").write_bytes(b"PK\x03\x04")
    monkeypatch.setattr("langchain_crossrerank.extras.find_spec", lambda name: None)
    found = search_files(project)
    assert names(found.files, project) == ["docs/a.txt", "notes.md"]
    assert 'pip install "langchain-crossrerank[documents]"' in "\n".join(found.notes)


def test_a_type_that_is_not_read_is_refused_with_what_would_read_it(project: Path) -> None:
    """A named file of another type is an error with a way out."""
    with pytest.raises(InvalidInputError, match=r"old\.doc.* save it as \.docx or PDF"):
        find_files(project / "old.doc")


def test_a_type_that_is_not_read_does_not_stop_the_others(project: Path) -> None:
    """Of files named together the ones that can be read are found, and each other one is noted; so is a bare folder."""
    (project / "bare").mkdir()
    found = search_files([project / "old.doc", project / "notes.md", project / "bare"])
    assert names(found.files, project) == ["notes.md"]
    assert any("old.doc" in note and "save it as .docx or PDF" in note for note in found.notes)
    assert any("bare" in note and "holds no files that are read" in note for note in found.notes)
