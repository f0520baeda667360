"""Is my model in it? Everything that weights tell of a suspect and of candidates, with a verdict.

A verdict is evidence and no proof: how often it is wrong was measured on merges that were made for
it (docs/ownership.md). A suspect whose weights were permuted or scaled is aligned to the base.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.names.name_alignment import named_alike
from merge_ops.errors import CompatibilityError, Fault
from merge_ops.progress import Progress
from merge_ops.provenance.invariants import Independence, huref, independence, token_rows
from merge_ops.provenance.oddities import odd_signs as odd_signs
from merge_ops.provenance.plain_data import to_plain
from merge_ops.provenance.task_regression import Shares, TaskRegression, regress_tasks
from merge_ops.stream.block_reader import fetch_stored
from merge_ops.stream.settings import StreamSettings
from merge_ops.symmetries import Anatomy, read_anatomy, transformed
from merge_ops.symmetries.aligning import align

Answer = Literal["in it", "not found", "cannot be told"]

LEAST_WEIGHT = 0.03
"""A smaller mean weight is not claimed to be one."""
LEAST_SCORE = 8.0
"""Standard errors, as matrices differ, that the mean weight must be above zero."""
LEAST_AGREEMENT = 0.9
"""The share of matrices in which the weight must be above zero."""
MOST_SPREAD = 0.4
"""Standard deviation of the weights over the matrices, against their mean. A merge gives a model
one weight everywhere; what a similar training has in common with it comes and goes."""
PLAIN_EFFECT = 3.0
"""Of gradients and slices, whose weights do differ: how many times longer the candidate's part must
be than all that is not explained."""
FEWEST = 4
"""Matrices that must have been compared."""
INTERVAL = 1.96
DISTANT = 0.5
"""‖suspect − base‖ / ‖base‖ above which an alignment is tried: no fine-tune goes so far."""
SAME_ORIGIN = 1e-6
"""P-value of the independence test below which two models have one origin."""
HUREF_ALIKE = 0.8
"""ICS above which two models have one origin."""


@dataclass(frozen=True)
class CandidateEvidence:
    """The evidence for one candidate: its verdict, and the numbers that it rests on.

    `weight` is the mean over the layers' matrices, each regressed for itself, with the 95 %
    interval that follows from how they differ; `score` counts standard errors, `agreement` is the
    share of matrices in which the weight is above zero, `spread` their standard deviation against
    the mean. `plain_weight` is least squares over all entries at once, with the interval that would
    hold if the rest were noise; `effect` is the length of the candidate's own part against that of
    the rest. `by_layer` has weight and interval of each layer. `huref` is the cosine of invariants
    with the suspect, None where it cannot be taken.
    """

    name: str
    answer: Answer
    why: str
    weight: float
    low: float
    high: float
    score: float
    agreement: float
    spread: float
    plain_weight: float
    plain_low: float
    plain_high: float
    effect: float
    by_layer: tuple[tuple[str, float, float, float], ...]
    huref: float | None


@dataclass(frozen=True)
class Inspection:
    """An inspection holds the evidence for every candidate, and what the suspect is at all.

    `explained` is the share of the squared task vector that all candidates together explain.
    `distance` is ‖suspect − base‖ / ‖base‖ before and after an alignment; `aligned` names what was
    undone. `origin` is the independence test of suspect and base, `base_huref` their invariants.
    `notes` say what could not be done.
    """

    suspect: str
    base: str
    candidates: tuple[CandidateEvidence, ...]
    explained: float | None
    distance: tuple[float, float] | None
    aligned: tuple[str, ...]
    origin: Independence | None
    base_huref: float | None
    left_out: Mapping[str, str]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the inspection as plain data; a number that is not finite is None."""
        return to_plain(dataclasses.asdict(self))


def inspect_suspect(
    suspect: Checkpoint,
    candidates: Sequence[Checkpoint],
    base: Checkpoint,
    settings: StreamSettings | None = None,
    progress: Callable[[str], Progress] | None = None,
) -> Inspection:
    """Ask whether each candidate is in a suspect, as a part of a merge from one base.

    `progress` gives, for what is done next, what counts it. Raises CompatibilityError where nothing
    of the models can be compared, CheckpointError where a file cannot be read.
    """
    if not candidates:
        raise CompatibilityError("an inspection", [Fault("candidates", "are missing; name some")])
    suspect, *candidates = named_alike(base, [suspect, *candidates])
    notes: list[str] = []
    anatomies = _anatomies([base, suspect, *candidates], notes)
    suspect, distance, aligned = _aligned(suspect, base, anatomies, notes, progress)
    tasks = regress_tasks(base, candidates, suspect, settings, _of(progress, "regression"))
    if not tasks.whole.count:
        raise CompatibilityError(
            f"model '{suspect.name}' cannot be compared with base '{base.name}'",
            [Fault(name, why) for name, why in list(tasks.left_out.items())[:10]],
        )
    origin, base_huref, hurefs = _invariants(suspect, base, candidates, anatomies, notes)
    return Inspection(
        suspect.name,
        base.name,
        tuple(evidence_in(tasks, hurefs)),
        tasks.whole.explained,
        distance,
        aligned,
        origin,
        base_huref,
        tasks.left_out,
        tuple(notes),
    )


def _of(progress: Callable[[str], Progress] | None, what: str) -> Progress | None:
    return progress(what) if progress else None


def _anatomies(models: Sequence[Checkpoint], notes: list[str]) -> dict[str, Anatomy]:
    """The anatomy of each model that has one; a note for those that have none."""
    found: dict[str, Anatomy] = {}
    for model in models:
        try:
            found[model.name] = read_anatomy(model)
        except CompatibilityError as error:
            notes.append(f"no alignment and no invariants: {error}")
    return found


def _aligned(
    suspect: Checkpoint,
    base: Checkpoint,
    anatomies: Mapping[str, Anatomy],
    notes: list[str],
    progress: Callable[[str], Progress] | None,
) -> tuple[Checkpoint, tuple[float, float] | None, tuple[str, ...]]:
    """The suspect next to the base, its distance before and after, and what was undone."""
    if base.name not in anatomies or suspect.name not in anatomies:
        return suspect, None, ()
    try:
        found = align(base, suspect, fetch_stored, _of(progress, "alignment"))
    except CompatibilityError as error:
        notes.append(str(error))
        return suspect, None, ()
    distance = found.before, found.after
    if found.helped:
        told = ", ".join(found.changed)
        notes.append(
            f"the suspect is permuted or protected ({told}): it was aligned to the base first"
        )
        return transformed(suspect, found.symmetry), distance, found.changed
    if found.before > DISTANT:
        notes.append(
            "the suspect is far from the base and no alignment brings it near: it has another"
            " origin, or was mixed by matrices that weights alone do not give away"
        )
    return suspect, (found.before, found.before), ()


def _invariants(
    suspect: Checkpoint,
    base: Checkpoint,
    candidates: Sequence[Checkpoint],
    anatomies: Mapping[str, Anatomy],
    notes: list[str],
) -> tuple[Independence | None, float | None, list[float | None]]:
    def pair(model: Checkpoint) -> tuple[Checkpoint, Anatomy]:
        return model, anatomies[model.name]

    def ics(model: Checkpoint) -> float | None:
        if suspect.name not in anatomies or model.name not in anatomies:
            return None
        rows = token_rows(
            suspect, model, (anatomies[suspect.name].embedding, anatomies[model.name].embedding)
        )
        return huref(pair(suspect), pair(model), rows)

    origin = None
    if suspect.name in anatomies and base.name in anatomies:
        origin = independence(pair(base), pair(suspect))
        if origin is not None and origin.p_value > SAME_ORIGIN:
            notes.append(
                f"suspect and base look as if trained independently (p {origin.p_value:.2g}):"
                " weights of task vectors mean nothing then"
            )
    return origin, ics(base), [ics(each) for each in candidates]


def evidence_in(
    tasks: TaskRegression, hurefs: Sequence[float | None] | None = None
) -> list[CandidateEvidence]:
    """Return what a regression tells of each candidate; `hurefs` are their invariants."""
    return [
        _evidence(number, name, tasks, hurefs[number] if hurefs else None)
        for number, name in enumerate(tasks.candidates)
    ]


def _evidence(
    number: int, name: str, tasks: TaskRegression, ics: float | None
) -> CandidateEvidence:
    parts = [each.weights[number] for each in _matrices(tasks)]
    found = [each for each in parts if math.isfinite(each)]
    weight = math.fsum(found) / len(found) if found else math.nan
    deviation = _deviation(found)
    error = deviation / math.sqrt(len(found)) if found else math.nan
    score = weight / error if error else math.copysign(math.inf, weight)
    agreement = sum(each > 0 for each in found) / max(1, len(found))
    spread = deviation / weight if weight > 0 else math.inf
    plain, plain_error = tasks.whole.weights[number], tasks.whole.errors[number]
    effect = plain / (plain_error * math.sqrt(tasks.whole.count)) if plain_error else math.inf
    numbers = (weight, score, agreement, spread, effect)
    answer, why = _verdict(numbers, len(found))
    return CandidateEvidence(
        name,
        answer,
        why,
        weight,
        weight - INTERVAL * error,
        weight + INTERVAL * error,
        score,
        agreement,
        spread,
        plain,
        plain - INTERVAL * plain_error,
        plain + INTERVAL * plain_error,
        effect,
        tuple(_by_layer(number, tasks.layers)),
        ics,
    )


def _matrices(tasks: TaskRegression) -> list[Shares]:
    """The regressions of the layers' matrices; of all tensors where there are none."""
    inside = [tasks.tensors[name] for name in tasks.tensors if tasks.is_matrix_of_layer(name)]
    return inside or list(tasks.tensors.values())


def _verdict(
    numbers: tuple[float, float, float, float, float], matrices: int
) -> tuple[Answer, str]:
    weight, score, agreement, spread, effect = numbers
    if not math.isfinite(weight):
        why = "its task vector is zero, or a combination of those of other candidates"
        return "cannot be told", why
    if matrices < FEWEST:
        return "cannot be told", f"fewer than {FEWEST} matrices could be compared"
    told = f"weight {weight:.3f}, above zero in {agreement:.0%} of {matrices} matrices"
    if weight < LEAST_WEIGHT or score < LEAST_SCORE or agreement < LEAST_AGREEMENT:
        return "not found", told
    told += f", {spread:.0%} apart"
    if spread <= MOST_SPREAD or effect >= PLAIN_EFFECT:
        return "in it", told
    return (
        "cannot be told",
        f"{told}: the weight is not the same everywhere, as a similar training would give it",
    )


def _by_layer(
    number: int, layers: Mapping[tuple[str, int | None], Shares]
) -> list[tuple[str, float, float, float]]:
    """Layer, plain weight and the ends of its 95 % interval, in order."""
    found: list[tuple[str, float, float, float]] = []
    for (stack, layer), shares in layers.items():
        weight, error = shares.weights[number], shares.errors[number]
        name = f"{stack}.{layer}" if layer is not None else stack
        found.append((name, weight, weight - INTERVAL * error, weight + INTERVAL * error))
    return found


def _deviation(values: Sequence[float]) -> float:
    if len(values) < 2:
        return math.nan
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((each - mean) ** 2 for each in values) / (len(values) - 1))
