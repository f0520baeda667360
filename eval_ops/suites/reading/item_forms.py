"""How the rows of a file become items: which column holds what, and what may stand in it."""

import ast
import json
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from blake3 import blake3

from eval_ops.faults import did_you_mean, quoted
from eval_ops.suites.valuing.answers import LETTERS, number_fault

Split = Literal["validation", "test"]
Kind = Literal["choice", "generation"]
SPLITS: tuple[Split, Split] = ("validation", "test")
ROLES = ("id", "split", "choices", "answer", "answers", "group")
"""What a column can be; `columns` of a benchmark says which, where it has another name."""
NUMBERED = "#"
"""As the column of ids: the rows are numbered."""
LETTERED = "lettered"
"""A key that every prompt may use: the choices, a line each, as `A. …`."""

TESTS = "tests"
"""A key that prompts of `metric: code` may use: the lines of the tests."""

_LABEL = re.compile(rf"^\s*[(（]?([{LETTERS}])\s*[.．、:：)）]\s*")
_LABELS = re.compile(rf"(?:^|\s)[(（]?[{LETTERS}]\s*[.．、:：)）]\s*")
_SEVERAL = re.compile(rf"^[{LETTERS}](?:[\s,，、;]*[{LETTERS}])*$")


@dataclass(frozen=True)
class ItemForm:
    """The form of a benchmark's items: their kind, and the columns of their file.

    `letters` says that choices are asked as letters; they may then be written with labels
    (`A. …`), as one text, or as a mapping of letters. `several` allows more than one right choice.
    `numbers` says that each right answer must name one number. `splits` is whether each row names
    its split, and `where` which rows are taken. `follow_up` names a column of two questions,
    `tests` one of code; `passage` is an expression whose first group, found in the prompt, is what
    items of a group share.
    """

    kind: Kind = "choice"
    prompt: str = "{prompt}"
    columns: Mapping[str, str | Sequence[str]] = field(default_factory=dict[str, str])
    letters: bool = False
    several: bool = False
    needs_answers: bool = True
    numbers: bool = False
    splits: bool = True
    where: Mapping[str, str | int] = field(default_factory=dict[str, "str | int"])
    follow_up: str = ""
    tests: str = ""
    passage: str = ""

    def column(self, role: str) -> str | Sequence[str]:
        """Return the column, or columns, of a role."""
        return self.columns.get(role, role)


def takes(form: ItemForm, row: Mapping[str, Any]) -> bool:
    """Return whether a row is one of the benchmark's: `where` names values that it must have."""
    return all(str(row.get(key)) == str(value) for key, value in form.where.items())


def template_fields(prompt: str) -> tuple[list[str], str | None]:
    """Return the keys a prompt template uses, and what is wrong with it (None when nothing is)."""
    fields: list[str] = []
    try:
        for _, name, form, conversion in string.Formatter().parse(prompt):
            if name is None:
                continue
            if not name.isidentifier() or form or conversion:
                return [], f"'{{{name}}}' is not a plain key; write {{key}}, or {{{{ for a brace"
            fields.append(name)
    except ValueError as error:
        return [], f"{error}; write {{key}}, or {{{{ for a brace"
    if not fields:
        return [], "it uses no key of the items, so every question would be the same"
    return fields, None


def choices_of(form: ItemForm, row: Mapping[str, Any]) -> object:
    """Return a row's choices as a list of texts, or what stands there where it is no such list."""
    column = form.column("choices")
    if not isinstance(column, str):
        texts = [row.get(name) for name in column]
        while len(texts) > 2 and texts[-1] in (None, ""):  # fewer options than columns
            texts.pop()
        return texts
    value = row.get(column)
    if isinstance(value, str):
        value = _list_in(value, form.letters)
    if form.letters and isinstance(value, dict):
        named = cast("dict[str, Any]", value)
        if list(named) == list(LETTERS[: len(named)]):
            return list(named.values())
    if form.letters and isinstance(value, list):
        texts = cast("list[Any]", value)
        if all(isinstance(text, str) and _LABEL.match(text) for text in texts):
            return [_LABEL.sub("", text, count=1).strip() for text in texts]
    return cast("object", value)


def _list_in(text: str, lettered: bool) -> object:
    """The list that a text writes: as JSON, as Python does, or with a label before each choice."""
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text) if text.lstrip().startswith("[") else None
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, list):
            return cast("list[Any]", value)
    parts = [part.strip() for part in _LABELS.split(text)] if lettered else []
    return parts[1:] if len(parts) > 2 and not parts[0] else text


def right_of(form: ItemForm, row: Mapping[str, Any], choices: int) -> tuple[int, ...] | str:
    """Return the indices of a row's right choices in order, or what is wrong with them."""
    column = str(form.column("answer"))
    given = row.get(column, 0)
    value = _index_written(given)
    if isinstance(value, str) and _SEVERAL.match(value.strip().upper()):
        value = [LETTERS.index(letter) for letter in re.findall(r"[A-J]", value.upper())]
        value = value[0] if len(value) == 1 else value
    several = cast("list[object]", value) if isinstance(value, list) else [value]
    bad = [
        each
        for each in several
        if isinstance(each, bool) or not isinstance(each, int) or not 0 <= each < choices
    ]
    many = ", or a list of the right ones" if form.several else ""
    if bad or not several or len(set(map(str, several))) < len(several):
        allowed = f"it must be the index of a choice, 0 to {choices - 1}{many}"
        return f"{column} is {quoted(given)}; {allowed}"
    if len(several) > 1 and not form.several:
        return (
            f"{column} is {quoted(given)}, several right choices; set `several: true` in the"
            " suite, which asks every item of the benchmark for all of its letters"
        )
    return tuple(sorted(cast("list[int]", several)))


def _index_written(given: object) -> object:
    """The index that a CSV writes as a text; JSON writes numbers as numbers."""
    if isinstance(given, _CsvText) and given.strip().isdecimal():
        return int(given)
    if isinstance(given, _CsvText) and given.strip().startswith("["):
        return _list_in(given, lettered=False)
    return given


class _CsvText(str):
    """A text of a CSV, where a number cannot be told from a text."""

    __slots__ = ()


def csv_texts(row: Mapping[str, Any]) -> dict[str, Any]:
    """Mark the texts of a CSV's row as such."""
    return {name: _CsvText(value) for name, value in row.items()}


def answers_of(form: ItemForm, row: Mapping[str, Any]) -> tuple[str, ...] | str:
    """Return a row's right texts, or what is wrong with them; () where nobody needs any."""
    column = form.column("answers")
    if "answers" not in form.columns and "answers" not in row:
        column = form.column("answer")
    name = str(column)
    if name not in row:
        return f"key '{name}' is missing" if form.needs_answers else ()
    value: object = row[name]
    texts = cast("list[object]", value) if isinstance(value, list) else [value]
    good = [str(each) for each in texts if isinstance(each, str | int | float) and each != ""]
    if len(good) < len(texts) or any(isinstance(each, bool) for each in texts):
        return f"{name} is {quoted(row[name])}; it must be a text, or a list of texts, none empty"
    if not good and form.needs_answers:
        return f"{name} is {quoted(row[name])}; it must hold a right answer at least"
    for each in good if form.numbers else ():
        if fault := number_fault(each):
            allowed = "`metric: number` compares one: write it alone, or behind ####"
            return f"{name} is {quoted(each)}, which {fault}; {allowed}"
    return tuple(good)


MOST_NAME = 64
"""Characters of a group's name; a longer one, as a passage is, goes by its digest."""


def group_of(form: ItemForm, row: Mapping[str, Any], prompt: str) -> str:
    """Return the name of the group a row belongs to, or ""."""
    name = str(row.get(str(form.column("group"))) or "")
    if form.passage and not name:
        found = re.search(form.passage, prompt)
        name = (found[1] if found.re.groups else found[0]) or "" if found else ""
    return name if len(name) <= MOST_NAME else blake3(name.encode()).hexdigest()[:16]


def lettered(choices: Sequence[str]) -> str:
    """Return choices with their letters, a line each."""
    return "\n".join(
        f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)
    )


def renamed(key: str, row: Mapping[str, Any]) -> str:
    """Say which key of the row may be a misspelling of `key`."""
    hint = did_you_mean(key, [name for name in row if name not in ROLES])
    return hint.replace("Did you mean", "Is it misspelt as") if hint else ""
