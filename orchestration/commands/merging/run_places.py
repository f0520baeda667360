"""Where the steps of training runs are: folders here, prefixes in buckets."""

import os
from collections.abc import Collection

from orchestration.commands.models.model_references import is_there, local_path


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
            from assets.work.upstream.run_places import in_bucket

            return in_bucket(folder)
        if "://" in folder:
            return None
        raise ValueError(f"is '{folder}', and there is no folder {path.absolute()}")

    def revisions_of(self, repository: str) -> Collection[str] | None:
        """None: a plan asks no hub; a catalog's `runs:` does
        (assets/work/upstream/run_places.py).
        """

    def unready(self, reference: str) -> str | None:
        """Why a step that lies here has no whole weights; nothing of one that is far away."""
        from orchestration.commands.models.readable_models import unreadable

        path = local_path(reference)
        return unreadable(path) if is_there(path) and "+" not in reference else None
