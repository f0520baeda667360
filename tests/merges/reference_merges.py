"""Four merges in float64 on the parameters of loaded models, by formulas that are written out.

Nothing here knows files, tensors' names on disk or the product's code.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from tests.models.architectures import Architecture

Parameters = dict[str, torch.Tensor]
WEIGHTS = (0.6, 0.3)
DENSITY, LAMBDA, T = 0.4, 0.8, 0.3


def linear(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The weighted mean of the experts."""
    total = sum(weight * expert for weight, expert in zip(WEIGHTS, experts, strict=True))
    return total / sum(WEIGHTS)


def task_arithmetic(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The base and the weighted sum of the experts' differences to it."""
    pairs = zip(WEIGHTS, experts, strict=True)
    return base + LAMBDA * sum(weight * (expert - base) for weight, expert in pairs)


def ties(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Trim by size, elect a sign for each entry, and average those that agree with it."""
    kept = max(1, int(DENSITY * base.numel()))
    changes = []
    for weight, expert in zip(WEIGHTS, experts, strict=True):
        change = (expert - base).flatten()
        order = change.abs().argsort(descending=True, stable=True)
        trimmed = torch.zeros_like(change)
        trimmed[order[:kept]] = change[order[:kept]]
        changes.append(weight * trimmed)
    stacked = torch.stack(changes)
    sign = torch.where(stacked.sum(0) >= 0, 1.0, -1.0)
    agree = torch.sign(stacked) == sign
    shares = (torch.tensor(WEIGHTS, dtype=torch.float64)[:, None] * agree).sum(0)
    mixed = (stacked * agree).sum(0) / torch.where(shares == 0, 1.0, shares)
    return base + LAMBDA * mixed.reshape(base.shape)


def slerp(base: torch.Tensor, experts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The great circle from the base to the first expert."""
    other = experts[0]
    cosine = (base / base.norm()).flatten() @ (other / other.norm()).flatten()
    if cosine.abs() > 0.9995:
        return (1 - T) * base + T * other
    angle = torch.arccos(cosine)
    one, two = torch.sin((1 - T) * angle), torch.sin(T * angle)
    return (one * base + two * other) / torch.sin(angle)


METHODS = {"linear": linear, "task_arithmetic": task_arithmetic, "ties": ties, "slerp": slerp}


def recipe(method: str, base: str, experts: Sequence[str]) -> dict[str, object]:
    """A recipe of the method, as mergekit writes it."""
    if method == "slerp":
        models = [{"model": base}, {"model": experts[0]}]
        return {
            "merge_method": method, "base_model": base, "models": models, "parameters": {"t": T}
        }  # fmt: skip
    models = [
        {"model": each, "parameters": {"weight": weight}}
        for each, weight in zip(experts, WEIGHTS, strict=True)
    ]
    document: dict[str, object] = {"merge_method": method, "models": models}
    if method != "linear":
        document |= {"base_model": base, "parameters": {"lambda": LAMBDA, "normalize": False}}
    if method == "ties":
        document["parameters"] = {"lambda": LAMBDA, "normalize": True, "density": DENSITY}
    return document


def reference(
    architecture: Architecture, method: str, base: Parameters, experts: Sequence[Parameters]
) -> torch.Tensor:
    """What a model answers whose parameters are merged in float64."""
    model = architecture.build(seed=1).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            merged = METHODS[method](base[name], [expert[name] for expert in experts])
            parameter.copy_(merged)
    return architecture.answer(model)


def parameters_of(architecture: Architecture, folder: Path) -> Parameters:
    """The parameters of a folder as its class loads it, in float64; what is tied, once."""
    return {
        name: value.detach().double()
        for name, value in architecture.load(folder).named_parameters()
    }


def assert_answers(
    architecture: Architecture, out: Path, method: str, base: Path, experts: Sequence[Path]
) -> None:
    """A merged folder loads and answers as the merge of these folders in float64."""
    merged = architecture.answer(architecture.load(out))
    expected = reference(
        architecture,
        method,
        parameters_of(architecture, base),
        [parameters_of(architecture, each) for each in experts],
    )
    unlike = architecture.answer(architecture.load(base))
    scale = float(expected.abs().max())
    assert float((merged - expected).abs().max()) < 2e-5 * scale
    assert float((unlike - expected).abs().max()) > 1e-3 * scale  # so the test can fail
