"""The output folder of a command: there as a whole, or not at all.

With `force` a new result takes the place of an old one. Only a folder that holds a model and
nothing else is ever replaced, and it stays until the new one is whole.
"""

import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from merge_ops.errors import OutputError

_WEIGHTS = re.compile(
    r".*\.safetensors(\.index\.json)?|(pytorch|adapter)_model.*\.bin(\.index\.json)?"
)
_BESIDE = re.compile(
    r"(config|generation_config|model_index|adapter_config|quantize_config|params"
    r"|(video_)?(pre)?processor_config|special_tokens_map|added_tokens|vocab|tekken|modules"
    r"|config_sentence_transformers|sentence_bert_config|tokenizer\w*|scheduler_config)\.json"
    r"|(vocab|merges)\.txt|[\w.-]+\.(model|tiktoken|jinja)|(configuration|modeling|tokeniz)\w*\.py"
    r"|(README|LICENSE|NOTICE|USE_POLICY)[\w.-]*|mergekit_config\.ya?ml|\.gitattributes",
    re.IGNORECASE,
)


def check_output(out: Path, force: bool | None = None, inputs: Iterable[Path] = ()) -> None:
    """Raise OutputError where something is that would be overwritten.

    With `force` an old result may be there; None stands for a command that cannot replace any.
    `inputs` are what is read for the new one, which may not lie in it.
    """
    if not out.is_symlink() and (not out.exists() or (out.is_dir() and not any(out.iterdir()))):
        return
    if not force:
        way = "name a new folder or empty this one"
        replaceable = force is not None and _is_result(out)
        hint = ", or give --force to replace an old result" if replaceable else ""
        raise OutputError(f"{out} exists and is not empty; {way}{hint}")
    _check_replaceable(out)
    within = [each for each in inputs if _lies_in(each, out) or _lies_in(out, each)]
    if within:
        raise OutputError(f"{out}: {within[0]} is read for this merge; name another folder")


@contextmanager
def staged(out: Path, force: bool = False) -> Iterator[Path]:
    """Make a hidden folder that becomes `out` when all went well, and vanishes otherwise."""
    out = out.absolute()
    stage = out.parent / f".{out.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        stage.mkdir(parents=True)
        yield stage
        _put_in_place(stage, out, force)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _put_in_place(stage: Path, out: Path, force: bool) -> None:
    if not (force and out.is_dir() and any(out.iterdir())):
        if out.is_dir():
            out.rmdir()
        stage.rename(out)
        return
    _check_replaceable(out)  # again: hours may lie between
    old = stage.with_suffix(".old")
    out.rename(old)
    try:
        stage.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _check_replaceable(out: Path) -> None:
    """Raise OutputError unless `out` is a folder that holds models and nothing else."""
    refused = f"{out} is not replaced"
    if out.is_symlink():
        raise OutputError(f"{refused}: it is a link; name the folder that it leads to")
    if not out.is_dir():
        raise OutputError(f"{refused}: it is no folder; name a folder")
    strangers = _strangers(out)
    if strangers:
        shown = ", ".join(str(each.relative_to(out)) for each in strangers[:3])
        more = f" and {len(strangers) - 3} more" if len(strangers) > 3 else ""
        way = "move what you keep, or name a new folder"
        raise OutputError(f"{refused}: it also holds {shown}{more}, which no merge wrote; {way}")
    if not _is_result(out):
        raise OutputError(f"{refused}: it holds no weights; empty it, or name a new folder")


def _strangers(folder: Path) -> list[Path]:
    """What in a folder is no file of a model; links count, wherever they lead."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_symlink()
        or not (path.is_dir() or _WEIGHTS.fullmatch(path.name) or _BESIDE.fullmatch(path.name))
    ]


def _is_result(folder: Path) -> bool:
    """Whether a folder holds weights, or the coefficients of a sweep do."""
    if not folder.is_dir():
        return False
    return any(_WEIGHTS.fullmatch(path.name) for path in folder.rglob("*") if path.is_file())


def _lies_in(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
