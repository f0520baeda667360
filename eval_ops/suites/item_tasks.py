"""Own items as tasks of lm-eval: what harness.py builds of them, as plain configurations."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eval_ops.suites.valuing.answers import LETTERS, ROUGE, same_letters, score_text

if TYPE_CHECKING:
    from eval_ops.suites.suites import Benchmark

LATER = float("nan")
"""What a written answer is worth until it was graded or run."""


def rows(benchmark: "Benchmark") -> list[dict[str, Any]]:
    """Return a benchmark's items as rows of a data set; `choices` are what is asked for."""
    return [
        {
            "id": item.id,
            "split": item.split,
            "group": item.group,
            "prompt": item.prompt,
            "choices": list(LETTERS[: len(item.choices)] if benchmark.letters else item.choices),
            "answer": item.answer,
            "right": list(item.right),
            "answers": list(item.answers),
            "target": "\n".join(item.answers),
        }
        for item in benchmark.items
    ]


def configuration(benchmark: "Benchmark") -> dict[str, Any]:
    """Return the configuration of the task, without its data."""
    shared = {
        "task": benchmark.name,
        "test_split": "items",
        "doc_to_text": "prompt",
        "target_delimiter": benchmark.delimiter,
        "num_fewshot": 0,
    }
    if not is_written(benchmark):
        return {
            **shared,
            "output_type": "multiple_choice",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
            "metric_list": _means("acc", "acc_norm"),
        }
    metric = str(benchmark.metric)
    return {
        **shared,
        "output_type": "generate_until",
        "doc_to_target": "target",
        "process_results": _scorer(benchmark),
        "generation_kwargs": {
            "until": list(benchmark.stop),
            "max_gen_toks": benchmark.max_new_tokens,
            "do_sample": False,
        },
        "metric_list": _means(*(ROUGE if metric in ROUGE else (metric,))),
    }


def is_written(benchmark: "Benchmark") -> bool:
    """Return whether own items are answered by generation: also those with several right letters.

    With a log-likelihood a letter, what is chosen would hang on a threshold; the log-likelihood of
    joined letters always prefers fewer of them. So the model writes the letters.
    """
    return benchmark.kind == "generation" or benchmark.several


def _scorer(benchmark: "Benchmark") -> Any:
    metric, settings = str(benchmark.metric), dict(benchmark.settings)

    def process(document: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
        text = results[0]
        if benchmark.several:
            return {metric: same_letters(text, document["right"], len(document["choices"]))}
        if benchmark.later:
            return {metric: LATER}
        return score_text(text, document["answers"], metric, settings)

    return process


def _means(*metrics: str) -> list[dict[str, Any]]:
    return [
        {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in metrics
    ]
