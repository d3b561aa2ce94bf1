"""The devices that the installed onnxruntime can run a graph on."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import onnxruntime

from langchain_crossrerank.errors import InvalidInputError

_GPU = Path("/dev/nvidiactl")

_logger = logging.getLogger(__name__)


def providers(device: str) -> list[Any]:
    """Return the execution providers of a device, in the order in which onnxruntime tries them."""
    kind, _, number = device.partition(":")
    cuda: list[Any] = [("CUDAExecutionProvider", {"device_id": int(number or 0)})] if kind == "cuda" else []
    return [*cuda, "CPUExecutionProvider"]


def choose_device(device: str | None) -> str:
    """Return the device that onnxruntime runs on: the one that was asked for, else a GPU if it can use one.

    Raises:
        InvalidInputError: If the installed onnxruntime cannot use the device.
    """
    available = onnxruntime.get_available_providers()
    has_cuda = "CUDAExecutionProvider" in available
    if device is None:
        if not has_cuda and has_nvidia_gpu():
            _logger.warning(
                "This machine has an NVIDIA GPU, which the installed onnxruntime does not use; install "
                "onnxruntime-gpu instead of onnxruntime, or pass device='cpu' to silence this warning."
            )
        return "cuda" if has_cuda and has_nvidia_gpu() else "cpu"
    if device != "cpu" and not (device.startswith("cuda") and has_cuda):
        raise InvalidInputError(
            f"device is {device!r}, which this onnxruntime cannot use (it has {', '.join(available)}); "
            'use "cpu", install onnxruntime-gpu, or use backend="torch".'
        )
    return device


def has_nvidia_gpu() -> bool:
    """Return whether an NVIDIA GPU can be reached from this process."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1") and _GPU.exists()
