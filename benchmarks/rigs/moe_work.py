"""Dense Llama-shaped checkpoints in bfloat16 that a mixture is made of, and a look at two results.

    python -m benchmarks.rigs.moe_work make FOLDER --size 0.4B --experts 4
    python -m benchmarks.rigs.moe_work compare MERGEKITS_FOLDER OURS

Shapes are those of benchmarks/rigs/shapes.py without biases: mergekit-moe makes a Mixtral of them
(of Qwen2 it makes nothing without a shared expert). mergekit writes its moe_experts fused, so they
are cut before they are compared.
"""

import json
from pathlib import Path

import torch
from safetensors import safe_open

from benchmarks.checkpoints import command_line, shape_of, tensor_files, write_model
from benchmarks.rigs.shapes import Shape

PARTS = ("w1", "w3", "w2")


def make(root: Path, shape: Shape, experts: int) -> None:
    """Writes root/base and root/expert-1 … unless they are there."""
    config = {
        **shape.config(),
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "rope_theta": 10000.0,
    }
    sizes = {name: size for name, size in shape.tensors().items() if not name.endswith(".bias")}
    for number in range(experts + 1):
        write_model(root, number, config, sizes)


def compare(theirs: Path, ours: Path) -> dict[str, object]:
    """How many tensors of ours are theirs bit for bit, and which are not."""
    fused, single = tensor_files(theirs), tensor_files(ours)
    apart: list[str] = []
    for name in sorted(single):
        with safe_open(single[name], "pt") as stream:
            own = stream.get_tensor(name)
        other = _theirs(fused, name)
        if other is None or not torch.equal(own, other):
            apart.append(name)
    return {"tensors": len(single), "apart": len(apart), "first": apart[:3]}


def _theirs(files: dict[str, Path], name: str) -> torch.Tensor | None:
    """The tensor that mergekit's file has under our name, cut out of its fused one."""
    if name in files:
        with safe_open(files[name], "pt") as stream:
            return stream.get_tensor(name)
    renamed = name.replace("block_sparse_moe", "mlp")
    if renamed in files:
        with safe_open(files[renamed], "pt") as stream:
            return stream.get_tensor(renamed)
    if ".experts." not in renamed:
        return None
    at, rest = renamed.split(".experts.")
    number, part, _ = rest.split(".")
    whole = f"{at}.experts.{'down_proj' if part == 'w2' else 'gate_up_proj'}"
    if whole not in files:
        return None
    with safe_open(files[whole], "pt") as stream:
        found = stream.get_slice(whole)[int(number)]
    half = found.shape[0] // 2
    return found if part == "w2" else found[:half] if part == "w1" else found[half:]


def main() -> None:
    """The command line."""
    parser, _ = command_line("Make dense checkpoints, or compare two mixtures.", 4)
    arguments = parser.parse_args()
    if arguments.command == "make":
        make(arguments.folder, shape_of(arguments), arguments.experts)
    else:
        print(json.dumps(compare(arguments.first, arguments.second)))


if __name__ == "__main__":
    main()
