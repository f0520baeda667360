"""The run of the example as a catalog: its steps, windows over them, and a suite of its own.

The suite asks which of four texts goes on a stretch of the document that the run never saw, so that
steps and windows have scores beside their losses. Validation items come from its first half, test
items from its second.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

CONTEXT, GOES_ON, CHOICES, ITEMS = 48, 16, 4, 150  # letters, letters, texts, items of a split
RUN, SUITE = "pretrain", "goes_on"
RECIPE = """\
# Averages over the last steps: which window, and which schedule of weights?
name: tail
window: {{run: {run}, beta: 0.8}}
sweep: {{last: [3, 6], weights: [{schedules}]}}
suite: {suite}
"""


def write_catalog(folder: Path, text: str, schedules: tuple[str, ...]) -> Path:
    """Write the catalog of the run in `folder`/run into `folder`/catalog, and return that."""
    catalog = folder / "catalog"
    for name in ("recipes", "suites", "items"):
        (catalog / name).mkdir(parents=True, exist_ok=True)
    (catalog / "models.yaml").write_text(
        f"runs:\n  - name: {RUN}\n    steps: ../run\n    licence: apache-2.0\n", encoding="utf-8"
    )
    recipe = RECIPE.format(run=RUN, schedules=", ".join(schedules), suite=SUITE)
    (catalog / "recipes" / "tail.yaml").write_text(recipe, encoding="utf-8")
    suite = {"name": SUITE, "benchmarks": [{"name": SUITE, "items": f"../items/{SUITE}.jsonl"}]}
    (catalog / "suites" / f"{SUITE}.yaml").write_text(json.dumps(suite) + "\n", encoding="utf-8")
    half = len(text) // 2
    items = [*_items("validation", text[:half]), *_items("test", text[half:])]
    lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
    (catalog / "items" / f"{SUITE}.jsonl").write_text(lines, encoding="utf-8")
    return catalog


def write_tokenizer(folder: Path, length: int) -> None:
    """Write a tokenizer whose tokens are bytes, each with its value for an id."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    made = Tokenizer(models.BPE(vocab=_letters_of_bytes(), merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.save(str(folder / "tokenizer.json"))
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": length}
    (folder / "tokenizer_config.json").write_text(json.dumps(told), encoding="utf-8")


def _letters_of_bytes() -> dict[str, int]:
    """The letters by which byte-level tokenizers write bytes, as GPT-2 has them."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {
        chr(256 + place): byte for place, byte in enumerate(hidden)
    }


def _items(split: str, text: str) -> list[dict[str, Any]]:
    """Items of one split: places of a text without Chinese letters, which take three bytes."""
    draw = random.Random(split)
    places = [
        at
        for at in range(0, len(text) - CONTEXT - GOES_ON, 8)
        if text[at : at + CONTEXT + GOES_ON].isascii()
    ]
    items: list[dict[str, Any]] = []
    for number, at in enumerate(sorted(draw.sample(places, min(ITEMS, len(places))))):
        behind = at + CONTEXT
        right = text[behind : behind + GOES_ON]
        others = [text[o + CONTEXT : o + CONTEXT + GOES_ON] for o in draw.sample(places, 20)]
        wrong = [each for each in dict.fromkeys(others) if each != right][: CHOICES - 1]
        choices = [*wrong, right]
        draw.shuffle(choices)
        items.append({
            "id": f"{split}-{number}", "split": split, "prompt": text[at:behind],
            "choices": choices, "answer": choices.index(right),
        })  # fmt: skip
    return items
