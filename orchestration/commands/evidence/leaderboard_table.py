"""The leaderboard on a terminal: numbers are never cut, names fold; and as CSV and JSON."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size

from merge_ops.errors import Fault, SettingsError, did_you_mean, shown

Row = Mapping[str, Any]

RIVALS = {"vs_best_expert": "vs best expert", "vs_base": "vs base", "vs_average": "vs average"}
"""Comparisons of a row, the one that is shown first where there is little room."""
LEAST_NAME = 20
"""Columns of the terminal that names have at least; they fold there."""
SCORE_COLUMNS = (
    ("", "value"), ("_low", "low"), ("_high", "high"), ("_stderr", "stderr"), ("_n", "n"),
)  # fmt: skip
"""Ends of the names of a score's columns in CSV, and the fields they show."""
GAP = 2
"""Blanks between two columns."""
SORTS = ("mean", "validation", "name", "vs-base", "vs-best-expert", "vs-average")
"""What rows can be sorted by, beside their benchmarks."""


def sorted_rows(rows: Sequence[Row], by: str) -> list[Row]:
    """Sort rows, the best first, by one of SORTS or by a benchmark; rows without a value go last.

    Raises SettingsError for what is neither.
    """
    benchmarks = list(rows[0]["benchmarks"]) if rows else []
    if by not in (*SORTS, *benchmarks):
        known = [*SORTS, *benchmarks]
        problem = f"is {by!r}.{did_you_mean(by, known)} It must be one of {', '.join(known)}"
        raise SettingsError("ronghe leaderboard", [Fault("--sort", problem)])
    if by == "name":
        return sorted(rows, key=lambda row: row["label"])

    def value(row: Row) -> float | None:
        if by in benchmarks:
            return row["benchmarks"][by]["value"]
        if by == "mean":
            return row["mean"]["value"]
        if by == "validation":
            return row["validation_mean"]
        compared = row[by.replace("-", "_")]
        return compared["difference"] if compared else None

    valued = [(value(row), row) for row in rows]
    known = sorted(((v, row) for v, row in valued if v is not None), key=lambda pair: -pair[0])
    return [row for _, row in known] + [row for v, row in valued if v is None]


def tables(
    title: str, rows: Sequence[Row], width: int, champions: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Lay rows out for `width` columns: one table, and more below it for benchmarks without room.

    A row's number is its place here; it is the same in all of them. `champions` maps recipes to
    the digests of their champions.
    """
    benchmarks = list(rows[0]["benchmarks"]) if rows else []
    crowned = {*(champions or {}).items()}
    names = [_name(row, (row["recipe"], row["digest"]) in crowned) for row in rows]
    columns = {"#": [str(number) for number in range(1, len(rows) + 1)]}
    columns["mean"] = [_points(row["mean"], True) for row in rows]
    columns["vs best expert"] = [_verdict(row["vs_best_expert"]) for row in rows]
    scores = {name: [_points(row["benchmarks"][name], True) for row in rows] for name in benchmarks}
    short = {name: [_points(row["benchmarks"][name], False) for row in rows] for name in benchmarks}
    left = width - _width(columns) - LEAST_NAME
    if _width(scores) <= left:
        columns |= _named(scores)
    else:
        columns |= _named(_that_fit(short, left))
    left = width - _width(columns) - LEAST_NAME
    for key in ("vs_base", "vs_average"):
        further = {RIVALS[key]: [_verdict(row[key]) for row in rows]}
        if _width(further) <= left - LEAST_NAME:
            columns |= further
            left -= _width(further)
    yield _table(title, columns, names, width)
    rest = {name: cells for name, cells in scores.items() if _heading(name) not in columns}
    while rest:
        numbers = {"#": columns["#"]}
        part = _that_fit(rest, width - _width(numbers)) or dict([next(iter(rest.items()))])
        yield _table(f"{title}, continued", numbers | _named(part), None, width)
        rest = {name: cells for name, cells in rest.items() if name not in part}


def as_csv(suites: Mapping[str, Sequence[Row]]) -> str:
    """Write every row of every suite, with all its numbers, as one CSV table."""
    names = list(
        dict.fromkeys(n for rows in suites.values() for r in rows for n in r["benchmarks"])
    )
    flat = [
        _flat(suite, number, row, names)
        for suite, rows in suites.items()
        for number, row in enumerate(rows, start=1)
    ]
    sink = io.StringIO()
    columns = list(dict.fromkeys(key for row in flat for key in row))
    writer = csv.DictWriter(sink, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in flat)
    return sink.getvalue()


def as_json(suites: Mapping[str, Sequence[Row]]) -> str:
    """Write the rows of every suite as JSON, each with its place as `rank`."""
    ranked = {
        suite: [{"rank": number, **row} for number, row in enumerate(rows, start=1)]
        for suite, rows in suites.items()
    }
    return json.dumps(ranked, ensure_ascii=True, indent=1) + "\n"


def _flat(suite: str, number: int, row: Row, names: Sequence[str]) -> dict[str, Any]:
    compared = {
        f"{key}_{field}": row[key][field] if row[key] else None
        for key in RIVALS
        for field in ("verdict", "difference", "low", "high", "p_value")
    }
    scores = {
        f"{name}{end}": row["benchmarks"].get(name, {}).get(field)
        for name in names
        for end, field in SCORE_COLUMNS
    }
    return {
        "suite": suite,
        "rank": number,
        "model": row["label"],
        "kind": row["kind"],
        "recipe": row["recipe"],
        "experts": "+".join(row["experts"]),
        "coefficient": row["coefficient"],
        "digest": row["digest"],
        "mean": row["mean"]["value"],
        **{f"mean{end}": row["mean"].get(field) for end, field in SCORE_COLUMNS[1:-1]},
        "validation_mean": row["validation_mean"],
        **scores,
        **compared,
        "old": row.get("stale"),
    }


def _cell(value: object) -> object:
    """A cell of a table that a spreadsheet may open: text is no formula, and on one line."""
    if not isinstance(value, str):
        return value
    text = shown(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def _table(
    title: str,
    columns: Mapping[str, Sequence[str]],
    names: Sequence[str] | None,
    width: int,
) -> str:
    """Lay a table out as text. Rich's tables take milliseconds a row, and cut what has no room."""
    sizes = [_width({heading: cells}) - GAP for heading, cells in columns.items()]
    room = max(LEAST_NAME, width - _width(columns)) if names is not None else 0
    folded = [_folded(name, room) for name in names or ()]
    heads = [_words(heading, size) for heading, size in zip(columns, sizes, strict=True)]
    high = max(map(len, heads))
    lines = [f"{shown(title)}", ""]
    for number in range(-high, 0):
        words = [head[number] if len(head) >= -number else "" for head in heads]
        last = "model" if names is not None and number == -1 else ""
        lines.append(_line(columns, words, sizes, last))
    longest = max((cell_len(part) for name in folded for part in name), default=-GAP)
    lines.append("─" * (sum(size + GAP for size in sizes) + longest))
    blank = " " * sum(size + GAP for size in sizes)
    for place, cells in enumerate(zip(*columns.values(), strict=True)):
        first, *more = folded[place] if names is not None else [""]
        lines.append(_line(columns, cells, sizes, first))
        lines += [f"{blank}{part}" for part in more]
    return "\n".join([*lines, ""])


def _line(headings: Iterable[str], cells: Sequence[str], sizes: Sequence[int], last: str) -> str:
    """One line: comparisons begin at the left of their columns, numbers end at the right."""
    padded = [
        cell.ljust(size) if heading.startswith("vs ") else cell.rjust(size)
        for heading, cell, size in zip(headings, cells, sizes, strict=True)
    ]
    return (" " * GAP).join([*padded, last]).rstrip()


def _words(heading: str, size: int) -> list[str]:
    """A heading on as many lines as it needs."""
    lines = [""]
    for word in heading.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) <= size:
            lines[-1] += f" {word}"
        elif lines[-1]:
            lines.append(word)
        else:
            lines[-1] = word
    return lines


def _folded(name: str, room: int) -> list[str]:
    """Break a name behind blanks and plus signs, and where no part of it fits within it."""
    if cell_len(name) <= room:
        return [name]
    lines, line = [], ""
    for part in _parts(name):
        if line.strip() and cell_len(line + part.rstrip()) > room:
            lines.append(line.rstrip())
            line = "  "
        line += part.lstrip() if line.isspace() else part
        while cell_len(line.rstrip()) > room:
            kept = set_cell_size(line, room).rstrip()
            lines.append(kept)
            line = f"  {line[len(kept) :]}"
    return [*lines, line.rstrip()] if line.strip() else lines


def _parts(name: str) -> list[str]:
    """A name in parts that stay together, each with the blank or plus sign behind it."""
    parts, start = [], 0
    for place, character in enumerate(name):
        if character in " +":
            parts.append(name[start : place + 1])
            start = place + 1
    return [*parts, name[start:]]


def _that_fit(scores: Mapping[str, Sequence[str]], room: int) -> dict[str, Sequence[str]]:
    """The first columns that there is room for."""
    fit: dict[str, Sequence[str]] = {}
    for name, cells in scores.items():
        if _width({**fit, name: cells}) > room:
            break
        fit[name] = cells
    return fit


def _named(scores: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    return {_heading(name): cells for name, cells in scores.items()}


def _heading(benchmark: str) -> str:
    """A benchmark's name as a heading, which may break between its words."""
    heading = benchmark.replace("_", " ")
    return f"benchmark {heading}" if heading in ("mean", *RIVALS.values()) else heading


def _width(columns: Mapping[str, Sequence[str]]) -> int:
    """Columns of the terminal that these take, with what keeps them apart."""
    words = {name: max(map(cell_len, name.replace("_", " ").split())) for name in columns}
    return sum(max(words[name], _broad(cells)) + GAP for name, cells in columns.items())


def _broad(cells: Sequence[str]) -> int:
    return max(map(len, cells), default=0)


def _name(row: Row, crowned: bool) -> str:
    """What a row is, and what stands out in it."""
    marks = [row["kind"]] if not row["experts"] else []
    marks += ["champion"] if crowned else []
    marks += ["old"] if row.get("stale") else []
    mark = f" ({', '.join(marks)})" if marks else ""
    if not row["experts"]:
        return shown(f"{row['label']}{mark}")
    coefficient = "" if row["coefficient"] == "default" else row["coefficient"].replace("_", " ")
    return shown(f"{row['recipe']} {coefficient}".strip() + f"{mark}  {'+'.join(row['experts'])}")


def _points(score: Row, with_error: bool) -> str:
    """A share in points, with its interval; of an earlier release ± its standard error."""
    text = f"{100 * score['value']:.1f}"
    if not with_error:
        return text
    if score.get("low") is not None and score.get("high") is not None:
        return f"{text} ({100 * score['low']:.1f}–{100 * score['high']:.1f})"
    return text if score["stderr"] is None else f"{text} ±{100 * score['stderr']:.1f}"


def _verdict(comparison: Row | None) -> str:
    """The difference in points with its verdict."""
    if comparison is None:
        return "–"
    return f"{100 * comparison['difference']:+.1f} {comparison['verdict']}"
