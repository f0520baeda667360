"""Metadata that a person wants to see in Dagster's UI: tables, plots, sizes and speeds."""

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.work.merging.virtual_checkpoints import bytes_of

if TYPE_CHECKING:
    from assets.work.merging.emr_masking import PublishedMasks
    from merge_ops.provenance.licences import EffectiveLicence
    from resources.store import Artifact

TOLD = "ronghe_told"
"""Marks a line of Dagster's log that `ronghe refresh` repeats at its end."""
MetadataMap = dict[str, Any]
MOST_ROWS, LONGEST_CELL = 500, 1000
"""What a person looks through, and Dagster keeps in its event log for ever."""


def tell(log: "dg.DagsterLogManager", message: str) -> None:
    """Log an error that stops nothing, so that a refresh names it and does not end as done."""
    log.error(message, extra={TOLD: True})


def listed(lines: Sequence[str]) -> dg.MetadataValue:
    """Show lines below one another, whatever stands in them; `none` where there are none."""
    from merge_ops.provenance.markdown import in_markdown

    if not lines:
        return dg.MetadataValue.text("none")
    return dg.MetadataValue.md("\n".join(f"- {in_markdown(line)}" for line in lines))


def size(nbytes: int) -> str:
    """Say a number of bytes as people do: `1.24 GB`."""
    for least, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if nbytes >= least:
            return f"{nbytes / least:.2f} {unit}"
    return f"{nbytes / 1e3:.1f} kB"


def picture(png: bytes) -> dg.MarkdownMetadataValue:
    """Show a PNG in place."""
    text = base64.b64encode(png).decode()
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{text})")


def drawn(
    log: "dg.DagsterLogManager", what: str, draw: Callable[[], bytes]
) -> dg.MarkdownMetadataValue:
    """Show a picture, or say that it could not be drawn: nothing else waits for that."""
    try:
        return picture(draw())
    except Exception as error:  # a plotting library raises every kind
        problem = f"could not be drawn ({type(error).__name__}: {error})"
        tell(log, f"{what}: the picture {problem}")
        return dg.MetadataValue.md(problem)


def number(value: float | None) -> float | str:
    """Show a number; what is none, or not finite, as text, which is all that JSON has for it."""
    return value if value is not None and math.isfinite(value) else "not finite"


def table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Show rows as a table. A key that a row lacks, or a None, becomes an empty cell.

    Columns are in the order in which the rows name them. Of many rows the first MOST_ROWS are shown
    and the rest is counted; what is no finite number, text or truth is shown as text.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row)) or ["nothing"]
    shown = [{key: _cell(row.get(key)) for key in columns} for row in rows[:MOST_ROWS]]
    kinds = {key: _kind([each[key] for each in shown]) for key in columns}
    if len(rows) > MOST_ROWS:
        note = f"… and {len(rows) - MOST_ROWS} more rows"
        kinds[columns[0]] = "string"
        shown.append({key: note if key == columns[0] else "" for key in columns})
    names = {key: _column_name(key, position) for position, key in enumerate(columns)}
    records = [dg.TableRecord({names[key]: cell for key, cell in row.items()}) for row in shown]
    schema = [dg.TableColumn(names[key], kinds[key]) for key in columns]
    return dg.MetadataValue.table(records, dg.TableSchema(schema))


def _cell(value: object) -> str | int | float | bool:
    """One value as Dagster's tables and JSON take it."""
    if value is None:
        return ""
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) < 1 << 53):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    text = _valid(str(value))
    return text if len(text) <= LONGEST_CELL else f"{text[:LONGEST_CELL]}…"


def _kind(cells: Sequence[object]) -> str:
    """Dagster's type of a column: that of its cells but for the empty ones, where they agree."""
    kinds = {bool: "bool", int: "int", float: "float"}
    found = {kinds.get(type(cell), "string") for cell in cells if cell != ""}
    if found == {"int", "float"}:
        return "float"
    return found.pop() if len(found) == 1 else "string"


def _column_name(key: object, position: int) -> str:
    return _valid(str(key)) or f"column {position + 1}"


def _valid(text: str) -> str:
    """Text that can be written as UTF-8, whatever half characters a stranger's name holds."""
    return text.encode("utf-8", "backslashreplace").decode()


def of_artifact(artifact: "Artifact", memoized: bool) -> MetadataMap:
    """Show where an artifact's files are, how to get it, and whether it was there before.

    On a local store the uri is a folder that `from_pretrained` takes, on S3 the files' prefix. What
    is virtual or packed has no such files, and is got by the command alone.
    """
    get = dg.MetadataValue.md(f"`ronghe path {artifact.digest[:12]}`")
    if artifact.virtual:
        return {
            "virtual": True,
            "digest": artifact.digest,
            "how to get it": get,
            "bytes when it is written": bytes_of(artifact),
            "memoized": memoized,
        }
    return {
        "uri": dg.MetadataValue.path(artifact.location),
        "how to get it": get,
        "digest": artifact.digest,
        "size": size(artifact.nbytes),
        "bytes": artifact.nbytes,
        "memoized": memoized,
    }


def of_work(seconds: float, nbytes: int) -> MetadataMap:
    """Show how long it took and how fast that was."""
    speed = nbytes / 1e6 / seconds if seconds > 0 else 0.0
    return {"seconds": round(seconds, 3), "MB/s": round(speed, 1)}


def of_licence(licence: "EffectiveLicence | None") -> MetadataMap:
    """Show which licence decides and why, what is owed, and what does not go together."""
    if licence is None:
        return {}
    conflicts = [f"{each.id}: {each.because}" for each in licence.conflicts]
    by = ", ".join(licence.decided_by)
    return {
        "licence (no legal advice)": f"{licence.licence.id}, decided by {by}",
        "licence duties": listed([str(each) for each in licence.duties]),
        **({"licence conflicts": listed(conflicts)} if conflicts else {}),
    }


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
