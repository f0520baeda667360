"""What all assets of a team have in common, said once."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg

from assets.frame.failures import RETRY_CRASHES, clear_failures
from assets.frame.key_names import plain_key, plain_part, with_own_keys
from assets.frame.passing import noted_passing

GPU_POOL = "gpu"
"""The pool whose slots keep several merges and scores off one GPU."""

AssetBody = Callable[..., dg.MaterializeResult]


def team_asset(
    name: str,
    condition: dg.AutomationCondition,
    *,
    group: str,
    description: str,
    kind: str | None = None,
    deps: Sequence[dg.AssetDep] = (),
    partitions: dg.PartitionsDefinition | None = None,
    code_version: str | None = None,
    gpu: Mapping[str, Any] | None = None,
    one_run: bool = False,
    checks: Sequence[str | dg.AssetCheckSpec] = (),
) -> Callable[[AssetBody], dg.AssetsDefinition]:
    """Make an asset whose crashes are retried, and whose other failures are one clear message.

    The parts of `name` between slashes become those of its key. With `gpu`, the op tags that ask a
    cluster for one, it takes a slot of the GPU pool. With `one_run`, one run materializes as many
    partitions as it is asked for, so that what they share is read once. `checks` are those that it
    reports itself, with each materialization, by name or as they are; they hold nothing up.
    """

    key = dg.AssetKey(name.split("/"))
    plain_deps = [
        dg.AssetDep(plain_key(each.asset_key), partition_mapping=each.partition_mapping)
        for each in deps
    ]

    def decorate(body: AssetBody) -> dg.AssetsDefinition:
        built = dg.asset(
            key=plain_key(key),
            deps=plain_deps,
            partitions_def=partitions,
            backfill_policy=dg.BackfillPolicy.single_run() if one_run else None,
            group_name=plain_part(group),
            automation_condition=condition,
            code_version=code_version,
            retry_policy=RETRY_CRASHES,
            pool=GPU_POOL if gpu is not None else None,
            op_tags=dict(gpu) if gpu is not None else None,
            kinds={kind} if kind is not None else None,
            description=description,
            check_specs=[
                dg.AssetCheckSpec(check, asset=plain_key(key))
                if isinstance(check, str)
                else check.replace_key(check.key.replace_asset_key(plain_key(key)))
                for check in checks
            ],
        )(clear_failures()(noted_passing(body)))
        return with_own_keys(built, [key, *(each.asset_key for each in deps)])

    return decorate
