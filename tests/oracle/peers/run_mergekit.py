"""Runs many mergekit merges in one process of the oracle environment.

    .venv-oracle/bin/python tests/oracle/peers/run_mergekit.py CASES.json OUTCOMES.json

CASES.json is a list of {"name", "config", "out", "seed"}: a YAML file, a folder to write and a seed
or null. Each is merged as `mergekit-yaml CONFIG OUT` would with its default options;
adapters are merged into a folder beside the output.
OUTCOMES.json maps each name to null, or to the text of the error mergekit stopped with.
Importing mergekit costs seconds and a tiny merge a fraction of one, hence the one process.
"""

import json
import sys
from pathlib import Path

import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.io.tasks import LoaderCache
from mergekit.merge import run_merge
from mergekit.options import MergeOptions


def run_case(config: str, out: str, seed: int | None) -> str | None:
    """One merge; the error's text if it fails."""
    LoaderCache.loaders.clear()  # process-wide and keyed by path: a new process starts without it
    source = Path(config).read_text(encoding="utf-8")
    options = MergeOptions(random_seed=seed, quiet=True, lora_merge_cache=f"{out}-lora")
    try:
        merge_config = MergeConfiguration.model_validate(yaml.safe_load(source))
        run_merge(merge_config, out, options=options, config_source=source)
    except Exception as error:  # the text is the outcome; the caller says whether it is expected
        return f"{type(error).__name__}: {error}"
    return None


def main(cases_file: str, outcomes_file: str) -> None:
    """Runs every case and writes what came of it."""
    torch.set_num_threads(1)
    cases = json.loads(Path(cases_file).read_text(encoding="utf-8"))
    outcomes = {case["name"]: run_case(case["config"], case["out"], case["seed"]) for case in cases}
    Path(outcomes_file).write_text(json.dumps(outcomes, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
