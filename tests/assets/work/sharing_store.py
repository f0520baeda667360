"""A store with a small merged checkpoint of real files, for whatever leaves it."""

from pathlib import Path

from resources.store import ArtifactStore
from tests.models.checkpoint_factory import Shape, base_tensors, write_checkpoint

CHAMPION = "ties/champion"


def store_with_champion(root: Path) -> tuple[ArtifactStore, Path, str]:
    """The store of catalog `team`, the champion's files as they were written, and its digest."""
    shape = Shape("qwen2", layers=1, hidden=16, intermediate=24, heads=2, kv_heads=2)
    folder = write_checkpoint(root / "made", base_tensors(shape), shape, shards=2)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A merge\n")
    store = ArtifactStore.open((root / "store").as_uri(), catalog="team")
    models = {}
    for name in ("base", "e1"):
        with store.attempt("model") as attempt:
            attempt.write_bytes("config.json", name.encode())
            models[name] = attempt.publish().digest
        store.point("model", name, "model", models[name], licence="apache-2.0")
    with store.attempt("checkpoint") as attempt:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                attempt.write_bytes(path.relative_to(folder).as_posix(), path.read_bytes())
        digest = attempt.publish(inputs=sorted(models.values())).digest
    store.point("ties/merged_checkpoint", "default|e1", "checkpoint", digest, models=models)
    store.point(CHAMPION, None, "checkpoint", digest, experts="e1", coefficient="default")
    return store, folder, digest
