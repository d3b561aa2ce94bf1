"""A model's files, and what they say of its unit, length, head and tokens."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from langchain_crossrerank.cross_encoders.graph_files import EXACT_GRAPHS, SPARSE_GRAPH, choose_graph
from langchain_crossrerank.cross_encoders.head_modules import (
    has_head_modules,
    module_files,
    read_head,
    read_modules,
)
from langchain_crossrerank.cross_encoders.languages import card_languages
from langchain_crossrerank.cross_encoders.model_config import (
    DenseConfig,
    SentenceBertConfig,
    SentenceTransformersConfig,
    TokenizerConfig,
    TransformerConfig,
    read_description,
    read_json,
)
from langchain_crossrerank.cross_encoders.scores import Activation, relevant_label
from langchain_crossrerank.errors import ModelNotFoundError, UnsupportedModelError
from langchain_crossrerank.onnx_graphs.head_layers import Layer

BUNDLED = "bundled"
"""The name of the models inside this package, of the cross-encoder and of the embeddings."""

_MODELS = Path(__file__).parent.parent / "models"
BUNDLED_FOLDER = _MODELS / "minilm-l6-en-v2"
BUNDLED_EMBEDDINGS_FOLDER = _MODELS / "all-minilm-l6-v2"

_BUNDLED_LANGUAGES = ("en",)
"""The languages of its card, so that it loads without a parser of cards."""

DESCRIPTION_FILES = (
    "config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "modules.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "adapter_config.json",
)
"""What is read of a model in addition to its graph and its modules: settings and tokenizer."""

LEAST_LENGTH = 8
"""Tokens below which a model has no room for texts beside its special tokens."""

_NO_LIMIT = 10**9
_DEFAULT_LENGTH = 512
MAX_DEFAULT_LENGTH = 8192
"""Tokens that are read by default of a model that sets no limit."""

# These count positions from behind the padding id.
_SHIFTED_POSITIONS = {
    *("roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "camembert", "mpnet", "longformer"),
    *("data2vec-text", "ibert", "luke", "xmod"),
}
_NO_POSITION_TABLE = {"modernbert", "xlnet", "nomic_bert", "qwen2", "qwen3", "llama", "gemma", "gemma2", "gemma3"}

_logger = logging.getLogger(__name__)


def bundled_name(file_name: str | None) -> str:
    """Return the name of the bundled cross-encoder, or that of a part of it: `"bundled/sparse.onnx"`.

    Args:
        file_name: The graph that was asked for; `None` for the whole model's.
    """
    return BUNDLED if file_name in (None, EXACT_GRAPHS[0]) else f"{BUNDLED}/{file_name}"


@dataclass(frozen=True)
class ModelSource:
    """A model's name and where its files are.

    Attributes:
        name: What the caller asked for.
        folder: The folder with `config.json` and `tokenizer.json`, with links and `..` resolved.
        file_name: The graph that the caller asked for, relative to the folder; `None` for the best one there.
        commit: The commit on the hub that the files are from; `None` for a folder.
    """

    name: str
    folder: Path
    file_name: str | None = field(default=None, kw_only=True)
    commit: str | None = field(default=None, kw_only=True)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The model's `config.json`, unchecked."""
        self._check_there("config.json")
        content = read_json(self.folder / "config.json")
        if not isinstance(content, dict):
            raise UnsupportedModelError(
                f"{self.folder / 'config.json'} does not contain a JSON object; fetch or export the model again."
            )
        return content

    @cached_property
    def settings(self) -> TransformerConfig:
        """The fields of `config.json` that are read here, checked."""
        self._check_there("config.json")
        return read_description(self.folder / "config.json", TransformerConfig)

    @cached_property
    def tokenizer_settings(self) -> TokenizerConfig:
        """The fields of `tokenizer_config.json` that are read here, checked."""
        return read_description(self.folder / "tokenizer_config.json", TokenizerConfig)

    @cached_property
    def sentence_transformers(self) -> SentenceTransformersConfig:
        """The fields of `config_sentence_transformers.json` that are read here, checked."""
        return read_description(self.folder / "config_sentence_transformers.json", SentenceTransformersConfig)

    @property
    def is_bundled(self) -> bool:
        """Whether this is a model inside the package, whose files are trusted as its code is."""
        return self.folder in (BUNDLED_FOLDER, BUNDLED_EMBEDDINGS_FOLDER)

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that the model's card lists, as ISO 639 codes; empty if it lists none."""
        return _BUNDLED_LANGUAGES if self.is_bundled else card_languages(self.folder)

    @property
    def description_files(self) -> list[Path]:
        """Every file other than the graph that affects a score."""
        return [self.folder / name for name in (*DESCRIPTION_FILES, *module_files(self.folder))]

    @cached_property
    def onnx_file(self) -> Path | None:
        """The ONNX graph, or `None` if there is none.

        Raises:
            ModelNotFoundError: If the graph that was asked for is not there, or there are several and none has one of
                the usual names.
        """
        if self.file_name is None:
            chosen = choose_graph(self._graphs, self.name)
        elif self.file_name in self._graphs:
            chosen = self.file_name
        else:
            raise ModelNotFoundError(
                f"the model {self.name!r} has no graph {self.file_name!r}; it has {', '.join(self._graphs) or 'none'}."
            )
        return self.folder / chosen if chosen else None

    @cached_property
    def _graphs(self) -> list[str]:
        found = [*self.folder.glob("*.onnx"), *self.folder.glob("onnx/*.onnx")]
        return sorted(self.relative(path) for path in found if path.is_file())

    @property
    def prefers_graph(self) -> bool:
        """Whether the graph is the best form of this model: it was asked for, is exact, or there is nothing else."""
        if self.onnx_file is None:
            return False
        has_weights = any(self.folder.glob("*.safetensors"))
        return self.file_name is not None or self._is_exact(self.onnx_file) or not has_weights

    def warn_if_rough(self, graph: Path) -> None:
        """Warn if a graph that nobody asked for may give other scores than the full model."""
        if self.file_name is None and not self._is_exact(graph):
            _logger.warning(
                "%r has no model.onnx, so %s is run; scores may differ from those of the full model.",
                self.name,
                self.relative(graph),
            )

    def _is_exact(self, graph: Path) -> bool:
        return self.relative(graph) in EXACT_GRAPHS

    def relative(self, path: Path) -> str:
        """Return a file's name relative to the model's folder, with forward slashes."""
        return path.relative_to(self.folder).as_posix()

    @property
    def tokenizer_file(self) -> Path:
        """The fast tokenizer's file.

        Raises:
            ModelNotFoundError: If there is none.
        """
        self._check_there("tokenizer.json")
        return self.folder / "tokenizer.json"

    @property
    def activation(self) -> Activation:
        """The activation that the model's config asks for, by the rule of sentence-transformers.

        That rule: `activation_fn` of `config_sentence_transformers.json`, else `sentence_transformers.activation_fn`
        of the config, else the older `sbert_ce_default_activation_function`; without any, sigmoid for one label and
        identity for more. The graph of a sparse branch alone computes a summand of the logit, so it is identity.
        """
        if self.file_name == SPARSE_GRAPH:
            return "identity"
        saved = self.settings.sentence_transformers or {}
        # Releases from 6 on write it into a file of their own.
        own = self.sentence_transformers
        named = (own.activation_fn, saved.get("activation_fn"), self.settings.sbert_ce_default_activation_function)
        units = [self._unit(name) for name in named if name is not None]
        return units[0] if units else "sigmoid" if self.num_labels == 1 else "identity"

    @property
    def default_prompt(self) -> str:
        """What sentence-transformers puts before each query; empty if nothing."""
        saved = self.sentence_transformers
        is_read = saved.model_type == "CrossEncoder" and (self.folder / "modules.json").is_file()
        if not is_read or saved.default_prompt_name is None:
            return ""
        return (saved.prompts or {}).get(saved.default_prompt_name) or ""

    def saved_prompt(self, *names: str) -> str:
        """Return the first prompt that is saved under one of these names for texts to embed; empty if none is."""
        saved = self.sentence_transformers.prompts or {}
        # Not the first name: sentence-transformers saves an empty `document` with every model.
        return next((prompt for name in names if (prompt := saved.get(name))), "")

    @property
    def has_chat_template(self) -> bool:
        """Whether query and passage are put into a chat template, which only the torch backend can do."""
        files = (self.folder / "chat_template.jinja", self.folder / "chat_template.json")
        return bool(self.tokenizer_settings.chat_template) or any(file.is_file() for file in files)

    def _unit(self, named: object) -> Activation:
        kind = str(named).rsplit(".", 1)[-1]
        if kind in ("Sigmoid", "Identity"):
            return "sigmoid" if kind == "Sigmoid" else "identity"
        raise UnsupportedModelError(
            f"{self.name!r} asks for the activation {named!r}, which is not known here; "
            'pass activation="identity" or activation="sigmoid".'
        )

    @cached_property
    def head(self) -> tuple[Layer, ...]:
        """The layers that follow the transformer in a modular model; see `head_modules.read_head`."""
        return read_head(self.folder, self.name)

    @property
    def num_labels(self) -> int:
        """Outputs of the model's head, as its files say; 2 if they do not, as in transformers."""
        if has_head_modules(self.folder):
            last = self.folder / read_modules(self.folder)[-1].path / "config.json"
            return read_description(last, DenseConfig).out_features
        return self.settings.num_labels or len(self.settings.id2label or ()) or 2

    @property
    def relevant_label(self) -> int:
        """Which of two labels means relevant; see `scores.relevant_label`."""
        return relevant_label(self.settings.id2label)

    @property
    def pad_token_id(self) -> int:
        """The id that fills up shorter pairs of a batch."""
        return max(0, self.settings.pad_token_id or 0)

    @property
    def first_position(self) -> int:
        """The number of the first token's position."""
        is_shifted = self.settings.model_type in _SHIFTED_POSITIONS
        padding = self.settings.pad_token_id
        return (1 if padding is None else padding) + 1 if is_shifted else 0

    @property
    def sends_segments(self) -> bool:
        """Whether the tokenizer sends `token_type_ids`; a model whose tokenizer does not gets zeros."""
        names = self.tokenizer_settings.model_input_names
        return names is None or "token_type_ids" in names

    @property
    def reads_lower_case(self) -> bool:
        """Whether texts are lower-cased before they are tokenised, whatever the tokenizer does itself."""
        return read_description(self.folder / "sentence_bert_config.json", SentenceBertConfig).do_lower_case

    @property
    def position_limit(self) -> int | None:
        """The most tokens that the model has positions for; `None` for any number."""
        positions = self.settings.max_position_embeddings
        if not positions or positions < 0:
            return None
        return int(positions) - self.first_position

    @property
    def max_length(self) -> int:
        """The tokens of a pair that are read unless the caller says otherwise.

        That is the tokenizer's own limit or that of the positions, whichever is lower, as in sentence-transformers;
        `max_seq_length` of `sentence_bert_config.json` replaces the tokenizer's. If nothing is said, 512, or
        `MAX_DEFAULT_LENGTH` for models without a table of positions.

        Raises:
            UnsupportedModelError: If it is too small for a query and a passage.
        """
        own = read_description(self.folder / "sentence_bert_config.json", SentenceBertConfig).max_seq_length
        limit = own or self.tokenizer_settings.model_max_length or self.settings.max_length
        # Tokenizers without a limit of their own say 1e30.
        limits = [each for each in (limit, self.position_limit) if each and each < _NO_LIMIT]
        has_table = self.settings.model_type not in _NO_POSITION_TABLE
        length = int(min(limits, default=_DEFAULT_LENGTH if has_table else MAX_DEFAULT_LENGTH))
        if length < LEAST_LENGTH:
            raise UnsupportedModelError(
                f"{self.name!r} reads {length} tokens by its config, which is too few for a query and a passage; "
                "correct max_length, max_position_embeddings or model_max_length."
            )
        return length

    def usable_length(self, asked: int | None) -> int:
        """Return the tokens of a pair to read: what was asked for, as far as the model has positions.

        Args:
            asked: What the caller asked for, which may be above the tokenizer's own limit; `None` for the default.
        """
        if asked is None:
            return self.max_length
        kind = self.settings.model_type
        has_table = kind not in _NO_POSITION_TABLE and (kind != "deberta-v2" or self.settings.position_biased_input)
        limit = self.position_limit if has_table else None
        if limit is None or asked <= limit:
            return asked
        _logger.warning(
            "max_length=%d is above the %d positions of %r; %d tokens of a pair are read.",
            asked,
            limit,
            self.name,
            limit,
        )
        return limit

    @property
    def is_causal(self) -> bool:
        """Whether the weights are those of a causal language model."""
        return any(name.endswith("ForCausalLM") for name in self.settings.architectures or ())

    def check_classifier(self) -> None:
        """Raise if the weights have no classification head, which loading would make up at random.

        Raises:
            UnsupportedModelError: Naming the architecture.
        """
        architectures = self.settings.architectures or []
        if architectures and not any(name.endswith("ForSequenceClassification") for name in architectures):
            raise UnsupportedModelError(
                f"{self.name!r} holds a {architectures[0]}, which has no classification head, so every score would be "
                "random; it may be an embedding model. Pass a cross-encoder."
            )

    def _check_there(self, file: str) -> None:
        if (self.folder / file).is_file():
            return
        if file == "config.json" and (self.folder / "adapter_config.json").is_file():
            base = str(_adapter_base(self.folder / "adapter_config.json"))
            raise UnsupportedModelError(
                f"{self.name!r} is a LoRA adapter for {base!r}, not a model; merge it into its base with peft "
                "(`model.merge_and_unload().save_pretrained(folder)`, and save the tokenizer there), then load it."
            )
        present = ", ".join(sorted(path.name for path in self.folder.iterdir())[:12]) or "nothing"
        raise ModelNotFoundError(
            f"the model {self.name!r} has no {file} in {self.folder} (there: {present}); "
            "a model folder needs config.json, tokenizer.json and its weights."
        )


def _adapter_base(file: Path) -> object:
    content = read_json(file)
    return content.get("base_model_name_or_path") if isinstance(content, dict) else None
