"""Orders of moe_experts are found once, for a machine or a store, and never taken for others."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from assets.work.measuring.kept_orders import with_kept_orders
from assets.work.merging.memory_merging import MergingMemory
from assets.work.merging.merging import MergeJob, merge_set
from assets.work.merging.virtual_checkpoints import materialize, plan_of
from assets.work.upstream.entries import UpstreamModel
from assets.work.upstream.pulling import pull_model
from merge_ops.arrangement.mixtures.aligned_experts import ExpertAligner
from merge_ops.calibration.moe_orders import read_orders, write_orders
from merge_ops.checkpoints import FolderSink
from merge_ops.errors import CheckpointError, MissingModelError, StatisticsError
from merge_ops.jobs.assembly import merge
from merge_ops.plans.plan import Plan
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes import Steps, check_recipe
from merge_ops.stream import StreamSettings
from orchestration.commands.models.input_digests import prove_models
from orchestration.commands.models.local_models import open_models
from resources.store import ArtifactStore
from tests.merges.merging import ronghe
from tests.models.checkpoint_factory import write_tokenizer
from tests.models.moe_models import new_model
from tests.models.shuffled_moe import shuffled

ON_CPU = StreamSettings(threads=1, device="cpu")
SHAPES = {"a.": (3, 4), "b.": (3, 4)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture, and the same with moe_experts and neurons in another order."""
    root = tmp_path_factory.mktemp("mixtures")
    new_model("qwen3_moe", 0).save_pretrained(root / "base")
    write_tokenizer(root / "base")
    shuffled(root / "base", root / "other", neurons=True)
    return root


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[ExpertAligner]:
    """The aligners that looked for an order."""
    found: list[ExpertAligner] = []
    look = ExpertAligner._find

    def counted(aligner: ExpertAligner, fetch):
        found.append(aligner)
        return look(aligner, fetch)

    monkeypatch.setattr(ExpertAligner, "_find", counted)
    return found


def planned(models: Path) -> Plan:
    written = {
        "align": "base",
        "base_model": str(models / "base"),
        "models": [{"model": str(models / "other")}],
    }
    recipe = check_recipe(written, "ordered", "ordered.yaml")
    opened = open_models(recipe.subject, recipe.referenced_models)
    return plan_merge(recipe, opened).with_digests(prove_models(opened.values()))


def is_the_base(folder: Path, models: Path) -> bool:
    made = load_file(folder / "model.safetensors")
    wanted = load_file(models / "base" / "model.safetensors")
    return all(torch.equal(made[name], each) for name, each in wanted.items())


def test_a_second_merge_does_not_look_again(models: Path, tmp_path: Path, searches) -> None:
    cache = tmp_path / "kept"
    for number in range(2):
        plan, out = planned(models), tmp_path / str(number)
        with with_kept_orders(plan, cache=cache):
            merge(plan, {"default": FolderSink(out)}, ON_CPU)
        assert is_the_base(out, models)
        assert len(searches) == 1
    (kept,) = cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:-4])
    plan = planned(models)
    with with_kept_orders(plan, cache=cache):  # what is damaged is found again
        merge(plan, {"default": FolderSink(tmp_path / "again")}, ON_CPU)
    assert is_the_base(tmp_path / "again", models)
    assert len(searches) == 2


def test_the_command_keeps_them_in_the_home_folder(models: Path, tmp_path: Path) -> None:
    text = f"align: base\nbase_model: {models / 'base'}\nmodels: [{{model: {models / 'other'}}}]\n"
    (tmp_path / "r.yaml").write_text(text)
    done = ronghe(
        "merge", tmp_path / "r.yaml", tmp_path / "out", environment={"HOME": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    (kept,) = (tmp_path / ".cache" / "ronghe" / "moe_orders").iterdir()
    plan = planned(models)
    assert plan.aligner is not None
    assert kept.stem == plan.aligner.key(plan.digest_of)


def test_a_store_keeps_them_for_written_and_for_live_candidates(
    models: Path, tmp_path: Path, store: ArtifactStore, searches
) -> None:
    for name in ("base", "other"):
        pull_model(store, UpstreamModel(name, str(models / name)), tmp_path)
    written = {"align": "base", "base_model": "base", "models": [{"model": "other"}]}
    steps = Steps((check_recipe({**written, "keep": "none"}, "ordered", "ordered.yaml"),))
    job = MergeJob(steps, "base", "", {"default": None})
    made = merge_set(store, job, ON_CPU).checkpoints[0].artifact
    assert made.virtual
    memory = MergingMemory(store, ON_CPU)
    folder = memory.folder_of(plan_of(store, made, ON_CPU), "default", ())
    assert is_the_base(folder.path, models)
    memory.close()
    assert len(searches) == 1
    assert is_the_base(materialize(store, made, ON_CPU).folder(), models)
    assert len(searches) == 1


def drawn() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    draw = np.random.default_rng(0)
    as_they_are = np.stack([np.arange(4)] * 3)
    return {
        "a.": (draw.permutation(3), np.stack([draw.permutation(4) for _ in range(3)])),
        "b.": (draw.permutation(3), as_they_are),
    }


def test_a_file_has_what_was_written(tmp_path: Path) -> None:
    path, orders = tmp_path / "kept.safetensors", drawn()
    write_orders(path, orders, "key")
    found = read_orders(path, "key", SHAPES)
    assert list(found) == list(orders)
    for at, each in orders.items():
        assert all(np.array_equal(a, b) for a, b in zip(found[at], each, strict=True))
    with pytest.raises(MissingModelError):
        read_orders(tmp_path / "none", "key", SHAPES)


@pytest.mark.parametrize(
    ("key", "shapes", "told"),
    [
        ("other", SHAPES, "metadata.key is 'key'; it must be 'other'"),
        ("key", {"a.": (3, 4)}, "other layers than the mixture"),
        ("key", {"a.": (3, 5), "b.": (3, 5)}, "other layers than the mixture"),
    ],
)
def test_orders_of_others_are_not_taken(tmp_path: Path, key: str, shapes, told: str) -> None:
    write_orders(tmp_path / "kept", drawn(), "key")
    with pytest.raises(StatisticsError, match=told):
        read_orders(tmp_path / "kept", key, shapes)


def test_what_is_no_order_or_is_damaged_is_not_taken(tmp_path: Path) -> None:
    path, orders = tmp_path / "kept", drawn()
    orders["b."] = np.array([0, 0, 1]), orders["b."][1]
    write_orders(path, orders, "key")
    with pytest.raises(StatisticsError, match=r"layers\.1\.experts is no order: each place"):
        read_orders(path, "key", SHAPES)
    orders["b."] = np.array([0, 2, 1]), orders["b."][1]
    write_orders(path, orders, "key")
    whole = path.read_bytes()
    for first, second in ((b"\0\0\0\0\2\0\0\0\1", b"\0\0\0\0\1\0\0\0\2"),):
        assert first in whole
        path.write_bytes(whole.replace(first, second))
    with pytest.raises(CheckpointError, match="its numbers are not those that were written"):
        read_orders(path, "key", SHAPES)
