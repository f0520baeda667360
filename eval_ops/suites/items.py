"""Reads a benchmark's own multiple-choice items from JSON lines.

One item a line: `{"id": "herb-0001", "split": "test", "prompt": "…", "choices": ["…", "…"],
"answer": 0}`. Other keys with text or numbers are welcome: the benchmark's prompt may use them.
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from blake3 import blake3

from eval_ops.errors import ItemsError
from eval_ops.faults import did_you_mean, quoted

Split = Literal["validation", "test"]
SPLITS: tuple[Split, Split] = ("validation", "test")
REQUIRED_KEYS = ("id", "split", "choices", "answer")
MAX_FAULTS = 100
"""Faults of one file that are listed."""


class FileReader(Protocol):
    """A file reader reads files that strangers may have written, all of them within bounds."""

    def items(self, path: Path) -> bytes:
        """Return the bytes of a file of items. Raises OSError, FileNotFoundError among it."""
        ...

    def value(self, text: bytes) -> object:
        """Return the value of one line of JSON. Raises ValueError and nothing else."""
        ...

    def digest(self, path: Path) -> str:
        """Return the blake3 of a file of any size. Raises OSError."""
        ...


@dataclass(frozen=True)
class Item:
    """One question with its choices; `answer` is the index of the right one.

    `split` is "validation" (chooses coefficients) or "test" (is reported), never both.
    """

    id: str
    split: Split
    prompt: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class ItemsFile:
    """The items of one file, and the blake3 digest of the file's bytes."""

    items: tuple[Item, ...]
    digest: str


def read_items(path: Path, reader: FileReader, prompt: str = "{prompt}") -> ItemsFile:
    """Read and check every line of `path`; `prompt` is a template over a line's keys.

    Raises ItemsError that lists every faulty line.
    """
    try:
        data = reader.items(path)
        data.decode("utf-8")
    except FileNotFoundError:
        raise ItemsError(
            str(path), ["the items file does not exist; make it, or correct `items` in the suite"]
        ) from None
    except UnicodeDecodeError as error:
        raise ItemsError(str(path), [f"is not UTF-8 text (byte {error.start})"]) from None
    except OSError as error:
        raise ItemsError(str(path), [str(error)]) from error
    items, faults = _parse_lines(data, reader, prompt)
    if not faults:
        faults = _faults_between(items)
    if len(faults) > MAX_FAULTS:
        faults = [*faults[:MAX_FAULTS], "has more faults, which are not listed"]
    if faults:
        raise ItemsError(str(path), faults)
    return ItemsFile(tuple(items), blake3(data).hexdigest())


def template_fields(prompt: str) -> tuple[list[str], str | None]:
    """Return the keys a prompt template uses, and what is wrong with it (None when nothing is)."""
    fields: list[str] = []
    try:
        for _, field, form, conversion in string.Formatter().parse(prompt):
            if field is None:
                continue
            if not field.isidentifier() or form or conversion:
                return [], f"'{{{field}}}' is not a plain key; write {{key}}, or {{{{ for a brace"
            fields.append(field)
    except ValueError as error:
        return [], f"{error}; write {{key}}, or {{{{ for a brace"
    if not fields:
        return [], "it uses no key of the items, so every question would be the same"
    return fields, None


def _parse_lines(data: bytes, reader: FileReader, prompt: str) -> tuple[list[Item], list[str]]:
    """Return the items of the lines that have no fault, and the faults of the others."""
    fields, template_fault = template_fields(prompt)
    if template_fault:
        return [], [f"the prompt template {prompt!r} cannot be used: {template_fault}"]
    items: list[Item] = []
    faults: list[str] = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if len(faults) > MAX_FAULTS:
            break
        if not line.strip():
            continue
        try:
            row = reader.value(line)
        except ValueError as error:
            faults.append(f"line {number} is not valid JSON: {error}")
            continue
        if not isinstance(row, dict):
            faults.append(f"line {number} is a {type(row).__name__}; it must be a JSON object")
            continue
        mapping = cast("dict[str, Any]", row)
        row_faults = _row_faults(mapping, fields)
        faults += [f"line {number}: {fault}" for fault in row_faults]
        if not row_faults:
            items.append(_item(mapping, prompt, fields))
    return items, faults


def _item(row: Mapping[str, Any], prompt: str, fields: Sequence[str]) -> Item:
    values = {field: row[field] for field in fields}
    return Item(
        id=row["id"],
        split=row["split"],
        prompt=prompt.format_map(values),
        choices=tuple(row["choices"]),
        answer=row["answer"],
    )


def _row_faults(row: Mapping[str, Any], fields: Sequence[str]) -> list[str]:
    """Return what is wrong with one line's object; `fields` are the keys that the prompt uses."""
    faults: list[str] = []
    for key in (*REQUIRED_KEYS, *fields):
        if key not in row:
            faults.append(f"key '{key}' is missing.{_renamed(key, row)}".removesuffix("."))
    for field in fields:
        if field in row and (not isinstance(row[field], str | int | float) or row[field] == ""):
            faults.append(
                f"{field} is {quoted(row[field])}; it must be text or a number, not empty"
            )
    if "id" in row and (not isinstance(row["id"], str) or not row["id"]):
        faults.append(f"id is {quoted(row['id'])}; it must be text, not empty")
    if "split" in row and row["split"] not in SPLITS:
        hint = did_you_mean(str(row["split"]), SPLITS)
        faults.append(f"split is {quoted(row['split'])}; it must be 'validation' or 'test'.{hint}")
    return faults + _choice_faults(row)


def _renamed(key: str, row: Mapping[str, Any]) -> str:
    """Say which key of the row may be a misspelling of `key`."""
    spare = [name for name in row if name not in REQUIRED_KEYS]
    hint = did_you_mean(key, spare)
    return hint.replace("Did you mean", "Is it misspelt as") if hint else ""


def _choice_faults(row: Mapping[str, Any]) -> list[str]:
    if "choices" not in row:
        return []
    choices: Any = row["choices"]
    good = isinstance(choices, list) and all(
        isinstance(choice, str) and choice for choice in cast("list[object]", choices)
    )
    if not good:
        return [
            f"choices is {quoted(cast(object, choices))}; it must be a list of texts, none empty"
        ]
    texts = cast("list[str]", choices)
    if len(texts) < 2 or len(set(texts)) < len(texts):
        return [f"choices is {quoted(texts)}; it must hold two or more texts, all different"]
    answer: object = row.get("answer", 0)
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(texts):
        return [
            f"answer is {quoted(answer)}; it must be the index of a choice, 0 to {len(texts) - 1}"
        ]
    return []


def _faults_between(items: Sequence[Item]) -> list[str]:
    """Faults that no single line shows: nothing to test, repeated ids, a leak between splits."""
    faults: list[str] = []
    if not any(item.split == "test" for item in items):
        faults.append("holds no item with split 'test', so there is nothing to report")
    ids: set[str] = set()
    asked: dict[tuple[str, str], Item] = {}
    for item in items:
        if item.id in ids:
            faults.append(f"id '{item.id}' is used by more than one item")
        ids.add(item.id)
        first = asked.setdefault((item.prompt, item.choices[item.answer]), item)
        if first.split != item.split:
            faults.append(
                f"items '{first.id}' and '{item.id}' ask the same question in both splits; "
                "what chooses a coefficient may not be reported as well"
            )
    return faults
