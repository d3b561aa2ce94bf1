"""Fetches the files of a model from a repository on the Hugging Face hub, and only those that are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from langchain_crossrerank.downloads import describe_failure, find_status
from langchain_crossrerank.errors import ModelNotFoundError


@dataclass(frozen=True)
class HubRepository:
    """A repository on the Hugging Face hub.

    Attributes:
        name: Owner and name.
        revision: Branch, tag or commit; `None` for the main branch.
        token: Access token; `None` for the one that is logged in, or `HF_TOKEN`.
        local_files_only: Use the local cache and no network.
        subfolder: Folder in the repository that everything is relative to.
    """

    name: str
    revision: str | None
    token: str | None = field(repr=False)
    local_files_only: bool
    subfolder: str | None

    def files(self) -> list[str] | None:
        """List the repository's files, relative to the subfolder; `None` if the hub is not to be asked or is silent."""
        if self.local_files_only:
            return None
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        try:
            files = HfApi(token=self.token).list_repo_files(self.name, revision=self.revision)
        except HfHubHTTPError as err:
            if err.response is not None and err.response.status_code < 500:
                raise self._error(err) from err
            return None
        except Exception:  # noqa: BLE001 - without a network, whatever is in the local cache is used
            return None
        start = f"{self.subfolder}/" if self.subfolder else ""
        return [file.removeprefix(start) for file in files if file.startswith(start)]

    def fetch(self, patterns: Sequence[str]) -> Path:
        """Fetch files, or find them in the local cache, and return their folder."""
        from huggingface_hub import snapshot_download

        start = f"{self.subfolder}/" if self.subfolder else ""
        try:
            folder = snapshot_download(
                self.name,
                revision=self.revision,
                local_files_only=self.local_files_only,
                token=self.token,
                allow_patterns=[f"{start}{pattern}" for pattern in patterns],
            )
        except Exception as err:
            raise self._error(err) from err
        return Path(folder)

    def _error(self, err: Exception) -> ModelNotFoundError:
        from huggingface_hub.errors import (
            GatedRepoError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        otherwise = 'use "bundled" for the model inside this package'
        if isinstance(err, GatedRepoError):
            return ModelNotFoundError(
                f"the model {self.name!r} is gated: accept its terms at https://huggingface.co/{self.name}, and pass "
                f"token= or set HF_TOKEN to a token of that account; or {otherwise}."
            )
        if isinstance(err, RepositoryNotFoundError | RevisionNotFoundError | HFValidationError):
            return ModelNotFoundError(
                f"the Hugging Face hub has no model {self.name!r} that may be read (revision {self.revision!r}), and "
                "there is no such folder here; check the spelling, or for a private model pass token= or set HF_TOKEN; "
                f"or {otherwise}."
            )
        if self.local_files_only and isinstance(err, LocalEntryNotFoundError):
            return ModelNotFoundError(
                f"the model {self.name!r} is neither a folder here nor in the local cache, and nothing is fetched with "
                f"local_files_only (on the command line --offline); fetch it once, pass a folder, or {otherwise}."
            )
        # The hub client's errors for a missing network come from several libraries and change with versions.
        login = "log in or set HF_TOKEN to a token that may read it"
        remedies: dict[int | None, str] = {401: login, 403: login, 404: "check the name"}
        return ModelNotFoundError(
            f"the model {self.name!r} is not a folder here, is not in the local cache, and could not be fetched from "
            f'the Hugging Face hub ({describe_failure(err)}); use "bundled" (on the command line --offline) for the '
            f"model inside this package, pass a folder, or {remedies.get(find_status(err), 'connect to the network')}."
        )
