"""The training loop: deterministic order, checkpoints, exact resume, validation with early stopping, a run log.

It is a loop of its own rather than sentence-transformers' `CrossEncoderTrainer`, because what a step sees must be a
function of its number alone: then a run that was killed anywhere goes on as if nothing had happened, and groups of
mined negatives can be drawn afresh at each visit, which a dataset made beforehand cannot give.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from langchain_crossrerank.errors import InvalidInputError, TrainingError
from langchain_crossrerank.training.checkpoints import RunFolder
from langchain_crossrerank.training.groups import GroupSampler
from langchain_crossrerank.training.loss import ranking_loss
from langchain_crossrerank.training.models import Trainable
from langchain_crossrerank.training.platt import fit_platt
from langchain_crossrerank.training.teachers import Teacher
from langchain_crossrerank.training.validation import HeldApart

_LONGEST_NORM = 1.0

RELEVANT_SHARE = 0.25
"""The share of relevant candidates that probabilities are made for when they are made anew."""


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        steps: Optimiser steps at most; may be changed when a run is resumed, to end it sooner or later.
        groups_per_step: Groups (one positive and its negatives) in a step.
        negatives: Passages of a group beside its positive.
        learning_rate: Of the layers, at its highest; the parts that are new learn faster.
        warmup: Steps in which the learning rate rises to it.
        cooldown: Share of the steps, at the end, in which it falls to zero.
        calibration: Weight of the loss term that makes scores probabilities.
        distillation: Weight of the loss term that draws scores towards a teacher's: those of the model at the start,
            so that what it knew is kept, or those of another model. The teacher reads every pair, too.
        average: How much of the averaged weights a step keeps, from 0 (the last step's weights) to below 1; the
            averaged weights are validated and exported.
        keep_start: Share of the starting weights in what is exported, from 0 to below 1; what was learnt moves the
            model that much less, which costs little on data like the training data and helps on other data (Wortsman
            et al., 2022, "Robust fine-tuning of zero-shot models"). Scores are then made probabilities anew.
        validate_every: Steps from one validation to the next.
        patience: Validations without a better nDCG@10 after which training stops.
        checkpoint_minutes: Minutes from one checkpoint to the next; one is also written at each validation.
        max_batch_tokens: Tokens, padding included, in one forward pass. What is kept for the backward pass grows
            with the step: lower `groups_per_step` where memory is short.
        bfloat16: Whether products are computed in bfloat16; faster on processors that have it.
        seed: Of every draw.
    """

    steps: int = 2000
    groups_per_step: int = 8
    negatives: int = 7
    learning_rate: float = 5e-5
    warmup: int = 100
    cooldown: float = 0.3
    calibration: float = 0.2
    distillation: float = 0.0
    average: float = 0.995
    keep_start: float = 0.0
    validate_every: int = 200
    patience: int = 10
    checkpoint_minutes: float = 5.0
    max_batch_tokens: int = 4096
    bfloat16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"steps": 1, "groups_per_step": 1, "negatives": 1, "validate_every": 1, "patience": 1}
        for name, value in {**least, "max_batch_tokens": 1}.items():
            if getattr(self, name) < value:
                raise InvalidInputError(f"{name} is {getattr(self, name)!r}; it must be at least {value}.")
        for name in (
            "warmup",
            "cooldown",
            "calibration",
            "distillation",
            "average",
            "keep_start",
            "checkpoint_minutes",
        ):
            if getattr(self, name) < 0:
                raise InvalidInputError(f"{name} is {getattr(self, name)!r}; it must not be negative.")
        for name in ("average", "keep_start"):
            if getattr(self, name) >= 1:
                raise InvalidInputError(f"{name} is {getattr(self, name)!r}; it must be below 1.")
        if self.cooldown > 1:
            raise InvalidInputError(f"cooldown is {self.cooldown!r}; it must be at most 1.")
        if self.learning_rate <= 0:
            raise InvalidInputError(f"learning_rate is {self.learning_rate!r}; it must be above 0.")

    def course(self) -> dict[str, Any]:
        """Give the settings that must not change when a run is resumed."""
        free = ("steps", "cooldown", "keep_start", "patience", "checkpoint_minutes", "max_batch_tokens")
        return {name: value for name, value in asdict(self).items() if name not in free}

    def rate(self, step: int) -> float:
        """Give the share of the learning rate at a step, counted from 0."""
        rising = (step + 1) / (self.warmup + 1)
        falling = (self.steps - step) / max(self.cooldown * self.steps, 1)
        return min(rising, falling, 1.0)


class Trainer:
    """Trains a model in a run folder, from its last checkpoint where it has one.

    Args:
        model: What to train; left holding the best averaged weights.
        sampler: What each step sees.
        held_apart: What validates.
        settings: How to train.
        run: Where state and log are kept.
        teacher: Whose scores to follow, with a weight of `settings.distillation`.
    """

    def __init__(
        self,
        model: Trainable,
        sampler: GroupSampler,
        held_apart: HeldApart,
        settings: TrainingSettings,
        run: RunFolder,
        *,
        teacher: Teacher | None = None,
    ) -> None:
        self._model = model
        self._sampler = sampler
        self._held_apart = held_apart
        self._settings = settings
        self._run = run
        self._teacher = teacher
        groups = model.parameter_groups(settings.learning_rate)
        self._optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98))
        self._rates = [group["lr"] for group in groups]
        trained = {id(value) for group in groups for value in group["params"]}
        self._trained = {name: value for name, value in model.network.named_parameters() if id(value) in trained}
        self._average = {name: value.detach().clone() for name, value in self._trained.items()}
        self._start = {name: value.clone() for name, value in self._average.items()}
        self._best = {name: value.clone() for name, value in self._average.items()}
        self._best_ndcg = -1.0
        self._stale = 0
        self._step = 0
        self._spent = 0.0

    def run(self, progress: Callable[[range], Iterator[int]] = iter) -> float:
        """Train to the end, or until validation has not improved for `patience` times.

        Args:
            progress: Wraps the steps that are left, to show how far training is.

        Returns:
            nDCG@10 on the queries held apart, of the weights that the model is left with.

        Raises:
            TrainingError: If a checkpoint cannot be written, memory is short, or the loss is no longer a number.
        """
        self._resume()
        settings = self._settings
        began = saved = time.monotonic()
        if self._step == 0 and self._best_ndcg < 0:
            self._validate()
            self._save()
        for step in progress(range(self._step, settings.steps)):
            if self._stale >= settings.patience:
                break
            loss = self._train_step(step)
            now = time.monotonic()
            self._spent, began = self._spent + now - began, now
            self._step = step + 1
            self._run.log({"step": self._step, "loss": round(loss, 5), "seconds": round(self._spent, 1)})
            due = self._step % settings.validate_every == 0 or self._step == settings.steps
            if due:
                self._validate()
            if due or now - saved >= settings.checkpoint_minutes * 60:
                self._save()
                saved = now
        self._take(self._best)
        return self._mix_with_start() if settings.keep_start else self._best_ndcg

    def _mix_with_start(self) -> float:
        with torch.no_grad():
            for name, value in self._trained.items():
                value.lerp_(self._start[name], self._settings.keep_start)
        self._model.network.eval()
        with torch.inference_mode(), self._precision():
            scores = self._held_apart.score(self._model)
        ndcg, by_source = self._held_apart.ndcg(scores)
        factor, shift = fit_platt(*self._held_apart.labelled(scores), prior=RELEVANT_SHARE)
        self._model.rescale(factor, shift)
        # Beyond the last step, so that exporting a finished run again writes it again and not twice.
        self._run.log({"step": self._step + 1, "nDCG@10": round(ndcg, 6), "by_source": by_source})
        return ndcg

    def _train_step(self, step: int) -> float:
        settings = self._settings
        places = range(step * settings.groups_per_step, (step + 1) * settings.groups_per_step)
        groups = [self._sampler.group(place) for place in places]
        self._model.network.train()
        for group, rate in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * settings.rate(step)
        pairs = [pair for group in groups for pair in group]
        with self._memory_watched():
            with self._precision():
                logits = self._model.all_logits(pairs, settings.max_batch_tokens).view(len(groups), -1)
                teacher = self._teacher.logits(pairs).view(len(groups), -1) if self._teacher else None
            loss = ranking_loss(
                logits, calibration=settings.calibration, teacher=teacher, distillation=settings.distillation
            ).mean()
            loss.backward()  # type: ignore[no-untyped-call]
        total = float(loss.detach())
        if total != total:  # noqa: PLR0124 - not a number
            raise TrainingError(
                f"the loss is not a number at step {step}; begin anew in another run folder with a learning rate below "
                f"{settings.learning_rate:g}."
            )
        torch.nn.utils.clip_grad_norm_(self._trained.values(), _LONGEST_NORM)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        # A young average would remember the start for too long.
        keep = min(settings.average, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, value in self._trained.items():
                self._average[name].lerp_(value, 1 - keep)
        return total

    def _validate(self) -> None:
        self._model.network.eval()
        current = {name: value.detach().clone() for name, value in self._trained.items()}
        self._take(self._average)
        with torch.inference_mode(), self._precision():
            ndcg, by_source = self._held_apart.ndcg(self._held_apart.score(self._model))
        self._take(current)
        self._run.log({"step": self._step, "nDCG@10": round(ndcg, 6), "by_source": by_source})
        self._stale += 1
        if ndcg > self._best_ndcg:
            self._best = {name: value.clone() for name, value in self._average.items()}
            self._best_ndcg, self._stale = ndcg, 0

    def _take(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in self._trained.items():
                value.copy_(weights[name])

    def _save(self) -> None:
        self._run.save(
            {
                "step": self._step,
                "trained": {name: value.detach() for name, value in self._trained.items()},
                "average": self._average,
                "best": self._best,
                "best_ndcg": self._best_ndcg,
                "stale": self._stale,
                "spent": self._spent,
                "optimiser": self._optimiser.state_dict(),
                "random": torch.get_rng_state(),
            }
        )

    def _resume(self) -> None:
        saved = self._run.load()
        self._run.rewind(saved["step"] if saved else -1)
        if saved is None:
            return
        self._take(saved["trained"])
        self._average, self._best = saved["average"], saved["best"]
        self._best_ndcg, self._stale = saved["best_ndcg"], saved["stale"]
        self._step, self._spent = saved["step"], saved["spent"]
        self._optimiser.load_state_dict(saved["optimiser"])
        torch.set_rng_state(saved["random"])

    def _precision(self) -> torch.autocast:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._settings.bfloat16)

    @contextmanager
    def _memory_watched(self) -> Iterator[None]:
        try:
            yield
        except (MemoryError, RuntimeError) as err:
            # torch's allocator for the CPU has no error class of its own.
            if not isinstance(err, MemoryError) and "memory" not in str(err):
                raise
            settings = self._settings
            raise TrainingError(
                f"memory ran out at step {self._step} with {settings.groups_per_step} groups of "
                f"{settings.negatives + 1} passages in a step; the last checkpoint is kept. Begin anew in another run "
                f"folder with groups_per_step={max(1, settings.groups_per_step // 2)}, or a smaller max_length."
            ) from err
