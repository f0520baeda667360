"""Metadata that a person wants to see in Dagster's UI: tables, plots, sizes and speeds."""

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from assets.work.emr_masking import PublishedMasks
    from resources.store import Artifact

MetadataMap = dict[str, Any]


def picture(png: bytes) -> dg.MarkdownMetadataValue:
    """Show a PNG in place."""
    text = base64.b64encode(png).decode()
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{text})")


def table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Show rows of equal keys as a table; None becomes an empty cell."""
    records = [
        dg.TableRecord({key: "" if value is None else value for key, value in row.items()})
        for row in rows
    ]
    names = list(rows[0]) if rows else ["nothing"]
    kinds = {bool: "bool", int: "int", float: "float"}
    columns = [
        dg.TableColumn(name, kinds.get(type(rows[0][name]), "string") if rows else "string")
        for name in names
    ]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))


def of_artifact(artifact: "Artifact", memoized: bool) -> MetadataMap:
    """Show where an artifact is and whether it was there before."""
    return {
        "uri": dg.MetadataValue.path(artifact.uri),
        "digest": artifact.digest,
        "bytes": artifact.nbytes,
        "memoized": memoized,
    }


def of_work(seconds: float, nbytes: int) -> MetadataMap:
    """Show how long it took and how fast that was."""
    speed = nbytes / 1e6 / seconds if seconds > 0 else 0.0
    return {"seconds": round(seconds, 3), "MB/s": round(speed, 1)}


def of_masks(masks: "PublishedMasks | None") -> MetadataMap:
    """Show where the masks of a merge by emr are, how large, and every expert's scale."""
    if masks is None:
        return {}
    rows = [{"expert": name, "scale": scale} for name, scale in masks.rescale.items()]
    return {
        "masks": dg.MetadataValue.path(masks.artifact.uri),
        "bytes of the masks": masks.artifact.nbytes,
        "scales (for lambda 1)": table(rows),
    }


def of_packing(artifact: "Artifact") -> MetadataMap:
    """Show whether a model is kept full or packed, and what that saves."""
    whole: int | None = artifact.manifest.get("unpacked_bytes")
    if whole is None:
        return {"kept": "full"}
    return {
        "kept": "packed losslessly, as the difference from its base",
        "packed against": artifact.manifest["base"]["digest"],
        "ratio": round(whole / artifact.nbytes, 3),
        "bytes saved": whole - artifact.nbytes,
    }
