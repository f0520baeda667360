"""What a model is that is not in a folder: it is named exactly, its size is told, it is fetched."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from resources.errors import ModelSourceError
from resources.reading import Progress
from resources.upstream.source import FileSink, ModelSource


@runtime_checkable
class FarModel(Protocol):
    """A model of the Hub, of ModelScope or of a bucket, and its copy on the local disk.

    All raise ModelSourceError: MissingSourceError where there is no such model, or it can be had
    neither from the cache nor from its place.
    """

    location: str
    needs: str | None
    """The package of others without which nothing is downloaded."""
    variable: str
    """The environment variable that names another folder for downloads."""

    @property
    def home(self) -> str:
        """Return the address that it is downloaded from, for messages."""
        ...

    @property
    def kept_in(self) -> Path:
        """Return the folder that a download goes to, whether it is there or not."""
        ...

    def revision(self, progress: Progress | None = None) -> str:
        """Return what changes when the model does, and pin it for all that follows."""
        ...

    def revisions(self) -> list[str] | None:
        """Return the names of the branches and tags beside it; None where they are not listed."""
        ...

    def resolved(self) -> str:
        """Return the URI that names exactly what is pinned, such as hf://owner/name@commit."""
        ...

    def sizes(self) -> Mapping[str, int]:
        """Return the bytes of every file that makes up the model; nothing is downloaded."""
        ...

    def cached(self) -> Path | None:
        """Return the folder of a copy that is here already, and pin its revision, or None."""
        ...

    def doubt(self, folder: Path) -> tuple[str, str] | None:
        """Return what the cached copy in `folder` may lack beside its weights, and what to do."""
        ...

    def fetch(self, progress: Progress | None = None) -> Path:
        """Download what is missing of the model, and return the folder that it is in."""
        ...

    def read(self, file: str, offset: int, length: int) -> bytes:
        """Return bytes of a file without downloading the rest; fewer at its end."""
        ...

    def copy_to(self, sink: FileSink, progress: Progress | None = None) -> None:
        """Copy every file of the model into `sink`."""
        ...


def download_text(source: ModelSource) -> str | None:
    """Return what the download of a pinned model will be: its name, how much, from where.

    None for a folder, and for a model whose copy is here.
    """
    if not isinstance(source, FarModel) or source.cached() is not None:
        return None
    try:
        sizes = source.sizes()
    except ModelSourceError:  # whoever downloads it meets the same, or does not need the sizes
        return f"downloading {source.location}, whose size is not told, from {source.home}"
    weights = sum(file.endswith((".safetensors", ".bin")) for file in sizes)
    total = sum(sizes.values())
    size = f"{total / 1e9:,.1f} GB" if total >= 1e8 else f"{total / 1e6:,.1f} MB"
    return (
        f"downloading {source.resolved()}: {size} in {len(sizes)} files ({weights} of weights), "
        f"from {source.home}"
    )
