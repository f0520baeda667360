"""The model that the child which runs models is asked of: its folder, its device and the limits."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval_ops.running.foreign_work import limit_tokenizers
from eval_ops.running.pinning import set_threads


@dataclass(frozen=True)
class AskedModel:
    """An asked model lies in `folder` and runs on `device`.

    `told` is called with the steps done, and how many there are.
    """

    folder: Path
    device: str
    told: Callable[[int, int], None]


def asked_model(request: Mapping[str, Any], tell: Callable[[Any], None]) -> AskedModel:
    """Set the limits of a request for this process, from here on, and return the model.

    The request is what `assets/work` asks (`ask_model`): `tokenizer_seconds` are CPU time of a
    tokenizer on one text, `threads` those of torch.
    """
    limit_tokenizers(int(request["tokenizer_seconds"]))
    set_threads(int(request["threads"]))
    return AskedModel(
        Path(request["folder"]),
        str(request["device"]),
        lambda done, whole: tell([done, whole]),
    )
