"""The training loop: deterministic order, checkpoints, exact resume, validation with early stopping, a run log.

sentence-transformers' `CrossEncoderTrainer` is not used because a step must see what its number alone decides: only
then does a run that was killed at any moment continue exactly, and only then can groups of mined negatives be drawn
again at each visit, which a dataset that is made beforehand cannot offer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from langchain_crossrerank.errors import TrainingError
from langchain_crossrerank.training.loss import ranking_loss
from langchain_crossrerank.training.models import Trainable
from langchain_crossrerank.training.platt import fit_platt
from langchain_crossrerank.training.run_folder import CHECKPOINT, RunFolder
from langchain_crossrerank.training.sampling import GroupSampler
from langchain_crossrerank.training.settings import TrainingSettings
from langchain_crossrerank.training.teachers import Teacher
from langchain_crossrerank.training.validation import HeldOut

_MAX_GRADIENT_NORM = 1.0

RELEVANT_SHARE = 0.25
"""The fraction of relevant candidates that is assumed when scores are calibrated again."""


class Trainer:
    """Trains a model in a run folder, from its last checkpoint if there is one.

    Args:
        model: The model to train; it ends with the best averaged weights.
        sampler: What each step sees.
        held_out: The examples to validate on.
        settings: How to train.
        run: The folder for checkpoint and log.
        teacher: The model whose scores to follow, with the weight `settings.distillation`.
    """

    def __init__(
        self,
        model: Trainable,
        sampler: GroupSampler,
        held_out: HeldOut,
        settings: TrainingSettings,
        run: RunFolder,
        *,
        teacher: Teacher | None = None,
    ) -> None:
        self._model = model
        self._sampler = sampler
        self._held_out = held_out
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
        self._seconds = 0.0

    def run(self, progress: Callable[[range], Iterator[int]] = iter) -> float:
        """Train to the last step, or until validation has not improved `patience` times.

        Args:
            progress: Wraps the remaining steps, to show progress.

        Returns:
            nDCG@10 of the final weights on the held-out queries.

        Raises:
            TrainingError: If a checkpoint cannot be read or written, memory runs out, or the loss is not a number.
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
            self._seconds, began = self._seconds + now - began, now
            self._step = step + 1
            self._run.log({"step": self._step, "loss": round(loss, 5), "seconds": round(self._seconds, 1)})
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
            scores = self._held_out.score(self._model)
        ndcg, by_source = self._held_out.ndcg(scores)
        factor, shift = fit_platt(*self._held_out.labelled(scores), prior=RELEVANT_SHARE)
        self._model.rescale(factor, shift)
        # After the last step, so that exporting a finished run again replaces this row.
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
        with self._explained_memory_errors():
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
                f"the loss is not a number at step {step}; start again in another run folder with a learning rate "
                f"below {settings.learning_rate:g}."
            )
        torch.nn.utils.clip_grad_norm_(self._trained.values(), _MAX_GRADIENT_NORM)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        # With full decay from the beginning, the average would stay near the start for too long.
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
            ndcg, by_source = self._held_out.ndcg(self._held_out.score(self._model))
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
                "seconds": self._seconds,
                "optimiser": self._optimiser.state_dict(),
                "random": torch.get_rng_state(),
            }
        )

    def _resume(self) -> None:
        saved = self._run.load()
        self._run.rewind(saved.step if saved else -1)
        if saved is None:
            return
        try:
            for weights in (saved.trained, saved.average, saved.best):
                _check_same_shapes(weights, self._trained)
            self._optimiser.load_state_dict(saved.optimiser)
            torch.set_rng_state(saved.random)
        except (LookupError, RuntimeError, TypeError, ValueError) as err:
            raise TrainingError(
                f"{self._run.path / CHECKPOINT} does not fit this model ({err}); delete it to start from the beginning."
            ) from err
        self._take(saved.trained)
        self._average, self._best = saved.average, saved.best
        self._best_ndcg, self._stale = saved.best_ndcg, saved.stale
        self._step, self._seconds = saved.step, saved.seconds

    def _precision(self) -> torch.autocast:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._settings.bfloat16)

    @contextmanager
    def _explained_memory_errors(self) -> Iterator[None]:
        try:
            yield
        except (MemoryError, RuntimeError) as err:
            # torch's CPU allocator has no error class of its own.
            if not isinstance(err, MemoryError) and "memory" not in str(err):
                raise
            settings = self._settings
            raise TrainingError(
                f"memory ran out at step {self._step} with {settings.groups_per_step} groups of "
                f"{settings.negatives + 1} passages in a step; the last checkpoint is kept. Start again in another run "
                f"folder with groups_per_step={max(1, settings.groups_per_step // 2)}, or a smaller max_length."
            ) from err


def _check_same_shapes(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise `ValueError` unless both have the same names and shapes."""
    if {name: value.shape for name, value in weights.items()} != {
        name: value.shape for name, value in expected.items()
    }:
        raise ValueError("its weights have other names or shapes")
