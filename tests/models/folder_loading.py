"""What transformers says of a merged folder: it loads, and holds what it should."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from tests.models.folder_cases import Case
from tests.models.folder_models import Tensors

Loaded = tuple[Tensors | None, str]
MOST_KEPT = 2000  # of some 20 KB
_KEPT: dict[bytes, Loaded] = {}


def asked(case: Case, out: Path) -> str | None:
    """What is wrong with a merge that was done, asked of transformers; None where nothing is.

    The output must load with no weight missing or drawn at random; it may fail to load where its
    base fails too, which nobody takes for a model. Where it is a mean of two models that load
    soundly themselves, each parameter must be the mean of theirs.
    """
    merged, problem = _loaded(out)
    if merged is None:
        never = "missing_keys" not in problem and _loaded(case.models[0])[0] is None
        return None if never else f"the output does not load: {problem}"
    if case.method != "linear":
        return None
    parts = [_loaded(folder)[0] for folder in case.models[:2]]
    if parts[0] is None or parts[1] is None:
        return None
    for name, value in merged.items():
        both = [part.get(name) for part in parts]
        if both[0] is None or both[1] is None or both[0].shape != value.shape:
            return f"'{name}' is not in both inputs as transformers loads them"
        mean = (both[0].double() + both[1].double()) / 2
        if not torch.allclose(value.double(), mean, rtol=1e-2, atol=1e-3):
            return f"'{name}' is not the mean of what transformers loads"
    return None


def _loaded(folder: Path) -> Loaded:
    """The parameters of a folder as transformers loads it; None and why where it does not.

    A folder with the same files was loaded before: models that no rule changed are most of them.
    """
    digest = hashlib.blake2b()
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        name, content = str(file.relative_to(folder)).encode(), file.read_bytes()
        digest.update(b"%d %d %s" % (len(name), len(content), name))
        digest.update(content)
    key = digest.digest()
    if key not in _KEPT:
        while len(_KEPT) >= MOST_KEPT:
            del _KEPT[next(iter(_KEPT))]
        _KEPT[key] = _load(folder)
    return _KEPT[key]


@contextmanager
def _drawn_only_where_real() -> Iterator[None]:
    """Skips the random start of a model that is built without memory: a third of its loading."""
    with ExitStack() as patched:
        for name in ("normal_", "uniform_", "kaiming_uniform_"):
            drawn = _unless_meta(getattr(torch.nn.init, name))
            patched.enter_context(mock.patch.object(torch.nn.init, name, drawn))
        yield


@cache
def _unless_meta(draw: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def drawn(tensor: torch.Tensor, *settings: Any, **named: Any) -> torch.Tensor:
        return tensor if tensor.is_meta else draw(tensor, *settings, **named)

    return drawn


def _load(folder: Path) -> Loaded:
    import transformers

    name = (json.loads((folder / "config.json").read_text()).get("architectures") or [None])[0]
    loader: Any = getattr(transformers, str(name), transformers.AutoModelForCausalLM)
    try:
        with _drawn_only_where_real():
            model, said = loader.from_pretrained(
                folder, output_loading_info=True, local_files_only=True, dtype=torch.float32
            )
    except Exception as error:  # whatever a loader raises is the finding
        return None, f"{type(error).__name__}: {str(error)[:300]}"
    for what in ("missing_keys", "mismatched_keys"):
        if said[what]:
            return None, f"{what}: {sorted(map(str, said[what]))[:4]}"
    return {
        key: value.detach() for key, value in model.named_parameters(remove_duplicate=False)
    }, ""
