"""What early stopping saved in real refreshes: two stores of one catalog, side by side.

    python -m benchmarks.early_stopping --prepare /tmp/early       # a copy of the catalog
    (cd /tmp/early && RONGHE_CATALOG=catalog RONGHE_STORE=… DAGSTER_HOME=… ronghe refresh)
    python -m benchmarks.early_stopping --whole .ronghe/store --early /tmp/early/.ronghe/store

`--prepare` copies the catalog of the environment (RONGHE_CATALOG), and the folder `.ronghe` beside
it without its store, and writes `gate: {early_stopping: true}` into every recipe. When both
catalogs are refreshed, the two stores are read, and nothing is written: of each recipe and expert
set, how many items were asked, whether the same coefficient was chosen on validation items, and
whether the recipe has the same champion. What the two are compared by is digests: the same models
and suites in both.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.rigs.contest import markdown, save

if TYPE_CHECKING:
    from resources.store import ArtifactStore

COLUMNS = ("recipe", "experts", "candidates", "left early", "items asked", "of", "saved",
           "the same choice", "the same champion")  # fmt: skip


@dataclass(frozen=True)
class Scored:
    """What a store has of one recipe and expert set.

    `asked` counts answers. `best` is the digest of the candidate whose validation mean is highest.
    """

    candidates: int
    left: int
    asked: int
    best: str


def prepare(folder: Path) -> None:
    """Copy the catalog of the environment, with early stopping in every gate."""
    import yaml

    from orchestration.settings import load_settings

    source = load_settings().catalog.resolve()
    shutil.copytree(source, folder / source.name)
    for part in (source.parent / ".ronghe").glob("*"):
        if part.name not in ("store", "dagster"):
            shutil.copytree(part, folder / ".ronghe" / part.name, symlinks=True)
    for path in sorted((folder / source.name / "recipes").glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        content["gate"] = {**(content.get("gate") or {}), "early_stopping": True}
        path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    print(f"{folder / source.name}: refresh it with a store of its own")


def scored(store: "ArtifactStore", recipe: str) -> dict[str, Scored]:
    """What a store has of a recipe, by expert set."""
    from assets.work import names
    from assets.work.scoring.partial_scores import PARTIAL, read_partial
    from assets.work.scoring.scoring import SCORES, read_scores

    found: dict[str, Scored] = {}
    ranked: dict[str, list[tuple[float, str, str]]] = {}
    for partition, ref in sorted(names.refs_of(store, names.scores(recipe), None).items()):
        coefficient, _, experts = str(partition).partition("|")
        before = found.get(experts, Scored(0, 0, 0, ""))
        artifact = store.get(ref.kind, ref.digest)
        left = ref.kind == PARTIAL
        if left:
            partial = read_partial(store, ref, artifact.manifest["suite"]["digest"])
            asked = partial.asked if partial is not None else 0
        else:
            assert ref.kind == SCORES
            scores = read_scores(artifact)
            asked = len(scores.samples)
            digest = artifact.manifest["checkpoint"]["digest"]
            rank = (-scores.mean("validation").value, coefficient, digest)
            ranked.setdefault(experts, []).append(rank)
        best = min(ranked[experts])[2] if experts in ranked else ""
        counts = before.candidates + 1, before.left + left, before.asked + asked
        found[experts] = Scored(*counts, best)
    return found


def champion(store: "ArtifactStore", recipe: str) -> str:
    """The digest of a recipe's champion; "" where there is none."""
    from assets.work import names

    ref = names.ref_of(store, names.champion(recipe))
    return ref.digest if ref is not None else ""


def compared(whole: "ArtifactStore", early: "ArtifactStore") -> list[dict[str, Any]]:
    """A row for each recipe of the catalog and each expert set."""
    from orchestration.catalogs import load_catalog
    from orchestration.settings import load_settings

    rows: list[dict[str, Any]] = []
    for name, recipe in load_catalog(load_settings().catalog).recipes.items():
        if recipe.suite is None:
            continue
        before, after = scored(whole, name), scored(early, name)
        same = champion(whole, name) == champion(early, name)
        for experts in sorted(before.keys() & after.keys()):
            a, b = before[experts], after[experts]
            rows.append(
                {
                    "recipe": name, "experts": experts, "candidates": b.candidates,
                    "left": b.left, "asked": b.asked, "of": a.asked,
                    "same choice": a.best == b.best, "same champion": same,
                }
            )  # fmt: skip
    return rows


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row of the table."""
    saved = 1 - row["asked"] / row["of"]
    return [
        row["recipe"], row["experts"], str(row["candidates"]), str(row["left"]),
        str(row["asked"]), str(row["of"]), f"{saved:.1%}",
        *("yes" if row[key] else "no" for key in ("same choice", "same champion")),
    ]  # fmt: skip


def main() -> None:
    """The command line."""
    from orchestration.settings import load_settings
    from resources.store import ArtifactStore

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prepare", type=Path, help="copy the catalog to this new folder")
    parser.add_argument("--whole", type=Path, help="a local store without early stopping")
    parser.add_argument("--early", type=Path, help="a local store with it")
    parser.add_argument("--catalog-name", help="of both, where the store has several")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    arguments = parser.parse_args()
    if arguments.prepare is not None:
        prepare(arguments.prepare)
        return
    if arguments.whole is None or arguments.early is None:
        parser.error("give --prepare, or --whole and --early")
    name = arguments.catalog_name or load_settings().catalog_name
    stores = [
        ArtifactStore.open(path.resolve().as_uri(), catalog=name)
        for path in (arguments.whole, arguments.early)
    ]
    rows = compared(*stores)
    if not rows:
        sys.exit("no recipe has scores in both stores")
    print(markdown(COLUMNS, list(map(cells, rows)), left=2))
    asked, of = (sum(row[key] for row in rows) for key in ("asked", "of"))
    same = sum(row["same choice"] for row in rows)
    print(f"\n{asked} of {of} answers asked, {1 - asked / of:.1%} saved; the same choice in {same}"
          f" of {len(rows)} sets")  # fmt: skip
    save(arguments.json, {"rows": rows, "asked": asked, "of": of})


if __name__ == "__main__":
    main()
