"""What forward passes compute in, by name."""

from __future__ import annotations

from typing import Any, Literal

Precision = Literal["fp32", "bf16", "fp16", "int8", "auto"]
"""`"fp32"` is exact; the others move scores a little; `"auto"` is what is fastest on this machine."""


def torch_dtype(precision: str, *, on_gpu: bool) -> Any:
    """Give torch's type; for `"auto"` bf16 on a GPU that has it, fp16 on another, fp32 on a CPU."""
    import torch

    if precision == "auto":
        if not on_gpu:
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
