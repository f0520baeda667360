"""checked_suite/<name>: the tasks of lm-eval that a suite names are there, and so are their data.

Own items are checked when the catalog is read. What lm-eval brings takes seconds to look at, so it
is looked at once for each suite, first of all: a wrong task is told before the merges, not after.
"""

import re
from pathlib import Path

import dagster as dg

from assets.broken_parts import key_part
from assets.frame.team_asset import team_asset
from assets.work import names


def checked_suite_key(name: str) -> dg.AssetKey:
    """Return the key of a suite's asset."""
    part = name if re.fullmatch(r"\w+", name) else key_part(name)
    return dg.AssetKey([names.CHECKED_SUITE, part])


def build_checked_suite(
    name: str, suite: Path, code_version: str, condition: dg.AutomationCondition
) -> dg.AssetsDefinition:
    """Build the asset of one suite; `code_version` is the suite's digest."""

    @team_asset(
        "/".join(checked_suite_key(name).path),
        condition,
        group="results",
        code_version=code_version,
        description=f"The tasks of suite {name} can be prepared: lm-eval knows them, and their data"
        " can be read. Recipes are scored on the suite once that is so.",
    )
    def checked_suite() -> dg.MaterializeResult:
        from assets.work.suite_files import load_suite
        from eval_ops.suites import Evaluator

        checked = load_suite(suite, fetch=True)
        Evaluator(checked).prepare()
        benchmarks = ", ".join(each.name for each in checked.benchmarks)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(checked.digest), metadata={"benchmarks": benchmarks}
        )

    return checked_suite
