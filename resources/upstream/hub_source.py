"""A model on the Hugging Face Hub, pinned to a commit."""

import contextlib
import os
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
from resources.upstream.hub_cache import (
    ANSWER,
    COMMIT,
    cached_snapshot,
    hub_endpoint,
    may_lack_side_files,
    missing_weights,
    model_folder,
)
from resources.upstream.hub_downloads import download_large, large_files
from resources.upstream.source import FileSink, wanted_files

_REPOSITORY = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^@\s]+))?")
_ONE_WORD = re.compile(r"(?P<name>[\w.-]+)(?:@(?P<revision>[^@\s]+))?")
_OK = 200  # the HTTP status of a whole file, as an answer to a request for a range


class HubModel:
    """`owner/name` or `owner/name@revision`; a token comes from where huggingface_hub looks.

    With `one_word`, names of the Hub's first years are taken too, such as `gpt2`.
    """

    needs: str | None = "huggingface_hub"
    variable: str = "HF_HOME"

    def __init__(self, repository: str, cache: Path | None = None, one_word: bool = False) -> None:
        asked = repository.strip("/")
        parsed = _REPOSITORY.fullmatch(asked) or (_ONE_WORD.fullmatch(asked) if one_word else None)
        revision = (parsed and parsed["revision"]) or "main"
        if parsed is None or {"..", ".", ""}.intersection([*revision.split("/"), *_parts(parsed)]):
            raise UnknownSchemeError(
                f"model source 'hf://{repository}' is no model of the Hub: write "
                f"hf://owner/name, or hf://owner/name@revision with a branch, tag or commit"
            )
        self.name = parsed["name"]
        self.location = f"hf://{asked}"
        self._revision = revision
        self._cache = cache
        self._pinned: str | None = None
        self._listed: dict[str, int | None] | None = None

    @property
    def home(self) -> str:
        """Return the address that it is downloaded from: the Hub's, or HF_ENDPOINT."""
        return hub_endpoint()

    @property
    def kept_in(self) -> Path:
        """Return the folder that a download goes to."""
        return model_folder(self.name, self._cache)

    def revision(self, progress: Progress | None = None) -> str:
        """Return the commit. In offline mode it is the one that was downloaded last."""
        if COMMIT.fullmatch(self._revision):
            self._pinned = self._revision
            return self._revision
        from huggingface_hub.errors import OfflineModeIsEnabled

        with self._clear_errors():
            try:
                found = self._info(self._revision)
                self._pinned = str(found.sha)
                self._listed = {file.rfilename: file.size for file in found.siblings or []}
            except OfflineModeIsEnabled:
                self._pinned = self._snapshot(self._revision, [], offline=True).name
        return self._pinned

    def revisions(self) -> list[str] | None:
        """Return the names of the repository's branches and tags, by one request.

        Raises ModelSourceError where it is not there, or cannot be asked.
        """
        from huggingface_hub import HfApi

        with self._clear_errors():
            refs = HfApi(endpoint=hub_endpoint()).list_repo_refs(self.name)
        return [each.name for each in (*refs.branches, *refs.tags)]

    def resolved(self) -> str:
        """Return `hf://owner/name@commit`."""
        return f"hf://{self.name}@{self._pinned or self.revision()}"

    def sizes(self) -> dict[str, int]:
        """Return the bytes of the files that make up the model, as the Hub tells them.

        Raises ModelSourceError where a mirror tells no sizes.
        """
        if self._listed is None:
            with self._clear_errors():
                listed = self._info(self._pinned or self.revision()).siblings or []
            self._listed = {file.rfilename: file.size for file in listed}
        sizes = {file: self._listed[file] for file in wanted_files(self._listed, self.location)}
        known = {file: size for file, size in sizes.items() if size is not None}
        if len(known) < len(sizes):
            raise ModelSourceError(
                f"model source {self.location}: {self.home} does not tell how large its files are; "
                f"download it with `hf download {self.name}`, or use another HF_ENDPOINT"
            )
        return known

    def cached(self) -> Path | None:
        """Return the folder of the local cache that holds the model's weights, without a network.

        The revision is then pinned to the commit that the cache has.
        """
        snapshot = cached_snapshot(self.name, self._pinned or self._revision, self._cache)
        if snapshot is None or missing_weights(snapshot) is not None:
            return None
        self._pinned = snapshot.name
        return snapshot

    def doubt(self, folder: Path) -> tuple[str, str] | None:
        """Return what a snapshot may lack that was downloaded by loading its weights alone."""
        if not may_lack_side_files(folder):
            return None
        return (
            f"is used as the local cache has it ({folder}), without a tokenizer or a config",
            f"Where the model has them, download them once: hf download {self.name}",
        )

    def fetch(self, progress: Progress | None = None) -> Path:
        """Download what is missing of the pinned commit into the Hub's own cache; its folder.

        Large files go on where an earlier download was cut off, and are compared with their SHA-256
        (hub_downloads); their progress is told. The rest is brought by huggingface_hub.
        """
        commit = self._pinned or self.revision()
        with self._clear_errors():
            folder = self._download(commit, progress)
        self._note_branch(commit)
        return folder

    def read(self, file: str, offset: int, length: int) -> bytes:
        """Return a range of a file of the pinned commit, by one request; short at its end."""
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        commit, got = self._pinned or self.revision(), bytearray()
        url = self._address(file, commit)
        wanted = f"bytes={offset}-{offset + length - 1}"
        headers = {**build_hf_headers(), "Range": wanted, "Accept-Encoding": "identity"}
        with (
            self._clear_errors(),
            get_session().stream("GET", url, headers=headers, timeout=ANSWER) as answer,
        ):
            if answer.is_error:
                answer.read()
            hf_raise_for_status(answer)
            if answer.status_code == _OK and offset:
                raise ModelSourceError(
                    f"model source {self.location}: {self.home} gives no parts of files; download "
                    f"the model first, with `hf download {self.name}`"
                )
            for piece in answer.iter_bytes():
                got += piece
                if len(got) >= length:
                    break
        return bytes(got[:length])

    def copy_to(self, sink: FileSink, progress: Progress | None = None) -> None:
        """Download the pinned commit into huggingface_hub's own cache, and copy from there."""
        FolderModel(self.fetch()).copy_to(sink, progress)

    def _info(self, revision: str) -> Any:
        from huggingface_hub import HfApi

        return HfApi(endpoint=hub_endpoint()).model_info(
            self.name, revision=revision, timeout=ANSWER, files_metadata=True
        )

    def _download(self, commit: str, progress: Progress | None) -> Path:
        from huggingface_hub.errors import OfflineModeIsEnabled

        try:
            listed = {file.rfilename: file for file in self._info(commit).siblings or []}
        except OfflineModeIsEnabled:
            folder = self._snapshot(commit, [], offline=True)
            if missing_weights(folder) is not None:
                raise
            return folder
        files = wanted_files(listed, self.location)
        large = large_files(listed, files, lambda file: self._address(file, commit))
        download_large(self.kept_in, commit, large, self.location, progress)
        folder = self._snapshot(commit, files, offline=False)
        missing = [file for file in files if not (folder / file).is_file()]
        if missing:  # a Hub that is slow to answer now, and a download that was cut off before
            raise ModelSourceError(
                f"model source {self.location} is downloaded in part, and the Hub did not answer "
                f"in time for the rest ({missing[0]}); run again"
            )
        return folder

    def _address(self, file: str, commit: str) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.name, file, revision=commit, endpoint=hub_endpoint())

    def _snapshot(self, revision: str, files: list[str], offline: bool) -> Path:
        from huggingface_hub import snapshot_download

        folder = snapshot_download(
            self.name,
            revision=revision,
            cache_dir=self._cache,
            allow_patterns=files or None,
            local_files_only=offline,
            endpoint=hub_endpoint(),
        )
        return Path(str(folder))

    def _note_branch(self, commit: str) -> None:
        """Note what a branch or tag is, as its client does that is asked for a branch."""
        if self._revision != commit:
            note = self.kept_in / "refs" / self._revision
            with contextlib.suppress(OSError):
                note.parent.mkdir(parents=True, exist_ok=True)
                temporary = note.with_name(f"{note.name}.{os.getpid()}")
                temporary.write_text(commit, encoding="utf-8")
                temporary.replace(note)

    def _what_is_here(self) -> str:
        snapshot = cached_snapshot(self.name, self._revision, self._cache)
        absent = missing_weights(snapshot) if snapshot is not None else None
        if absent is None:
            return f"not in the local cache ({self.kept_in})"
        return f"in the local cache in part ({snapshot} lacks {absent})"

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        """Turn what huggingface_hub raises into errors that say what to do and quote no request.

        It raises its own errors, OSErrors, and those of the HTTP library it happens to use.
        """
        from huggingface_hub.errors import (
            GatedRepoError,
            LocalEntryNotFoundError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        try:
            yield
        except GatedRepoError:
            raise ModelSourceError(
                f"model source {self.location} is gated: accept its licence on huggingface.co and "
                f"log in with `hf auth login`"
            ) from None
        except (RepositoryNotFoundError, RevisionNotFoundError):
            raise MissingSourceError(
                f"model source {self.location} is not on the Hub, or is private; correct the name "
                f"or the revision, or log in with `hf auth login`"
            ) from None
        except (LocalEntryNotFoundError, OfflineModeIsEnabled):
            raise MissingSourceError(
                f"model source {self.location} is {self._what_is_here()}, and "
                f"the Hub ({self.home}) cannot be reached (or HF_HUB_OFFLINE is set); "
                f"download it where there is a network (`hf download {self.name}`), try the "
                f"mirror HF_ENDPOINT=https://hf-mirror.com, or name a folder"
            ) from None
        except ResourceError:
            raise
        except Exception as error:
            raise ModelSourceError(
                f"model source {self.location} cannot be read ({type(error).__name__}); check the "
                f"network to {self.home}, the token's rights, and HF_ENDPOINT where a mirror is "
                f"used (such as https://hf-mirror.com)"
            ) from None


def _parts(parsed: re.Match[str]) -> list[str]:
    return str(parsed["name"]).split("/")
