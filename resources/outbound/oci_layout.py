"""A model as an OCI image layout by CNCF ModelPack's model-spec, version 1.

    oci-layout            {"imageLayoutVersion": "1.0.0"}
    index.json            names the manifest, with the model's name as its tag
    blobs/sha256/<hex>    the manifest, the model's config, and one raw layer for each file

github.com/modelpack/model-spec: docs/spec.md, docs/config.md, specs-go/v1. Each file is a layer of
its own, neither packed nor compressed (`…v1.raw`), so that weights are mounted as they lie, and a
layer's digest is that of the file. Equal files and words give equal bytes: no time of writing, no
owner and no mode of this machine goes in.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from resources.errors import OutboundError
from resources.outbound.files import OutgoingFile

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
CONFIG = "application/vnd.cncf.model.config.v1+json"
WEIGHT = "application/vnd.cncf.model.weight.v1.raw"
WEIGHT_CONFIG = "application/vnd.cncf.model.weight.config.v1.raw"
DOC = "application/vnd.cncf.model.doc.v1.raw"
CODE = "application/vnd.cncf.model.code.v1.raw"
FILEPATH, METADATA = "org.cncf.model.filepath", "org.cncf.model.file.metadata+json"
TITLE, REF_NAME = "org.opencontainers.image.title", "org.opencontainers.image.ref.name"
EPOCH = "1970-01-01T00:00:00Z"
_PIECE = 8 << 20
_MODE, _REGULAR = 0o644, 48  # a file's mode, and tar's flag of a regular file, as model-spec has it
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".onnx")
_DOCS = re.compile(r"(README|LICEN[CS]E|NOTICE|USE_POLICY|COPYING)[\w.-]*", re.IGNORECASE)

Told = Callable[[int, int], object]
"""Hears how many bytes are written, and of how many."""


def write_layout(
    out: Path,
    files: Iterable[OutgoingFile],
    config: Mapping[str, Any],
    tag: str,
    annotations: Mapping[str, str] | None = None,
    progress: Told | None = None,
) -> str:
    """Write an OCI image layout of one model into the empty folder `out`; return its digest.

    `config` holds model-spec's `descriptor` and `config`. Files are streamed: no more than some
    8 MiB of one is in memory. Raises OutboundError where the tag is none, and OSError.
    """
    listed = sorted(files, key=lambda file: file.path)
    if not _TAG.fullmatch(tag):
        raise OutboundError(
            f"{tag!r} cannot be the tag of an OCI image: 1 to 128 letters, digits, '_', '.' and '-'"
        )
    total, done = sum(file.size for file in listed), 0
    blobs = out / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layers: list[dict[str, Any]] = []
    for file in listed:

        def told(count: int, before: int = done) -> None:
            if progress is not None:
                progress(before + count, total)

        digest = _write_file(blobs, file, told)
        done += file.size
        layers.append(_descriptor(_media_type(file.path), digest, file.size, _of_file(file)))
    diffs = [layer["digest"] for layer in layers]
    document = {**config, "modelfs": {"type": "layers", "diffIds": diffs}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": _written(blobs, CONFIG, document),
        "layers": layers,
        **({"annotations": dict(sorted(annotations.items()))} if annotations else {}),
    }
    described = _written(blobs, MANIFEST, manifest)
    described = {**described, "artifactType": ARTIFACT, "annotations": {REF_NAME: tag}}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [described]}
    (out / "index.json").write_bytes(_json(index))
    (out / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    return str(described["digest"])


def _write_file(blobs: Path, file: OutgoingFile, told: Callable[[int], None]) -> str:
    hasher, count = hashlib.sha256(), 0
    part = blobs / ".part"
    with file.open() as source, part.open("wb") as sink:
        while piece := source.read(_PIECE):
            hasher.update(piece)
            sink.write(piece)
            count += len(piece)
            told(count)
        sink.flush()
        os.fsync(sink.fileno())
    if count != file.size:
        raise OutboundError(f"{file.path!r} has {count} bytes where {file.size} were expected")
    part.rename(blobs / hasher.hexdigest())
    return f"sha256:{hasher.hexdigest()}"


def _written(blobs: Path, media_type: str, document: Mapping[str, Any]) -> dict[str, Any]:
    data = _json(document)
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return _descriptor(media_type, f"sha256:{digest}", len(data))


def _descriptor(
    media_type: str, digest: str, size: int, annotations: Mapping[str, str] | None = None
) -> dict[str, Any]:
    told = {"annotations": dict(annotations)} if annotations else {}
    return {"mediaType": media_type, "digest": digest, "size": size, **told}


def _of_file(file: OutgoingFile) -> dict[str, str]:
    metadata = {
        "name": file.path, "mode": _MODE, "uid": 0, "gid": 0, "size": file.size, "mtime": EPOCH,
        "typeflag": _REGULAR,
    }  # fmt: skip
    return {FILEPATH: file.path, METADATA: _json(metadata).decode(), TITLE: file.path}


def _media_type(path: str) -> str:
    name = path.rsplit("/", 1)[-1]
    if name.endswith(_WEIGHTS):
        return WEIGHT
    if name.endswith((".py", ".sh")):
        return CODE
    return DOC if _DOCS.fullmatch(name) else WEIGHT_CONFIG


def _json(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
