"""PyTorch distributed checkpoints as models: read by their index, no model built, nothing run."""

import io
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.checkpoints.pickles.pickled_files import PickledFiles
from merge_ops.errors import CheckpointError
from tests.models.checkpoint_factory import LLAMA, base_tensors, write_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is")
Boxes = dict[str, list[tuple[tuple[int, ...], torch.Tensor]]]


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return {name: each.to(torch.bfloat16) for name, each in base_tensors(LLAMA).items()}


def with_config(folder: Path) -> Path:
    """A folder with config and tokenizer, and no weights."""
    write_checkpoint(folder, base_tensors(LLAMA), LLAMA)
    (folder / "model.safetensors").unlink()
    return folder


def saved(folder: Path, state: dict[str, Any]) -> Path:
    dcp.save(state, storage_writer=dcp.FileSystemWriter(folder))
    return folder


def cut(folder: Path, tensors: Boxes, shapes: dict[str, tuple[int, ...]]) -> Path:
    """What several ranks write, each its boxes: the files and the index of DCP, without ranks."""
    folder.mkdir(parents=True, exist_ok=True)
    entries: dict[str, Any] = {}
    storage: dict[Any, Any] = {}
    files: dict[str, bytes] = {}
    for key, boxes in tensors.items():
        chunks = []
        for rank, (offsets, values) in enumerate(boxes):
            name, data = f"__{rank}_0.distcp", io.BytesIO()
            torch.save(values.contiguous().clone(), data)
            at = len(files.get(name, b""))
            files[name] = files.get(name, b"") + data.getvalue()
            size = torch.Size(offsets)
            chunks.append(ChunkStorageMetadata(size, values.shape))
            info = _StorageInfo(name, at, len(data.getvalue()))
            storage[MetadataIndex(key, size)] = info
        dtype = boxes[0][1].dtype
        entries[key] = TensorStorageMetadata(
            TensorProperties(dtype=dtype), torch.Size(shapes[key]), chunks
        )
    for name, data in files.items():
        (folder / name).write_bytes(data)
    paths = {key: ("model", key.removeprefix("model.")) for key in tensors}
    (folder / ".metadata").write_bytes(pickle.dumps(Metadata(entries, paths, storage)))
    return folder


def opened(folder: Path) -> Checkpoint:
    return open_checkpoint(str(folder), PickledFiles(folder))


def written(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    files = PickledFiles(folder)
    files.fetch()
    return load_file(files.path / "model.safetensors")


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[n], wanted[n]) for n in wanted)


def test_what_dcp_saves_is_read_without_the_optimizer(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    state = {
        "model": dict(tensors),
        "optim": {"state": {name: {"exp_avg": torch.zeros(2, 2)}}, "param_groups": [{"lr": 0.1}]},
        "step": 7,
    }
    folder = saved(with_config(tmp_path / "run" / "step-7"), state)
    model = opened(folder)
    assert model.config["model_type"] == "llama"
    assert model.tensors.keys() == tensors.keys()
    assert same(written(folder), tensors)


def test_a_flat_state_dict_and_the_config_of_the_run(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    run = with_config(tmp_path / "run")
    folder = saved(run / "step-7", dict(tensors))
    assert opened(folder).config["model_type"] == "llama"
    assert same(written(folder), tensors)
    (run / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"without a config\.json; put config\.json and the"):
        opened(folder)


def test_what_accelerate_saves_beside_its_optimizer(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    folder = with_config(tmp_path / "checkpoint-5")
    saved(folder / "pytorch_model_fsdp_0", {"model": dict(tensors)})
    saved(folder / "optimizer_0", {"optimizer": {"state": {"a": {"exp_avg": torch.zeros(2)}}}})
    assert same(written(folder), tensors)


def test_tensors_cut_by_rows_by_columns_and_by_both_are_put_together(tmp_path: Path) -> None:
    whole = torch.arange(7 * 10, dtype=torch.float32).reshape(7, 10)
    cube = torch.arange(3 * 4 * 5).reshape(3, 4, 5)
    boxes: Boxes = {
        "model.rows": [((0, 0), whole[:3]), ((3, 0), whole[3:6]), ((6, 0), whole[6:])],
        "model.columns": [((0, 4), whole[:, 4:]), ((0, 0), whole[:, :4])],
        "model.both": [
            ((r, c), whole[r : r + h, c : c + w])
            for r, h in ((0, 4), (4, 3))
            for c, w in ((0, 7), (7, 3))
        ],
        "model.cube": [((0, 0, 0), cube[:, :2]), ((0, 2, 0), cube[:, 2:])],
        "model.scalar": [((), torch.tensor(3.5))],
        "model.empty": [((0, 0), torch.zeros(0, 4))],
    }
    wanted = {"rows": whole, "columns": whole, "both": whole, "cube": cube,
              "scalar": torch.tensor(3.5), "empty": torch.zeros(0, 4)}  # fmt: skip
    shapes = {f"model.{name}": tuple(each.shape) for name, each in wanted.items()}
    folder = with_config(tmp_path / "step-1")
    assert same(written(cut(folder, boxes, shapes)), wanted)


HALVES: Boxes = {"model.a": [((0, 0), torch.ones(2, 3)), ((2, 0), torch.ones(2, 3))]}


@pytest.mark.parametrize(
    ("boxes", "shape"),
    [
        ({"model.a": HALVES["model.a"][:1]}, (4, 3)),
        ({"model.a": [*HALVES["model.a"], ((3, 0), torch.ones(1, 3))]}, (4, 3)),
        ({"model.a": [HALVES["model.a"][0], ((1, 0), torch.ones(3, 3))]}, (4, 3)),
        ({"model.a": HALVES["model.a"]}, (5, 3)),
        ({"model.a": HALVES["model.a"]}, (3, 3)),
    ],
)
def test_pieces_with_gaps_or_overlaps_are_refused(
    tmp_path: Path, boxes: Boxes, shape: tuple[int, ...]
) -> None:
    folder = cut(with_config(tmp_path / "s"), boxes, {"model.a": shape})
    with pytest.raises(CheckpointError, match=r"the pieces of 'model\.a' do not make"):
        opened(folder)


def test_files_that_are_gone_cut_off_or_elsewhere_are_refused(tmp_path: Path) -> None:
    folder = cut(with_config(tmp_path / "s"), HALVES, {"model.a": (4, 3)})
    data = (folder / "__1_0.distcp").read_bytes()
    (folder / "__1_0.distcp").write_bytes(data[:-10])
    with pytest.raises(CheckpointError, match=r"__1_0\.distcp is cut off"):
        opened(folder)
    (folder / "__1_0.distcp").unlink()
    with pytest.raises(CheckpointError, match=r"__1_0\.distcp is not there"):
        opened(folder)
    index = (folder / ".metadata").read_bytes()
    (folder / ".metadata").write_bytes(index.replace(b"__1_0.distcp", b"../_0.distcp"))
    with pytest.raises(CheckpointError, match=r"which is no \.distcp file beside it"):
        opened(folder)


def test_an_index_that_would_run_something_is_refused(tmp_path: Path) -> None:
    folder = cut(with_config(tmp_path / "s"), HALVES, {"model.a": (4, 3)})

    class Attack:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "made"),)

    (folder / ".metadata").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(CheckpointError, match=r"nothing in them was run.*it wants to call"):
        opened(folder)
    assert not (tmp_path / "made").exists()


def test_two_tables_of_weights_are_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    state = {"model": dict(tensors), "state_dict": dict(tensors)}
    folder = saved(with_config(tmp_path / "s"), state)
    with pytest.raises(CheckpointError, match=r"no single table of a model's weights \(tables: mo"):
        opened(folder)
    shutil.rmtree(folder)
