"""YAML as strangers write it, with bounds: a few lines of aliases can stand for gigabytes.

Aliases are shared when they are read, so the text loads at once and only what walks over it, a
message or a merge key, blows up. What a document would be when written out is counted first.
"""

from __future__ import annotations

from typing import Any, cast

import yaml

MAX_TEXT = 512 << 10
"""Characters."""
MAX_NODES = 100_000
"""Keys and values, each alias counted as what it stands for."""
MAX_DEPTH = 50

# What PyYAML's constructors raise beside its own errors: for a month 13, `!!int x`, `!!bool x`, …
_OF_VALUES = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError)


def load_documents(text: str) -> list[Any]:
    """Every document of a YAML text. Raises ValueError that says what is wrong with it."""
    if len(text) > MAX_TEXT:
        raise ValueError(f"is {len(text)} characters long; at most {MAX_TEXT} are read")
    documents: list[Any] = []
    try:
        loader: Any = _ShallowLoader(text)
        try:
            while loader.check_node():
                node = cast("yaml.Node", loader.get_node())
                _Measure().take(node, 1)
                documents.append(_value(loader, node))
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ValueError(f"is not valid YAML: {error}") from error
    except RecursionError as error:
        raise ValueError(_too_deep()) from error
    return documents


def _value(loader: Any, node: yaml.Node) -> Any:
    try:
        return loader.construct_document(node)
    except _OF_VALUES as error:
        raise ValueError(
            f"is not valid YAML: it holds a value that cannot be read ({error}); put it in quotes"
        ) from error


class _ShallowLoader(yaml.SafeLoader):
    """Stops at the first bracket or indent that is too deep: PyYAML's scanner looks at every open
    one again at each token."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        if cast(Any, self).flow_level >= MAX_DEPTH:
            raise ValueError(_too_deep())
        cast(Any, super()).fetch_flow_collection_start(TokenClass)

    def add_indent(self, column: int) -> bool:
        if len(cast(Any, self).indents) > MAX_DEPTH:
            raise ValueError(_too_deep())
        return cast(Any, super()).add_indent(column)


class _Measure:
    """Counts nodes as if every alias were written out."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._open: set[int] = set()

    def take(self, node: yaml.Node, depth: int) -> int:
        """The size of a node. Raises ValueError beyond a bound."""
        line = node.start_mark.line + 1
        if depth > MAX_DEPTH:
            raise ValueError(_too_deep())
        if id(node) in self._open:
            raise ValueError(f"holds itself, by an alias, at line {line}; write the values out")
        if id(node) in self._sizes:
            return self._sizes[id(node)]
        self._open.add(id(node))
        size = 1
        for part in _parts(node, line):
            size += self.take(part, depth + 1)
            if size > MAX_NODES:
                problem = f"stands for more than {MAX_NODES} values, from line {line} on"
                raise ValueError(f"{problem}; use fewer aliases, or split the file")
        self._open.discard(id(node))
        self._sizes[id(node)] = size
        return size


def _parts(node: yaml.Node, line: int) -> list[yaml.Node]:
    value: Any = node.value
    if isinstance(node, yaml.MappingNode):
        return [part for pair in cast("list[tuple[yaml.Node, yaml.Node]]", value) for part in pair]
    if isinstance(node, yaml.SequenceNode):
        return cast("list[yaml.Node]", value)
    try:
        cast(str, value).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"holds half a character (a lone surrogate) at line {line}") from error
    return []


def _too_deep() -> str:
    return f"is nested more than {MAX_DEPTH} deep, as no recipe is"
