"""The catalog over the run: one run, two recipes of windows, and a suite of a text never seen.

The suite asks which of four continuations is that of a passage of this project's documents. All are
from documents that the model is not trained on.
"""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs"
SEEN = ("concepts.md", "methods.md", "catalog.md", "operations.md")
UNSEEN = ("evaluation.md", "ownership.md", "search.md")
SPLITS = {"validation": 200, "test": 400}
PROMPT, CHOICE, CHOICES = 64, 16, 4
UPDATES = 40
"""From one step to the next."""
FILES = {
    "models.yaml": """\
# One training run; no models. Each step that appears in ../run is pulled and scored.
name: training-run
runs:
  - name: pretrain
    steps: ../run
    licence: apache-2.0
""",
    "recipes/tail.yaml": """\
# The newest four steps by four schedules: they move on with the run.
window: {run: pretrain, last: 4}
sweep: {weights: [uniform, linear, one_minus_sqrt, cosine]}
suite: passages
""",
    "recipes/middle.yaml": """\
# Four steps that are named: what the run does later changes nothing here.
window: {run: pretrain, steps: MIDDLE}
suite: passages
""",
    "suites/passages.yaml": """\
# Which of four continuations is the passage's? Chance is 25 %.
name: passages
benchmarks:
  - name: continuation
    items: ../items/continuation.jsonl
""",
}


def write_catalog(folder: Path, updates: int = UPDATES, counts: Mapping[str, int] = SPLITS) -> None:
    """Write FOLDER/catalog where it is not yet, with so many items of each split."""
    lines = "".join(json.dumps(row) + "\n" for row in items(text_of(UNSEEN), counts))
    middle = str([updates * number for number in range(5, 9)])
    for name, text in {**FILES, "items/continuation.jsonl": lines}.items():
        file = folder / "catalog" / name
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace("MIDDLE", middle), encoding="utf-8")


def text_of(names: tuple[str, ...]) -> str:
    """Return documents of this project, one behind the other, without what is not ASCII."""
    data = b"\n".join((DOCS / name).read_bytes() for name in names)
    return data.decode("utf-8").encode("ascii", "ignore").decode("ascii")


def items(text: str, counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the items of each split, cut out of stretches of a text that share nothing."""
    draw, length = random.Random(0), PROMPT + CHOICE
    pieces = [text[at : at + length] for at in range(0, len(text) - length + 1, length)]
    ends = sorted({piece[PROMPT:] for piece in pieces})
    needed = sum(counts.values())
    if len(pieces) < needed:
        raise ValueError(
            f"the text has {len(pieces)} passages of {length} characters, not {needed}"
        )
    draw.shuffle(pieces)
    found: list[dict[str, Any]] = []
    for split, count in counts.items():
        for number in range(count):
            piece = pieces[len(found)]
            right = piece[PROMPT:]
            choices = [right, *draw.sample([each for each in ends if each != right], CHOICES - 1)]
            draw.shuffle(choices)
            row = {"id": f"{split}-{number:03d}", "split": split, "prompt": piece[:PROMPT]}
            found.append({**row, "choices": choices, "answer": choices.index(right)})
    return found
