"""Models that a suite asks by chat and that have no chat template: told before any work."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from merge_ops.checkpoints import Checkpoint
    from orchestration.catalogs import Catalog


def chat_faults(
    catalog: "Catalog", opened: "Mapping[str, Checkpoint]"
) -> "Iterator[tuple[str, str]]":
    """Yield a recipe and what is wrong, for each whose base or experts cannot be asked by chat.

    `opened` holds the models that were looked at; the others are not judged. An adapter is asked by
    its own template, or its base's.
    """
    from assets.work.suite_files import load_suite

    for name, recipe in catalog.recipes.items():
        suite = recipe.suite
        if suite is None or suite not in catalog.suite_benchmarks:
            continue  # what is wrong with a suite is told of the suite
        asked = [b.name for b in load_suite(catalog.suites[suite]).benchmarks if b.chat_template]
        if not asked:
            continue
        experts = {each for experts in catalog.sets_of(recipe) for each in experts.split("+")}
        models = sorted({catalog.base_of(recipe), *experts} & opened.keys())
        lacking = [model for model in models if not _has_template(catalog, opened, model)]
        if lacking:
            yield (
                name,
                f"suite {suite} puts the prompts of {', '.join(asked)} into a chat template, and"
                f" {', '.join(lacking)} {'have' if len(lacking) > 1 else 'has'} none; write"
                " chat_template.jinja into the models' folders, or leave `chat_template` out of"
                " the benchmarks",
            )


def _has_template(catalog: "Catalog", opened: "Mapping[str, Checkpoint]", model: str) -> bool:
    from merge_ops.errors import CheckpointError
    from merge_ops.vocabularies.chat_templates import template_of

    known = catalog.models.get(model)
    base = known.base if known is not None and known.kind == "lora" else None
    asked = [opened[each] for each in (model, base or model) if each in opened]
    try:
        return any(template_of(each) for each in asked)
    except CheckpointError:
        return True  # a file that cannot be read is told of the model, not of the suite
