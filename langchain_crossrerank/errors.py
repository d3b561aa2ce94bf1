"""The errors of this package, as one tree.

```
CrossRerankError
├── InvalidInputError       (ValueError)    what the caller passed cannot be used
├── MissingExtraError       (ImportError)   an optional dependency is not installed
├── ModelError
│   ├── ModelNotFoundError  (OSError)       no such folder, repository or needed file
│   └── UnsupportedModelError               the model is there but cannot be used
│       └── GraphRewriteError               its graph cannot be made faster, and runs unchanged
├── ScoringError            (RuntimeError)  the model failed or returned unusable scores
│   └── RemoteError                         a server could not be reached or answered with an error
├── RerankTimeoutError      (TimeoutError)  scoring did not finish in the time allowed
├── OverloadedError         (RuntimeError)  too much work is waiting to be done in time
├── IndexingError           (RuntimeError)  a file could not be read or indexed
├── TrainingError           (RuntimeError)  a training run cannot continue
└── AnswerError             (RuntimeError)  a command could not answer
```

Every message says what happened, shows the value, and says what to do. Every error survives pickling.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "AnswerError",
    "CrossRerankError",
    "GraphRewriteError",
    "IndexingError",
    "InvalidInputError",
    "MissingExtraError",
    "ModelError",
    "ModelNotFoundError",
    "OverloadedError",
    "RemoteError",
    "RerankTimeoutError",
    "ScoringError",
    "TrainingError",
    "UnsupportedModelError",
]


class CrossRerankError(Exception):
    """Base of every error this package raises on purpose."""


class InvalidInputError(CrossRerankError, ValueError):
    """The caller passed something that cannot be used; the message names it."""


class MissingExtraError(CrossRerankError, ImportError):
    """An optional dependency is needed and not installed.

    Attributes:
        backend: Key of the part of the package that needs it, for example `"torch"`, `"openvino"` or `"openai"`.
        extra: The extra that installs it, as in `pip install "langchain-crossrerank[extra]"`.
    """

    def __init__(self, message: str, *, backend: str = "", extra: str = "") -> None:
        super().__init__(message)
        self.backend = backend
        self.extra = extra


class ModelError(CrossRerankError):
    """A model cannot be loaded or used.

    Attributes:
        retry_after: Seconds until a rerank tries to load it again, if the failure is remembered; otherwise `None`.
    """

    retry_after: float | None = None


class ModelNotFoundError(ModelError, OSError):
    """There is no such folder or repository, it cannot be reached, or a needed file is missing."""


class UnsupportedModelError(ModelError):
    """The model exists but this package cannot rank with it; the message says why."""


class GraphRewriteError(UnsupportedModelError):
    """A model's graph cannot be rewritten or quantised; the model runs with its own graph instead."""


class ScoringError(CrossRerankError, RuntimeError):
    """The model raised an error, returned the wrong number of scores, or returned scores that are not finite.

    Attributes:
        positions: Places, counted from 0 in the caller's order, of the pairs concerned.
    """

    def __init__(self, message: str, *, positions: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.positions = tuple(positions)


class RemoteError(ScoringError):
    """A rerank server could not be reached, or answered with an error or with something unusable.

    Attributes:
        status_code: The HTTP status, or `None` where there was no answer.
    """

    def __init__(self, message: str, *, positions: Sequence[int] = (), status_code: int | None = None) -> None:
        super().__init__(message, positions=positions)
        self.status_code = status_code


class RerankTimeoutError(CrossRerankError, TimeoutError):
    """Scoring did not finish within `timeout` seconds and was stopped."""


class OverloadedError(CrossRerankError, RuntimeError):
    """By the measured speed of the model, a rerank cannot be done before its deadline.

    Attributes:
        retry_after: Seconds after which the same rerank could be in time, or `None` if that is not known.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class IndexingError(CrossRerankError, RuntimeError):
    """A file could not be read or indexed.

    Attributes:
        path: The file concerned.
    """

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class TrainingError(CrossRerankError, RuntimeError):
    """Training cannot go on; the last checkpoint is kept, and the message says what to do."""


class AnswerError(CrossRerankError, RuntimeError):
    """A command could not answer: the language model or the search failed; the message says why."""
