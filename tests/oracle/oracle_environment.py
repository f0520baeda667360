"""Where mergekit runs, and how tests ask it to merge."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template
from textwrap import dedent

from tests.merging import ROOT

PYTHON = ROOT / ".venv-oracle/bin/python"
SCRIPT = ROOT / "tests/oracle/run_mergekit.py"


@dataclass(frozen=True)
class OracleCase:
    """One merge for mergekit: its name, its YAML file, the folder to write, a seed or None."""

    name: str
    config: Path
    out: Path
    seed: int | None = None


def write_config(path: Path, text: str, models: dict[str, Path]) -> Path:
    """Writes a case's YAML with `$base`, `$one` … replaced by folders; returns `path`."""
    folders = {name: str(folder) for name, folder in models.items()}
    path.write_text(Template(dedent(text)).substitute(folders), encoding="utf-8")
    return path


def oracle_program(name: str) -> Path:
    """One of mergekit's own command-line programs."""
    program = PYTHON.parent / name
    if not program.exists():
        raise FileNotFoundError(f"{program} is not there; `make oracle` makes its environment")
    return program


def merge_with_mergekit(work: Path, cases: Sequence[OracleCase]) -> dict[str, str | None]:
    """Runs all cases in one process; the error's text, or None, by name."""
    if not PYTHON.exists():
        raise FileNotFoundError(
            f"{PYTHON} is not there: these tests compare with mergekit, which lives in an "
            "environment of its own; `make oracle` makes it"
        )
    asked, told = work / "cases.json", work / "outcomes.json"
    rows = [{k: str(v) if isinstance(v, Path) else v for k, v in asdict(c).items()} for c in cases]
    asked.write_text(json.dumps(rows), encoding="utf-8")
    result = subprocess.run(
        [str(PYTHON), str(SCRIPT), str(asked), str(told)],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(f"the oracle stopped: {result.stderr[-2000:]}")
    return json.loads(told.read_text(encoding="utf-8"))
