"""On bfloat16 checkpoints our results are at least as near to the exact ones as mergekit's.

We compute in float32 and round once, on writing; mergekit computes most methods in bfloat16 and
rounds after every step. The exact result is worked out here in float64, from the formula alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.merges.merging import merge_in_process
from tests.models.checkpoint_factory import BFLOAT16_LLAMA, Tensors, read_tensors, write_family
from tests.oracle.peers.oracle_environment import OracleCase, merge_with_mergekit, write_config

WEIGHTS = (0.3701, 0.8903)  # no small multiples of one another: no vote on a sign is even
ENTRIES = """
base_model: $base
models:
  - {model: $one, parameters: {weight: 0.3701}}
  - {model: $two, parameters: {weight: 0.8903}}
"""


def linear(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The base joins with the global weight 0.5; weights are divided by their sum."""
    models, weights = (*experts, base), (*WEIGHTS, 0.5)
    return sum(w * x for w, x in zip(weights, models, strict=True)) / sum(weights)


def slerp(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    """t = 0.4 from the base to the first expert; a straight line where they are nearly parallel."""
    other = experts[0]
    cosine = (base * other).sum() / (base.norm() * other.norm())
    if cosine > 0.9995:
        return 0.6 * base + 0.4 * other
    angle = torch.acos(cosine)
    return (torch.sin(0.6 * angle) * base + torch.sin(0.4 * angle) * other) / torch.sin(angle)


def task_arithmetic(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    return base + 0.7 * sum(w * (x - base) for w, x in zip(WEIGHTS, experts, strict=True))


def ties(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Nothing is trimmed (density 1): sign election and the mean of what agrees."""
    weighted = torch.stack([w * (x - base) for w, x in zip(WEIGHTS, experts, strict=True)])
    sign = torch.where(weighted.sum(0) >= 0, 1.0, -1.0)
    agrees = (weighted.sign() == sign).double()
    shares = [w * mask for w, mask in zip(WEIGHTS, agrees, strict=True)]
    share = sum(shares, torch.zeros(()))
    return base + (weighted * agrees).sum(0) / torch.where(share == 0, 1.0, share)


def model_stock_by_rows(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    first, second = (x - base for x in experts)
    cosine = torch.nn.functional.cosine_similarity(first, second, dim=-1).unsqueeze(-1)
    return base + 2 * cosine / (1 + cosine) * (first + second) / 2


def nuslerp_along(dim: int) -> Callable[..., torch.Tensor]:
    """The arc between the task vectors, t = w₂ / (w₁ + w₂); an angle for each run of `dim`."""

    def merge(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
        first, second = (x - base for x in experts)
        along = dim if base.dim() > 1 else -1
        cosine = torch.nn.functional.cosine_similarity(first, second, dim=along)
        angle = cosine.acos().unsqueeze(along)
        t = WEIGHTS[1] / sum(WEIGHTS)
        arc = torch.sin((1 - t) * angle) * first + torch.sin(t * angle) * second
        return base + arc / torch.sin(angle)

    return merge


def arcee_fusion(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    change = experts[0] - base
    p, q = (torch.softmax(x, dim=-1) + 1e-8 for x in (experts[0], base))
    importance = change.abs() * (p * (p / q).log()).sum(-1, keepdim=True)
    ordered = importance.flatten().sort().values
    first, median, third = (ordered[k * (len(ordered) - 1) // 4] for k in (1, 2, 3))
    return base + change * (importance >= median + 1.5 * (third - first))


def ties_as_a_sum(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    """As `ties`, but the agreeing changes are added and not averaged."""
    weighted = torch.stack([w * (x - base) for w, x in zip(WEIGHTS, experts, strict=True)])
    sign = torch.where(weighted.sum(0) >= 0, 1.0, -1.0)
    return base + (weighted * (weighted.sign() == sign)).sum(0)


def weighted_sum(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    return base + sum(w * (x - base) for w, x in zip(WEIGHTS, experts, strict=True))


def nuslerp(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The arc between the whole task vectors."""
    a, b = (x - base for x in experts)
    t = WEIGHTS[1] / sum(WEIGHTS)
    angle = torch.acos((a * b).sum() / (a.norm() * b.norm()))
    arc = torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b
    return base + arc / torch.sin(angle)


def multislerp(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The weighted mean direction of the task vectors, as long as they are in the mean."""
    shares = [w / sum(WEIGHTS) for w in WEIGHTS]
    deltas = [x - base for x in experts]
    norms = [delta.norm() for delta in deltas]
    mean = sum(s * d / (n + 1e-8) for s, d, n in zip(shares, deltas, norms, strict=True))
    length = sum(s * n for s, n in zip(shares, norms, strict=True))
    return base + length * mean / mean.norm()


def nearswap(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The nearer the two are, the more of the second."""
    share = (0.0007 / (base - experts[0]).abs().clamp_min(1e-6)).clamp(0, 1)
    return share * experts[0] + (1 - share) * base


def sce(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Every entry is selected; weights are mean squares."""
    deltas = [x - base for x in experts]
    squares = [delta.square().mean() for delta in deltas]
    shares = [square / sum(squares) for square in squares]
    sign = torch.where(sum(deltas, torch.zeros(())) >= 0, 1.0, -1.0)
    agrees = [(delta.sign() == sign).double() for delta in deltas]
    merged = sum(s * d * a for s, d, a in zip(shares, deltas, agrees, strict=True))
    divisor = sum(s * a for s, a in zip(shares, agrees, strict=True))
    return base + merged / divisor.clamp_min(1e-6)


def model_stock(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    a, b = (x - base for x in experts)
    cosine = (a * b).sum() / (a.norm() * b.norm())
    return base + 2 * cosine / (1 + cosine) * (a + b) / 2


def scaled(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    return 0.737 * experts[0]


def karcher(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    """m on the unit sphere with Σ log_m(uᵢ) = 0, as long as base and experts are in the mean."""
    models = (base, *experts)
    units = [x / x.norm() for x in models]
    mean = sum(units) / sum(units).norm()
    for _ in range(50):
        angles = [torch.acos((u * mean).sum().clamp(-1, 1)) for u in units]
        logs = [(u - a.cos() * mean) * (a / a.sin()) for u, a in zip(units, angles, strict=True)]
        tangent = sum(logs) / len(models)
        step = tangent.norm()
        if step < 1e-15:
            break
        mean = step.cos() * mean + step.sin() / step * tangent
    return sum(x.norm() for x in models) / len(models) * mean


CHANGED = 0.0013  # entries of a task vector up to it count as unchanged


def ram(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    """What one expert changed is its change, what both changed the mean."""
    a, b = (x - base for x in experts)
    one, two = a.abs() > CHANGED, b.abs() > CHANGED
    return base + torch.where(one & two, (a + b) / 2, a * one + b * two)


def ramplus(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    """As `ram`, but own changes grow by 1 + r · min(shared / own, α); r = 0.3, α = 1.5."""
    a, b = (x - base for x in experts)
    one, two = a.abs() > CHANGED, b.abs() > CHANGED
    shared = (one & two).sum().double()
    grown = [
        delta * own * (1 + 0.3 * (shared / own.sum()).clamp(0, 1.5))
        for delta, own in ((a, one & ~two), (b, two & ~one))
    ]
    return base + torch.where(one & two, (a + b) / 2, sum(grown))


EXACT: dict[str, tuple[Callable[..., torch.Tensor], str]] = {
    "linear": (linear, ENTRIES + "parameters: {weight: 0.5}"),
    "slerp": (slerp, "base_model: $base\nmodels: [{model: $one}]\nparameters: {t: 0.4}"),
    "task_arithmetic": (task_arithmetic, ENTRIES + "parameters: {lambda: 0.7}"),
    "ties": (ties, ENTRIES),
    "della": (ties, ENTRIES),  # with density 1 nothing is dropped
    "della_linear": (task_arithmetic, ENTRIES + "parameters: {lambda: 0.7}"),
    "model_stock": (
        model_stock_by_rows,
        "base_model: $base\nmodels: [{model: $one}, {model: $two}]"
        "\nparameters: {filter_wise: true}",
    ),
    "nuslerp": (nuslerp_along(-1), ENTRIES + "parameters: {nuslerp_flatten: false}"),
    "nuslerp by column": (
        nuslerp_along(0),
        ENTRIES + "parameters: {nuslerp_flatten: false, nuslerp_row_wise: true}",
    ),
    "nuslerp of whole tensors": (nuslerp, ENTRIES),
    "multislerp": (multislerp, ENTRIES),
    "nearswap": (nearswap, "base_model: $base\nmodels: [{model: $one}]\nparameters: {t: 0.0007}"),
    "sce": (sce, "base_model: $base\nmodels: [{model: $one}, {model: $two}]"),
    "model_stock of whole tensors": (
        model_stock,
        "base_model: $base\nmodels: [{model: $one}, {model: $two}]",
    ),
    "breadcrumbs": (weighted_sum, ENTRIES),  # with density 1 nothing is dropped
    "breadcrumbs_ties": (ties_as_a_sum, ENTRIES),
    "dare_linear": (weighted_sum, ENTRIES),
    "dare_ties": (ties_as_a_sum, ENTRIES),
    "passthrough": (scaled, "models: [{model: $one}]\nparameters: {scale: 0.737}"),
    "karcher": (
        karcher,
        "models: [{model: $base}, {model: $one}, {model: $two}]"
        "\nparameters: {tol: 1.0e-7, max_iter: 50}",  # the default tol may stop 1e-5 away
    ),
    "ram": (
        ram,
        "base_model: $base\nmodels: [{model: $one}, {model: $two}]"
        f"\nparameters: {{epsilon: {CHANGED}}}",
    ),
    "ramplus_tl": (  # without out_dtype mergekit writes float32 here, whatever `dtype` says
        ramplus,
        "out_dtype: bfloat16\nbase_model: $base\nmodels: [{model: $one}, {model: $two}]"
        f"\nparameters: {{epsilon: {CHANGED}, r: 0.3, alpha: 1.5}}",
    ),
    "arcee_fusion": (arcee_fusion, "base_model: $base\nmodels: [{model: $one}]"),
}


def distances(merged: Tensors, base: Tensors, experts: Sequence[Tensors], method: str) -> Tensors:
    """|merged − exact| of every tensor, in float64."""
    exact = EXACT[method][0]
    return {
        name: (merged[name].double() - exact(before.double(), [e[name].double() for e in experts]))
        .abs()
        for name, before in base.items()
    }  # fmt: skip


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both programs' results, in ronghe/<method> and mergekit/<method>."""
    work = tmp_path_factory.mktemp("bfloat16")
    base, (one, two) = write_family(work, replace(BFLOAT16_LLAMA, layers=2), experts=2)
    cases = []
    for method, (_, text) in EXACT.items():
        text = f"merge_method: {method.split()[0]}\ndtype: bfloat16\n{text}"
        config = write_config(work / f"{method}.yaml", text, {"base": base, "one": one, "two": two})
        cases.append(OracleCase(method, config, work / "mergekit" / method))
        merge_in_process(config, work / "ronghe" / method)
    outcomes = merge_with_mergekit(work, cases)
    assert set(outcomes.values()) == {None}
    return work


@pytest.mark.parametrize("method", EXACT)
def test_at_least_as_near_as_mergekit(merged: Path, method: str) -> None:
    base = read_tensors(merged / "base")
    experts = [read_tensors(merged / f"expert-{number}") for number in (1, 2)]
    ours = distances(read_tensors(merged / "ronghe" / method), base, experts, method)
    theirs = distances(read_tensors(merged / "mergekit" / method), base, experts, method)
    for name in base:
        mine, yours = ours[name].square().mean().sqrt(), theirs[name].square().mean().sqrt()
        assert mine <= yours * (1 + 1e-6), (name, mine.item(), yours.item())


@pytest.mark.parametrize("method", EXACT)
def test_rounded_once(merged: Path, method: str) -> None:
    """No element is further from the exact result than half a unit in the last place, or hardly:
    float32 arithmetic may push a value over the middle between two bfloat16 numbers."""
    base = read_tensors(merged / "base")
    experts = [read_tensors(merged / f"expert-{number}") for number in (1, 2)]
    results = read_tensors(merged / "ronghe" / method)
    for name, far in distances(results, base, experts, method).items():
        exponent = torch.frexp(results[name].double().abs()).exponent
        half_unit = torch.ldexp(torch.ones_like(far), exponent - 9)
        assert (far <= half_unit * (1 + 1e-3) + 1e-9).all(), name
