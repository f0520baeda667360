"""What models wrote is graded by a judge, and their programs are run. Knows no Dagster."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eval_ops.scores import SuiteScores
    from eval_ops.suites import Judge, Suite

Messages = Sequence[Mapping[str, str]]

PROGRAM_MEMORY = 1 << 30
PROGRAM_CPU_SECONDS = 10
PROGRAM_FILE_BYTES = 4 << 20
PROGRAM_OPEN_FILES = 64
PROGRAM_WAITS = 60.0  # seconds; see docs/timeouts.md


def with_later_scores(
    suite: "Suite", scores: "SuiteScores", device: str, threads: int
) -> "SuiteScores":
    """Return scores with those of benchmarks that a judge grades, or whose programs are run.

    Raises EvalError where the judge gives no grade, EndpointError where it does not answer.
    """
    from eval_ops.suites import later_scores

    return later_scores(suite, scores, asker(suite.judge, device, threads), runs_through)


def asker(judge: "Judge | None", device: str, threads: int) -> Callable[[Messages], str]:
    """Return how a judge is asked: at its endpoint, or in the child that runs models."""

    def ask(messages: Messages) -> str:
        from resources.benchmarks import ask_endpoint

        assert judge is not None  # a suite that needs one is refused without
        if not judge.endpoint:
            return _ask_child(judge, messages, device, threads)
        settings = judge.temperature, judge.max_new_tokens
        return ask_endpoint(judge.endpoint, judge.model, messages, *settings)

    return ask


def _ask_child(judge: "Judge", messages: Messages, device: str, threads: int) -> str:
    from pathlib import Path

    from assets.work.measuring.asking_child import TOKENIZER_SECONDS, ask_child
    from merge_ops.stream import usable_cores

    request: dict[str, Any] = {
        "messages": [dict(message) for message in messages],
        "digest": judge.digest,
        "device": device,
        "threads": threads or usable_cores(),
        "temperature": judge.temperature,
        "max_new_tokens": judge.max_new_tokens,
        "tokenizer_seconds": TOKENIZER_SECONDS,
    }
    doing = f"grades answers as judge {judge.name}"
    module, cuda = "eval_ops.suites.valuing.judge_child", device != "cpu"
    return str(ask_child(module, Path(judge.model), request, doing, cuda=cuda)["says"])


def runs_through(program: str) -> bool:
    """Return whether a program runs to its end, in a child of its own: limited, without network.

    One that takes too much memory or CPU time, crashes, or waits for what never comes, does not.
    """
    from merge_ops.children import LimitedChild
    from merge_ops.errors import ChildEndedError, ChildRaisedError

    with LimitedChild(
        "eval_ops.suites.valuing.program_child",
        memory=PROGRAM_MEMORY,
        cpu_seconds=PROGRAM_CPU_SECONDS,
        open_files=PROGRAM_OPEN_FILES,
        file_bytes=PROGRAM_FILE_BYTES,
    ) as child:
        child.start()
        timer = threading.Timer(PROGRAM_WAITS, child.kill)
        timer.daemon = True
        timer.start()
        try:
            answer = child.ask({"program": program}, "runs a program that a model wrote")
        except (ChildEndedError, ChildRaisedError):
            return False
        finally:
            timer.cancel()
    return answer.get("passed") is True
