"""What may stand in a suite's file: its keys, their types, and which go together."""

import re
import unicodedata
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from eval_ops.suites.reading.item_forms import ROLES, template_fields
from eval_ops.suites.valuing.answers import LATER_METRICS, ROUGE, WRITTEN_METRICS

Name = Annotated[
    str, Field(pattern=r"^[^\W_][\w.-]*$"), AfterValidator(partial(unicodedata.normalize, "NFC"))
]
"""Letters and digits of any script, and '_', '.', '-' behind the first; composed (NFC)."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Repository = Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]

OWN_ONLY = (
    "prompt", "delimiter", "kind", "columns", "asked", "several", "max_new_tokens", "stop",
    "pattern", "ignore_case", "ignore_punctuation", "where", "turns", "references",
    "judge_prompts", "tests", "passage",
)  # fmt: skip
BUILT_IN_ONLY = ("num_fewshot", "data_files")
GENERATION_ONLY = (
    "max_new_tokens", "stop", "pattern", "ignore_case", "ignore_punctuation", "turns",
    "references", "judge_prompts", "tests",
)  # fmt: skip
CHOICE_METRICS = ("acc", "acc_norm")
SET_BY_READER = (
    "name", "description", "seed", "limit", "data_dir", "only", "allow_code", "judge",
    "lm_eval_batch_size", "max_new_tokens",
)  # fmt: skip
"""Keys that a suite file may set on top of a shipped suite."""
DEFAULT_NEW_TOKENS = 128
NEW_TOKENS_FOR_LETTERS = 32
JUDGE_WRITES = 1024
"""The most tokens of a judge's words, where a suite says nothing else."""


class Closed(BaseModel):
    """A mapping of a suite's file in which every key is known."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Source(Closed):
    """Where shipped data comes from: a commit of a GitHub repository, or of a data set of the Hub.

    `path` is the folder in it, and `files` says which have another name there. With `data_dir`, the
    files lie below the source's name in it.
    """

    github: Repository | None = None
    hub: Repository | None = None
    commit: Commit
    path: str = ""
    files: dict[str, str] = Field(default_factory=dict[str, str])

    @model_validator(mode="after")
    def _one_place(self) -> "Source":
        if (self.github is None) == (self.hub is None):
            raise ValueError("give either `github` or `hub`, each as owner/name")
        return self


class JudgeDefinition(Closed):
    """Who grades what models wrote: an OpenAI-compatible endpoint, or a model of this machine.

    `model` is the endpoint's name for it, or, without `endpoint`, a folder.
    """

    model: Annotated[str, Field(min_length=1)]
    endpoint: str | None = Field(default=None, pattern=r"^https?://\S+$")
    temperature: float = Field(default=0.0, ge=0, le=2)
    max_new_tokens: int = Field(default=JUDGE_WRITES, ge=16, le=8192)


class BenchmarkDefinition(Closed):
    """One entry of a suite's `benchmarks`: own items, or a built-in lm-eval task."""

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
    kind: Literal["choice", "generation"] = "choice"
    columns: dict[str, str | list[str]] = Field(default_factory=dict[str, "str | list[str]"])
    asked: Literal["texts", "letters"] = "texts"
    several: bool = False
    max_new_tokens: int | None = Field(default=None, ge=1, le=32_768)
    stop: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list[str])
    chat_template: bool = False
    pattern: str | None = None
    ignore_case: bool = False
    ignore_punctuation: bool = False
    where: dict[str, str | int] = Field(default_factory=dict[str, "str | int"])
    turns: str | None = None
    references: str | None = None
    judge_prompts: str | None = None
    tests: str | None = None
    passage: str | None = None
    source: str | None = None
    sha256: dict[str, Sha256] = Field(default_factory=dict[str, Sha256])

    @model_validator(mode="after")
    def _check_source(self) -> "BenchmarkDefinition":
        given = self.model_fields_set
        if (self.items is None) == (self.task is None):
            raise ValueError("give either `items` (own items) or `task` (a built-in of lm-eval)")
        kind, stray = ("items", BUILT_IN_ONLY) if self.items else ("task", OWN_ONLY)
        wrong = [key for key in stray if key in given]
        if wrong:
            raise ValueError(f"{' and '.join(wrong)} cannot be given together with `{kind}`")
        if self.items:
            self._check_own(given)
        return self

    def _check_own(self, given: set[str]) -> None:
        if self.kind == "choice":
            wrong = [key for key in GENERATION_ONLY if key in given and not self.several]
            if wrong:
                raise ValueError(f"{' and '.join(wrong)} need `kind: generation`")
            allowed = ("letters",) if self.several else CHOICE_METRICS
            if self.metric not in (None, *allowed):
                several = " (all right letters and no other)" if self.several else ""
                raise ValueError(
                    f"metric is {self.metric!r}; for own items it must be {_listed(allowed)}"
                    f"{several}: 'acc' is by log-likelihood, 'acc_norm' by log-likelihood per"
                    " character of the choice"
                )
        else:
            self._check_written()
        if fault := template_fields(self.prompt)[1]:
            raise ValueError(f"prompt is {self.prompt!r}: {fault}")
        if stray := sorted(set(self.columns) - set(ROLES)):
            raise ValueError(f"columns: {stray[0]!r} is none of {', '.join(ROLES)}")
        lists = [role for role, column in self.columns.items() if isinstance(column, list)]
        if lists and lists != ["choices"]:
            raise ValueError("columns: only choices may be a list of columns")
        for key in ("pattern", "passage"):
            _check_pattern(key, getattr(self, key))

    def _check_written(self) -> None:
        known = (*WRITTEN_METRICS, "rouge", *LATER_METRICS)
        if self.several or self.asked == "letters":
            raise ValueError("several and asked are for `kind: choice`")
        if self.metric is None or self.metric not in known:
            raise ValueError(
                f"metric is {self.metric!r}; for generation it must be {_listed(known)}"
            )
        for metric, key in (("regex", "pattern"), ("code", "tests")):
            if (self.metric == metric) != (getattr(self, key) is not None):
                raise ValueError(f"metric: {metric} and `{key}` belong together")
        if self.metric != "judge" and (self.turns or self.references or self.judge_prompts):
            raise ValueError("turns, references and judge_prompts need `metric: judge`")
        if self.turns and not self.chat_template:
            raise ValueError("turns need `chat_template: true`: the second question needs a form")

    @property
    def value(self) -> str | None:
        """Return the metric that values an item: what `metric` says, by its full name."""
        if self.items is None:
            return self.metric
        if self.kind == "choice":
            return "letters" if self.several else self.metric or "acc"
        return ROUGE[2] if self.metric == "rouge" else self.metric

    def content(self) -> dict[str, Any]:
        """Return what may change a score: newer keys only where they are set."""
        places = {"title", "items", "data_files", "references", "judge_prompts", "source", "sha256"}
        older = {"name", "prompt", "delimiter", "task", "num_fewshot", "validation_share", "metric"}
        whole = self.model_dump(exclude=places)
        fresh = BenchmarkDefinition.model_construct().model_dump()
        kept = older | {"limit"}
        return {key: v for key, v in whole.items() if key in kept or v != fresh.get(key)} | (
            {"divided": True} if self.items and "validation_share" in self.model_fields_set else {}
        )


class SuiteDefinition(Closed):
    """The whole suite file."""

    name: Name
    description: str = ""
    seed: int = Field(default=0, ge=0, lt=2**32)
    limit: int | None = Field(default=None, ge=1)
    max_new_tokens: int | None = Field(default=None, ge=1, le=32_768)
    data_dir: str | None = None
    lm_eval_batch_size: int | None = Field(default=None, ge=1, le=1024)
    only: list[str] | None = Field(default=None, min_length=1)
    sources: dict[Name, Source] = Field(default_factory=dict[str, Source])
    allow_code: bool = False
    judge: JudgeDefinition | None = None
    benchmarks: list[BenchmarkDefinition] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_names(self) -> "SuiteDefinition":
        names = [benchmark.name for benchmark in self.benchmarks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"benchmarks: each needs a name of its own; twice: {', '.join(twice)}")
        if stray := [name for name in self.only or () if name not in names]:
            raise ValueError(f"only: {stray[0]!r} is none of the benchmarks {', '.join(names)}")
        metrics = {each.metric: each.name for each in self.chosen if each.items}
        unknown = [b for b in self.benchmarks if b.source and b.source not in self.sources]
        if unknown:
            raise ValueError(
                f"benchmark '{unknown[0].name}': source {unknown[0].source!r} is not in `sources`"
            )
        if "code" in metrics and not self.allow_code:
            raise ValueError(
                f"benchmark '{metrics['code']}' runs code that models wrote. That happens in a"
                " child without network, with limits of memory, time and files, and only where the"
                " suite says `allow_code: true`"
            )
        if "judge" in metrics and self.judge is None:
            raise ValueError(
                f"benchmark '{metrics['judge']}' is graded by a judge and there is none; add"
                " `judge: {endpoint: https://…/v1, model: NAME}` for an OpenAI-compatible endpoint,"
                " or `judge: {model: FOLDER}` for a model on this machine"
            )
        return self

    @property
    def chosen(self) -> list[BenchmarkDefinition]:
        """Return the benchmarks of `only`, or all."""
        return [each for each in self.benchmarks if self.only is None or each.name in self.only]


def _listed(words: tuple[str, ...]) -> str:
    return " or ".join(repr(word) for word in words)


def _check_pattern(key: str, pattern: str | None) -> None:
    try:
        re.compile(pattern or "")
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{key} is {pattern!r}, no regular expression: {error}") from None
