"""One shared copy of each model and its settings, loaded once however many ask."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

from langchain_crossrerank.cross_encoders.backends import onnx
from langchain_crossrerank.cross_encoders.loading import load_cross_encoder
from langchain_crossrerank.cross_encoders.model_files import ModelSource
from langchain_crossrerank.errors import ModelNotFoundError
from tests.unit.cross_encoders.loading.stubs import THREADS, MakeFolder, Stub


def test_many_threads_get_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many threads ask first, the model is loaded once and all of them get it."""
    loads: list[Stub] = []
    second = threading.Event()

    class SlowStub(Stub):
        made = loads

        def __init__(self, source: ModelSource, **settings: Any) -> None:
            super().__init__(source, **settings)
            if len(loads) > 1:
                second.set()
            # The door stays open for a second load, which must not come; a good loader only passes the time here.
            second.wait(0.3)

    monkeypatch.setattr(onnx, "OnnxCrossEncoder", SlowStub)
    together = threading.Barrier(THREADS)

    def load(_: int) -> object:
        together.wait(30)
        return load_cross_encoder("bundled")

    with ThreadPoolExecutor(THREADS) as pool:
        models = list(pool.map(load, range(THREADS)))
    assert len(loads) == 1
    assert all(model is loads[0] for model in models)


def test_models_load_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that takes long to load holds up nobody who wants another: here each waits for the other."""
    together = threading.Barrier(2)

    class MeetingStub(Stub):
        made: ClassVar[list[Stub]] = []

        def __init__(self, source: ModelSource, **settings: Any) -> None:
            super().__init__(source, **settings)
            together.wait(30)

    monkeypatch.setattr(onnx, "OnnxCrossEncoder", MeetingStub)
    with ThreadPoolExecutor(2) as pool:
        models = list(pool.map(lambda length: load_cross_encoder("bundled", max_length=length), (64, 128)))
    assert models[0] is not models[1]


def test_the_same_settings_share_a_copy(onnx_stub: type[Stub], make_folder: MakeFolder) -> None:
    """A second call gives the same object, whether the folder comes as string or path."""
    folder = make_folder()
    first = load_cross_encoder(folder, max_length=64)
    assert load_cross_encoder(str(folder), max_length=64) is first
    assert len(onnx_stub.made) == 1


@pytest.mark.parametrize(
    "setting",
    [{"activation": "identity"}, {"max_length": 64}, {"max_batch_tokens": 64}, {"num_threads": 1}, {"backend": "onnx"}],
    ids=str,
)
def test_other_settings_give_another_copy(onnx_stub: type[Stub], setting: dict[str, Any]) -> None:
    """Nobody's model changes because another caller wants other settings."""
    assert load_cross_encoder("bundled", **setting) is not load_cross_encoder("bundled")
    assert len(onnx_stub.made) == 2


def test_a_relative_folder_means_the_folder_of_the_moment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, onnx_stub: type[Stub]
) -> None:
    """The same relative name in another working directory is another model."""
    models = []
    for place in ("one", "two"):
        (tmp_path / place / "model").mkdir(parents=True)
        (tmp_path / place / "model" / "model.onnx").touch()
        monkeypatch.chdir(tmp_path / place)
        models.append(load_cross_encoder("./model"))
    assert models[0] is not models[1]
    assert [stub.source.folder.parent.name for stub in onnx_stub.made] == ["one", "two"]  # type: ignore[union-attr]


def test_a_failed_load_is_not_remembered(make_folder: MakeFolder, onnx_stub: type[Stub]) -> None:
    """Who puts the missing file there and asks again gets the model."""
    folder = make_folder("model.onnx")
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(ModelNotFoundError):
        load_cross_encoder(folder)
    folder.with_name("elsewhere").rename(folder)
    assert load_cross_encoder(folder, backend="onnx") is onnx_stub.made[0]
