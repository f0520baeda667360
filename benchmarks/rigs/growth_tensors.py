"""Models of many tiny tensors, for the rows of benchmarks/growth.py: `FOLDER COUNT`.

As growth_work.py, it runs in a process of its own and imports nothing of a checkout.
"""

import json
import sys
from pathlib import Path


def prepare_tensors(folder: Path, count: int) -> None:
    """A base and two experts of so many tiny tensors, in the names of a mixture of experts."""
    import numpy as np
    from safetensors.numpy import save_file

    names = tensor_names(count)
    for number, name in enumerate(("base", "expert-1", "expert-2")):
        model = folder / name
        model.mkdir(parents=True, exist_ok=True)
        draw = np.random.default_rng(number)
        values = draw.normal(0, 0.02, (len(names), 8)).astype(np.float32)
        tensors = {each: values[at].reshape(2, 4) for at, each in enumerate(names)}
        save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
        (model / "config.json").write_text(json.dumps(config_of(count)), encoding="utf-8")
    listed = "".join(
        f"  - {{model: {folder / name}, parameters: {{weight: 0.5}}}}\n"
        for name in ("expert-1", "expert-2")
    )
    (folder / "recipe.yaml").write_text(
        f"merge_method: task_arithmetic\nbase_model: {folder / 'base'}\nmodels:\n{listed}"
        "dtype: float32\n",
        encoding="utf-8",
    )


def tensor_names(count: int) -> list[str]:
    """Names as a mixture of experts has them: three a moe_expert, 64 of them a layer."""
    names = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    layer = 0
    while len(names) < count:
        at = f"model.layers.{layer}"
        names += [
            f"{at}.mlp.experts.{expert}.{part}_proj.weight"
            for expert in range(64)
            for part in ("gate", "up", "down")
        ]
        names += [f"{at}.self_attn.{part}_proj.weight" for part in "qkvo"]
        layer += 1
    return names


def config_of(count: int) -> dict[str, object]:
    """A config that says how many layers there are, and nothing that a class would build from."""
    return {"model_type": "many_tensors", "num_hidden_layers": -(-(count - 3) // 196)}


if __name__ == "__main__":
    prepare_tensors(Path(sys.argv[1]), int(sys.argv[2]))
