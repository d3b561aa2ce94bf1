"""Keeps the state of a training run on disk: a checkpoint is the old one or the whole new one, never half of it."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from langchain_crossrerank.errors import InvalidInputError, TrainingError
from langchain_crossrerank.files import write_whole

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"
MINED = "mined.json"


class RunFolder:
    """The folder of one training run.

    It holds `checkpoint.pt` (network, optimiser, random state and place), `log.jsonl` (one object a line: steps with
    their loss, validations with their nDCG@10) and `mined.json` (the negatives that were found).

    Args:
        folder: Made if it is not there.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder)
        self._settings: dict[str, Any] = {}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise InvalidInputError(f"the run folder {str(self.path)!r} cannot be made ({err}); name another.") from err

    def hold_to(self, settings: dict[str, Any]) -> None:
        """Say all that decides the course of the run; a checkpoint is only resumed under equal settings."""
        self._settings = json.loads(json.dumps(settings))

    def load(self) -> dict[str, Any] | None:
        """Read the checkpoint; `None` where there is none.

        Raises:
            InvalidInputError: If it was made under other settings.
            TrainingError: If it cannot be read.
        """
        file = self.path / CHECKPOINT
        if not file.is_file():
            return None
        try:
            saved: dict[str, Any] = torch.load(file, weights_only=True)
            settings = json.loads(saved["settings"])
        except (OSError, RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as err:
            raise TrainingError(
                f"{file} is no checkpoint of this program ({type(err).__name__}); delete it to begin anew."
            ) from err
        changed = sorted(
            name for name in {*settings, *self._settings} if settings.get(name) != self._settings.get(name)
        )
        if changed:
            name = changed[0]
            raise InvalidInputError(
                f"the run in {str(self.path)!r} was begun with {name}={settings.get(name)!r}, not "
                f"{self._settings.get(name)!r}; resume it with the same settings, or name another run folder."
            )
        return saved

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint beside the old one, then let it take its place.

        Raises:
            TrainingError: If it cannot be written; the old one stays.
        """
        file = self.path / CHECKPOINT
        temporary = self.path / f".{CHECKPOINT}.new"
        try:
            with temporary.open("wb") as out:
                torch.save({**state, "settings": json.dumps(self._settings)}, out)
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(file)
        except (OSError, RuntimeError) as err:
            # torch reports a failed write as a RuntimeError of its own.
            temporary.unlink(missing_ok=True)
            kept = f"the checkpoint of before is kept in {str(self.path)!r}" if file.is_file() else "none was there"
            raise TrainingError(
                f"the checkpoint of step {state['step']} could not be written ({err}); {kept}. Free some space and "
                "run the same command again to go on from there."
            ) from err

    def log(self, row: dict[str, Any]) -> None:
        """Add a line to the run log."""
        try:
            with (self.path / LOG).open("a", encoding="utf-8") as out:
                out.write(json.dumps(row) + "\n")
        except OSError as err:
            raise TrainingError(
                f"the run log in {str(self.path)!r} could not be written ({err}); free some space and run the same "
                "command again to go on from the last checkpoint."
            ) from err

    def rows(self) -> list[dict[str, Any]]:
        """Read the run log; a last line that a kill cut short is left out."""
        rows = []
        try:
            for line in (self.path / LOG).read_text(encoding="utf-8").splitlines():
                try:
                    rows.append(json.loads(line))
                except ValueError:
                    break
        except FileNotFoundError:
            pass
        return rows

    def rewind(self, step: int) -> None:
        """Take out of the log what was written after `step`, to be written again by the resumed run."""
        rows = [json.dumps(row) + "\n" for row in self.rows() if row["step"] <= step]
        write_whole(self.path / LOG, "".join(rows))
