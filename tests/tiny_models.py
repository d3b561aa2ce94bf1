"""Tiny random models of every family of cross-encoders, saved in the files that their counterparts on the hub have.

Tokenizers have fixed vocabularies: one that is trained on the spot differs from run to run.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.cross_encoder.modules.logit_score import LogitScore
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

MAX_LENGTH = 160
"""Tokens that the encoders read."""

MAX_PROMPT_LENGTH = 512
"""Tokens that the decoders read."""

_VOCABULARY = (
    "what is lora who wrote hamlet how do plants make food the a of and by trains two small matrices ferry leaves "
    "at nine tragedy william shakespeare from light water air paris capital france emoji text right to left given "
    "web search query retrieve relevant passages that answer document instruct judge yes no Yes No"
)
_WORDS = _VOCABULARY.split()
_LETTERS = sorted({*string.ascii_letters, *string.digits, *string.punctuation, *"ïéüß東京日本の首都שלוםкто।"})

_PROMPT_VOCABULARY = (
    "Judge whether the Document meets requirements based Query and Instruct provided Note that answer can only Given "
    "What capital Paris How plants make food Plants photosynthesis user system assistant France"
)
_PROMPT_WORDS = sorted({*re.findall(r"[A-Za-z]{3,}", _VOCABULARY + _PROMPT_VOCABULARY)} - {"yes", "Yes"})

QWEN3_TEMPLATE = (
    "{%- set ns = namespace(system='Given a web search query, retrieve relevant passages that answer the query') -%}"
    "{%- for m in messages -%}{%- if m.role == 'system' -%}{%- set ns.system = m.content -%}"
    "{%- elif m.role == 'query' -%}{%- set ns.q = m.content -%}"
    "{%- elif m.role == 'document' -%}{%- set ns.d = m.content -%}{%- endif -%}{%- endfor -%}"
    '<|im_start|>system\nJudge whether the Document answers. The answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: {{ ns.system }}\n<Query>: {{ ns.q }}\n<Document>: {{ ns.d }}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>{{ '\\n\\n' }}"
)
_PAIR_TEMPLATE = (
    "{%- set ns = namespace() -%}{%- for m in messages -%}{%- if m.role == 'query' -%}{%- set ns.q = m.content -%}"
    "{%- elif m.role == 'document' -%}{%- set ns.d = m.content -%}{%- endif -%}{%- endfor -%}"
)
MXBAI_TEMPLATE = (
    _PAIR_TEMPLATE + "<|im_start|>user\nquery: {{ ns.q }}\ndocument: {{ ns.d }}\nRelevance, 0 or 1:<|im_end|>\n"
    "<|im_start|>assistant{{ '\\n' }}"
)
GEMMA_TEMPLATE = (
    _PAIR_TEMPLATE + "A: {{ ns.q }}\nB: {{ ns.d }}\nDoes the passage contain an answer? Predict either 'Yes' or 'No'."
)
PASSAGE_FIRST_TEMPLATE = _PAIR_TEMPLATE + "Passage: {{ ns.d }}\nQuestion: {{ ns.q }}\nRelevant?"

_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    # Large enough for scores that differ.
    "initializer_range": 0.15,
}
_BERT_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_ROBERTA_TOKENS = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "mask_token": "<mask>",
}
_CHAT_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "yes", "no", "Yes", "No")


def wordpiece_tokenizer(*, segments: bool = True, **settings: Any) -> Any:
    """A tokenizer in the shape of BERT's."""
    pieces = [*_BERT_TOKENS.values(), *_LETTERS, *(f"##{letter}" for letter in _LETTERS), *_WORDS]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
    )
    names = ["input_ids", *(["token_type_ids"] if segments else []), "attention_mask"]
    return _fast(tokenizer, **_BERT_TOKENS, **{"model_input_names": names, "model_max_length": MAX_LENGTH, **settings})


def unigram_tokenizer(style: str, **settings: Any) -> Any:
    """A tokenizer in the shape of SentencePiece, with the special tokens of BERT, RoBERTa, or, `"last"`, XLNet."""
    named = _ROBERTA_TOKENS if style == "roberta" else _BERT_TOKENS
    special = list(dict.fromkeys(named.values()))
    pieces = [*((token, 0.0) for token in special), ("▁", -4.0)]
    pieces += [(letter, -8.0) for letter in _LETTERS] + [(f"▁{word}", -6.0) for word in dict.fromkeys(_WORDS)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=special.index(named["unk_token"])))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    first, last = named["cls_token"], named["sep_token"]
    middle = f"{last} $B:1 {last}:1" if style == "bert" else f"{last} {last} $B {last}"
    single, pair = f"{first} $A {last}", f"{first} $A {middle}"
    if style == "last":
        single, pair = f"$A {last} {first}:2", f"$A {last} $B:1 {last}:1 {first}:2"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(token, special.index(token)) for token in (first, last)]
    )
    names = ["input_ids", *(["token_type_ids"] if style != "roberta" else []), "attention_mask"]
    return _fast(tokenizer, **named, **{"model_input_names": names, "model_max_length": MAX_LENGTH, **settings})


def bytes_tokenizer(style: str, **settings: Any) -> Any:
    """A byte-level tokenizer without merges, for RoBERTa, ModernBERT or decoders with a chat template."""
    named = {"bert": _BERT_TOKENS, "roberta": _ROBERTA_TOKENS, "chat": {"eos_token": "<|endoftext|>"}}[style]
    special = list(dict.fromkeys([*named.values(), *(_CHAT_TOKENS if style == "chat" else ())]))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = {"model_input_names": ["input_ids", "attention_mask"]}
    if style == "chat":
        tokenizer.add_special_tokens(list(_CHAT_TOKENS))
        # Words of the prompts as single tokens keep them short.
        tokenizer.add_tokens([AddedToken(word, single_word=True, normalized=False) for word in _PROMPT_WORDS])
        named = {**named, "pad_token": "<|endoftext|>"}
        return _fast(tokenizer, **named, **{**names, "model_max_length": MAX_PROMPT_LENGTH, **settings})
    first, last = named["cls_token"], named["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B {last}" if style == "bert" else f"{first} $A {last} {last} $B {last}",
        special_tokens=[(token, vocabulary[token]) for token in (first, last)],
    )
    return _fast(tokenizer, **named, **{**names, "model_max_length": MAX_LENGTH, **settings})


def _fast(tokenizer: Tokenizer, **settings: Any) -> Any:
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **settings)


def _classifier(folder: Path, kind: str, tokenizer: Any, *, labels: int = 1, **settings: Any) -> Path:
    torch.manual_seed(0)
    config_class, network_class = (
        getattr(transformers, f"{kind}{part}") for part in ("Config", "ForSequenceClassification")
    )
    config = config_class(**{"vocab_size": len(tokenizer), "num_labels": labels, **_SIZES, **settings})
    config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.1.0"}
    network_class(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_bert(folder: Path, *, labels: int = 1, **settings: Any) -> Path:
    """Save a classifier like cross-encoder/ms-marco-MiniLM-L6-v2."""
    tokenizer = wordpiece_tokenizer()
    return _classifier(folder, "Bert", tokenizer, labels=labels, max_position_embeddings=MAX_LENGTH, **settings)


def save_roberta(folder: Path) -> Path:
    """Save a classifier like cross-encoder/stsb-roberta-base, whose positions start behind the padding id."""
    tokens = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    tokenizer = bytes_tokenizer("roberta")
    return _classifier(
        folder, "Roberta", tokenizer, max_position_embeddings=MAX_LENGTH + 2, type_vocab_size=1, **tokens
    )


def save_xlm_roberta(folder: Path, **tokenizer_settings: Any) -> Path:
    """Save a classifier like BAAI/bge-reranker-v2-m3, whose positions start behind the padding id."""
    tokens = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    tokenizer = unigram_tokenizer("roberta", **tokenizer_settings)
    return _classifier(
        folder, "XLMRoberta", tokenizer, max_position_embeddings=MAX_LENGTH + 2, type_vocab_size=1, **tokens
    )


def save_electra(folder: Path) -> Path:
    """Save a classifier like cross-encoder/ms-marco-electra-base."""
    tokenizer = wordpiece_tokenizer()
    return _classifier(folder, "Electra", tokenizer, embedding_size=32, max_position_embeddings=MAX_LENGTH)


def save_distilbert(folder: Path) -> Path:
    """Save a classifier of DistilBERT, which has no segment ids."""
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
    tokenizer = wordpiece_tokenizer(segments=False)
    return _classifier(folder, "DistilBert", tokenizer, max_position_embeddings=MAX_LENGTH, **sizes)


def save_mpnet(folder: Path) -> Path:
    """Save a classifier of MPNet, whose positions start behind the padding id."""
    tokens = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    tokenizer = unigram_tokenizer("roberta")
    return _classifier(folder, "MPNet", tokenizer, max_position_embeddings=MAX_LENGTH + 2, **tokens)


def save_albert(folder: Path) -> Path:
    """Save a classifier of ALBERT, whose layers share their weights."""
    tokenizer = unigram_tokenizer("bert")
    return _classifier(folder, "Albert", tokenizer, embedding_size=16, max_position_embeddings=MAX_LENGTH)


def save_xlnet(folder: Path) -> Path:
    """Save a classifier of XLNet, which reads its last token, so that padding is on the left."""
    tokenizer = unigram_tokenizer("last", padding_side="left", model_max_length=MAX_LENGTH)
    sizes = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}
    return _classifier(folder, "XLNet", tokenizer, pad_token_id=tokenizer.pad_token_id, **sizes)


def save_deberta(folder: Path) -> Path:
    """Save a classifier like mixedbread-ai/mxbai-rerank-base-v1."""
    settings: dict[str, Any] = {
        "max_position_embeddings": MAX_LENGTH,
        "type_vocab_size": 0,
        "relative_attention": True,
        "position_buckets": 16,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "max_relative_positions": -1,
        "position_biased_input": False,
    }
    return _classifier(folder, "DebertaV2", unigram_tokenizer("bert"), **settings)


def _modernbert_settings(tokenizer: Any) -> dict[str, Any]:
    return {
        "num_hidden_layers": 3,
        "max_position_embeddings": MAX_LENGTH,
        "pad_token_id": tokenizer.pad_token_id,
        "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "local_attention": 16,
        "global_attn_every_n_layers": 2,
    }


def save_modernbert(folder: Path) -> Path:
    """Save a classifier like Alibaba-NLP/gte-reranker-modernbert-base."""
    tokenizer = bytes_tokenizer("bert")
    return _classifier(folder, "ModernBert", tokenizer, **_modernbert_settings(tokenizer))


def save_modular(folder: Path) -> Path:
    """Save modules like cross-encoder/ettin-reranker-32m-v1: ModernBERT, pooling, Dense, LayerNorm, Dense."""
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

    torch.manual_seed(0)
    tokenizer = bytes_tokenizer("bert")
    config = transformers.ModernBertConfig(
        **{"vocab_size": len(tokenizer), **_SIZES, **_modernbert_settings(tokenizer)}
    )
    body = folder.with_name(f"{folder.name}-body")
    transformers.ModernBertModel(config).eval().save_pretrained(body)
    tokenizer.save_pretrained(body)
    modules = [
        Transformer(str(body)),
        Pooling(32, pooling_mode="cls"),
        Dense(32, 32, bias=False, activation_function=torch.nn.GELU()),
        LayerNorm(32),
        Dense(32, 1, activation_function=torch.nn.Identity(), module_output_name="scores"),
    ]
    CrossEncoder(modules=modules, device="cpu", activation_fn=torch.nn.Identity()).save_pretrained(str(folder))
    return folder


def _decoder(folder: Path, kind: str, head: str, template: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    tokenizer = bytes_tokenizer("chat")
    tokenizer.chat_template = template
    config_class, network_class = (getattr(transformers, f"{kind}{part}") for part in ("Config", head))
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    sizes = {"num_key_value_heads": 2, "max_position_embeddings": MAX_PROMPT_LENGTH, "vocab_size": len(tokenizer)}
    if kind != "Qwen2":
        sizes["head_dim"] = 8
    network = network_class(config_class(**{**_SIZES, **sizes, **ids, **settings})).eval()
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return network


def save_causal(folder: Path, *, kind: str, template: str, answers: Sequence[str], **settings: Any) -> Path:
    """Save a causal model with `modules.json` and a LogitScore of one token, or of two (relevant, not relevant)."""
    body = folder.with_name(f"{folder.name}-body")
    _decoder(body, kind, "ForCausalLM", template)
    transformer = Transformer(str(body), transformer_task="text-generation")
    ids = [int(transformer.tokenizer.convert_tokens_to_ids(answer)) for answer in answers]
    modules = [transformer, LogitScore(*ids)]
    activation = torch.nn.Identity()
    CrossEncoder(modules=modules, device="cpu", activation_fn=activation, **settings).save_pretrained(str(folder))
    return folder


def save_qwen3_classifier(folder: Path) -> Path:
    """Save a decoder with a head and a chat template like tomaarsen/Qwen3-Reranker-0.6B-seq-cls."""
    _decoder(folder, "Qwen3", "ForSequenceClassification", QWEN3_TEMPLATE, num_labels=1)
    return folder


def save_raw_causal(folder: Path, *, steps: int = 0, **settings: Any) -> Path:
    """Save a plain Qwen3 model without modules, as Qwen/Qwen3-Reranker-0.6B was first published.

    Args:
        folder: Where to save it.
        steps: Training steps on the pairs of the sanity check at most; 0 leaves it random, so that it fails the check.
        **settings: Fields of the config.
    """
    from langchain_crossrerank.cross_encoders.backends.causal import DEFAULT_INSTRUCTION, SANITY_PAIRS

    network = _decoder(folder, "Qwen3", "ForCausalLM", QWEN3_TEMPLATE, **settings)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    yes, no = (tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    prompts = [
        qwen3_prompt(DEFAULT_INSTRUCTION, query, answer) for query, _ in SANITY_PAIRS for _, answer in SANITY_PAIRS
    ]
    batch = tokenizer(prompts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt")
    positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    truth = torch.tensor([1.0, 0.0, 0.0, 1.0])
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(steps):
        last = network(**batch, position_ids=positions, logits_to_keep=1).logits[:, -1]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(last[:, yes] - last[:, no], truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if loss.item() < 0.05:
            break
    network.save_pretrained(folder)
    # The template of a chat model, which has no place for a query and a passage.
    tokenizer.chat_template = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    tokenizer.save_pretrained(folder)
    return folder


def qwen3_prompt(instruction: str, query: str, passage: str) -> str:
    """The published prompt of Qwen3-Reranker."""
    return (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
        f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {passage}<|im_end|>\n<|im_start|>assistant\n"
        "<think>\n\n</think>\n\n"
    )


def without_head(source: Path, folder: Path, *, architectures: bool = True) -> Path:
    """Save a classifier's files without the weights of its head, and its config with or without architectures."""
    from safetensors.torch import load_file

    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = {
        name: value
        for name, value in load_file(folder / "model.safetensors").items()
        if not name.startswith("classifier")
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not architectures:
        del config["architectures"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@dataclass(frozen=True)
class Family:
    """A family of cross-encoders, and how each backend takes it.

    Attributes:
        name: The name in the table of the README.
        like: A model on the hub whose files are like those that `save` writes.
        save: Saves a tiny model of the family into a folder.
        unit: The unit of its scores by default.
        exported: Whether `export_onnx` makes a graph of it, which then runs on onnx and openvino; otherwise the words
            of the refusal.
    """

    name: str
    like: str
    save: Callable[[Path], Path]
    unit: str = "as its config says"
    exported: str | None = None

    def backends(self) -> list[str]:
        """Return the backends that score it."""
        return ["torch"] if self.exported else ["torch", "onnx", "openvino"]


_NO_HEAD = "LogitScore cannot be appended to a graph"
_TEMPLATE = "chat template"

FAMILIES = (
    Family("BERT", "cross-encoder/ms-marco-MiniLM-L6-v2", save_bert),
    Family("ELECTRA", "cross-encoder/ms-marco-electra-base", save_electra),
    Family("RoBERTa", "cross-encoder/stsb-roberta-base", save_roberta),
    Family("XLM-RoBERTa", "BAAI/bge-reranker-v2-m3", save_xlm_roberta),
    Family("DistilBERT", "a classifier of distilbert/distilbert-base-uncased", save_distilbert),
    Family("MPNet", "a classifier of microsoft/mpnet-base", save_mpnet),
    Family("ALBERT", "a classifier of albert/albert-base-v2", save_albert),
    Family("DeBERTa-v2", "mixedbread-ai/mxbai-rerank-base-v1", save_deberta),
    Family("XLNet", "a classifier of xlnet/xlnet-base-cased", save_xlnet),
    Family("ModernBERT", "Alibaba-NLP/gte-reranker-modernbert-base", save_modernbert),
    Family("ModernBERT with modules", "cross-encoder/ettin-reranker-32m-v1", save_modular),
    Family(
        "Qwen3, yes or no",
        "Qwen/Qwen3-Reranker-0.6B",
        partial(save_causal, kind="Qwen3", template=QWEN3_TEMPLATE, answers=("yes", "no")),
        unit="log-odds of yes",
        exported=_NO_HEAD,
    ),
    Family(
        "Qwen2, 1 or 0",
        "mixedbread-ai/mxbai-rerank-base-v2",
        partial(save_causal, kind="Qwen2", template=MXBAI_TEMPLATE, answers=("1", "0")),
        unit="log-odds of 1",
        exported=_NO_HEAD,
    ),
    Family(
        "Gemma, Yes alone",
        "BAAI/bge-reranker-v2-gemma",
        partial(save_causal, kind="Gemma", template=GEMMA_TEMPLATE, answers=("Yes",)),
        unit="logit of Yes",
        exported=_NO_HEAD,
    ),
    Family(
        "Qwen3 with a head and a template",
        "tomaarsen/Qwen3-Reranker-0.6B-seq-cls",
        save_qwen3_classifier,
        exported=_TEMPLATE,
    ),
)
"""Every family that is tested, in the order of the table."""


def markdown_table() -> str:
    """Return the table of the README: what each backend takes, and how it is tested."""
    rows = ["| Family | For example | Backends | Unit of the scores | How it is tested |", "|---|---|---|---|---|"]
    for family in FAMILIES:
        example = f"`{family.like}`" if "/" in family.like.split()[0] else family.like
        tested = "tiny model, within 1e-4" + ("; export refused" if family.exported else "")
        rows.append(f"| {family.name} | {example} | {', '.join(family.backends())} | {family.unit} | {tested} |")
    return "\n".join(rows)
