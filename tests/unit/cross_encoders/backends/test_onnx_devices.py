"""The device that onnxruntime runs a graph on."""

from __future__ import annotations

import logging
from collections.abc import Callable

import onnxruntime
import pytest

from langchain_crossrerank.cross_encoders.backends import onnx_devices
from langchain_crossrerank.cross_encoders.backends.onnx_devices import choose_device
from langchain_crossrerank.errors import InvalidInputError


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool, bool], None]:
    """Say whether there is a GPU, and whether onnxruntime can use it."""

    def set_machine(gpu: bool, cuda: bool) -> None:
        providers = [*(["CUDAExecutionProvider"] if cuda else []), "CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
        monkeypatch.setattr(onnx_devices, "has_nvidia_gpu", lambda: gpu)

    return set_machine


@pytest.mark.parametrize(
    ("gpu", "cuda", "asked", "chosen"),
    [
        (True, True, None, "cuda"),
        (True, True, "cpu", "cpu"),
        (True, True, "cuda:1", "cuda:1"),
        (True, False, None, "cpu"),
        (False, True, None, "cpu"),
        (False, False, None, "cpu"),
    ],
)
def test_a_gpu_is_used_if_it_can_be(
    machine: Callable[[bool, bool], None],
    caplog: pytest.LogCaptureFixture,
    gpu: bool,
    cuda: bool,
    asked: str | None,
    chosen: str,
) -> None:
    """Without a wish the GPU is taken if onnxruntime can use it; one that it cannot use is warned of."""
    machine(gpu, cuda)
    with caplog.at_level(logging.WARNING):
        assert choose_device(asked) == chosen
    assert ("onnxruntime-gpu" in caplog.text) is (gpu and not cuda and asked is None)


@pytest.mark.parametrize("asked", ["cuda", "cuda:0", "mps"])
def test_a_device_that_cannot_be_used_is_refused(machine: Callable[[bool, bool], None], asked: str) -> None:
    """A device that was asked for is never replaced in silence."""
    machine(True, False)
    with pytest.raises(InvalidInputError, match=asked):
        choose_device(asked)
