"""Reads lm-eval's log of samples: which metric, which split, what was answered."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

from blake3 import blake3

from eval_ops.errors import MetricError, NonFiniteError
from eval_ops.faults import did_you_mean
from eval_ops.scores import Sample
from eval_ops.suites.suites import Benchmark

Log = Sequence[Mapping[str, Any]]


class Answers(NamedTuple):
    """A benchmark's samples, the name of the metric that values them, and the task's version."""

    samples: tuple[Sample, ...]
    metric: str
    version: str


def read_samples(
    benchmark: Benchmark,
    tasks: Mapping[str, Any],
    logs: Mapping[str, Log],
    seed: int,
    where: str,
    count_tokens: Callable[[str], int] | None = None,
    names: Sequence[str] | None = None,
) -> Answers:
    """Turn lm-eval's log of one benchmark (a task, or the tasks of a group) into samples.

    `where` names the checkpoint, for messages. Own items carry their split; a built-in task's are
    divided by `assign_splits`; where only some were asked, `names` are those of all. What a model
    wrote is kept, with its tokens as `count_tokens` counts them; where it is graded later, its
    value is NaN until then.

    MetricError when a task lacks the metric, or has one that is no mean over items or not the
    better the higher; NonFiniteError on NaN or infinity.
    """
    metric, filter_name = _metric(benchmark, tasks, logs)
    samples: list[Sample] = []
    for name, log in logs.items():
        for row in log:
            if row["filter"] == filter_name:
                task = name if len(tasks) > 1 else ""
                samples.append(_sample(benchmark, task, row, metric, count_tokens))
    for sample in samples:
        finite = math.isfinite(sample.value) or bool(benchmark.later)
        if not finite or not all(map(math.isfinite, sample.loglikelihoods)):
            raise NonFiniteError(
                f"{where}: the model answers item '{sample.item}' of benchmark '{benchmark.name}' "
                "with NaN or infinity; its weights are broken, or overflow in their precision"
            )
    if not benchmark.items:
        samples = assign_splits(samples, benchmark.validation_share, seed, names)
    version = "+".join(sorted({str(task.VERSION) for task in tasks.values()}))
    if benchmark.revision:
        version = f"{version} {benchmark.version}"
    elif benchmark.version:
        version = benchmark.version
    return Answers(tuple(samples), metric, version)


def assign_splits(
    samples: Sequence[Sample], share: float, seed: int, names: Sequence[str] | None = None
) -> list[Sample]:
    """Divide a built-in task's samples: about `share` of them to validation, the rest to test.

    Which go where depends on the seed, the benchmark's and the items' names alone. Test gets one
    sample at least, and so does validation with a share above 0 and two samples or more. `names`
    are those of all items of the benchmark, where `samples` are not all.
    """
    names = [sample.item for sample in samples] if names is None else names
    count = min(max(round(share * len(names)), int(share > 0)), len(names) - 1)

    def place(name: str) -> bytes:
        return blake3(f"{seed}\0{samples[0].benchmark}\0{name}".encode()).digest()

    validation = set(sorted(names, key=place)[:count])
    return [
        replace(sample, split="validation" if sample.item in validation else "test")
        for sample in samples
    ]


def _metric(
    benchmark: Benchmark, tasks: Mapping[str, Any], logs: Mapping[str, Log]
) -> tuple[str, str]:
    """Return the metric and the filter to read: the suite's `metric`, or the task's first."""
    task_name = next(iter(logs))
    task = tasks[task_name]
    first = logs[task_name][0]
    known = cast("list[str]", list(first["metrics"]))
    filters = list(dict.fromkeys(row["filter"] for row in logs[task_name]))
    stated, _, filter_name = (benchmark.metric or "").partition(",")
    metric = stated or ("acc" if "acc" in known else known[0])
    filter_name = filter_name or filters[0]
    place = f"benchmark '{benchmark.name}': metric '{metric}'"
    if metric not in known:
        raise MetricError(
            f"{place} is none of task '{task_name}'.{did_you_mean(metric, known)} "
            f"Known: {', '.join(known)}"
        )
    if filter_name not in filters:
        raise MetricError(f"{place}: filter '{filter_name}' is none of {', '.join(filters)}")
    aggregation = task.aggregation().get(metric)
    if getattr(aggregation, "__name__", "mean") != "mean":
        raise MetricError(
            f"{place} is no mean over items but '{aggregation.__name__}', so two checkpoints "
            f"cannot be compared item by item; name another in `metric`: {', '.join(known)}"
        )
    if not task.higher_is_better().get(metric, True):
        raise MetricError(
            f"{place} is better the lower it is; name one that is better the higher in `metric`: "
            f"{', '.join(known)}"
        )
    return metric, filter_name


def _sample(
    benchmark: Benchmark,
    task: str,
    row: Mapping[str, Any],
    metric: str,
    count_tokens: Callable[[str], int] | None,
) -> Sample:
    """Return one row of lm-eval's log as a sample; `task` is empty where there is but one."""
    document = row["doc"]
    has_items = bool(benchmark.items)
    item = document["id"] if has_items else str(row["doc_id"])
    likelihoods = _likelihoods(row["filtered_resps"])
    target = row["target"]
    text = _written(row.get("resps", ()))
    return Sample(
        benchmark=benchmark.name,
        split=document["split"] if has_items else "",
        item=f"{task}/{item}" if task else item,
        value=float(row[metric]),
        choice=_choice(likelihoods, document, metric) if has_items else _highest(likelihoods),
        answer=target if isinstance(target, int) and likelihoods else None,
        loglikelihoods=likelihoods,
        group=document.get("group", "") if has_items else "",
        text=text,
        length=count_tokens(text) if text is not None and count_tokens else None,
    )


def _written(responses: Sequence[Any]) -> str | None:
    """What the model wrote, where it was asked to write once: as it came, before any filter."""
    first = responses[0] if len(responses) == 1 else None
    given = cast("Sequence[object]", first) if isinstance(first, list | tuple) else ()
    text = given[0] if given else None
    return text if isinstance(text, str) else None


def _likelihoods(responses: Sequence[Any]) -> tuple[float, ...]:
    """Return one log-likelihood a choice; () where the model did not choose among several."""
    if len(responses) < 2 or not all(isinstance(r, list | tuple) for r in responses):
        return ()
    return tuple(float(pair[0]) for pair in responses)


def _choice(likelihoods: Sequence[float], document: Mapping[str, Any], metric: str) -> int | None:
    if metric != "acc_norm":
        return _highest(likelihoods)
    lengths = [len(choice) for choice in document["choices"]]
    return _highest([value / n for value, n in zip(likelihoods, lengths, strict=True)])


def _highest(values: Sequence[float]) -> int | None:
    return max(range(len(values)), key=lambda i: values[i]) if values else None
