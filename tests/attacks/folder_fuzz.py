"""Merging generated folders, as `ronghe merge` does it but in one process: a target for fuzzing.

Each case is planned, looked at by transformers in its child process, merged, and loaded. It may be
refused with an error of ours. What is merged must load, with no weight missing or random.
"""

import gc
import json
import os
import random
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from eval_ops.errors import EvalError
from merge_ops.checkpoints.files.byte_sources import FolderSink
from merge_ops.errors import RongheError
from merge_ops.jobs.assembly import merge
from merge_ops.jobs.verification import check_written
from merge_ops.kernels.library import library
from merge_ops.plans.agreement.expected_tensors import (
    Answer,
    LoadingChild,
    can_look,
    finding_of_plan,
)
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.steps import load_steps
from merge_ops.stream.stream import StreamSettings
from orchestration.commands.models.local_models import open_models
from resources.errors import ResourceError
from tests.models.folder_cases import write_case
from tests.models.folder_loading import asked
from tests.models.folder_models import KINDS, family

OURS = (RongheError, ResourceError, EvalError)
MOST_KEPT = 20_000  # answers of some hundred bytes
_ANSWERS: dict[str, Answer] = {}


@cache
def child() -> LoadingChild:
    """The one child process of this process; it ends with it."""
    return LoadingChild()


def prepare() -> None:
    """Import what the cases need and start the child, before any bound is set."""
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # four threads for each tiny model cost more
    import torch
    import transformers
    from transformers import GPT2LMHeadModel, LlamaForCausalLM, Qwen2ForCausalLM  # noqa: F401

    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    for kind in KINDS:
        config, shapes = family(kind)
        tensors = [[name, list(shape)] for name, shape in shapes.items()]
        assert child().ask({"config": config, "tensors": tensors})["state"] == "looked"
    library()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # or every collection looks at all modules again


def ask(request: Mapping[str, Any]) -> Answer:
    """What the child says of a config and shapes; where it was asked before, what it said."""
    key = json.dumps(request)
    answer = _ANSWERS.get(key) or child().ask(request)
    if answer["state"] != "unknown" and len(_ANSWERS) < MOST_KEPT:
        _ANSWERS[key] = answer
    return answer


def folders(rng: random.Random, folder: Path) -> None:
    """One case: written, planned, looked at, merged and loaded."""
    try:
        _case(rng, folder)
    except OURS:
        raise
    except BaseException:  # a child that was left in the middle of an answer
        child().close()
        child.cache_clear()
        raise


def _case(rng: random.Random, folder: Path) -> None:
    place = folder / "case"
    for path in sorted(place.rglob("*"), reverse=True):  # by whole paths, which the watch can read
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    place.mkdir(exist_ok=True)
    case = write_case(rng, place)
    recipe = load_steps(case.recipe).result
    plan = plan_merge(recipe, open_models(recipe.subject, recipe.referenced_models))
    if can_look(plan):
        finding_of_plan(plan, ask).raise_faults(recipe.subject)
    out = place / "out"
    merge(plan, {"default": FolderSink(out)}, StreamSettings(threads=1, device="cpu"))
    check_written(plan, out)
    wrong = asked(case, out)
    if wrong is not None:
        raise AssertionError(f"{case.method} of {list(case.rules)}: {wrong}")


TARGET = ("folders", folders)
