"""Merging from tests: by the library in this process, or by `ronghe` in a forked one."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from merge_ops.checkpoints.files.byte_sources import FolderSink
from merge_ops.jobs.assembly import merge
from merge_ops.plans.plan import Plan
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.steps import load_steps
from merge_ops.stream.stream import BlockStream, StreamSettings
from orchestration.commands.models.local_models import open_models
from tests.forks import run_forked

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = (sys.executable, "-c", "from orchestration.commands.cli import main; main()")


def merge_in_process(config: Path, out: Path, settings: StreamSettings | None = None) -> Path:
    """Merges a file without a sweep by the library, on the CPU; returns `out`."""
    recipe = load_steps(config).result
    settings = settings or StreamSettings(threads=2, device="cpu")
    opened = open_models(recipe.subject, recipe.referenced_models)
    merge(plan_merge(recipe, opened), {"default": FolderSink(out)}, settings)
    return out


def merged_in_memory(plan: Plan) -> dict[str, torch.Tensor]:
    """The tensors of a float32 plan without a sweep, merged by the stream, no file written."""
    found: dict[str, list[Any]] = {each.output.name: [] for each in plan.steps}
    names = list(found)
    settings = StreamSettings(threads=1, device="cpu")
    BlockStream(plan, settings).run(lambda at, blocks: found[names[at]].append(blocks[0].copy()))
    return {
        each.output.name: torch.from_numpy(
            np.concatenate(found[each.output.name]).view(np.float32)
        ).view(each.output.shape)
        for each in plan.steps
    }


def ronghe(
    *arguments: object,
    environment: Mapping[str, str] | None = None,
    folder: Path = ROOT,
    verify: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a forked process, in the project's folder or another.

    Without `verify` a merge does not ask transformers, which takes seconds to import.
    """
    if arguments[:1] == ("merge",) and not verify:
        arguments = (*arguments, "--no-verify")
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    return run_forked(list(map(str, arguments)), folder, variables)
