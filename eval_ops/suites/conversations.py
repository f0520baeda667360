"""Second questions of a conversation: asked after the model answered the first, as MT-Bench does.

lm-eval asks single questions. So what a model wrote to the first becomes part of the prompt of the
second, which is an item of its own (`81/1`, `81/2`), in the group of the first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from eval_ops.scores import Sample
from eval_ops.suites.suites import Benchmark

TURN = "/"
"""Between an item's id and the number of its question."""


def second_questions(
    benchmark: Benchmark, samples: Sequence[Sample], render: Callable[[Sequence[str]], str]
) -> Benchmark:
    """Return the benchmark of second questions, whose prompts hold the first answers.

    `render` makes one prompt of turns, the user's and the model's one after the other.
    """
    written = {sample.item: sample.text or "" for sample in samples}
    items = [
        replace(item, prompt=render([item.prompt, written[item.id], item.follow_up]), follow_up="")
        for item in benchmark.items
        if item.follow_up and item.id in written
    ]
    return replace(benchmark, items=tuple(items), chat_template=False, delimiter="")


def of_turn(samples: Sequence[Sample], number: int) -> tuple[Sample, ...]:
    """Return samples as those of one turn: named by it, and grouped with the other turn."""
    return tuple(
        replace(sample, item=f"{sample.item}{TURN}{number}", group=sample.group or sample.item)
        for sample in samples
    )


def turns_of(sample: Sample, texts: Mapping[str, str]) -> tuple[str, int]:
    """Return the id of a sample's item, and which of its questions was answered."""
    item, _, number = sample.item.rpartition(TURN)
    return (item, int(number)) if f"{item}{TURN}1" in texts else (sample.item, 1)
