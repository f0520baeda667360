"""`ronghe sign` and `ronghe verify --signed`: signatures with offline keys."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from assets.work.records.stored_names import LOADABLE, Named, open_named, resolve_name
from assets.work.records.withdrawal import read_each
from assets.work.sharing.signing import check_signature, is_encrypted, sign
from merge_ops.errors import Fault, SettingsError
from orchestration.commands.artifacts.path_command import warn_of_withdrawal, written
from orchestration.commands.catalog_store import open_store
from orchestration.commands.console import PlainConsole, print_json, progress_bar, say
from orchestration.commands.extras import require
from orchestration.commands.list_command import quoted
from orchestration.commands.store_tables import SHORT, make_console, print_table
from resources.store import Artifact, ArtifactStore


def run_sign(name: str, key: Path, as_json: bool = False) -> None:
    """Sign what a name stands for; what is virtual is written first. A key's password is asked for.

    Raises MissingArtifactError for a name that stands for nothing, SignatureError for a key that
    signs nothing, ModuleNotFoundError without the extra `signing`.
    """
    require("model_signing")
    password = None
    if is_encrypted(key):
        import typer

        password = typer.prompt(f"Password of {key}", hide_input=True, err=True)
    store = open_store()
    named = resolve_name(store, name)
    warn_of_withdrawal(store, named)
    model = written(store, open_named(store, named))
    with _hashed(model.nbytes) as told:
        public = sign(store, model, key, password, told)
    if as_json:
        print_json({"name": named.name, "digest": model.digest, "key": public})
        return
    console = PlainConsole()
    say(console, f"{named.name} ({model.digest[:SHORT]}) is signed by key {public[:SHORT]}")
    say(console, f"Check it: ronghe verify {quoted(name)} --signed --public-key FILE")


def run_check(
    names: Sequence[str],
    signed: bool,
    public_key: Path | None,
    kind: str | None = None,
    repairing: bool = False,
    as_json: bool = False,
) -> None:
    """Check the signatures of what names stand for, of every written model without any.

    Status 1 where one is not signed by the key, or not as it was signed. Raises SettingsError for
    options that do not go together, SignatureError for a file that holds no public key.
    """
    if not signed or public_key is None or repairing:
        way = "go together: `ronghe verify NAME --signed --public-key FILE`; nothing is repaired"
        raise SettingsError("ronghe verify", [Fault("--signed and --public-key", way)])
    require("model_signing")
    store, console = open_store(), make_console()
    chosen = [resolve_name(store, name) for name in names] or _every(store, kind)
    bad: list[tuple[str, str, str]] = []
    for named in chosen:
        model = open_named(store, named)
        if isinstance(model, Artifact) and model.virtual:
            bad.append((named.kind, named.digest, "is virtual: it has no files that were signed"))
            continue
        with _hashed(model.nbytes) as told:
            fault = check_signature(store, model, public_key, told)
        if fault is not None:
            bad.append((named.kind, named.digest, fault))
    if as_json:
        told = [dict(zip(("kind", "digest", "problem"), row, strict=True)) for row in bad]
        print_json({"store": store.uri, "artifacts": len(chosen), "not_as_signed": told})
        console.quiet = True
    if bad:
        print_table(console, "not as signed", ("kind", "digest", "problem"), bad)
    good = len(chosen) - len(bad)
    say(console, f"{good} of {len(chosen)} artifacts in {store.uri} are as this key signed them")
    if bad:
        raise SystemExit(1)


def _every(store: ArtifactStore, kind: str | None) -> list[Named]:
    """Every model and checkpoint that is written, or those of one kind."""
    kinds = LOADABLE if kind is None else (kind,)
    listed = [name for name in store.upkeep.manifests() if name[0] in kinds]
    return [
        Named(digest, kind, digest)
        for (kind, digest), manifest in read_each(store, listed)
        if not isinstance(manifest, dict) or manifest.get("virtual") is not True
    ]


@contextmanager
def _hashed(nbytes: int) -> Iterator[Callable[[int], object]]:
    with progress_bar(PlainConsole(stderr=True)) as bar:
        task = bar.add_task("hashing", total=nbytes)
        yield lambda done: bar.update(task, completed=done)
