"""`ronghe reproduce`: a checkpoint is planned and merged again, and its bytes are compared."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from assets.work.merging.manifests import this_release
from assets.work.merging.virtual_checkpoints import CHECKPOINT
from assets.work.records.lineage import KINDS, lineage
from assets.work.records.store_cards import reproduction_of
from assets.work.records.stored_names import resolve_name
from assets.work.upstream.packed_models import as_it_was
from merge_ops.errors import (
    AncestryError,
    CheckpointError,
    Fault,
    FaultsError,
    ReproductionError,
    SettingsError,
)
from merge_ops.provenance.hub_card import CARD_FILE, Part, Reproduction, from_card
from orchestration.commands.catalog_store import open_store
from orchestration.commands.console import PlainConsole, marked, print_json, progress_bar, say
from orchestration.commands.models.input_digests import content_digest, prove_models
from orchestration.commands.models.local_models import open_models
from orchestration.options import read, size
from orchestration.settings import how_to_compute
from resources.errors import ResourceError

if TYPE_CHECKING:
    from assets.work.records.reproducing import Remade
    from merge_ops.checkpoints import ByteSource
    from resources.store import ArtifactStore

COMMAND = "ronghe reproduce"
MOST_CARD = 4 << 20


@dataclass(frozen=True)
class ReproduceOptions:
    """The options of `ronghe reproduce`, as they were typed."""

    models: tuple[str, ...] = ()
    threads: str | None = None
    device: str | None = None
    memory: str | None = None
    shard_size: str = "5GB"
    as_json: bool = False


def run_reproduce(what: str, options: ReproduceOptions) -> None:
    """Make a checkpoint again from its card, its name or its digest, and compare the bytes.

    Exit status 0: the same bytes; 1: other bytes, or nothing to compare with. Raises
    ReproductionError where it cannot be made here, and says why.
    """
    from assets.work.records.reproducing import make_again
    from merge_ops.stream import StreamSettings
    from merge_ops.working_folders import working_folder

    how = how_to_compute(COMMAND, options.threads, options.device, options.memory)
    shard_bytes = read(COMMAND, "--shard-size", options.shard_size, size)
    given = _given(options.models)
    card = _card_at(what)
    store = _store(needed=card is None)
    beside = card.parent if card is not None else None
    told = _from_card(card) if card is not None else _from_store(store, what)
    console = PlainConsole(stderr=True)
    inputs = _Inputs(store, given, beside)
    settings = StreamSettings(how.threads, how.device, how.memory)
    with working_folder() as work, progress_bar(console) as bar:
        task = bar.add_task("merging again", total=None)
        remade = make_again(
            told,
            inputs.open_part,
            settings,
            work,
            this_release(),
            shard_bytes,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    _report(remade, options.as_json)
    if not remade.same:
        raise SystemExit(1)


def _card_at(what: str) -> Path | None:
    """The card that a path leads to; None where it is a name or a digest."""
    path = Path(what).expanduser()
    if path.is_dir():
        path = path / CARD_FILE
    return path if path.is_file() else None


def _store(needed: bool) -> "ArtifactStore | str":
    """The catalog's store; beside a card it need not be there, and this tells why it is not."""
    try:
        return open_store()
    except (FaultsError, ResourceError) as error:
        if needed:
            raise
        return str(error)


def _from_card(card: Path) -> Reproduction:
    """What a card says, with the files beside it where it lists none."""
    if card.stat().st_size > MOST_CARD:
        raise AncestryError(f"{card} is longer than any card: {card.stat().st_size} bytes")
    told = from_card(card.read_text(encoding="utf-8", errors="replace"), str(card))
    if told.files:
        return told
    from blake3 import blake3

    weights = sorted(card.parent.glob("*.safetensors"))
    found = {each.name: blake3(max_threads=blake3.AUTO) for each in weights}
    for each in weights:
        found[each.name].update_mmap(each)
    return replace(told, files={name: each.hexdigest() for name, each in found.items()})


def _from_store(store: "ArtifactStore | str", what: str) -> Reproduction:
    assert not isinstance(store, str)
    named = resolve_name(store, what)
    if named.kind != CHECKPOINT:
        raise ReproductionError(
            f"'{what}' stands for a {named.kind} that was pulled, not for what a merge made;"
            " `ronghe verify` compares it with what was pulled"
        )
    return reproduction_of(store, store.get(named.kind, named.digest), lineage(store, what))


def _given(models: tuple[str, ...]) -> dict[str, str]:
    """Where models are, as --model NAME=PLACE says; NAME may be a digest's beginning."""
    places: dict[str, str] = {}
    for each in models:
        name, equals, place = each.partition("=")
        if not equals or not name or not place:
            problem = f"is {each!r}; write NAME=PLACE, with the name or the digest as in the card"
            raise SettingsError(COMMAND, [Fault("--model", problem)])
        places[name] = place
    return places


@dataclass
class _Inputs:
    """Where inputs are looked for: what was said, the store, their public source, their name."""

    store: "ArtifactStore | str"
    """The store, or why there is none."""
    given: Mapping[str, str]
    beside: Path | None
    _opened: dict[str, "ByteSource"] = field(default_factory=dict)

    def open_part(self, part: Part, name: str) -> "ByteSource":
        """Open the content with a part's digest, wherever it is. Raises ReproductionError."""
        if part.digest not in self._opened:
            self._opened[part.digest] = self._found(part, name)
        return self._opened[part.digest]

    def _found(self, part: Part, name: str) -> "ByteSource":
        tried: list[str] = []
        said = self.given.get(name) or next(
            (place for key, place in self.given.items() if part.digest.startswith(key)), None
        )
        if said is None:
            stored = self._stored(part.digest, tried)
            if stored is not None:
                return stored
        for place in [said] if said is not None else self._places(part, name):
            found = self._local(place, part.digest, tried)
            if found is not None:
                return found
        told = "; ".join(tried) or "nothing tells where it is"
        raise ReproductionError(
            f"input '{name}' with digest {part.digest} is not here any more: {told}. Say where it"
            f" is with --model {part.digest[:12]}=PLACE"
        )

    def _stored(self, digest: str, tried: list[str]) -> "ByteSource | None":
        if isinstance(self.store, str):
            tried.append(self.store)
            return None
        try:
            for kind in reversed(KINDS):
                artifact = self.store.find(kind, digest)
                if artifact is not None and not artifact.virtual:
                    return as_it_was(self.store, artifact).source()
        except ResourceError as error:
            tried.append(str(error))
            return None
        tried.append(f"artifact store {self.store.uri} has no model of that digest")
        return None

    def _places(self, part: Part, name: str) -> list[str]:
        """Where a card says that a model is: its public source, and its name as a path."""
        places = [part.source] if part.source is not None else []
        here = Path(name).expanduser()
        if self.beside is not None and not here.is_absolute() and (self.beside / here).exists():
            places.append(str(self.beside / here))
        return [*places, *([name] if here.exists() or not places else [])]

    def _local(self, place: str, digest: str, tried: list[str]) -> "ByteSource | None":
        """A model on this machine or the Hub, where its content has the digest."""
        try:
            (model,) = open_models(COMMAND, [place]).values()
            proved = prove_models([model])
        except (CheckpointError, FaultsError, ResourceError, OSError) as error:
            adapter = self._adapter(place, digest)
            if adapter is not None:
                return adapter
            tried.append(f"{place}: {error}")
            return None
        found = proved.get(model.source)
        if found != digest:
            tried.append(f"{place} has another content now, with digest {str(found)[:12]}")
            return None
        return model.source

    def _adapter(self, place: str, digest: str) -> "ByteSource | None":
        """An adapter's folder, which is no model by itself."""
        from merge_ops.checkpoints import FolderSource

        folder = Path(place).expanduser()
        try:
            same = folder.is_dir() and content_digest(folder) == digest
        except (CheckpointError, ResourceError, OSError):
            return None
        return FolderSource(folder) if same else None


def _report(remade: "Remade", as_json: bool) -> None:
    if as_json:
        document = {
            "digest": remade.digest,
            "same": remade.same,
            "equal": list(remade.equal),
            "different": list(remade.different),
            "files": dict(remade.files),
        }
        print_json(document)
        return
    console, short = PlainConsole(), remade.digest[:12]
    if remade.same:
        say(
            console,
            f"checkpoint {short}: made again; files compared: {len(remade.equal)}, all the same",
        )
    elif remade.different:
        told = (
            f"checkpoint {short}, made again, has other bytes in {', '.join(remade.different)}; the"
            " plan is the same, so the files were changed since, or this machine computes otherwise"
        )
        say(console, marked("different:", "red", told))
    else:
        told = (
            f"checkpoint {short} is planned as before and was merged again, and there is no file to"
            " compare with; name the folder that has its weights"
        )
        say(console, marked("not compared:", "yellow", told))
