"""`window:` in `ronghe merge` and `ronghe plan`: runs in folders, patterns and lists; its laws."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from merge_ops.checkpoints import FolderSink
from merge_ops.errors import CompatibilityError, RecipeError
from merge_ops.jobs.assembly import merge
from merge_ops.plans import Plan, plan_merge
from merge_ops.plans.plan_json import plan_json
from merge_ops.provenance.model_card import model_card
from merge_ops.recipes.structures.window_weights import schedule_weights
from merge_ops.stream import StreamSettings
from orchestration.commands.merging.plan_command import concrete_steps
from orchestration.commands.merging.plan_tables import window_lines
from orchestration.commands.models.local_models import open_models
from tests.merges.merging import ronghe
from tests.models.checkpoint_factory import (
    LLAMA,
    base_tensors,
    change_shape,
    expert_tensors,
    write_checkpoint,
    write_json,
    write_tokenizer,
)

STEPS: tuple[int, ...] = (1000, 2000, 3000, 10000)
NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as the trainer of transformers leaves it: checkpoint-N, and logs beside them."""
    folder = tmp_path_factory.mktemp("training") / "run"
    tensors = base_tensors(LLAMA)
    for seed, step in enumerate(STEPS):
        tensors = expert_tensors(tensors, seed, 1e-2)
        half = {name: value.to(torch.bfloat16) for name, value in tensors.items()}
        made = write_checkpoint(folder / f"checkpoint-{step}", half, LLAMA)
        write_tokenizer(made)
        write_json(made / "trainer_state.json", {"global_step": step})
        (made / "optimizer.pt").write_bytes(b"not a model")
    (folder / "runs").mkdir()
    return folder


def planned(tmp_path: Path, text: str) -> Plan:
    config = tmp_path / "r.yaml"
    config.write_text(text)
    recipe = concrete_steps(config).result
    return plan_merge(recipe, open_models("r", recipe.referenced_models))


def merged(tmp_path: Path, text: str) -> Mapping[str, Mapping[str, torch.Tensor]]:
    plan = planned(tmp_path, text)
    sinks = {each.id: FolderSink(tmp_path / "out" / each.id) for each in plan.coefficients}
    merge(plan, sinks, StreamSettings(threads=2, device="cpu"))
    return {key: load_file(tmp_path / "out" / key / "model.safetensors") for key in sinks}


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def stored(run: Path, step: int) -> Mapping[str, torch.Tensor]:
    return load_file(run / f"checkpoint-{step}" / "model.safetensors")


def average(run: Path, shares: Mapping[int, float], name: str = NAME) -> torch.Tensor:
    """The sum in float32, newest first, rounded once."""
    total = np.float32(0)
    for step in sorted(shares, reverse=True):
        total = total + np.float32(shares[step]) * stored(run, step)[name].float().numpy()
    return torch.from_numpy(total).to(torch.bfloat16)


def test_a_window_follows_the_numbers_of_the_steps(run: Path, tmp_path: Path) -> None:
    text = f"window: {{run: {run}, last: 3, weights: one_minus_sqrt}}\n"
    plan = planned(tmp_path, text)
    assert [each.name for each in plan.inputs] == [
        f"{run}/checkpoint-{step}"
        for step in (10000, 3000, 2000)  # numbers, not texts, decide
    ]
    assert plan.base.name == f"{run}/checkpoint-10000"  # config and tokenizer are the newest's
    shares = dict(zip(STEPS[1:], schedule_weights("one_minus_sqrt", STEPS[1:]), strict=True))
    rows = plan_json(plan)["windows"]["default"]
    assert {row["step"]: row["weight"] for row in rows} == shares
    (line,) = window_lines(plan)
    assert line.startswith("window default (unevenly spaced): step 2000 × 0.288")
    assert torch.equal(merged(tmp_path, text)["default"][NAME], average(run, shares))


def test_a_window_of_one_is_the_step_bit_for_bit(run: Path, tmp_path: Path) -> None:
    merged(tmp_path, f"window: {{run: {run}, last: 1, weights: cosine}}\n")
    out = tmp_path / "out" / "default"
    assert weights(out) == weights(run / "checkpoint-10000")
    assert (out / "tokenizer.json").read_bytes() == (
        run / "checkpoint-10000" / "tokenizer.json"
    ).read_bytes()
    assert not (out / "optimizer.pt").exists()
    assert not (out / "trainer_state.json").exists()


def test_several_windows_come_from_one_read(run: Path, tmp_path: Path) -> None:
    text = f"window: {{run: {run}}}\nsweep: {{last: [1, 2, 4], weights: [uniform, cosine]}}\n"
    plan = planned(tmp_path, text)
    assert plan.bytes_read == sum(model.nbytes for model in plan.inputs)  # each step once
    assert len(plan.inputs) == 4
    assert [each.id for each in plan.coefficients][:2] == [
        "last=1_weights=uniform", "last=1_weights=cosine",
    ]  # fmt: skip
    found = merged(tmp_path, text)
    assert torch.equal(found["last=1_weights=cosine"][NAME], stored(run, 10000)[NAME])
    alone = tmp_path / "alone"
    alone.mkdir()
    for last in (2, 4):
        single = merged(alone, f"window: {{run: {run}, last: {last}, weights: cosine}}\n")
        swept = found[f"last={last}_weights=cosine"]
        assert all(torch.equal(single["default"][name], swept[name]) for name in swept)
    digests = {each.digest for each in plan.outputs}
    assert digests == {None}  # models of commands are hashed later


def test_the_order_in_which_steps_and_their_weights_are_written_changes_no_bit(
    run: Path, tmp_path: Path
) -> None:
    one = f"window: {{run: {run}, steps: [1000, 3000, 10000], weights: [0.5, 0.2, 0.3]}}\n"
    merged(tmp_path, one)
    first = weights(tmp_path / "out" / "default")
    references = [f"{run}/checkpoint-{step}" for step in (10000, 1000, 3000)]
    mapping = "{" + ", ".join(f"{each.rpartition('-')[2]}: {each}" for each in references) + "}"
    for other in (
        f"window: {{run: {run}, steps: [10000, 1000, 3000], weights: [0.3, 0.5, 0.2]}}\n",
        f"window: {{run: {references}, weights: [0.3, 0.5, 0.2]}}\n",
        f"window: {{run: {mapping}, weights: [0.3, 0.5, 0.2]}}\n",
        f"window: {{run: '{run}/checkpoint-{{step}}', steps: [3000, 10000, 1000],"
        " weights: [0.2, 0.3, 0.5]}\n",
    ):
        shutil.rmtree(tmp_path / "out")
        merged(tmp_path, other)
        assert weights(tmp_path / "out" / "default") == first, other


def test_ema_of_beta_zero_is_the_newest_step(run: Path, tmp_path: Path) -> None:
    found = merged(tmp_path, f"window: {{run: {run}, weights: ema, beta: 0}}\n")["default"]
    newest = stored(run, 10000)
    assert all(torch.equal(found[name], newest[name]) for name in newest)


def test_every_counts_numbers_and_a_document_may_use_the_average(run: Path, tmp_path: Path) -> None:
    plan = planned(tmp_path, f"window: {{run: {run}, every: 2000}}\n")
    assert [each.name.rpartition("-")[2] for each in plan.inputs] == ["10000", "2000"]
    (tmp_path / "two.yaml").write_text(
        f"name: tail\nwindow: {{run: {run}, last: 2}}\n---\nmerge_method: task_arithmetic\n"
        f"base_model: {run}/checkpoint-1000\nmodels: [{{model: tail, parameters: {{weight: 1}}}}]\n"
    )
    steps = concrete_steps(tmp_path / "two.yaml")
    assert steps.earlier[0].window is not None
    assert f"{run}/checkpoint-3000" in steps.referenced_models


def test_the_card_says_the_average_as_mergekit_would(run: Path, tmp_path: Path) -> None:
    plan = planned(tmp_path, f"window: {{run: {run}}}\nsweep: {{last: [2, 4]}}\n")
    card = model_card(plan, plan.outputs[0])
    assert "weight: 0.5" in card
    said = card.partition("```yaml")[2].partition("```")[0]
    assert "checkpoint-3000" in said
    assert "checkpoint-2000" not in said  # of the longer window
    assert "window" not in said


REFUSED = {
    "run: RUN, weights: [0.5, 0.4], last: 2": r"window.weights sum to 0.9, and an average's",
    "run: RUN, weights: [0.5, 0.5], last: 3": "has 2 numbers, and the window 3 steps",
    "run: RUN, weights: [0.5, 0.5]": r"has 2 weights for 4 steps \(1000, 2000, 3000, 10000\)",
    "run: RUN, last: 5": r"asks for the last 5, and the run has 4 step\(s\) \(1000, 2000",
    "run: RUN, steps: [1000, 1500]": "window lacks step 1500; the run has 1000, 2000, 3000, 10000",
    "run: RUN, steps: [1000, 1000]": "names step 1000 twice",
    "run: RUN, steps: [1000], last: 1": "steps cannot stand beside `last`",
    "run: RUN, weights: ema": "beta is missing; ema needs one",
    "run: RUN, beta: 0.5": "beta has no effect",
    "run: RUN, weights: ema, beta: 1": "at least 0 and below 1",
    "run: RUN, weights: cosin": "Did you mean 'cosine'",
    "run: RUN, lst: 3": "is no key of a window.*Did you mean 'last'",
    "run: RUN/runs": "has no sub-folder named as a step",
    "run: RUN-none": "there is no folder",
    "run: 'RUN/step{step}'": "fits none of the names there",
    "run: 'owner/name@step{step}'": "name them as `steps`",
    "run: [RUN/checkpoint-1000, RUN/checkpoint-1000]": "twice; it would count twice",
    "run: {1: RUN/checkpoint-1000, 2: RUN/checkpoint-1000}": "twice; it would count twice",
    "run: {10: RUN/checkpoint-1000, 0xa: RUN/checkpoint-2000}": "run.0xa is given twice",
    "run: [RUN/runs]": "does not end in a step",
    "last: 2": "run must name a folder of steps",
}


@pytest.mark.parametrize("window", REFUSED)
def test_what_a_window_cannot_mean_is_refused(window: str, run: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=REFUSED[window]):
        planned(tmp_path, f"window: {{{window.replace('RUN', str(run))}}}\n")


BESIDE = {
    "merge_method: ties": "a window is an average",
    "models: [{model: a}]": "has no place beside `window`",
    "sweep: {last: [2, 2]}": "names a value twice",
    "sweep: {lasts: [2]}": "Did you mean 'last'",
    "sweep: {weights: [ema]}": "beta is missing",
    "sweep: {last: [0]}": "must be a whole number from 1 on",
}


@pytest.mark.parametrize("beside", BESIDE)
def test_what_stands_beside_a_window_and_cannot(beside: str, run: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=BESIDE[beside]):
        planned(tmp_path, f"window: {{run: {run}}}\n{beside}\n")


def test_steps_that_are_half_written_or_stand_twice(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    half = copy / "checkpoint-11000"
    shutil.copytree(copy / "checkpoint-10000", half)
    data = weights(half)
    (half / "model.safetensors").write_bytes(data[: len(data) // 2])
    (copy / "checkpoint-12000").mkdir()
    with pytest.raises(RecipeError, match=r"step 11000 .* has no whole weights(.|\n)*step 12000"):
        planned(tmp_path, f"window: {{run: {copy}, last: 3}}\n")
    text = f"window: {{run: {copy}, last: 2, unfinished: leave_out}}\n"
    assert [each.name.rpartition("-")[2] for each in planned(tmp_path, text).inputs] == [
        "10000", "3000",
    ]  # fmt: skip
    with pytest.raises(RecipeError, match="left out, for they have no whole weights: 11000, 12000"):
        planned(tmp_path, text.replace("last: 2", "steps: [3000, 11000]"))
    shutil.copytree(copy / "checkpoint-1000", copy / "checkpoint-01000")
    with pytest.raises(RecipeError, match="has step 1000 twice, 'checkpoint-01000' and"):
        planned(tmp_path, text)
    (copy / "checkpoint-01000").rename(copy / "iter_0000500")
    with pytest.raises(RecipeError, match="names steps in two ways"):
        planned(tmp_path, text)


@pytest.mark.filterwarnings("ignore:torch.distributed is")
def test_distributed_checkpoints_are_steps_of_a_run(run: Path, tmp_path: Path) -> None:
    from torch.distributed import checkpoint as dcp

    folder = tmp_path / "run"
    for step in (1000, 2000):
        writer = dcp.FileSystemWriter(folder / f"step-{step}")
        dcp.save({"model": dict(stored(run, step))}, storage_writer=writer)
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(run / "checkpoint-1000" / name, folder / name)
    (tmp_path / "r.yaml").write_text(f"window: {{run: {folder}, weights: one_minus_sqrt}}\n")
    done = ronghe("merge", "r.yaml", tmp_path / "merged", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    shares = dict(zip((1000, 2000), schedule_weights("one_minus_sqrt", (1000, 2000)), strict=True))
    found = load_file(tmp_path / "merged" / "model.safetensors")
    assert torch.equal(found[NAME], average(run, shares))
    assert (tmp_path / "merged" / "tokenizer.json").exists()


def test_steps_of_other_shapes_are_refused_as_ever(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    change_shape(copy / "checkpoint-3000")
    with pytest.raises(CompatibilityError, match="checkpoint-3000"):
        planned(tmp_path, f"window: {{run: {copy}}}\n")
