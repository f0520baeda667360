"""`ronghe init` and `ronghe add`: a catalog for one's own models, and further models in one."""

import os
import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from merge_ops.errors import Fault, SettingsError, did_you_mean
from orchestration.commands.console import PlainConsole, print_json, say
from orchestration.commands.starting import first_catalog as texts
from orchestration.commands.starting.models_text import with_entries, write_over
from orchestration.commands.starting.new_models import (
    NewModel,
    NewModelError,
    asked,
    clean_name,
    look_at,
)
from orchestration.commands.store_tables import print_table
from orchestration.settings import load_settings

ITEMS = (".jsonl", ".csv", ".parquet")
COLUMNS = ("model", "source", "base", "kind", "licence", "found")


@dataclass(frozen=True)
class Beginning:
    """What a first catalog is made of, as it was typed. `suite` is a shipped one's, or items."""

    base: str
    experts: Sequence[str]
    suite: str | None = None
    language: str = "en"
    look: bool = True
    follow_links: bool = False


def run_init(folder: Path, beginning: Beginning, as_json: bool = False) -> None:
    """Write FOLDER/catalog for models of one's own, check it, and say how to go on.

    Nothing is written before every model was looked at. Raises NewModelError with the faults of
    all models, SettingsError where a catalog is there already or the suite is none; status 1 where
    what was written has faults that only the user can mend.
    """
    catalog = folder / "catalog"
    if (catalog / "models.yaml").exists():
        raise _wrong("DIR", f"{catalog} is a catalog already; add to it with `ronghe add`")
    suite, suite_text = _suite(beginning.suite, catalog, beginning.language)
    wanted = [(asked(beginning.base), False), *((asked(each), True) for each in beginning.experts)]
    base, *experts = look_at(
        wanted, catalog, look=beginning.look, follow_links=beginning.follow_links
    )
    models = [base, *(replace(each, base=base.name) for each in experts)]
    name = clean_name(unicodedata.normalize("NFC", folder.absolute().name)).lstrip(".-") or "models"
    names = [model.name for model in experts]
    files = {"models.yaml": texts.models_yaml(name, models, beginning.language)}
    sketched = texts.recipes(base.name, names, suite, beginning.language, _shipped())
    files |= {f"recipes/{name}.yaml": text for name, text in sketched.items()}
    files |= {f"suites/{suite}.yaml": suite_text} if suite_text else {}
    _write_new({catalog / place: text for place, text in files.items()})
    if not (folder / ".gitignore").exists():
        (folder / ".gitignore").write_text(texts.IGNORED, encoding="utf-8")
    console = PlainConsole()
    console.quiet = as_json
    for place in sorted(files):
        say(console, f"wrote {catalog / place}")
    _print_models(console, models)
    faulty = _say_faults(console, catalog)
    if as_json:
        wrote = [str(catalog / place) for place in sorted(files)]
        print_json({"catalog": str(catalog), "wrote": wrote, **_told(models, faulty)})
    for line in (
        texts.next_steps(shlex.quote(str(folder)), suite, beginning.language)
        .rstrip("\n")
        .split("\n")
    ):
        say(console, line)
    if faulty:
        raise SystemExit(1)


def _write_new(files: Mapping[Path, str]) -> None:
    """Write files that are not there yet, all of them or none.

    Raises SettingsError where something is in the place of one: it may be a recipe that was written
    before there was a catalog.
    """
    taken = [path for path in files if os.path.lexists(path)]
    if taken:
        names = ", ".join(map(str, taken))
        way = "move what you keep, or name another folder"
        raise _wrong("DIR", f"holds {names} already, which init would write; {way}")
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError:
        for path in files:
            path.unlink(missing_ok=True)
        raise


def run_add(
    sources: Sequence[str],
    base: str | None,
    is_base: bool,
    look: bool,
    follow_links: bool,
    as_json: bool = False,
) -> None:
    """Put models into the catalog's models.yaml, whose other bytes stay as they are.

    They are experts of `base` (by default the catalog's only base model), or with `is_base` base
    models. Raises NewModelError, SettingsError and CatalogError; nothing is written then.
    """
    from orchestration.catalogs import load_catalog

    folder = load_settings().catalog
    catalog = load_catalog(folder)
    of = None if is_base else _base_among(catalog.models, catalog.bases, base)
    wanted = [(asked(each), not is_base) for each in sources]
    found = look_at(wanted, folder, tuple(catalog.models), look, follow_links)
    models = [replace(each, base=of) for each in found]
    path = folder / "models.yaml"
    write_over(path, with_entries(path.read_bytes().decode("utf-8"), models))
    console = PlainConsole()
    console.quiet = as_json
    _print_models(console, models)
    say(console, f"added to {path}: `ronghe refresh --dry-run` says what that makes")
    faulty = _say_faults(console, folder)
    if as_json:
        print_json({"catalog": str(folder), **_told(models, faulty)})
    if faulty:
        raise SystemExit(1)


def _base_among(models: object, bases: Sequence[str], asked_for: str | None) -> str:
    known = list(models) if isinstance(models, dict) else list(bases)
    if asked_for is not None:
        if asked_for in known:
            return asked_for
        told = f"is '{asked_for}', which is no model of the catalog."
        raise _wrong("--base", f"{told}{did_you_mean(asked_for, known)} Known: {', '.join(known)}")
    if len(bases) == 1:
        return bases[0]
    if not bases and len(known) == 1:
        return known[0]
    told = ", ".join(bases or known)
    raise _wrong("--base", f"is missing, and the catalog has several to choose from: {told}")


def _suite(given: str | None, catalog: Path, language: str) -> tuple[str | None, str]:
    """The suite's name, and the text of its file where it is made of the user's items."""
    if given is None or given in _shipped():
        return given, ""
    path = Path(given).expanduser()
    if path.suffix in ITEMS and path.is_file():
        from orchestration.commands.starting.new_models import written_source

        name = clean_name(path.stem).strip(".-") or "items"
        source = written_source(path, catalog / "suites")
        return name, texts.suite_yaml(name, source, _has_splits(path), language)
    hint = did_you_mean(given, _shipped())
    allowed = f"{', '.join(_shipped())}, or a file of items ({', '.join(ITEMS)})"
    raise _wrong("--suite", f"is '{given}', which is neither.{hint} Allowed: {allowed}")


def _has_splits(items: Path) -> bool:
    """Whether the rows of a file of items say which split they are of, by the first of them."""
    if items.suffix == ".parquet":
        from pyarrow import parquet

        return "split" in parquet.read_schema(items).names
    with items.open("rb") as opened:
        first = opened.readline(1 << 20).decode("utf-8", errors="replace")
    return '"split"' in first if items.suffix == ".jsonl" else "split" in first.strip().split(",")


def _shipped() -> list[str]:
    from eval_ops.suites import shipped_suites

    return sorted(shipped_suites())


def _print_models(console: PlainConsole, models: Sequence[NewModel]) -> None:
    rows = [
        (m.name, m.source, m.base or "–", m.kind, m.licence or "not stated", m.facts)
        for m in models
    ]
    print_table(console, "", COLUMNS, rows)


def _told(models: Sequence[NewModel], faults: Sequence[str]) -> dict[str, Any]:
    """Models and faults as plain data."""
    return {"models": [asdict(model) for model in models], "faults": list(faults)}


def _say_faults(console: PlainConsole, catalog: Path) -> list[str]:
    """Read the catalog as a refresh will, and print and return what is wrong with it."""
    from orchestration.catalogs import load_catalog

    broken = [str(part) for part in load_catalog(catalog).broken.values()]
    for part in broken:
        say(console, part, style="red")
    return broken


def _wrong(where: str, problem: str) -> SettingsError:
    return SettingsError("the command line", [Fault(where, problem)])


__all__ = ["Beginning", "NewModelError", "run_add", "run_init"]
