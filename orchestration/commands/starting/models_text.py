"""models.yaml as text: entries are put behind the last one, and every other byte stays.

A library that reads and writes YAML again keeps comments and moves blanks, quotes and line breaks;
here nothing is written again.
"""

import os
import tempfile
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from merge_ops.checkpoints.files.bounded_yaml import DocumentError, load_documents
from merge_ops.errors import Fault, SettingsError
from orchestration.commands.starting.new_models import NewModel

_PLAIN = "-_./@:~+"
_BY_HAND = "is written in a way that nothing can be put into; add the entry by hand"


def entry_text(model: NewModel, indent: str = "  ") -> str:
    """Return one entry of `models:`, as lines of YAML that begin with `indent`."""
    fields: list[tuple[str, str]] = [("name", model.name), ("source", model.source)]
    fields += [("base", model.base)] if model.base is not None else []
    fields += [("kind", model.kind)] if model.kind != "full" else []
    fields += [("licence", model.licence)] if model.licence else []
    lines = [f"{name}: {scalar(value)}" for name, value in fields]
    lines += ["follow_links: true"] if model.follow_links else []
    first, *rest = lines
    return "".join([f"{indent}- {first}\n", *(f"{indent}  {line}\n" for line in rest)])


def scalar(text: str) -> str:
    """Return a text as YAML on one line: as it is where that is read back so, else quoted."""
    simple = text[:1].isalnum() or text[:1] in "./~" or unicodedata.category(text[0]) == "Lo"
    if simple and all(each.isalnum() or each in _PLAIN for each in text) and not _is_other(text):
        return text
    quoted = yaml.safe_dump(text, allow_unicode=True, default_style='"', width=1 << 20)
    return quoted.rstrip("\n").removesuffix("\n...")


def _is_other(text: str) -> bool:
    """Whether YAML reads a text without quotes as something else, such as a number or a date."""
    try:
        return load_documents(f"- {text}")[0] != [text]
    except ValueError:
        return True


def with_entries(text: str, models: Sequence[NewModel]) -> str:
    """Return the text of a models.yaml with further entries behind the last one.

    Raises SettingsError where the list is written in a way that nothing can be put behind.
    """
    try:
        items = _items(text)
    except yaml.YAMLError as error:
        raise _refused(f"is no sound YAML ({error})") from None
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    last, indent = items.value[-1], " " * items.start_mark.column
    opener = lines[last.start_mark.line][: last.start_mark.column]
    if opener.strip() not in ("-", ""):
        raise _refused("has more than an entry on a line")
    end = _last_line(last) + 1
    if end > 0 and lines[end - 1][-1:] != "\n":
        lines[end - 1] += newline
    added = "".join(entry_text(model, indent) for model in models).replace("\n", newline)
    new = "".join([*lines[:end], added, *lines[end:]])
    _compare(text, new, models)
    return new


def write_over(path: Path, text: str) -> None:
    """Replace a file at one stroke, with the rights that it had."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as out:
            out.write(text)
        Path(name).chmod(path.stat().st_mode & 0o777)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _items(text: str) -> Any:
    """The node of the list `models:`, which begins where its first dash is, and is not empty."""
    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    found = [value for key, value in pairs if key.value == "models"]
    if len(found) != 1 or not isinstance(found[0], yaml.SequenceNode) or not found[0].value:
        raise _refused("lists no model; write the first one by hand, or use `ronghe init`")
    if found[0].flow_style:
        raise _refused("has its list in brackets; write each model on lines of its own, with '-'")
    return found[0]


def _last_line(node: Any) -> int:
    """The line on which the last word of an entry ends.

    Blocks end where the next word begins, behind comments, so the end of the last scalar counts.
    """
    if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
        return max(_last_line(value) for pair in node.value for value in pair)
    if isinstance(node, yaml.SequenceNode) and not node.flow_style and node.value:
        return max(_last_line(value) for value in node.value)
    mark = node.end_mark
    return mark.line if mark.column > 0 or mark.line == node.start_mark.line else mark.line - 1


def _compare(old: str, new: str, models: Sequence[NewModel]) -> None:
    """Read both texts: nothing but the new entries may be new."""
    try:
        before, after = load_documents(old)[0], load_documents(new)[0]
    except DocumentError:
        raise _refused(_BY_HAND) from None
    count = len(before["models"])
    added = after["models"][count:]
    after["models"] = after["models"][:count]
    if before != after or [each["name"] for each in added] != [model.name for model in models]:
        raise _refused(_BY_HAND)


def _refused(problem: str) -> SettingsError:
    return SettingsError("models.yaml", [Fault("models", problem)])
