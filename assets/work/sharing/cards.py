"""The card that a model leaves the store with, in the catalog's words. Knows no Dagster."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from assets.work.merging.virtual_checkpoints import CHECKPOINT
from assets.work.records.store_cards import card_of
from assets.work.records.stored_names import Named

if TYPE_CHECKING:
    from resources.store import ArtifactStore, Ref

CARD = "README.md"


def card_leaving(
    store: "ArtifactStore",
    named: Named,
    ref: "Ref | None",
    called: str,
    own: bytes,
    titles: Mapping[str, Mapping[str, str]] | None = None,
) -> bytes | None:
    """Return the card of a checkpoint on its way out; None where a model keeps the one it has.

    `own` is the card in the store, empty without any, `called` what loads the model then, and `ref`
    the name that says what the catalog calls the models in it. `titles` are those of its `recipes`
    and its `models`, by name.
    """
    if named.kind != CHECKPOINT:
        return None
    card, words = card_of(store, named, called), words_of_catalog(ref, titles or {})
    text = card.encode() if card is not None else own
    return text + words.encode() if text else None


def words_of_catalog(ref: "Ref | None", titles: Mapping[str, Mapping[str, str]]) -> str:
    """Return Markdown that says what the catalog calls the models that went in; "" without any.

    Titles that its files give to the recipe and to models stand beside their names.
    """
    from merge_ops.provenance import markdown

    models = ref.fields.get("models") if ref is not None else None
    licences = ref.fields.get("licences") if ref is not None else None
    if ref is None or not isinstance(models, dict):
        return ""
    stated = licences if isinstance(licences, dict) else {}
    of_models = titles.get("models", {})
    title = titles.get("recipes", {}).get(ref.asset.partition("/")[0])
    this = f"`{ref.asset}`" + (f" ({markdown.in_markdown(title)})" if title else "")

    def cell(name: str) -> str:
        own = of_models.get(name)
        return markdown.in_markdown(f"{name} ({own})" if own else name)

    lines = [f"\nIn the catalog this is {this}, and the models are called:\n"]
    lines += ["| model | licence | digest |", "|---|---|---|"]
    lines += [
        f"| {cell(name)} | {markdown.in_markdown(stated.get(name) or 'not stated')}"
        f" | {markdown.as_code(digest)} |"
        for name, digest in models.items()
    ]
    return "\n".join(lines) + "\n"
