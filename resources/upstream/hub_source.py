"""A model on the Hugging Face Hub, pinned to a commit."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resources.errors import (
    MissingSourceError,
    ModelSourceError,
    ResourceError,
    UnknownSchemeError,
)
from resources.reading import Progress
from resources.upstream.folder_source import FolderModel
from resources.upstream.source import FileSink, wanted_files

_REPOSITORY = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^@\s]+))?")
_ANSWER = 30.0  # seconds: a mirror may ask the Hub itself before it answers
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubModel:
    """`owner/name` or `owner/name@revision`; a token comes from where huggingface_hub looks."""

    def __init__(self, repository: str, cache: Path | None = None) -> None:
        parsed = _REPOSITORY.fullmatch(repository.strip("/"))
        if parsed is None:
            raise UnknownSchemeError(
                f"model source 'hf://{repository}' is no model of the Hub: write "
                f"hf://owner/name, or hf://owner/name@revision with a branch, tag or commit"
            )
        self.name = parsed["name"]
        self.location = f"hf://{repository.strip('/')}"
        self._revision = parsed["revision"] or "main"
        self._cache = cache
        self._pinned: str | None = None

    def revision(self, progress: Progress | None = None) -> str:
        """Return the commit. In offline mode it is the one that was downloaded last."""
        from huggingface_hub.errors import OfflineModeIsEnabled

        if _COMMIT.fullmatch(self._revision):
            self._pinned = self._revision
            return self._revision
        with _clear_errors(self.location):
            try:
                self._pinned = str(self._info(self._revision).sha)
            except OfflineModeIsEnabled:
                self._pinned = self._snapshot(self._revision, [], offline=True).name
        return self._pinned

    def copy_to(self, sink: FileSink, progress: Progress | None = None) -> None:
        """Download the pinned commit into huggingface_hub's own cache, and copy from there."""
        commit = self._pinned or self.revision()
        with _clear_errors(self.location):
            folder = self._download(commit)
        FolderModel(folder).copy_to(sink, progress)

    def _info(self, revision: str) -> Any:
        from huggingface_hub import HfApi

        return HfApi().model_info(self.name, revision=revision, timeout=_ANSWER)

    def _download(self, commit: str) -> Path:
        from huggingface_hub.errors import OfflineModeIsEnabled

        try:
            names = [file.rfilename for file in self._info(commit).siblings or []]
        except OfflineModeIsEnabled:
            return self._snapshot(commit, [], offline=True)
        files = wanted_files(names, self.location)
        folder = self._snapshot(commit, files, offline=False)
        missing = [file for file in files if not (folder / file).is_file()]
        if missing:  # a Hub that is slow to answer now, and a download that was cut off before
            raise ModelSourceError(
                f"model source {self.location} is downloaded in part, and the Hub did not answer "
                f"in time for the rest ({missing[0]}); run again"
            )
        return folder

    def _snapshot(self, revision: str, files: list[str], offline: bool) -> Path:
        from huggingface_hub import snapshot_download

        folder = snapshot_download(
            self.name,
            revision=revision,
            cache_dir=self._cache,
            allow_patterns=files or None,
            local_files_only=offline,
        )
        return Path(str(folder))


@contextlib.contextmanager
def _clear_errors(location: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into errors that say what to do and quote no request.

    It raises its own errors, OSErrors, and those of the HTTP library it happens to use.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError:
        raise ModelSourceError(
            f"model source {location} is gated: accept its licence on huggingface.co and log in "
            f"with `hf auth login`"
        ) from None
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise MissingSourceError(
            f"model source {location} is not on the Hub, or is private; correct the name or the "
            f"revision, or log in with `hf auth login`"
        ) from None
    except LocalEntryNotFoundError:
        raise MissingSourceError(
            f"model source {location} is not in the local cache and the Hub cannot be reached (or "
            f"HF_HUB_OFFLINE is set); download it once with `hf download`, or name a folder"
        ) from None
    except ResourceError:
        raise
    except Exception as error:
        raise ModelSourceError(
            f"model source {location} cannot be read ({type(error).__name__}); check the network, "
            f"the token's rights, and HF_ENDPOINT where a mirror is used"
        ) from None
