"""`train`: from training data and a base model to a model folder that needs no torch."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_crossrerank.checks import check_whole_numbers, shorten
from langchain_crossrerank.errors import InvalidInputError
from langchain_crossrerank.extras import check_extra
from langchain_crossrerank.training.data import TrainingData, read_training_data
from langchain_crossrerank.training.settings import TrainingSettings

if TYPE_CHECKING:
    from langchain_core.cross_encoders import BaseCrossEncoder
    from langchain_core.embeddings import Embeddings

    from langchain_crossrerank.training.mining import MinedSource
    from langchain_crossrerank.training.models import Trainable
    from langchain_crossrerank.training.sampling import GroupSampler
    from langchain_crossrerank.training.teachers import BiEncoderTeacher, CrossEncoderTeacher
    from langchain_crossrerank.training.validation import HeldOut


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training run.

    Attributes:
        folder: A model folder for `load_cross_encoder`.
        ndcg: nDCG@10 of the exported model on the held-out queries.
        base_ndcg: nDCG@10 of the base model on the same queries.
        examples: Number of queries trained on.
        held_out: Number of queries validated on.
        log: The run log, one entry for each step and validation.
    """

    folder: Path
    ndcg: float
    base_ndcg: float
    examples: int
    held_out: int
    log: list[dict[str, Any]] = field(repr=False)


def train(
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | TrainingData,
    folder: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str],
    run_folder: str | os.PathLike[str] | None = None,
    settings: TrainingSettings | None = None,
    max_length: int = 256,
    window_sizes: Sequence[int] | None = None,
    source_weights: Mapping[str, float] | None = None,
    mine_k: int = 50,
    embeddings: Embeddings | None = None,
    teacher: Embeddings | BaseCrossEncoder | None = None,
    held_out: float = 0.05,
    max_held_out: int = 200,
    validation_k: int = 20,
    show_progress: bool = True,
) -> TrainingResult:
    """Train a cross-encoder and export it, or resume a run that was stopped.

    After a kill, the same call continues from the last checkpoint and ends as an uninterrupted run would have.

    Args:
        data: JSONL files (a line is `{"query": ..., "positive": ...}`) and BEIR folders, one or several, or the result
            of `read_training_data`, which describes them.
        folder: Folder for the trained model; must be missing or empty. It appears when training is done.
        base: The model to start from: a folder or hub name of a sequence-classification model with one label, of a
            BERT bi-encoder, a folder that `train` wrote, or `"bundled"`.
        run_folder: Folder for checkpoint and log; `None` for `<folder>.run`.
        settings: How to train; `None` for the defaults.
        max_length: Maximum number of tokens of a pair.
        window_sizes: Numbers of sentences to cut the passages of a group to, each equally likely; 0 for whole
            passages. `None` for a mixture of whole passages and windows of one to four sentences.
        source_weights: How often each source is drawn; `None` for the square root of its number of queries.
        mine_k: Candidates of each first stage that negatives are mined from.
        embeddings: A bi-encoder to mine with, in addition to BM25.
        teacher: Model whose scores to follow with the weight `settings.distillation`: a bi-encoder (its cosines) or
            another, usually larger, cross-encoder. `None` for the base model itself.
        held_out: Fraction of the queries to validate on.
        max_held_out: Maximum number of queries of a source to validate on.
        validation_k: BM25 candidates that are reranked for each of them.
        show_progress: Whether to show progress bars.

    Returns:
        The folder, and how good the model is.

    Raises:
        InvalidInputError: If data, an argument or a setting cannot be used, `folder` is not empty or is the current
            folder, or there is a teacher but `settings.distillation` is 0.
        UnsupportedModelError: If `base` is a kind of model that cannot be trained.
        TrainingError: If the disk is full, memory runs out, the loss is not a number, or the run folder is damaged.
        ScoringError: If a cross-encoder used as the teacher fails.
    """
    check_extra("training", needed_for="training")
    import torch

    from langchain_crossrerank.training.loading import load_trainable
    from langchain_crossrerank.training.mining import mine
    from langchain_crossrerank.training.models import WarmStartModel
    from langchain_crossrerank.training.run_folder import MINED, RunFolder
    from langchain_crossrerank.training.sampling import WINDOW_SIZES, GroupSampler, check_source_weights
    from langchain_crossrerank.training.teachers import StartingModel
    from langchain_crossrerank.training.trainer import Trainer
    from langchain_crossrerank.training.validation import hold_out

    target = _checked_target(Path(folder))
    check_whole_numbers(mine_k=(mine_k, 1), max_held_out=(max_held_out, 1), validation_k=(validation_k, 1))
    _check_shares(window_sizes, source_weights, held_out)
    settings = settings or TrainingSettings()
    followed = _teacher(teacher, settings)
    # New layers start from random weights.
    torch.manual_seed(settings.seed)
    model = load_trainable(base, max_length=max_length)
    loaded = data if isinstance(data, TrainingData) else read_training_data(data)
    bar = _progress_bars(show_progress)
    run = RunFolder(run_folder or target.with_name(target.name + ".run"))
    mined = mine(
        loaded, k=mine_k, embeddings=embeddings, file=run.path / MINED, progress=lambda items: bar(items, "mine")
    )
    training, validation = hold_out(mined, share=held_out, max_examples=max_held_out, k=validation_k)
    sampler = GroupSampler(
        training,
        check_source_weights(source_weights, training),
        settings.negatives,
        tuple(WINDOW_SIZES if window_sizes is None else window_sizes),
        settings.seed,
    )
    run.hold_to(
        {
            **settings.resume_key(),
            **_resume_key(mined, sampler, validation),
            "base": os.fspath(base),
            "max_length": max_length,
            "teacher": followed and followed.key,
        }
    )
    if isinstance(model, WarmStartModel) and model.fresh:
        model.weigh_tokens([text for texts in loaded.passages.values() for text in texts])
    start = StartingModel(model, settings.max_batch_tokens) if settings.distillation and not followed else None
    trainer = Trainer(model, sampler, validation, settings, run, teacher=followed or start)
    ndcg = trainer.run(lambda steps: bar(steps, "train", steps.start))
    _export(model, target)
    log = run.rows()
    return TrainingResult(
        folder=Path(folder),
        ndcg=ndcg,
        base_ndcg=next(row["nDCG@10"] for row in log if "nDCG@10" in row),
        examples=sum(len(found.examples) for found in training.values()),
        held_out=sum(len(found) for found in validation.examples.values()),
        log=log,
    )


def _checked_target(folder: Path) -> Path:
    target = folder.resolve()
    if target == Path.cwd():
        raise InvalidInputError(f"{str(folder)!r} is the current folder, which would be replaced; name a new folder.")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidInputError(f"{str(folder)!r} exists and is not an empty folder; name a new folder to train into.")
    return target


def _check_shares(
    window_sizes: Sequence[int] | None, source_weights: Mapping[str, float] | None, held_out: float
) -> None:
    if window_sizes is not None:
        if not isinstance(window_sizes, Sequence) or not window_sizes:
            raise InvalidInputError(
                f"window_sizes is {shorten(window_sizes)}; pass numbers of sentences, such as [0, 2]."
            )
        check_whole_numbers(**{f"window_sizes[{place}]": (size, 0) for place, size in enumerate(window_sizes)})
    for source, weight in (source_weights or {}).items():
        if not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise InvalidInputError(f"source_weights[{source!r}] is {shorten(weight)}; pass a number of at least 0.")
    if not isinstance(held_out, int | float) or not 0 < held_out < 1:
        raise InvalidInputError(f"held_out is {shorten(held_out)}; pass a fraction above 0 and below 1.")


def _teacher(
    teacher: Embeddings | BaseCrossEncoder | None, settings: TrainingSettings
) -> BiEncoderTeacher | CrossEncoderTeacher | None:
    from langchain_crossrerank.training.teachers import as_teacher

    followed = None if teacher is None else as_teacher(teacher)
    if followed and not settings.distillation:
        raise InvalidInputError(
            "there is a teacher, but distillation is 0, so it would have no effect; set distillation, for example to "
            "0.5, or leave the teacher out."
        )
    return followed


def _resume_key(mined: Mapping[str, MinedSource], sampler: GroupSampler, validation: HeldOut) -> dict[str, Any]:
    """Return what must be the same in the data of a resumed run."""
    from langchain_crossrerank.training.mining import mined_digest

    return {
        "window_sizes": list(sampler.window_sizes),
        "source_weights": dict(sampler.weights),
        "examples": {source: len(found.examples) for source, found in sampler.mined.items()},
        "mined": mined_digest(mined),
        "held_out": {source: len(found) for source, found in validation.examples.items()},
        "validation_k": validation.k,
    }


def _progress_bars(shown: bool) -> Callable[..., Iterator[Any]]:
    from tqdm import tqdm

    def bar(items: Any, what: str, initial: int = 0) -> Any:
        return tqdm(items, desc=what, initial=initial, total=initial + len(items), disable=not shown)

    return bar


def _export(model: Trainable, target: Path) -> None:
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
