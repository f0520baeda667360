"""The chat template of a merge: one that the recipe names, or that most of its models have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.files.byte_sources import read_file
from merge_ops.checkpoints.files.file_bounds import MAX_TEMPLATE
from merge_ops.errors import CheckpointError
from merge_ops.recipes.chat_templates import AUTO, BUILT_IN

TEMPLATE_FILE = "chat_template.jinja"
CONFIG_FILE = "tokenizer_config.json"


def resolve_template(asked: str, models: Sequence[Checkpoint]) -> str | None:
    """Return the Jinja text that `chat_template` asks for.

    `auto` is the template that most of the models have; of equally frequent ones it is the first in
    the recipe's order (mergekit's order varies from run to run). It is None where no model has a
    template.
    """
    if asked != AUTO:
        return BUILT_IN.get(asked, asked)
    found = [template for model in models if (template := template_of(model))]
    return Counter(found).most_common(1)[0][0] if found else None


def template_of(checkpoint: Checkpoint) -> str | None:
    """Return a model's chat template without outer blanks, or None where it has none.

    Of several templates it is the one called `default`. Raises CheckpointError where a file that
    may hold one is far too long, or no JSON.
    """
    source, files = checkpoint.source, checkpoint.files
    if TEMPLATE_FILE in files:
        size = files[TEMPLATE_FILE]
        if size > MAX_TEMPLATE:
            raise CheckpointError(
                f"{source.location}/{TEMPLATE_FILE}: has {size} bytes, and a chat template has at"
                f" most {MAX_TEMPLATE}; restore the file from its source, or take it away"
            )
        text = read_file(source, TEMPLATE_FILE, 0, size)
        return text.decode("utf-8", errors="replace").strip() or None
    for file in (CONFIG_FILE, "chat_template.json"):
        known = checkpoint.json_files
        value = known.read(file).get("chat_template") if file in known else None
        if isinstance(value, list):
            value = _default_of(cast(list[Any], value))
        if isinstance(value, str) and value.strip():
            return value.strip()
    return None


def _default_of(templates: Sequence[Any]) -> Any:
    """The last one called `default` of a list of {name, template}; None where there is none."""
    tables = [cast(dict[str, Any], each) for each in templates if isinstance(each, dict)]
    found = [each.get("template") for each in tables if each.get("name") == "default"]
    return found[-1] if found else None
