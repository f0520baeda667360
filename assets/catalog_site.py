"""catalog_site: the catalog as static pages, rendered at each change."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from assets.frame.display import listed, size
from assets.frame.run_settings import RunSettings
from assets.frame.team_asset import team_asset
from assets.site.facts import CatalogFacts
from assets.step_failures import recent_failures

CATALOG_SITE = "catalog_site"
GROUP = "site"
"""Of its own: it reads results and champions, whose groups would close a circle with it."""


def build_catalog_site(
    facts: CatalogFacts,
    deps: Sequence[str],
    code_version: str,
    condition: dg.AutomationCondition,
) -> dg.AssetsDefinition:
    """Build the asset `catalog_site`, after the assets `deps`, whose changes it shows."""

    @team_asset(
        CATALOG_SITE,
        condition,
        deps=[dg.AssetDep(dg.AssetKey.from_user_string(name)) for name in deps],
        group=GROUP,
        code_version=code_version,
        kind="html",
        description="The catalog as a static site for everybody: leaderboard, a page for each"
        " model, recipe, checkpoint and search, licences, and what changed when and why. It needs"
        " no server; `ronghe site --out DIR` writes it to a folder.",
    )
    def catalog_site(
        context: dg.AssetExecutionContext, settings: RunSettings
    ) -> dg.MaterializeResult:
        from assets.site.publishing import publish_site

        failures = recent_failures(context.instance)
        site = publish_site(settings.store(), facts, failures, context.run.run_id)
        view, artifact = site.view, site.artifact
        return dg.MaterializeResult(
            data_version=dg.DataVersion(artifact.digest),
            metadata={
                **_link(site.index),
                "uri": dg.MetadataValue.path(artifact.uri),
                "size": size(artifact.nbytes),
                "files": len(artifact.files),
                "unchanged": site.memoized,
                "models": len(view.models),
                "recipes": len(view.recipes),
                "checkpoints": len(view.checkpoints),
                "changes": len(view.changes),
                "could not be read": listed([f"{name}: {told}" for name, told in view.problems]),
                "seconds to collect": round(site.seconds[0], 3),
                "seconds to render": round(site.seconds[1], 3),
            },
        )

    return catalog_site


def _link(index: str) -> dict[str, Any]:
    """Where the first page is: a link where a browser can follow it, and a path to copy."""
    address = f"file://{index}" if index.startswith("/") else index
    return {"site": dg.MetadataValue.url(address), "first page": dg.MetadataValue.path(index)}
