"""What an ONNX graph may not do: read files outside its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER
from langchain_crossrerank.errors import UnsupportedModelError
from langchain_crossrerank.onnx_graphs.external_data import check_external_data, external_locations


def field(number: int, content: bytes) -> bytes:
    """One length-delimited protobuf field."""
    length, sizes = len(content), bytearray()
    while length >= 128:
        sizes.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *sizes, length]) + content


def graph_with(location: str) -> bytes:
    """A model whose only tensor is kept in `location`."""
    entry = field(1, b"location") + field(2, location.encode())
    return b"\x08\x08" + field(7, field(5, field(13, entry)))


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret.bin", "sub/../../secret.bin", "C:\\secret.bin"])
def test_a_place_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    """Absolute paths and paths with `..` that lead out are named and refused."""
    (tmp_path / "model.onnx").write_bytes(graph_with(location))
    with pytest.raises(UnsupportedModelError, match="outside its folder"):
        check_external_data(tmp_path / "model.onnx")


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    """A harmless name behind which a link leads elsewhere is refused as well."""
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(b"secret")
    (folder / "weights.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "model.onnx").write_bytes(graph_with("weights.bin"))
    with pytest.raises(UnsupportedModelError, match=r"secret\.bin"):
        check_external_data(folder / "model.onnx")


def test_a_place_inside_is_allowed(tmp_path: Path) -> None:
    """Weights beside the graph are what external data is for."""
    (tmp_path / "model.onnx").write_bytes(graph_with("model.onnx_data"))
    check_external_data(tmp_path / "model.onnx")
    assert external_locations(tmp_path / "model.onnx") == {"model.onnx_data"}


def test_the_hub_cache_with_its_links_is_allowed(tmp_path: Path) -> None:
    """In the Hugging Face cache a snapshot's files are links into the repository's blobs."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc" / "onnx"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "1").write_bytes(graph_with("model.onnx_data"))
    (blobs / "2").write_bytes(b"weights")
    (snapshot / "model.onnx").symlink_to(blobs / "1")
    (snapshot / "model.onnx_data").symlink_to(blobs / "2")
    check_external_data(snapshot / "model.onnx")
    assert external_locations(snapshot / "model.onnx") == {"model.onnx_data"}


@pytest.mark.parametrize("content", [b"", b"no graph at all", graph_with("a")[:-3], b"\xff" * 40])
def test_a_file_that_is_no_graph_is_refused(tmp_path: Path, content: bytes) -> None:
    """Empty, foreign and cut files give an error that names the file."""
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(UnsupportedModelError, match=r"model\.onnx"):
        external_locations(tmp_path / "model.onnx")


def test_the_real_graph_keeps_all_inside() -> None:
    """The bundled model's graph is understood and names no other file."""
    assert external_locations(BUNDLED_FOLDER / "model.onnx") == set()


def test_real_external_data_is_found(tmp_path: Path) -> None:
    """A graph written by the onnx package with its weights outside is seen for what it is."""
    onnx = pytest.importorskip("onnx", reason="needs the export extra")
    model = onnx.load(str(BUNDLED_FOLDER / "model.onnx"))
    onnx.save(model, str(tmp_path / "model.onnx"), save_as_external_data=True, location="weights.bin")
    assert external_locations(tmp_path / "model.onnx") == {"weights.bin"}
