"""Small wrong changes of a Python source, one at a time: what `benchmarks/mutants.py` tries.

    a < b       a <= b, a >= b          x + y       x - y (and * /, // %, & |, << >>, **)
    a == b      a != b                  p and q     p or q
    a in b      a not in b              not p, -x   p, x
    if p:       if not p:               3, 0.5      4, 1.5
    return x    return None             True        False
    call(x)     pass                    raise x     pass
    x += y      x -= y                  break       continue

Left alone, since a change there says nothing about the tests: texts (messages are asserted by a
part of them), annotations, `__all__`, what only a type checker reads, and keywords of `LEFT`.
"""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LEFT = frozenset({"frozen", "slots", "strict", "extra", "kw_only", "repr"})
"""Keywords of dataclass and pydantic that forbid what no caller does; turning them off is quiet."""
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
PLAIN_TESTS = (ast.Name, ast.Attribute, ast.Call, ast.Subscript, ast.NamedExpr)
"""Conditions that no other change inverts."""


@dataclass(frozen=True)
class Mutation:
    """One change: the bytes from `start` to `end`, on lines `line` to `last_line`, become `after`.

    Lines count from 1; `before` is what stands there now.
    """

    line: int
    last_line: int
    start: int
    end: int
    before: str
    after: str

    def apply(self, source: bytes) -> bytes:
        """Return the source with this change made."""
        return source[: self.start] + self.after.encode() + source[self.end :]

    def line_after(self, source: bytes) -> str:
        """Return the line, or lines, on which the change stands once it is made."""
        first = source.rfind(b"\n", 0, self.start) + 1
        last = source.find(b"\n", self.end)
        rest = source[self.end :] if last < 0 else source[self.end : last]
        text = source[first : self.start].decode() + self.after + rest.decode()
        return " ".join(text.split())


@dataclass(frozen=True)
class Mutant:
    """One change of one file, and the tests to run.

    `line` is what the line reads with the change; `key` names the change, the file and the tests.
    """

    file: str
    change: Mutation
    line: str
    tests: tuple[str, ...]
    key: str

    def __str__(self) -> str:
        before, after = (" ".join(text.split()) for text in (self.change.before, self.change.after))
        return f"{self.file}:{self.change.line}: {before} → {after}   in   {self.line}"


def mutations(source: bytes) -> list[Mutation]:
    """Return every change of a source, in the order of the text; each one still parses."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found: dict[tuple[int, int, str], Mutation] = {}
    for node, after in _changes(ast.parse(source)):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        before = source[start:end].decode()
        text = f"({after})" if isinstance(node, ast.expr) and not after.isalnum() else after
        change = Mutation(node.lineno, node.end_lineno, start, end, before, text)
        if _parses(change.apply(source)):
            found.setdefault((start, end, text), change)
    return [found[key] for key in sorted(found)]


def _parses(source: bytes) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def _changes(node: ast.AST) -> Iterator[tuple[Any, str]]:
    """Yield (a node, the text to stand in its place) for a tree."""
    if _is_left_alone(node):
        return
    yield from _statement_changes(node)
    yield from _expression_changes(node)
    test = getattr(node, "test", None)
    if isinstance(node, ast.If | ast.While | ast.IfExp) and isinstance(test, PLAIN_TESTS):
        yield test, f"not {_inner(test)}"
    if isinstance(node, ast.comprehension):
        for condition in node.ifs:
            if isinstance(condition, PLAIN_TESTS):
                yield condition, f"not {_inner(condition)}"
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _changes(child)


def _is_left_alone(node: ast.AST) -> bool:
    match node:
        case ast.JoinedStr():  # Python 3.11 does not know where its parts stand
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return True
        case ast.keyword(arg=name):
            return name in LEFT
        case _:
            return False


def _statement_changes(node: ast.AST) -> Iterator[tuple[Any, str]]:
    match node:
        case ast.Return(value=value) if value is not None and not _is_none(value):
            yield node, "return None"
        case ast.Raise() | ast.Expr(value=ast.Call()):
            yield node, "pass"
        case ast.Break():
            yield node, "continue"
        case ast.Continue():
            yield node, "break"
        case ast.AugAssign(op=op) if type(op) in ARITHMETIC:
            yield node, _with(node, op=ARITHMETIC[type(op)]())
        case _:
            pass


def _expression_changes(node: ast.AST) -> Iterator[tuple[Any, str]]:
    match node:
        case ast.Compare(ops=ops):
            for place, op in enumerate(ops):
                for other in COMPARISONS[type(op)]:
                    yield node, _with(node, ops=[*ops[:place], other(), *ops[place + 1 :]])
        case ast.BinOp(op=op, left=left, right=right):
            texts = any(isinstance(side, ast.JoinedStr) or _is_text(side) for side in (left, right))
            if type(op) in ARITHMETIC and not texts:
                yield node, _with(node, op=ARITHMETIC[type(op)]())
        case ast.BoolOp(op=op):
            yield node, _with(node, op=ast.Or() if isinstance(op, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield node, _inner(operand)
        case ast.Constant(value=bool() as value):
            yield node, str(not value)
        case ast.Constant(value=int() | float() as value):
            yield node, repr(value + 1)
        case _:
            pass


def _with(node: ast.AST, **fields: Any) -> str:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return ast.unparse(changed)


def _inner(node: ast.AST) -> str:
    text = ast.unparse(node)
    return text if isinstance(node, ast.Name | ast.Attribute | ast.Call) else f"({text})"


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
