"""Compares a model's scores with expected ones, to see that what runs here is the model that was published."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from langchain_crossrerank._terminal import one_line
from langchain_crossrerank.checks import cut, shorten
from langchain_crossrerank.cross_encoders.base import CrossEncoder
from langchain_crossrerank.cross_encoders.loading import load_cross_encoder
from langchain_crossrerank.cross_encoders.model_files import BUNDLED, BUNDLED_FOLDER
from langchain_crossrerank.cross_encoders.scores import log_odds, sigmoid
from langchain_crossrerank.errors import CrossRerankError, InvalidInputError

GOLDEN_FILE = "golden.json"
"""Name of the file with expected scores in a model's folder."""

DEFAULT_TOLERANCE = 1e-3
"""Allowed difference of a score if neither the file nor the caller says otherwise."""

_PACKED_TOLERANCE = 0.02
_COLUMN = 44

Unit = Literal["logit", "probability", "model default"]
"""What a score is: a logit, the sigmoid of one, or whatever the model gives by default."""


@dataclass(frozen=True)
class GoldenScore:
    """The expected score of one pair.

    Attributes:
        query: The query.
        passage: The passage.
        score: The expected score.
        unit: Its unit.
        tolerance: Allowed difference, in this unit.
        model: The model that gave it; empty for the model that is verified.
        source: Where it was published.
    """

    query: str
    passage: str
    score: float
    unit: Unit = "logit"
    tolerance: float = DEFAULT_TOLERANCE
    model: str = ""
    source: str = ""


@dataclass(frozen=True)
class VerifiedScore:
    """A golden score, and what the model gave.

    Attributes:
        golden: What was expected.
        score: What the model gave, in the unit of the golden score.
    """

    golden: GoldenScore
    score: float

    @property
    def difference(self) -> float:
        """The absolute difference."""
        return abs(self.score - self.golden.score)

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.difference <= self.golden.tolerance


@dataclass(frozen=True)
class Verification:
    """The result of `verify`.

    Attributes:
        model: The model.
        scores: One entry for each pair, in the order of the golden scores.
        error: Why there are no scores, if the model could not be loaded or run.
    """

    model: str
    scores: list[VerifiedScore]
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether every score is within its tolerance."""
        return bool(self.scores) and all(score.passed for score in self.scores)

    @property
    def largest_difference(self) -> float:
        """The largest difference of a score; 0 if there are none."""
        return max((score.difference for score in self.scores), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data."""
        rows = [
            {**asdict(score.golden), "found": score.score, "difference": score.difference, "passed": score.passed}
            for score in self.scores
        ]
        return {"model": self.model, "passed": self.passed, "error": self.error, "scores": rows}

    def to_text(self) -> str:
        """Return one line for each pair and a summary, safe to print on a terminal."""
        if self.error:
            return f"{one_line(self.model)}: failed: {one_line(self.error)}"
        lines = [f"{'query':{_COLUMN}} {'passage':{_COLUMN}} {'expected':>10} {'found':>10} {'difference':>10}"]
        for score in self.scores:
            texts = (one_line(cut(text, _COLUMN)) for text in (score.golden.query, score.golden.passage))
            columns = " ".join(f"{text:{_COLUMN}}" for text in texts)
            mark = "" if score.passed else f"  above {score.golden.tolerance:g}"
            lines.append(f"{columns} {score.golden.score:10.4f} {score.score:10.4f} {score.difference:10.2g}{mark}")
        failed = sum(not score.passed for score in self.scores)
        verdict = "all within their tolerance" if self.passed else f"{failed} above their tolerance"
        lines.append(
            f"{one_line(self.model)}: {len(self.scores)} scores, {verdict}; largest difference "
            f"{self.largest_difference:.2g}"
        )
        return "\n".join(lines)


def verify(
    model: str | os.PathLike[str] | CrossEncoder,
    goldens: str | os.PathLike[str] | Sequence[GoldenScore] | None = None,
    *,
    golden_model: str | None = None,
    tolerance: float | None = None,
    **model_kwargs: Any,
) -> Verification:
    """Score pairs and compare with their expected scores.

    Args:
        model: The model, or what `load_cross_encoder` takes: a name, a folder or the URL of a server.
        goldens: Expected scores, or a file of them, see `read_goldens`. `None` for the file `golden.json` in the
            model's folder; the bundled model has one.
        golden_model: The model whose scores to use from a file of several; `None` for `model`. For example the
            published name of the model that a server runs.
        tolerance: Allowed difference of every score; `None` for those of the golden scores.
        **model_kwargs: Arguments of `load_cross_encoder`.

    Raises:
        InvalidInputError: If there are no expected scores for this model, or the file is malformed.
        ModelError: If the model cannot be loaded.
        ScoringError: If it cannot be run.
    """
    name = model.name if isinstance(model, CrossEncoder) else os.fspath(model)
    if goldens is None:
        goldens = _own_goldens(name)
    elif isinstance(goldens, str | os.PathLike):
        goldens = _of_model(read_goldens(goldens), golden_model or name, goldens)
    if not goldens:
        raise InvalidInputError("there are no golden scores to compare with; pass at least one.")
    if not isinstance(model, CrossEncoder):
        # Logits lose nothing; probabilities near 0 and 1 do.
        wants_default = any(golden.unit == "model default" for golden in goldens)
        model_kwargs = {**({} if wants_default else {"activation": "identity"}), **model_kwargs}
        model = load_cross_encoder(model, **model_kwargs)
    found = model.score([(golden.query, golden.passage) for golden in goldens])
    return Verification(
        name,
        [
            VerifiedScore(
                golden if tolerance is None else GoldenScore(**{**asdict(golden), "tolerance": tolerance}),
                _in_unit(score, golden.unit, model),
            )
            for golden, score in zip(goldens, found, strict=True)
        ],
    )


def verify_all(goldens: str | os.PathLike[str], **model_kwargs: Any) -> Iterator[Verification]:
    """Verify every model that a file has golden scores for, one after the other.

    A model that cannot be loaded or run is a failed verification with its error, and does not stop the others.

    Args:
        goldens: A file of golden scores with models, see `read_goldens`.
        **model_kwargs: Arguments of `load_cross_encoder`.

    Yields:
        One result for each model, in the order of the file.
    """
    found = read_goldens(goldens)
    for name in dict.fromkeys(golden.model for golden in found if golden.model):
        try:
            # Scores in the model's own unit and logits need a model each, since a unit cannot always be turned back.
            of_model = [golden for golden in found if golden.model == name]
            by_default = [golden for golden in of_model if golden.unit == "model default"]
            others = [golden for golden in of_model if golden.unit != "model default"]
            parts = [verify(name, part, **model_kwargs) for part in (by_default, others) if part]
            yield Verification(name, [score for part in parts for score in part.scores])
        except CrossRerankError as err:
            yield Verification(name, [], error=str(err))


class _Row(BaseModel):
    query: str
    passage: str | None = None
    passages: list[str] | None = None
    score: FiniteFloat | None = None
    logit: FiniteFloat | None = None
    scores: list[FiniteFloat] | None = None
    unit: str = "logit"
    atol: float | None = Field(None, gt=0, allow_inf_nan=False)
    model: str = ""
    dtype: str = ""
    source: str = ""

    def goldens(self) -> list[GoldenScore]:
        """Return one golden score for each passage.

        Raises:
            ValueError: If passages and scores do not fit together, or the unit is unknown.
        """
        passages = self.passages if self.passages is not None else [] if self.passage is None else [self.passage]
        alone = self.score if self.score is not None else self.logit
        scores = self.scores if self.scores is not None else [] if alone is None else [alone]
        if not passages or len(passages) != len(scores):
            raise ValueError(f"{len(passages)} passages and {len(scores)} scores")
        unit = _unit(self.unit)
        return [
            GoldenScore(self.query, passage, score, unit, self.atol or DEFAULT_TOLERANCE, self.model, self.source)
            for passage, score in zip(passages, scores, strict=True)
        ]


def read_goldens(file: str | os.PathLike[str]) -> list[GoldenScore]:
    """Read expected scores from a JSON array, or from a JSONL file.

    An entry is `{"query": ..., "passage": ..., "score": ...}`, or has the lists `passages` and `scores`. Optional are
    `unit` (`"logit"`, the default, `"sigmoid"` or `"model default"`), `atol` (the allowed difference), `model`, `dtype`
    and `source`; `logit` may stand for `score`.

    Raises:
        InvalidInputError: If the file cannot be read or is malformed; the message names the entry.
    """
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = json.loads(text) if text.lstrip().startswith("[") else list(map(json.loads, text.splitlines()))
    except (OSError, ValueError, RecursionError) as err:
        raise InvalidInputError(
            f"cannot read golden scores from {str(path)!r} ({err}); pass a JSON array or a JSONL file."
        ) from err
    goldens: list[GoldenScore] = []
    for number, row in enumerate(rows, start=1):
        try:
            goldens += _Row.model_validate(row).goldens()
        except ValueError as err:
            reason = err.errors()[0]["msg"].lower() if isinstance(err, ValidationError) else err
            raise InvalidInputError(
                f"{path}, entry {number}: {shorten(row)} is not a golden score ({reason}); an entry is "
                '{"query": "...", "passage": "...", "score": 1.5}.'
            ) from err
    return goldens


def _unit(name: str) -> Unit:
    if name.startswith(("logit", "log-odds", "identity")):
        return "logit"
    if name in ("sigmoid", "probability"):
        return "probability"
    if name == "model default":
        return "model default"
    raise ValueError(f'unit is {name!r}, not "logit", "sigmoid" or "model default"')


def _in_unit(score: float, unit: Unit, model: CrossEncoder) -> float:
    if unit == "model default" or (unit == "probability") == (model.activation == "sigmoid"):
        return score
    return sigmoid(score) if unit == "probability" else log_odds(score)


def _own_goldens(name: str) -> list[GoldenScore]:
    folder = BUNDLED_FOLDER if name == BUNDLED else Path(name).expanduser()
    file = folder / GOLDEN_FILE
    if not file.is_file():
        reason = f"its folder has no {GOLDEN_FILE}" if folder.is_dir() else "it is not a folder here"
        raise InvalidInputError(
            f"there are no golden scores for {name!r}: {reason}. Pass goldens= (on the command line --goldens), a file "
            "of expected scores."
        )
    found = read_goldens(file)
    if name != BUNDLED:
        return found
    # The file has the logits of the trained model, from which the packed weights differ by less than this.
    return [
        GoldenScore(golden.query, golden.passage, sigmoid(golden.score), "probability", _PACKED_TOLERANCE)
        for golden in found
    ]


def _of_model(goldens: list[GoldenScore], name: str, file: str | os.PathLike[str]) -> list[GoldenScore]:
    chosen = [golden for golden in goldens if golden.model in ("", name)]
    if not chosen:
        models = sorted({golden.model for golden in goldens})
        raise InvalidInputError(
            f"{os.fspath(file)!r} has no golden scores for {name!r}; it has some for {cut(', '.join(models), 400)}. "
            "Name one of them as golden_model (on the command line --golden-model)."
        )
    return chosen
