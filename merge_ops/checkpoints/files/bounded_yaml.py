"""YAML as strangers write it, with bounds and without keys that are given twice.

Recipes, models.yaml and suites are read here, and all of them mean plain values: tags that make
bytes, sets or ordered pairs are refused, and so are keys that are no names and numbers that no
computation could take.

A few lines of aliases can stand for gigabytes.

Aliases are shared when they are read, so the text loads at once and only what walks over it, a
message or a merge key, blows up. What a document would be when written out is counted first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from errno import ENOENT
from pathlib import Path
from typing import Any, cast

import yaml

from merge_ops.checkpoints.files.file_bounds import MAX_DOCUMENT
from merge_ops.checkpoints.files.plain_files import read_bounded
from merge_ops.checkpoints.files.yaml_slips import odd_character, slip_in
from merge_ops.errors import Fault, UnreadableFileError

MAX_TEXT = 512 << 10
"""Characters."""
MAX_NODES = 100_000
"""Keys and values, each alias counted as what it stands for."""
MAX_DEPTH = 50
MAX_NUMBER = 250
"""Characters of a whole number: near 300 digits no float holds it any more."""
MAX_FAULTS = 50
_FOREIGN_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("binary", "set", "omap", "pairs")
)
_OTHER_BASE = re.compile(r"[-+]?(?:0[0-7_]*[0-7]|[0-9_]+:.*)")
"""What nobody means: 017 is 15 to YAML 1.1, and 1:30 is 90. A commit may be digits alone."""
_STR, _INT, _FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float"))

# What PyYAML's constructors raise beside its own errors: for a month 13, `!!int x`, `!!bool x`, …
_OF_VALUES = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError)


class DocumentError(ValueError):
    """A file or text cannot be read as YAML.

    `faults` holds every fault that was found, each with its line.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(map(str, faults)))


def read_documents(path: Path) -> list[Any]:
    """Read every YAML document of a file.

    Returns those that are not empty, or one None where all are; a document is empty after a last
    `---`, for example. Raises DocumentError with every fault, and FileNotFoundError where there is
    no file.
    """
    try:
        data = read_bounded(path, MAX_DOCUMENT)
        text = data.decode("utf-8")
    except UnreadableFileError as error:
        if error.errno == ENOENT:
            raise FileNotFoundError(ENOENT, "No such file or directory", str(path)) from error
        raise DocumentError([Fault("", f"the file {error}")]) from error
    except UnicodeDecodeError as error:
        problem = f"the file cannot be read (not UTF-8 text, byte {error.start}); save it as UTF-8"
        raise DocumentError([Fault("", problem)]) from error
    return load_documents(text)


def load_documents(text: str, any_base: bool = False) -> list[Any]:
    """Read every YAML document of a text.

    Returns those that are not empty, or one None where all are empty. Raises DocumentError with
    every fault; for a key given twice it names the place and the lines. `any_base` is for cards of
    strangers: numbers that YAML reads in base 8 or 60 stand in them, and nothing of ours follows.
    """
    try:
        documents = _load(text, any_base)
    except DocumentError:
        raise
    except ValueError as error:
        raise DocumentError([Fault("", str(error))]) from error
    return [each for each in documents if each is not None] or [None]


def _load(text: str, any_base: bool) -> list[Any]:
    if len(text) > MAX_TEXT:
        raise ValueError(f"is {len(text)} characters long; at most {MAX_TEXT} are read")
    documents: list[Any] = []
    try:
        loader: Any = _ShallowLoader(text)
        try:
            while loader.check_node():
                node = cast("yaml.Node", loader.get_node())
                measure = _Measure(any_base)
                measure.take(node, 1, "")
                if measure.faults:
                    raise DocumentError(measure.faults[:MAX_FAULTS])
                documents.append(_value(loader, node))
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        told = str(error)
        raise ValueError(f"is not valid YAML: {told}{slip_in(text, told)}") from error
    except RecursionError as error:
        raise ValueError(_too_deep()) from error
    if any(isinstance(each, str) for each in documents) and (slip := slip_in(text)):
        raise ValueError(f"holds no keys with values{slip}")
    return documents


def _value(loader: Any, node: yaml.Node) -> Any:
    try:
        return loader.construct_document(node)
    except _OF_VALUES as error:
        raise ValueError(
            f"is not valid YAML: it holds a value that cannot be read ({error}); put it in quotes"
        ) from error


class _ShallowLoader(yaml.SafeLoader):
    """Stops at the first bracket or indent that is too deep, and at one node too many: PyYAML's
    scanner looks at every open bracket again at each token, and a node takes a kilobyte."""

    nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise ValueError(f"holds more than {MAX_NODES} values; split the file")
        return super().compose_node(parent, index)

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        if cast(Any, self).flow_level >= MAX_DEPTH:
            raise ValueError(_too_deep())
        cast(Any, super()).fetch_flow_collection_start(TokenClass)

    def add_indent(self, column: int) -> bool:
        if len(cast(Any, self).indents) > MAX_DEPTH:
            raise ValueError(_too_deep())
        return cast(Any, super()).add_indent(column)


class _Measure:
    """Counts nodes as if every alias were written out, and finds keys that are given twice."""

    def __init__(self, any_base: bool) -> None:
        self.faults: list[Fault] = []
        self._any_base = any_base
        self._sizes: dict[int, int] = {}
        self._open: set[int] = set()

    def take(self, node: yaml.Node, depth: int, where: str) -> int:
        """The size of a node at a place. Raises ValueError beyond a bound."""
        line = node.start_mark.line + 1
        if depth > MAX_DEPTH:
            raise ValueError(_too_deep())
        if id(node) in self._open:
            raise ValueError(f"holds itself, by an alias, at line {line}; write the values out")
        if id(node) in self._sizes:
            return self._sizes[id(node)]
        self._open.add(id(node))
        size = 1
        self._check_value(node, where, line)
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node, where)
        for part, place in _parts(node, line, where):
            size += self.take(part, depth + 1, place)
            if size > MAX_NODES:
                problem = f"stands for more than {MAX_NODES} values, from line {line} on"
                raise ValueError(f"{problem}; use fewer aliases, or split the file")
        self._open.discard(id(node))
        self._sizes[id(node)] = size
        return size

    def _check_value(self, node: yaml.Node, where: str, line: int) -> None:
        """Add a fault for a value that is none of a recipe, a catalog or a suite."""
        tag = str(node.tag)
        if tag in _FOREIGN_TAGS:
            kind = tag.rpartition(":")[2]
            self.faults.append(Fault(where, f"on line {line} is a !!{kind}; write a plain value"))
        odd_base = tag in (_INT, _FLOAT) and _OTHER_BASE.fullmatch(str(node.value))
        if odd_base and not self._any_base:
            problem = f"is {node.value} on line {line}, which YAML reads as a number in base"
            base = "60, as hours" if ":" in str(node.value) else "8"
            told = f"{problem} {base}; write the number in base 10, or the text in quotes"
            self.faults.append(Fault(where, told))
        if tag == _INT and len(str(node.value)) > MAX_NUMBER:
            problem = f"on line {line} is a number of more than {MAX_NUMBER} characters"
            self.faults.append(Fault(where, f"{problem}; write a smaller one"))

    def _check_keys(self, node: yaml.MappingNode, where: str) -> None:
        """Add a fault for each key that was given before. PyYAML keeps the last one silently."""
        lines: dict[object, int] = {}
        for key, _ in _pairs(node):
            if not isinstance(key, yaml.ScalarNode) or key.tag == _FLOAT:
                what = "a number with a fraction" if isinstance(key, yaml.ScalarNode) else "a list"
                problem = f"has {what} for a key, on line {key.start_mark.line + 1}; write a name"
                self.faults.append(Fault(where, problem))
                continue
            known, line = _key_read(key), key.start_mark.line + 1
            odd = odd_character(str(key.value)) if cast(Any, key).style is None else None
            if odd is not None:
                self.faults.append(Fault(_below(where, key), f"on line {line} holds {odd}"))
            if known in lines:
                problem = f"is given twice, on line {lines[known]} and on line {line}; remove one"
                self.faults.append(Fault(_below(where, key), problem))
            lines.setdefault(known, line)


def _pairs(node: yaml.MappingNode) -> list[tuple[yaml.Node, yaml.Node]]:
    return cast("list[tuple[yaml.Node, yaml.Node]]", node.value)


def _key_read(key: yaml.ScalarNode) -> object:
    """What a key is once it is read, for 10 and 0xa are one, and so are yes, true and 1."""
    if key.tag == _STR:
        return str(key.value)
    try:
        return cast(Any, yaml.constructor.SafeConstructor()).construct_object(key)
    except (yaml.YAMLError, *_OF_VALUES):  # what cannot be read is told of later
        return str(key.tag), str(key.value)


def _below(where: str, key: yaml.Node) -> str:
    """The place of a key's value: `parameters.density`."""
    name = str(cast(Any, key).value) if isinstance(key, yaml.ScalarNode) else "?"
    return f"{where}.{name}" if where else name


def _parts(node: yaml.Node, line: int, where: str) -> list[tuple[yaml.Node, str]]:
    """What a node holds, each with its place."""
    value: Any = node.value
    if isinstance(node, yaml.MappingNode):
        places = [(pair, _below(where, pair[0])) for pair in _pairs(node)]
        return [(part, place) for pair, place in places for part in pair]
    if isinstance(node, yaml.SequenceNode):
        items = cast("list[yaml.Node]", value)
        return [(item, f"{where}[{number}]") for number, item in enumerate(items)]
    try:
        cast(str, value).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"holds half a character (a lone surrogate) at line {line}") from error
    return []


def _too_deep() -> str:
    return f"is nested more than {MAX_DEPTH} deep, as no recipe is"
