"""The site's data: plain JSON inside files of JavaScript, which a page loads from anywhere.

A page that was opened from a folder may load no JSON, but it may load scripts. Each file is one
call, `Ronghe.take('<name>', '<JSON>')`: its JSON is a string that the page parses, so nothing that
a stranger wrote is ever part of a program, nor a key of one (`__proto__`).
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from assets.site.view import AnswersView, CatalogView, CheckpointView

FOLDER = "data"
LARGEST = 256 << 10
"""Bytes of a file after which the next one begins: what a page reads to show one thing."""
TEXTS_AT_ONCE = 200
"""Questions whose texts stand in one file."""
SHORT = 12
"""Characters of a digest in a link."""

_WRITTEN = {"\\": "\\\\", "'": "\\'", "<": "\\x3c", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_TO_WRITE = re.compile("[\\\\'<\u2028\u2029]")
_TO_READ = re.compile(r"\\(\\|'|x3c|u[0-9a-f]{4})")
_CALL = re.compile(r"Ronghe\.take\('[\w-]+','(.*)'\);\n", re.DOTALL)


def data_files(view: CatalogView) -> Iterator[tuple[str, bytes]]:
    """Yield the site's data as files, each with its path."""
    boards = [view.boards.get(suite.name, ()) for suite in view.suites]
    for number, rows in enumerate(boards):
        yield packed(f"board-{number}", [_plain(row) for row in rows])
    places: dict[str, list[int]] = {}
    for kind, records in _records(view).items():
        places[kind] = []
        for number, part in enumerate(_parts(records)):
            yield packed(f"{kind}-{number}", part)
            places[kind] += [number] * len(part)
    for number, answers in enumerate(view.answers):
        yield from _answers(number, answers)
    yield packed("index", _index(view, places))
    yield packed("licences", _licences(view))
    yield packed("imported", view.imported)
    yield packed("site", _site(view))


def packed(name: str, value: object) -> tuple[str, bytes]:
    """Write a value as a file of the site's data; return its path and its bytes."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = _TO_WRITE.sub(lambda match: _WRITTEN[match[0]], text)
    call = f"Ronghe.take('{name}','{text}');\n"
    return f"{FOLDER}/{name}.js", call.encode("utf-8", "backslashreplace")


def unpacked(data: bytes) -> Any:
    """Read what `packed` wrote. Raises ValueError where it is something else."""
    call = _CALL.fullmatch(data.decode("utf-8"))
    if call is None:
        raise ValueError("this is no data of a catalog site")
    return json.loads(_TO_READ.sub(_read, call[1]))


def _read(match: re.Match[str]) -> str:
    code = match[1]
    return chr(int(code[1:], 16)) if code[0] in "xu" else code


def _records(view: CatalogView) -> dict[str, list[dict[str, Any]]]:
    """What has a page of its own, by kind, one record each."""
    return {
        "models": [_plain(each) for each in view.models],
        "recipes": [_plain(each) for each in view.recipes],
        "checkpoints": [_plain(each) for each in view.checkpoints],
        "studies": [_plain(each) for each in view.studies],
        "compositions": [_plain(each) for each in view.compositions],
    }


def _plain(record: Any) -> dict[str, Any]:
    """A record as JSON has it; what lies in it is not copied where it is plain already."""
    return {name: _value(value) for name, value in vars(record).items()}


def _value(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, tuple) and value and is_dataclass(value[0]):
        return [asdict(each) for each in value]
    if isinstance(value, Mapping):
        return {key: _value(each) for key, each in value.items()}
    return value


def _parts(records: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Share records out to files, in their order, each file some LARGEST bytes."""
    part: list[dict[str, Any]] = []
    held = 0
    for record in records:
        part.append(record)
        held += len(json.dumps(record, ensure_ascii=False))
        if held >= LARGEST:
            yield part
            part, held = [], 0
    if part:
        yield part


def _index(view: CatalogView, places: Mapping[str, list[int]]) -> dict[str, Any]:
    """What there is, to be searched and found: names, and the number of the file of each."""
    return {
        "models": [
            [each.name, each.digest[:SHORT], place]
            for each, place in zip(view.models, places["models"], strict=True)
        ],
        "recipes": [
            [each.name, place] for each, place in zip(view.recipes, places["recipes"], strict=True)
        ],
        "checkpoints": [
            [each.digest[:SHORT], each.label, place, _mean(each)]
            for each, place in zip(view.checkpoints, places["checkpoints"], strict=True)
        ],
        "studies": [
            [each.recipe, each.experts, place]
            for each, place in zip(view.studies, places["studies"], strict=True)
        ],
        "compositions": [
            [each.recipe, each.experts, place]
            for each, place in zip(view.compositions, places["compositions"], strict=True)
        ],
    }


def _mean(each: CheckpointView) -> float | None:
    return each.test.mean[0] if each.test is not None and each.test.mean is not None else None


def _site(view: CatalogView) -> dict[str, Any]:
    """What every page knows."""
    return {
        "name": view.name,
        "suites": [_plain(suite) for suite in view.suites],
        "titles": {
            "models": [[each.name, each.title] for each in view.models if each.title],
            "recipes": [[each.name, each.title] for each in view.recipes if each.title],
        },
        "answers": [[each.suite, each.benchmark, each.title] for each in view.answers],
        "imported": len(view.imported),
        "counts": {
            "models": len(view.models),
            "recipes": len(view.recipes),
            "checkpoints": len(view.checkpoints),
            "studies": len(view.studies),
            "compositions": len(view.compositions),
        },
    }


def _licences(view: CatalogView) -> dict[str, Any]:
    """Licences by the subject that has them: of models, and of merges as `recipe experts`."""
    found: dict[str, Any] = {"model": [], "merge": []}
    for each in view.licences:
        told = [each.subject, each.licence, each.called, each.deciding, each.duties, each.conflicts]
        found[each.kind].append(told)
    return found


def _answers(number: int, view: AnswersView) -> Iterator[tuple[str, bytes]]:
    """A benchmark's answers as numbers in one file, and the texts in further ones."""
    yield packed(
        f"answers-{number}",
        {
            "suite": view.suite,
            "benchmark": view.benchmark,
            "title": view.title,
            "models": view.models,
            "ids": [each[0] for each in view.items],
            "right": [each[3] for each in view.items],
            "values": view.values,
            "choices": view.choices,
            "hidden": view.hidden,
            "at_once": TEXTS_AT_ONCE,
        },
    )
    for part, start in enumerate(range(0, len(view.items), TEXTS_AT_ONCE)):
        end = start + TEXTS_AT_ONCE
        texts = {
            "items": [each[1:3] for each in view.items[start:end]],
            "texts": [written[start:end] for written in view.texts],
        }
        yield packed(f"answers-{number}-{part}", texts)


def earlier_records(files: Mapping[str, bytes]) -> dict[str, list[dict[str, Any]]]:
    """Read models, checkpoints and suites out of the data files of a site.

    Raises ValueError, KeyError or TypeError where they are not as this release writes them.
    """
    found: dict[str, list[dict[str, Any]]] = {"models": [], "checkpoints": [], "suites": []}
    for path, data in files.items():
        kind = path.removeprefix(f"{FOLDER}/").partition("-")[0]
        if kind in ("models", "checkpoints"):
            found[kind] += unpacked(data)
    if f"{FOLDER}/site.js" in files:
        found["suites"] = unpacked(files[f"{FOLDER}/site.js"])["suites"]
    return found
