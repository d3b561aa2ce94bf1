"""Measures a cross-encoder with modules as its head next to sentence-transformers: seconds, and how scores differ.

Writes a folder in the shape of cross-encoder/ettin-reranker-32m-v1 with random weights: ModernBERT, pooling of the
first token, Dense, LayerNorm, Dense, and a graph without a head. A process of its own loads it without torch and
scores 20 passages of about 500 tokens; sentence-transformers does the same in turn. Run on an idle machine:
`python benchmarks/modular.py`. Needs the `export` extra.
"""

from __future__ import annotations

import argparse
import json
import shutil
import string
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from timing import in_turns

_TOKENS = ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")

_WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = None
from langchain_crossrerank import load_cross_encoder
model = load_cross_encoder(sys.argv[1], backend="onnx", activation="identity")
for line in sys.stdin:
    print(json.dumps(model.score([tuple(pair) for pair in json.loads(line)])), flush=True)
"""


def write_model(folder: Path, *, layers: int, hidden: int, words: int) -> Path:
    """Write the folder with torch weights, and export it; return the folder of the export."""
    import torch
    import transformers
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

    from langchain_crossrerank.cross_encoders.export import export_onnx

    torch.manual_seed(0)
    tokenizer = _tokenizer(words)
    ids = {f"{name}_token_id": tokenizer.cls_token_id for name in ("cls", "bos")}
    ids |= {f"{name}_token_id": tokenizer.sep_token_id for name in ("sep", "eos")}
    config = transformers.ModernBertConfig(
        vocab_size=words,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        intermediate_size=hidden * 3 // 2,
        max_position_embeddings=7999,
        pad_token_id=tokenizer.pad_token_id,
        **ids,
    )
    body = folder / "body"
    transformers.ModernBertModel(config).eval().save_pretrained(body)
    tokenizer.save_pretrained(body)
    modules = [
        Transformer(str(body)),
        Pooling(hidden, pooling_mode="cls"),
        Dense(hidden, hidden, bias=False, activation_function=torch.nn.GELU()),
        LayerNorm(hidden),
        Dense(hidden, 1, activation_function=torch.nn.Identity(), module_output_name="scores"),
    ]
    CrossEncoder(modules=modules, device="cpu", activation_fn=torch.nn.Identity()).save_pretrained(
        str(folder / "model")
    )
    export_onnx(str(folder / "model"), folder / "exported")
    return folder / "exported"


def _tokenizer(words: int) -> Any:
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {token: number for number, token in enumerate((*_TOKENS, *string.ascii_lowercase))}
    vocabulary |= {f"word{number}": number for number in range(len(vocabulary), words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("[CLS]", 0), ("[SEP]", 1)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=special
    )
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("cls", "sep", "pad", "unk", "mask")}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=7999,
        **names,
    )


def pairs(round_: int, passages: int, tokens: int, words: int) -> list[tuple[str, str]]:
    """Return pairs that no other round has."""
    first = 100 + round_ * 7919
    return [
        (f"word{first % words}", " ".join(f"word{100 + (first + n * 31 + t) % (words - 100)}" for t in range(tokens)))
        for n in range(passages)
    ]


def main() -> None:
    """Write the model, score in turns, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--words", type=int, default=50_368)
    parser.add_argument("--passages", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="modular-"))
    try:
        sizes = {"layers": options.layers, "hidden": options.hidden, "words": options.words}
        exported = write_model(work, **sizes)
        compare(work / "model", exported, options)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def compare(model: Path, exported: Path, options: argparse.Namespace) -> None:
    """Score the same pairs in turns with both, and print seconds and the largest difference."""
    import torch
    from sentence_transformers import CrossEncoder

    reference = CrossEncoder(str(model), device="cpu")
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _WITHOUT_TORCH, str(exported)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    make = partial(pairs, passages=options.passages, tokens=options.tokens, words=options.words)
    found: dict[str, dict[int, list[float]]] = {"onnx": {}, "sentence-transformers": {}}

    def without_torch(round_: int) -> None:
        process.stdin.write(json.dumps(make(round_)) + "\n")
        process.stdin.flush()
        found["onnx"][round_] = json.loads(process.stdout.readline())

    def with_torch(round_: int) -> None:
        scores = reference.predict(make(round_), activation_fn=torch.nn.Identity(), show_progress_bar=False)
        found["sentence-transformers"][round_] = [float(score) for score in scores]

    watches = in_turns({"onnx": without_torch, "sentence-transformers": with_torch}, rounds=options.rounds, pause=0.2)
    process.stdin.close()
    process.wait()
    for name, watch in watches.items():
        print(f"{name:24}{watch.median:8.3f} s for {options.passages} x {options.tokens} tokens")
    ratio = watches["sentence-transformers"].median / watches["onnx"].median
    apart = max(
        abs(one - other)
        for round_, scores in found["onnx"].items()
        for one, other in zip(scores, found["sentence-transformers"][round_], strict=True)
    )
    print(f"{ratio:.2f} times as fast; scores differ by {apart:.1e}")


if __name__ == "__main__":
    main()
