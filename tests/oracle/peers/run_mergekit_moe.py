"""Runs many mergekit-moe merges in one process of the oracle environment.

    .venv-oracle/bin/python tests/oracle/peers/run_mergekit_moe.py CASES.json OUTCOMES.json

CASES.json is a list of {"name", "config", "out"}. Each is merged by mergekit-moe's own command with
`--i-understand-this-is-not-useful-without-training`; OUTCOMES.json maps each name to null, or to
the text of the error, or the exit status, that it stopped with.
"""

import json
import sys
from pathlib import Path

import torch
import transformers

transformers.logging.set_verbosity_error()

from mergekit.io.tasks import LoaderCache  # noqa: E402
from mergekit.scripts.moe import main as moe  # noqa: E402


def run_case(config: str, out: str) -> str | None:
    """One merge; what it stopped with, if it fails."""
    LoaderCache.loaders.clear()
    long_flag = "--i-understand-this-is-not-useful-without-training"
    try:
        moe.main([config, out, "--device", "cpu", long_flag], standalone_mode=False)
    except (Exception, SystemExit) as error:  # the text is the outcome
        return f"{type(error).__name__}: {error}"
    return None


def main(cases_file: str, outcomes_file: str) -> None:
    """Runs every case and writes what came of it."""
    torch.set_num_threads(1)
    cases = json.loads(Path(cases_file).read_text(encoding="utf-8"))
    outcomes = {case["name"]: run_case(case["config"], case["out"]) for case in cases}
    Path(outcomes_file).write_text(json.dumps(outcomes, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
