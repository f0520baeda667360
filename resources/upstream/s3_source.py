"""A model below a prefix of an S3 bucket, read through s3fs."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from blake3 import blake3

from resources.errors import MissingSourceError, ModelSourceError, SourceChangedError
from resources.store.artifact import Progress
from resources.upstream.model_sources import TEMPLATE_FOLDER, FileSink, wanted_files

_PIECE = 16 << 20
_LIMITS = {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 3}}


class S3Model:
    """A Hugging Face style folder in a bucket. Credentials come from the standard AWS chain."""

    def __init__(self, path: str) -> None:
        self.path = path.strip("/")
        self.location = f"s3://{self.path}"
        self._pinned: dict[str, dict[str, Any]] | None = None

    def revision(self, progress: Progress | None = None) -> str:
        """Return the blake3 of the files' paths, sizes and ETags. Nothing is downloaded."""
        with _clear_errors(self.location):
            self._pinned = self._list(_file_system())
        lines = [[file, info["size"], info["ETag"]] for file, info in sorted(self._pinned.items())]
        return blake3(json.dumps(lines).encode()).hexdigest()

    def copy_to(self, sink: FileSink, progress: Progress | None = None) -> None:
        """Copy the files; SourceChangedError when one has not the ETag that was listed."""
        with _clear_errors(self.location):
            file_system = _file_system()
            files = self._list(file_system) if self._pinned is None else self._pinned
        total, done = sum(info["size"] for info in files.values()), 0
        for file, info in files.items():
            with sink.open(file, info["size"]) as writer:
                for piece in self._read(file_system, file, info):
                    writer.write(memoryview(piece))
                    done += len(piece)
                    if progress:
                        progress(done, total)

    def _list(self, file_system: Any) -> dict[str, dict[str, Any]]:
        found = _objects(file_system, self.path)
        templates = f"{self.path}/{TEMPLATE_FOLDER}"
        if any(info["name"] == templates for info in found):
            found += _objects(file_system, templates)
        infos = {
            info["name"].removeprefix(f"{self.path}/"): info
            for info in found
            if info["type"] == "file"
        }
        if not infos:
            raise MissingSourceError(
                f"model source {self.location} holds no files; correct it in the catalog"
            )
        return {file: infos[file] for file in wanted_files(infos, self.location)}

    def _read(self, file_system: Any, file: str, info: dict[str, Any]) -> Iterator[bytes]:
        """The object's bytes in pieces, all of them from the version that was listed."""
        left = info["size"]
        with _clear_errors(self.location):
            opened = file_system.open(
                f"{self.path}/{file}", "rb", block_size=_PIECE, cache_type="none"
            )
            if (opened.details["ETag"], opened.size) != (info["ETag"], left):
                raise SourceChangedError(
                    f"model source {self.location}: {file} changed since its revision was taken; "
                    f"run again"
                )
        with opened:
            while left:
                with _clear_errors(self.location):
                    piece = opened.read(min(left, _PIECE))
                if not piece:
                    raise ModelSourceError(
                        f"model source {self.location}: {file} ended {left} bytes too early"
                    )
                left -= len(piece)
                yield piece


def _objects(file_system: Any, path: str) -> list[dict[str, Any]]:
    """What is directly in a folder. (s3fs `find` with a depth hides refused credentials.)"""
    return file_system.ls(path, detail=True, refresh=True)


def _file_system() -> Any:
    import s3fs

    return s3fs.S3FileSystem(
        skip_instance_cache=True, use_listings_cache=False, config_kwargs=_LIMITS
    )


@contextlib.contextmanager
def _clear_errors(location: str) -> Iterator[None]:
    """Turn what s3fs raises into errors that say what to do and quote no request."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except FileNotFoundError:
        raise MissingSourceError(
            f"model source {location} is not there; correct it in the catalog"
        ) from None
    except PermissionError:
        raise ModelSourceError(
            f"model source {location}: the server refused the credentials; check the key, and "
            f"that it may list and get objects of this bucket"
        ) from None
    except (OSError, BotoCoreError, ClientError) as error:
        raise ModelSourceError(
            f"model source {location} cannot be read ({type(error).__name__}); check the "
            f"credentials, AWS_ENDPOINT_URL and the network"
        ) from None
