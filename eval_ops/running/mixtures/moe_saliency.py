"""What the moe_experts of a mixture do on texts: how often they are chosen, how much they add.

Of each layer with moe_experts, over all tokens of all texts:

    tokens       how many tokens were routed to each moe_expert
    weights      the sum of the weights that they had, renormalised where the model does so
    saliency     the mean over these tokens of weight × ‖output‖₂, 0 where there are none: REAP
                 (Lasby et al. 2025, 2510.13999)
    distances    Euclidean, between the mean outputs over all tokens: HC-SMoE (2410.08589)
    similarity   cosine of the router's logits, as vectors over all tokens: M-SMoE (2310.01334)

Texts go one by one without padding, so that no pad is ever counted; sums run in float64.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from eval_ops.errors import PromptsError
from eval_ops.running.mixtures.moe_walk import MixtureDecoder, prompts_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

PARTS = ("tokens", "weights", "saliency", "distances", "similarity")


class Measured(NamedTuple):
    """What was measured: arrays by part (PARTS) and layer, of `total` tokens, `chosen` each."""

    layers: "dict[int, dict[str, NDArray[np.float64]]]"
    total: int
    chosen: int


class _Sums:
    """The sums of one layer: E moe_experts, D hidden size."""

    def __init__(self, experts: int, hidden: int, device: str) -> None:
        import torch

        def zeros(*shape: int) -> "Tensor":
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.tokens, self.weights, self.norms = zeros(experts), zeros(experts), zeros(experts)
        self.outputs, self.logits = zeros(experts, hidden), zeros(experts, experts)

    def arrays(self, total: int) -> "dict[str, NDArray[np.float64]]":
        import torch

        means = self.outputs / total
        distances = torch.stack([(means - each).norm(dim=1) for each in means])
        lengths = self.logits.diagonal().sqrt()
        scale = torch.outer(lengths, lengths)
        similarity = torch.where(scale > 0, self.logits / scale.clamp(min=1e-300), 0.0)
        values = (
            self.tokens,
            self.weights,
            self.norms / self.tokens.clamp(min=1.0),
            distances,
            similarity.clamp(-1.0, 1.0),
        )
        return {part: each.cpu().numpy() for part, each in zip(PARTS, values, strict=True)}


class Saliency:
    """Adds up what routers and moe_experts do, as an Observer of a walk."""

    def __init__(self, experts: int, hidden: int, device: str = "cpu") -> None:
        self._sizes = experts, hidden, device
        self._sums: dict[int, _Sums] = {}

    def routed(self, layer: int, logits: "Tensor", weights: "Tensor", chosen: "Tensor") -> None:
        """Add logits, weights and choices, [tokens, experts], to a layer's sums."""
        sums = self._sums.setdefault(layer, _Sums(*self._sizes))
        seen = logits.double()
        sums.logits += seen.T @ seen
        sums.tokens += chosen.sum(dim=0)
        sums.weights += weights.double().sum(dim=0)

    def answered(self, layer: int, expert: int, weights: "Tensor", outputs: "Tensor") -> None:
        """Add the outputs of a moe_expert, [tokens, hidden], to a layer's sums."""
        sums, values = self._sums[layer], outputs.double()
        sums.outputs[expert] += values.sum(dim=0)
        sums.norms[expert] += (values.norm(dim=1) * weights.double()).sum()

    def layers(self, total: int) -> "dict[int, dict[str, NDArray[np.float64]]]":
        """Return the arrays of each layer, of `total` tokens."""
        return {layer: self._sums[layer].arrays(total) for layer in sorted(self._sums)}


def measure_moe(
    folder: Path,
    texts: Sequence[str],
    device: str = "cpu",
    tell: Callable[[int, int], None] | None = None,
) -> Measured:
    """Measure the moe_experts of the mixture in `folder` on texts and return what was found.

    Raises PromptsError with every fault of the texts, CheckpointLoadError and NonFiniteError.
    """
    check_texts(texts)
    decoder = MixtureDecoder(folder, device)
    prompts = list(prompts_of(decoder, texts))
    total = sum(map(len, prompts))
    saliency = Saliency(decoder.experts, decoder.hidden, device)
    decoder.observe(prompts, saliency, tell)
    return Measured(saliency.layers(total), total, decoder.chosen)


def check_texts(texts: Sequence[str]) -> None:
    """Raise PromptsError for texts of which nothing can be measured."""
    faults = [
        f"text {number + 1} is empty" for number, each in enumerate(texts) if not each.strip()
    ]
    if not texts:
        faults.append("there is no text; moe_experts are measured on some")
    if faults:
        raise PromptsError("texts", faults)


def packed(layers: "Mapping[int, Mapping[str, NDArray[np.float64]]]") -> dict[str, Any]:
    """Return the arrays of layers as plain data, every bit of them."""
    return {
        str(layer): {
            part: {
                "shape": list(values.shape),
                "values": b64encode(values.astype("<f8").tobytes()).decode("ascii"),
            }
            for part, values in parts.items()
        }
        for layer, parts in layers.items()
    }


def unpacked(data: Mapping[str, Any]) -> "dict[int, dict[str, NDArray[np.float64]]]":
    """Return the arrays of what `packed` made."""
    import numpy as np

    def array(told: Mapping[str, Any]) -> "NDArray[np.float64]":
        flat = np.frombuffer(b64decode(told["values"]), dtype="<f8").astype(np.float64)
        return flat.reshape(told["shape"])

    return {
        int(layer): {part: array(told) for part, told in parts.items()}
        for layer, parts in data.items()
    }
