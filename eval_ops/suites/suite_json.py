"""A checked suite as plain data, for the child that scores: with its items, so no file is read."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eval_ops.suites.reading.items import Item
from eval_ops.suites.suites import Benchmark, Judge, PinnedFile, Suite


def suite_to_json(suite: Suite) -> dict[str, Any]:
    """Return a suite as plain data, of which `suite_from_json` makes an equal one."""
    document = asdict(suite)
    for benchmark in document["benchmarks"]:
        benchmark["data_files"] = [
            [split, str(path.resolve())] for split, path in benchmark["data_files"]
        ]
    return document


def suite_from_json(document: Mapping[str, Any]) -> Suite:
    """Return the suite that `suite_to_json` wrote."""
    fields: dict[str, Any] = dict(document)
    fields["benchmarks"] = tuple(_benchmark(dict(each)) for each in document["benchmarks"])
    fields["judge"] = Judge(**fields["judge"]) if fields.get("judge") else None
    return Suite(**fields)


def _benchmark(fields: dict[str, Any]) -> Benchmark:
    fields["items"] = tuple(_item(dict(each)) for each in fields["items"])
    fields["data_files"] = tuple((split, Path(path)) for split, path in fields["data_files"])
    fields["stop"] = tuple(fields["stop"])
    prompts: list[list[str]] = fields["judge_prompts"]
    fields["judge_prompts"] = tuple(tuple(each) for each in prompts)
    fields["waits_for"] = tuple(PinnedFile(*each) for each in fields["waits_for"])
    return Benchmark(**fields)


def _item(fields: dict[str, Any]) -> Item:
    for name in ("choices", "right", "answers"):
        fields[name] = tuple(fields[name])
    return Item(**fields)
