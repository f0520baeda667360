"""The output folder of a command: there as a whole, or not at all.

With `force` a new result takes the place of an old one. Only a folder that holds a model and
nothing else is ever replaced, and it stays until the new one is whole.
"""

import ctypes
import errno
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from merge_ops.errors import OutputError
from merge_ops.working_folders import GOES_BACK, SET_ASIDE, sweep, working_folder
from orchestration.interruption import held
from orchestration.sizes import size_text

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


LOST = "lost+found"
_SHOWN = 3


def check_output(out: Path, force: bool | None = None, inputs: Iterable[Path] = ()) -> None:
    """Raise OutputError where something is that would be overwritten.

    With `force` an old result may be there; None stands for a command that cannot replace any.
    `inputs` are what is read for the new one, which may not lie in it.
    """
    try:
        _refuse_place(out)
        out = _placed(out)
        sweep(out)
        _check_writable(out)
        if not out.exists() or (out.is_dir() and not _held_by(out)):
            return
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise OutputError(f"{str(out)[:200]!r} cannot be an output folder ({told})") from error
    if not out.is_dir() and not force:
        raise OutputError(f"{out} is a file; name a folder")
    if not force:
        way = "name a new folder or empty this one"
        replaceable = force is not None and _is_replaceable(out)
        hint = ", or give --force to replace an old result" if replaceable else ""
        raise OutputError(f"{out} exists and is not empty; {way}{hint}")
    _check_replaceable(out)
    if _must_stay(out):
        problem = "it is a mount point, or the folder of this shell; name a folder in it"
        raise OutputError(f"{out} is not replaced: {problem}, or empty it")
    within = [each for each in inputs if _lies_in(each, out) or _lies_in(out, each)]
    if within:
        raise OutputError(f"{out}: {within[0]} is read for this merge; name another folder")


def check_space(out: Path, nbytes: int) -> None:
    """Raise OutputError where the disk of `out` has no room for so many bytes.

    A quota is not told of before it is reached; what is reserved file by file is refused then.
    """
    place = _there(out)
    free = shutil.disk_usage(place).free
    if nbytes > free:
        raise OutputError(
            f"{out} takes {size_text(nbytes)}, and {place} has {size_text(free)} free; free space"
            " there, or name an output on another disk"
        )


@contextmanager
def staged(out: Path, force: bool = False) -> Iterator[Path]:
    """Make a hidden folder that becomes `out` when all went well, and vanishes otherwise.

    It lies beside `out`, or inside where `out` cannot be replaced: a mount point, or an empty
    folder in one that may not be written. What killed processes left there is removed.
    """
    out = _placed(out)
    inside = _must_stay(out)
    try:
        with _making(out) as work, working_folder(work) as folder:
            stage = folder / "out"
            stage.mkdir()
            yield stage
            with held():
                if inside:
                    _fill(stage, out)
                else:
                    _put_in_place(stage, out, force)
    except OSError as error:
        raise _output_error(out, error) from error


@contextmanager
def beside(out: Path) -> Iterator[Path]:
    """Make a hidden folder on the disk of `out`, for what is needed before; it goes at the end."""
    out = _placed(out)
    try:
        with _making(out) as work, working_folder(work) as folder:
            yield folder
    except OSError as error:
        raise _output_error(out, error) from error


def _placed(out: Path) -> Path:
    """The absolute path of an output; a link at its end is kept, to be seen."""
    return out.resolve() if ".." in out.parts else out.absolute()


def _refuse_place(out: Path) -> None:
    """Raise OutputError for a place that nobody means: `~` in quotes, or an artifact store."""
    if out.parts[:1] and out.parts[0].startswith("~") and not Path(out.parts[0]).exists():
        raise OutputError(
            f"{out}: in quotes ~ is no home but a folder of that name; write it without quotes, or"
            f" $HOME, or ./{out} where you mean that"
        )
    for each in _placed(out).resolve().parents:
        if (each / "store.json").is_file() and (each / "artifacts").is_dir():
            raise OutputError(
                f"{out} lies in the artifact store {each}, which is Ronghe's own; name a folder"
                " elsewhere"
            )


def _must_stay(out: Path) -> bool:
    """Whether `out` is a folder that is filled, because no other can take its place.

    That is a mount point, where a link leads, a shell's own folder, and a folder in one that may
    not be written.
    """
    if not out.is_dir():
        return False
    if os.path.ismount(out) or out.is_symlink() or out.samefile(Path.cwd()):
        return True
    return not _may_write(out.parent)


def _may_write(folder: Path) -> bool:
    effective = os.access in os.supports_effective_ids
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=effective)


def _held_by(out: Path) -> list[str]:
    """What a folder holds, but what every disk has at its root."""
    return [each.name for each in out.iterdir() if each.name != LOST or not os.path.ismount(out)]


def _check_writable(out: Path) -> None:
    """Raise OutputError where this user cannot make `out`, or write into it."""
    if out.is_symlink() and not out.exists():
        raise OutputError(f"{out} is a link to {os.readlink(out)}, which is not there")
    if out.exists() and not out.is_dir():
        return
    place = out if _must_stay(out) else _there(out.parent)
    if not place.is_dir():
        raise OutputError(f"{out} cannot be made: {place} is a file")
    if not _may_write(place):
        raise OutputError(
            f"{out} cannot be written: this user may not write to {place}, or its disk is"
            " read-only; name a folder elsewhere"
        )


@contextmanager
def _making(out: Path) -> Iterator[Path]:
    """The folder to work in: beside `out`, or `out` itself where that has to stay.

    Folders that were made for it are removed again where nothing came of it.
    """
    if _must_stay(out):
        yield out
        return
    missing = [each for each in out.parents if not each.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield out.parent
    except BaseException:
        for each in missing:
            if each.is_dir() and not any(each.iterdir()):
                each.rmdir()
        raise


def _fill(stage: Path, out: Path) -> None:
    """Move what is in `stage` into the folder `out` below which it lies."""
    strangers = [name for name in _held_by(out) if name != stage.parent.name]
    if strangers:
        raise OutputError(f"{out} is no longer empty: it holds {strangers[0]}")
    files = sorted(stage.iterdir(), key=lambda each: each.name == "config.json")
    for each in files:  # the config last: without it nothing takes the folder for a model
        each.rename(out / each.name)


def _output_error(out: Path, error: OSError) -> OutputError:
    """What went wrong with the output, or while it was made, in one line."""
    told = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        place = _there(out)
        free = size_text(shutil.disk_usage(place).free)
        return OutputError(
            f"{out}: cannot be written ({told}; {free} free on {place}); free space, or name an"
            " output on another disk"
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return OutputError(
            f"{out}: cannot be written ({told}: {error.filename or out.parent}); name a folder that"
            " this user may write"
        )
    where = f": {error.filename}" if error.filename and str(error.filename) != str(out) else ""
    return OutputError(f"{out}: cannot be written ({told}{where})")


def _there(out: Path) -> Path:
    """The nearest folder above `out`, or `out` itself, that is there."""
    return next(each for each in (out.absolute(), *out.absolute().parents) if each.exists())


def _put_in_place(stage: Path, out: Path, force: bool) -> None:
    if not (force and out.is_dir() and any(out.iterdir())):
        stage.rename(out)  # also over an empty folder
        return
    _check_replaceable(out)  # again: hours may lie between
    if _exchanged(stage, out):
        return  # the old result is where the new one was, and goes with the working folder
    (stage.parent / GOES_BACK).write_bytes(os.fsencode(out))
    old = stage.parent / SET_ASIDE
    out.rename(old)
    try:
        stage.rename(out)
    except OSError:
        old.rename(out)
        raise


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two folders at one stroke, where the system can; a kill cannot fall between."""
    exchange = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    here, flag = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if exchange is None or not one.is_dir():
        return False
    return exchange(here, os.fsencode(one), here, os.fsencode(other), flag) == 0


def _check_replaceable(out: Path) -> None:
    """Raise OutputError unless `out` is a folder that holds models and nothing else."""
    refused = f"{out} is not replaced"
    if out.is_symlink():
        raise OutputError(f"{refused}: it is a link; name the folder that it leads to")
    if not out.is_dir():
        raise OutputError(f"{refused}: it is no folder; name a folder")
    strangers = [str(each.relative_to(out)) for each in islice(_strangers(out), _SHOWN + 1)]
    if strangers:
        shown = ", ".join(strangers[:_SHOWN]) + " and more" * (len(strangers) > _SHOWN)
        way = "move what you keep, or name a new folder"
        raise OutputError(f"{refused}: it also holds {shown}, which no merge wrote; {way}")
    if not _is_result(out):
        raise OutputError(f"{refused}: it holds no weights; empty it, or name a new folder")


def _is_replaceable(out: Path) -> bool:
    """Whether `--force` would replace an old result here."""
    with suppress(OutputError, OSError):
        _check_replaceable(out)
        return True
    return False


def _strangers(folder: Path) -> Iterator[Path]:
    """Yield what in a folder is no file of a model; links count, wherever they lead.

    The next one is looked for when it is asked for: a folder may be somebody's home, or the root.
    """
    for where, folders, files in os.walk(folder, onerror=_stop):
        folders.sort()
        for name in sorted([*folders, *files]):
            path = Path(where, name)
            of_model = name in folders or _WEIGHTS.fullmatch(name) or _BESIDE.fullmatch(name)
            if not of_model or path.is_symlink():
                yield path


def _stop(error: OSError) -> None:
    """Raise what a walk met: a folder that cannot be read may hold anything."""
    raise error


def _is_result(folder: Path) -> bool:
    """Whether a folder holds weights, or the coefficients of a sweep do."""
    if not folder.is_dir():
        return False
    return any(_WEIGHTS.fullmatch(path.name) for path in folder.rglob("*") if path.is_file())


def _lies_in(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
