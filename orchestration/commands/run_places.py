"""Where the steps of training runs are: folders here, prefixes in buckets."""

import os
from collections.abc import Collection

from orchestration.commands.model_references import is_there, local_path


class KnownPlaces:
    """Folders and buckets, as `window:` asks of them."""

    def names_in(self, folder: str) -> Collection[str] | None:
        """The sub-folders of a run; None of the Hub, whose revisions are not listed.

        Raises ValueError where there is no such folder.
        """
        path = local_path(folder)
        if is_there(path):
            if not path.is_dir():
                raise ValueError(f"is '{folder}', which is a file; name the folder of its steps")
            with os.scandir(path) as entries:
                return [each.name for each in entries if each.is_dir()]
        if folder.startswith("s3://"):
            return _in_bucket(folder)
        if "://" in folder:
            return None
        raise ValueError(f"is '{folder}', and there is no folder {path.absolute()}")

    def unready(self, reference: str) -> str | None:
        """Why a step that lies here has no whole weights; nothing of one that is far away."""
        from orchestration.commands.readable_models import unreadable

        path = local_path(reference)
        return unreadable(path) if is_there(path) and "+" not in reference else None


def _in_bucket(uri: str) -> Collection[str]:
    """The folders directly below a prefix that hold something."""
    from resources.errors import ResourceError
    from resources.places import open_place

    try:
        keys = [entry.key for entry in open_place(uri).walk("")]
    except (ResourceError, FileNotFoundError) as error:
        raise ValueError(f"is '{uri}', which cannot be listed: {error}") from error
    if not keys:
        raise ValueError(f"is '{uri}', and nothing is there")
    return {key.partition("/")[0] for key in keys if "/" in key}
