"""How often gates err, with and without early stopping, and how many items that saves.

    python -m benchmarks.gate_simulation [--simulations 2000] [--store PATH]

Candidates and champions are simulated: of `n` test items on three benchmarks, some are answered
alike, a share ψ (the discordance) by one side alone. Without a difference every promotion is a
false one. The gate itself decides (`gates.decide`); with early stopping `rounds.challenge` does,
and the gate where that is undecided.

With `--trade-offs` two benchmarks of different sizes are simulated, the larger of which gains what
the smaller loses, so that the means are equal: how often is either called better? Once with right
and wrong items, once with grades (a difference is 0.1 to 0.5), once with passages of five items.

With `--store` the scores of a store (of the quickstart) are replayed: every recipe's and expert
set's candidates, and all of them together, are chosen among with and without early stopping.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval_ops.scores import Sample, SuiteScores, summarize
from eval_ops.scores.comparison import compare, mcnemar, paired_bootstrap
from eval_ops.scores.course import Course, Item, course_of
from eval_ops.scores.gates import Gate, decide
from eval_ops.scores.power import smallest_difference
from eval_ops.scores.rounds import Ask, Benchmarks, Selection, challenge, select

BENCHMARKS = ("a", "b", "c")
SKILL, DISCORDANCE = 0.6, 0.3
SIZES, EFFECTS = (60, 150, 300, 600), (0.0, 0.05, 0.1, 0.2, -0.05, -0.1, -0.2)
PILOT = 16
"""Items that each candidate is asked before the order of the others is chosen."""
TRADE_OFFS = (
    (1000, 20, 0.035), (1000, 20, 0.05), (1000, 20, 0.1), (1000, 20, 0.15), (1000, 60, 0.05),
    (1319, 100, 0.05),
)  # fmt: skip
"""Items of a larger and a smaller benchmark, and what one gains and the other loses."""
GRADED = ((1000, 20, 0.01), (1000, 20, 0.03), (1000, 60, 0.015), (80, 80, 0.015))
IN_PASSAGES = ((1000, 50, 0.05), (1000, 50, 0.1), (1000, 100, 0.05), (500, 500, 0.05))
PASSAGE = 5
"""Items of a passage."""
GRADES = (0.1, 0.2, 0.3, 0.4, 0.5)
"""What graded answers differ by, where they differ."""
Values = dict[Item, float]


@dataclass(frozen=True)
class Outcome:
    """What came of one row of the table: shares of promotions, and items asked on average."""

    items: int
    effect: float
    simulations: int
    promoted: float
    promoted_early_stopping: float
    mean_items: float
    smallest: float


def pair(draw: np.random.Generator, items: int, effect: float) -> tuple[Values, Values]:
    """Draw the answers of a candidate and of a champion that is worse by `effect` on average."""
    each = items // len(BENCHMARKS)
    ours: Values = {}
    theirs: Values = {}
    for name in BENCHMARKS:
        kind = draw.random(each)
        alike = (draw.random(each) < SKILL).astype(float)
        first = kind < (DISCORDANCE + effect) / 2
        second = (kind >= (DISCORDANCE + effect) / 2) & (kind < DISCORDANCE)
        for place in range(each):
            item = (name, f"{place:04}")
            ours[item] = 1.0 if first[place] else 0.0 if second[place] else float(alike[place])
            theirs[item] = 0.0 if first[place] else 1.0 if second[place] else float(alike[place])
    return ours, theirs


def scores_of(values: Mapping[Item, float]) -> SuiteScores:
    """Return values of test items as scores."""
    samples = tuple(Sample(name, "test", item, value) for (name, item), value in values.items())
    return SuiteScores("simulated", "s", _by_benchmark(samples), samples)


def _by_benchmark(samples: Sequence[Sample]):
    names = dict.fromkeys(sample.benchmark for sample in samples)
    every = ([each for each in samples if each.benchmark == name] for name in names)
    return tuple(score for each in every for score in summarize(each, "acc", "1"))


def simulate(items: int, effect: float, simulations: int, seed: int = 0) -> Outcome:
    """Let the gate decide on simulated pairs, with and without early stopping.

    The single experts are as good as the champion, so that no benchmark is lost but by chance.
    """
    draw = np.random.default_rng([seed, items, round(1000 * (1 + effect))])
    gate = Gate(minimum_samples=1)
    promoted = early = asked = 0
    for number in range(simulations):
        ours, theirs = pair(draw, items, effect)
        champion = scores_of(theirs)
        fixed = decide(scores_of(ours), {"expert": champion}, champion, gate).promote
        course = course_of(groups_of(ours), whole=False, seed=number)
        guards = Benchmarks(theirs, gate.allowed_loss, gate.minimum_samples)
        found = challenge(course, asker(ours), theirs, guards, gate.confidence)
        promoted += fixed
        early += found.verdict == "better" or (found.verdict == "undecided" and fixed)
        asked += found.saved.asked
    return Outcome(
        items,
        effect,
        simulations,
        promoted / simulations,
        early / simulations,
        asked / simulations,
        smallest_difference(items, DISCORDANCE),
    )


def trade_off(
    large: int, small: int, gain: float, simulations: int, kind: str = "right and wrong"
) -> tuple[float, float]:
    """Return how often equal means are called better: by bootstrap and test alone, and now.

    Items of the smaller benchmark are only ever lost, so a draw may show no loss at all. In
    passages all items of a unit fare alike. Graded items differ by a tenth to a half.
    """
    draw = np.random.default_rng([large, small, round(1000 * gain)])
    alone = decided = 0
    items = PASSAGE if kind == "passages" else 1
    worth = np.array(GRADES if kind == "grades" else (1.0,))
    often = gain / worth.mean()  # how often an item is lost
    chances = {
        "a": (large, ((DISCORDANCE + often) / 2, (DISCORDANCE - often) / 2)),
        "b": (small, (0.0, often)),
    }
    for _ in range(simulations):
        drawn = {
            name: np.repeat(
                draw.choice([1.0, -1.0, 0.0], size=n // items, p=[won, lost, 1 - won - lost])
                * draw.choice(worth, size=n // items),
                items,
            )
            for name, (n, (won, lost)) in chances.items()
        }
        groups = {
            name: tuple(f"{place // items}" for place in range(len(each)))
            for name, each in drawn.items()
            if items > 1
        }
        found = compare(*(_side(drawn, sign, groups) for sign in (1.0, -1.0)))
        low, _ = paired_bootstrap(drawn, groups=groups)
        if kind == "right and wrong":
            every = np.concatenate(list(drawn.values()))
            surprise = mcnemar(int((every > 0).sum()), int((every < 0).sum()))
            alone += low > 0 and float(every.sum()) > 0 and surprise <= 0.05
        else:
            alone += low > 0 and found.surprise <= 0.05
        decided += found.verdict == "better"
    return alone / simulations, decided / simulations


def _side(
    drawn: Mapping[str, NDArray[np.float64]], sign: float, groups: Mapping[str, Sequence[str]]
) -> SuiteScores:
    """The scores of one side of drawn differences: what it has more than the other."""
    samples = tuple(
        Sample(name, "test", f"{place:04}", float(value), group=group)
        for name, each in drawn.items()
        for place, (value, group) in enumerate(
            zip(np.maximum(sign * each, 0.0), groups.get(name, ("",) * len(each)), strict=True)
        )
    )
    return SuiteScores("simulated", "s", _by_benchmark(samples), samples)


def trade_off_table(simulations: int) -> str:
    """Simulate all trade-offs; write them as a Markdown table."""
    lines = [
        "| what | items | gain and loss | better, by bootstrap and test alone "
        "| better, as it is decided |",
        "|---|---|---:|---:|---:|",
    ]
    kinds = {"right and wrong": TRADE_OFFS, "grades": GRADED, "passages": IN_PASSAGES}
    for kind, rows in kinds.items():
        for large, small, gain in rows:
            alone, decided = trade_off(large, small, gain, simulations, kind)
            shares = f"{100 * alone:.1f} % | {100 * decided:.1f} %"
            lines.append(f"| {kind} | {large:,} and {small} | {100 * gain:g} | {shares} |")
    return "\n".join(lines)


def groups_of(values: Mapping[Item, float]) -> dict[str, dict[str, str]]:
    """Return benchmark → item → no group."""
    groups: dict[str, dict[str, str]] = {}
    for benchmark, item in values:
        groups.setdefault(benchmark, {})[item] = ""
    return groups


def asker(values: Mapping[Item, float]) -> Ask:
    """Return what answers from known values."""
    return lambda items: {item: values[item] for item in items}


@dataclass(frozen=True)
class Replay:
    """A choice among known candidates: the winner of all items, and what early stopping gave."""

    name: str
    candidates: int
    winner: str
    winner_rank: int
    selection: Selection


def replay(
    name: str, candidates: Mapping[str, SuiteScores], split: str = "validation", seed: int = 0
) -> Replay:
    """Choose the best of known candidates by early stopping; `winner_rank` 1 is the same winner.

    The rank counts how many candidates have a higher mean on all items; equals share it.
    """
    first = next(iter(candidates.values()))
    groups = {
        benchmark: {
            item: first.groups(benchmark, split).get(item, "")
            for item in first.values(benchmark, split)
        }
        for benchmark in first.benchmarks
    }
    course: Course = course_of(groups, whole=True, seed=seed)
    asks = {
        key: asker({(b, i): v for b in groups for i, v in scores.values(b, split).items()})
        for key, scores in candidates.items()
    }
    found = select(course, asks, pilot_units=PILOT)
    means = {key: scores.mean(split).value for key, scores in candidates.items()}
    rank = 1 + sum(mean > means[found.best] + 1e-12 for mean in means.values())
    winner = max(means, key=lambda key: means[key])
    return Replay(name, len(candidates), winner, rank, found)


def stored_candidates(store: Path) -> dict[str, dict[str, SuiteScores]]:
    """Return recipe and expert set → coefficient → scores, of what a local store points to."""
    found: dict[str, dict[str, SuiteScores]] = {}
    for ref in sorted(store.glob("refs/**/scores/*.json")):
        content = json.loads(ref.read_text())
        if not content.get("history") or "|" not in str(content.get("partition")):
            continue
        coefficient, experts = content["partition"].split("|", 1)
        newest = content["history"][-1]["digest"]
        folder = store / "artifacts" / "scores" / newest
        manifest = json.loads((folder / "manifest.json").read_text())
        files = store / "attempts" / manifest["attempt"]
        scores = SuiteScores.from_json(
            (files / "scores.json").read_bytes(), (files / "samples.parquet").read_bytes()
        )
        recipe = content["asset"].removesuffix("/scores")
        found.setdefault(f"{recipe} {experts}", {})[coefficient] = scores
    return found


def table(outcomes: Sequence[Outcome]) -> str:
    """Write the outcomes as a Markdown table."""
    lines = [
        "| items | true difference | promoted | promoted, early stopping | mean items used "
        "| smallest difference (80 %) |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {each.items} | {100 * each.effect:g} | {100 * each.promoted:.1f} % "
        f"| {100 * each.promoted_early_stopping:.1f} % | {each.mean_items:.0f} "
        f"({100 * each.mean_items / each.items:.0f} %) | {100 * each.smallest:.1f} |"
        for each in outcomes
    ]
    return "\n".join(lines)


def replay_table(replays: Sequence[Replay]) -> str:
    """Write replayed choices as a Markdown table."""
    lines = [
        "| candidates of | number | winner | rank of the early winner | left early | items saved |",
        "|---|---:|---|---:|---:|---:|",
    ]
    lines += [
        f"| {each.name} | {each.candidates} | {each.winner} | {each.winner_rank} "
        f"| {len(each.selection.left)} | {100 * each.selection.saved.share:.0f} % |"
        for each in replays
    ]
    return "\n".join(lines)


def main() -> None:
    """Simulate, replay, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=2000, help="of the null comparisons")
    parser.add_argument("--power-simulations", type=int, default=300, help="of each other row")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="numbers of items")
    parser.add_argument("--store", type=Path, help="a local store whose scores are replayed")
    parser.add_argument("--orders", type=int, default=20, help="random orders of a replay")
    parser.add_argument("--trade-offs", action="store_true", help="benchmarks of different sizes")
    options = parser.parse_args()
    if options.trade_offs:
        print(trade_off_table(options.simulations))
        return
    if options.store:
        sets = stored_candidates(options.store)
        several = {name: each for name, each in sets.items() if len(each) > 1}
        whole = {f"{n} {c}": scores for n, each in sets.items() for c, scores in each.items()}
        print(replay_table([replay(name, each) for name, each in several.items()]))
        orders = [replay("all", whole, seed=seed) for seed in range(options.orders)]
        print(replay_table(orders[:1]))
        saved = [each.selection.saved.share for each in orders]
        same = sum(each.winner_rank == 1 for each in orders)
        print(
            f"all together, {len(orders)} random orders: {100 * np.mean(saved):.1f} % of items "
            f"saved (least {100 * min(saved):.1f} %), same winner in {same}"
        )
    outcomes: list[Outcome] = []
    started = time.perf_counter()
    for items in options.sizes:
        for effect in EFFECTS:
            count = options.power_simulations if effect else options.simulations
            outcomes.append(simulate(items, effect, count))
    print(table(outcomes))
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
