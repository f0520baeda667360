"""How a checkpoint is made again, as a block of YAML in its card: inputs by digest, and the recipe.

The block is for `ronghe reproduce`; the recipe above it in a card is for people and for mergekit.
A card comes from anybody, so the block is read with the bounds that all YAML is read with, and says
nothing that is not checked: inputs are those whose content has the digest, and the recipe is
checked as one from a file is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import yaml

from merge_ops.checkpoints.files.bounded_yaml import DocumentError, load_documents
from merge_ops.errors import AncestryError

MARK = "# ronghe reproduce"
"""Begins the block."""
FORMAT = 1
_BLOCK = re.compile(rf"^```+ya?ml[ \t]*\r?\n({re.escape(MARK)}\b.*?)\r?\n```+[ \t]*$", re.M | re.S)
MOST_STEPS, MOST_MODELS = 200, 10_000
CARD_FILE = "README.md"
"""Not compared: it says names, which belong to whoever writes it out."""


@dataclass(frozen=True)
class Part:
    """A part is one stored model that goes in: its digest, and where others find it, if anywhere.

    `source` is a public URI such as hf://org/name@commit.
    """

    digest: str
    source: str | None = None


@dataclass(frozen=True)
class MakingStep:
    """A making step is one merge: a recipe's document, and what its models' names stand for.

    A model has several parts where it is a base with adapters on it. `digest` is the plan's.
    """

    digest: str
    recipe: Mapping[str, Any]
    models: Mapping[str, tuple[Part, ...]]
    arithmetic: str | None = None


@dataclass(frozen=True)
class Reproduction:
    """A reproduction is everything to make a checkpoint again: its merges in order, and its files.

    The last step makes it; a part with the digest of an earlier step is what that step made.
    `files` holds the BLAKE3 of each file where it is known; `release` is the one that made it.
    """

    steps: tuple[MakingStep, ...]
    release: str | None = None
    files: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def digest(self) -> str:
        """Return the digest of what is made."""
        return self.steps[-1].digest

    def to_block(self) -> str:
        """Return the text of the block, without its fences."""
        document = {
            "format": FORMAT,
            "release": self.release,
            "steps": [
                {
                    "digest": step.digest,
                    "arithmetic": step.arithmetic,
                    "models": {
                        name: [
                            {"digest": part.digest}
                            | ({"source": part.source} if part.source is not None else {})
                            for part in parts
                        ]
                        for name, parts in step.models.items()
                    },
                    "recipe": dict(step.recipe),
                }
                for step in self.steps
            ],
            "files": dict(self.files),
        }
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True).rstrip()
        return f"{MARK} README.md  makes it again and compares the bytes\n{text}"


def from_card(card: str, where: str) -> Reproduction:
    """Read the block of a card. Raises AncestryError where there is none, or it cannot be so."""
    found = _BLOCK.search(card)
    if found is None:
        raise AncestryError(
            f"{where} holds no block that begins with '{MARK}': it is no card of a merge by Ronghe,"
            " or one of an earlier release; merge it again from the recipe in it, with"
            " `ronghe merge`, and compare the files"
        )
    try:
        document = load_documents(found[1])[0]
        return _read(cast("dict[str, Any]", document), where)
    except DocumentError as error:
        raise AncestryError(f"{where}: its block '{MARK}' cannot be read: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise AncestryError(
            f"{where}: its block '{MARK}' is not as Ronghe writes it ({error!r}); it was changed by"
            " hand, or cut"
        ) from error


def _read(document: Mapping[str, Any], where: str) -> Reproduction:
    if document["format"] != FORMAT:
        raise AncestryError(
            f"{where}: its block is of format {document['format']!r}, and this release reads"
            f" {FORMAT}; use the release that wrote it"
        )
    listed = document["steps"]
    if not listed or len(listed) > MOST_STEPS:
        raise AncestryError(f"{where}: its block has {len(listed)} steps; 1 to {MOST_STEPS} can be")
    steps: list[MakingStep] = []
    for step in listed:
        if len(step["models"]) > MOST_MODELS:
            raise AncestryError(f"{where}: a step of its block has more than {MOST_MODELS} models")
        models = {
            str(name): tuple(Part(str(each["digest"]), each.get("source")) for each in parts)
            for name, parts in step["models"].items()
        }
        if not all(models.values()):
            raise ValueError("a model has no parts")
        steps.append(
            MakingStep(str(step["digest"]), dict(step["recipe"]), models, step.get("arithmetic"))
        )
    listed_files = cast("dict[object, object]", document.get("files") or {})
    files = {str(name): str(digest) for name, digest in listed_files.items()}
    release = document.get("release")
    return Reproduction(tuple(steps), None if release is None else str(release), files)
