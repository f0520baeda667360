"""PEFT loads averaged adapters, and merges them to the average of what it makes of each."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from merge_ops.checkpoints.files.byte_sources import FolderSink, FolderSource
from merge_ops.jobs.adapter_average import plan_average, write_average
from merge_ops.recipes.reading import parse_recipe
from merge_ops.sources.lora.adapters import read_adapter
from tests.models.checkpoint_factory import LLAMA, QWEN2, Tensors, read_tensors, write_family
from tests.oracle.peers.oracle_environment import PeftCase, merge_with_peft
from tests.oracle.test_adapters_against_peft import MERGED, USUAL, write_gpt2

WEIGHTS = (0.5, 0.8, 0.3)
# name: adapters of MERGED; with `~`, one with the same config and other values
AVERAGED = {
    "other-modules-and-ranks": ("all-linear", "rslora", "patterns"),
    "embedding": ("embedding", "~embedding"),
    "tied-embedding": ("tied-embedding", "~tied-embedding"),
    "whole-modules": ("whole-modules", "~whole-modules"),
    "tied-whole-embedding": ("tied-whole-embedding", "~tied-whole-embedding"),
    "tied-whole-embedding-and-head": (
        "tied-whole-embedding-and-head",
        "~tied-whole-embedding-and-head",
    ),
    "bias-all": ("bias-all", "~bias-all"),
    "bias-lora-only": ("bias-lora-only", "~bias-lora-only"),
    "lora-bias": ("lora-bias", "~lora-bias"),
    "conv1d": ("conv1d", "~conv1d"),
}
FACTOR_WISE = ("rslora", "patterns")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where PEFT merged every adapter, and every average of them, into its base."""
    work = tmp_path_factory.mktemp("averages")
    bases = {
        "llama": write_family(work / "llama", LLAMA, experts=0).base,
        "qwen2": write_family(work / "qwen2", QWEN2, experts=0).base,
        "gpt2": write_gpt2(work / "gpt2"),
    }
    names = {name for each in AVERAGED.values() for name in each}
    made = sorted(name for name in names if not name.startswith("~"))
    cases = [
        PeftCase(name, bases[MERGED[name][0]], work / "adapters" / name, work / "peft" / name,
                 {**USUAL, **MERGED[name][1]})
        for name in made
    ]  # fmt: skip
    assert set(merge_with_peft(work, cases).values()) == {None}
    cases = []
    for name in sorted(names - set(made)):
        turn(work / "adapters" / name[1:], work / "adapters" / name)
        base = bases[MERGED[name[1:]][0]]
        cases.append(PeftCase(name, base, work / "adapters" / name, work / "peft" / name))
    for name, adapters in {**AVERAGED, "factor-wise": FACTOR_WISE}.items():
        out = work / "averages" / name
        average([work / "adapters" / each for each in adapters], out, name == "factor-wise")
        base = bases[MERGED[adapters[0]][0]]
        cases.append(PeftCase(f"average-{name}", base, out, work / "peft" / f"average-{name}"))
    assert set(merge_with_peft(work, cases).values()) == {None}
    return work


def turn(adapter: Path, out: Path) -> None:
    """An adapter of the same shapes with other values."""
    tensors = {key: tensor.flip(-1).contiguous() for key, tensor in read_tensors(adapter).items()}
    out.mkdir()
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config = (adapter / "adapter_config.json").read_text(encoding="utf-8")
    (out / "adapter_config.json").write_text(config, encoding="utf-8")


def average(adapters: list[Path], out: Path, factor_wise: bool) -> None:
    models = [
        f"  - {{model: {each}, parameters: {{weight: {weight}}}}}"
        for each, weight in zip(adapters, WEIGHTS, strict=False)
    ]
    text = "\n".join(["merge_method: linear", "models:", *models])
    opened = [read_adapter(str(each), FolderSource(each)) for each in adapters]
    plan = plan_average(parse_recipe(text, "average", "average.yaml"), opened, factor_wise)
    write_average(plan, FolderSink(out))


@pytest.mark.parametrize("name", AVERAGED)
def test_peft_merges_an_average_to_the_average_of_its_merges(work: Path, name: str) -> None:
    weights = WEIGHTS[: len(AVERAGED[name])]
    models = [read_tensors(work / "peft" / each) for each in AVERAGED[name]]
    merged = read_tensors(work / "peft" / f"average-{name}")
    assert merged.keys() == models[0].keys()
    for tensor, found in merged.items():
        parts = zip(weights, models, strict=True)
        expected = sum(w * model[tensor].double() for w, model in parts) / sum(weights)
        torch.testing.assert_close(found.double(), expected, rtol=2e-6, atol=1e-6)


def test_peft_merges_averaged_factors(work: Path) -> None:
    """Of a q_proj that both adapters change: scale 16 / √8 and r = 8; alpha 1.5 and r = 8 or 2."""
    before = read_tensors(work / "llama" / "base")
    merged = read_tensors(work / "peft" / "average-factor-wise")
    one, other = (read_tensors(work / "adapters" / each) for each in FACTOR_WISE)
    first, second = (weight / sum(WEIGHTS[:2]) for weight in WEIGHTS[:2])
    for layer, rank in ((0, 8), (1, 2)):
        module = f"model.layers.{layer}.self_attn.q_proj"
        down, up = (f"base_model.model.{module}.lora_{each}.weight" for each in "AB")
        left, right = first * 16 / 8**0.5 * one[up], first * one[down]
        assert other[up].shape[1] == rank
        left[:, :rank] += second * 1.5 / rank * other[up]
        right[:rank] += second * other[down]
        expected = before[f"{module}.weight"] + left @ right
        torch.testing.assert_close(merged[f"{module}.weight"], expected, rtol=1e-5, atol=1e-6)


def test_the_adapters_of_a_set_differ(work: Path) -> None:
    """So that the comparisons above compare something."""
    for adapters in AVERAGED.values():
        models: list[Tensors] = [read_tensors(work / "peft" / each) for each in adapters]
        assert any(not torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())
