"""What task vectors look like and how they get on with each other. Knows no Dagster."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from assets.work.upstream.pulling import open_models

if TYPE_CHECKING:
    from merge_ops.checkpoints import Checkpoint
    from resources.store import Artifact, ArtifactStore

TASK_VECTOR, MERGE_PLAN = "task_vector", "merge_plan"
VERSIONS = {TASK_VECTOR: 4, MERGE_PLAN: 3}
"""Raise one when the same inputs would be studied in another way."""


@dataclass(frozen=True)
class Study:
    """A study is an artifact, with its findings as plain data: no number in them is infinite.

    `digest` is that of what was studied. Where looking failed there is a `problem`, and no finding:
    what a study says is for people, and no merge waits for it.
    """

    artifact: "Artifact"
    findings: Mapping[str, Any]
    memoized: bool
    digest: str
    problem: str | None = None


def study_task_vector(
    store: "ArtifactStore", base: str, expert: str, run: str | None = None
) -> Study:
    """Measure expert − base, tensor by tensor; the vector is kept by reference to both digests.

    The findings are merge_ops' TaskVectorStatistics as plain data, with None for what is no finite
    number.
    """
    from merge_ops.jobs.statistics import task_vector_statistics

    models = open_models(store, base, [expert])

    def look() -> dict[str, Any]:
        return task_vector_statistics(models[base], models[expert]).to_json()

    inputs = {name: str(model.digest) for name, model in models.items()}
    study = _study(store, TASK_VECTOR, inputs, look)
    store.point(TASK_VECTOR, expert, TASK_VECTOR, study.artifact.digest, run=run)
    return study


def study_set(store: "ArtifactStore", base: str, expert_set: str, run: str | None = None) -> Study:
    """Say whether experts may be merged: header checks, cosines, sign conflicts, the cost.

    Another vocabulary is a warning here: only a recipe can say whether it is merged by token, and
    one that does not is refused when it is planned.
    The findings hold `interference`, `warnings`, and `bytes_read` for one pass over all inputs.
    Signs of odd experts (`oddities`) are among the warnings, from the task vectors that were
    studied before; `signs` are these alone. Raises CompatibilityError with every fault.
    """
    from merge_ops.jobs.statistics import interference
    from merge_ops.plans import check_compatible
    from merge_ops.provenance.inspecting import odd_signs

    names = expert_set.split("+")
    models = open_models(store, base, names)
    experts = [models[name] for name in names]
    cautions = check_compatible(models[base], experts, vocabularies="reported")

    def look() -> dict[str, Any]:
        found = interference(models[base], experts).to_json()
        studied = _studied(store, base, names, models)
        signs = [str(each) for each in odd_signs(studied, finite(found["cosine"]))]
        return {
            "interference": found,
            "warnings": [*(str(caution) for caution in cautions), *signs],
            "signs": signs,
            "bytes_read": sum(model.nbytes for model in models.values()),
            "bytes_of_one_output": models[base].nbytes,
        }

    inputs = {name: str(models[name].digest) for name in (base, *names)}
    study = _study(store, MERGE_PLAN, inputs, look)
    store.point(MERGE_PLAN, expert_set, MERGE_PLAN, study.artifact.digest, run=run)
    return study


def known_signs(
    store: "ArtifactStore", base: str, experts: Sequence[str], models: Mapping[str, "Checkpoint"]
) -> tuple[str, ...]:
    """Return the signs of odd experts that the study of this very set has, if there is one.

    A manifest and a small file are read, and no weight.
    """
    names = [base, *experts]
    if any(name not in models for name in names):
        return ()
    inputs = {name: str(models[name].digest) for name in names}
    known = store.find(MERGE_PLAN, _digest_of(MERGE_PLAN, inputs))
    return tuple(known.read_json("study.json").get("signs", ())) if known is not None else ()


def _studied(
    store: "ArtifactStore", base: str, experts: Sequence[str], models: Mapping[str, "Checkpoint"]
) -> dict[str, Any]:
    """The tensors' statistics of those experts whose task vectors were studied, by name."""
    found: dict[str, Any] = {}
    for name in experts:
        inputs = {base: str(models[base].digest), name: str(models[name].digest)}
        known = store.find(TASK_VECTOR, _digest_of(TASK_VECTOR, inputs))
        found[name] = known.read_json("study.json").get("tensors", ()) if known else ()
    return found


def _digest_of(kind: str, inputs: Mapping[str, str]) -> str:
    identity = json.dumps([kind, VERSIONS[kind], list(inputs.items())], ensure_ascii=False)
    return blake3(identity.encode()).hexdigest()


def _study(
    store: "ArtifactStore", kind: str, inputs: Mapping[str, str], look: Callable[[], dict[str, Any]]
) -> Study:
    """Find the study of these inputs, or make and publish it. `inputs`: names and digests."""
    digest = _digest_of(kind, inputs)
    known = store.find(kind, digest)
    if known is not None:
        return Study(known, known.read_json("study.json"), True, digest)
    findings, problem = _looked(look)
    name = digest
    if problem is not None:  # under another name, so that the next look tries again
        name = blake3(f"{digest} {problem}".encode(errors="backslashreplace")).hexdigest()
    with store.attempt(kind) as attempt:
        attempt.write_json("study.json", findings)
        artifact = attempt.publish(name, inputs=dict(inputs))
    return Study(artifact, findings, False, digest, problem)


def _looked(look: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], str | None]:
    """The findings as JSON holds them, or what went wrong while looking.

    A store that fails is no matter of the diagnosis, and is raised.
    """
    from resources.errors import ResourceError

    try:
        return finite(look()), None
    except ResourceError:
        raise
    except Exception as error:
        if isinstance(error.__cause__, ResourceError):
            raise
        return {}, f"{type(error).__name__}: {error}"


def finite(value: Any) -> Any:
    """Return plain data with None for every number that is not finite: JSON has none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return value
