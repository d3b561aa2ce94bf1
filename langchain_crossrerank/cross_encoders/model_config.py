"""What a model's description files say: labels, unit, lengths and tokens, read through one validated reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from langchain_crossrerank.checks import shorten
from langchain_crossrerank.errors import UnsupportedModelError
from langchain_crossrerank.files import open_regular

LARGEST_FILE = 64 * 2**20
"""Maximum bytes of a description file."""

_Model = TypeVar("_Model", bound=BaseModel)
_Length = Annotated[float, Field(ge=1)]


class _Description(BaseModel):
    # Built at the first use: a model has some of these files, and none of them is needed before one is loaded.
    model_config = ConfigDict(strict=True, extra="ignore", defer_build=True)


class TransformerConfig(_Description):
    """The fields of `config.json` that are read here, under transformers' names."""

    model_type: str | None = None
    architectures: list[str] | None = None
    auto_map: dict[str, Any] | None = None
    num_labels: Annotated[int, Field(ge=0)] | None = None
    id2label: dict[str, Any] | None = None
    max_length: _Length | None = None
    max_position_embeddings: Annotated[float, Field(ge=-1)] | None = None
    position_biased_input: bool = True
    pad_token_id: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    vocab_size: Annotated[int, Field(ge=1)] | None = None
    num_attention_heads: Annotated[int, Field(ge=1)] | None = None
    sentence_transformers: dict[str, Any] | None = None
    sbert_ce_default_activation_function: str | None = None


class TokenizerConfig(_Description):
    """The fields of `tokenizer_config.json` that are read here, under transformers' names."""

    tokenizer_class: str | None = None
    model_max_length: _Length | None = None
    model_input_names: list[str] | None = None
    truncation_side: str = "right"
    padding_side: str = "right"
    do_lower_case: bool | None = None
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool = True
    chat_template: Any = None


class SentenceTransformersConfig(_Description):
    """The fields of `config_sentence_transformers.json` that are read here."""

    activation_fn: str | None = None
    model_type: str | None = None
    prompts: dict[str, str | None] | None = None
    default_prompt_name: str | None = None
    truncate_dim: Annotated[int, Field(ge=1)] | None = None


class SentenceBertConfig(_Description):
    """The fields of `sentence_bert_config.json` that are read here."""

    max_seq_length: _Length | None = None
    do_lower_case: bool = False


class DenseConfig(_Description):
    """The fields of a Dense module's `config.json` that are read here; other modules have one output."""

    out_features: Annotated[int, Field(ge=1)] = 1


def read_json(path: Path) -> Any:
    """Read a JSON file that nobody vouches for.

    Raises:
        UnsupportedModelError: If it is not a regular file, is too large, or is not valid JSON.
    """
    try:
        with open_regular(path) as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise ValueError(f"it has more than {LARGEST_FILE // 2**20} MiB")
        return json.loads(content.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as err:
        raise UnsupportedModelError(
            f"{path} is not valid JSON ({type(err).__name__}: {err}); fetch or export the model again."
        ) from err


def read_description(path: Path, kind: type[_Model]) -> _Model:
    """Read and check a description file; a file that does not exist leaves every field at its default.

    Args:
        path: The file.
        kind: The model of its fields.

    Raises:
        UnsupportedModelError: If it is not a JSON object, or a field has an impossible value.
    """
    if not path.is_file():
        return kind.model_construct()
    content = read_json(path)
    if not isinstance(content, dict):
        raise UnsupportedModelError(f"{path} does not contain a JSON object; fetch or export the model again.")
    try:
        return kind.model_validate(content)
    except ValidationError as err:
        problem = err.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        said = f"says {field}={shorten(problem['input'])}, which is not possible ({problem['msg']})"
        if problem["type"] == "missing":
            said = f"does not say {field}"
        raise UnsupportedModelError(f"{path} {said}; fetch or export the model again.") from err
