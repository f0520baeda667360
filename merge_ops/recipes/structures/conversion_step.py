"""`convert: llama`: the same function under another architecture's names, where that is exact.

    convert: mistral          models: [{model: ./llama-expert}]
    convert: glm              models: [{model: ./chatglm3-6b}]
    convert: one_by_one       models: [{model: ./fused-mixtral}]

It is a passthrough of one model whose tensors have other names and whose config is another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from merge_ops.errors import Fault, did_you_mean
from merge_ops.recipes.structures.one_model import one_model_faults

CONVERT = "convert"
ARCHITECTURES = ("llama", "mistral", "qwen2", "mixtral")
PACKED = ("internlm2", "glm", "chatglm")
"""Classes that pack queries, keys and values in one matrix, or (glm) are one of these unpacked."""
ONE_BY_ONE, FUSED = "one_by_one", "fused"
TARGETS = (*ARCHITECTURES, *PACKED, ONE_BY_ONE, FUSED)


def conversion_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what is wrong with `convert`, told from the document alone."""
    if CONVERT not in document:
        return
    target = document[CONVERT]
    if target not in TARGETS:
        hint = did_you_mean(str(target), TARGETS)
        yield Fault(CONVERT, f"is {target!r}; allowed: {', '.join(TARGETS)}.{hint}")
    yield from one_model_faults(document, CONVERT, "which needs a document of its own")
