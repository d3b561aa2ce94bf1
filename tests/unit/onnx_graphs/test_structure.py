"""Reading the structure of graphs that nobody vouches for: what stays in files, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from langchain_crossrerank.cross_encoders.model_files import BUNDLED_FOLDER
from langchain_crossrerank.errors import UnsupportedModelError
from langchain_crossrerank.onnx_graphs import structure
from langchain_crossrerank.onnx_graphs.sessions import Graph, open_session
from langchain_crossrerank.onnx_graphs.stored_weights import WeightFiles
from langchain_crossrerank.onnx_graphs.structure import read_structure, whole_model

ROWS = 300
WEIGHT = np.random.default_rng(0).normal(size=(ROWS, 64)).astype(np.float32)
INPUT = {"rows": np.random.default_rng(1).normal(size=(2, ROWS)).astype(np.float32)}


def model(weight: TensorProto | None = None, *more: TensorProto) -> onnx.ModelProto:
    """A graph that multiplies its input by a matrix of 76,800 bytes and adds a bias of 256."""
    bias = numpy_helper.from_array(np.ones(64, dtype=np.float32), "bias")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["rows", "weight"], ["made"]), helper.make_node("Add", ["made", "bias"], ["out"])],
        "product",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", ROWS])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 64])],
        [weight or numpy_helper.from_array(WEIGHT, "weight"), bias, *more],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def external(location: str, name: str = "weight", **more: int) -> TensorProto:
    """The matrix, or another tensor of its shape, kept in another file."""
    tensor = TensorProto(name=name, data_type=1, dims=WEIGHT.shape, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def write(folder: Path, made: onnx.ModelProto) -> Path:
    """Write a graph into a folder."""
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(made.SerializeToString())
    return folder / "model.onnx"


def run(file: Path) -> np.ndarray:
    """Run a graph from its structure and its weights' files."""
    found = read_structure(file)
    graph = Graph(found.model.SerializeToString(), found.weights, WeightFiles(file, found.weights))
    return np.asarray(open_session(graph).run(None, INPUT)[0])


def test_large_weights_stay_in_the_file(tmp_path: Path) -> None:
    """The structure is small, contains small tensors, and says where in the file the large one is."""
    file = write(tmp_path / "m", model())
    found = read_structure(file)
    (weight,) = found.weights
    assert (weight.name, weight.shape, weight.file) == ("weight", WEIGHT.shape, "")
    assert file.read_bytes()[weight.offset : weight.offset + weight.length] == WEIGHT.tobytes()
    assert len(found.model.SerializeToString()) < 1000
    assert run(file) == pytest.approx(INPUT["rows"] @ WEIGHT + 1, abs=1e-4)


@pytest.mark.parametrize("data_type", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_weights_of_every_type_are_used(tmp_path: Path, data_type: int) -> None:
    """Weights stored in other types reach onnxruntime as they are."""
    stored = numpy_helper.from_array(WEIGHT.astype(helper.tensor_dtype_to_np_dtype(data_type)), "stored")
    made = model()
    made.graph.initializer[0].CopyFrom(stored)
    made.graph.node.insert(0, helper.make_node("Cast", ["stored"], ["weight"], to=TensorProto.FLOAT))
    file = write(tmp_path / "m", made)
    assert len(read_structure(file).weights) == 1
    expected = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, INPUT)[0]
    assert run(file) == pytest.approx(expected, abs=1e-5)


def test_a_whole_model_has_its_weights_inside(tmp_path: Path) -> None:
    """Structure and weights together are the graph that was read."""
    file = write(tmp_path / "m", model())
    found = read_structure(file)
    whole = whole_model(found, WeightFiles(file, found.weights))
    assert np.array_equal(numpy_helper.to_array(whole.graph.initializer[0]), WEIGHT)
    assert [node.op_type for node in whole.graph.node] == ["MatMul", "Add"]


@pytest.mark.parametrize("location", ["w.bin", "sub/w.bin", "./w.bin"])
def test_external_data_inside_the_folder_is_used(tmp_path: Path, location: str) -> None:
    """Weights in files next to the graph, at any offset, are what external data is for."""
    place = tmp_path / "m" / location
    place.parent.mkdir(parents=True)
    place.write_bytes(b"abc" + WEIGHT.tobytes() + b"rest")
    file = write(tmp_path / "m", model(external(location, offset=3, length=WEIGHT.nbytes)))
    assert read_structure(file).external_files == (location,)
    assert run(file) == pytest.approx(INPUT["rows"] @ WEIGHT + 1, abs=1e-4)


OUTSIDE = ["/etc/passwd", "../secret.bin", "sub/../../secret.bin", "C:\\secret.bin", "..\\..\\secret.bin"]
NONSENSE = ["", "a\0b", "a" * 5000, ".", "missing.bin"]


@pytest.mark.parametrize("location", [*OUTSIDE, *NONSENSE], ids=lambda text: repr(text[:20]))
def test_a_place_that_cannot_be_read_is_refused(tmp_path: Path, location: str) -> None:
    """Files outside the folder, and names that are no files, give an error that names the graph."""
    (tmp_path / "secret.bin").write_bytes(WEIGHT.tobytes())
    file = write(tmp_path / "m", model(external(location)))
    with pytest.raises(UnsupportedModelError, match=r"model\.onnx") as raised:
        read_structure(file)
    assert ("outside its folder" in str(raised.value)) == (location in OUTSIDE[:4])


def attribute(tensor: TensorProto) -> onnx.ModelProto:
    """A graph with a tensor in an attribute of a node."""
    made = model()
    made.graph.node.insert(0, helper.make_node("Constant", [], ["unused"], value=tensor))
    return made


def sparse(tensor: TensorProto) -> onnx.ModelProto:
    """A graph with a sparse initializer whose values are a tensor."""
    made = model()
    made.graph.sparse_initializer.add().values.CopyFrom(tensor)
    return made


def branch(tensor: TensorProto) -> onnx.ModelProto:
    """A graph with a tensor in a branch."""
    made = model()
    inner = helper.make_graph([], "inner", [], [], [tensor])
    node = helper.make_node("If", ["flag"], ["other"], then_branch=inner, else_branch=inner)
    made.graph.node.append(node)
    return made


def function(tensor: TensorProto) -> onnx.ModelProto:
    """A graph with a tensor in a function of its own."""
    made = model()
    node = helper.make_node("Constant", [], ["x"], value=tensor)
    made.functions.append(helper.make_function("own", "f", [], ["x"], [node], [helper.make_opsetid("", 17)]))
    return made


@pytest.mark.parametrize("place", [attribute, sparse, branch, function])
def test_every_tensor_is_checked(tmp_path: Path, place: Callable[[TensorProto], onnx.ModelProto]) -> None:
    """A file outside is found wherever a tensor can name one, even under the name of a checked weight."""
    for name in ("other", "weight"):
        file = write(tmp_path / "m", place(external("/etc/passwd", name)))
        with pytest.raises(UnsupportedModelError, match="outside its folder"):
            read_structure(file)


@pytest.mark.parametrize("place", [attribute, function])
def test_no_other_tensor_stays_external(tmp_path: Path, place: Callable[[TensorProto], onnx.ModelProto]) -> None:
    """What an inference library opens names no file of the model's choosing."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "w.bin").write_bytes(WEIGHT.tobytes())
    found = read_structure(write(tmp_path / "m", place(external("w.bin", "weight"))))
    assert found.external_files == ("w.bin",)
    assert b"w.bin" not in found.model.SerializeToString()


def overlong(made: onnx.ModelProto, bit: int) -> bytes:
    """A model with the tag of its graph in five bytes, and one bit set that a 32-bit parser does not see."""
    graph = made.graph.SerializeToString()
    head = onnx.ModelProto()
    head.CopyFrom(made)
    head.ClearField("graph")
    length = structure._encoded(len(graph))
    return head.SerializeToString() + bytes([0x3A | 0x80, 0x80, 0x80, 0x80, bit]) + length + graph


@pytest.mark.parametrize("bit", [0x10, 0x20, 0x7F])
def test_a_tag_that_parsers_read_differently_is_refused(tmp_path: Path, bit: int) -> None:
    """A tag beyond 32 bits, which would hide the graph from one parser and not from another, is refused."""
    file = write(tmp_path / "m", model())
    file.write_bytes(overlong(model(external("../secret.bin")), bit))
    with pytest.raises(UnsupportedModelError, match="not an ONNX graph"):
        read_structure(file)


def test_a_long_but_equal_tag_is_read(tmp_path: Path) -> None:
    """A tag in more bytes than it needs is the same for all parsers; what it leads to is checked."""
    file = write(tmp_path / "m", model())
    file.write_bytes(overlong(model(external("../secret.bin")), 0))
    with pytest.raises(UnsupportedModelError, match="outside its folder"):
        read_structure(file)


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    """A harmless name behind which a link leads elsewhere is refused as well."""
    (tmp_path / "secret.bin").write_bytes(WEIGHT.tobytes())
    file = write(tmp_path / "m", model(external("weights.bin")))
    (tmp_path / "m" / "weights.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(UnsupportedModelError, match=r"secret\.bin"):
        read_structure(file)


@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "short"])
def test_what_is_not_a_whole_file_never_blocks(tmp_path: Path, kind: str) -> None:
    """Pipes, folders, links to themselves and files that are too short are refused at once."""
    file = write(tmp_path / "m", model(external("w")))
    place = tmp_path / "m" / "w"
    make: dict[str, Callable[[], object]] = {
        "pipe": lambda: os.mkfifo(place),
        "folder": place.mkdir,
        "loop": lambda: place.symlink_to("w"),
        "short": lambda: place.write_bytes(b"short"),
    }
    make[kind]()
    with pytest.raises(UnsupportedModelError, match=r"model\.onnx"):
        read_structure(file)


@pytest.mark.parametrize("key", [{"offset": -4}, {"length": -1}, {"offset": "x"}, {"offset": 10**12}, {"length": 4}])
def test_places_in_a_file_are_checked(tmp_path: Path, key: dict[str, int]) -> None:
    """An offset or a length that does not fit the file and the tensor is refused."""
    file = write(tmp_path / "m", model(external("w", **key)))
    (tmp_path / "m" / "w").write_bytes(WEIGHT.tobytes())
    with pytest.raises(UnsupportedModelError):
        read_structure(file)


def test_the_hub_cache_with_its_links_is_allowed(tmp_path: Path) -> None:
    """In the Hugging Face cache a snapshot's files are links into the repository's blobs."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc" / "onnx"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "1").write_bytes(model(external("model.onnx_data")).SerializeToString())
    (blobs / "2").write_bytes(WEIGHT.tobytes())
    (snapshot / "model.onnx").symlink_to(blobs / "1")
    (snapshot / "model.onnx_data").symlink_to(blobs / "2")
    assert run(snapshot / "model.onnx") == pytest.approx(INPUT["rows"] @ WEIGHT + 1, abs=1e-4)


DAMAGED = {
    "empty": b"",
    "text": b"not a graph at all",
    "cut": model().SerializeToString()[:-3],
    "noise": b"\xff" * 40,
    "zeros": bytes(1000),
    "no graph": onnx.ModelProto(ir_version=8).SerializeToString(),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_file_that_is_not_a_graph_is_refused(tmp_path: Path, content: bytes) -> None:
    """Empty, foreign and cut files give an error that names the file."""
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(UnsupportedModelError, match=r"model\.onnx"):
        read_structure(tmp_path / "model.onnx")


def test_weights_listed_as_inputs_are_weights(tmp_path: Path) -> None:
    """In files of version 3, where weights are inputs too, they are no longer asked for."""
    made = model()
    made.ir_version = 3
    made.graph.input.append(helper.make_tensor_value_info("weight", TensorProto.FLOAT, WEIGHT.shape))
    found = read_structure(write(tmp_path / "m", made))
    assert [entry.name for entry in found.model.graph.input] == ["rows"]
    assert run(tmp_path / "m" / "model.onnx") == pytest.approx(INPUT["rows"] @ WEIGHT + 1, abs=1e-4)


def test_the_output_called_logits_is_taken(tmp_path: Path) -> None:
    """Of several outputs the one called logits is left, whatever its position; otherwise the first one."""
    made = model()
    made.graph.output.insert(0, helper.make_tensor_value_info("made", TensorProto.FLOAT, ["n", 64]))
    assert [entry.name for entry in read_structure(write(tmp_path / "m", made)).model.graph.output] == ["made"]
    made.graph.output[1].name = made.graph.node[1].output[0] = "logits"
    assert [entry.name for entry in read_structure(write(tmp_path / "m", made)).model.graph.output] == ["logits"]


def looping(rounds: TensorProto | None, *, nested: bool = False) -> onnx.ModelProto:
    """A graph with a loop of a fixed number of rounds, or an unlimited one."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["again"], ["still"])],
        "body",
        [info("number", TensorProto.INT64, []), info("again", TensorProto.BOOL, [])],
        [info("still", TensorProto.BOOL, [])],
    )
    loop = helper.make_node("Loop", ["rounds" if rounds is not None else "", ""], [], body=body)
    made = model()
    if nested:
        inner = helper.make_graph([loop], "inner", [], [], [rounds] if rounds is not None else [])
        loop = helper.make_node("If", ["flag"], [], then_branch=inner, else_branch=inner)
    elif rounds is not None:
        made.graph.initializer.append(rounds)
    made.graph.node.append(loop)
    return made


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("rounds", [2, 10**15, None])
def test_a_loop_without_an_end_is_refused(tmp_path: Path, rounds: int | None, nested: bool) -> None:
    """A loop must have a constant and moderate number of rounds, wherever it is."""
    tensor = None if rounds is None else numpy_helper.from_array(np.array(rounds), "rounds")
    file = write(tmp_path / "m", looping(tensor, nested=nested))
    if rounds == 2:
        assert read_structure(file).weights
    else:
        with pytest.raises(UnsupportedModelError, match="might never end"):
            read_structure(file)


def test_the_rounds_of_loops_inside_loops_are_multiplied(tmp_path: Path) -> None:
    """Each loop may be moderate while all together never end."""
    made = looping(numpy_helper.from_array(np.array(2000), "rounds"))
    for _ in range(2):
        inner = made.graph.node[-1]
        outer = helper.make_node("Loop", ["rounds", ""], [])
        outer.attribute.append(helper.make_attribute("body", helper.make_graph([inner], "outer", [], [])))
        outer.attribute[0].g.initializer.extend(made.graph.initializer)
        made.graph.node[-1].CopyFrom(outer)
    with pytest.raises(UnsupportedModelError, match="might never end"):
        read_structure(write(tmp_path / "m", made))


def test_a_loop_in_a_function_is_refused(tmp_path: Path) -> None:
    """How often a function is called is not known."""
    made = looping(numpy_helper.from_array(np.array(2), "rounds"))
    call = helper.make_node("Spin", [], [], domain="own")
    made.functions.append(helper.make_function("own", "Spin", [], [], [made.graph.node[-1]], made.opset_import))
    made.graph.node[-1].CopyFrom(call)
    with pytest.raises(UnsupportedModelError, match="in a function"):
        read_structure(write(tmp_path / "m", made))


def test_the_bundled_graph_is_understood() -> None:
    """The model inside the package reads no other file."""
    assert read_structure(BUNDLED_FOLDER / "model.onnx").external_files == ()
