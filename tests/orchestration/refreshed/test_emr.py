"""EMR's masks within reach: on the command line and in the catalog, back to one expert."""

from pathlib import Path

import dagster as dg
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from merge_ops.checkpoints.files.byte_sources import FolderSink, FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import MissingModelError, OutputError, SettingsError
from merge_ops.jobs.emr_masks import MASKS_FILE, open_masks, restore, write_masks
from merge_ops.jobs.task_vectors import BLOCK
from orchestration.commands.merging.emr_command import run_restoration
from orchestration.commands.merging.merge_command import MergeOptions, run_merge
from orchestration.refreshing.refresh import refresh
from resources.store.artifact_store import ArtifactStore
from tests.merges.merging import ronghe
from tests.models import checkpoint_factory as factory
from tests.orchestration.projects.tiny_project import make_project

OPTIONS = MergeOptions("1", "cpu", "512MiB", "5GB")


def write_raw(folder: Path, values: list[float]) -> None:
    folder.mkdir()
    save_file({"weight": torch.tensor(values, dtype=torch.float32)}, folder / "model.safetensors")


def test_a_worked_example_by_the_command_line(tmp_path: Path) -> None:
    """δ₁ = (2, −1, 0, 3), δ₂ = (1, −3, −2, −1): τ = (2, −3, −2, 3), scales 6/8 and 7/7."""
    write_raw(tmp_path / "base", [1, 1, 1, 1])
    write_raw(tmp_path / "e1", [3, 0, 1, 4])
    write_raw(tmp_path / "e2", [2, -2, -1, 0])
    (tmp_path / "emr.yaml").write_text(
        "merge_method: emr\nbase_model: base\nmodels: [{model: e1}, {model: e2}]\n"
    )
    done = ronghe("merge", "emr.yaml", "out", "--masks", "masks", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "scale of e1: 0.75\nscale of e2: 1\n" in done.stderr
    merged = load_file(tmp_path / "out" / "model.safetensors")["weight"]
    assert merged.tolist() == [3, -2, -1, 4]
    for expert, expected in (("e1", [2.5, -1.25, 1, 3.25]), ("e2", [3, -2, -1, 1])):
        done = ronghe(
            "restore-expert", expert, f"restored-{expert}",
            "--merged", "out", "--base", "base", "--masks", "masks", folder=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = load_file(tmp_path / f"restored-{expert}" / "model.safetensors")["weight"]
        assert found.tolist() == expected


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of base, expert-1, expert-2, emr.yaml, and `out` and `masks` made of them."""
    root = tmp_path_factory.mktemp("emr")
    family = factory.write_family(root, factory.BFLOAT16_LLAMA, experts=2)
    models = "".join(f"  - model: {each}\n" for each in family.experts)
    text = f"merge_method: emr\nbase_model: {family.base}\ndtype: float32\nmodels:\n{models}"
    (root / "emr.yaml").write_text(text)
    options = MergeOptions("1", "cpu", "512MiB", "5GB", masks=root / "masks")
    run_merge(root / "emr.yaml", root / "out", options)
    return root


def test_transformers_loads_what_is_restored_and_it_is_the_formula(
    merged: Path, tmp_path: Path
) -> None:
    where = (str(merged / "out"), str(merged / "base"), merged / "masks")
    run_restoration("expert-2", tmp_path / "two", *where)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "two", dtype=torch.float32)
    base, one, two = (
        {name: tensor.double() for name, tensor in factory.read_tensors(merged / each).items()}
        for each in ("base", "expert-1", "expert-2")
    )
    shared, size, kept = {}, 0.0, 0.0
    for name, origin in base.items():
        deltas = torch.stack([one[name] - origin, two[name] - origin])
        sign = torch.where(deltas.sum(0) >= 0, 1.0, -1.0).double()
        unified = sign * (deltas * sign).clamp(min=0).amax(0)
        shared[name] = unified * (deltas[1] * unified > 0)
        size += float(deltas[1].abs().sum())
        kept += float(shared[name].abs().sum())
    for name, tensor in model.state_dict().items():
        if name in base:
            expected = base[name] + size / kept * shared[name]
            assert (tensor.double() - expected).abs().max() <= 1e-6 * expected.abs().max(), name
    assert sum(name in base for name in model.state_dict()) == len(base)


class Watched:
    """A sink that keeps nothing but the size of the largest piece."""

    def __init__(self) -> None:
        self.largest = self.written = 0

    def open(self, file: str, size: int) -> "Watched":
        return self

    def __enter__(self) -> "Watched":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def write(self, data: bytes) -> int:
        self.largest = max(self.largest, len(data))
        self.written += len(data)
        return len(data)


def test_pieces_do_not_grow_with_the_tensor(tmp_path: Path) -> None:
    count, models = 3 * BLOCK + 5, []
    for name in ("base", "e1", "merged"):
        write_raw(tmp_path / name, [float(len(name))] * count)
        models.append(open_checkpoint(name, FolderSource(tmp_path / name)))
    base, expert, merged = models
    sink = Watched()
    write_masks(base, [expert], sink)
    assert sink.written > count / 8
    assert sink.largest <= BLOCK / 8 + 8
    write_masks(base, [expert], FolderSink(tmp_path / "masks"))
    sink = Watched()
    restore(base, merged, open_masks(FolderSource(tmp_path / "masks")), "e1", sink)
    assert sink.written > 4 * count
    assert sink.largest <= 4 * BLOCK


def test_masks_are_refused_where_there_are_none(merged: Path, tmp_path: Path) -> None:
    text = (merged / "emr.yaml").read_text()
    masks = MergeOptions("1", "cpu", "512MiB", "5GB", masks=tmp_path / "out" / "masks")
    for change, match in (
        (text.replace("emr", "magmax", 1), "--masks is for method emr .* merges by magmax"),
        (text + "parameters: {lambda: 0.5}\n", "--masks needs lambda 1 everywhere"),
        (text, "--masks is .*, in the output .*; name another folder"),
    ):
        (tmp_path / "study.yaml").write_text(change)
        with pytest.raises(SettingsError, match=match):
            run_merge(tmp_path / "study.yaml", tmp_path / "out", masks)
    full = MergeOptions("1", "cpu", "512MiB", "5GB", masks=merged)
    with pytest.raises(OutputError, match="exists and is not empty"):
        run_merge(merged / "emr.yaml", tmp_path / "out", full)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["home", "study.yaml"]


def test_an_expert_without_a_mask_leaves_nothing_behind(merged: Path, tmp_path: Path) -> None:
    where = (str(merged / "out"), str(merged / "base"), merged / "masks")
    with pytest.raises(MissingModelError, match=r"no mask of 'expert-3'"):
        run_restoration("expert-3", tmp_path / "three", *where)
    assert not (tmp_path / "three").exists()


def test_a_recipe_of_the_catalog_publishes_masks_beside_its_checkpoints(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    recipe = {"merge_method": "emr", "experts": "all", "sweep": {"lambda": [0.5, 1.0]}}
    project = make_project(tmp_path, {"emr": recipe}, experts=2)
    assert refresh(instance, project.settings()).failures == []
    store = ArtifactStore.open(project.store)
    artifact = store.resolve("emr/emr_masks", "e1+e2")
    assert artifact is not None
    assert list(artifact.files) == [MASKS_FILE]
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey(["emr", "merged_checkpoint"])), limit=2
    ).records
    for record in records:
        event = record.asset_materialization
        assert event is not None
        assert event.metadata["masks"].value == artifact.uri
        assert event.metadata["bytes of the masks"].value == artifact.nbytes
        scales = event.metadata["scales (for lambda 1)"].value
        assert [row.data["expert"] for row in scales.records] == ["e1", "e2"]
    shared = store.resolve("emr/merged_checkpoint", "lambda=1.0|e1+e2")
    base = store.resolve("model", "base")
    assert shared is not None
    assert base is not None
    below, merged = (open_checkpoint(each.digest, each.source()) for each in (base, shared))
    restore(below, merged, open_masks(artifact.source()), "e1", FolderSink(tmp_path / "one"))
    origin = factory.read_tensors(tmp_path / "upstream" / "base")
    tuned = factory.read_tensors(tmp_path / "upstream" / "e1")
    found = factory.read_tensors(tmp_path / "one")
    sizes = [
        sum(float((of[name] - origin[name]).double().abs().sum()) for name in origin)
        for of in (tuned, found)
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-6)  # what the scale is for
    assert refresh(instance, project.settings()).rerun == 0
