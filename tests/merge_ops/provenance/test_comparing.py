"""Two checkpoints side by side: numbers by hand and by numpy, and everything beside the weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_ops.checkpoints import open_checkpoint
from merge_ops.provenance.comparing import CheckpointDifference, compare_checkpoints
from merge_ops.provenance.settings_difference import FIM, ROPE, SPECIAL, TEMPLATE, TIED, TOKENIZER
from merge_ops.stream import StreamSettings
from tests.models.checkpoint_factory import (
    LLAMA,
    SPECIAL_TOKENS,
    write_family,
    write_json,
    write_tokenizer,
)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("family")
    write_family(root, LLAMA)
    return root


def compare(a: Path, b: Path, base: Path | None = None) -> CheckpointDifference:
    first, second = open_checkpoint(str(a)), open_checkpoint(str(b))
    return compare_checkpoints(first, second, open_checkpoint(str(base)) if base else None)


def test_a_model_is_the_same_as_itself(family: Path):
    found = compare(family / "base", family / "base")
    assert found.same
    assert found.whole is not None
    assert found.whole.norm == 0.0
    assert all(each.cosine == 1.0 for each in found.tensors)


def test_norms_and_cosines_are_those_of_numpy(family: Path):
    found = compare(family / "expert-1", family / "expert-2", family / "base")
    base, a, b = (
        load_file(family / name / "model.safetensors") for name in ("base", "expert-1", "expert-2")
    )
    for each in found.tensors:
        ours, theirs = (
            (side[each.name] - base[each.name]).double().flatten().numpy() for side in (a, b)
        )
        assert each.norm_a == pytest.approx(np.linalg.norm(ours), rel=1e-6)
        assert each.norm == pytest.approx(np.linalg.norm(theirs - ours), rel=1e-5)
        cosine = ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)
        assert each.cosine == pytest.approx(cosine, abs=1e-6)
    layer = next(each for each in found.layers if each.layer == 1)
    names = [name for name in base if name.startswith("model.layers.1.")]
    ours, theirs = (torch.cat([(s[n] - base[n]).double().flatten() for n in names]) for s in (a, b))
    cosine = torch.nn.functional.cosine_similarity(ours, theirs, dim=0)
    assert layer.cosine == pytest.approx(float(cosine), abs=1e-6)


def test_numbers_depend_on_neither_threads_nor_blocks(family: Path):
    models = [open_checkpoint(str(family / name)) for name in ("base", "expert-1")]
    first, second = (
        compare_checkpoints(*models, settings=settings).to_json()
        for settings in (StreamSettings(3, "cpu", block=65_536), StreamSettings(1, "cpu"))
    )
    assert json.dumps(first) == json.dumps(second)


def test_what_one_has_alone_and_other_shapes_and_dtypes_are_told(family: Path, tmp_path: Path):
    folder = Path(shutil.copytree(family / "expert-1", tmp_path / "other"))
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.2.mlp.up_proj.weight"]
    tensors["model.norm.weight"] = tensors["model.norm.weight"].bfloat16()
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:260].clone()
    tensors["extra.weight"] = torch.full((2,), float("nan"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    found = compare(family / "expert-1", folder)
    assert found.only_in_a == ("model.layers.2.mlp.up_proj.weight",)
    assert found.only_in_b == ("extra.weight",)
    assert found.shapes == (("lm_head.weight", (264, 64), (260, 64)),)
    assert found.dtypes == (("model.norm.weight", "F32", "BF16"),)
    assert not found.same_tensors


def test_a_tensor_that_is_not_finite_is_named(family: Path, tmp_path: Path):
    folder = Path(shutil.copytree(family / "base", tmp_path / "broken"))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][3] = float("inf")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    found = compare(family / "base", folder)
    assert [each.name for each in found.tensors if not each.finite] == ["model.norm.weight"]
    json.dumps(found.to_json(), allow_nan=False)


def test_everything_beside_the_weights_is_told(family: Path, tmp_path: Path):
    folder = Path(shutil.copytree(family / "base", tmp_path / "spoken"))
    config = {**LLAMA.config(), "rope_theta": 1e6, "tie_word_embeddings": True, "eos_token_id": 258}
    write_json(folder / "config.json", config)
    write_tokenizer(folder, [*SPECIAL_TOKENS, "<|fim_prefix|>"], ["<think>"])
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    found = compare(family / "base", folder)
    assert found.same_tensors
    told = {each.topic for each in found.settings}
    assert told >= {ROPE, TIED, TOKENIZER, SPECIAL, FIM, TEMPLATE}
    fim = next(each for each in found.settings if each.topic == FIM)
    assert (fim.where, fim.a, fim.b) == ("<|fim_prefix|>", None, 259)
    rope = next(e for e in found.settings if e.topic == ROPE and e.where == "in effect")
    assert (rope.a["theta"], rope.b["theta"]) == (10000.0, 1e6)
