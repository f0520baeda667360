"""Runs mergekit-tokensurgeon on many models in one process of the oracle environment.

    .venv-oracle/bin/python tests/oracle/peers/run_tokensurgeon.py CASES.json OUTCOMES.json

CASES.json is a list of {"name", "model", "donor", "out", "options"}. OUTCOMES.json maps each name
to null, or to the text of the error that it stopped with.
"""

import json
import sys
from pathlib import Path

import torch
import transformers

transformers.logging.set_verbosity_error()

from mergekit.io.tasks import LoaderCache  # noqa: E402
from mergekit.scripts.tokensurgeon import main as tokensurgeon  # noqa: E402


def run_case(case: dict) -> str | None:
    """One transplant; what it stopped with, if it fails."""
    LoaderCache.loaders.clear()
    places = [case["model"], case["donor"], case["out"]]
    try:
        tokensurgeon.main([*places, *case["options"], "--device", "cpu"], standalone_mode=False)
    except (Exception, SystemExit) as error:  # the text is the outcome
        return f"{type(error).__name__}: {error}"
    return None


def main(cases_file: str, outcomes_file: str) -> None:
    """Runs every case and writes what came of it."""
    torch.set_num_threads(1)
    cases = json.loads(Path(cases_file).read_text(encoding="utf-8"))
    outcomes = {case["name"]: run_case(case) for case in cases}
    Path(outcomes_file).write_text(json.dumps(outcomes, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
