"""Models that can be trained: sequence-classification cross-encoders of transformers, and warm-started ones."""

from __future__ import annotations

import copy
import json
import re
import shutil
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Encoding, Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn

from langchain_crossrerank.checks import cut
from langchain_crossrerank.cross_encoders.export import PARITY_PAIRS, PARITY_TOLERANCE, ExportedGraph, export_onnx
from langchain_crossrerank.cross_encoders.model_files import ModelSource
from langchain_crossrerank.cross_encoders.pairs import TextPair
from langchain_crossrerank.cross_encoders.truncation import LONGEST_QUERY_SHARE, Spans, cut_middle
from langchain_crossrerank.errors import ModelNotFoundError, UnsupportedModelError
from langchain_crossrerank.onnx_graphs.splitting import keep_as_inner_tensors
from langchain_crossrerank.onnx_graphs.tensor_names import QUERY_TERMS, SPARSE_SCORES, STATES
from langchain_crossrerank.training.warm_start import WarmStartCrossEncoder

WARM_START = "CrossRerankWarmStart"
"""The architecture that `config.json` names for warm-started models."""

WEIGHTS = "model.safetensors"


class Trainable(ABC):
    """A network with its tokenizer, to be trained and exported.

    Attributes:
        network: Maps `input_ids`, `attention_mask` and `token_type_ids` to logits of shape (pairs, 1).
        tokenizer: Encodes a pair by its own template.
        max_length: Maximum number of tokens of a pair; a query may take half of them, as in a `CrossEncoder`.
        pad_id: Id of the padding token.
    """

    def __init__(self, network: nn.Module, tokenizer: Tokenizer, *, max_length: int, pad_id: int = 0) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.pad_id = pad_id
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._uncut = Tokenizer.from_str(tokenizer.to_str())
        tokenizer.enable_truncation(max_length, strategy="only_second")
        around = tokenizer.num_special_tokens_to_add(is_pair=True)
        self._query_budget = max(1, min(int(LONGEST_QUERY_SHARE * max_length), max_length - around - 1))

    @abstractmethod
    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return the parameters to train, grouped for the optimiser; all others are frozen."""

    @abstractmethod
    def rescale(self, factor: float, shift: float) -> None:
        """Change the head so that every logit becomes `factor * logit + shift`."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write `model.onnx`, `config.json`, `tokenizer.json` and `model.safetensors` into a folder."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Compute logits of shape (pairs, 1)."""
        logits: Tensor = self.network(input_ids, attention_mask, token_type_ids)
        return logits

    def logits(self, pairs: Sequence[TextPair]) -> Tensor:
        """Score pairs in one forward pass.

        Returns:
            Float32 logits of shape (pairs,).
        """
        encoded = self._encode(pairs)
        shape = (len(encoded), max(len(entry.ids) for entry in encoded))
        input_ids = torch.full(shape, self.pad_id)
        attention_mask = torch.zeros(shape, dtype=torch.long)
        token_type_ids = torch.zeros(shape, dtype=torch.long)
        for row, entry in enumerate(encoded):
            tokens = len(entry.ids)
            input_ids[row, :tokens] = torch.tensor(entry.ids)
            token_type_ids[row, :tokens] = torch.tensor(entry.type_ids)
            attention_mask[row, :tokens] = 1
        return self.forward(input_ids, attention_mask, token_type_ids).float().squeeze(1)

    def all_logits(self, pairs: Sequence[TextPair], max_batch_tokens: int = 4096) -> Tensor:
        """Score pairs in several forward passes, each with pairs of similar length.

        Returns:
            Float32 logits of shape (pairs,).
        """
        order: list[int] = []
        parts: list[Tensor] = []
        for batch in self.batches(pairs, max_batch_tokens):
            parts.append(self.logits([pairs[place] for place in batch]))
            order += batch
        return torch.cat(parts)[torch.tensor(order).argsort()]

    def frozen(self) -> Trainable:
        """Return a copy whose weights are its own and are never trained."""
        twin = copy.copy(self)
        twin.network = copy.deepcopy(self.network).eval().requires_grad_(False)
        return twin

    def batches(self, pairs: Sequence[TextPair], max_batch_tokens: int) -> Iterator[list[int]]:
        """Yield the positions of pairs of similar length, as many as fit into a pass; longer ones alone."""
        lengths = [len(entry.ids) for entry in self._encode(pairs)]
        batch: list[int] = []
        for place in sorted(range(len(pairs)), key=lambda place: (lengths[place], place)):
            if batch and (len(batch) + 1) * lengths[place] > max_batch_tokens:
                yield batch
                batch = []
            batch.append(place)
        if batch:
            yield batch

    def _encode(self, pairs: Sequence[TextPair]) -> list[Encoding]:
        """Encode pairs as a cross-encoder does: a long query loses its middle, a long passage its end."""
        queries = {query: cut_middle(query, self._query_budget, self._spans) for query in {query for query, _ in pairs}}
        return self.tokenizer.encode_batch([(queries[query], passage) for query, passage in pairs])

    def _spans(self, text: str) -> Spans:
        return self._uncut.encode(text, add_special_tokens=False).offsets


class HuggingFaceModel(Trainable):
    """A sequence-classification model of transformers with one label.

    Args:
        name: A folder or a hub name.
        source: Its files.
        max_length: Maximum number of tokens of a pair; capped at what the model reads.
    """

    def __init__(self, name: str, source: ModelSource, max_length: int) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            network = AutoModelForSequenceClassification.from_pretrained(
                source.folder, use_safetensors=True, dtype=torch.float32
            )
            self._tokenizer = AutoTokenizer.from_pretrained(source.folder)
        except OSError as err:
            raise ModelNotFoundError(f"cannot load {name!r} to train it: {str(err).splitlines()[0]}") from err
        except Exception as err:  # transformers raises almost anything for files that do not fit together
            reason = cut(" ".join(str(err).split()), 200)
            raise UnsupportedModelError(
                f"cannot train {name!r} ({type(err).__name__}: {reason}); check the files in {source.folder}, or fetch "
                "or export them again."
            ) from err
        if network.config.num_labels != 1:
            raise UnsupportedModelError(
                f"{name!r} has {network.config.num_labels} labels; training needs a head with one relevance logit. "
                "Load it with num_labels=1, save it, and train that folder."
            )
        if not self._tokenizer.is_fast:
            raise UnsupportedModelError(f"{name!r} has no fast tokenizer (tokenizer.json); save one to its folder.")
        self._classifier: Any = network
        tokenizer = Tokenizer.from_str(self._tokenizer.backend_tokenizer.to_str())
        self._inputs = [key for key in self._tokenizer.model_input_names if key != "input_ids"]
        super().__init__(
            network, tokenizer, max_length=min(max_length, source.max_length), pad_id=network.config.pad_token_id or 0
        )

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return all parameters; biases and norms have no weight decay."""
        plain = [value for value in self.network.parameters() if value.ndim > 1]
        small = [value for value in self.network.parameters() if value.ndim <= 1]
        return [
            {"params": plain, "lr": learning_rate, "weight_decay": 0.01},
            {"params": small, "lr": learning_rate, "weight_decay": 0.0},
        ]

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Compute logits of shape (pairs, 1)."""
        features = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
        known = {key: features[key] for key in self._inputs if key in features}
        logits: Tensor = self.network(input_ids, **known).logits
        return logits

    def rescale(self, factor: float, shift: float) -> None:
        """Change the last linear layer with one output, which computes the logit in every such model."""
        head = [part for part in self.network.modules() if isinstance(part, nn.Linear) and part.out_features == 1][-1]
        with torch.no_grad():
            head.weight.mul_(factor)
            if head.bias is None:
                head.bias = nn.Parameter(torch.zeros(1))
            head.bias.mul_(factor).add_(shift)

    def export(self, folder: Path) -> None:
        """Write the folder, with the weights to train again."""
        staging = folder / ".hf"
        self._classifier.save_pretrained(staging)
        self._tokenizer.save_pretrained(staging)
        export_onnx(str(staging), folder / ".onnx")
        for file in (*(folder / ".onnx").iterdir(), staging / WEIGHTS):
            file.rename(folder / file.name)
        shutil.rmtree(staging)
        shutil.rmtree(folder / ".onnx")


class WarmStartModel(Trainable):
    """A warm-started model, from a bi-encoder or from a folder that training wrote.

    Args:
        network: The network.
        tokenizer: The bi-encoder's; it gets a template for pairs.
        max_length: Maximum number of tokens of a pair.
        fresh: Whether the layers that the bi-encoder does not have are still at their initial values.

    Raises:
        ValueError: If the tokenizer is not one for the network.
    """

    network: WarmStartCrossEncoder

    def __init__(
        self, network: WarmStartCrossEncoder, tokenizer: Tokenizer, *, max_length: int, fresh: bool = False
    ) -> None:
        ids = tokenizer.get_vocab()
        special = [(token, ids.get(token, network.config.vocab_size)) for token in ("[CLS]", "[SEP]")]
        beyond = [token for token, number in (*special, *ids.items()) if number >= network.config.vocab_size]
        if beyond:
            raise ValueError(f"the network has {network.config.vocab_size} tokens, and {beyond[0]!r} is none of them")
        tokenizer.post_processor = TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] [CLS]:1 $B:1 [SEP]:1", special_tokens=special
        )
        super().__init__(network, tokenizer, max_length=max_length)
        self.fresh = fresh

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return the layers in which query and passage meet, and the new ones, which learn faster; freeze the rest."""
        network = self.network
        upper = list(network.layers)[network.config.separate_layers :]
        layers = [value for layer in upper for value in layer.parameters()]
        if network.sparse is not None:
            layers += network.sparse.parameters()
        chosen = {id(value) for value in layers}
        bottom = re.compile(r"(words|positions|types|embedding_norm|layers)\.")
        new = []
        for name, value in network.named_parameters():
            if bottom.match(name):
                value.requires_grad_(id(value) in chosen)
            elif name != "idf" and not name.startswith("sparse."):
                new.append(value)
        return [
            {"params": layers, "lr": learning_rate, "weight_decay": 0.01},
            {"params": new, "lr": learning_rate * 5, "weight_decay": 0.0},
            {"params": [network.idf], "lr": learning_rate * 50, "weight_decay": 0.0},
        ]

    def weigh_tokens(self, passages: Sequence[str]) -> None:
        """Set each token's initial weight to its inverse document frequency in passages."""
        found = torch.zeros(self.network.config.vocab_size)
        for start in range(0, len(passages), 2000):
            for entry in self._uncut.encode_batch(list(passages[start : start + 2000]), add_special_tokens=False):
                found[list(set(entry.ids))] += 1
        idf = torch.log(1 + (len(passages) - found + 0.5) / (found + 0.5))
        with torch.no_grad():
            self.network.idf.copy_(idf)

    def rescale(self, factor: float, shift: float) -> None:
        """Change the layers whose sum is the logit."""
        network = self.network
        parts = (network.scale, network.bias, *network.matching.parameters(), *network.pointer.parameters())
        with torch.no_grad():
            for value in (*parts, *network.reading[-1].parameters()):
                value.mul_(factor)
            if network.sparse is not None:
                network.sparse.weight.mul_(factor)
            network.bias.add_(shift)

    def export(self, folder: Path) -> None:
        """Write the folder, with the weights to train again."""
        network = self.network
        described = {
            "model_type": "bert",
            "architectures": [WARM_START],
            "num_labels": 1,
            "max_length": self.max_length,
            "pad_token_id": self.pad_id,
            **asdict(network.config),
            "sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"},
        }
        (folder / "config.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
        self._uncut.save(str(folder / "tokenizer.json"))
        save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / WEIGHTS)
        example = self._encode(PARITY_PAIRS[:2])
        tokens = min(len(entry.ids) for entry in example)
        inputs = tuple(
            torch.tensor([getattr(entry, kind)[:tokens] for entry in example])
            for kind in ("ids", "attention_mask", "type_ids")
        )
        names = ["input_ids", "attention_mask", "token_type_ids"]
        inner = STATES[:1] if network.sparse is None else (*STATES, QUERY_TERMS, SPARSE_SCORES)
        traced = _WithInnerTensors(network.config)
        traced.load_state_dict(network.state_dict())
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # The tracing exporter keeps batch and length free and needs no onnxscript.
            torch.onnx.export(
                traced.eval(),
                inputs,
                str(folder / "model.onnx"),
                input_names=names,
                output_names=["logits", *inner],
                dynamic_axes={name: {0: "batch", 1: "tokens"} for name in [*names, *inner]}
                | {name: {0: "batch"} for name in ("logits", SPARSE_SCORES)},
                opset_version=17,
                dynamo=False,
            )
        keep_as_inner_tensors(folder / "model.onnx", inner)
        exported = ExportedGraph(ModelSource(str(folder), folder), activation="identity")
        with torch.no_grad():
            expected = [float(self.logits([pair])[0]) for pair in PARITY_PAIRS]
        difference = max(abs(a - b) for a, b in zip(expected, exported.score(PARITY_PAIRS), strict=True))
        if difference > 10 * PARITY_TOLERANCE:
            raise UnsupportedModelError(
                f"the exported graph differs from torch by {difference:.2g} in logits, so nothing was exported; report "
                "this as a bug."
            )


class _WithInnerTensors(WarmStartCrossEncoder):
    """Returns inner tensors, too, so that they have names in the exported graph."""

    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> tuple[Tensor, ...]:
        return self.logits_and_states(input_ids, attention_mask, token_type_ids)
