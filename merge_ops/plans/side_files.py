"""The files beside the weights of a planned checkpoint: its config, and what the base model has.

One rule says what belongs to a model: plain text and vocabularies, by their suffix or name. Weights
never do, nor what training left behind, hidden files and the card, which a merge writes anew. Code
does: it is copied and never run. `resources/upstream/source.py` takes the same from upstream, but
no code; a test compares the two.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.files.byte_sources import read_file
from merge_ops.checkpoints.files.copied_files import SideFile, side_file
from merge_ops.checkpoints.files.file_bounds import MAX_SIDE_FILE
from merge_ops.errors import Caution, CheckpointError, Fault
from merge_ops.plans.plan import Plan
from merge_ops.vocabularies.special_ids import GENERATION

SIDE_SUFFIXES = frozenset(
    (".json", ".txt", ".jinja", ".model", ".spm", ".tiktoken", ".bpe", ".codes", ".vocab", ".py")
)
SIDE_NAMES = re.compile(
    r"(LICEN[CS]E|NOTICE|USE_POLICY|COPYING)[\w .-]*|tokenizer\.model\.[\w.-]+", re.IGNORECASE
)
TEMPLATE_FOLDER, CODE_FOLDER = "additional_chat_templates", "custom_generate"
MODULE_FOLDER = re.compile(r"\d{1,2}_[A-Z]\w*")
"""The parts of a sentence-transformers model: 1_Pooling, 2_Dense, …"""

# What training and other programs leave, and what describes files that a merge writes anew.
_LEFT_BY_OTHERS = re.compile(
    r"config\.json|adapter_config\.json|model_index\.json|.*\.index\.json|trainer_state\.json"
    r"|train(ing|er)?_(args|config|log|history|loss)\w*\.(json|txt)"
    r"|(all|train|eval|test|predict)_(results|metrics)\.(json|txt)"
    r"|(.*[_.-])?logs?(_history)?([_.-].*)?\.(json|txt)|wandb\S*\.json|dataset_infos?\.json"
    r"|zero_to_fp32\.py",
    re.IGNORECASE,
)
_CONFIG = re.compile(r"config\.json")
_TOKENIZERS = re.compile(r"(tokenizer|vocab|tekken)\.json|vocab\.txt|[\w.-]+\.(model|tiktoken)")
_MISSED = re.compile(r"tokenizer|processor|template", re.IGNORECASE)
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


def is_side_file(name: str) -> bool:
    """Return whether a file belongs to a model beside its weights and its config, by its name.

    `name` is a POSIX path relative to the model's folder.
    """
    path = PurePosixPath(name)
    if len(path.parts) > 2 or any(part.startswith(".") for part in path.parts):
        return False
    if len(path.parts) == 2:
        if path.parts[0] == TEMPLATE_FOLDER:
            return path.suffix == ".jinja"
        if path.parts[0] == CODE_FOLDER:
            return path.suffix == ".py"
        return bool(MODULE_FOLDER.fullmatch(path.parts[0])) and path.suffix in SIDE_SUFFIXES
    if SIDE_NAMES.fullmatch(name):
        return True
    return path.suffix in SIDE_SUFFIXES and not _LEFT_BY_OTHERS.fullmatch(name)


def side_files(plan: Plan) -> dict[str, SideFile]:
    """Return the files beside the weights by name: their bytes, or what they are copied from.

    These are the output's config, and what the base has beside its weights: generation config,
    tokenizer, processors, templates, code, licence.
    """
    base = plan.base
    files: dict[str, SideFile] = {}
    if base.config:
        files["config.json"] = _json_bytes(plan.config)
    for name, size in base.files.items():
        if not is_side_file(name) or size > MAX_SIDE_FILE:
            continue
        if name == GENERATION:  # it may be changed for another tokenizer
            files[name] = read_file(base.source, name, 0, size)
        else:
            files[name] = side_file(base.source, name, size)
    return plan.tokenizer.beside(files) if plan.tokenizer else files


_READ_BY_LOADERS = (
    "generation_config.json", "tokenizer_config.json", "special_tokens_map.json",
    "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json",
    "chat_template.json",
)  # fmt: skip
_VOCABULARIES = re.compile(r"(tokenizer|vocab|tekken|added_tokens)\.json")
_TEXTS = re.compile(r"(vocab|merges)\.txt|[^/]+\.tiktoken|(.+/)?[^/]+\.jinja")
_PIECES = re.compile(r"[^/]+\.(model|spm)")
_PAGE = re.compile(rb"\s*<(!doctype\s|html[\s>])", re.IGNORECASE)
_BLANK = b" \t\r\n"  # of JSON: a form feed is none
ENDS = 1024
"""Bytes of either end of a file that are looked at: editors end a file with a few line breaks."""


def side_file_cautions(base: Checkpoint) -> list[Caution]:
    """Return what the base has beside its weights, a person may miss, and no merge takes along.

    These are side files of an unlikely size, weights of a sentence-transformers model's parts, and
    folders that are called after a tokenizer or a processor.
    """
    left = [
        name for name, size in base.files.items() if is_side_file(name) and size > MAX_SIDE_FILE
    ]
    for name in base.files:
        path = PurePosixPath(name)
        if len(path.parts) < 2 or is_side_file(name):
            continue
        of_part = MODULE_FOLDER.fullmatch(path.parts[0]) and "modules.json" in base.files
        if of_part and path.suffix in _WEIGHTS:
            left.append(name)
        elif _MISSED.search(path.parts[0]):
            left.append(f"{path.parts[0]}/")
    if not left:
        return []
    named = ", ".join(dict.fromkeys(left))
    return [
        Caution(
            base.name,
            f"has {named} beside its weights, which no merge takes along",
            "Copy it into the result where it is needed",
        )
    ]


def absent_file_cautions(
    base: Checkpoint, others: Sequence[Checkpoint], has_tokenizer: bool
) -> list[Caution]:
    """Return what the result lacks because the base has none, and another model has.

    `has_tokenizer` says that the recipe gives the result a tokenizer whatever the base has.
    """
    cautions: list[Caution] = []
    for what, known in (("config.json", _CONFIG), ("tokenizer", _TOKENIZERS)):
        if (known is _TOKENIZERS and has_tokenizer) or any(map(known.fullmatch, base.files)):
            continue
        having = [e.name for e in others if any(map(known.fullmatch, e.files))]
        if having:
            problem = f"has no {what}, so the result will have none, and {having[0]} has one"
            way = f"Where it is the result's too, copy it from {having[0]} into the result"
            cautions.append(Caution(base.name, problem, way))
    return cautions


def side_file_faults(base: Checkpoint) -> list[Fault]:
    """Return the side files of the base that no loader can read.

    Those that every loader reads first must be JSON objects. Vocabularies are long, and seldom
    parsed where all models have the same bytes, so of these the first and last bytes are looked at:
    what a download cut off, an editor saved as UTF-16 or a proxy answered has others. Of lists,
    templates and pieces these are the first.
    """
    faults: list[Fault] = []
    for name in _READ_BY_LOADERS:
        if name not in base.files:
            continue
        try:
            base.json_files.read(name)
        except CheckpointError as error:
            faults.append(_unreadable(base, str(error)))
    for name in filter(_VOCABULARIES.fullmatch, base.files):
        told = _vocabulary_fault(base, name)
        if told:
            faults.append(_unreadable(base, f"{base.source.location}/{name}: {told}"))
    for name in base.files:
        is_text = _TEXTS.fullmatch(name) is not None
        if is_text or _PIECES.fullmatch(name):
            first = read_file(base.source, name, 0, min(base.files[name], ENDS))
            told = _odd_beginning(first, is_text)
            if told:
                faults.append(_unreadable(base, f"{base.source.location}/{name}: {told}"))
    return faults


def _odd_beginning(first: bytes, is_text: bool) -> str:
    """What is wrong with a file that begins so; empty where nothing is."""
    if _PAGE.match(first):
        return "it is a web page, as a server answers instead of a file"
    if is_text:
        try:
            codecs.getincrementaldecoder("utf-8")().decode(first)  # its last character may be cut
            is_text = b"\0" not in first
        except UnicodeDecodeError:
            is_text = False
        return "" if is_text else "it is no text in UTF-8"
    return ""


def _vocabulary_fault(base: Checkpoint, name: str) -> str:
    """What is wrong with a vocabulary in JSON, told from its ends; empty where nothing is."""
    size = base.files[name]
    length = min(size, ENDS)
    first = read_file(base.source, name, 0, length)
    last = read_file(base.source, name, size - length, length) if size > length else first
    if size == length and b"".join(first.split()) == b"{}" and name != "added_tokens.json":
        return "it holds no tokens"
    if first.lstrip(_BLANK)[:1] == b"{" and last.rstrip(_BLANK)[-1:] == b"}":
        return ""
    return "not one whole JSON object in UTF-8; restore the file from its source"


def _unreadable(base: Checkpoint, told: str) -> Fault:
    way = "restore it from where the model came from, or take it away"
    return Fault(base.name, f"has a side file that nothing can load: {told}; {way}")


def _json_bytes(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
