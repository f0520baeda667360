"""Every method of mergekit × every way to write a merge, made from one table.

Ways: plain, gradient, filter, slices, the base model listed first, last or not at all, normalize on
and off. What a method has no parameter or no base model for is left out. Random methods are here
with density 1, where nothing is drawn; their masks are compared in distribution elsewhere, and
arcee_fusion, which mergekit rounds its way through, in a file of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

EXPERTS = ("one", "two", "three")


@dataclass(frozen=True)
class Row:
    """A method: how many experts, the base's part, and its parameters as YAML values.

    `own` parameters are written at each expert, `shared` ones at the top. `varied` is the one that
    gradients and filters are tried on: its name, a gradient, and a value for `mlp` tensors.
    """

    experts: int
    base: str  # "needed", "possible" or "none"
    own: dict[str, tuple[str, ...]] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)
    varied: tuple[str, str, str] | None = None
    normalizes: bool = False


WEIGHTS = {"weight": ("0.4", "0.7", "0.9")}
OF_WEIGHT = ("weight", "[0.2, 1.1, 0.6]", "0.15")
TRIMS = {**WEIGHTS, "density": ("0.3", "0.6", "0.8")}
OF_DENSITY = ("density", "[0.2, 0.9]", "0.5")
TABLE = {
    "linear": Row(3, "none", WEIGHTS, {}, OF_WEIGHT, True),
    "slerp": Row(1, "needed", {}, {"t": "0.35"}, ("t", "[0, 0.7, 1]", "0.1")),
    "nuslerp": Row(2, "possible", {"weight": ("0.4", "0.7")}, {}, OF_WEIGHT),
    "multislerp": Row(3, "possible", WEIGHTS, {}, OF_WEIGHT),
    "karcher": Row(3, "none"),
    "task_arithmetic": Row(3, "needed", WEIGHTS, {"lambda": "1.2"}, OF_WEIGHT, True),
    "ties": Row(3, "needed", TRIMS, {"lambda": "1.2"}, OF_DENSITY, True),
    "dare_linear": Row(3, "needed", WEIGHTS, {"lambda": "0.8"}, OF_WEIGHT, True),
    "dare_ties": Row(3, "needed", WEIGHTS, {"lambda": "0.8"}, OF_WEIGHT, True),
    "della": Row(3, "needed", WEIGHTS, {"lambda": "0.8"}, OF_WEIGHT, True),
    "della_linear": Row(3, "needed", WEIGHTS, {"lambda": "0.8"}, OF_WEIGHT, True),
    "breadcrumbs": Row(3, "needed", TRIMS, {"gamma": "0.05"}, OF_DENSITY, True),
    "breadcrumbs_ties": Row(3, "needed", TRIMS, {"gamma": "0.05"}, OF_DENSITY, True),
    "sce": Row(3, "needed", {}, {"select_topk": "0.4"}, ("select_topk", "[0.2, 0.9]", "0.6")),
    "model_stock": Row(3, "needed"),
    "nearswap": Row(1, "needed", {}, {"t": "0.001"}, ("t", "[0.0001, 0.002]", "0.0005")),
    "ram": Row(3, "needed", {}, {"epsilon": "0.001"}, ("epsilon", "[0.0005, 0.003]", "0.002")),
    "ramplus_tl": Row(
        3,
        "needed",
        {},
        {"epsilon": "0.001", "r": "0.3", "alpha": "0.4"},
        ("r", "[0.1, 0.8]", "0.5"),
    ),
    "passthrough": Row(1, "none", {"scale": ("0.9",)}, {}, ("scale", "[0.5, 1.5]", "0.25")),
}
TRIMMING = ("ties", "breadcrumbs", "breadcrumbs_ties")


def cases_of(method: str, row: Row) -> Iterator[tuple[str, str]]:
    """All ways that have a meaning for one method, by name."""
    yield "plain", merge(method, row)
    if row.varied is not None:
        name, gradient, other = row.varied
        by_filter = f"[{{filter: mlp, value: {other}}}, {{value: {gradient}}}]"
        falls_through = f"[{{filter: norm, value: {other}}}]"
        yield "gradient", merge(method, row, {name: gradient})
        yield "filter", merge(method, row, {name: by_filter})
        if name in row.own:
            yield "fall-through", merge(method, row, {name: falls_through}, {name: gradient})
    if row.base != "none":
        yield "base-first", merge(method, row, place="first")
        yield "base-last", merge(method, row, place="last")
    if row.base == "possible":
        yield "no-base", merge(method, row, place="none")
    if row.normalizes:
        for switch in ("true", "false"):
            yield f"normalize-{switch}", merge(method, row, shared={"normalize": switch})
    yield "slices", sliced(method, row)


def merge(
    method: str,
    row: Row,
    changed: dict[str, str] | None = None,
    shared: dict[str, str] | None = None,
    place: str = "unlisted",
) -> str:
    """A file with `models`; `changed` replaces the value of a parameter wherever it stands."""
    entries = [_entry(row, number, changed or {}) for number in range(row.experts)]
    base = "{model: $base}"
    if row.base != "none" and place == "first":
        entries.insert(0, base)
    if row.base != "none" and place == "last":
        entries.append(base)
    lines = [f"merge_method: {method}", "models:", *(f"  - {entry}" for entry in entries)]
    if row.base != "none" and place != "none":
        lines.append("base_model: $base")
    top = {**row.shared, **{k: v for k, v in (changed or {}).items() if k not in row.own}}
    return "\n".join([*lines, _table(top | (shared or {})), "dtype: float32", ""])


def sliced(method: str, row: Row) -> str:
    """Two slices; the second has the varied parameter as its own gradient."""
    lines = [f"merge_method: {method}", "slices:"]
    for number, (first, end) in enumerate(((0, 1), (1, 4))):
        lines.append("  - sources:")
        members = [_entry(row, expert, {}) for expert in range(row.experts)]
        if number == 1 and row.varied is not None and row.varied[0] in row.own:
            members = [_entry(row, e, {row.varied[0]: row.varied[1]}) for e in range(row.experts)]
        if row.base != "none":
            members.insert(number, "{model: $base}")
        for member in members:
            lines.append(f"      - {member[:-1]}, layer_range: [{first}, {end}]}}")
        if number == 1 and row.varied is not None and row.varied[0] in row.shared:
            lines.append(f"    parameters: {{{row.varied[0]}: {row.varied[1]}}}")
    if row.base != "none":
        lines.append("base_model: $base")
    return "\n".join([*lines, _table(row.shared), "dtype: float32", ""])


def _entry(row: Row, number: int, changed: dict[str, str]) -> str:
    own = {name: changed.get(name, values[number]) for name, values in row.own.items()}
    parameters = ", ".join(f"{name}: {value}" for name, value in own.items())
    given = f", parameters: {{{parameters}}}" if own else ""
    return f"{{model: ${EXPERTS[number]}{given}}}"


def _table(values: dict[str, str]) -> str:
    pairs = ", ".join(f"{name}: {value}" for name, value in values.items())
    return f"parameters: {{{pairs}}}" if pairs else ""


MATRIX = {
    f"matrix-{method}-{way}": text
    for method, row in TABLE.items()
    for way, text in cases_of(method, row)
}
TRIMMED_MATRIX = {name: text for name, text in MATRIX.items() if name.split("-")[1] in TRIMMING}
