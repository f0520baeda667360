"""Steps of training runs: found in folders and on a hub, distributed ones pulled as safetensors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed import checkpoint

from assets.work.measuring import gating
from assets.work.measuring.gating import Measured
from assets.work.measuring.model_child import Base, Running
from assets.work.merging.mixture_numbers import numbers_of_mixture
from assets.work.upstream.entries import TrainingRun, UpstreamModel, run_and_step, step_name
from assets.work.upstream.pulling import open_models, pull_model
from assets.work.upstream.training_runs import (
    find_steps,
    pull_step,
    pulled_steps,
    step_revisions,
    study_window,
    with_all_run_steps,
)
from eval_ops.running.mixtures.gates import tokenizer_digest
from merge_ops.calibration.gates import gate_key
from merge_ops.errors import RecipeError
from merge_ops.plans import plan_merge
from merge_ops.recipes import Steps, check_recipe
from merge_ops.stream import StreamSettings
from resources.store import ArtifactStore
from tests.models.checkpoint_factory import LLAMA, base_tensors, expert_tensors, write_checkpoint
from tests.resources.hub_server import running_hub_of

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is")


def run_of(steps: str) -> Mapping[str, TrainingRun]:
    return {"pretrain": TrainingRun("pretrain", steps)}


def test_names_of_steps_are_read_back() -> None:
    assert step_name("a_b", 30) == "a_b@30"
    assert run_and_step("a_b@30") == ("a_b", 30)


def test_steps_of_a_folder_rise_by_number_and_unready_ones_wait(tmp_path: Path) -> None:
    for step in (900, 1000):
        write_checkpoint(tmp_path / "run" / f"checkpoint-{step}", base_tensors(LLAMA), LLAMA)
    (tmp_path / "run" / "checkpoint-1100").mkdir()
    (tmp_path / "run" / "logs").mkdir()
    for pattern in ("run", "run/checkpoint-{step}", f"{(tmp_path / 'run').as_uri()}"):
        found = find_steps(run_of(pattern), tmp_path)
        assert list(found.steps) == ["pretrain@900", "pretrain@1000"]
        assert list(found.unready) == ["pretrain@1100"]
    known = find_steps(run_of("run"), tmp_path, frozenset({"pretrain@1100"}))
    assert "pretrain@1100" in known.steps  # it was whole once: whoever pulls it says what it lacks
    assert "cannot be listed" in find_steps(run_of("gone"), tmp_path).faults["pretrain"]
    assert (
        "fits none of the names there"
        in find_steps(run_of("run/x-{step}"), tmp_path).faults["pretrain"]
    )


def test_revisions_of_a_hub_are_listed_by_one_request_and_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {}
    for step in (10, 20):
        folders[f"step{step}"] = tmp_path / f"{step}"
        tensors = expert_tensors(base_tensors(LLAMA), step)
        write_checkpoint(folders[f"step{step}"], tensors, LLAMA)
    models = {"owner/run": {"main": folders["step20"], **folders}}
    with running_hub_of(models) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        runs = run_of("hf://owner/run@step{step}")
        found = find_steps(runs, tmp_path)
        assert found.steps == {
            f"pretrain@{step}": f"hf://owner/run@step{step}" for step in (10, 20)
        }
        asked = [path for _, path, _ in hub.requests if path.startswith("/api/models")]
        assert asked == ["/api/models/owner/run/refs"]
        revisions, faults = step_revisions(runs, found, tmp_path)
        assert faults == {}
        commits = hub.commits["owner/run"]
        assert revisions == {f"pretrain@{step}": commits[f"step{step}"] for step in (10, 20)}


def test_a_distributed_step_is_pulled_as_safetensors(tmp_path: Path) -> None:
    run = tmp_path / "run"
    tensors = {name: each.to(torch.bfloat16) for name, each in base_tensors(LLAMA).items()}
    write_checkpoint(run, base_tensors(LLAMA), LLAMA)  # config and tokenizer, once for all steps
    (run / "model.safetensors").unlink()
    saved = run / "step_30"
    dcp: Any = checkpoint  # whose functions it does not say it exports
    dcp.save({"model": tensors}, storage_writer=dcp.FileSystemWriter(saved))
    runs, store = run_of("run"), ArtifactStore.open((tmp_path / "store").as_uri())
    found = find_steps(runs, tmp_path)
    revisions, faults = step_revisions(runs, found, tmp_path)
    assert faults == {}
    pulled = pull_step(store, runs, "pretrain@30", tmp_path)
    assert pulled.revision == revisions["pretrain@30"]
    assert pulled.tensors == len(tensors)
    assert "config.json" in pulled.artifact.files
    assert not any(name.endswith(".distcp") for name in pulled.artifact.files)
    assert pulled_steps(store, "pretrain") == {30: pulled.artifact.digest}
    assert pull_step(store, runs, "pretrain@30", tmp_path).memoized


def test_a_window_that_the_run_is_too_short_for_holds_up_no_other(tmp_path: Path) -> None:
    store = ArtifactStore.open((tmp_path / "store").as_uri())
    for step in (100, 200, 300):
        tensors = expert_tensors(base_tensors(LLAMA), step)
        write_checkpoint(tmp_path / "run" / f"checkpoint-{step}", tensors, LLAMA)
        pull_step(store, run_of("run"), f"pretrain@{step}", tmp_path)
    document = {"window": {"run": "pretrain"}, "sweep": {"last": [2, 40]}}
    recipe = check_recipe(document, "tail", "tail.yaml")
    short, long = recipe.coefficients()
    found = study_window(store, recipe, short, "tail/window", "last=2|pretrain")
    assert [each["step"] for each in found.rows] == [200, 300]
    assert study_window(store, recipe, short, "tail/window", "last=2|pretrain").memoized
    with pytest.raises(RecipeError, match="asks for the last 40, and the run has 3 step"):
        study_window(store, recipe, long, "tail/window", "last=40|pretrain")
    steps = with_all_run_steps(store, Steps((recipe,)), {"last=2"})
    assert steps.result.merged_models == ("pretrain@300", "pretrain@200")
    with pytest.raises(RecipeError, match="'other' has no step in the store yet"):
        with_all_run_steps(store, Steps((check_recipe(
            {"window": {"run": "other"}}, "tail", "tail.yaml"),)), ())  # fmt: skip


def test_gates_of_a_mixture_are_measured_once_for_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path / "base", base_tensors(LLAMA), LLAMA)
    store, base = ArtifactStore.open((tmp_path / "store").as_uri()), UpstreamModel("base", "base")
    pull_model(store, base, tmp_path)
    prompts = [{"source_model": "base", "positive_prompts": [text]} for text in ("a", "b")]
    document = {"base_model": "base", "experts": prompts, "seed": 1}
    document["experts"][0]["noise_scale"] = 0.1
    mixture = check_recipe(document, "mixture", "mixture.yaml")
    hidden = LLAMA.hidden
    measured: list[str] = []

    def measure(base: Base, asked: Sequence[Any], mode: str, running: Running) -> Measured:
        measured.append(mode)
        rows = np.arange(2 * hidden, dtype=np.float32).reshape(2, hidden)
        key = gate_key(base.digest, tokenizer_digest(base.folder), asked, mode)
        return Measured(dict.fromkeys(range(LLAMA.layers), rows), mode, key, False)

    monkeypatch.setattr(gating, "gates_of", measure)
    models = open_models(store, "base", [])
    first = numbers_of_mixture(store, StreamSettings(), mixture, models).gates
    again = numbers_of_mixture(store, StreamSettings(), mixture, models).gates
    assert measured == ["hidden"]
    assert first is not None
    assert again is not None
    for layer, rows in first.items():
        np.testing.assert_array_equal(rows, again[layer])
    assert mixture.writes_all  # a manifest says nothing of gates
    plan = plan_merge(mixture, models, gates=again)
    assert {step.output.name for step in plan.steps} > {
        "model.layers.0.block_sparse_moe.gate.weight"
    }
