"""What a limited child is asked of a plan: would transformers load tensors of these shapes?

Requests are `{"config": …, "tensors": [[name, shape], …]}` or
`{"folder": …, "architectures": …}`. Models are made on
torch's meta device and hold no values. No remote code is run: `auto_map` is dropped. What a config
may make it do is bounded by memory, by CPU time and by the number of modules, never by a clock.
It stands in this room because the child, whose start each merge pays, imports no other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from merge_ops.children.module_count import limited_modules

_NOT_TAKEN = (
    "auto_map", "quantization_config", "_attn_implementation", "attn_implementation",
    "_experts_implementation", "transformers_weights", "_name_or_path", "dtype", "torch_dtype",
)  # fmt: skip
_GUESSES = (
    "MODEL_FOR_CAUSAL_LM_MAPPING", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING", "MODEL_FOR_MASKED_LM_MAPPING",
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING", "MODEL_MAPPING",
)  # fmt: skip


class _Unknown(Exception):
    """This transformers knows no such architecture, or is not here."""


def _imported(*names: str) -> list[Any]:
    """Import modules; they have no types here."""
    try:
        return [import_module(name) for name in names]
    except ImportError as error:
        raise _Unknown(f"{error.name} is not installed") from error


class _Loader:
    """What transformers says of tensors; it is imported once."""

    def __init__(self) -> None:
        torch, transformers = _imported("torch", "transformers")
        self._torch = torch
        self._transformers = transformers
        self._last: tuple[bytes, dict[str, Any]] | None = None
        transformers.logging.set_verbosity(transformers.logging.CRITICAL)
        transformers.logging.disable_progress_bar()

    def look(self, config: dict[str, Any], tensors: list[tuple[str, list[int]]]) -> dict[str, Any]:
        """Return what is missing, unexpected and mismatched of tensors, by name.

        What was asked last is answered as then: files as planned have the plan's answer.
        """
        asked = blake2b(json.dumps([config, sorted(tensors)], sort_keys=True).encode()).digest()
        if self._last is None or self._last[0] != asked:
            self._last = asked, self._looked(config, tensors)
        return self._last[1]

    def _looked(
        self, config: dict[str, Any], tensors: list[tuple[str, list[int]]]
    ) -> dict[str, Any]:
        plain = {key: value for key, value in config.items() if key not in _NOT_TAKEN}
        kind = self._kind(config)
        _imported("accelerate", "safetensors")  # 100 MB, which only the loading below needs
        made = kind.from_dict(plain)
        found: dict[str, Any] | None = None
        for each in self._classes(made, config.get("architectures")):
            state = self._state(tensors)
            with limited_modules(len(tensors)):
                _, info = each.from_pretrained(
                    None,
                    config=made,
                    state_dict=state,
                    device_map={"": "meta"},
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,
                    local_files_only=True,
                    attn_implementation="eager",
                )
            looked = _told(each.__name__, info)
            if not config.get("architectures"):
                looked["guessed"] = True
            if found is None or _faults_of(looked) < _faults_of(found):
                found = looked
        if found is None:
            raise _Unknown(f"transformers {self._transformers.__version__} has no such class")
        return found

    def _state(self, tensors: list[tuple[str, list[int]]]) -> dict[str, Any]:
        """Tensors without values by name; those of one shape are one, for there may be 100,000."""
        shapes = {tuple(shape) for _, shape in tensors}
        empty = self._torch.empty
        made = {each: empty(each, device="meta", dtype=self._torch.float32) for each in shapes}
        return {name: made[tuple(shape)] for name, shape in tensors}

    def _kind(self, config: dict[str, Any]) -> Any:
        """The class of a config, by its model_type, or by the class of models that it names."""
        kind = config.get("model_type")
        mapping = self._transformers.CONFIG_MAPPING
        if isinstance(kind, str) and kind in mapping:
            return mapping[kind]
        if kind is None and (named := self._named(config.get("architectures"))) is not None:
            return named.config_class  # transformers loads such a folder by the named class
        raise _Unknown(f"transformers {self._transformers.__version__} knows no {kind!r}")

    def _named(self, architectures: object) -> Any | None:
        """The class of models that `architectures` names; None where transformers has none."""
        if not isinstance(architectures, list) or not architectures:
            return None
        name = cast("list[object]", architectures)[0]
        found = getattr(self._transformers, name, None) if isinstance(name, str) else None
        base = self._transformers.PreTrainedModel
        return found if isinstance(found, type) and issubclass(found, base) else None

    def _classes(self, config: Any, architectures: object) -> list[Any]:
        """The class that the config names, or those that may be meant where it names none."""
        if isinstance(architectures, list) and architectures:
            named = self._named(cast("list[object]", architectures))
            return [] if named is None else [named]
        mappings = [getattr(self._transformers, name, {}) for name in _GUESSES]
        found = [each[type(config)] for each in mappings if type(config) in each]
        return [each[0] if isinstance(each, tuple) else each for each in found]

    def load(self, folder: Path, architectures: object) -> dict[str, Any]:
        """Return what is wrong with the files of a folder, which are opened, not read.

        `architectures` names the class where config.json does not.
        """
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not config.get("architectures"):
            config["architectures"] = architectures
        self._kind(config)  # no file is opened for what is not known
        safe_open: Any = _imported("safetensors")[0].safe_open
        tensors: list[tuple[str, list[int]]] = []
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, framework="pt", device="cpu") as opened:
                for name in opened.keys():  # noqa: SIM118 (it is no mapping)
                    tensors.append((name, list(opened.get_slice(name).get_shape())))
        return self.look(config, tensors)


def _told(name: str, info: dict[str, Any]) -> dict[str, Any]:
    return {
        "state": "looked",
        "loaded_as": name,
        "missing": sorted(map(str, info["missing_keys"])),
        "unexpected": sorted(map(str, info["unexpected_keys"])),
        "mismatched": sorted(
            [str(each[0]), *(list(map(int, shape)) for shape in each[1:])]
            for each in info["mismatched_keys"]
        ),
    }


def _faults_of(told: dict[str, Any]) -> tuple[int, int]:
    """How far a class is from fitting: by what would be random in it, then by what is left over."""
    return len(told["missing"]) + len(told["mismatched"]), len(told["unexpected"])


def _answer(loader: _Loader, request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        if "folder" in request:
            return loader.load(Path(request["folder"]), request.get("architectures"))
        return loader.look(request["config"], [(name, shape) for name, shape in request["tensors"]])
    except _Unknown as error:
        return {"state": "unknown", "why": str(error)}
    except Exception as error:  # whatever a config makes a library raise is the finding
        return {"state": "failed", "why": f"{type(error).__name__}: {error}"[:500]}


_loaders: list[_Loader] = []


def answer(request: Mapping[str, Any], tell: Callable[[Any], None]) -> dict[str, Any]:
    """Answer one request; the loader stays."""
    try:
        if not _loaders:
            _loaders.append(_Loader())
        return _answer(_loaders[0], request)
    except _Unknown as error:
        return {"state": "unknown", "why": str(error)}
