"""Writes docs/methods.md and the pictures in docs/images/methods from the registry of methods.

    make docs
    python -m docs.methods_page

The text comes from the registry's rows, the parameter classes and the docstrings; to change it,
change those. tests/docs holds the committed page against a fresh one.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from docs.method_examples import given_values, names_base, parameters, recipe, starts_at_base
from merge_ops.methods import METHODS, MergeMethod
from merge_ops.methods.parameters import REQUIRED, Parameter

FOLDER = Path(__file__).parent
PAGE = FOLDER / "methods.md"
PICTURES = FOLDER / "images" / "methods"

FAMILIES = {
    "basic": "Averages, sums and interpolations of the inputs, with shares that the recipe gives.",
    "weighted": "The shares follow from the inputs themselves.",
    "subspace": "Task vectors are first cut down to a part, so that they disturb each other less.",
    "routing": "What is merged depends on the input at hand.",
    "calibration": "The merged weights are corrected afterwards.",
}
SPANS = {
    "element": "any run of entries; memory is bounded by blocks, whatever the size of the model",
    "row": "whole rows (runs of the last dimension); memory is bounded by blocks of whole rows,"
    " whatever the size of the model",
    "tensor": "a whole tensor at once; memory grows with the largest tensor, not with the model",
}
INPUTS = {
    "checkpoints": "checkpoints",
    "task_vectors": "task vectors (expert − base)",
    "either": "task vectors where the recipe names a base, whole checkpoints where it does not",
}
INTRODUCTION = """\
# Merge methods

<!-- Written by `make docs` from merge_ops/methods; change the docstrings there, not this file. -->

{count} methods, in the families of the survey arXiv:2408.07666. Each entry gives what the method
sees, its parameters and a recipe that can be planned as it stands, once `base`, `expert-1` … are
replaced by folders or by names of the catalog.

**The pictures** show what the recipe beside them makes of a toy tensor of 400 entries. Left, each
entry is a point: its place is its value in the first two inputs, its colour the merged value (red
positive, blue negative), a grey cross a merged value of exactly zero. Right, the merged value
against the plain average; the dashed line is where the two are equal. Axes are in units of 0.001,
scales and toy the same for all methods. Toy task vectors are correlated and have a few large
entries; of every 20 entries 3 were changed by the first expert alone and 3 by the second alone, and
lie on an axis. For methods on task vectors values are changes, to be added to the base. Where a
method has one input only, the left picture has the entry's number on its horizontal axis.

"Measured first" means that something of the whole tensor, such as a norm or a threshold, must be
known before its first block is merged: a tensor larger than one block is then read more than once.
"""


def page(methods: Iterable[MergeMethod]) -> str:
    """The whole text of docs/methods.md."""
    by_family = in_order(methods)
    count = sum(len(members) for members in by_family.values())
    parts = [INTRODUCTION.format(count=count), overview(by_family)]
    for family, members in by_family.items():
        parts.append(f"## {family}\n\n{FAMILIES[family]}\n")
        parts += [section(method) for method in members]
    return "\n".join(parts)


def in_order(methods: Iterable[MergeMethod]) -> dict[str, list[MergeMethod]]:
    """Methods by family, families in the survey's order, names sorted."""
    known = sorted(methods, key=lambda method: method.name)
    by_family = {family: [each for each in known if each.family == family] for family in FAMILIES}
    return {family: members for family, members in by_family.items() if members}


def overview(by_family: dict[str, list[MergeMethod]]) -> str:
    """One line for each method."""
    lines = ["| family | method | sees | span | base |", "|---|---|---|---|---|"]
    for family, members in by_family.items():
        for method in members:
            sees = method.inputs.replace("_", " ")
            name = f"[{method.name}](#{method.name})"
            lines.append(f"| {family} | {name} | {sees} | {method.span} | {method.base} |")
    return "\n".join(lines) + "\n"


def section(method: MergeMethod) -> str:
    """Heading, facts, parameters, explanation, recipe and picture of one method."""
    first, rest = summary(method)
    parts = [f"### {method.name}", first, "\n".join(facts(method)), parameter_table(method)]
    parts += [rest] if rest else []
    parts += [f"```yaml\n{recipe(method)}```", f"![{picture_text(method)}]({picture_link(method)})"]
    return "\n\n".join(parts) + "\n"


def summary(method: MergeMethod) -> tuple[str, str]:
    """The docstring's first paragraph and the rest, as Markdown."""
    first, *rest = re.split(r"\n\s*\n", inspect.getdoc(method.function) or "")
    return paragraph(first), "\n\n".join(paragraph(text) for text in rest)


def paragraph(text: str) -> str:
    """One paragraph of a docstring: indented lines stay as they are, lists stay lists."""
    if all(line.startswith("  ") for line in text.splitlines()):
        return f"```text\n{inspect.cleandoc(text)}\n```"
    points = re.split(r"\n(?=[-*] )", text)
    return "\n".join(
        point[:2] + markdown(" ".join(point[2:].split()))
        if point.startswith(("- ", "* "))
        else markdown(" ".join(point.split()))
        for point in points
    )


def facts(method: MergeMethod) -> Iterator[str]:
    """What the registry says of the method, one point each."""
    yield f"- Source: {link(method.source)}"
    yield f"- Sees {INPUTS[method.inputs]}; {models(method)}."
    span = method.span_for([parameters(method)])
    other = ""
    if span != method.span:
        other = f" With other parameters `{method.span}`: {SPANS[method.span]}."
    elif method.span_of is not None:
        other = " With some parameters less will do."
    measured = " Measured first." if method.measure is not None else ""
    yield f"- Span `{span}`: {SPANS[span]}.{other}{measured}"
    if method.random:
        yield "- Random: the recipe's `seed` chooses the draw; the same seed gives the same bytes."
    else:
        yield "- Not random."


def models(method: MergeMethod) -> str:
    """How many models, and what the base is."""
    if method.exactly is not None:
        count = f"exactly {counted(method.exactly)}"
    else:
        count = f"at least {counted(method.at_least)}"
    if starts_at_base(method):
        return f"{count}, the first of them the base, which is required"
    if method.inputs == "task_vectors":
        return f"{count} besides the base, which is required"
    if method.base == "required":
        return f"{count}; a base is required"
    return f"{count}; a base is optional"


def counted(number: int) -> str:
    """`1 model`, `2 models`."""
    return f"{number} model" + ("" if number == 1 else "s")


def parameter_table(method: MergeMethod) -> str:
    """The parameters, or a sentence where there are none."""
    specs = method.parameter_specs
    if not specs:
        return "No parameters."
    lines = [
        "| parameter | type | default | allowed | given | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for name, spec in specs.items():
        allowed = spec.allowed().removesuffix(f" ({spec.meaning})")
        kind = {"str": "text", "bool": "true/false", "int": "whole number", "float": "number"}
        given = "per model" if spec.per_input else "for the merge"
        cells = [f"`{name}`", kind[spec.kind.__name__], default(spec), allowed, given, spec.meaning]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def default(spec: Parameter) -> str:
    """The default as one writes it in a recipe."""
    if spec.default is REQUIRED:
        return "required"
    if isinstance(spec.default, bool):
        return str(spec.default).lower()
    return f"{spec.default:g}" if isinstance(spec.default, float) else str(spec.default)


def picture_link(method: MergeMethod) -> str:
    """The picture's place beside the page."""
    return (PICTURES / f"{method.name}.png").relative_to(FOLDER).as_posix()


def picture_text(method: MergeMethod) -> str:
    """The picture in words, for those who do not see it."""
    values = ", ".join(f"{name} {value}" for name, value in given_values(method).items())
    values = f" with {values}" if values else ""
    seen = "task vectors" if names_base(method) and not starts_at_base(method) else "checkpoints"
    return f"merged values of {method.name}{values} over the entries of toy {seen}"


def link(source: str) -> str:
    """A source as a Markdown link where it is an arXiv id or an address."""
    if source.startswith("arXiv:"):
        return f"[{source}](https://arxiv.org/abs/{source.removeprefix('arXiv:')})"
    return f"<{source}>" if source.startswith(("https://", "http://")) else markdown(source)


def markdown(text: str) -> str:
    """Docstring text with formula signs kept from being read as Markdown; addresses as links."""
    pieces = re.split(r"(`[^`]*`|https?://[^\s,;)]*[^\s,;:).])", text)
    return "".join(
        piece if piece.startswith("`") else f"<{piece}>" if piece.startswith("http") else
        re.sub(r"([\\*_<>|\[\]~#])", r"\\\1", piece)
        for piece in pieces
    )  # fmt: skip


def main() -> None:
    """Write the page and the pictures."""
    from docs.method_pictures import write_pictures

    PAGE.write_text(page(METHODS.values()), encoding="utf-8")
    write_pictures(PICTURES, list(METHODS.values()))


if __name__ == "__main__":
    main()
