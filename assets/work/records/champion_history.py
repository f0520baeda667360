"""What a recipe's champion was, why, and whether it is still what the recipe makes. No Dagster.

A champion's ref keeps every change. What a person decided is there with a reason (`because`), with
the leaderboard that was known then, and with the digests that were passed over. What was known then
does not undo that decision: it takes a candidate that is new since, or a suite that asks otherwise.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assets.work import names

if TYPE_CHECKING:
    from resources.store import ArtifactStore, Ref, RefEntry

BY_HAND, BECAUSE, PASSED_OVER = "by_hand", "because", "passed_over"
SUITE_DIGEST, LEADERBOARD_THEN = "suite_digest", "leaderboard"
PROMOTION, ROLLBACK = "promotion", "rollback"
"""What a person did, as the ref's `by_hand` says."""
DEMOTED = "demoted"
"""The champion that a change took back because it rests on something withdrawn, by digest."""
WITHDRAWAL = "withdrawal"


@dataclass(frozen=True)
class ChampionState:
    """A champion as its ref tells it; `stale` says why it is not what the recipe makes today."""

    ref: "Ref"
    stale: str | None

    @property
    def digest(self) -> str:
        """The checkpoint's digest."""
        return self.ref.digest


def champion_state(store: "ArtifactStore", recipe: str) -> ChampionState | None:
    """Read the champion of a recipe; None where it has none."""
    ref = names.ref_of(store, names.champion(recipe))
    return ChampionState(ref, _why_stale(store, recipe, ref)) if ref is not None else None


def history_rows(ref: "Ref") -> list[dict[str, str]]:
    """Tell every change of a champion, the last one first, for people."""
    return [
        {
            "at": entry.at[:19].replace("T", " "),
            "champion": "none" if entry.fields.get("vacant") else entry.digest[:12],
            "what": "–" if entry.fields.get("vacant") else _what(entry),
            "how": entry.fields.get(BY_HAND) or (WITHDRAWAL if DEMOTED in entry.fields else "gate"),
            "because": reason_of(entry),
            "by": entry.by or "–",
        }
        for entry in reversed(ref.history)
    ]


def before_this(ref: "Ref") -> "RefEntry | None":
    """Return the champion before the present one; a rollback counts as if nothing had followed."""
    line = line_of(ref)
    return line[-2] if len(line) > 1 else None


def line_of(ref: "Ref") -> "list[RefEntry]":
    """Return the champions one after another, oldest first, the present one last.

    After a rollback or a demotion to an earlier one it is as if nothing had followed that.
    """
    line: list[RefEntry] = []
    for entry in ref.history:
        if entry.fields.get("vacant"):
            continue
        if entry.fields.get(BY_HAND) == ROLLBACK or DEMOTED in entry.fields:
            back = [place for place, each in enumerate(line) if each.digest == entry.digest]
            line = line[: back[-1]] if back else line
        if not line or line[-1].digest != entry.digest:
            line.append(entry)
        else:
            line[-1] = entry
    return line


@dataclass(frozen=True)
class SetAside:
    """A candidate that a person passed over: it does not come back by itself."""

    by: str
    at: str
    because: str

    def __str__(self) -> str:
        return f"was passed over by {self.by} on {self.at[:10]}: {self.because}"


def set_aside(store: "ArtifactStore", ref: "Ref | None", suite_digest: str) -> dict[str, SetAside]:
    """Return what persons passed over on this suite, by digest, unless they took it up again."""
    found: dict[str, SetAside] = {}
    for entry in ref.history if ref is not None else ():
        if not entry.fields.get(BY_HAND) or entry.fields.get(SUITE_DIGEST) != suite_digest:
            continue
        said = SetAside(entry.by or "somebody", entry.at, str(entry.fields.get(BECAUSE, "")))
        known = [*entry.fields.get(PASSED_OVER, ()), *_known_then(store, entry)]
        found.update(dict.fromkeys(map(str, known), said))
        found.pop(entry.digest, None)
    return found


def _known_then(store: "ArtifactStore", entry: "RefEntry") -> Iterator[str]:
    """The digests of the merged checkpoints on the leaderboard that a person had before them."""
    from resources.errors import DamagedArtifactError

    digest = entry.fields.get(LEADERBOARD_THEN)
    try:
        board = store.find("leaderboard", digest) if isinstance(digest, str) else None
        for file in board.files if board is not None else ():
            if board is not None and file.endswith(".json"):
                yield from (row["digest"] for row in board.read_json(file) if row.get("experts"))
    except (DamagedArtifactError, KeyError, TypeError, ValueError):
        return  # those that the entry names itself stay passed over


def _why_stale(store: "ArtifactStore", recipe: str, ref: "Ref") -> str | None:
    """Say what changed since a champion was made: models, the recipe, or what it is asked for."""
    experts, coefficient = ref.fields.get("experts"), ref.fields.get("coefficient")
    if experts is None and coefficient is None:
        return None  # of a release that did not say where it came from
    partition = f"{coefficient}|{experts}" if experts else coefficient
    merged = names.ref_of(store, names.merged_checkpoint(recipe), partition)
    if merged is None:
        return "the recipe does not make it any more"
    made = next((each for each in reversed(merged.history) if each.digest == ref.digest), None)
    models: Mapping[str, Any] = (made.fields.get("models") or {}) if made is not None else {}
    now: Mapping[str, Any] = merged.fields.get("models") or {}
    changed = sorted(
        name
        for name, digest in models.items()
        if now.get(name) != digest or _moved_on(store, name, digest)
    )
    if changed:
        again = "" if merged.digest != ref.digest else "; `ronghe refresh` merges it again"
        return f"it was made from an earlier {_listed(changed)}{again}"
    if merged.digest != ref.digest:
        return "the recipe makes another checkpoint of these models now"
    return None


def _moved_on(store: "ArtifactStore", name: str, digest: str) -> bool:
    """Whether a model's name has left the model that was merged: an update came since."""
    ref = store.ref("model", name)
    known = [entry.digest for entry in ref.history] if ref is not None else []
    return digest in known and known[-1] != digest


def _listed(changed: Sequence[str]) -> str:
    more = len(changed) - 4
    return ", ".join(changed[:4]) + (f" and {more} more" if more > 0 else "")


def _what(entry: "RefEntry") -> str:
    parts = (entry.fields.get("experts"), entry.fields.get("coefficient"))
    return " ".join(str(part) for part in parts if part and part != "default") or "–"


def reason_of(entry: "RefEntry") -> str:
    """Return why a champion was changed: what a person said, or the gate; a dash for neither."""
    if entry.fields.get(BECAUSE):
        return str(entry.fields[BECAUSE])
    reasons = entry.fields.get("reasons")
    return "; ".join(map(str, reasons)) if isinstance(reasons, list) else "–"
