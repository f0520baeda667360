"""`ronghe compare`: two checkpoints on the same items, benchmark by benchmark."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from assets.work.ranking.named_checkpoints import NamedCheckpoint, find_checkpoint, scores_on
from assets.work.suite_files import load_suite
from merge_ops.errors import Fault, SettingsError, did_you_mean
from orchestration.commands.catalog_store import open_store
from orchestration.commands.console import PlainConsole, print_json, say
from orchestration.commands.evidence import champion_commands
from orchestration.commands.store_tables import SHORT, make_console, print_table
from orchestration.settings import load_settings

if TYPE_CHECKING:
    from eval_ops.scores import SuiteScores
    from eval_ops.scores.leaderboard import Comparison

Pair = tuple[NamedCheckpoint, NamedCheckpoint]


def run_compare(first: str, second: str, suite: str | None, as_json: bool = False) -> None:
    """Print two checkpoints' scores side by side, by benchmark, and whether one is better.

    Exit status 1 where no suite has scores of both. Raises MissingArtifactError for a name that
    stands for nothing, SettingsError for a suite that there is not.
    """
    settings, console = load_settings(), make_console()
    store, contest = open_store(settings), champion_commands.contest_of(settings)
    both = find_checkpoint(store, contest, first), find_checkpoint(store, contest, second)
    if suite is not None and suite not in contest.suites:
        problem = f"is {suite!r}.{did_you_mean(suite, contest.suites)} The catalog's recipes are"
        told = f"{problem} scored on {', '.join(contest.suites) or 'none'}"
        raise SettingsError("ronghe compare", [Fault("--suite", told)])
    compared: list[dict[str, Any]] = []
    lacking: dict[str, list[str]] = {}
    for name in [suite] if suite is not None else list(contest.suites):
        loaded = load_suite(contest.suites[name])
        ours, theirs = (scores_on(store, each.digest, loaded) for each in both)
        if ours is not None and theirs is not None:
            found = _compared(name, ours, theirs)
            compared.append(found)
            if not as_json:
                _print_comparison(console, both, found)
        elif suite is not None or ours is not None or theirs is not None:
            pairs = zip(both, (ours, theirs), strict=True)
            lacking[name] = [each.label for each, of_it in pairs if of_it is None]
            if not as_json:
                absent = " and ".join(lacking[name])
                say(console, f"suite {name}: no scores of {absent}; `ronghe refresh` makes them")
    if as_json:
        sides = [{"name": each.label, "digest": each.digest} for each in both]
        told_of = {"a": sides[0], "b": sides[1], "suites": compared, "without_scores": lacking}
        print_json(told_of)
    if not compared:
        if not lacking and not as_json:
            say(console, _nothing_to_compare(both, contest.suites))
        raise SystemExit(1)


def _nothing_to_compare(both: Pair, suites: Collection[str]) -> str:
    """Say why two checkpoints have no score in common, and none apart."""
    sides = " and ".join(each.label for each in both)
    if not suites:
        return f"no recipe of the catalog names a suite, so {sides} have no scores to compare"
    return (
        f"neither of {sides} has scores on {', '.join(suites)}; `ronghe refresh` scores what the"
        " catalog lists"
    )


def _compared(suite: str, ours: "SuiteScores", theirs: "SuiteScores") -> dict[str, Any]:
    """One suite's comparison as plain data: shares, differences A - B, tests, verdicts."""
    from eval_ops.scores import compare

    parts = {name: compare(ours, theirs, benchmarks=[name]) for name in ours.benchmarks}
    whole, adjusted = compare(ours, theirs), _adjusted(parts)
    return {
        "suite": suite,
        "confidence": whole.confidence,
        "benchmarks": [
            {
                "benchmark": name,
                "a": ours.score(name).value,
                "b": theirs.score(name).value,
                **_numbers(each),
                "p_holm": adjusted.get(name),
            }
            for name, each in parts.items()
        ],
        "mean": {"a": ours.mean().value, "b": theirs.mean().value, **_numbers(whole)},
    }


def _numbers(comparison: "Comparison") -> dict[str, Any]:
    return {
        "difference": comparison.difference,
        "low": comparison.low,
        "high": comparison.high,
        "p": comparison.p_value,
        "only_a": comparison.only_ours,
        "only_b": comparison.only_theirs,
        "a_is": comparison.verdict,
        "items": comparison.n,
    }


def _adjusted(parts: "Mapping[str, Comparison]") -> dict[str, float]:
    """The benchmarks' p-values, adjusted for their number by Holm; empty where one has none."""
    from eval_ops.scores.gates import holm

    values = {name: each.p_value for name, each in parts.items() if each.p_value is not None}
    return dict(holm(values)) if len(values) == len(parts) > 1 else {}


def _print_comparison(console: PlainConsole, both: Pair, found: Mapping[str, Any]) -> None:
    suite, whole = found["suite"], found["mean"]
    with_holm = any(row["p_holm"] is not None for row in found["benchmarks"])
    rows = [_cells(row["benchmark"], row, with_holm) for row in found["benchmarks"]]
    rows.append(_cells("mean", whole, with_holm))
    say(console, f"A  {both[0].label}  {both[0].digest[:SHORT]}")
    say(console, f"B  {both[1].label}  {both[1].digest[:SHORT]}")
    level = f"{100 * found['confidence']:g} % interval"
    holm_head = ("p (Holm)",) if with_holm else ()
    columns = ("benchmark", "A", "B", "A - B", level, "p", *holm_head, "A is", "items")
    print_table(console, f"suite {suite}: points of the same test items", columns, rows)
    told = {"better": "A is better than B", "worse": "A is worse than B"}
    words = told.get(whole["a_is"], "undecided: the tests show no better")
    say(console, f"suite {suite}: {words}")


def _cells(name: str, row: Mapping[str, Any], with_holm: bool) -> tuple[str, ...]:
    return (
        name,
        f"{100 * row['a']:.1f}",
        f"{100 * row['b']:.1f}",
        f"{100 * row['difference']:+.1f}",
        f"{row['low'] * 100:+.1f} to {row['high'] * 100:+.1f}",
        _chance(row["p"]),
        *([_chance(row.get("p_holm"))] if with_holm else []),
        row["a_is"],
        str(row["items"]),
    )


def _chance(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"
