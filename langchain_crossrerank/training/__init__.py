"""Trains a reranker on your own queries: mined negatives, resumable, validated, exported without torch."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.extras import check_extra

if TYPE_CHECKING:
    from langchain_core.cross_encoders import BaseCrossEncoder
    from langchain_core.embeddings import Embeddings

    from langchain_crossrerank.training.data import TrainingData
    from langchain_crossrerank.training.trainer import TrainingSettings

__all__ = ["TrainingResult", "train"]


@dataclass(frozen=True)
class TrainingResult:
    """What a training run gave.

    Attributes:
        folder: A model folder for `load_cross_encoder`.
        ndcg: nDCG@10 of the exported weights on the queries held apart.
        start: nDCG@10 of the model it began with, on the same queries.
        examples: Queries trained on.
        held_apart: Queries validated on.
        log: The run log, one entry a step or validation.
    """

    folder: Path
    ndcg: float
    start: float
    examples: int
    held_apart: int
    log: list[dict[str, Any]] = field(repr=False)


def train(
    data: Sequence[str | os.PathLike[str]] | TrainingData,
    folder: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str],
    run_folder: str | os.PathLike[str] | None = None,
    settings: TrainingSettings | None = None,
    max_length: int = 256,
    window_sizes: Sequence[int] | None = None,
    shares: Mapping[str, float] | None = None,
    mine_k: int = 50,
    embeddings: Embeddings | None = None,
    teacher: Embeddings | BaseCrossEncoder | None = None,
    held_apart: float = 0.05,
    most_held_apart: int = 200,
    validation_k: int = 20,
    show_progress: bool = True,
) -> TrainingResult:
    """Train a cross-encoder, or go on with a run that was stopped, and export it.

    Called again with the same arguments after a kill, it goes on from the last checkpoint and ends as one
    uninterrupted run would have.

    Args:
        data: JSONL files (a line is `{"query": ..., "positive": ...}`), BEIR folders, or what `read_training_data`
            gives.
        folder: Where the trained model goes; must not exist, or be empty. It appears when training is done.
        base: What to start from: a folder or a hub name of a sequence-classification model with one label, of a BERT
            bi-encoder, or a folder that training wrote.
        run_folder: Where checkpoint and log are kept; `<folder>.run` where `None`.
        settings: How to train; `None` for the defaults of `TrainingSettings`.
        max_length: The most tokens of a pair.
        window_sizes: Sentences of each passage that a group sees, drawn evenly; 0 for whole passages. `None` for a
            mixture of whole passages and windows of one to four sentences.
        shares: How often each source is drawn; `None` for the square root of its queries.
        mine_k: Candidates of each first stage that negatives are taken from.
        embeddings: A bi-encoder to mine with beside BM25.
        teacher: Whose scores to follow with a weight of `settings.distillation`: a bi-encoder (its cosines) or another,
            usually larger, cross-encoder. `None` for the model itself as it was at the start.
        held_apart: Share of the queries to validate on.
        most_held_apart: Queries of a source to validate on at most.
        validation_k: BM25's candidates reranked for each of them.
        show_progress: Whether to show progress bars.

    Returns:
        The folder, and how good the model is.

    Raises:
        InvalidInputError: If data or settings cannot be used, `folder` has files in it, or there is a teacher but no
            weight for it.
        UnsupportedModelError: If `base` is of a shape that cannot be trained.
        TrainingError: If the disk is full, memory is short, or the loss is no longer a number; the last checkpoint
            stays.
        ScoringError: If a teacher that is a cross-encoder fails.
    """
    check_extra("training", needed_for="training")
    import torch
    from tqdm import tqdm

    from langchain_crossrerank.training.checkpoints import MINED, RunFolder
    from langchain_crossrerank.training.data import TrainingData, read_training_data
    from langchain_crossrerank.training.groups import WINDOW_SIZES, GroupSampler, check_shares
    from langchain_crossrerank.training.mining import digest_of, mine
    from langchain_crossrerank.training.models import WarmStartModel, load_trainable
    from langchain_crossrerank.training.teachers import StartingModel, as_teacher
    from langchain_crossrerank.training.trainer import Trainer, TrainingSettings
    from langchain_crossrerank.training.validation import hold_apart

    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidInputError(f"{str(target)!r} exists and is not an empty folder; name a new folder to train into.")
    settings = settings or TrainingSettings()
    followed = None if teacher is None else as_teacher(teacher)
    if followed and not settings.distillation:
        raise InvalidInputError(
            "there is a teacher, but distillation is 0, so it would not be listened to; set distillation, for example "
            "to 0.5, or leave the teacher out."
        )
    # New parts of a network start at random.
    torch.manual_seed(settings.seed)
    model = load_trainable(base, max_length=max_length)
    loaded = data if isinstance(data, TrainingData) else read_training_data(data)

    def bar(items: Any, what: str, initial: int = 0) -> Any:
        return tqdm(items, desc=what, initial=initial, total=initial + len(items), disable=not show_progress)

    run = RunFolder(run_folder or target.with_name(target.name + ".run"))
    mined = mine(
        loaded, k=mine_k, embeddings=embeddings, file=run.path / MINED, progress=lambda items: bar(items, "mine")
    )
    training, validation = hold_apart(mined, share=held_apart, most=most_held_apart, k=validation_k)
    sampler = GroupSampler(
        training,
        check_shares(shares, training),
        settings.negatives,
        tuple(WINDOW_SIZES if window_sizes is None else window_sizes),
        settings.seed,
    )
    counts = {source: len(found.examples) for source, found in training.items()}
    course = {
        **settings.course(),
        "base": os.fspath(base),
        "max_length": max_length,
        "window_sizes": list(sampler.window_sizes),
        "shares": dict(sampler.shares),
        "examples": counts,
        "mined": digest_of(mined),
        "held_apart": {source: len(found) for source, found in validation.examples.items()},
        "validation_k": validation_k,
        "teacher": followed and followed.key,
    }
    run.hold_to(course)
    if isinstance(model, WarmStartModel) and model.fresh:
        model.weigh_tokens([text for texts in loaded.passages.values() for text in texts])
    start = StartingModel(model, settings.max_batch_tokens) if settings.distillation and not followed else None
    trainer = Trainer(model, sampler, validation, settings, run, teacher=followed or start)
    ndcg = trainer.run(lambda steps: bar(steps, "train", steps.start))
    _export(model, target)
    log = run.rows()
    start = next(row["nDCG@10"] for row in log if "nDCG@10" in row)
    held = sum(len(found) for found in validation.examples.values())
    return TrainingResult(target, ndcg, start, sum(counts.values()), held, log)


def _export(model: Any, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        model.export(staging)
        staging.chmod(0o755)
        if target.exists():
            target.rmdir()
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
