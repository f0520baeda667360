"""Scores from elsewhere: a paper, a model card, another team's run. They are shown, no more.

A CSV has the columns model, benchmark, score (a share between 0 and 1) and n, and may have metric
and source. Nobody knows the single answers, so such a score is never compared item by item with one
of ours; its interval is Wilson's, from n. A value within [0, 1] that is no share of right answers
never varies more than a share of the same mean, so the interval is wide enough for it too.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from eval_ops.errors import ImportedScoresError
from eval_ops.faults import did_you_mean, quoted
from eval_ops.scores.intervals import wilson

REQUIRED, OPTIONAL = ("model", "benchmark", "score", "n"), ("metric", "source")
MOST_FAULTS = 50
MOST_ITEMS = 10**9


@dataclass(frozen=True)
class ImportedScore:
    """A score of a model on a benchmark of `n` items, from elsewhere, with a 95 % interval."""

    model: str
    benchmark: str
    score: float
    n: int
    low: float
    high: float
    metric: str = ""
    source: str = ""


def read_imported(data: bytes, where: str) -> tuple[ImportedScore, ...]:
    """Return the scores of a CSV. Raises ImportedScoresError that lists every fault."""
    try:
        lines = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    except UnicodeDecodeError as error:
        raise ImportedScoresError(where, [f"is not UTF-8 text (byte {error.start})"]) from None
    except csv.Error as error:
        raise ImportedScoresError(where, [f"is not valid CSV: {error}"]) from None
    lines = [line for line in lines if line]
    header = [name.strip() for name in lines[0]] if lines else []
    faults = _header_faults(header)
    if faults:
        raise ImportedScoresError(where, faults)
    found: dict[tuple[str, str], ImportedScore] = {}
    for number, line in enumerate(lines[1:], start=1):
        if len(line) != len(header):
            faults.append(f"row {number} has {len(line)} fields; the header names {len(header)}")
            continue
        row = {name: value.strip() for name, value in zip(header, line, strict=True)}
        problems = _row_faults(row)
        key = row["model"], row["benchmark"]
        if key in found:
            problems.append(f"model {key[0]!r} has a score on {key[1]!r} already")
        faults += [f"row {number}: {problem}" for problem in problems]
        if not problems:
            found[key] = _score(row)
        if len(faults) > MOST_FAULTS:
            break
    if not found and not faults:
        faults.append("holds no score")
    if faults:
        raise ImportedScoresError(where, faults)
    return tuple(found.values())


def _header_faults(header: Sequence[str]) -> list[str]:
    known = (*REQUIRED, *OPTIONAL)
    faults = [f"column '{name}' is missing" for name in REQUIRED if name not in header]
    for name in header:
        if name not in known:
            hint = did_you_mean(name, known)
            faults.append(f"column {quoted(name)} is not known.{hint} Known: {', '.join(known)}")
    return faults + [f"column '{name}' is there twice" for name in known if header.count(name) > 1]


def _row_faults(row: Mapping[str, str]) -> list[str]:
    faults = [f"{name} is empty" for name in REQUIRED if not row[name]]
    if row["score"]:
        try:
            score = -1.0 if "_" in row["score"] else float(row["score"])  # Python reads 0_1 as 1
        except ValueError:
            score = -1.0
        if not 0 <= score <= 1:
            percent = ", not in percent" if score > 1 else ""
            faults.append(f"score is {quoted(row['score'])}; it must be from 0 to 1{percent}")
    if row["n"] and not (row["n"].isdecimal() and 0 < int(row["n"][:20]) <= MOST_ITEMS):
        faults.append(f"n is {quoted(row['n'])}; it must be the number of items, 1 or more")
    return faults


def _score(row: Mapping[str, str]) -> ImportedScore:
    score, n = float(row["score"]), int(row["n"])
    low, high = wilson(score, n)
    return ImportedScore(
        row["model"], row["benchmark"], score, n, low, high,
        row.get("metric", ""), row.get("source", ""),
    )  # fmt: skip


def imported_to_json(scores: Iterable[ImportedScore]) -> str:
    """Write scores as JSON, the best of each benchmark first."""
    ordered = sorted(scores, key=lambda each: (each.benchmark, -each.score, each.model))
    return json.dumps([asdict(each) for each in ordered], ensure_ascii=False, indent=2) + "\n"
