"""Reads a benchmark's own items: multiple choice and generation, from JSON lines, CSV or Parquet.

One item a row: `{"id": "herb-0001", "split": "test", "prompt": "…", "choices": ["…", "…"],
"answer": 0}`, or for generation `"answers": ["…"]` in place of choices and answer. Other keys with
text or numbers are welcome: the benchmark's prompt may use them. Rows with the same `group` share a
passage. item_rows.py reads files, item_forms.py says what a row must hold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from blake3 import blake3

from eval_ops.errors import ItemsError
from eval_ops.faults import did_you_mean, quoted
from eval_ops.suites.reading import item_forms
from eval_ops.suites.reading.item_forms import NUMBERED, SPLITS, ItemForm, Split, template_fields
from eval_ops.suites.reading.item_rows import FileReader, Row, read_bytes, read_rows
from eval_ops.suites.valuing.answers import LETTERS

MAX_FAULTS = 100
"""Faults of one file that are listed."""
MOST_KEPT = 50_000
"""Items that a process keeps of the files it has read: C-Eval and CMMLU whole, some 50 MB."""

__all__ = ["FileReader", "Item", "ItemsFile", "divide", "read_items", "template_fields"]


@dataclass(frozen=True)
class Item:
    """One question. `choices` and the index `answer`, or the texts `answers` that are right.

    `split` is "validation" (chooses coefficients) or "test" (is reported), never both. `right`
    holds the indices of all right choices where the benchmark allows several. Items of one `group`
    share a passage. `follow_up` is a second question, asked after the first was answered; `tests`
    is code that an answer must pass.
    """

    id: str
    split: Split
    prompt: str
    choices: tuple[str, ...] = ()
    answer: int = 0
    right: tuple[int, ...] = ()
    answers: tuple[str, ...] = ()
    group: str = ""
    follow_up: str = ""
    tests: str = ""


@dataclass(frozen=True)
class ItemsFile:
    """The items of one file, and the blake3 digest of the file's bytes."""

    items: tuple[Item, ...]
    digest: str


_parsed: dict[tuple[str, str, str], ItemsFile] = {}
"""What was read, by the digest of the bytes, the ending that tells their form, and the form."""


def read_items(path: Path, reader: FileReader, form: ItemForm | str = "{prompt}") -> ItemsFile:
    """Read and check every row of `path`; `form` is an ItemForm, or a template over a row's keys.

    Bytes that were read before, and in the same form, are not parsed again: a process loads a suite
    for each champion and each batch of scores.
    Raises ItemsError that lists every faulty row.
    """
    form = ItemForm(prompt=form) if isinstance(form, str) else form
    data = read_bytes(path, reader)
    digest = blake3(data).hexdigest()
    meant = digest, path.suffix.lower(), repr(form)
    if meant in _parsed:
        return _parsed[meant]
    items, faults = _parse_rows(path, data, reader, form)
    if not faults:
        faults = _faults_between(items, form)
    if len(faults) > MAX_FAULTS:
        faults = [*faults[:MAX_FAULTS], "has more faults, which are not listed"]
    if faults:
        raise ItemsError(str(path), faults)
    read = ItemsFile(tuple(items), digest)
    _keep(meant, read)
    return read


def _keep(meant: tuple[str, str, str], read: ItemsFile) -> None:
    """Keep the items of a file's bytes as a form reads them; the ones kept longest make room."""
    _parsed[meant] = read
    while len(_parsed) > 1 and sum(len(each.items) for each in _parsed.values()) > MOST_KEPT:
        del _parsed[next(iter(_parsed))]


def divide(items: Sequence[Item], share: float, seed: int, benchmark: str) -> tuple[Item, ...]:
    """Divide items whose file names no splits: about `share` of them to validation.

    Items of a group go together, and so do equal questions. Which go where depends on the seed, the
    benchmark's name, and the groups' names or the questions alone. Test gets one group at least,
    and so does validation with a share above 0.
    """
    groups: dict[str, int] = {}
    for item in items:
        groups[item.group or item.prompt] = groups.get(item.group or item.prompt, 0) + 1

    def place(name: str) -> bytes:
        return blake3(f"{seed}\0{benchmark}\0{name}".encode()).digest()

    order = sorted(groups, key=place)
    validation: set[str] = set()
    taken, wanted = 0, round(share * len(items))
    for name in order[:-1] if share > 0 else ():
        if taken and taken + groups[name] / 2 > wanted:
            break
        validation.add(name)
        taken += groups[name]
    return tuple(
        replace(item, split="validation" if (item.group or item.prompt) in validation else "test")
        for item in items
    )


def _parse_rows(
    path: Path, data: bytes, reader: FileReader, form: ItemForm
) -> tuple[list[Item], list[str]]:
    """Return the items of the rows that have no fault, and the faults of the others."""
    fields, template_fault = template_fields(form.prompt)
    if template_fault:
        return [], [f"the prompt template {form.prompt!r} cannot be used: {template_fault}"]
    items: list[Item] = []
    faults: list[str] = []
    is_csv = path.suffix.lower() == ".csv"
    for number, row in enumerate(read_rows(path, data, reader), start=1):
        if len(faults) > MAX_FAULTS:
            break
        if row.fault:
            faults.append(row.fault)
        elif item_forms.takes(form, row.values):
            values = item_forms.csv_texts(row.values) if is_csv else row.values
            item, row_faults = _item(Row(row.place, values), number, form, fields)
            faults += [f"{row.place}: {fault}" for fault in row_faults]
            items += [item] if item is not None else []
    if form.where and not items and not faults:
        faults.append(f"holds no row with {dict(form.where)}, of which `where` speaks")
    return items, faults


def _item(
    row: Row, number: int, form: ItemForm, fields: Sequence[str]
) -> tuple[Item | None, list[str]]:
    """Return a row's item, or every fault in it."""
    values, faults = row.values, _key_faults(row.values, form, fields)
    choices: object = ()
    right: tuple[int, ...] = ()
    answers: tuple[str, ...] = ()
    if form.kind == "choice":
        choices = item_forms.choices_of(form, values)
        problem, right = _choices_and_right(choices, values, form)
        faults += problem
    else:
        found = item_forms.answers_of(form, values)
        if isinstance(found, str):
            faults.append(found)
        else:
            answers = found
    turns = _turns(values, form, faults)
    tests = _text(values, form.tests, faults) if form.tests else ""
    if faults:
        return None, faults
    texts = tuple(cast("Sequence[str]", choices))
    made = {item_forms.LETTERED: item_forms.lettered(texts), item_forms.TESTS: tests}
    known = {**values, **made}
    prompt = turns[0] if turns else form.prompt.format_map({key: known[key] for key in fields})
    column = form.column("id")
    return Item(
        id=str(number) if column == NUMBERED else str(values[str(column)]),
        split=values[str(form.column("split"))] if form.splits else "test",
        prompt=prompt,
        choices=texts,
        answer=right[0] if right else 0,
        right=right if form.several else (),
        answers=answers,
        group=item_forms.group_of(form, values, prompt),
        follow_up=turns[1] if len(turns) > 1 else "",
        tests=tests,
    ), []


def _key_faults(row: Mapping[str, Any], form: ItemForm, fields: Sequence[str]) -> list[str]:
    """What is missing of a row's columns, and what its texts, id and split are not."""
    names = [form.column("id"), form.column("split") if form.splits else NUMBERED]
    if form.kind == "choice":
        of_choices = form.column("choices")
        names += [of_choices] if isinstance(of_choices, str) else list(of_choices)[:2]
        names.append(form.column("answer"))
    asked = [field for field in fields if field not in (item_forms.LETTERED, item_forms.TESTS)]
    asked = [] if form.follow_up else asked
    faults: list[str] = []
    for key in dict.fromkeys([*map(str, names), *asked]):
        if key not in row and key != NUMBERED:
            hint = item_forms.renamed(key, row)
            faults.append(f"key '{key}' is missing.{hint}".removesuffix("."))
    for field in asked:
        if field in row and (not isinstance(row[field], str | int | float) or row[field] == ""):
            faults.append(
                f"{field} is {quoted(row[field])}; it must be text or a number, not empty"
            )
    key = str(form.column("id"))
    given = row.get(key, "?")
    numeric = "id" in form.columns and isinstance(given, int) and not isinstance(given, bool)
    if not numeric and (not isinstance(given, str) or not given):
        faults.append(f"{key} is {quoted(given)}; it must be text, not empty")
    split = str(form.column("split"))
    if form.splits and split in row and row[split] not in SPLITS:
        hint = did_you_mean(str(row[split]), SPLITS)
        faults.append(f"{split} is {quoted(row[split])}; it must be 'validation' or 'test'.{hint}")
    return faults


def _choices_and_right(
    choices: object, row: Mapping[str, Any], form: ItemForm
) -> tuple[list[str], tuple[int, ...]]:
    column = form.column("choices")
    if isinstance(column, str) and column not in row:
        return [], ()
    name = column if isinstance(column, str) else " and ".join(column)
    given = cast("list[object]", choices) if isinstance(choices, list) else []
    texts = [text for text in given if isinstance(text, str) and text]
    if len(texts) < max(1, len(given)):
        told = quoted(cast("object", choices))
        return [f"{name} is {told}; it must be a list of texts, none empty"], ()
    if len(texts) < 2 or (len(set(texts)) < len(texts) and not form.letters):
        return [f"{name} is {quoted(texts)}; it must hold two or more texts, all different"], ()
    if len(texts) > len(LETTERS) and (form.letters or form.several):
        return [f"{name} holds {len(texts)} texts; letters are A to J, so 10 at most"], ()
    right = item_forms.right_of(form, row, len(texts))
    return ([right], ()) if isinstance(right, str) else ([], right)


def _turns(row: Mapping[str, Any], form: ItemForm, faults: list[str]) -> tuple[str, ...]:
    """The two questions of a conversation, where `follow_up` names their column."""
    if not form.follow_up:
        return ()
    value = row.get(form.follow_up)
    texts = cast("list[object]", value) if isinstance(value, list) else []
    if len(texts) != 2 or not all(isinstance(text, str) and text for text in texts):
        told = quoted(row.get(form.follow_up))
        faults.append(f"{form.follow_up} is {told}; it must be a list of two questions")
        return ()
    return tuple(map(str, texts))


def _text(row: Mapping[str, Any], column: str, faults: list[str]) -> str:
    """The lines of a column of code: a text, or a list of texts."""
    value = row.get(column)
    lines = cast("list[object]", value) if isinstance(value, list) else [value]
    if not lines or not all(isinstance(line, str) and line for line in lines):
        faults.append(f"{column} is {quoted(row.get(column))}; it must be lines of code")
        return ""
    return "\n".join(map(str, lines))


def _faults_between(items: Sequence[Item], form: ItemForm) -> list[str]:
    """Faults that no single row shows: nothing to test, repeated ids, a leak between splits."""
    faults: list[str] = []
    if not any(item.split == "test" for item in items):
        faults.append("holds no item with split 'test', so there is nothing to report")
    ids: set[str] = set()
    asked: dict[object, Item] = {}
    for item in items:
        if item.id in ids:
            faults.append(f"id '{item.id}' is used by more than one item")
        ids.add(item.id)
        right = [item.choices[i] for i in item.right or (item.answer,)] if item.choices else []
        first = asked.setdefault((item.prompt, *right, *item.answers), item)
        if first.split != item.split:
            faults.append(
                f"items '{first.id}' and '{item.id}' ask the same question in both splits; "
                "what chooses a coefficient may not be reported as well"
            )
    return faults
