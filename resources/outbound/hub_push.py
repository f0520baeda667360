"""A model pushed to the Hugging Face Hub, as one commit."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from resources.errors import OutboundError
from resources.outbound.files import OutgoingFile
from resources.upstream.hub_cache import hub_endpoint

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


class HubPush:
    """A repository `owner/name` of the Hub, or of the mirror that HF_ENDPOINT names.

    A token comes from where huggingface_hub looks: HF_TOKEN, or `hf auth login`. Raises
    OutboundError for a name that no repository can have.
    """

    def __init__(self, repository: str) -> None:
        self.repository = repository.removeprefix("hf://").strip("/")
        if not _REPOSITORY.fullmatch(self.repository) or ".." in self.repository:
            raise OutboundError(
                f"{repository!r} is no repository of the Hub: write owner/name, of letters, digits,"
                " '_', '-' and '.'"
            )

    @property
    def home(self) -> str:
        """Return the address that it is pushed to."""
        return hub_endpoint()

    def push(self, files: Sequence[OutgoingFile], message: str, private: bool = False) -> str:
        """Make the repository where there is none, and commit the files; return the commit's URL.

        The files are read where they lie: twice, for the Hub wants their hashes first. One commit
        shows all of them or none, and the repository is asked for its files afterwards. What it has
        besides stays. Raises OutboundError.
        """
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi(endpoint=self.home)
        with self._clear_errors():
            api.create_repo(self.repository, private=private, exist_ok=True)
            if private and api.model_info(self.repository).private is not True:
                raise OutboundError(
                    f"{self.repository} on {self.home} is there already, and is public; nothing was"
                    " pushed. Make it private there, or leave --private out"
                )
            with contextlib.ExitStack() as opened:
                operations = [
                    CommitOperationAdd(file.path, opened.enter_context(file.open()))
                    for file in files
                ]
                commit: Any = api.create_commit(
                    self.repository, operations=operations, commit_message=message
                )
            there = set(api.list_repo_files(self.repository, revision=str(commit.oid)))
        absent = sorted({file.path for file in files} - there)
        if absent:
            raise OutboundError(
                f"{self.repository} on {self.home} lacks {', '.join(absent[:4])} after the push"
                f" ({commit.commit_url}): its .gitignore may name them; remove that, and push again"
            )
        return str(commit.commit_url)

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        """Turn what huggingface_hub raises into errors that say what to do and quote no request."""
        from huggingface_hub.errors import (
            HfHubHTTPError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
        )

        where = f"{self.repository} was not pushed to {self.home}"
        try:
            yield
        except OfflineModeIsEnabled:
            raise OutboundError(f"{where}: HF_HUB_OFFLINE is set; unset it") from None
        except (RepositoryNotFoundError, HfHubHTTPError) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            hint = (
                "log in with `hf auth login`, or set HF_TOKEN to a token that may write there"
                if status in (401, 403, 404)
                else "try again; the commit shows all files or none"
            )
            raise OutboundError(f"{where}: the Hub answers {status}; {hint}") from None
        except (OSError, RuntimeError) as error:  # a RuntimeError is an upload's, of any cause
            from resources.errors import ResourceError

            if isinstance(error, ResourceError):
                raise
            told = type(error).__name__
            raise OutboundError(f"{where} ({told}); check the network and HF_ENDPOINT") from None
