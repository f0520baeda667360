"""Looks at merged checkpoints: their bytes each time, what transformers makes of them once."""

import json
from typing import TYPE_CHECKING

from blake3 import blake3

from assets.work.merging.manifests import installed_version
from assets.work.merging.merging import expected_tensors

if TYPE_CHECKING:
    from resources.store import Artifact, ArtifactStore

LOOK, LOOK_VERSION = "look", 1
"""Raise the version when sound checkpoints would be looked at in another way."""
LOADERS = ("transformers", "torch")
"""What a checkpoint is loaded by; another version of one looks again."""


def faults_of(store: "ArtifactStore", artifact: "Artifact", called: str) -> list[str]:
    """Return what is wrong with a checkpoint whose bytes are as they were published.

    `called` is what messages call it.

    What was found sound is remembered in the store, by content. So the same bytes are loaded and
    run once, whichever recipe, catalog or Dagster instance has them. Garbage collection forgets it.
    """
    from merge_ops.jobs.verification import verify_checkpoint

    versions = {name: installed_version(name) for name in LOADERS}
    expected = sorted(expected_tensors(artifact) or ())
    identity = json.dumps([LOOK_VERSION, artifact.content_digest, expected, versions])
    digest = blake3(identity.encode()).hexdigest()
    if store.find(LOOK, digest) is not None:
        return []
    folder = artifact.folder(checked=False)
    problems = list(verify_checkpoint(folder, expected_tensors(artifact), called).problems)
    if not problems:
        with store.attempt(LOOK) as attempt:
            attempt.write_json("look.json", {"sound": artifact.content_digest, "by": versions})
            attempt.publish(digest)
    return problems
