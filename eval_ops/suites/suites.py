"""Suites: the benchmarks that checkpoints are measured on, as one YAML file.

name: quickstart
seed: 0
benchmarks:
  - name: herb_class                       # own multiple-choice items
    items: ../../items/herb_class.jsonl    # relative to this file
    prompt: "{prompt}"                     # a template over an item's keys
  - name: medicine                         # a built-in task (or group of tasks) of lm-eval
    task: cmmlu_traditional_chinese_medicine
    num_fewshot: 5
    limit: 200
    validation_share: 0.5
"""

import importlib.metadata
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from blake3 import blake3
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from eval_ops.errors import ItemsError, SuiteError
from eval_ops.faults import Place, list_faults
from eval_ops.suites.items import FileReader, Item, read_items, template_fields

DIGEST_FORMAT = 1
"""Raise this when the same suite would be scored in another way."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
OWN_ONLY = ("prompt", "delimiter")
BUILT_IN_ONLY = ("num_fewshot", "validation_share", "data_files")


class BenchmarkDefinition(BaseModel):
    """One entry of a suite's `benchmarks`: own items, or a built-in lm-eval task."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Name
    title: str | None = None
    items: str | None = None
    prompt: str = "{prompt}"
    delimiter: str = ""
    task: str | None = Field(default=None, pattern=r"^[\w][\w.:+-]*$")
    num_fewshot: int | None = Field(default=None, ge=0)
    validation_share: float = Field(default=0.5, ge=0, lt=1)
    data_files: dict[str, str] | None = None
    metric: str | None = None
    limit: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _check_source(self) -> "BenchmarkDefinition":
        given = self.model_fields_set
        if (self.items is None) == (self.task is None):
            raise ValueError(
                "give either `items` (own multiple-choice items) or `task` (a built-in of lm-eval)"
            )
        kind, stray = ("items", BUILT_IN_ONLY) if self.items else ("task", OWN_ONLY)
        wrong = [key for key in stray if key in given]
        if wrong:
            raise ValueError(f"{' and '.join(wrong)} cannot be given together with `{kind}`")
        if self.items and self.metric not in (None, "acc", "acc_norm"):
            raise ValueError(
                f"metric is {self.metric!r}; for own items it must be 'acc' (log-likelihood) or "
                "'acc_norm' (log-likelihood per character of the choice)"
            )
        if self.items and (fault := template_fields(self.prompt)[1]):
            raise ValueError(f"prompt is {self.prompt!r}: {fault}")
        return self


class SuiteDefinition(BaseModel):
    """The whole suite file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Name
    description: str = ""
    seed: int = Field(default=0, ge=0, lt=2**32)
    benchmarks: list[BenchmarkDefinition] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_names(self) -> "SuiteDefinition":
        names = [benchmark.name for benchmark in self.benchmarks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"benchmarks: each needs a name of its own; twice: {', '.join(twice)}")
        return self


@dataclass(frozen=True)
class Benchmark:
    """A benchmark ready to run: own `items`, or (when empty) the built-in `task`.

    `version` is the digest of what is asked: of the items file, or of the data files if given.
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


@dataclass(frozen=True)
class Suite:
    """A checked suite.

    `digest` changes with everything that may change a score: benchmarks, seed, the bytes of every
    items file, the version of lm-eval. Titles and descriptions do not count.
    """

    name: str
    description: str
    seed: int
    benchmarks: tuple[Benchmark, ...]
    digest: str


def check_suite(document: object, path: Path, reader: FileReader) -> Suite:
    """Check the document of the suite file `path`, and read the items files that it names.

    `reader` reads them: whoever has the one reader of strangers' files hands it over. Items files
    are relative to the suite file. Raises SuiteError, or ItemsError when only items are at fault;
    each lists every fault.
    """
    definition = _definition(document, path)
    benchmarks: list[Benchmark] = []
    faults: list[str] = []
    for entry in definition.benchmarks:
        try:
            benchmarks.append(_resolve(entry, path.parent, reader))
        except ItemsError as error:
            faults += [f"benchmark '{entry.name}': {error.where}: {f}" for f in error.faults]
    if faults:
        raise ItemsError(str(path), faults)
    return Suite(
        name=definition.name,
        description=definition.description,
        seed=definition.seed,
        benchmarks=tuple(benchmarks),
        digest=_digest(definition, benchmarks),
    )


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
    model = BenchmarkDefinition if place[:1] == ("benchmarks",) else SuiteDefinition
    return model.model_fields


def _resolve(entry: BenchmarkDefinition, folder: Path, reader: FileReader) -> Benchmark:
    """Read what a definition points to."""
    title = entry.title or entry.name
    if entry.items is not None:
        file = read_items(folder / entry.items, reader, entry.prompt)
        return Benchmark(
            name=entry.name,
            title=title,
            metric=entry.metric or "acc",
            limit=entry.limit,
            items=_first_of_each_split(file.items, entry.limit),
            delimiter=entry.delimiter,
            version=file.digest,
        )
    files = {split: folder / file for split, file in sorted((entry.data_files or {}).items())}
    return Benchmark(
        name=entry.name,
        title=title,
        metric=entry.metric,
        limit=entry.limit,
        task=entry.task,
        num_fewshot=entry.num_fewshot,
        validation_share=entry.validation_share,
        data_files=tuple(files.items()),
        version=_digest_files(files, reader),
    )


def _first_of_each_split(items: tuple[Item, ...], limit: int | None) -> tuple[Item, ...]:
    if limit is None:
        return items
    taken: dict[str, int] = {}
    kept: list[Item] = []
    for item in items:
        taken[item.split] = taken.get(item.split, 0) + 1
        if taken[item.split] <= limit:
            kept.append(item)
    return tuple(kept)


def _digest_files(files: Mapping[str, Path], reader: FileReader) -> str:
    if not files:
        return ""
    total = blake3()
    for split, path in files.items():
        if path.suffix not in (".csv", ".json", ".jsonl", ".parquet"):
            raise ItemsError(str(path), ["must end in .csv, .json, .jsonl or .parquet"])
        try:
            total.update(f"{split}\0{reader.digest(path)}\0".encode())
        except OSError as error:
            raise ItemsError(str(path), [str(error)]) from error
    return total.hexdigest()


def _digest(definition: SuiteDefinition, benchmarks: list[Benchmark]) -> str:
    content: list[dict[str, Any]] = []
    for entry, benchmark in zip(definition.benchmarks, benchmarks, strict=True):
        known = entry.model_dump(exclude={"title", "items", "data_files"})
        content.append({**known, "version": benchmark.version})
    whole = {
        "format": DIGEST_FORMAT,
        "lm_eval": importlib.metadata.version("lm_eval"),
        "name": definition.name,
        "seed": definition.seed,
        "benchmarks": content,
    }
    text = json.dumps(whole, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return blake3(text.encode()).hexdigest()
