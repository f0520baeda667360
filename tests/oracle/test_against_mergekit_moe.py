"""mergekit-moe's files give here what mergekit-moe makes of them, tensor by tensor."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from merge_ops.checkpoints import FolderSink
from merge_ops.jobs.assembly import merge
from merge_ops.plans.plan import Plan
from merge_ops.plans.step_plans import plan_steps
from merge_ops.recipes import load_steps
from merge_ops.stream.stream import StreamSettings
from orchestration.commands.console import PlainConsole
from orchestration.commands.mixtures.measured_numbers import MeasuredNumbers
from orchestration.commands.models.local_models import open_models
from orchestration.settings import how_to_compute
from tests.merges.merging import ROOT
from tests.models.checkpoint_factory import read_tensors
from tests.models.dense_models import PROMPTS, unfused, write_dense_family
from tests.oracle.peers.oracle_environment import run_in_oracle

FAMILIES = {  # name: kind, with a shared expert, further keys
    "mixtral of llama": ("llama", None, {}),
    "mixtral of mistral": ("mistral", None, {"experts_per_token": 1}),
    "qwen2 of qwen2": ("qwen2", "prompts", {}),
    "qwen2 of llama": ("llama", "prompts", {"architecture": "qwen"}),
    "qwen3": ("qwen3", None, {"dtype": "bfloat16"}),
    "deepseek": ("llama", "no prompts", {"architecture": "deepseek"}),
}
MODES = ("hidden", "hidden_avg", "hidden_last", "cheap_embed", "random", "uniform_random")
CASES = {f"{family}, {mode}": (family, mode) for family in FAMILIES for mode in MODES}
LATE = ("hidden", "hidden_avg", "hidden_last")  # mergekit's run in bfloat16
COPIED = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache")


def document(root: Path, name: str) -> dict:
    family, mode = CASES[name]
    kind, shared, keys = FAMILIES[family]
    # one prompt an expert: mergekit counts pads in hidden_avg
    experts = [
        {"source_model": str(root / kind / str(n + 1)), "positive_prompts": [prompt]}
        for n, prompt in enumerate(PROMPTS[:3])
    ]
    if mode == "cheap_embed":
        experts[0]["positive_prompts"] = [PROMPTS[0], "a much longer prompt than the first one"]
        experts[1]["negative_prompts"] = [PROMPTS[3]]
        experts[2]["residual_scale"] = 0.5  # type: ignore[assignment]
    told = {"base_model": str(root / kind / "0"), "gate_mode": mode, "experts": experts, **keys}
    if shared:
        entry = {"source_model": str(root / kind / "1")}
        prompts = {"positive_prompts": ["everything"]} if shared == "prompts" else {}
        told["shared_experts"] = [{**entry, **prompts}]
    return told


def made(config: Path, out: Path) -> Plan:
    steps = load_steps(config)
    opened = open_models(str(config), steps.referenced_models)
    how = how_to_compute("ronghe merge")
    numbers = MeasuredNumbers(PlainConsole(stderr=True), steps, opened, how, out.parent)
    numbers.measure()
    plan = plan_steps(steps, opened, gates=numbers.gates).result
    merge(plan, {"default": FolderSink(out)}, StreamSettings(threads=2, device="cpu"))
    return plan


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str | None]]:
    root = tmp_path_factory.mktemp("moe")
    for kind in ("llama", "mistral", "qwen2", "qwen3"):
        write_dense_family(root / kind, kind, 3)
    cases: list[dict[str, object]] = []
    for name in CASES:
        config = root / f"{name}.yaml"
        config.write_text(yaml.safe_dump(document(root, name), allow_unicode=True))
        cases.append({"name": name, "config": config, "out": root / f"theirs-{name}"})
    script = ROOT / "tests/oracle/peers/run_mergekit_moe.py"
    return root, run_in_oracle(script, root, cases)


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Gates are measured anew: none are kept from before."""
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize("name", CASES)
def test_tensors_and_config_are_mergekits(folders, name):
    root, outcomes = folders
    assert outcomes[name] is None
    family, mode = CASES[name]
    kind = FAMILIES[family][0]
    plan = made(root / f"{name}.yaml", root / f"ours-{name}")
    ours, theirs = read_tensors(root / f"ours-{name}"), unfused(root / f"theirs-{name}")
    assert ours.keys() == theirs.keys()
    for tensor, value in theirs.items():
        gate = "gate.weight" in tensor
        if gate and mode in ("random", "uniform_random"):
            assert ours[tensor].shape == value.shape
        elif gate and mode in LATE:
            rows = torch.nn.functional.cosine_similarity(ours[tensor].float(), value.float(), dim=1)
            assert float(rows.min()) > 0.9995, tensor
        else:
            assert ours[tensor].dtype == value.dtype, tensor
            assert torch.equal(ours[tensor], value), tensor
    own = json.loads((root / f"ours-{name}" / "config.json").read_text())
    other = json.loads((root / f"theirs-{name}" / "config.json").read_text())
    assert own["model_type"] == other["model_type"] == plan.config["model_type"]
    for key in own.keys() & other.keys() - set(COPIED):
        if (kind, key) not in KEPT:
            assert own[key] == other[key], key


KEPT = {("mistral", "sliding_window")}
"""mergekit drops the window of a Mistral, which then reads longer texts otherwise."""
