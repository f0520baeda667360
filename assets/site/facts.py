"""What a catalog's folder says, as far as the site shows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from assets.work.ranking.collecting import Contest
from assets.work.upstream.entries import UpstreamModel
from merge_ops.recipes import Steps

SITE_VERSION = 3
"""Raised when the same catalog and store would give other pages: the site is rendered again."""


@dataclass(frozen=True)
class RecipeFacts:
    """A recipe of the catalog: its steps, and its live points by partition key."""

    steps: Steps
    points: Mapping[str, tuple[str, str]]

    @property
    def suite(self) -> str:
        """What its candidates are scored on; empty where on nothing."""
        return self.steps.result.suite or ""


@dataclass(frozen=True)
class CatalogFacts:
    """A catalog as the site needs it: its models, its recipes, and what competes.

    `name` is the catalog's, empty where it has none; `suites` are the digests of sound suites.
    """

    name: str
    models: Mapping[str, UpstreamModel]
    recipes: Mapping[str, RecipeFacts]
    contest: Contest = field(default_factory=lambda: Contest([], [], [], {}))
    suites: Mapping[str, str] = field(default_factory=dict[str, str])
