"""Samplers: which point to try next. Each is a function of the space, the seed and what was tried.

- random: uniform (by ratio for `log`), from a counter-based stream.
- tpe: multivariate tree-structured Parzen estimators (Bergstra et al. 2011; Falkner et al. 2018 for
  the multivariate form; Ozaki et al. 2022 for several objectives), by optuna. The first points, a
  quarter of the trials and at most ten, are random.
- cma-es: covariance matrix adaptation (Hansen and Ostermeier 2001), by the package cma, in the unit
  cube. A generation of 4 + ⌊3 ln n⌋ points is drawn at once.
- grid: every point of the grid, in order.

Nothing is remembered between two calls: what was tried is told anew to a sampler whose draws are
seeded by the trial's number. So a study that was killed goes on exactly as it would have.
"""

import itertools
import logging
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from eval_ops.search.settings import SearchSettings
from eval_ops.search.spaces import Dimension, Point, SearchSpace
from eval_ops.search.studies import Trial

FIRST_POINTS = 10
"""At most so many points are random before TPE looks at what came out: its own default."""
FIRST_STEP = 0.25
"""CMA-ES's first standard deviation, in the unit cube: the whole of it is within two."""
FAILED = 1e9
"""What CMA-ES, which minimizes, is told of a point that could not be scored: it ranks last."""

Unit = NDArray[np.float64]


def propose(
    space: SearchSpace,
    settings: SearchSettings,
    seed: int,
    trials: Sequence[Trial],
    start: Point | None = None,
) -> Point | None:
    """Return the point of the next trial; None when a grid is through.

    `trials` are all trials before it, in order. The same arguments give the same point. With
    `start` that is the first one, but of a grid; the sampler's own points come after it.
    """
    number = len(trials)
    if settings.sampler == "grid":
        return next(itertools.islice(space.grid(), number, None), None)
    if start is not None and not trials:
        return start
    if start is not None and settings.sampler != "tpe":
        trials, number = trials[1:], number - 1  # their points are no answers to it
    if settings.sampler == "random":
        return _random(space, seed, number)
    if settings.sampler == "cma-es":
        return _cma(space, seed, trials)
    return _tpe(space, settings, seed, trials)


def _stream(seed: int, number: int) -> np.random.Generator:
    key = int.from_bytes(blake3(f"search\0{seed}\0{number}".encode()).digest(16), "little")
    return np.random.Generator(np.random.Philox(key=key))


def _random(space: SearchSpace, seed: int, number: int) -> Point:
    shares = _stream(seed, number).random(len(space.dimensions))
    return {d.name: d.at(float(s)) for d, s in zip(space.dimensions, shares, strict=True)}


def _tpe(space: SearchSpace, settings: SearchSettings, seed: int, trials: Sequence[Trial]) -> Point:
    first = max(1, min(FIRST_POINTS, settings.trials // 4))
    number = len(trials)
    if number < first:
        return _random(space, seed, number)
    optuna = _optuna()
    sampler = optuna.samplers.TPESampler(
        seed=int(_stream(seed, number).integers(2**32)), multivariate=True, n_startup_trials=0
    )
    goals = ["maximize"] * len(settings.objectives)
    study = optuna.create_study(sampler=sampler, directions=goals)
    ranges = {d.name: _distribution(d) for d in space.dimensions}
    for trial in trials:
        state = optuna.trial.TrialState
        study.add_trial(
            optuna.trial.create_trial(
                state=state.COMPLETE if trial.values is not None else state.FAIL,
                params=dict(trial.point),
                distributions=ranges,
                values=trial.values,
            )
        )
    asked = study.ask(ranges)
    told = asked.params
    return {d.name: told[d.name] if d.steps else d.within(told[d.name]) for d in space.dimensions}


def _distribution(dimension: Dimension) -> Any:
    distributions = _optuna().distributions
    if dimension.steps:
        return distributions.CategoricalDistribution(dimension.steps)
    return distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _optuna() -> Any:
    import optuna

    logging.getLogger("optuna").setLevel(logging.WARNING)  # a line for each trial says nothing new
    return optuna


def _cma(space: SearchSpace, seed: int, trials: Sequence[Trial]) -> Point:
    import cma  # pyright: ignore[reportMissingTypeStubs]

    draws = _stream(seed, 0)

    def normal(*shape: int) -> Unit:
        return draws.standard_normal(shape)

    size = len(space.dimensions)
    strategy: Any = cma.CMAEvolutionStrategy(
        [0.5] * max(size, 2),  # cma knows no single dimension: a second one leads nowhere
        FIRST_STEP,
        {
            "bounds": [0, 1],
            "seed": np.nan,
            "randn": normal,
            "verbose": -9,
            "verb_log": 0,
        },
    )
    asked: list[Unit] = []
    for number in itertools.count():
        if not asked:
            asked = cast(list[Unit], strategy.ask())
        place = number % len(asked)
        if number == len(trials):
            shares = asked[place][:size]
            return {d.name: d.at(float(s)) for d, s in zip(space.dimensions, shares, strict=True)}
        if place == len(asked) - 1:
            generation = trials[number - place : number + 1]
            strategy.tell(asked, [-t.values[0] if t.values else FAILED for t in generation])
            asked = []
    raise AssertionError("itertools.count has no end")
