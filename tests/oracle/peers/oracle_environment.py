"""Where mergekit and PEFT run, and how tests ask them to merge."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template as Text
from textwrap import dedent

from tests.child_forks import Template, run_script
from tests.merges.merging import ROOT
from tests.servers.waiting import HANG_SECONDS

PYTHON = ROOT / ".venv-oracle/bin/python"
SCRIPT = ROOT / "tests/oracle/peers/run_mergekit.py"
PEFT_SCRIPT = ROOT / "tests/oracle/peers/run_peft.py"
DIFFUSERS_SCRIPT = ROOT / "tests/oracle/peers/run_diffusers.py"
IMPORTS = ("torch", "transformers", "peft", "mergekit.merge", "mergekit.scripts.moe")
"""What takes seconds to import; the oracle's processes are forks of one that has done so."""


@dataclass(frozen=True)
class OracleCase:
    """One merge for mergekit: its name, its YAML file, the folder to write, a seed or None."""

    name: str
    config: Path
    out: Path
    seed: int | None = None


@dataclass(frozen=True)
class PeftCase:
    """One adapter for PEFT to merge into `out`; with a config PEFT makes the adapter first.

    `loader` is the base model's class as `module:name`; without it the model is a causal LM. With
    `rows` the base is lengthened to so many before the adapter is made or loaded.
    """

    name: str
    base: Path
    adapter: Path
    out: Path
    config: Mapping[str, object] | None = None
    loader: str | None = None
    rows: int | None = None


@dataclass(frozen=True)
class DiffusersCase:
    """Something for diffusers to do: `make`, `fuse` or `rename` (see run_diffusers.py)."""

    name: str
    do: str
    out: Path
    model: Path | None = None
    file: Path | None = None


def write_config(path: Path, text: str, models: dict[str, Path]) -> Path:
    """Writes a case's YAML with `$base`, `$one` … replaced by folders; returns `path`."""
    folders = {name: str(folder) for name, folder in models.items()}
    path.write_text(Text(dedent(text)).substitute(folders), encoding="utf-8")
    return path


def run_oracle_program(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs one of mergekit's own command-line programs; what it printed is stderr."""
    program = PYTHON.parent / name
    if not program.exists():
        raise FileNotFoundError(f"{program} is not there; `make oracle` makes its environment")
    return _forked(program, *arguments)


def merge_with_mergekit(work: Path, cases: Sequence[OracleCase]) -> dict[str, str | None]:
    """Runs all cases in one process; the error's text, or None, by name."""
    return run_in_oracle(SCRIPT, work, [asdict(case) for case in cases])


def merge_with_peft(work: Path, cases: Sequence[PeftCase]) -> dict[str, str | None]:
    """Makes and merges all adapters in one process; the error's text, or None, by name."""
    return run_in_oracle(PEFT_SCRIPT, work, [asdict(case) for case in cases])


def done_by_diffusers(work: Path, *cases: DiffusersCase) -> None:
    """Has diffusers do all cases in one process. Raises where one fails."""
    outcomes = run_in_oracle(DIFFUSERS_SCRIPT, work, [asdict(case) for case in cases])
    assert set(outcomes.values()) == {None}, outcomes


def run_in_oracle(
    script: Path, work: Path, cases: Sequence[dict[str, object]]
) -> dict[str, str | None]:
    """Runs a script of the oracle environment on cases; what it says of each."""
    if not PYTHON.exists():
        raise FileNotFoundError(
            f"{PYTHON} is not there: these tests compare with mergekit, which lives in an "
            "environment of its own; `make oracle` makes it"
        )
    asked, told = work / "cases.json", work / "outcomes.json"
    asked.write_text(json.dumps(cases, default=str), encoding="utf-8")
    result = _forked(script, asked, told)
    if result.returncode:
        raise RuntimeError(f"the oracle stopped: {result.stderr[-2000:]}")
    return json.loads(told.read_text(encoding="utf-8"))


def _forked(*command: object) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"HF_HUB_OFFLINE": "1"}
    return run_script(Template(str(PYTHON), IMPORTS), command, variables, HANG_SECONDS)
