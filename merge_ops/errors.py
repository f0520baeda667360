"""What can go wrong in a merge, as one tree.

    RongheError
    ├── RecipeError            a recipe that cannot be right; carries every fault found
    │   └── UnknownMethodError   no merge method of that name
    ├── CheckpointError        a folder or file that is no readable checkpoint
    │   ├── MissingModelError    nothing there at all
    │   ├── UnreadableFileError  (also an OSError) a file that may not or cannot be read
    │   ├── ChangedInputError    a file is not what was hashed, or changed while it was read
    │   └── PackedModelError     a packed model that is damaged, or not given its own base
    ├── CompatibilityError     checkpoints that may not be merged together; every fault found
    ├── StatisticsError        statistics that are of something else, or of nothing; every fault
    ├── NonFiniteError         NaN or infinity in an input or a result, found while streaming
    ├── NoDirectionError       tensors that cancel out where a method needs their direction
    ├── SettingsError          memory or threads that cannot work
    ├── DeviceError            a device was asked for that is not there
    ├── ChildError             what a limited child did for us came to nothing
    │   ├── ChildEndedError      it ended: out of memory, out of time, by a signal, by a panic
    │   └── ChildRaisedError     it raised an exception
    ├── AncestryError          what is said of a model's origin or licence that cannot be so
    ├── LicenceConflictError   licences that do not go together, where something is published
    ├── ReproductionError      a checkpoint that cannot be made again here, and why
    ├── SignatureError         a key that signs nothing, or a file that holds none
    └── OutputError            the output cannot be written where it was asked for

Every message says where, what was given, what is allowed and what to do. Catch by type; the text
is for people and may change.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MAX_SHOWN, MAX_FAULT = 200, 3000
"""Faults of one error that its text lists, and characters of each."""


class RongheError(Exception):
    """Root of all errors a merge raises on purpose."""


@dataclass(frozen=True, order=True)
class Fault:
    """One thing wrong: `where` in the file (`models[1].parameters.density`) and what about it."""

    where: str
    problem: str

    def __str__(self) -> str:
        return f"{self.where} {self.problem}" if self.where else self.problem


@dataclass(frozen=True, order=True)
class Caution:
    """One thing to look at before a result is used: it does not stop the work.

    `where` is the model or the key, `problem` what was seen and what follows from it, `advice` what
    to do where it was not meant.
    """

    where: str
    problem: str
    advice: str

    def __str__(self) -> str:
        told = f"{self.where} {self.problem}" if self.where else self.problem
        return f"{told}. {self.advice}" if self.advice else told


class FaultsError(RongheError):
    """An error that reports every fault of one file or pairing at once."""

    def __init__(self, subject: str, faults: Sequence[Fault]) -> None:
        self.subject = subject
        self.faults = tuple(faults)
        super().__init__(self._text())

    def _text(self) -> str:
        if len(self.faults) == 1:
            return f"{self.subject}: {_cut(self.faults[0])}"
        lines = [f"{self.subject}: {len(self.faults)} faults"]
        lines += [f"  - {_cut(fault)}" for fault in self.faults[:MAX_SHOWN]]
        if len(self.faults) > MAX_SHOWN:
            lines.append(f"  - and {len(self.faults) - MAX_SHOWN} more")
        return "\n".join(lines)


def _cut(fault: Fault) -> str:
    """A fault as text: what strangers wrote is quoted in it, and may have no end."""
    text = str(fault)
    return text if len(text) <= MAX_FAULT else f"{text[:MAX_FAULT]}…"


class RecipeError(FaultsError):
    """A recipe with unknown keys, wrong types or impossible values."""


class UnknownMethodError(RecipeError):
    """`merge_method` names no registered method."""


class CheckpointError(RongheError):
    """A checkpoint's files are missing, malformed, truncated or point outside their folder."""


class MissingModelError(CheckpointError):
    """A model's folder does not exist or holds no weights."""


class UnreadableFileError(CheckpointError, OSError):
    """A file of a folder may not be read, or cannot be: a link out of it, a pipe, permissions."""


class ChangedInputError(CheckpointError):
    """A file of a model changed while it was read, or has other bytes than were hashed."""


class PackedModelError(CheckpointError):
    """A packed model is damaged, or the base it was packed against is not the one given."""


class CompatibilityError(FaultsError):
    """Checkpoints whose tensors, vocabularies or architectures do not fit together."""


class StatisticsError(FaultsError):
    """A file of statistics holds something else than is asked of it, or numbers that are none."""


class NonFiniteError(RongheError):
    """An input tensor holds NaN or infinity, or what is made of finite ones does."""


class NoDirectionError(RongheError):
    """The weighted directions of a tensor's inputs cancel out, and their mean has none."""


class SettingsError(FaultsError):
    """Settings of a run that cannot work: an option or an environment variable."""


class DeviceError(RongheError):
    """The requested device cannot be used."""


class ChildError(RongheError):
    """Work of a limited child that came to nothing; `doing` names it and the model it was for."""

    def __init__(self, doing: str, told: str) -> None:
        self.doing = doing
        super().__init__(told)


class ChildEndedError(ChildError):
    """A limited child ended at its work; `cause` says why: a limit, a signal or a panic."""

    def __init__(self, doing: str, cause: str) -> None:
        self.cause = cause
        super().__init__(doing, f"the child that {doing} ended: {cause}")


class ChildRaisedError(ChildError):
    """A limited child raised an exception at its work: `kind` names its class, `why` its text."""

    def __init__(self, doing: str, kind: str, why: str) -> None:
        self.kind = kind
        self.why = why
        super().__init__(doing, f"the child that {doing} failed: {kind}: {why}")


class AncestryError(RongheError):
    """What is written of where a model comes from, or under which licence, cannot be so."""


class LicenceConflictError(RongheError):
    """Licences of the inputs do not go together, and nobody accepted that by name."""


class ReproductionError(RongheError):
    """A checkpoint cannot be made again here: an input is gone, or another one, or so is a rule."""


class SignatureError(RongheError):
    """A key cannot sign, or a file holds no key."""


class OutputError(RongheError):
    """The output folder cannot be used."""


_shortened = reprlib.Repr()
_shortened.maxstring = _shortened.maxother = _shortened.maxlong = 300
_shortened.maxlist = _shortened.maxdict = _shortened.maxtuple = 10
_shortened.maxlevel = 5


def quoted(value: object) -> str:
    """Return a value as a message shows it: what strangers wrote may have no end."""
    return _shortened.repr(value)


_JOINERS = "\u200c\u200d"  # which words of some scripts, and many emoji, are written with


def shown(text: object, lines: bool = False) -> str:
    """Return what a stranger wrote as text that no terminal, log or page takes for a command.

    Control characters and changes of direction are written as in a string: `\\x1b`, `\\u202e`. So
    are ends of lines, unless `lines` says that the text has some of its own.
    """
    kept = _JOINERS + "\n" * lines
    return "".join(
        each if each.isprintable() or each in kept else _escaped(each) for each in str(text)
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the nearest known word, or an empty string.

    Capitals, dashes and spaces do not count: `DARE-TIES` is near `dare_ties`. A word is no hint for
    itself.
    """
    plain = {_plain(each): each for each in reversed(list(known)) if each != word}
    near = difflib.get_close_matches(_plain(str(word)[:200]), list(plain), n=1, cutoff=0.6)
    return f" Did you mean '{plain[near[0]]}'?" if near else ""


def _plain(word: str) -> str:
    return word.strip().lower().replace("-", "_").replace(" ", "_")
