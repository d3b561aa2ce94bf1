"""The folder of a training run: a checkpoint that is always whole, the run log, and the mined negatives."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field, Json, NonNegativeInt, ValidationError
from torch import Tensor

from langchain_crossrerank.checks import shorten
from langchain_crossrerank.errors import InvalidInputError, TrainingError
from langchain_crossrerank.files import open_whole, write_whole

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"
MINED = "mined.json"


class Checkpoint(BaseModel, arbitrary_types_allowed=True, extra="forbid", strict=True):
    """The state of a run after a step.

    Attributes:
        settings: What the run was started with, as JSON; compared when it is resumed.
        step: Steps done.
        trained: Weights of the last step.
        average: Averaged weights.
        best: Averaged weights of the best validation.
        best_ndcg: Its nDCG@10; -1 before the first validation.
        stale: Validations since then.
        seconds: Time spent on training.
        optimiser: State of the optimiser.
        random: State of torch's random number generator.
    """

    settings: Json[dict[str, Any]]
    step: NonNegativeInt
    trained: dict[str, Tensor]
    average: dict[str, Tensor]
    best: dict[str, Tensor]
    best_ndcg: float
    stale: NonNegativeInt
    seconds: float
    optimiser: dict[str, Any]
    random: Tensor


class _LogRow(BaseModel, extra="forbid", strict=True):
    step: NonNegativeInt
    loss: float | None = None
    seconds: float | None = None
    ndcg: float | None = Field(None, alias="nDCG@10")
    by_source: dict[str, float] | None = None


class RunFolder:
    """The folder of one training run.

    It holds `checkpoint.pt`, `log.jsonl` (one JSON object per step or validation) and `mined.json`.

    Args:
        folder: Created if missing.

    Raises:
        InvalidInputError: If it cannot be created.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder)
        self._settings: dict[str, Any] = {}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise InvalidInputError(
                f"cannot create the run folder {str(self.path)!r} ({err}); name another one."
            ) from err

    def hold_to(self, settings: Mapping[str, Any]) -> None:
        """Set everything that decides how the run goes; a checkpoint is only resumed with equal settings."""
        self._settings = json.loads(json.dumps(settings))

    def load(self) -> Checkpoint | None:
        """Read the checkpoint.

        Returns:
            The checkpoint, or `None` if there is none.

        Raises:
            InvalidInputError: If it was written with other settings.
            TrainingError: If the file is damaged or was not written by this package.
        """
        file = self.path / CHECKPOINT
        if not file.is_file():
            return None
        try:
            # A damaged file makes torch raise almost anything; nothing in it is executed.
            saved = Checkpoint.model_validate(torch.load(file, weights_only=True))
        except Exception as err:
            raise TrainingError(
                f"{file} is not a checkpoint of a training run ({_reason(err)}); delete it to start from the beginning."
            ) from err
        settings = saved.settings
        changed = sorted(
            name for name in {*settings, *self._settings} if settings.get(name) != self._settings.get(name)
        )
        if changed:
            name = changed[0]
            raise InvalidInputError(
                f"the run in {str(self.path)!r} was started with {name}={settings.get(name)!r}, not "
                f"{self._settings.get(name)!r}; resume it with the same settings, or name another run folder."
            )
        return saved

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint.

        Args:
            state: The fields of `Checkpoint` except `settings`.

        Raises:
            TrainingError: If it cannot be written; the old checkpoint is kept.
        """
        file = self.path / CHECKPOINT
        try:
            with open_whole(file) as out:
                torch.save({**state, "settings": json.dumps(self._settings)}, out)
        except (OSError, RuntimeError) as err:
            # torch reports a failed write as a RuntimeError of its own.
            kept = f"the previous one is kept in {str(self.path)!r}" if file.is_file() else "there is no previous one"
            raise TrainingError(
                f"cannot write the checkpoint of step {state['step']} ({err}); {kept}. Free some space and run the "
                "same command again to resume."
            ) from err

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a line to the run log.

        Raises:
            TrainingError: If it cannot be written.
        """
        try:
            with (self.path / LOG).open("a", encoding="utf-8") as out:
                out.write(json.dumps(row) + "\n")
        except OSError as err:
            raise TrainingError(
                f"cannot write the run log in {str(self.path)!r} ({err}); free some space and run the same command "
                "again to resume from the last checkpoint."
            ) from err

    def rows(self) -> list[dict[str, Any]]:
        """Read the run log; a last line that was cut short by a kill is left out.

        Raises:
            TrainingError: If another line is damaged.
        """
        file = self.path / LOG
        try:
            lines = file.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        except OSError as err:
            raise TrainingError(f"cannot read {file} ({err}); delete it, or name another run folder.") from err
        rows = []
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                rows.append(_LogRow.model_validate_json(line).model_dump(by_alias=True, exclude_unset=True))
            except ValidationError as err:
                raise TrainingError(
                    f"{file}, line {number}: {shorten(line)} is not a line of a run log ({_reason(err)}); delete the "
                    "run folder, or name another one."
                ) from err
        return rows

    def rewind(self, step: int) -> None:
        """Remove from the log what was written after `step`; the resumed run writes it again."""
        rows = [json.dumps(row) + "\n" for row in self.rows() if row["step"] <= step]
        write_whole(self.path / LOG, "".join(rows))


def _reason(err: Exception) -> str:
    if isinstance(err, ValidationError):
        first = err.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg'].lower()}"
    return type(err).__name__
