"""The one place that knows lm-eval: runs a suite on checkpoints.

lm-eval builds the prompts, asks the model, applies filters and metrics, with its own `evaluate`,
task objects and Hugging Face model class. What is ours around it: tasks are built once, the model
stays in memory and only its weights change (live_model.py), and the model class does less for the
same numbers (lean_model.py).
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

import contextlib
import functools
import importlib.metadata
import logging
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval_ops.errors import HarnessError, UnknownTaskError
from eval_ops.faults import did_you_mean
from eval_ops.running.lean_model import Progress, make_lean
from eval_ops.running.live_model import LiveModel
from eval_ops.running.pinning import pinned, set_threads
from eval_ops.scores.scores import Sample, Score, SuiteScores, summarize
from eval_ops.suites.samples import read_samples
from eval_ops.suites.suites import Benchmark, Suite

REMEMBERED = 256
"""How many checkpoints' scores an `Evaluator` keeps in memory."""
SMALL_MODEL = 30_000_000
"""Parameters below which one thread is the fastest."""


class Evaluator:
    """Scores checkpoints on one suite.

    `device` is "cpu" or a torch CUDA device. `threads` pins torch's CPU threads while scoring;
    None takes `cores` (None: torch's threads as they are), but one for a model of less than 30 M
    parameters, where more only wait for each other. `batch_size` is the most sequences in one
    forward pass; fewer are taken where prompts are long or the vocabulary is large. The same
    checkpoint, suite, threads and batch_size give the same scores to the last bit.
    """

    def __init__(
        self,
        suite: Suite,
        device: str = "cpu",
        threads: int | None = None,
        batch_size: int = 128,
        cores: int | None = None,
    ) -> None:
        self.suite = suite
        self._device = device
        self._threads = threads
        self._cores = cores
        self._batch_size = batch_size
        self._tasks: dict[str, dict[str, Any]] = {}
        self._live = LiveModel(device)
        self._lm: Any = None
        self._known: dict[str, SuiteScores] = {}
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Build the suite's lm-eval tasks; `score` does it when it was not done before.

        Call it early to have a wrong suite fail before any work. HarnessError names the benchmark.
        """
        if not self._tasks:
            self._tasks = {
                benchmark.name: _build_tasks(benchmark) for benchmark in self.suite.benchmarks
            }

    def score(
        self, folder: Path | str, progress: Progress | None = None, digest: str | None = None
    ) -> SuiteScores:
        """Score the checkpoint in `folder` (Hugging Face style, safetensors) on the suite.

        `progress(done, total)` counts questions put to the model. With `digest`, the checkpoint's,
        scores that this object gave before are given again without touching the folder.

        Raises CheckpointLoadError when the folder cannot be loaded, NonFiniteError when the model
        answers with NaN, HarnessError when lm-eval cannot run a benchmark.
        """
        with self._lock:
            if digest is not None and digest in self._known:
                return self._known[digest]
            self.prepare()
            with pinned(self._threads or self._cores, self.suite.seed, self._device):
                self._load(Path(folder))
                if self._threads is None and self._lm.model.num_parameters() < SMALL_MODEL:
                    set_threads(1)
                scores = self._score(str(folder), progress)
            if digest is not None:
                self._known[digest] = scores
                if len(self._known) > REMEMBERED:
                    del self._known[next(iter(self._known))]
            return scores

    def _load(self, folder: Path) -> None:
        if self._lm is not None and self._live.exchange(folder):
            return
        self._lm = None
        model, tokenizer = self._live.load(folder)
        settings = {"pretrained": model, "tokenizer": tokenizer, "batch_size": self._batch_size}
        try:
            with _quiet_log("lm_eval.models.huggingface"):
                self._lm = _model_class()(**settings)
        except Exception as error:  # assertions, missing special tokens and the like
            raise HarnessError(
                f"{folder}: lm-eval cannot use this model and tokenizer: "
                f"{type(error).__name__}: {error}"
            ) from error

    def _score(self, where: str, progress: Progress | None) -> SuiteScores:
        tasks: dict[str, Any] = {}
        limits: dict[str, Sequence[int]] = {}
        for benchmark in self.suite.benchmarks:
            for name, task in self._tasks[benchmark.name].items():
                key = f"{benchmark.name}:{name}"
                tasks[key] = task
                task.set_fewshot_seed(self.suite.seed)
                if benchmark.limit is not None and not benchmark.items:
                    limits[key] = range(min(benchmark.limit, len(task.eval_docs)))
        logged = _evaluate(self._lm, tasks, limits, progress, where)
        samples: list[Sample] = []
        scores: list[Score] = []
        for benchmark in self.suite.benchmarks:
            members = self._tasks[benchmark.name]
            logs = {name: logged[f"{benchmark.name}:{name}"] for name in members}
            answers = read_samples(benchmark, members, logs, self.suite.seed, where)
            samples += answers.samples
            scores += summarize(answers.samples, answers.metric, answers.version)
        packages = ("lm_eval", "torch", "transformers")
        return SuiteScores(
            suite=self.suite.name,
            suite_digest=self.suite.digest,
            scores=tuple(scores),
            samples=tuple(samples),
            versions={package: importlib.metadata.version(package) for package in packages},
        )


def _evaluate(
    lm: Any,
    tasks: Mapping[str, Any],
    limits: Mapping[str, Sequence[int]],
    progress: Progress | None,
    where: str,
) -> Mapping[str, list[dict[str, Any]]]:
    """Run lm-eval and return its log: for each task, one row a sample and filter."""
    from lm_eval import evaluator

    run: Any = evaluator.evaluate
    try:
        with _no_progress_bars():
            lm.report_to(progress, tasks.values())
            # Standard errors come from our own samples (scores.py), by lm-eval's formula.
            results = run(
                lm, {"tasks": tasks}, samples=limits or None, bootstrap_iters=0, log_samples=True
            )
    except Exception as error:  # lm-eval and the tasks' own code raise every kind
        raise HarnessError(
            f"{where}: lm-eval stopped while running {', '.join(tasks)}: "
            f"{type(error).__name__}: {error}"
        ) from error
    return results["samples"]


def _build_tasks(benchmark: Benchmark) -> dict[str, Any]:
    """Return lm-eval's task objects of a benchmark by name: one, or a group's."""
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

    rows = [
        {"id": i.id, "split": i.split, "prompt": i.prompt, "choices": i.choices, "answer": i.answer}
        for i in benchmark.items
    ]
    documents = {"items": Dataset.from_list(rows)}

    def dataset(**_: object) -> dict[str, Any]:
        return documents

    metrics = ("acc", "acc_norm")
    with _quiet_log("lm_eval.api.task"):
        return ConfigurableTask(
            config={
                "task": benchmark.name,
                "custom_dataset": dataset,
                "test_split": "items",
                "output_type": "multiple_choice",
                "doc_to_text": "prompt",
                "doc_to_choice": "choices",
                "doc_to_target": "answer",
                "target_delimiter": benchmark.delimiter,
                "num_fewshot": 0,
                "metric_list": [
                    {"metric": metric, "aggregation": "mean", "higher_is_better": True}
                    for metric in metrics
                ],
            }
        )


def _built_in_tasks(benchmark: Benchmark) -> dict[str, Any]:
    name = str(benchmark.task)
    manager = _manager_of_file(name) or _manager_of_all()
    if name not in manager.all_tasks:
        raise UnknownTaskError(
            f"benchmark '{benchmark.name}': lm-eval has no built-in task '{name}'."
            f"{did_you_mean(name, manager.all_tasks)} `lm-eval ls tasks` lists them all"
        )
    spec: Any = name
    if benchmark.data_files:
        if name not in manager.all_subtasks:
            raise HarnessError(
                f"benchmark '{benchmark.name}': data_files need a single task, but '{name}' is a "
                "group of tasks; name one benchmark for each task of it"
            )
        files = {split: str(path.resolve()) for split, path in benchmark.data_files}
        form = benchmark.data_files[0][1].suffix.lstrip(".").replace("jsonl", "json")
        source = {"dataset_path": form, "dataset_name": None}
        replaced = {"task": name, **source, "dataset_kwargs": {"data_files": files}}
        spec = {"group": benchmark.name, "task": [replaced]}
    tasks: dict[str, Any] = dict(manager.load([spec])["tasks"])
    for task in tasks.values():
        if benchmark.num_fewshot is not None:
            task.set_config(key="num_fewshot", value=benchmark.num_fewshot)
        elif task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
    return tasks


@functools.cache
def _manager_of_all() -> Any:
    """Index all of lm-eval's built-in tasks: several seconds of parsing, once a process."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _manager_of_file(name: str) -> Any:
    """Index only the folder with the file `name`.yaml; None if that does not define the task."""
    import lm_eval.tasks

    root = Path(lm_eval.tasks.__file__).parent
    for file in root.rglob(f"{name}.yaml"):
        manager = lm_eval.tasks.TaskManager(include_defaults=False, include_path=file.parent)
        if name in manager.all_subtasks:
            return manager
    return None


@functools.cache
def _model_class() -> Any:
    from lm_eval.models.huggingface import HFLM

    return make_lean(HFLM)


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
