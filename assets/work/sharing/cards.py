"""The card of a model on its way out: in the store it names no one, here the catalog's words are
added. Knows no Dagster.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resources.store import Ref


def words_of_catalog(ref: "Ref | None") -> str:
    """Return Markdown that says what the catalog calls the models that went in; "" without any."""
    from merge_ops.provenance import markdown

    models = ref.fields.get("models") if ref is not None else None
    licences = ref.fields.get("licences") if ref is not None else None
    if ref is None or not isinstance(models, dict):
        return ""
    stated = licences if isinstance(licences, dict) else {}
    lines = [f"\nIn the catalog this is `{ref.asset}`, and the models are called:\n"]
    lines += ["| model | licence | digest |", "|---|---|---|"]
    lines += [
        f"| {markdown.in_markdown(name)} | {markdown.in_markdown(stated.get(name) or 'not stated')}"
        f" | {markdown.as_code(digest)} |"
        for name, digest in models.items()
    ]
    return "\n".join(lines) + "\n"
