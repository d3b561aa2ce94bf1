"""What makes a score: every file and every setting changes the key; a file that changed meanwhile poisons none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from langchain_crossrerank.cross_encoders.fingerprints import ReadFiles, fingerprint

FILES = ["config.json", "tokenizer.json", "model.safetensors", "1_Dense/model.safetensors", "vocab.txt", "modeling.py"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with a file of each kind."""
    for name in [*FILES, "README.md", ".git/config.json"]:
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    return tmp_path / "model"


def digest_of(folder: Path) -> str:
    """The digest of a folder as it is now."""
    return ReadFiles.of_folder(folder).digest


@pytest.mark.parametrize("name", FILES)
def test_every_file_counts(folder: Path, name: str) -> None:
    """Another content, another name, or a missing file changes the digest."""
    digests = [digest_of(folder)]
    (folder / name).write_text("another content")
    digests.append(digest_of(folder))
    (folder / name).rename(folder / f"{name}.json")
    digests.append(digest_of(folder))
    (folder / f"{name}.json").unlink()
    digests.append(digest_of(folder))
    assert len(set(digests)) == 4


@pytest.mark.parametrize("name", ["README.md", ".git/config.json"])
def test_files_that_no_loader_reads_do_not_count(folder: Path, name: str) -> None:
    """A model card and hidden folders leave the digest unchanged."""
    before = digest_of(folder)
    (folder / name).write_text("another content")
    assert digest_of(folder) == before


def test_equal_folders_have_equal_digests(folder: Path) -> None:
    """The digest depends on names and contents alone, not on the place or the time."""
    other = folder.parent / "copy" / "elsewhere"
    for name in reversed(FILES):
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_bytes((folder / name).read_bytes())
        os.utime(other / name, (0, 0))
    assert digest_of(other) == digest_of(folder)


def test_content_moved_from_one_file_to_the_next_counts(folder: Path) -> None:
    """Where one file ends and the next one begins counts."""
    before = digest_of(folder)
    together = (folder / "model.safetensors").read_text() + (folder / "modeling.py").read_text()
    (folder / "model.safetensors").write_text(together)
    (folder / "modeling.py").write_text("")
    assert digest_of(folder) != before


@pytest.mark.parametrize("how", ["overwritten", "replaced", "removed", "overwritten with its old times"])
def test_a_file_changed_after_it_was_read_has_a_key_of_its_own(
    folder: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A model loaded before the change shares its key with neither the old nor the new content, and says why."""
    weights, old = folder / "model.safetensors", digest_of(folder)
    times = weights.stat().st_atime_ns, weights.stat().st_mtime_ns
    read = ReadFiles.of_folder(folder)
    if how.startswith("overwritten"):
        weights.write_text("CONTENT OF model.safetensors")
    elif how == "replaced":
        weights.with_suffix(".new").write_text("another content")
        weights.with_suffix(".new").replace(weights)
    else:
        weights.unlink()
    if how.endswith("times"):
        os.utime(weights, ns=times)
    assert read.digest not in (old, digest_of(folder))
    assert read.digest == read.digest
    (record,) = caplog.records
    assert str(weights) in record.getMessage()
    assert "load it again" in record.getMessage()


def test_a_digest_that_was_taken_stays(folder: Path) -> None:
    """Once known, the digest is that of the content that was read, whatever happens to the files."""
    read = ReadFiles.of_folder(folder)
    before = read.digest
    (folder / "config.json").write_text("another content")
    assert read.digest == before


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices of POSIX")
@pytest.mark.parametrize("kind", ["device", "pipe", "pipe later"])
def test_what_is_not_a_file_is_not_hashed(folder: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """A device never ends and a pipe may never begin; the model has a key of its own."""
    path = folder / "special_tokens_map.json"
    path.write_text("{}")
    read = ReadFiles.of_folder(folder)
    path.unlink()
    path.symlink_to("/dev/zero") if kind == "device" else os.mkfifo(path)
    if kind != "pipe later":
        read = ReadFiles.of_folder(folder)
    assert read.digest != digest_of(folder)
    assert f"{path} has changed since the model was loaded, or is not a regular file" in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
def test_links_to_files_are_those_files(folder: Path) -> None:
    """The hub's cache keeps every file elsewhere, under its hash."""
    before = digest_of(folder)
    for name in FILES:
        blob = folder.parent / name.replace("/", "-")
        (folder / name).rename(blob)
        (folder / name).symlink_to(blob)
    assert digest_of(folder) == before


SETTINGS = {"activation": "sigmoid", "max_length": 512, "precision": "fp32", "instruction": None}


@pytest.mark.parametrize(
    "change",
    [
        {"activation": "identity"},
        {"max_length": 511},
        {"precision": "bf16"},
        {"instruction": "find"},
        {"instruction": "null"},
        {"windows": 64},
    ],
)
def test_every_setting_counts(change: dict[str, object]) -> None:
    """Another value of any setting, or one more setting, changes the fingerprint; their order does not."""
    first = fingerprint("onnx", "abc", **SETTINGS)
    assert fingerprint("onnx", "abc", **{**SETTINGS, **change}) != first
    assert fingerprint("onnx", "abc", **dict(reversed(SETTINGS.items()))) == first


def test_backend_and_files_count(folder: Path) -> None:
    """Another backend or another content changes the fingerprint, which is one line."""
    read = ReadFiles.of_folder(folder)
    prints = {
        fingerprint("onnx", read, **SETTINGS),
        fingerprint("torch", read, **SETTINGS),
        fingerprint("onnx", "a commit\nof the hub", **SETTINGS),
        fingerprint("onnx", read),
    }
    assert len(prints) == 4
    assert "\n" not in fingerprint("onnx", read, instruction="two\nlines")
