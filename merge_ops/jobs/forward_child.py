"""What the child that runs models is asked of a checkpoint: does it load, and is a pass finite?"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from merge_ops.children.module_count import limited_modules

PROBE_TOKENS = 8


def answer(request: Mapping[str, Any], tell: Callable[[Any], None]) -> dict[str, Any]:
    """Load with transformers and, if it takes tokens, run one forward pass over a few."""
    folder = Path(request["folder"])
    config = folder / "config.json"
    described: dict[str, Any] = (
        json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    )
    with limited_modules(int(request["tensors"])):
        loaded_as, shape, problems = _load(folder, described)
    return {"loaded_as": loaded_as, "shape": list(shape), "problems": problems}


def _load(folder: Path, config: Mapping[str, Any]) -> tuple[str, tuple[int, ...], list[str]]:
    loader = _class_of(config)
    try:
        model, info = loader.from_pretrained(
            folder, output_loading_info=True, trust_remote_code=False, local_files_only=True
        )
    except MemoryError:
        raise
    except Exception as error:  # whatever a loader raises is the finding
        told = str(error).replace(str(folder), "the folder")
        return "", (), [f"transformers cannot load it: {type(error).__name__}: {told}"]
    problems = [
        f"transformers reports {what}: {', '.join(sorted(map(str, info[what]))[:5])}"
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if info.get(what)
    ]
    made = _forward(model)
    if made is None:
        return type(model).__name__, (), problems
    if not bool(made.isfinite().all()):
        problems.append("a forward pass gives NaN or infinity")
    return type(model).__name__, cast("tuple[int, ...]", tuple(made.shape)), problems


def _class_of(config: Mapping[str, Any]) -> Any:
    """The class of transformers that config.json names; where it knows none, causal models."""
    transformers: Any = import_module("transformers")
    named = cast("list[Any]", config.get("architectures") or [None])
    found = getattr(transformers, str(named[0]), None)
    known = isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)
    return found if known else transformers.AutoModelForCausalLM


def _forward(model: Any) -> Any:
    """What a few tokens give, or None of a model that wants something else, such as pictures."""
    import torch

    if model.main_input_name != "input_ids":
        return None
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    tokens = torch.arange(PROBE_TOKENS).remainder(vocabulary).unsqueeze(0)
    inputs = {"input_ids": tokens}
    if getattr(model.config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = tokens
    language = model.can_generate()
    try:
        with torch.inference_mode():
            made = model.eval()(**inputs)
    except Exception:
        if language:
            raise
        return None  # it takes more than tokens
    return getattr(made, "logits", made[0])
