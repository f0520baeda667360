"""What a folder is: told once, from its names, links, indexes, configs and headers, as plain data.

Everything that opens a model asks here: `open_checkpoint`, and through it plans, merges, the
catalog's pulls and `ronghe inspect`. Where a folder can be read in two ways, the verdict is
`ambiguous` and its fault names both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from merge_ops.checkpoints.configs.config_claims import claim_faults
from merge_ops.checkpoints.files.byte_sources import ByteSource
from merge_ops.checkpoints.files.file_names import ADAPTER_CONFIG, ADAPTER_FILES, top_level
from merge_ops.checkpoints.files.json_files import JsonFiles
from merge_ops.checkpoints.folders.adapter_names import (
    OF_IMAGES,
    PEFT_PREFIX,
    AdapterNames,
    adapter_names,
    is_diffusion_checkpoint,
)
from merge_ops.checkpoints.folders.unready_files import (
    dead_links,
    link_fault,
    pointer_fault,
    pointers,
    refused_files,
    unfinished,
    unfinished_weights,
)
from merge_ops.checkpoints.folders.weight_files import WeightChoice, choose_weights, model_weights
from merge_ops.checkpoints.folders.weight_headers import weight_headers
from merge_ops.checkpoints.folders.without_weights import parts_with_weights, without_weights
from merge_ops.checkpoints.header import TensorEntry
from merge_ops.errors import Caution, CheckpointError, PackedModelError, UnreadableFileError

KINDS: Mapping[str, str] = {
    "model": "a model: weights and a config.json",
    "state_dict": "weights without a config.json, merged by the names of their tensors",
    "diffusers_component": "one part of a diffusers pipeline",
    "diffusion_checkpoint": "a whole diffusion pipeline in one file",
    "adapter": "an adapter, which is no model without its base",
    "diffusers_pipeline": "a diffusers pipeline, whose parts are merged one by one",
    "training_state": "the state of a training, and no model",
    "wrapped": "a folder around the folder of a model",
    "quantized": "quantized weights",
    "foreign": "weights of another program",
    "incomplete": "a model of which a part is missing",
    "damaged": "files that contradict their format",
    "unsafe": "a folder with links out of it, or with files that may not be read",
    "ambiguous": "a folder that can be read in two ways",
    "no_weights": "a folder without weights",
    "empty": "nothing",
}
"""Every kind of folder, in words."""


MAX_TOLD = 20
"""Refused files that are told."""


@dataclass(frozen=True)
class FolderVerdict:
    """A folder verdict says what a folder is; plain data.

    `why` is the evidence, `weights` the files that are read, `pickled` whether they are pickles,
    which are converted first. `passed_over` are files of weights that are not read, each with the
    reason. `faults` are whole sentences; a folder without any can be merged, an adapter with its
    base. `adapter` is the kind of an adapter, such as `LoRA` or `kohya LoRA`.
    """

    location: str
    kind: str
    why: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    pickled: bool = False
    passed_over: Mapping[str, str] = field(default_factory=dict[str, str])
    faults: tuple[str, ...] = ()
    cautions: tuple[Caution, ...] = ()
    adapter: str | None = None

    @property
    def mergeable(self) -> bool:
        """Return whether nothing speaks against merging it."""
        return not self.faults

    @property
    def of_image_model(self) -> bool:
        """Return whether it is an adapter of an image model, which has no adapter_config.json."""
        return self.adapter in OF_IMAGES

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as JSON values."""
        return {
            "format": 1,
            **dataclasses.asdict(self),
            "what": KINDS[self.kind],
            "mergeable": self.mergeable,
        }


@dataclass(frozen=True)
class FolderReading:
    """A folder reading is the verdict, and what was read for it: tensors by name, and the config.

    `files` are the sizes of all files. Pickled weights have no tensors before they are converted.
    """

    verdict: FolderVerdict
    files: Mapping[str, int]
    tensors: Mapping[str, TensorEntry] = field(default_factory=dict[str, TensorEntry])
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])


def read_folder(source: ByteSource, adapter: bool = False) -> FolderReading:
    """Read names, links, indexes, configs and headers at `source`, no weight, and return a verdict.

    With `adapter` the folder was named as an adapter, and a model beside it is passed over. Nothing
    that is wrong with the folder is raised: it stands in the verdict's faults. OSError is raised
    where it cannot be read.
    """
    try:
        files, refused, dead = source.sizes(), refused_files(source), dead_links(source)
    except UnreadableFileError as error:
        return FolderReading(FolderVerdict(source.location, "unsafe", faults=(str(error),)), {})
    if refused:
        faults = tuple(refused.values())[:MAX_TOLD]
        return FolderReading(FolderVerdict(source.location, "unsafe", faults=faults), files)
    if dead:
        fault = link_fault(source, dead)
        return FolderReading(FolderVerdict(source.location, "incomplete", faults=(fault,)), files)
    if not files:
        return FolderReading(_empty(source), files)
    cloned = pointers(source, files)
    if cloned:
        fault = pointer_fault(source, cloned)
        return FolderReading(FolderVerdict(source.location, "incomplete", faults=(fault,)), files)
    try:
        return _read(source, files, adapter)
    except PackedModelError:
        raise
    except CheckpointError as error:
        verdict = FolderVerdict(source.location, "damaged", faults=(str(error),))
        return FolderReading(verdict, files)


def _empty(source: ByteSource) -> FolderVerdict:
    left = unfinished(source, ())
    if left:
        fault = f"{source.location} holds a broken download ({left[0]}) and no model; download it"
        return FolderVerdict(source.location, "incomplete", faults=(f"{fault} again",))
    fault = (
        f"{source.location} does not exist or is empty; give a folder with config.json and"
        " .safetensors files"
    )
    return FolderVerdict(source.location, "empty", faults=(fault,))


def _read(source: ByteSource, files: Mapping[str, int], adapter: bool) -> FolderReading:
    """The reading of a folder with files. Raises CheckpointError where one is damaged."""
    at, here = source.location, top_level(files)
    of_adapter = [file for file in ADAPTER_FILES if file in here]
    of_model = None if adapter else model_weights(source, files)
    if of_adapter and of_model:
        return FolderReading(_both(at, of_model, of_adapter[0]), files)
    pipeline = "model_index.json" in here
    choice = choose_weights(source, files, adapter=bool(of_adapter))
    if pipeline and choice.promised:
        return FolderReading(_pipeline_or_file(at, files, sorted(choice.promised)), files)
    if choice.faults and not pipeline:
        return FolderReading(_faulty(source, files, choice), files)
    if not choice.promised:
        kind, fault = without_weights(source, files)
        return FolderReading(FolderVerdict(at, kind, faults=(fault,)), files)
    for file in unfinished_weights(files, choice.promised):
        fault = f"{at}/{file} is still being downloaded by aria2 ({file}.aria2); let it finish"
        return FolderReading(FolderVerdict(at, "incomplete", faults=(fault,)), files)
    config: Mapping[str, Any] = {}
    if "config.json" in here:
        config = JsonFiles(source, files).read("config.json")
    if choice.pickled:
        return FolderReading(_pickled(at, here, choice, bool(of_adapter), config), files)
    tensors = weight_headers(source, files, choice.promised)
    return FolderReading(_known(at, here, choice, tensors, config), files, tensors, config)


def _both(at: str, model: str, adapter: str) -> FolderVerdict:
    fault = (
        f"{at} can be read in two ways: as a model ({model}) and as an adapter ({adapter}); write"
        f" 'base+{at}' for the adapter on its base, or move {adapter} and {ADAPTER_CONFIG} away"
        " for the model"
    )
    why = (f"{model} is there, and so is {adapter}",)
    return FolderVerdict(at, "ambiguous", why, faults=(fault,))


def _pipeline_or_file(at: str, files: Mapping[str, int], weights: list[str]) -> FolderVerdict:
    parts = ", ".join(f"{each}/" for each in parts_with_weights(files)) or "unet/, transformer/"
    fault = (
        f"{at} can be read in two ways: as a diffusers pipeline (model_index.json) and as a model"
        f" of its own ({weights[0]}); name a part of the pipeline ({parts}) or the file"
        f" {at}/{weights[0]}"
    )
    return FolderVerdict(at, "ambiguous", faults=(fault,))


def _faulty(source: ByteSource, files: Mapping[str, int], choice: WeightChoice) -> FolderVerdict:
    """A folder with weights of which no whole and single set can be taken."""
    faults = list(choice.faults)
    left = [] if choice.two_sets else unfinished(source, files)
    if left:
        faults[0] += f"; a download broke off here ({left[0]})"
    kind = "ambiguous" if choice.two_sets else "incomplete"
    return FolderVerdict(source.location, kind, faults=tuple(faults))


def _pickled(
    at: str, here: list[str], choice: WeightChoice, adapter: bool, config: Mapping[str, Any]
) -> FolderVerdict:
    """Pickles, of whose tensors nothing is known before they are converted."""
    kind = "adapter" if adapter else _kind_of_model(config, "config.json" in here, ())
    return FolderVerdict(
        at, kind, (choice.why, "its weights are pickled, and converted before they are read"),
        tuple(sorted(choice.promised)), True, choice.passed_over,
        cautions=choice.cautions,
    )  # fmt: skip


def _known(
    at: str,
    here: list[str],
    choice: WeightChoice,
    tensors: Mapping[str, TensorEntry],
    config: Mapping[str, Any],
) -> FolderVerdict:
    """A verdict on headers: a model or an adapter, by the names of its tensors."""
    names = adapter_names(tensors.keys())
    named = [file for file in choice.promised if file in ADAPTER_FILES]
    why, faults, cautions = [choice.why], list[str](), list(choice.cautions)
    if names.kind is not None:
        why.append(f"its tensors are those of a {names.kind}, such as '{names.parts[0]}'")
        kind = "adapter"
        if "config.json" in here:
            why.append("config.json is that of its base, which trainers save beside an adapter")
    elif named and ADAPTER_CONFIG in here and not names.parts and _all_saved_whole(tensors):
        kind = "adapter"
        why.append(f"{ADAPTER_CONFIG} is there, and all tensors have PEFT's names")
    else:
        kind = _kind_of_model(config, "config.json" in here, tensors)
        if kind == "model":
            why.append("config.json says which model the tensors are of")
        faults += _faults_of_model(at, names, named, tensors, here, config)
        cautions += _cautions_of_model(at, names, here, config)
    return FolderVerdict(
        at, kind, tuple(why), tuple(sorted(choice.promised)), False, choice.passed_over,
        tuple(faults), tuple(cautions), names.kind,
    )  # fmt: skip


def _all_saved_whole(tensors: Mapping[str, TensorEntry]) -> bool:
    """Whether these may be an adapter's modules that are saved whole, or nothing at all."""
    return all(name.startswith(PEFT_PREFIX) for name in tensors)


def _kind_of_model(config: Mapping[str, Any], has_config: bool, tensors: Any) -> str:
    if "_class_name" in config:
        return "diffusers_component"
    if has_config:
        return "model"
    return "diffusion_checkpoint" if is_diffusion_checkpoint(tensors) else "state_dict"


def _faults_of_model(
    at: str,
    names: AdapterNames,
    named: list[str],
    tensors: Mapping[str, TensorEntry],
    here: list[str],
    config: Mapping[str, Any],
) -> list[str]:
    if names.unmerged and not _keeps_factors(config):
        return [
            f"{at} is a model with an adapter on it that was not merged in: '{names.unmerged[0]}'"
            f" has its weight and factors of an adapter ('{names.parts[0]}') beside it; load it"
            " with PEFT, call `merge_and_unload()` and save the result"
        ]
    if named:
        saved = sorted(tensors)[0] if tensors else "none"
        return [
            f"{at} can be read in two ways: {named[0]} is called an adapter's, but its tensors are"
            f" a model's, such as '{saved}'; name it model.safetensors if it is a model, or save"
            " the adapter again"
        ]
    return claim_faults(at, config, tensors)


def _keeps_factors(config: Mapping[str, Any]) -> bool:
    """Whether this is a model with LoRA as a part of its own, as Phi-4-multimodal is."""
    return any(key.endswith("_lora") for key in config)


def _cautions_of_model(
    at: str, names: AdapterNames, here: list[str], config: Mapping[str, Any]
) -> list[Caution]:
    found: list[Caution] = []
    if ADAPTER_CONFIG in here:
        found.append(
            Caution(
                at,
                f"holds an {ADAPTER_CONFIG} beside a model's own tensors; it is read as a model,"
                " while transformers with PEFT installed reads it as an adapter",
                f"Remove {ADAPTER_CONFIG} if its adapter was merged in",
            )
        )
    if names.parts:
        found.append(
            Caution(
                at,
                f"has {len(names.parts)} tensors of an adapter inside the model, such as"
                f" '{names.parts[0]}', which are merged one by one and not as products",
                "Use models whose adapters are equal, or merge these adapters by themselves",
            )
        )
    return found
