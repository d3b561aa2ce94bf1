"""The precisions of forward passes, by name."""

from __future__ import annotations

from typing import Any, Literal

Precision = Literal["fp32", "bf16", "fp16", "int8", "auto"]
"""`"fp32"` is exact; the others change scores a little; `"auto"` is the fastest on this machine."""


def torch_precision(precision: str, *, on_gpu: bool) -> str:
    """Resolve `"auto"` for torch: bf16 on a GPU that supports it, fp16 on another, fp32 on a CPU."""
    if precision != "auto":
        return precision
    if not on_gpu:
        return "fp32"
    import torch

    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def torch_dtype(precision: str) -> Any:
    """Return torch's type of a resolved precision."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
