"""Our methods equal mergekit 0.1.5 on float32 checkpoints of Llama and Qwen2 type.

What "equal to 1e-6 relative" means here, tensor by tensor:
- max |ours − theirs| ≤ 1e-6 · max |theirs|, and
- each element: |ours − theirs| ≤ 1e-6 · |theirs| + 2e-7 · max |theirs|. The floor is there because
  a result near zero is the difference of larger numbers, each rounded to 2⁻²⁴ of itself.
Both programs work in float32 and differ by the order of a few roundings; an independent float64
computation is as far from either (about 1.5e-7 of the maximum).

"Off the tie set": where several entries of a task vector share the magnitude at the threshold of a
trim, mergekit keeps arbitrary ones (an unstable sort), ours the first ones. In these float32
checkpoints two magnitudes of one tensor are rarely equal; elements whose magnitude is not unique in
their tensor may differ, and a test of its own looks at a checkpoint that is full of ties.

Every case runs on Qwen2, whose layers have each tensor that a Llama layer has, and biases. What a
method makes of a tensor does not depend on the family, so on Llama, of which mergekit has another
table of names, run the first case of each method, all ways to write one of them, and slices.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from merge_ops.errors import RongheError
from tests.merges.merging import merge_in_process
from tests.models.checkpoint_factory import (
    LLAMA,
    QWEN2,
    Tensors,
    base_tensors,
    expert_tensors,
    read_tensors,
    write_checkpoint,
    write_family,
)
from tests.oracle.peers.oracle_environment import OracleCase, merge_with_mergekit, write_config
from tests.oracle.written import cases_dialect, cases_matrix, cases_rows, cases_slices, cases_sparse
from tests.oracle.written.cases import DTYPES
from tests.oracle.written.cases import EXACT as WHOLE
from tests.oracle.written.cases_refused import REFUSED
from tests.oracle.written.cases_refused import REFUSED_BY_US as REFUSED_BY_US_WHOLE
from tests.oracle.written.cases_trimmed import TRIMMED as TRIMMED_WHOLE


def method_of(text: str) -> str:
    """The method that a case merges by."""
    return re.findall(r"merge_method: (\w+)", text)[0]


EXACT = WHOLE | cases_slices.SLICES | cases_sparse.EXACT | cases_rows.ROWS | cases_matrix.MATRIX
EXACT |= cases_dialect.DIALECT
TRIMMED = TRIMMED_WHOLE | cases_slices.TRIMMED_SLICES | cases_matrix.TRIMMED_MATRIX
REFUSED_BY_US = REFUSED_BY_US_WHOLE | cases_sparse.REFUSED_BY_US
FRANKENMERGES = cases_slices.FRANKENMERGES
SHAPES = {"llama": replace(LLAMA, layers=4), "qwen2": replace(QWEN2, layers=4)}
FIRST = {method_of(text): name for name, text in reversed(EXACT.items())}
ON_LLAMA = {*FIRST.values(), *cases_slices.SLICES}
ON_LLAMA |= {name for name in cases_matrix.MATRIX if name.startswith("matrix-ties-")}
COMPARED = [
    (family, name) for family in SHAPES for name in EXACT if family == "qwen2" or name in ON_LLAMA
]
TIED = """
    merge_method: ties
    models:
      - {model: $tied, parameters: {weight: 1, density: 0.3}}
    base_model: $base
    dtype: float32
    """


@dataclass(frozen=True)
class Comparison:
    """Where everything is: configs and mergekit's results by name, and the models by family."""

    work: Path
    models: dict[str, dict[str, Path]]
    outcomes: dict[str, str | None]

    def config(self, name: str) -> Path:
        return self.work / f"{name}.yaml"

    def theirs(self, name: str) -> Tensors:
        assert self.outcomes[name] is None, self.outcomes[name]
        return read_tensors(self.work / "mergekit" / name)

    def ours(self, name: str) -> Tensors:
        return read_tensors(merge_in_process(self.config(name), self.work / "ronghe" / name))


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Writes the checkpoints and has mergekit merge every case, in one process."""
    work = tmp_path_factory.mktemp("oracle")
    models, cases = {}, []
    for family, shape in SHAPES.items():
        base, (one, two, three) = write_family(work / family, shape, experts=3)
        drawn = base_tensors(shape)
        far = write_checkpoint(work / family / "far", expert_tensors(drawn, 9, spread=0.05), shape)
        tied = write_checkpoint(work / family / "tied", on_a_grid(drawn), shape)
        models[family] = {
            "base": base, "one": one, "two": two, "three": three, "far": far, "tied": tied,
        }  # fmt: skip
        asked = {name: EXACT[name] for each, name in COMPARED if each == family}
        if family == "llama":
            asked |= {name: text for name, (text, _) in (REFUSED | REFUSED_BY_US).items()}
        for name, text in (asked | DTYPES | FRANKENMERGES | {"tied": TIED}).items():
            config = write_config(work / f"{family}-{name}.yaml", text, models[family])
            cases.append(OracleCase(config.stem, config, work / "mergekit" / config.stem))
    return Comparison(work, models, merge_with_mergekit(work, cases))


def on_a_grid(base: Tensors) -> Tensors:
    """An expert whose task vector takes few magnitudes, up to the rounding of the sum."""
    step = 2.0**-10
    return {
        name: tensor + ((expert - tensor) / step).round() * step
        for (name, tensor), expert in zip(
            base.items(), expert_tensors(base, 7).values(), strict=True
        )
    }


def assert_equal(ours: Tensors, theirs: Tensors, may_differ: Callable[[str], torch.Tensor]) -> None:
    """Equality as the module's docstring defines it; names the worst tensor otherwise."""
    assert sorted(ours) == sorted(theirs)
    for name, expected in theirs.items():
        assert ours[name].dtype == expected.dtype, name
        assert ours[name].shape == expected.shape, name
        exact, got = expected.double(), ours[name].double()
        top = exact.abs().max()
        difference = (got - exact).abs()
        within = (difference <= 1e-6 * top) & (difference <= 1e-6 * exact.abs() + 2e-7 * top)
        wrong = ~within & ~may_differ(name)
        assert not wrong.any(), (
            f"{name}: {int(wrong.sum())} of {wrong.numel()} elements differ, by up to "
            f"{(difference[wrong].max() / top).item():.1e} of the largest value"
        )


def nowhere(name: str) -> torch.Tensor:
    return torch.tensor(False)


def shared_magnitudes(models: dict[str, Path]) -> Callable[[str], torch.Tensor]:
    """Which elements of a tensor have, in some expert, a magnitude that occurs more than once."""
    base = read_tensors(models["base"])
    experts = [read_tensors(models[each]) for each in ("one", "two", "three")]

    def where(name: str) -> torch.Tensor:
        shared = torch.zeros(base[name].shape, dtype=torch.bool)
        for expert in experts:
            magnitude = (expert[name] - base[name]).abs()
            _, group, size = magnitude.unique(return_inverse=True, return_counts=True)
            shared |= size[group] > 1
        assert shared.float().mean() < 0.1
        return shared

    return where


@pytest.mark.parametrize(("family", "name"), COMPARED)
def test_equals_mergekit(comparison: Comparison, family: str, name: str) -> None:
    ties = name in TRIMMED
    may_differ = shared_magnitudes(comparison.models[family]) if ties else nowhere
    run = f"{family}-{name}"
    assert_equal(comparison.ours(run), comparison.theirs(run), may_differ)


@pytest.mark.parametrize("family", SHAPES)
@pytest.mark.parametrize("name", FRANKENMERGES)
def test_stacks_of_another_depth_equal_mergekit(
    comparison: Comparison, family: str, name: str
) -> None:
    """On Qwen2 mergekit writes the weights and then fails at the config, which ours gets right."""
    run = f"{family}-{name}"
    theirs = read_tensors(comparison.work / "mergekit" / run)
    failure = comparison.outcomes[run]
    assert failure is None if family == "llama" else "layer_types" in str(failure)
    assert_equal(comparison.ours(run), theirs, nowhere)
    loaded = AutoModelForCausalLM.from_pretrained(comparison.work / "ronghe" / run)
    depth = 1 + max(int(key.split(".")[2]) for key in theirs if ".layers." in key)
    assert len(loaded.model.layers) == depth


@pytest.mark.parametrize("family", SHAPES)
def test_on_ties_the_same_number_is_kept_and_ours_keeps_the_first(
    comparison: Comparison, family: str
) -> None:
    """Every element off the threshold is equal; at the threshold ours keeps the lowest indices."""
    run = f"{family}-tied"
    ours, theirs = comparison.ours(run), comparison.theirs(run)
    models = comparison.models[family]
    base, expert = read_tensors(models["base"]), read_tensors(models["tied"])
    crowded = 0
    for name, before in base.items():
        delta = (expert[name] - before).flatten()
        magnitude = delta.abs()
        kept = max(1, int(0.3 * delta.numel()))
        threshold = magnitude.sort(descending=True).values[kept - 1]
        tied = magnitude == threshold
        crowded += int(tied.sum() > 1)
        room = kept - int((magnitude > threshold).sum())
        keep = magnitude > threshold
        keep[tied.nonzero().flatten()[:room]] = True
        expected = before + (delta * keep).reshape(before.shape)
        assert torch.equal(ours[name], expected), name
        off = ~tied.reshape(before.shape)
        assert torch.equal(ours[name][off], theirs[name][off]), name
        mine, yours = (int((each[name] != before).sum()) for each in (ours, theirs))
        assert mine == yours, name
    assert crowded > len(base) / 2


@pytest.mark.parametrize("family", SHAPES)
@pytest.mark.parametrize("name", DTYPES)
def test_writes_the_dtype_mergekit_writes(comparison: Comparison, family: str, name: str) -> None:
    """Equal within one unit in the last place of what is written: mergekit rounds more often."""
    run = f"{family}-{name}"
    ours, theirs = comparison.ours(run), comparison.theirs(run)
    assert sorted(ours) == sorted(theirs)
    for tensor, expected in theirs.items():
        assert ours[tensor].dtype == expected.dtype, tensor
        epsilon = torch.finfo(expected.dtype).eps
        top = expected.abs().max().item()
        torch.testing.assert_close(
            ours[tensor].double(), expected.double(), rtol=1.01 * epsilon, atol=epsilon * top
        )


@pytest.mark.parametrize("name", REFUSED)
def test_what_mergekit_refuses_is_refused(comparison: Comparison, name: str) -> None:
    run = f"llama-{name}"
    assert comparison.outcomes[run] is not None
    out = comparison.work / "ronghe" / run
    with pytest.raises(RongheError, match=REFUSED[name][1]):
        merge_in_process(comparison.config(run), out)
    assert not out.exists()


@pytest.mark.parametrize("name", REFUSED_BY_US)
def test_what_mergekit_ignores_is_refused(comparison: Comparison, name: str) -> None:
    """Departures on purpose: mergekit merges these, and its result is not what was asked for."""
    run = f"llama-{name}"
    assert comparison.outcomes[run] is None
    with pytest.raises(RongheError, match=REFUSED_BY_US[name][1]):
        merge_in_process(comparison.config(run), comparison.work / "ronghe" / run)
