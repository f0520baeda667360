"""The catalog site as an asset: what it shows, what it comes after, and when it is rendered."""

import dagster as dg

from assets.catalog_site import build_catalog_site
from assets.work.ranking.collecting import Contest
from orchestration.automation import when_any_input_changes, when_inputs_change
from orchestration.catalogs import Partitions
from orchestration.catalogs.site_facts import site_facts, site_inputs, site_version


def site_asset(partitions: Partitions, contest: Contest, name: str) -> dg.AssetsDefinition:
    """Build `catalog_site` of a catalog of that name.

    Where nothing is scored, a model that cannot be pulled holds up no page. Where anything is, the
    leaderboard has waited for what there is, and the site is rendered once after the champions.
    """
    facts = site_facts(partitions, contest, name)
    condition = when_inputs_change() if contest.recipes else when_any_input_changes()
    version = site_version(partitions, facts)
    return build_catalog_site(facts, site_inputs(facts), version, condition)
