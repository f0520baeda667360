"""From checkpoints in the store to scores in the store. Knows no Dagster."""

import time
from base64 import b64decode
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from assets.work.measuring.asking_child import TOKENIZER_SECONDS, ask_child
from assets.work.merging.whole_models import whole_model
from eval_ops.scores import SuiteScores, scores_digest
from merge_ops.stream import choose_device

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from assets.work.upstream.packed_models import StoredModel
    from eval_ops.suites import Suite
    from merge_ops.progress import Progress
    from merge_ops.stream import StreamSettings
    from resources.store import Artifact, ArtifactStore

SCORES = "scores"
MOST_OPEN = 10_000
"""Scores that a process keeps, without their samples: some 2 kB each."""

_opened: dict[tuple[str, str], SuiteScores] = {}
WAY_OUT = (
    "Where it is out of memory: score on a machine with more, or set RONGHE_THREADS lower; where"
    " its tokenizer or config asks for that much, leave the model out"
)


@dataclass(frozen=True)
class ScoredCheckpoint:
    """Scores in the store; `memoized` when they were there before. `seconds` is wall time."""

    artifact: "Artifact"
    scores: SuiteScores
    memoized: bool
    seconds: float


def score_checkpoint(
    store: "ArtifactStore",
    checkpoint: "StoredModel",
    scoring: "Scoring",
    progress: "Progress | None" = None,
    called: str = "",
) -> ScoredCheckpoint:
    """Score a checkpoint on a suite, unless the store holds the scores of exactly these two.

    `called` is what messages call it. Raises EvalError when it cannot be loaded, answers with NaN,
    or ended the child that runs it.
    """
    started = time.perf_counter()
    suite = scoring.suite
    digest = scores_digest(checkpoint.digest, suite.digest)
    known = store.find(SCORES, digest)
    if known is not None:
        return ScoredCheckpoint(known, read_scores(known), True, time.perf_counter() - started)
    named = called or f"checkpoint {checkpoint.digest[:12]}"
    scores = score_in_child(checkpoint.folder(), named, scoring, progress, shown=named)
    artifact = publish_scores(store, checkpoint.kind, checkpoint.digest, suite, scores)
    return ScoredCheckpoint(artifact, scores, False, time.perf_counter() - started)


def read_scores(artifact: "Artifact") -> SuiteScores:
    """Read scores with their samples. Raises ScoresError when they cannot be read."""
    text, samples = artifact.read_bytes("scores.json"), artifact.read_bytes("samples.parquet")
    return SuiteScores.from_json(text, samples)


def open_scores(artifact: "Artifact", checked: bool = True) -> SuiteScores:
    """Read scores, whose samples are read when they are compared; with `checked` once before.

    What is published is read once a process. Raises ScoresError when they cannot be read.
    """
    key = (artifact.uri, artifact.manifest["attempt"])
    scores = _opened.get(key)
    if scores is None:
        text = artifact.read_bytes("scores.json")
        read = partial(artifact.read_bytes, "samples.parquet")
        scores = SuiteScores.from_json(text, read)
        if len(_opened) >= MOST_OPEN:
            _opened.clear()
        _opened[key] = scores
    if checked:
        scores.check_samples()
        scores.forget_samples()
    return scores


def publish_scores(
    store: "ArtifactStore", kind: str, checkpoint: str, suite: "Suite", scores: SuiteScores
) -> "Artifact":
    """Publish the scores of a checkpoint, of which `kind` and digest are given.

    What another process published meanwhile is taken instead: its last bits may differ.
    """
    from resources.errors import ContentConflictError

    digest = scores_digest(checkpoint, suite.digest)
    with store.attempt(SCORES) as attempt:
        attempt.write_bytes("scores.json", scores.to_json().encode())
        attempt.write_bytes("samples.parquet", scores.samples_to_parquet())
        try:
            return attempt.publish(
                digest,
                checkpoint={"kind": kind, "digest": checkpoint},
                suite={"name": suite.name, "digest": suite.digest},
                versions=dict(scores.versions),
            )
        except ContentConflictError:
            return store.get(SCORES, digest)


def score_in_child(
    folder: "Path",
    called: str,
    scoring: "Scoring",
    progress: "Progress | None",
    items: "Mapping[str, Sequence[int]] | None" = None,
    shown: str | None = None,
    digest: str | None = None,
) -> SuiteScores:
    """Score in the child that this process keeps for models: nothing of a model is run here.

    With `items` some items alone are asked; of the same `digest` none a second time. Messages say
    `shown` instead of the folder, where that means nothing to anybody. Raises EvalError.
    """
    from eval_ops.suites import fetch_data, suite_to_json
    from merge_ops.stream import usable_cores

    suite = scoring.suite
    fetch_data(suite)
    chosen = choose_device(scoring.device)
    request = {
        "suite_digest": suite.digest,
        "device": chosen,
        "threads": scoring.threads,
        "cores": usable_cores(),
        "tokenizer_seconds": TOKENIZER_SECONDS,
        **(
            {"items": {name: list(each) for name, each in items.items()}}
            if items is not None
            else {}
        ),
        **({"digest": digest} if digest else {}),
    }

    def tell(told: object) -> None:
        if progress is not None and isinstance(told, list):
            progress(*told)

    def ask(**more: object) -> dict[str, Any]:
        return ask_child(
            "eval_ops.suites.scoring_child",
            folder,
            {**request, **more},
            f"scores {called} on suite {suite.name}",
            cuda=chosen != "cpu",
            tell=tell,
            shown=shown,
            way_out=WAY_OUT,
        )

    answer = ask()
    if answer.get("needs") == "suite":
        answer = ask(suite=suite_to_json(suite))
    samples = b64decode(answer["samples"])
    return read_answer(suite, answer["scores"], samples, chosen, scoring.threads)


def read_answer(
    suite: "Suite", scores: str, samples: bytes, device: str, threads: int
) -> SuiteScores:
    """Read the answer of the child that scored, and have graded or run what waits for it."""
    from assets.work.measuring.grading import with_later_scores

    if not suite.valued_later:
        return SuiteScores.from_json(scores, samples)
    written = SuiteScores.unfinished(scores, samples)
    return with_later_scores(suite, written, device, threads)


@dataclass(frozen=True)
class Scoring:
    """A scoring names the suite, the device, the threads, and the Dagster run that asked.

    `threads` 0 is one for each core that this process may use, and one for a small model.
    """

    suite: "Suite"
    device: str
    threads: int
    run: str | None = None


def score_model(
    store: "ArtifactStore",
    name: str,
    base: str | None,
    scoring: Scoring,
    stream: "StreamSettings",
    progress: "Progress | None" = None,
) -> ScoredCheckpoint:
    """Score a model, an adapter as what it makes of `base`, and point `model_scores/<suite>` there.

    Raises MissingArtifactError when the model was never pulled, EvalError when it cannot be scored.
    """
    checkpoint = whole_model(store, name, base, stream, scoring.run)
    scored = score_checkpoint(store, checkpoint, scoring, progress, f"model {name}")
    asset, digest = f"model_scores/{scoring.suite.name}", scored.artifact.digest
    store.point(asset, name, SCORES, digest, run=scoring.run)
    return scored
