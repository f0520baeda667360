"""What the catalog site needs of the catalog, and what it is rendered after."""

import dataclasses
import json
from typing import Any

from blake3 import blake3

from assets.site.facts import SITE_VERSION, CatalogFacts, RecipeFacts
from assets.site.sections.recipe_views import documents_of
from assets.work import names
from assets.work.ranking.collecting import Contest
from orchestration.catalogs.partitions import Partitions


def site_facts(partitions: Partitions, contest: Contest, name: str) -> CatalogFacts:
    """Collect what a catalog's folder says, as far as the site shows it."""
    catalog = partitions.catalog
    recipes = {
        recipe: RecipeFacts(steps, partitions.points_of(steps.result))
        for recipe, steps in catalog.files.items()
    }
    return CatalogFacts(name, catalog.models, recipes, contest, catalog.suite_digests)


def site_inputs(facts: CatalogFacts) -> list[str]:
    """Name the assets whose changes the site shows.

    Where anything is scored, every change reaches the leaderboard, and so one rendering is enough.
    """
    scored = [recipe.name for recipe in facts.contest.recipes]
    if scored:
        return ["leaderboard", *map(names.champion, scored)]
    return ["model", *map(names.merged_checkpoint, facts.recipes)]


def site_version(partitions: Partitions, facts: CatalogFacts) -> str:
    """Return what changes with everything that the folder says and the site shows."""
    said: list[Any] = [
        [SITE_VERSION, facts.name, dict(facts.suites), dataclasses.asdict(facts.contest.broken)],
        [dataclasses.asdict(model) for model in facts.models.values()],
        [
            [
                name,
                steps.result.title,
                steps.result.description,
                documents_of(steps),
                partitions.points_of(steps.result).digest,
            ]
            for name, steps in partitions.catalog.files.items()
        ],
    ]
    text = json.dumps(said, sort_keys=True, ensure_ascii=False, default=str)
    return blake3(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
