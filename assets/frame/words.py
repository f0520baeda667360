"""What a team says of its recipes and suites, in front of what an asset says of itself."""

from collections.abc import Mapping

import dagster as dg

from merge_ops.provenance.markdown import in_markdown


def with_words(
    definition: dg.AssetsDefinition,
    title: str | None,
    description: str | None = None,
    benchmarks: Mapping[str, str] | None = None,
) -> dg.AssetsDefinition:
    """Put a title, a description and the titles of benchmarks into what Dagster shows of an asset.

    They are the team's texts, and shown as text. Nothing that is made depends on them.
    """
    parts = [f"**{in_markdown(title)}**"] if title else []
    parts += [in_markdown(description)] if description else []
    if benchmarks:
        named = (f"{in_markdown(name)}: {in_markdown(said)}" for name, said in benchmarks.items())
        parts.append(" · ".join(named))
    if not parts:
        return definition

    def said(spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.replace_attributes(description="\n\n".join([*parts, spec.description or ""]))

    return definition.map_asset_specs(said)
