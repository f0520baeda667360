"""Gates of routers, measured by running the base on prompts; and how prompts would be routed.

Row e of layer l is what the prompts of moe_expert e look like there:

    hidden, hidden_last   the residual stream that enters the layer, at the last token
    hidden_avg            the same, as the mean over all tokens of a prompt
    router_input          what the router multiplies (after attention and norm), as the mean over
                          all tokens; without negative prompts the mean over all moe_experts is
                          subtracted in their place

each as the mean over the positive prompts, minus the mean over the negative ones, divided by its
length. The first three are mergekit-moe's (LGPL; reimplemented from its formulas), whose model runs
in bfloat16 and whose hidden_avg counts padding; `router_input` is our own.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval_ops.errors import PromptsError
from eval_ops.running.live_model import tokenizer_digest
from eval_ops.running.mixtures.layer_walk import Decoder, LayerStates, grouped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = [
    "MODES",
    "Prompts",
    "check_prompts",
    "measure_gates",
    "packed",
    "route_prompts",
    "shares_of",
    "tokenizer_digest",
    "unpacked",
]

MODES = ("hidden", "hidden_last", "hidden_avg", "router_input")
SHORTEST = 1e-8
"""A row that is shorter is not made longer: its prompts cancel out."""

Prompts = tuple[Sequence[str], Sequence[str]]
"""The positive and the negative prompts of one moe_expert."""
Tell = Callable[[int, int], None]
"""Is told how many of how many steps are done: one a prompt and layer."""


def measure_gates(
    folder: Path,
    prompts: Sequence[Prompts],
    mode: str,
    device: str = "cpu",
    tell: Tell | None = None,
) -> "list[NDArray[np.float32]]":
    """Return one matrix of rows for each layer of the base in `folder`, (moe_experts, hidden).

    Prompts go one by one in float32, so padding and neighbours change nothing. Raises PromptsError
    with every fault of the prompts, CheckpointLoadError and NonFiniteError.
    """
    import numpy as np

    check_prompts(prompts, mode)
    decoder = Decoder(folder, device)
    texts = [text for each in prompts for some in each for text in some]
    by_text = decoder.tokens_of(texts)
    unique = list(by_text)
    values = np.zeros((decoder.layers, len(unique), decoder.hidden), dtype=np.float64)
    tokens = list(by_text.values())
    done, whole = 0, len(unique) * decoder.layers
    for group in grouped(tokens):
        routed = mode == "router_input"
        for states in decoder.walk([tokens[place] for place in group], routed=routed):
            for place, vector in zip(group, _vectors(states, mode), strict=True):
                values[states.layer, place] = vector.double().cpu().numpy()
            done += len(group)
            if tell:
                tell(done, whole)
    at = {text: place for place, text in enumerate(unique)}
    places = [tuple([at[text] for text in texts] for texts in each) for each in prompts]
    return _rows(values, places, mode)


def _vectors(states: LayerStates, mode: str) -> "list[Tensor]":
    """One vector a prompt, (hidden,)."""
    if mode in ("hidden", "hidden_last"):
        return [each[-1] for each in states.entering]
    seen = states.entering if states.routed is None else states.routed
    return [each.double().mean(dim=0) for each in seen]


def _rows(
    values: "NDArray[np.float64]", places: Sequence[Sequence[Sequence[int]]], mode: str
) -> "list[NDArray[np.float32]]":
    """The rows of each layer from one vector a text, [layers, texts, hidden]."""
    import numpy as np

    rows = np.stack([values[:, positive].mean(axis=1) for positive, _ in places], axis=1)
    centre = rows.mean(axis=1)
    for expert, (_, negative) in enumerate(places):
        if negative:
            rows[:, expert] -= values[:, negative].mean(axis=1)
        elif mode == "router_input":
            rows[:, expert] -= centre
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return list((rows / np.maximum(lengths, SHORTEST)).astype(np.float32))


def check_prompts(prompts: Sequence[Prompts], mode: str) -> None:
    """Raise PromptsError for all that keeps gates of this mode from being measured."""
    faults: list[str] = []
    if mode not in MODES:
        faults.append(f"gate_mode is {mode!r}; a model is run for {', '.join(MODES)}")
    if not prompts:
        faults.append("experts is empty; gates have a row for each of them")
    for number, (positive, negative) in enumerate(prompts):
        if not positive:
            problem = f"is empty; {mode} needs at least one text that the expert is for"
            faults.append(f"experts[{number}].positive_prompts {problem}")
        for what, texts in (("positive", positive), ("negative", negative)):
            faults += [
                f"experts[{number}].{what}_prompts[{place}] is empty; write a text"
                for place, text in enumerate(texts)
                if not text.strip()
            ]
    if faults:
        raise PromptsError("prompts", faults)


def route_prompts(
    folder: Path,
    texts: Sequence[str],
    gates: "Sequence[NDArray[np.float32]]",
    chosen: int,
    device: str = "cpu",
    tell: Tell | None = None,
) -> "NDArray[np.float64]":
    """Return the share of each moe_expert in each layer of each text, [texts, layers, experts].

    The router of layer l gives each token its `chosen` moe_experts of the largest products with
    `gates[l]`, weighted by the softmax over these; a share is the mean over the tokens, and those
    of a layer add up to 1. What is multiplied is what the base computes there: in the merged model
    the layers before have other MLPs, so behind the first layer this is an estimate. Raises
    PromptsError, CheckpointLoadError and NonFiniteError.
    """
    import numpy as np

    decoder = Decoder(folder, device)
    _check_routing(decoder, gates, chosen)
    by_text = decoder.tokens_of(texts)
    tokens = [by_text[text] for text in texts]
    shares = np.zeros((len(texts), decoder.layers, len(gates[0])), dtype=np.float64)
    done, whole = 0, len(texts) * decoder.layers
    for group in grouped(tokens):
        for states in decoder.walk([tokens[place] for place in group], routed=True):
            assert states.routed is not None  # it was asked for
            for place, vectors in zip(group, states.routed, strict=True):
                seen = vectors.double().cpu().numpy()
                shares[place, states.layer] = shares_of(seen, gates[states.layer], chosen)
            done += len(group)
            if tell:
                tell(done, whole)
    return shares


def shares_of(
    vectors: "NDArray[np.float64]", rows: "NDArray[np.float32]", chosen: int
) -> "NDArray[np.float64]":
    """Return the share of each moe_expert, (experts,), over vectors [tokens, hidden].

    Of equal products the first moe_experts count, as in a stable order.
    """
    import numpy as np

    products = vectors @ rows.T.astype(np.float64)
    order = np.argsort(-products, axis=1, kind="stable")[:, :chosen]
    best = np.take_along_axis(products, order, axis=1)
    weights = np.exp(best - best[:, :1])
    weights /= weights.sum(axis=1, keepdims=True)
    shares = np.zeros_like(products)
    np.put_along_axis(shares, order, weights, axis=1)
    return shares.mean(axis=0)


def _check_routing(decoder: Decoder, gates: "Sequence[NDArray[np.float32]]", chosen: int) -> None:
    faults: list[str] = []
    if len(gates) != decoder.layers:
        faults.append(f"there are gates of {len(gates)} layers; the base has {decoder.layers}")
    elif any(each.shape != (len(gates[0]), decoder.hidden) for each in gates):
        told = [list(each.shape) for each in gates[:3]]
        faults.append(
            f"gates have the shapes {told}, …; the base's hidden size is {decoder.hidden}"
        )
    if gates and not 1 <= chosen <= len(gates[0]):
        problem = f"it must be 1 to {len(gates[0])}, the moe_experts"
        faults.append(f"experts_per_token is {chosen}; {problem}")
    if faults:
        raise PromptsError(str(decoder.folder), faults)


def packed(matrix: "NDArray[Any]") -> dict[str, Any]:
    """Return a matrix as plain data, its numbers in float32."""
    raw = matrix.astype("<f4").tobytes()
    return {"shape": list(matrix.shape), "values": b64encode(raw).decode("ascii")}


def unpacked(data: Mapping[str, Any]) -> "NDArray[np.float32]":
    """Return the matrix of what `packed` made."""
    import numpy as np

    flat = np.frombuffer(b64decode(data["values"]), dtype="<f4").astype(np.float32)
    return flat.reshape(data["shape"])
