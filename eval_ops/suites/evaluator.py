"""Runs a suite on checkpoints, one after the other: tasks are built once, a model is loaded once.

What lm-eval does, building prompts, asking the model, applying filters and metrics, stands in
harness.py. The model stays in memory and only its weights change (running/live_model.py).
"""

import importlib.metadata
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval_ops.running import LiveModel, Progress
from eval_ops.running.pinning import pinned, set_threads
from eval_ops.scores import Sample, Score, SuiteScores, summarize
from eval_ops.suites import harness
from eval_ops.suites.asked_items import AskedItems
from eval_ops.suites.conversations import of_turn, second_questions
from eval_ops.suites.samples import Answers, read_samples
from eval_ops.suites.suites import Benchmark, Suite

REMEMBERED = 256
"""How many checkpoints' scores an `Evaluator` keeps in memory."""
SMALL_MODEL = 30_000_000
"""Parameters below which one thread is the fastest."""
SCORERS = ("lm_eval", "torch", "transformers")
"""The software whose versions scores carry."""


class Evaluator:
    """Scores checkpoints on one suite.

    `device` is "cpu" or a torch CUDA device. `threads` pins torch's CPU threads while scoring;
    None leaves them as they are, but takes one for a model of less than 30 M parameters, where
    more only wait for each other. `batch_size` is the most sequences in one forward pass; fewer
    are taken where prompts are long or the vocabulary is large. The same checkpoint, suite,
    threads and batch_size give the same scores to the last bit. A suite with `lm_eval_batch_size`
    is asked one benchmark after the other, with that batch size and as lm-eval's command asks it.
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
        self._loaded: str | None = None
        self._known: dict[str, SuiteScores] = {}
        self._asked: dict[str, AskedItems] = {}
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Build the suite's lm-eval tasks; `score` does it when it was not done before.

        Call it early to have a wrong suite fail before any work. HarnessError names the benchmark.
        """
        if not self._tasks:
            self._tasks = {
                benchmark.name: harness.build_tasks(benchmark)
                for benchmark in self.suite.benchmarks
            }

    def score(
        self,
        folder: Path | str,
        progress: Progress | None = None,
        digest: str | None = None,
        items: Mapping[str, Sequence[int]] | None = None,
    ) -> SuiteScores:
        """Score the checkpoint in `folder` (Hugging Face style, safetensors) on the suite.

        `progress(done, total)` counts questions put to the model. With `digest`, the checkpoint's,
        scores that this object gave before are given again without touching the folder.

        `items` asks some items alone: of each benchmark that it names those at these places, of the
        others none. With a digest, what was asked so before is not asked again. An answer's last
        bits may depend on what is asked together; the same questions give the same bits.

        Raises CheckpointLoadError when the folder cannot be loaded, NonFiniteError when the model
        answers with NaN, HarnessError when lm-eval cannot run a benchmark. Benchmarks that a judge
        grades, or whose code is run, have samples but no score yet: `later_scores` gives them.
        """
        with self._lock:
            if items is None and digest is not None and digest in self._known:
                return self._known[digest]
            self.prepare()
            if items is not None:
                return self._score_some(Path(folder), progress, digest, items)
            scores = self._run(Path(folder), progress, None, digest)
            if digest is not None:
                self._known[digest] = scores
                if len(self._known) > REMEMBERED:
                    del self._known[next(iter(self._known))]
            return scores

    def _run(
        self,
        folder: Path,
        progress: Progress | None,
        items: Mapping[str, Sequence[int]] | None,
        digest: str | None,
    ) -> SuiteScores:
        """Load a checkpoint, unless its digest is that of the one in memory, and ask it."""
        with pinned(self._threads or self._cores, self.suite.seed, self._device):
            if digest is None or digest != self._loaded:
                self._loaded = None
                self._load(folder)
                self._loaded = digest
            small = self._lm.model.num_parameters() < SMALL_MODEL
            if self._threads is None and small and not self.suite.lm_eval_batch_size:
                set_threads(1)
            return self._score(str(folder), progress, items)

    def _score_some(
        self,
        folder: Path,
        progress: Progress | None,
        digest: str | None,
        items: Mapping[str, Sequence[int]],
    ) -> SuiteScores:
        """Ask what of `items` was not asked before, and return the scores of all of them."""
        asked = self._asked.pop(digest, None) if digest is not None else None
        asked = asked or AskedItems()
        sizes = {each.name: len(self._documents(each)) for each in self.suite.benchmarks}
        missing = asked.missing(items, sizes)
        if missing:
            asked.add(missing, self._run(folder, progress, missing, digest))
        if digest is not None:
            self._asked[digest] = asked
            if len(self._asked) > REMEMBERED:
                del self._asked[next(iter(self._asked))]
        return asked.scores(items)

    def _load(self, folder: Path) -> None:
        """Exchange the weights of the model in memory, or load another one."""
        if self._lm is not None and self._live.exchange(folder):
            return
        self._lm = None
        model, tokenizer = self._live.load(folder)
        exactly = self.suite.lm_eval_batch_size
        size = exactly or self._batch_size
        self._lm = harness.wrap_model(model, tokenizer, size, str(folder), exactly is not None)

    def _score(
        self,
        where: str,
        progress: Progress | None,
        items: Mapping[str, Sequence[int]] | None = None,
    ) -> SuiteScores:
        tasks, limits = self._chosen_tasks(items)
        logs: dict[str, list[dict[str, Any]]] = {}
        for together in self._asked_together():
            named = {_key(b, n) for b in together for n in self._tasks[b.name]}
            asked = {key: task for key, task in tasks.items() if key in named}
            chosen = {key: places for key, places in limits.items() if key in named}
            chat = together[0].chat_template
            if asked:
                logs |= harness.evaluate(self._lm, asked, chosen, progress, where, chat)
        answers: dict[str, Answers] = {}
        for benchmark in self.suite.benchmarks:
            members = self._tasks[benchmark.name]
            keys = {name: _key(benchmark, name) for name in members}
            own_logs = {name: logs[key] for name, key in keys.items() if key in logs}
            if own_logs:
                answers[benchmark.name] = self._answers(benchmark, members, own_logs, where)
        answers |= self._both_turns(answers, progress, where)
        samples: list[Sample] = []
        scores: list[Score] = []
        for benchmark in self.suite.benchmarks:
            found = answers.get(benchmark.name)
            samples += found.samples if found else ()
            if found and not benchmark.later:
                scores += summarize(found.samples, found.metric, found.version)
        return SuiteScores(
            suite=self.suite.name,
            suite_digest=self.suite.digest,
            scores=tuple(scores),
            samples=tuple(samples),
            versions={package: importlib.metadata.version(package) for package in SCORERS},
        )

    def _asked_together(self) -> list[list[Benchmark]]:
        """Return the benchmarks whose questions lm-eval gets at once: those of a chat, the others.

        Where digits shall be those of lm-eval's command, whose batches hold one task's questions,
        each benchmark is asked for itself.
        """
        benchmarks = self.suite.benchmarks
        if self.suite.lm_eval_batch_size:
            return [[benchmark] for benchmark in benchmarks]
        found = [[b for b in benchmarks if b.chat_template == chat] for chat in (False, True)]
        return [each for each in found if each]

    def _answers(
        self,
        benchmark: Benchmark,
        tasks: dict[str, Any],
        logs: dict[str, list[dict[str, Any]]],
        where: str,
    ) -> Answers:
        """Read lm-eval's log of a benchmark, with the length of what was written."""
        names = [name for _, _, name in self._documents(benchmark)]
        return read_samples(benchmark, tasks, logs, self.suite.seed, where, self._counter(), names)

    def _counter(self) -> Callable[[str], int] | None:
        """Return what counts the tokens of a text, None where nothing does."""
        return self._count_tokens

    def _count_tokens(self, text: str) -> int:
        return len(self._lm.tok_encode(text, add_special_tokens=False))

    def _both_turns(
        self, first: Mapping[str, Answers], progress: Progress | None, where: str
    ) -> dict[str, Answers]:
        """Ask the second questions of all conversations at once; the answers to both questions.

        `first` holds the answers by benchmark; those without conversations are not returned.
        """

        def render(turns: Sequence[str]) -> str:
            return harness.render_chat(self._lm, turns, where)

        second = [
            second_questions(benchmark, first[benchmark.name].samples, render)
            for benchmark in self.suite.benchmarks
            if benchmark.name in first and any(item.follow_up for item in benchmark.items)
        ]
        if not second:
            return {}
        tasks = {each.name: next(iter(harness.build_tasks(each).values())) for each in second}
        logs = harness.evaluate(self._lm, tasks, {}, progress, where)
        found: dict[str, Answers] = {}
        for benchmark in second:
            name, seed = benchmark.name, self.suite.seed
            own = {name: tasks[name]}
            read = read_samples(benchmark, own, {name: logs[name]}, seed, where, self._counter())
            both = of_turn(first[name].samples, 1) + of_turn(read.samples, 2)
            found[name] = first[name]._replace(samples=both)
        return found

    def _chosen_tasks(
        self, items: Mapping[str, Sequence[int]] | None
    ) -> tuple[dict[str, Any], dict[str, Sequence[int]]]:
        """Return tasks by a key of their own, and the places of the questions they are limited to.

        Two benchmarks may ask the same task in two ways, so a task's name is no key.
        """
        tasks: dict[str, Any] = {}
        limits: dict[str, Sequence[int]] = {}
        for benchmark in self.suite.benchmarks:
            documents = self._documents(benchmark)
            if items is not None:
                documents = [
                    documents[place] for place in sorted(set(items.get(benchmark.name, ())))
                ]
            for name, task in self._tasks[benchmark.name].items():
                own = [number for of, number, _ in documents if of == name]
                if not own:
                    continue
                key = _key(benchmark, name)
                tasks[key] = task
                task.set_fewshot_seed(self.suite.seed)
                if len(own) < len(task.eval_docs):
                    limits[key] = own
        return tasks, limits

    def _documents(self, benchmark: Benchmark) -> list[tuple[str, int, str]]:
        """Return what a benchmark may ask in order: task, place in it, name of the sample."""
        tasks = self._tasks[benchmark.name]
        most = None if benchmark.items else benchmark.limit
        return [
            (name, number, f"{name}/{number}" if len(tasks) > 1 else str(number))
            for name, task in tasks.items()
            for number in range(len(task.eval_docs))[:most]
        ]


_fetched: set[str] = set()


def fetch_data(suite: Suite) -> None:
    """Have the data of built-in tasks in the local cache of data sets, once a process.

    The child that scores has no network. Raises HarnessError that names the benchmark.
    """
    if suite.digest not in _fetched:
        for benchmark in suite.benchmarks:
            if benchmark.task and not benchmark.data_files and not benchmark.waits_for:
                harness.build_tasks(benchmark)
        _fetched.add(suite.digest)


def _key(benchmark: Benchmark, task: str) -> str:
    return f"{benchmark.name}:{task}"
