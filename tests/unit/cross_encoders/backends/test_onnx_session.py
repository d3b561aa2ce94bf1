"""An open graph: the options of its runs."""

from __future__ import annotations

import pytest

from langchain_crossrerank.cross_encoders.backends.onnx_session import _run_options


@pytest.mark.parametrize(("shape", "is_large"), [((1, 512), False), ((64, 16), False), ((1, 4096), True)])
def test_memory_of_large_passes_is_given_back(shape: tuple[int, int], is_large: bool) -> None:
    """Only after a large forward pass is the arena's memory returned, because that takes time."""
    options, key = _run_options(shape), "memory.enable_memory_arena_shrinkage"
    if is_large:
        assert options.get_run_config_entry(key) == "cpu:0"
    else:
        with pytest.raises(RuntimeError):
            options.get_run_config_entry(key)
