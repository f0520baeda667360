"""The one place that knows lm-eval: builds its tasks, wraps a model for it, runs it.

lm-eval builds the prompts, asks the model, applies filters and metrics, with its own `evaluate`,
task objects and Hugging Face model class. The model class does less for the same numbers
(running/lean_model.py).
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

import contextlib
import functools
import logging
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval_ops.errors import HarnessError, UnknownTaskError
from eval_ops.faults import did_you_mean
from eval_ops.running import AskedTokenizer, Progress, make_lean, make_served, make_watched
from eval_ops.running.lean_model import NEW_TOKENS
from eval_ops.suites import item_tasks
from eval_ops.suites.built_requests import keep_requests
from eval_ops.suites.suites import Benchmark
from eval_ops.suites.task_files import is_mentioned, task_files

LM_EVAL_WRITES = 256
"""The most tokens of an answer where a task says nothing: of lm-eval's model classes."""
ENDPOINT_WAITS = 300
"""Seconds that a request to a served model may take; see docs/timeouts.md."""


def evaluate(
    lm: Any,
    tasks: Mapping[str, Any],
    limits: Mapping[str, Sequence[int]],
    progress: Progress | None,
    where: str,
    chat_template: bool = False,
) -> Mapping[str, list[dict[str, Any]]]:
    """Run lm-eval on a model and return its log: for each task, one row a sample and filter.

    `lm` comes from `wrap_model`. `limits` holds, for some tasks, the places of the questions to
    ask; `where` names the checkpoint, for messages. With `chat_template`, prompts are put into the
    tokenizer's. Raises HarnessError when lm-eval stops.
    """
    from lm_eval import evaluator

    run: Any = evaluator.evaluate
    try:
        with _no_progress_bars():
            lm.report_to(progress, tasks.values())
            for task in tasks.values():
                keep_requests(task)
            # Standard errors come from our own samples (scores.py), by lm-eval's formula.
            results = run(
                lm,
                {"tasks": tasks},
                samples=limits or None,
                bootstrap_iters=0,
                log_samples=True,
                apply_chat_template=chat_template,
            )
    except Exception as error:  # lm-eval and the tasks' own code raise every kind
        raise HarnessError(
            f"{where}: lm-eval stopped while running {', '.join(tasks)}: "
            f"{type(error).__name__}: {error}"
        ) from error
    return results["samples"]


def render_chat(lm: Any, turns: Sequence[str], where: str) -> str:
    """Return the prompt of a conversation, whose turns are the user's and the model's in turn.

    Raises HarnessError where the tokenizer has no chat template.
    """
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": turn} for place, turn in enumerate(turns)]
    try:
        return str(lm.apply_chat_template(messages, add_generation_prompt=True))
    except Exception as error:  # templates are programs of strangers
        raise HarnessError(
            f"{where}: the chat template cannot be used: {type(error).__name__}: {error}"
        ) from error


def wrap_model(
    model: Any, tokenizer: Any, batch_size: int, where: str, exactly: bool = False
) -> Any:
    """Return lm-eval's view of a loaded Hugging Face model, made lean (running/lean_model.py).

    `batch_size` is the most sequences in one forward pass. With `exactly`, the view computes what
    lm-eval's command does with that batch size, pass by pass. Raises HarnessError when lm-eval
    cannot use the model; `where` names the checkpoint in it.
    """
    kind = _watched_class() if exactly else _model_class()
    try:
        with _quiet_log("lm_eval.models.huggingface"):
            return kind(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    except Exception as error:  # assertions, missing special tokens and the like
        raise HarnessError(
            f"{where}: lm-eval cannot use this model and tokenizer: {type(error).__name__}: {error}"
        ) from error


def wrap_endpoint(
    url: str,
    model: str,
    tokenizer: AskedTokenizer | None,
    token: str,
    concurrent: int,
    max_length: int,
    where: str,
) -> Any:
    """Return lm-eval's view of a model that is served at `url`, an API's root (`…/v1`).

    Without its `tokenizer`, only chat completions are asked. Raises HarnessError when lm-eval
    cannot use it; `where` names it.
    """
    from lm_eval.models import openai_completions as clients

    client: Any = clients.LocalCompletionsAPI if tokenizer else clients.LocalChatCompletion
    path = "completions" if tokenizer else "chat/completions"
    try:
        with _quiet_log("lm_eval.models"):
            return make_served(client)(
                token=token,
                tokenizer=tokenizer,
                base_url=f"{url.rstrip('/')}/{path}",
                model=model,
                num_concurrent=concurrent,
                max_length=max_length,
                timeout=ENDPOINT_WAITS,
            )
    except Exception as error:
        raise HarnessError(
            f"{where}: lm-eval cannot use it: {type(error).__name__}: {error}"
        ) from error


def build_tasks(benchmark: Benchmark) -> dict[str, Any]:
    """Return lm-eval's task objects of a benchmark by name: one, or a group's.

    Raises HarnessError, naming the benchmark, when lm-eval cannot prepare them, and
    UnknownTaskError when it has no task of that name.
    """
    if benchmark.waits_for:
        first = benchmark.waits_for[0]
        raise HarnessError(
            f"benchmark '{benchmark.name}': {first.path} of github.com/{first.repository} has not"
            " been fetched; `ronghe refresh` fetches it first of all, or give `data_dir`"
        )
    try:
        if benchmark.items:
            return {"items": _item_task(benchmark)}
        return _built_in_tasks(benchmark)
    except HarnessError:
        raise
    except Exception as error:  # task code and datasets raise every kind
        raise HarnessError(
            f"benchmark '{benchmark.name}': lm-eval cannot prepare task "
            f"'{benchmark.task or 'items'}': {type(error).__name__}: {error}"
        ) from error


def _item_task(benchmark: Benchmark) -> Any:
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    documents = {"items": Dataset.from_list(item_tasks.rows(benchmark))}

    def dataset(**_: object) -> dict[str, Any]:
        return documents

    with _quiet_log("lm_eval.api.task"):
        return ConfigurableTask(
            config={**item_tasks.configuration(benchmark), "custom_dataset": dataset}
        )


def _built_in_tasks(benchmark: Benchmark) -> dict[str, Any]:
    name = str(benchmark.task)
    files = task_files(_task_folder())
    if benchmark.data_files and name in files.groups and name not in files.tasks:
        raise _no_single_task(benchmark)
    manager = _manager_of_file(name)
    if manager is None and (name in files.groups or is_mentioned(_task_folder(), name)):
        manager = _manager_of_all()
    if manager is None or name not in manager.all_tasks:
        raise UnknownTaskError(
            f"benchmark '{benchmark.name}': lm-eval has no built-in task '{name}'."
            f"{_names_like(name, manager)} `lm-eval ls tasks` lists them all"
        )
    spec: Any = name
    if benchmark.data_files:
        if name not in manager.all_subtasks:
            raise _no_single_task(benchmark)
        given = {split: str(path.resolve()) for split, path in benchmark.data_files}
        form = benchmark.data_files[0][1].suffix.lstrip(".").replace("jsonl", "json")
        source = {"dataset_path": form, "dataset_name": None}
        replaced = {"task": name, **source, "dataset_kwargs": {"data_files": given}}
        if benchmark.num_fewshot == 0:  # no example is drawn, so none need be there
            test = next((split for split in ("test", "validation", "val") if split in given), None)
            replaced |= {"training_split": None, "fewshot_split": test} if test else {}
        spec = {"group": benchmark.name, "task": [replaced]}
    elif benchmark.revision:
        replaced = {"task": name, "dataset_kwargs": {"revision": benchmark.revision}}
        spec = {"group": benchmark.name, "task": [replaced]}
    tasks: dict[str, Any] = dict(manager.load([spec])["tasks"])
    for task in tasks.values():
        if benchmark.num_fewshot is not None:
            task.set_config(key="num_fewshot", value=benchmark.num_fewshot)
        elif task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        if benchmark.max_new_tokens:
            _write_less(task, benchmark.max_new_tokens)
    return tasks


@functools.lru_cache(maxsize=64)
def _names_like(name: str, manager: Any) -> str:
    """Which known task may be meant; one of thirteen thousand, so not looked for by each model."""
    files = task_files(_task_folder())
    return did_you_mean(name, manager.all_tasks if manager else [*files.tasks, *files.groups])


def _no_single_task(benchmark: Benchmark) -> HarnessError:
    return HarnessError(
        f"benchmark '{benchmark.name}': data_files need a single task, but '{benchmark.task}' is a "
        "group of tasks; name one benchmark for each task of it"
    )


def _task_folder() -> Path:
    import lm_eval.tasks

    return Path(lm_eval.tasks.__file__).parent


def _write_less(task: Any, most: int) -> None:
    """Let a built-in task's answers have `most` tokens, or what they have anyhow if that is less.

    The task's own name for it stays: lm-eval knows four.
    """
    if task.OUTPUT_TYPE != "generate_until":
        return
    given = dict(task.get_config("generation_kwargs") or {})
    stated = {name: int(given[name]) for name in NEW_TOKENS if given.get(name) is not None}
    less = {
        name: min(most, tokens)
        for name, tokens in (stated or {NEW_TOKENS[0]: LM_EVAL_WRITES}).items()
    }
    task.set_config(key="generation_kwargs", value={**given, **less})


@functools.cache
def _manager_of_all() -> Any:
    """Index all of lm-eval's built-in tasks: several seconds of parsing, once a process."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _manager_of_file(name: str) -> Any:
    """Index only the folder that defines a single task; None where that does not find it."""
    from lm_eval.tasks import TaskManager

    folder = task_files(_task_folder()).tasks.get(name)
    if folder is None:
        return None
    manager = TaskManager(include_defaults=False, include_path=folder)
    return manager if name in manager.all_subtasks else None


@functools.cache
def _model_class() -> Any:
    from lm_eval.models.huggingface import HFLM

    return make_lean(HFLM)


@functools.cache
def _watched_class() -> Any:
    from lm_eval.models.huggingface import HFLM

    return make_watched(HFLM)


@contextlib.contextmanager
def _no_progress_bars() -> Generator[None]:
    """Take away the bars lm-eval draws on standard error while it builds prompts."""
    from lm_eval.api import task

    drawn = task.tqdm
    task.tqdm = functools.partial(drawn, disable=True)
    try:
        yield
    finally:
        task.tqdm = drawn


@contextlib.contextmanager
def _quiet_log(name: str) -> Generator[None]:
    """Keep a logger's warnings about what we do on purpose from the user's eyes."""
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
