"""Tensors held whole: one at a time where memory is short, none that the machine cannot hold."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import SettingsError
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from merge_ops.stream.room import Room, bytes_to_hold, check_room, machine_memory
from merge_ops.stream.stream import BlockStream, StreamSettings
from tests.models import checkpoint_factory as factory


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    shape = factory.Shape("llama", layers=1, hidden=256, vocabulary=1024)
    family = factory.write_family(tmp_path_factory.mktemp("room"), shape, experts=2)
    text = f"merge_method: tsvm\nbase_model: {family.base}\nmodels:\n" + "".join(
        f"  - model: {folder}\n" for folder in family.experts
    )
    recipe = parse_recipe(text, "study", "study.yaml")
    opened = {n: open_checkpoint(n, FolderSource(Path(n))) for n in recipe.referenced_models}
    return plan_merge(recipe, opened)


@pytest.mark.parametrize(("wanted", "together"), [(4, 3), (6, 2), (7, 1), (100, 1)])
def test_as_many_at_a_time_as_there_is_room_for(wanted, together):
    room, lock, inside, most = Room(13), threading.Lock(), 0, 0
    barrier = threading.Barrier(together)

    def work(_):
        nonlocal inside, most
        with room.lend(wanted):
            with lock:
                inside += 1
                most = max(most, inside)
            barrier.wait(timeout=900)  # met only if so many are inside at once
            with lock:
                inside -= 1

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert most == together


def test_what_a_whole_tensor_takes(plan):
    embedding = next(each for each in plan.steps if "embed" in each.output.name)
    # 1024 × 256, base and 2 experts as stored (4) and in float32 (4), work (8), the result (4);
    # (2 + 2)² squares of 256 in float64
    assert bytes_to_hold(embedding) == 1024 * 256 * (3 * 8 + 8 + 4) + 16 * 256 * 256 * 8


def test_a_tensor_that_the_machine_cannot_hold_is_refused_before_any_work(plan):
    check_room(plan, machine_memory())
    with pytest.raises(
        SettingsError,
        match=r"memory of this machine is 0.0 GiB; tsvm holds a tensor whole, and '.*' \(1024 × 256"
        r"\) with 2 inputs and 1 coefficient\(s\) takes about 0.0 GiB: merge fewer experts",
    ):
        check_room(plan, 1 << 20)


@pytest.mark.parametrize("memory", [24 << 20, 512 << 20])
def test_whole_tensors_finish_with_little_memory(plan, memory):
    seen = []
    settings = StreamSettings(threads=4, memory=memory, device="cpu")
    BlockStream(plan, settings).run(
        lambda index, blocks: seen.append(index), lambda done, total: None
    )
    assert seen == sorted(seen)
    assert set(seen) == set(range(len(plan.steps)))
