"""broken/<kind>/<name>: a recipe, suite or model of the catalog that cannot be used, and why.

A broken part has an asset, so that it is seen where its results would be: the asset makes nothing,
and its check fails with every fault. Once the part is mended the asset is gone.
"""

import re
from collections.abc import Iterator

import dagster as dg
from blake3 import blake3

from assets.frame.failures import clear_failures

GROUP, CHECK = "broken", "is_sound"


def broken_key(kind: str, name: str) -> dg.AssetKey:
    """Return the key of a part's asset."""
    return dg.AssetKey([GROUP, kind, key_part(name)])


def key_part(name: str) -> str:
    """Return a name as a part of a key: as it is where Dagster allows that, otherwise nearly so."""
    if re.fullmatch(r"[A-Za-z0-9_]+", name):
        return name
    digest = blake3(name.encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9]+', '_', name)[:40]}_{digest}"


def build_broken_part(
    kind: str, name: str, message: str, condition: dg.AutomationCondition
) -> dg.AssetsDefinition:
    """Build the asset of one broken part; `message` has all its faults.

    Its code version changes with the message, so that other faults are checked and told again.
    """
    key = broken_key(kind, name)
    spec = dg.AssetSpec(
        key,
        group_name=GROUP,
        automation_condition=condition,
        code_version=blake3(message.encode(errors="surrogatepass")).hexdigest()[:32],
        description=f"The {kind} {name} of the catalog is broken. What was made of it before stays"
        " as it is; nothing new is made of it. The check says what is wrong.",
        skippable=True,
    )
    check = dg.AssetCheckSpec(CHECK, asset=key, blocking=True)

    @dg.multi_asset(name="__".join(key.path), specs=[spec], check_specs=[check])
    def broken_part() -> Iterator[dg.AssetCheckResult]:
        with clear_failures():
            yield dg.AssetCheckResult(
                asset_key=key, check_name=CHECK, passed=False, metadata={"problems": message}
            )

    return broken_part
