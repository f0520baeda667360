"""A mixture of experts run layer by layer, one moe_expert at a time, in float32.

The model is built without weights; those of one layer's attention, and of one moe_expert, are read
from the files as they are needed, whatever layout the files have. So a model is measured in the
memory that its largest moe_expert and the hidden states take. A prompt goes alone: no other one
changes its numbers. transformers does the attention; routing and moe_experts are computed here, as
Mixtral, Qwen2-MoE and Qwen3-MoE do.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from eval_ops.errors import CheckpointLoadError, NonFiniteError
from eval_ops.running.live_model import load_tokenizer
from eval_ops.running.mixtures.layer_walk import Decoder, grouped
from eval_ops.running.mixtures.weightless import TensorFiles, without_weights

if TYPE_CHECKING:
    from torch import Tensor

_PARTS = (("gate_proj", "w1"), ("up_proj", "w3"), ("down_proj", "w2"))
_RECOMPUTED = "rotary_emb.inv_freq"  # a buffer that old files hold
_ONE = re.compile(r"(?:mlp|block_sparse_moe)\.experts\.(\d+)\.(\w+)\.weight")


class Observer(Protocol):
    """An observer is told what routers and moe_experts do: once a layer and prompt."""

    def routed(self, layer: int, logits: "Tensor", weights: "Tensor", chosen: "Tensor") -> None:
        """Note a router's logits, the weights that follow, and which were chosen, as True.

        Each is [tokens, experts]; weights are 0 where a moe_expert was not chosen.
        """
        ...

    def answered(self, layer: int, expert: int, weights: "Tensor", outputs: "Tensor") -> None:
        """Note a moe_expert's weights [tokens] and its outputs for all tokens, [tokens, hidden]."""
        ...


class Matrices(NamedTuple):
    """The matrices of one MLP in float32: gate and up (I, D), down (D, I)."""

    gate: "Tensor"
    up: "Tensor"
    down: "Tensor"


class MixtureDecoder(Decoder):
    """A mixture opened to be walked through, with its tokenizer.

    Raises CheckpointLoadError, and PromptsError for a model that is no mixture known here.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.folder = folder
        self.device = device
        self._files = TensorFiles(folder)
        self._model: Any = without_weights(folder, self._files)
        self._tokenizer = load_tokenizer(folder)
        config = self._model.config
        self.layers: int = config.num_hidden_layers
        self.hidden: int = config.hidden_size
        self.chosen: int = config.num_experts_per_tok
        mixtral = config.model_type == "mixtral"
        self.experts: int = config.num_local_experts if mixtral else config.num_experts
        self._renormalises = mixtral or bool(config.norm_topk_prob)

    def observe(
        self,
        prompts: Sequence[Sequence[int]],
        observer: Observer,
        tell: Callable[[int, int], None] | None = None,
    ) -> "list[Tensor]":
        """Run all prompts through all layers, and tell the observer; `tell` has steps done, of all.

        Returns the last states of each prompt, [tokens, hidden], before the final norm. Raises
        NonFiniteError and CheckpointLoadError.
        """
        import torch

        found: dict[int, Tensor] = {}
        done, whole = 0, len(prompts) * self.layers
        with torch.inference_mode():
            for group in grouped(prompts):
                states, handed = self._begun([prompts[place] for place in group])
                for layer in range(self.layers):
                    self._check_finite(layer, states)
                    states = self._through(layer, states, handed, observer)
                    done += len(group)
                    if tell:
                        tell(done, whole)
                self._check_finite(self.layers, states)
                found |= dict(zip(group, states, strict=True))
        return [found[place] for place in range(len(prompts))]

    def _check_finite(self, layer: int, states: "list[Tensor]") -> None:
        if not all(bool(each.isfinite().all()) for each in states):
            raise NonFiniteError(
                f"{self.folder}: what enters layer {layer} is NaN or infinite, so nothing can be"
                " measured; the weights are damaged"
            )

    def _through(
        self,
        layer: int,
        states: "list[Tensor]",
        handed: list[list[tuple[Any, Any]]],
        observer: Observer,
    ) -> "list[Tensor]":
        """What leaves a layer, of each prompt."""
        names = self._files.below(f"model.layers.{layer}.")
        if not any(".experts." in name for name in names):
            weights = {
                name: self._float(each)
                for name, each in names.items()
                if not name.endswith(_RECOMPUTED)
            }
            return self._attended(layer, weights, states, handed, None)
        own = {
            name.replace("block_sparse_moe.", "mlp."): each
            for name, each in names.items()
            if ".experts." not in name and not name.endswith(_RECOMPUTED)
        }
        attention = {
            name: self._float(each) for name, each in own.items() if not name.startswith("mlp.")
        }
        entering: list[Tensor] = []
        after = self._attended(layer, attention, states, handed, entering)
        for place, added in enumerate(self._mixed(layer, names, own, entering, observer)):
            after[place] = after[place] + added
        return after

    def _attended(
        self,
        layer: int,
        weights: "dict[str, Tensor]",
        states: "list[Tensor]",
        handed: list[list[tuple[Any, Any]]],
        entering: "list[Tensor] | None",
    ) -> "list[Tensor]":
        """What leaves a layer; given `entering`, without its MLP, whose inputs are added there."""
        import torch

        module: Any = self._model.model.layers[layer]
        self._check_shapes(layer, module, weights, whole=entering is None)

        def note(hidden: "Tensor", *_: Any, **__: Any) -> "Tensor":
            assert entering is not None  # else it is not put in the MLP's place
            entering.append(hidden[0])
            return torch.zeros_like(hidden)

        if entering is not None:
            module.mlp.forward = note
        after: list[Tensor] = []
        try:
            for state, called in zip(states, handed, strict=True):
                args, settings = called[layer]
                made: Any = torch.func.functional_call(
                    module, weights, (state[None], *args), settings
                )
                after.append((made[0] if isinstance(made, tuple) else made)[0])
        finally:
            module.mlp.__dict__.pop("forward", None)
        return after

    def _check_shapes(
        self, layer: int, module: Any, weights: "Mapping[str, Tensor]", whole: bool
    ) -> None:
        wanted = {
            name: tuple(each.shape)
            for name, each in module.named_parameters()
            if whole or not name.startswith("mlp.")
        }
        given = {name: tuple(each.shape) for name, each in weights.items()}
        odd = sorted(name for name, shape in wanted.items() if given.get(name) != shape)
        extra = sorted(given.keys() - wanted.keys())
        if odd or extra:
            name = (odd or extra)[0]
            told = f"{given.get(name, 'nothing')} where its config.json wants"
            raise CheckpointLoadError(
                f"{self.folder}: layer {layer} has {told} {wanted.get(name, 'nothing')} for"
                f" '{name}'; the checkpoint is incomplete, or its config.json is another model's"
            )

    def _mixed(
        self,
        layer: int,
        names: Mapping[str, str],
        own: Mapping[str, str],
        entering: "list[Tensor]",
        observer: Observer,
    ) -> "list[Tensor]":
        """What the mixture of a layer adds to each prompt's states."""
        import torch

        named = own.get("mlp.gate.weight", f"the router of layer {layer}")
        router = self._router(layer, named, entering)
        weights: list[Tensor] = []
        for hidden in entering:
            logits = hidden @ router.T
            share, chosen = self._weights(logits)
            weights.append(share)
            observer.routed(layer, logits, share, chosen)
        added = [torch.zeros_like(hidden) for hidden in entering]
        for expert in range(self.experts):
            matrices = self._expert(names, layer, expert)
            for place, hidden in enumerate(entering):
                outputs = self._answer(hidden, matrices)
                share = weights[place][:, expert]
                observer.answered(layer, expert, share, outputs)
                # Where it is not chosen the share is 0, and adds nothing.
                added[place] += outputs * share[:, None]
        if "mlp.shared_expert_gate.weight" in own:
            gate = self._float(own["mlp.shared_expert_gate.weight"])
            shared = Matrices(
                *(self._float(own[f"mlp.shared_expert.{part}.weight"]) for part, _ in _PARTS)
            )
            for place, hidden in enumerate(entering):
                added[place] += torch.sigmoid(hidden @ gate.T) * self._answer(hidden, shared)
        return added

    def _router(self, layer: int, name: str, entering: "list[Tensor]") -> "Tensor":
        """The router's rows, [experts, hidden]; `entering` are the states that it is given."""
        router = self._float(name)
        if tuple(router.shape) != (self.experts, self.hidden):
            told = f"a router of {list(router.shape)} in layer {layer}"
            wanted = f"its config.json wants {[self.experts, self.hidden]}"
            raise CheckpointLoadError(f"{self.folder}: has {told}; {wanted}")
        return router

    def _weights(self, logits: "Tensor") -> "tuple[Tensor, Tensor]":
        """The weight of each moe_expert for each token, [tokens, experts], and which are chosen."""
        import torch

        shares = torch.softmax(logits, dim=-1, dtype=torch.float32)
        best, places = torch.topk(shares, self.chosen, dim=-1)
        if self._renormalises:
            best = best / best.sum(dim=-1, keepdim=True)
        chosen = torch.zeros_like(shares, dtype=torch.bool).scatter_(-1, places, True)
        return torch.zeros_like(shares).scatter_(-1, places, best), chosen

    def _answer(self, hidden: "Tensor", matrices: Matrices) -> "Tensor":
        from transformers.activations import ACT2FN

        activation: Any = ACT2FN[self._model.config.hidden_act]
        return (activation(hidden @ matrices.gate.T) * (hidden @ matrices.up.T)) @ matrices.down.T

    def _expert(self, names: Mapping[str, str], layer: int, expert: int) -> Matrices:
        """The matrices of a moe_expert, out of either layout."""
        fused = [
            next((names[each] for each in names if each.endswith(f".experts.{part}")), None)
            for part in ("gate_up_proj", "down_proj")
        ]
        if fused[0] and fused[1]:
            both = self._float(fused[0], expert)
            half = both.shape[0] // 2
            found = Matrices(both[:half], both[half:], self._float(fused[1], expert))
        else:
            read: dict[str, str] = {}
            for short, name in names.items():
                match = _ONE.fullmatch(short)
                if match and int(match[1]) == expert:
                    read[match[2]] = name
            lacking = f"moe_expert {expert} of layer {layer}"
            found = Matrices(
                *(self._float(read.get(a) or read.get(b) or lacking) for a, b in _PARTS)
            )
        inner = found.gate.shape[0]
        if [tuple(each.shape) for each in found] != [(inner, self.hidden)] * 2 + [
            (self.hidden, inner)
        ]:
            told = [list(each.shape) for each in found]
            problem = f"moe_expert {expert} of layer {layer} has the shapes {told}"
            raise CheckpointLoadError(f"{self.folder}: {problem}, which fit no hidden size of it")
        return found

    def _float(self, name: str, at: int | None = None) -> "Tensor":
        import torch

        return self._files.read(name, at).to(self.device, torch.float32)


def prompts_of(decoder: Decoder, texts: Sequence[str]) -> Iterator[list[int]]:
    """Yield the tokens of each text in its order, equal texts as often as they stand there.

    Raises PromptsError for texts that have none, or too many.
    """
    by_text = decoder.tokens_of(texts)
    for text in texts:
        yield by_text[text]
