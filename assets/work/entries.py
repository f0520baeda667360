"""What the catalog says of one model, in the form the assets use."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class UpstreamModel:
    """An upstream model is one entry of models.yaml.

    `source` is a URI or a path relative to the catalog's folder; `base` is the base model's name
    for an expert and None for a base model itself. `store` says how a full expert is kept; None:
    packed where that saves enough, full otherwise. `follow_links` lets the links of a folder of
    one's own lead out of it. With `faults` the entry is broken: the name is kept for what hangs on
    it, and the model can be neither looked at nor pulled. `title` and `description` are for people.
    A download of more than `max_size` bytes is refused.
    """

    name: str
    source: str
    base: str | None = None
    kind: Literal["full", "lora"] = "full"
    licence: str | None = None
    description: str | None = None
    store: Literal["full", "packed"] | None = None
    follow_links: bool = False
    faults: tuple[str, ...] = ()
    title: str | None = None
    max_size: int | None = None
