"""Options of mergekit's commands, as `ronghe merge` takes them.

Some have another name here, some say what is always so, and a few cannot be. Scripts keep running;
where an option changes nothing, one line on stderr says why.
"""

import re
from collections.abc import Iterable, Iterator

from merge_ops.errors import Fault, SettingsError
from orchestration.options import SHOWN

RENAMED = {"--num-threads": "--threads", "-j": "--threads"}
"""Options that take a value, and what they are called here."""

CUDA = ("--cuda", "--gpu-rich")

NEEDLESS = {
    "--copy-tokenizer": "the tokenizer is always written",
    "--no-copy-tokenizer": "the tokenizer is always written; remove its files where it must go",
    "--write-model-card": "a card is always written",
    "--no-write-model-card": "a card is always written; remove README.md where it must go",
    "--safe-serialization": "weights are always safetensors",
    "--lazy-unpickle": "weights are read in blocks",
    "--low-cpu-memory": "--memory bounds what is held",
    "--read-to-gpu": "blocks go to the device as they are read",
    "--multi-gpu": "a merge takes one GPU",
    "--gpu-rich": "it is --device cuda; the rest is nothing to choose",
    "--clone-tensors": "tensors may stand in the output twice",
    "--async-write": "reading, merging and writing overlap",
    "--trust-remote-code": "no code of a model is run",
    "--allow-crimes": "what does not fit is refused all the same, by name",
    "--unsafe-truncate-embeddings": "vocabularies are merged by token: `tokenizer:` in the recipe",
    "--lazy": "results of earlier documents are not kept",
    "--quiet": "bars are drawn on terminals only",
    "-q": "bars are drawn on terminals only",
    "-v": "`ronghe plan` shows what will be done",
}
NEEDLESS_WITH_VALUE = {
    "--transformers-cache": "the variable HF_HOME names the cache",
    "--lora-merge-cache": "adapters are computed while they are read",
    "--lora-merge-dtype": "adapters are computed in float32",
    "--write-threads": "reading, merging and writing overlap",
    "--intermediate-dir": "results of earlier documents are kept beside the output, while it runs",
    "-I": "results of earlier documents are kept beside the output, while it runs",
}
REFUSED = {
    "--no-safe-serialization": "pickles are not written; leave the option out",
    "--tensor-union": "a tensor that one model lacks is a fault; leave the option out",
    "--tensor-intersection": "a tensor that one model lacks is a fault; leave the option out",
}
SHARD_SIZE, SEED, OUT = "--out-shard-size", "--random-seed", "--out-path"
_SIZE = re.compile(r"([0-9]{1,19})([kmb]?)", re.IGNORECASE)
_POWERS = {"": 0, "k": 3, "m": 6, "b": 9}
_WITH_VALUE = frozenset((*RENAMED, *NEEDLESS_WITH_VALUE, SHARD_SIZE, SEED, OUT))


def translated(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return a command line with our options, and a note for each option that changes nothing.

    Raises SettingsError for an option that cannot be taken, with what to write instead.
    """
    rest = iter(arguments)
    ours: list[str] = []
    notes: dict[str, None] = {}
    faults: list[Fault] = []
    for argument in rest:
        if argument == "--":
            ours += [argument, *rest]
            break
        name, equals, value = _split(argument)
        taken: list[str] = _value(equals, value, rest) if name in _WITH_VALUE else []
        if name in _WITH_VALUE and not taken:  # an end of the line that was cut off
            faults.append(Fault(name, "is given without its value"))
        if name in RENAMED:
            ours += [RENAMED[name], *taken]
        elif name == SHARD_SIZE:
            ours += [f"--shard-size={_size(each, faults)}" for each in taken]
        elif name == SEED:
            ours += [f"--seed={each}" for each in taken]
        elif name == OUT:
            ours += taken
        elif name in NEEDLESS_WITH_VALUE:
            notes[f"{name}: {NEEDLESS_WITH_VALUE[name]}"] = None
        elif name in REFUSED:
            faults.append(Fault(name, f"is not taken: {REFUSED[name]}"))
        elif name in CUDA:
            ours += ["--device", "cuda"]
            notes |= {f"{name}: {NEEDLESS[name]}": None} if name in NEEDLESS else {}
        elif name in NEEDLESS:
            notes[f"{name}: {NEEDLESS[name]}"] = None
        elif name.startswith("--no-") and f"--{name[5:]}" in (*NEEDLESS, *CUDA):
            continue  # what it turns off is off, or cannot be
        else:
            ours.append(argument)
    if faults:
        raise SettingsError("ronghe merge", faults)
    return ours, list(notes)


def _split(argument: str) -> tuple[str, bool, str]:
    """The option's name and the value that is written with it: `--a=1`, `-j4`, `-vv`."""
    if argument.startswith("--"):
        name, equals, value = argument.partition("=")
        return name, bool(equals), value
    if re.fullmatch(r"-v+", argument):
        return "-v", False, ""
    if argument[:2] in ("-j", "-I") and len(argument) > 2:
        return argument[:2], True, argument[2:]
    return argument, False, ""


def _value(written: bool, value: str, rest: Iterator[str]) -> list[str]:
    """The option's value: what is written with it, or what comes next."""
    if written:
        return [value]
    following = next(rest, None)
    return [] if following is None else [following]


def _size(text: str, faults: list[Fault]) -> str:
    """mergekit's size in bytes: 5B is 5 · 10⁹, 200M, 50k."""
    found = _SIZE.fullmatch(text)
    if found:
        return str(int(found[1]) * 10 ** _POWERS[found[2].lower()])
    if not re.fullmatch(r"[0-9.]+\s*[KMGT]i?B", text, re.IGNORECASE):
        problem = (
            f"is {text[:SHOWN]!r}; give bytes as 5B (5 billion), 500M or 50k, or --shard-size 5GB"
        )
        faults.append(Fault(SHARD_SIZE, problem))
    return text
