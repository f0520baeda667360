"""Where the steps of training runs are: folders here, prefixes in buckets, revisions of the Hub.

Knows no Dagster.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote


@dataclass(frozen=True)
class RunFolders:
    """Run folders are the places of a catalog's runs: paths are relative to its `folder`."""

    folder: Path

    def names_in(self, folder: str) -> Collection[str] | None:
        """Return the sub-folders of a run; None where they cannot be listed.

        Raises ValueError where there is no such folder.
        """
        if folder.startswith("s3://"):
            return in_bucket(folder)
        path = self._local(folder)
        if path is None:
            return None
        try:
            with os.scandir(path) as entries:
                return [each.name for each in entries if each.is_dir()]
        except OSError as error:
            told = error.strerror or str(error)
            raise ValueError(f"is '{folder}', and {path} cannot be listed ({told})") from error

    def revisions_of(self, repository: str) -> Collection[str] | None:
        """Return the branches and tags of a repository of the Hub; None of another place."""
        return revisions_of(repository) if repository.startswith("hf://") else None

    def unready(self, reference: str) -> str | None:
        """Return why a step here or in a bucket has no whole weights; nothing of a revision."""
        from merge_ops.checkpoints import FolderSource
        from merge_ops.checkpoints.folders.folder_verdict import read_folder
        from merge_ops.checkpoints.pickles.pickled_weights import metadata_of

        if reference.startswith("s3://"):
            from assets.work.upstream.far_steps import unready_in_bucket

            return unready_in_bucket(reference)
        path = self._local(reference)
        if path is None or metadata_of(path) is not None:
            return None
        verdict = read_folder(FolderSource(path)).verdict
        return "; ".join(verdict.faults) if verdict.faults else None

    def _local(self, reference: str) -> Path | None:
        """The path of what lies here."""
        scheme, separator, rest = reference.partition("://")
        if not separator:
            return self.folder / os.path.expanduser(reference)
        return Path(unquote(rest)) if scheme == "file" else None


def in_bucket(uri: str) -> Collection[str]:
    """Return the folders directly below a prefix that hold something.

    Raises ValueError where nothing is there, or it cannot be listed.
    """
    from resources.errors import ResourceError
    from resources.upstream import BucketFolder

    try:
        keys = [entry.key for entry in BucketFolder(uri).walk()]
    except ResourceError as error:
        raise ValueError(f"is '{uri}', which cannot be listed: {error}") from error
    if not keys:
        raise ValueError(f"is '{uri}', and nothing is there")
    return {key.partition("/")[0] for key in keys if "/" in key}


def revisions_of(repository: str) -> Collection[str]:
    """Return the branches and tags of a repository of the Hub (`owner/name`, or with hf://).

    Raises ValueError where it is not there, or cannot be asked.
    """
    from resources.errors import ResourceError
    from resources.upstream import open_far_model

    try:
        return open_far_model(repository).revisions() or []
    except ResourceError as error:
        raise ValueError(f"is '{repository}', whose revisions cannot be listed: {error}") from error
