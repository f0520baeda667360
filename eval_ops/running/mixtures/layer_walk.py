"""A decoder run layer by layer: each layer's weights are used once, for every prompt, in float32.

transformers' own forward pass is asked first what it hands to each layer (positions, masks), with
the layers themselves left out. Then each layer is computed for all prompts before the next one. So
one layer's weights are in float32, and on the device, at a time, whatever the model's size and
precision. A prompt goes alone, without padding: no other one changes its numbers.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from eval_ops.errors import NonFiniteError, PromptsError
from eval_ops.running.foreign_work import limited
from eval_ops.running.live_model import load_to_read

if TYPE_CHECKING:
    from torch import Tensor

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Model types whose layers take nothing from one another but hidden states, as is known here."""
MOST_TOKENS = 1 << 15
"""Tokens whose hidden states are held at a time; with 8192 entries each they take a gibibyte."""
MOST_PROMPT = 1 << 12
"""Tokens of one prompt, whose mask may have as many rows and columns."""


class LayerStates(NamedTuple):
    """What one layer sees of each prompt, every tensor [tokens, hidden] in float32 on the device.

    `entering` is the residual stream that enters it, `routed` what its MLP multiplies, which is
    what a router in its place would; that is None unless it was asked for.
    """

    layer: int
    entering: list["Tensor"]
    routed: list["Tensor"] | None


class Decoder:
    """A decoder opened to be walked through, with its tokenizer. Raises as `load_to_read` does."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.folder = folder
        self.device = device
        self._model, self._tokenizer = load_to_read(folder)
        config = self._model.config
        if config.model_type not in FAMILIES or getattr(config, "quantization_config", None):
            what = "a quantized model" if config.model_type in FAMILIES else config.model_type
            problem = f"is {what}; gates are measured on plain weights of {', '.join(FAMILIES)}"
            raise PromptsError(str(folder), [problem])
        self.layers: int = config.num_hidden_layers
        self.hidden: int = config.hidden_size

    def tokens_of(self, texts: Sequence[str]) -> dict[str, list[int]]:
        """Return the tokens of each text: its bos token (if any) and the text, nothing else added.

        Raises PromptsError for all texts that have none, or too many.
        """
        begin = self._tokenizer.bos_token or ""
        known = getattr(self._model.config, "max_position_embeddings", MOST_PROMPT)
        most = min(MOST_PROMPT, int(known))
        found: dict[str, list[int]] = {}
        faults: list[str] = []
        with limited(sum(map(len, texts))):
            for text in dict.fromkeys(texts):
                tokens = self._tokenizer(f"{begin}{text}", add_special_tokens=False)["input_ids"]
                found[text] = [int(token) for token in tokens]
                if not tokens or len(tokens) > most:
                    told = f"prompt {text[:60]!r} has {len(tokens)} tokens"
                    faults.append(f"{told}; it must have 1 to {most} for this model")
        if faults:
            raise PromptsError(str(self.folder), faults)
        return found

    def walk(
        self, prompts: Sequence[Sequence[int]], *, last_runs: bool = False, routed: bool = False
    ) -> Iterator[LayerStates]:
        """Yield what each layer sees of the prompts, from the first layer to the last.

        With `last_runs` or `routed` the last layer is computed too, which the states that enter it
        do not need. Raises NonFiniteError.
        """
        import torch

        with torch.inference_mode():
            states, handed = self._begun(prompts)
            for layer in range(self.layers):
                self._check_finite(layer, states)
                if layer == self.layers - 1 and not (last_runs or routed):
                    yield LayerStates(layer, states, None)
                    return
                after, seen = self._run(layer, states, handed, routed)
                yield LayerStates(layer, states, seen if routed else None)
                states = after

    def _check_finite(self, layer: int, states: "list[Tensor]") -> None:
        if not all(bool(each.isfinite().all()) for each in states):
            raise NonFiniteError(
                f"{self.folder}: what enters layer {layer} is NaN or infinite, so no gates can be"
                " measured; the weights are damaged"
            )

    def _begun(
        self, prompts: Sequence[Sequence[int]]
    ) -> "tuple[list[Tensor], list[list[tuple[Any, Any]]]]":
        """The embeddings of each prompt, and what the model hands to each of its layers."""
        import torch

        model: Any = self._model.model
        embed = self._model.get_input_embeddings()
        states: list[Tensor] = []
        handed: list[list[tuple[Any, Any]]] = []
        try:
            for number, layer in enumerate(model.layers):
                layer.forward = _recorder(handed, number)
            for tokens in prompts:
                handed.append([])
                embedded = embed(torch.tensor([list(tokens)])).float()
                model(inputs_embeds=embedded, use_cache=False)
                states.append(embedded[0].to(self.device))
        finally:
            for layer in model.layers:
                layer.__dict__.pop("forward", None)
        if any(len(each) != self.layers for each in handed):
            raise PromptsError(str(self.folder), ["its forward pass skips layers"])
        return states, [
            [(_moved(args, self.device), _moved(settings, self.device)) for args, settings in each]
            for each in handed
        ]

    def _run(
        self, number: int, states: "list[Tensor]", handed: list[list[tuple[Any, Any]]], routed: bool
    ) -> "tuple[list[Tensor], list[Tensor]]":
        """What leaves a layer, and what its MLP is given, of each prompt."""
        import torch

        layer: Any = self._model.model.layers[number]
        weights = {
            name: tensor.to(self.device, torch.float32)
            for name, tensor in (*layer.named_parameters(), *layer.named_buffers())
        }
        seen: list[Tensor] = []

        def note(_: Any, given: "tuple[Tensor, ...]") -> None:
            seen.append(given[0][0])

        hook = layer.mlp.register_forward_pre_hook(note)
        after: list[Tensor] = []
        try:
            for entering, called in zip(states, handed, strict=True):
                args, settings = called[number]
                given = (entering[None], *args)
                made: Any = torch.func.functional_call(layer, weights, given, settings)
                after.append((made[0] if isinstance(made, tuple) else made)[0])
                if not routed:
                    seen.clear()
        finally:
            hook.remove()
        return after, seen


def _recorder(handed: list[list[tuple[Any, Any]]], number: int) -> Any:
    """Stands for a layer's forward: notes what it is given, and returns the states unchanged."""

    def record(hidden_states: "Tensor", *args: Any, **settings: Any) -> "Tensor":
        if len(handed[-1]) == number:  # once each, in order
            handed[-1].append((args, settings))
        return hidden_states

    return record


def _moved(value: Any, device: str) -> Any:
    """Tensors in tuples and mappings, on the device."""
    if isinstance(value, tuple):
        return tuple(_moved(each, device) for each in value)
    if isinstance(value, dict):
        return {name: _moved(each, device) for name, each in value.items()}
    return value.to(device) if hasattr(value, "to") else value


def grouped(prompts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Yield the places of prompts that are held together: at most MOST_TOKENS, or one prompt."""
    group: list[int] = []
    held = 0
    for place, tokens in enumerate(prompts):
        if group and held + len(tokens) > MOST_TOKENS:
            yield group
            group, held = [], 0
        group.append(place)
        held += len(tokens)
    if group:
        yield group
