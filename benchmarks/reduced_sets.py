"""Items against agreement of decisions on held-back candidates, from a store's own scores.

    python -m benchmarks.reduced_sets [--suite quickstart]

Reads the store and the catalog of the environment (RONGHE_STORE, RONGHE_CATALOG), writes nothing.
Candidates are left out with their whole expert set; rivals are an expert, the plain average and
candidates of several ranks, as incumbents. Items are chosen by strata, by item response models
(2PL) or at random; each is repeated with other folds and draws. Prints a Markdown table.
"""

import argparse
import sys

from assets.work.ranking.store_matrix import store_matrix
from assets.work.suite_files import load_suite
from eval_ops.scores.matrices.held_back import HeldBack, held_back
from orchestration.commands.catalog_store import open_store
from orchestration.commands.evidence.champion_commands import contest_of
from orchestration.settings import load_settings

CHOICES = ("stratified", "item response", "random")
SHARES = (1.0, 0.5, 0.2, 0.1, 0.05)
RANKS = (0.02, 0.1, 0.25, 0.5, 0.75)
"""Of candidates that stand for incumbents: 0 is the best."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite")
    parser.add_argument("--choices", nargs="*", choices=CHOICES, default=CHOICES)
    parser.add_argument("--draws", type=int, default=3, help="of random items, and of the folds")
    options = parser.parse_args()
    wanted = options.suite
    settings = load_settings()
    store, contest = open_store(settings), contest_of(settings)
    for suite in [wanted] if wanted else list(contest.suites):
        matrix, entries = store_matrix(store, contest, load_suite(contest.suites[suite]), None)
        test = matrix.split("test")
        groups = {e.label: e.expert_set or e.name for e in entries}
        means = test.means()
        merged = [e.label for e in entries if e.experts]
        ranked = sorted(merged, key=lambda name: -means[test.model(name)])
        experts = [entry.label for entry in entries if entry.kind == "expert"]
        rivals = [max(experts, key=lambda name: means[test.model(name)])]
        rivals += [ranked[int(share * len(ranked))] for share in RANKS]
        print(f"suite {suite}: {len(test.items)} test items, {len(test.models)} models", flush=True)
        print("| choice | items | of all | agreement (95 %) | false | missed | reversed | error |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|")
        for choice in options.choices:
            for share in SHARES:
                size = max(len(test.benchmarks), round(share * len(test.items)))
                runs = [
                    held_back(test, rival, [size], choice, groups, seed=seed)[0]
                    for seed in range(options.draws)
                    for rival in rivals
                ]
                print(_line(choice, share, runs, options.draws), flush=True)


def _line(choice: str, share: float, runs: list[HeldBack], draws: int) -> str:
    """One size, all rivals and draws together; the interval is as wide as that of one draw.

    Candidates against several rivals are no independent ones.
    """
    total = sum(run.decisions for run in runs)
    agreed = sum(run.agreed for run in runs)
    pooled = HeldBack(0, 0, 0, total // draws, agreed / draws, 0, 0, 0, 0)
    low, high = pooled.interval()
    error = (sum(run.error**2 for run in runs) / len(runs)) ** 0.5
    false, missed = sum(r.false for r in runs), sum(r.missed for r in runs)
    turned = sum(r.reversed for r in runs)
    agreement = f"{agreed} of {total}: {agreed / total:.1%}"
    return (
        f"| {choice} | {runs[0].items:.0f} | {share:.0%} | {agreement}"
        f" ({low:.1%} to {high:.1%}) | {false} | {missed} | {turned} | {100 * error:.1f} points |"
    )


if __name__ == "__main__":
    sys.exit(main())
