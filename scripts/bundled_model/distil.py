"""Trains a model on the scores of several teachers at once.

python scripts/bundled_model/distil.py groups DATA_FOLDER WORK_FOLDER --keep-out BEIR_FOLDER [BEIR_FOLDER ...]
python scripts/bundled_model/distil.py train STUDENT_FOLDER WORK_FOLDER RESULT_FOLDER

`groups` writes `passages.json` and `groups.json`: each query with its positive, hard negatives and one random passage.
A bi-encoder then embeds both, by any program, into `queries.npy` and `passages.npy`: unit vectors of shape (groups,
width) and (passages, width), in the files' order. A pair of `train` costs the student's own forward pass only, because
each text was embedded once.

`STUDENT_FOLDER` is a warm-started model with a sparse branch, as `add_sparse_branch.py` writes it. The teacher of a
group is the sum of the student's own scores before training, weighted cosines of the bi-encoder, and the sparse
branch, which has a weight of its own in the teacher. Of the branch, only its weight is trained. The same command
resumes after a stop.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import bm25s
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from train import as_typed, comparable, keep_out, read_files, varied
from traps import make_traps

from langchain_crossrerank.lexical import words
from langchain_crossrerank.training.loading import load_trainable
from langchain_crossrerank.training.models import WarmStartModel
from langchain_crossrerank.training.sentence_windows import sentence_window

PARTS = {"medquad": 0.4, "debian_docs_sections": 0.6, "tldr_pages": 0.4}
SQUAD_QUERIES = 0.2

NEGATIVES = 7
CANDIDATES = 40

COSINE_WEIGHT = 40.0
"""Of the bi-encoder in the teacher; the cosines of e5 differ little, so the factor is large."""

SPARSE_WEIGHT = 0.75
"""Of the sparse branch in the teacher."""

TRAPS = 0.12
"""Fraction of groups whose negatives share the words of the positive; they have labels only."""

WINDOWS = 0.15
"""Fraction of groups of which single sentences are read; the vectors are of whole passages, so the cosines are not
part of their teacher."""

LABEL_WEIGHT = 0.3
AVERAGE = 0.99
WARMUP = 50


@dataclass(frozen=True)
class Group:
    """A query and its passages, the positive first.

    Attributes:
        query: The search text.
        passages: The positive, then the negatives.
        cosines: The bi-encoder's cosine of each passage; `None` if there is none.
        windowed: Whether single sentences are read.
    """

    query: str
    passages: list[str]
    cosines: Sequence[float] | None
    windowed: bool = False


def write_groups(data_folder: Path, work: Path, kept_out: list[Path]) -> None:
    """Mine the groups of every training file and write them."""
    data = varied(
        keep_out(read_files(sorted(data_folder.glob("*.jsonl.gz"))), kept_out), parts=PARTS, squad_queries=SQUAD_QUERIES
    )
    draw = random.Random(3)
    places: dict[str, int] = {}
    groups = []
    for source, texts in data.passages.items():
        examples = [example for example in data.examples if example.source == source]
        if not examples or len(texts) <= NEGATIVES:
            continue
        index = bm25s.BM25()
        index.index([words(text) for text in texts], show_progress=False)
        found, _ = index.retrieve(
            [words(as_typed(example.query)) for example in examples],
            k=min(CANDIDATES, len(texts)),
            show_progress=False,
            n_threads=1,
        )
        for example, ranked in zip(examples, found.tolist(), strict=True):
            copies = {comparable(text)[:120] for text in example.positives}
            negatives = [texts[place] for place in ranked if comparable(texts[place])[:120] not in copies]
            if len(negatives) <= NEGATIVES:
                continue
            weights = [1 / (3 + rank) for rank in range(len(negatives))]
            chosen: dict[str, None] = {}
            while len(chosen) < NEGATIVES:
                chosen[draw.choices(negatives, weights)[0]] = None
            other = draw.choice(texts)
            while other in chosen or comparable(other)[:120] in copies:
                other = draw.choice(texts)
            group = [draw.choice(example.positives), *chosen, other]
            groups.append((source, example.query, [places.setdefault(text, len(places)) for text in group]))
    draw.shuffle(groups)
    work.mkdir(parents=True, exist_ok=True)
    (work / "passages.json").write_text(json.dumps(list(places)), encoding="utf-8")
    (work / "groups.json").write_text(json.dumps(groups), encoding="utf-8")
    print(f"{len(groups)} groups of {len(places)} passages")


class Groups:
    """The mined groups with their vectors, and traps between them, in an order that depends on the step alone."""

    def __init__(self, work: Path) -> None:
        self.passages: list[str] = json.loads((work / "passages.json").read_text("utf-8"))
        self.groups = json.loads((work / "groups.json").read_text("utf-8"))
        self.query_vectors = np.load(work / "queries.npy", mmap_mode="r")
        self.passage_vectors = np.load(work / "passages.npy", mmap_mode="r")
        self.traps = make_traps(4000, seed=7)
        frequency: dict[str, int] = {}
        for text in self.passages:
            for word in set(words(text)):
                frequency[word] = frequency.get(word, 0) + 1
        self.idf = {word: np.log(1 + len(self.passages) / count) for word, count in frequency.items()}

    def step(self, number: int, size: int) -> list[Group]:
        """Return the groups of a step."""
        draw = random.Random(f"distil:{number}")
        return [self._one(number * size + place, draw) for place in range(size)]

    def _one(self, place: int, draw: random.Random) -> Group:
        if draw.random() < TRAPS:
            query, passages = draw.choice(self.traps)
            return Group(query, passages, None)
        row = place % len(self.groups)
        _, query, members = self.groups[row]
        texts = [self.passages[member] for member in members]
        if draw.random() < WINDOWS:
            size = draw.choice((1, 1, 2, 3))
            cut = [sentence_window(query, text, size, lambda word: self.idf.get(word, 12.0), draw) for text in texts]
            return Group(query, cut, None, windowed=True)
        vectors = np.asarray(self.passage_vectors[members], dtype=np.float32)
        return Group(query, texts, (vectors @ np.asarray(self.query_vectors[row], dtype=np.float32)).tolist())


class StudentAndStart(WarmStartModel):
    """The student beside its frozen start, which share the frozen lower layers and the frozen sparse branch.

    The logits have three columns: the student's, the start's without the sparse branch, and the branch's unweighted
    scores.

    Args:
        student: What is trained.
    """

    def __init__(self, student: WarmStartModel) -> None:
        super().__init__(student.network, student.tokenizer, max_length=student.max_length)
        self.start = student.frozen().network

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Compute the three columns, shape (pairs, 3)."""
        inputs = (input_ids, attention_mask, token_type_ids)
        logits, lower, _, _, scores = self.network.logits_and_states(*inputs)
        with torch.no_grad():
            start = self.start.logits_from(lower, *inputs)
        return torch.cat([logits, start, scores.detach() / self.network.sparse.weight.detach()], dim=1)


class Distillation:
    """One run: the student, its averaged weights, and where it is."""

    def __init__(self, student: WarmStartModel, groups: Groups, result: Path, *, rate: float, steps: int) -> None:
        self.student, self.groups, self.result, self.steps = student, groups, result, steps
        self.both = StudentAndStart(student)
        parameters = student.parameter_groups(rate)
        branch = student.network.sparse
        assert branch is not None
        branch.requires_grad_(False)
        for part in parameters:
            part["params"] = [value for value in part["params"] if value.requires_grad]
        branch.weight.requires_grad_(True)
        parameters.append({"params": [branch.weight], "lr": rate * 20, "weight_decay": 0.0})
        for part in parameters:
            part["peak"] = part["lr"]
        self.optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.98))
        self.average = {name: value.clone() for name, value in student.network.state_dict().items()}
        self.step = 0

    def run(self, groups_per_step: int) -> None:
        """Train to the end, with a checkpoint every five minutes."""
        checkpoint = self.result / "checkpoint.pt"
        if checkpoint.is_file():
            self._load(checkpoint)
        saved, began, losses = time.monotonic(), time.monotonic(), []
        first = self.step
        while self.step < self.steps:
            losses.append(self._train(self.groups.step(self.step, groups_per_step)))
            self.step += 1
            if self.step % 20 == 0:
                seconds = (time.monotonic() - began) / (self.step - first)
                print(f"step {self.step}: loss {np.mean(losses[-20:]):.4f}, {seconds:.2f} s a step", flush=True)
            if time.monotonic() - saved > 300 or self.step == self.steps:
                self._save(checkpoint)
                saved = time.monotonic()

    def _train(self, groups: list[Group]) -> float:
        share = min(self.step / WARMUP, 1.0) * min(1.0, 2 * (1 - self.step / self.steps))
        for part in self.optimizer.param_groups:
            part["lr"] = part["peak"] * share
        pairs = [(group.query, passage) for group in groups for passage in group.passages]
        batches = list(self.student.batches(pairs, 8192))
        with torch.autocast("cpu", torch.bfloat16):
            parts = [self.both.logits([pairs[place] for place in batch]) for batch in batches]
        order = torch.tensor([place for batch in batches for place in batch]).argsort()
        loss = self._loss(groups, *torch.cat(parts)[order].unbind(1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_([value for part in self.optimizer.param_groups for value in part["params"]], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, value in self.student.network.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - AVERAGE)
        return float(loss.detach())

    def _loss(self, groups: list[Group], own: Tensor, start: Tensor, sparse: Tensor) -> Tensor:
        losses, place = [], 0
        for group in groups:
            here = slice(place, place + len(group.passages))
            place += len(group.passages)
            shares = torch.log_softmax(own[here], dim=0)
            labels = torch.zeros_like(own[here])
            labels[0] = 1
            binary = functional.binary_cross_entropy_with_logits(own[here], labels, pos_weight=torch.tensor(2.0))
            if group.cosines is None and not group.windowed:
                losses.append(-shares[0] + 0.2 * binary)
                continue
            teacher = start[here] + SPARSE_WEIGHT * sparse[here]
            if group.cosines is not None:
                teacher = teacher + COSINE_WEIGHT * torch.tensor(group.cosines)
            losses.append(
                functional.kl_div(shares, torch.softmax(teacher, dim=0), reduction="sum")
                - LABEL_WEIGHT * shares[0]
                + 0.1 * binary
            )
        return torch.stack(losses).mean()

    def _save(self, file: Path) -> None:
        state = {
            "step": self.step,
            "network": self.student.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        part = file.with_suffix(".part")
        torch.save(state, part)
        part.replace(file)

    def _load(self, file: Path) -> None:
        state = torch.load(file, weights_only=True)
        self.step = state["step"]
        self.student.network.load_state_dict(state["network"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])


def main() -> None:
    """Write the groups, or train on them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    mine = commands.add_parser("groups")
    mine.add_argument("data", type=Path)
    mine.add_argument("work", type=Path)
    mine.add_argument("--keep-out", type=Path, nargs="+", required=True, metavar="BEIR_FOLDER")
    run = commands.add_parser("train")
    run.add_argument("student", type=Path)
    run.add_argument("work", type=Path)
    run.add_argument("result", type=Path)
    run.add_argument("--steps", type=int, default=1200)
    run.add_argument("--groups-per-step", type=int, default=8)
    run.add_argument("--rate", type=float, default=6e-5, help="peak learning rate of the upper layers")
    run.add_argument("--threads", type=int, default=2)
    run.add_argument("--keep-start", type=float, default=0.3, help="fraction of the starting weights in the result")
    arguments = parser.parse_args()
    if arguments.command == "groups":
        write_groups(arguments.data, arguments.work, arguments.keep_out)
        return
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    student = load_trainable(arguments.student)
    if not isinstance(student, WarmStartModel) or student.network.sparse is None:
        raise SystemExit(f"{arguments.student} has no sparse branch; add it with add_sparse_branch.py")
    student.network.train()
    arguments.result.mkdir(parents=True, exist_ok=True)
    run_of = Distillation(student, Groups(arguments.work), arguments.result, rate=arguments.rate, steps=arguments.steps)
    run_of.run(arguments.groups_per_step)
    start = run_of.both.start.state_dict()
    mixed = {
        name: value.lerp(start[name], arguments.keep_start) if value.is_floating_point() else value
        for name, value in run_of.average.items()
    }
    student.network.load_state_dict(mixed)
    student.network.eval()
    student.export(arguments.result)


if __name__ == "__main__":
    main()
