"""Trains one model and saves it as an ordinary Hugging Face folder."""

import time
from collections.abc import Callable

from transformers import Qwen2ForCausalLM, Qwen2Tokenizer
from transformers.utils.logging import disable_progress_bar

from examples.quickstart import training
from examples.quickstart.folders import Record, replaced
from examples.quickstart.model_card import model_card
from examples.quickstart.recipe import BASE, Lesson, all_text, base_rows, fact_rows
from examples.quickstart.skills import Skill, quickstart_skills
from examples.quickstart.tokenizer import build_tokenizer
from merge_ops.kernels.cores import torch_threads


def teach(lesson: Lesson, step: Callable[[], None] = lambda: None) -> float:
    """Train a model and move it to its folder in one piece; an expert starts from the base there.

    `step` is called after each training step. Returns the seconds it took.
    """
    start = time.monotonic()
    disable_progress_bar()
    skills = quickstart_skills()
    skill = next((skill for skill in skills if skill.expert == lesson.model), None)
    recipe = lesson.recipe
    tokenizer = build_tokenizer(all_text(skills), recipe.shape.max_length)
    schedule = recipe.schedule(lesson.model, lesson.revision)
    seed = recipe.seed_of(lesson.model, lesson.revision)
    shared = training.encode_rows(base_rows(skills), tokenizer)
    with torch_threads(lesson.threads):  # they decide the last bits of the weights
        if skill is None:
            network = training.new_model(recipe.shape, tokenizer, seed)
            training.fit(network, shared, None, schedule, seed, step)
        else:
            network = training.load_model(lesson.upstream / BASE)
            own = training.encode_rows(fact_rows(skill, skill.taught), tokenizer)
            training.fit(network, own, shared, schedule, seed, step)
    _save(lesson, skill, network, tokenizer)
    return time.monotonic() - start


def _save(
    lesson: Lesson, skill: Skill | None, network: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer
) -> None:
    record = Record(lesson.fingerprint, lesson.revision)
    with replaced(lesson.upstream / lesson.model, record) as folder:
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        card = model_card(lesson.model, skill, lesson.recipe, lesson.revision)
        (folder / "README.md").write_text(card, encoding="utf-8")
        for file in folder.iterdir():
            file.chmod(0o644)
