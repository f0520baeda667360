"""Spoiling valid documents, from a seeded generator: their structure, their text, their bytes."""

import copy
import json
import os
import random
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

DEEP = "@deep@"  # stands for a nesting that no encoder would write
NUMBERS = (
    0, -1, 1, 2, 7, 255, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**400, -(10**400),
    10**4299, -(10**4299), 0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
TEXTS = (
    "", "a", ".", "..", "../x", "/etc/passwd", "a/../../x", "C:\\x", "..\\x", "a\0b", "\ud800",
    "\ud83d\ude00", "\n", "根", "\u202e", "%2e%2e/x", "~", "model.safetensors", "true", "null",
    "x" * 300, "根" * 300, "(a+)+$", "a{99999999999}", "(?i)x", "[", "\\", "1e999", "9" * 5000,
    "{{", "{0}", "%s", "F32", "BF16", "I64", DEEP, DEEP,
)  # fmt: skip
CONTAINERS = ([], {}, [[]], [None], [0, 0], [1, 2, 3], {"": ""}, {"a": {"b": []}}, [0] * 70)
OTHERS = (None, True, False)
CUTS = (b"\0", b"\xff", b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\u", b"\xed\xa0\x80", b"NaN")
MOST_DEEP = 20_000
NAMES = (
    "LICENSE", "NOTICE", "README.md", "config.json", "tokenizer.json", "tokenizer.model",
    "generation_config.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors",
    "model.safetensors.index.json", "pytorch_model.bin", "adapter_model.safetensors", "code.py",
    "adapter_config.json", "1_Pooling", "additional_chat_templates", "custom_generate", "log.txt",
    "optimizer.pt", "x", ".hidden", "[red]", "\x1b[31m.json", "a\nb.json", "根.txt", "'\".json",
    "\udcff.json", "\u202egpj.json", "x" * 250 + ".json", "-rf", "..json", "%2e%2e.txt",
)  # fmt: skip
"""Names of files in a folder of a stranger."""
TARGETS = (
    "../private", "../model/../private", "inner/../../private", "../weights.safetensors", "..",
    "inner", ".", "/proc/self/environ", "/proc/self/maps", "/dev/zero", "/dev/stdin", "/etc",
    "/etc/passwd", "config.json", "LICENSE", "nowhere", "x" * 300, "../../" * 40 + "etc/passwd",
    "/proc/self/fd/0", "/proc/self/cwd", "tokenizer.json/x",
)  # fmt: skip
"""Where links lead; `../private` lies beside the folder."""


def spoiled_value(rng: random.Random) -> Any:
    """Any value that a document may hold where it should not."""
    value = rng.choice(rng.choice((NUMBERS, TEXTS, TEXTS, CONTAINERS, OTHERS)))
    return copy.deepcopy(value) if isinstance(value, dict | list) else value


def spoil(rng: random.Random, document: Any, most: int = 3) -> Any:
    """A document with up to `most` changes of its structure, in place where it can be."""
    holder = [document]
    for _ in range(rng.randint(1, most)):
        place = rng.choice(_places(holder))
        _change(rng, *place)
    return holder[0] if holder else None


def _places(holder: list[Any]) -> list[tuple[Any, Any]]:
    """Every (container, key or position) of a tree."""
    found: list[tuple[Any, Any]] = []
    open_containers: list[Any] = [holder]
    while open_containers:
        at = open_containers.pop()
        items = at.items() if isinstance(at, dict) else enumerate(at)
        for key, value in items:
            found.append((at, key))
            if isinstance(value, dict | list) and len(found) < 2000:
                open_containers.append(value)
    return found or [([None], 0)]


def _change(rng: random.Random, at: Any, key: Any) -> None:
    kind = rng.randrange(8)
    value = at[key]
    if kind == 0 and isinstance(value, int | float):
        steps = (value + 1, value - 1, value * 2, -value, 0.5)
        at[key] = rng.choice(steps)
    elif kind == 1 and isinstance(at, dict):
        del at[key]
    elif kind == 2 and isinstance(at, dict):
        at[str(rng.choice((*TEXTS, *at)))] = at.pop(key)
    elif kind == 3 and isinstance(at, dict):
        at[str(rng.choice(TEXTS))] = copy.deepcopy(value)
    elif kind == 4:
        twice = [value, copy.deepcopy(value)]
        at[key] = rng.choice(([value], {"a": value}, twice))
    elif kind == 5 and isinstance(at, list):
        at.insert(rng.randint(0, len(at)), spoiled_value(rng))
    elif kind == 6 and isinstance(value, str):
        cut = rng.randint(0, len(value))
        at[key] = value[:cut] + str(rng.choice(TEXTS)) + value[cut:]
    else:
        at[key] = spoiled_value(rng)


def as_json(rng: random.Random, document: Any) -> bytes:
    """The document's JSON; now and then with what no encoder writes."""
    try:
        text = json.dumps(document, ensure_ascii=rng.random() < 0.7)
    except (RecursionError, ValueError):
        text = f'{{"a": "{DEEP}"}}'
    while f'"{DEEP}"' in text:
        depth = rng.choice((3, 30, 150, 600, 950, 3000, MOST_DEEP))
        opened, closed = rng.choice((("[", "]"), ('{"a":', "}"), ("[[],", "]")))
        text = text.replace(f'"{DEEP}"', f"{opened * depth}0{closed * depth}", 1)
    if rng.random() < 0.05:
        at = text.find("{", rng.randint(0, len(text)))
        twice = rng.choice(('"a":0,"a":1,', '"__metadata__":3,', '"":{},', '"dtype":"F64",'))
        text = f"{text[: at + 1]}{twice}{text[at + 1 :]}"
    encoding = "utf-8" if rng.random() < 0.98 else rng.choice(("utf-16", "utf-32", "utf-8-sig"))
    return text.encode(encoding, "surrogatepass")


def spoil_bytes(rng: random.Random, data: bytes) -> bytes:
    """Bytes with a few of them flipped, cut out, put in, or repeated."""
    spoiled = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, len(spoiled))
        kind, length = rng.randrange(5), rng.randint(1, 9)
        if kind == 0 and at < len(spoiled):
            spoiled[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del spoiled[at : at + length]
        elif kind == 2:
            spoiled[at:at] = rng.choice(CUTS)
        elif kind == 3:
            spoiled[at:at] = spoiled[at : at + 8 * length]
        else:
            del spoiled[at:]
    return bytes(spoiled)


def spoil_text(rng: random.Random, text: str, pieces: Sequence[str]) -> str:
    """A text with pieces put in, words and lines moved, repeated or taken away."""
    for _ in range(rng.randint(1, 3)):
        lines = text.split("\n")
        line, kind = rng.randrange(len(lines)), rng.randrange(6)
        if kind == 0:
            cut = rng.randint(0, len(lines[line]))
            lines[line] = lines[line][:cut] + rng.choice(pieces) + lines[line][cut:]
        elif kind == 1:
            head = lines[line].split(":")[0]
            lines[line] = f"{head}: {rng.choice(pieces)}"
        elif kind == 2:
            del lines[line]
        elif kind == 3:
            lines.insert(line, lines[rng.randrange(len(lines))])
        elif kind == 4:
            lines[line] = " " * rng.randint(0, 4) + lines[line].strip()
        else:
            lines.insert(line, rng.choice(pieces))
        text = "\n".join(lines)
    return text


def spoiled_json(rng: random.Random, document: Any) -> bytes:
    """One document as JSON, spoiled in structure, in its bytes, or in both; sometimes in neither.

    `document` is changed.
    """
    chance = rng.random()
    if chance < 0.05:
        return as_json(rng, document)
    data = as_json(rng, spoil(rng, document) if chance < 0.85 else document)
    return spoil_bytes(rng, data) if chance > 0.75 else data


def fresh(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that may be changed."""
    return json.loads(json.dumps(sample))


def spoil_folder(rng: random.Random, folder: Path) -> None:
    """Put a link, a pipe, a socket, a folder or a sparse file in a folder, under any name."""
    path = folder / rng.choice(NAMES)
    if rng.random() < 0.2:
        path = folder / rng.choice(("1_Pooling", "inner", "2_Dense")) / path.name
    if path.parent.is_symlink():
        return  # it may lead out of the folder, to what is not ours to spoil
    with suppress(OSError):
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True)
        kind = rng.randrange(8)
        if kind < 4:
            path.symlink_to(rng.choice(TARGETS))
        elif kind == 4:
            os.mkfifo(path)
        elif kind == 5:
            path.mkdir()
        elif kind == 6:
            with path.open("wb") as file:
                large = 1 << (24 if path.suffix in (".safetensors", ".bin") else 34)
                file.truncate(rng.choice((0, 1, 1 << 20, large)))
        else:
            with socket.socket(socket.AF_UNIX) as opened:
                opened.bind(str(path))
