"""A mixture whose routers are fitted layer after layer, each on what those before it make.

See router_fit.py for what they are fitted to. Texts go one by one without padding, so that no pad
is ever counted. The states of all texts are held at once, for a layer is fitted before the next one
is computed.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from eval_ops.errors import PromptsError
from eval_ops.running.mixtures.moe_saliency import check_texts
from eval_ops.running.mixtures.moe_walk import MixtureDecoder, prompts_of
from eval_ops.running.mixtures.router_fit import Seen, divergence, fitted_router

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

MOST_HELD = 1 << 18
"""Tokens of all texts together: their states, of 4096 entries each, take 4 gibibytes."""


class RouterSource(NamedTuple):
    """A source of routing: its texts, and the rows of its router in each layer that has one."""

    texts: Sequence[str]
    rows: "Mapping[int, NDArray[np.float32]]"


class Calibrated(NamedTuple):
    """Fitted rows by layer, and the divergence (KL, nats) from the sources before and after."""

    rows: "dict[int, NDArray[np.float32]]"
    before: float
    after: float


class _Unheard:
    """An observer that is told and keeps nothing."""

    def routed(self, layer: int, logits: "Tensor", weights: "Tensor", chosen: "Tensor") -> None:
        """Keep nothing."""

    def answered(self, layer: int, expert: int, weights: "Tensor", outputs: "Tensor") -> None:
        """Keep nothing."""


class CalibratingDecoder(MixtureDecoder):
    """A mixture opened to be walked through once, while its routers are fitted to sources.

    `groups` has the moe_experts of the sources that became one, by layer; without it there is one
    for each.
    """

    def __init__(
        self,
        folder: Path,
        sources: Sequence[RouterSource],
        groups: Mapping[int, Sequence[Sequence[int]]] | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(folder, device)
        self._sources, self._groups = sources, groups
        self._owners: list[int] = []
        self._fitted: dict[int, NDArray[np.float32]] = {}
        self._told: list[tuple[float, float]] = []

    def calibrate(self, tell: Callable[[int, int], None] | None = None) -> Calibrated:
        """Fit the router of every layer and return the rows.

        `tell` has layers done, of all. Raises PromptsError with every fault of the texts, and what
        a walk raises.
        """
        import torch

        prompts: list[list[int]] = []
        for number, source in enumerate(self._sources):
            check_texts(source.texts)
            own = list(prompts_of(self, source.texts))
            prompts += own
            self._owners += [number] * len(own)
        held = sum(map(len, prompts))
        if held > MOST_HELD:
            problem = f"have {held:,} tokens; at most {MOST_HELD:,} are held: take fewer of them"
            raise PromptsError("texts", [problem])
        with torch.inference_mode():
            states, handed = self._begun(prompts)
            for layer in range(self.layers):
                self._check_finite(layer, states)
                states = self._through(layer, states, handed, _Unheard())
                if tell:
                    tell(layer + 1, self.layers)
            self._check_finite(self.layers, states)
        layers = max(len(self._told), 1)
        before, after = (sum(each[side] for each in self._told) / layers for side in (0, 1))
        return Calibrated(self._fitted, before, after)

    def _router(self, layer: int, name: str, entering: "list[Tensor]") -> "Tensor":
        """The rows that are fitted to what enters, as the file's dtype holds them."""
        import torch

        stored = self._files.read(name)
        start = super()._router(layer, name, entering)
        seen = [
            Seen(
                [each for each, owner in zip(entering, self._owners, strict=True) if owner == at],
                torch.from_numpy(source.rows[layer]).to(self.device),
                self._groups[layer] if self._groups is not None else None,
            )
            for at, source in enumerate(self._sources)
        ]
        fitted = fitted_router(start, seen).to(stored.dtype).to(self.device, torch.float32)
        self._fitted[layer] = fitted.cpu().numpy()
        self._told.append((divergence(start, seen), divergence(fitted, seen)))
        return fitted
