"""Suites: the benchmarks that checkpoints are measured on, as one YAML file.

name: quickstart
seed: 0
benchmarks:
  - name: herb_class                       # own multiple-choice items
    items: ../../items/herb_class.jsonl    # .jsonl, .csv or .parquet, relative to this file
    prompt: "{prompt}"                     # a template over an item's keys
  - name: dosage                           # own items that are answered in writing
    items: ../../items/dosage.csv
    kind: generation
    metric: number                         # exact_match, number, regex, rouge, judge, code
    chat_template: true
  - name: medicine                         # a built-in task (or group of tasks) of lm-eval
    task: cmmlu_traditional_chinese_medicine
    num_fewshot: 5
    limit: 200
    validation_share: 0.5

A file may also take a shipped suite (shipped/*.yaml) and say where its data lies:

shipped: zh
name: zh
data_dir: /data/benchmarks
limit: 100

definitions.py has every key; docs/evaluation.md explains them.
"""

import importlib.metadata
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

from blake3 import blake3
from pydantic import ValidationError

from eval_ops.errors import ItemsError, SuiteError
from eval_ops.faults import Place, did_you_mean, list_faults
from eval_ops.suites.reading.definitions import (
    JUDGE_WRITES,
    SET_BY_READER,
    BenchmarkDefinition,
    JudgeDefinition,
    Source,
    SuiteDefinition,
)
from eval_ops.suites.reading.items import FileReader, Item
from eval_ops.suites.reading.resolving import DataPlace, JudgePrompt, PinnedFile, Shelf, resolve

DIGEST_FORMAT = 1
"""Raise this when the same suite would be scored in another way."""
SHIPPED = Path(__file__).with_name("shipped")
"""The folder of the shipped suites."""

__all__ = [
    "Benchmark", "Item", "Judge", "JudgePrompt", "PinnedFile", "Shelf", "Suite", "check_suite",
    "shipped_suites",
]  # fmt: skip


@dataclass(frozen=True)
class Judge:
    """Who grades: `model` at `endpoint`, or in a folder of this machine where that is empty."""

    model: str
    endpoint: str = ""
    temperature: float = 0.0
    max_new_tokens: int = JUDGE_WRITES
    digest: str = ""

    @property
    def name(self) -> str:
        """Return what scores call the judge: its name, or its folder's name with its digest."""
        return f"{Path(self.model).name}@{self.digest[:12]}" if self.digest else self.model


@dataclass(frozen=True)
class Benchmark:
    """A benchmark ready to run: own `items`, or (when empty) the built-in `task`.

    `version` is the digest of what is asked: of the items file, or of the data files if given.
    `max_new_tokens` is 0 where nothing is written, or where a built-in task's own limit holds.
    `metric` "judge" and "code" are given after the model has written; `waits_for` names pinned
    files that must be fetched before the benchmark can be asked.
    """

    name: str
    title: str
    metric: str | None
    limit: int | None
    items: tuple[Item, ...] = ()
    delimiter: str = ""
    task: str | None = None
    num_fewshot: int | None = None
    validation_share: float = 0.5
    data_files: tuple[tuple[str, Path], ...] = ()
    version: str = ""
    kind: str = "choice"
    letters: bool = False
    several: bool = False
    chat_template: bool = False
    max_new_tokens: int = 0
    stop: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    revision: str | None = None
    judge_prompts: tuple[JudgePrompt, ...] = ()
    waits_for: tuple[PinnedFile, ...] = ()

    @property
    def later(self) -> str:
        """Return "judge" or "code" where somebody else values what the model wrote, else ""."""
        return self.metric if self.metric in ("judge", "code") and self.task is None else ""


@dataclass(frozen=True)
class Suite:
    """A checked suite.

    `digest` changes with everything that may change a score: benchmarks, seed, the bytes of every
    items file, the judge, the version of lm-eval. Titles and descriptions do not count, nor where
    data lies. With `lm_eval_batch_size` models are asked exactly as lm_eval's command asks them in
    batches of that size.
    """

    name: str
    description: str
    seed: int
    benchmarks: tuple[Benchmark, ...]
    digest: str
    judge: Judge | None = None
    lm_eval_batch_size: int | None = None

    @property
    def valued_later(self) -> bool:
        """Return whether a judge grades, or programs are run, after the model has written."""
        return any(benchmark.later for benchmark in self.benchmarks)

    @property
    def waits_for(self) -> tuple[PinnedFile, ...]:
        """Return the pinned files that must be fetched before the suite can be asked."""
        return tuple(file for each in self.benchmarks for file in each.waits_for)


@cache
def shipped_suites() -> Mapping[str, Path]:
    """Return the files of the shipped suites by name; the folder is listed once a process."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def check_suite(
    document: object,
    path: Path,
    reader: FileReader,
    shelf: Shelf | None = None,
    shipped: object = None,
) -> Suite:
    """Check the document of the suite file `path`, and read the items files that it names.

    `reader` reads them: whoever has the one reader of strangers' files hands it over. Items files
    are relative to the suite file. `shelf` holds what was fetched of pinned data; `shipped` is the
    document of the shipped suite that this one is made of. Raises SuiteError, or ItemsError when
    only items are at fault; each lists every fault.
    """
    if shipped is not None:
        document = _on_top(document, path, shipped)
    definition = _definition(document, path)
    judge = _judge(definition.judge, path, shelf)
    benchmarks: list[Benchmark] = []
    faults: list[str] = []
    for entry in definition.chosen:
        place = _place(definition, entry, path, reader, shelf)
        try:
            found = resolve(
                entry, place, definition.limit, definition.seed, definition.max_new_tokens
            )
        except ItemsError as error:
            faults += [f"benchmark '{entry.name}': {error.where}: {f}" for f in error.faults]
        else:
            found["version"] = _version(found, judge)
            benchmarks.append(Benchmark(**found))
    if faults:
        raise ItemsError(str(path), faults)
    return Suite(
        name=definition.name,
        description=definition.description,
        seed=definition.seed,
        benchmarks=tuple(benchmarks),
        digest=_digest(definition, benchmarks),
        judge=judge,
        lm_eval_batch_size=definition.lm_eval_batch_size,
    )


def _on_top(document: object, path: Path, shipped: object) -> dict[str, Any]:
    """The shipped suite's document with what a file sets on top of it."""
    below, given = cast("Mapping[str, Any]", shipped), cast("Mapping[str, Any]", document)
    allowed = (*SET_BY_READER, "shipped")
    stray = [key for key in given if key not in allowed]
    faults = [
        f"{key} is not a key that a file with `shipped` may set.{did_you_mean(str(key), allowed)}"
        f" Known: {', '.join(allowed)}"
        for key in stray
    ]
    if faults:
        raise SuiteError(str(path), faults)
    return {**below, **{key: value for key, value in given.items() if key != "shipped"}}


def _definition(document: object, path: Path) -> SuiteDefinition:
    if not isinstance(document, Mapping):
        given = "nothing" if document is None else f"a {type(document).__name__}"
        problem = f"the suite file holds {given}; it must hold a mapping of keys to values"
        raise SuiteError(str(path), [problem])
    try:
        return SuiteDefinition.model_validate(document)
    except ValidationError as error:
        raise SuiteError(str(path), list_faults(error, _known_keys)) from None


def _known_keys(place: Place) -> Collection[str]:
    within = {"benchmarks": BenchmarkDefinition, "judge": JudgeDefinition, "sources": Source}
    return within.get(str(place[0]) if place else "", SuiteDefinition).model_fields


def _judge(given: JudgeDefinition | None, path: Path, shelf: Shelf | None) -> Judge | None:
    """The judge; one on this machine is known by its bytes."""
    if given is None:
        return None
    fields = given.model_dump(exclude={"endpoint"})
    if given.endpoint is not None:
        return Judge(**fields, endpoint=given.endpoint.rstrip("/"))
    folder = path.parent / Path(given.model).expanduser()
    if not (folder / "config.json").is_file():
        problem = (
            f"judge.model is '{given.model}', a folder without config.json; give the folder of a"
            " model, or `endpoint` as well"
        )
        raise SuiteError(str(path), [problem])
    digest = shelf.model_digest(folder) if shelf is not None else "unknown"
    fields["model"] = str(folder.resolve())
    return Judge(**fields, digest=digest)


def _place(
    definition: SuiteDefinition,
    entry: BenchmarkDefinition,
    path: Path,
    reader: FileReader,
    shelf: Shelf | None,
) -> DataPlace:
    folder = path.parent
    source = definition.sources.get(entry.source or "")
    if definition.data_dir is None:
        return DataPlace(folder, reader, source, shelf)
    given = folder / Path(definition.data_dir).expanduser()
    return DataPlace(given / (entry.source or ""), reader, source, None)


def _version(found: Mapping[str, Any], judge: Judge | None) -> str:
    """The version of what is asked, with who grades it: name, temperature and prompts."""
    version = str(found["version"])
    if judge is None or found["metric"] != "judge":
        return version
    prompts = found["settings"]["prompts"]
    told = f"judge {judge.name} at temperature {judge.temperature:g}, prompts {prompts}"
    if judge.max_new_tokens != JUDGE_WRITES:
        told += f", at most {judge.max_new_tokens} tokens"
    return f"{version}; {told}"


def _digest(definition: SuiteDefinition, benchmarks: list[Benchmark]) -> str:
    content: list[dict[str, Any]] = []
    for entry, benchmark in zip(definition.chosen, benchmarks, strict=True):
        known = {**entry.content(), "limit": benchmark.limit}
        content.append({**known, "version": benchmark.version})
    whole: dict[str, Any] = {
        "format": DIGEST_FORMAT,
        "lm_eval": importlib.metadata.version("lm_eval"),
        "name": definition.name,
        "seed": definition.seed,
        "benchmarks": content,
    }
    for key in ("lm_eval_batch_size", "max_new_tokens"):
        if (value := getattr(definition, key)) is not None:
            whole[key] = value
    text = json.dumps(whole, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return blake3(text.encode()).hexdigest()
