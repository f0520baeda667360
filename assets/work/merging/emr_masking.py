"""EMR's masks and scales of one expert set, as an artifact of their own. Knows no Dagster.

They follow from the base model and the experts alone, so all coefficients of a set share them.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blake3 import blake3

from assets.work.names import EMR_MASKS

if TYPE_CHECKING:
    from merge_ops.plans import Plan
    from resources.store import Artifact, ArtifactStore


@dataclass(frozen=True)
class PublishedMasks:
    """Published masks are an artifact, with every expert's scale by name."""

    artifact: "Artifact"
    rescale: dict[str, float]


def publish_masks(store: "ArtifactStore", plan: "Plan") -> PublishedMasks | None:
    """Write the masks of a plan's experts, unless the store holds them; None for other methods.

    Reads base and experts once more, in bounded memory. There are none either where a recipe of
    slices or modules merges other layers with one another.
    """
    from merge_ops.jobs.emr_masks import FORMAT, masked_models, open_masks, write_masks

    models = masked_models(plan)
    if models is None:
        return None
    base, experts = models
    inputs = {each.name: str(each.digest) for each in experts}
    identity = json.dumps([FORMAT, base.digest, list(inputs.items())], ensure_ascii=False)
    digest = blake3(identity.encode()).hexdigest()
    artifact = store.find(EMR_MASKS, digest)
    if artifact is None:
        with store.attempt(EMR_MASKS) as attempt:
            write_masks(base, experts, attempt)
            artifact = attempt.publish(digest, base_digest=str(base.digest), inputs=inputs)
    masks = open_masks(artifact.source())
    return PublishedMasks(artifact, dict(zip(masks.experts, masks.rescale, strict=True)))
