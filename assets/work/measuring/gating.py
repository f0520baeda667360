"""Gates of routers, measured in the child that runs models, and kept. Knows no Dagster.

    <cache>/<key>.safetensors   gates by what they were measured from (merge_ops.calibration)

What is kept is checked when it is read; what is damaged is measured again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assets.work.measuring.asking_child import TOKENIZER_SECONDS, ask_child
from assets.work.measuring.kept_numbers import file_of, remove_oldest, unless_damaged
from assets.work.measuring.model_child import Base, Running, ask_model
from merge_ops.calibration import embed_gates
from merge_ops.calibration.gates import gate_key, read_gates, write_gates

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from merge_ops.checkpoints import Checkpoint
    from merge_ops.progress import Progress

WAY_OUT = (
    "Where it is out of memory: measure on a machine with more, or write shorter prompts; gates of"
    " mode cheap_embed need no model that runs"
)
_MODULE = "eval_ops.running.mixtures.gates_child"
_TOKENS = "eval_ops.running.prompt_tokens"


@dataclass(frozen=True)
class Measured:
    """Gates by layer, (moe_experts, hidden); `memoized` when they had been measured before."""

    gates: "Mapping[int, NDArray[np.float32]]"
    mode: str
    key: str
    memoized: bool

    @property
    def metadata(self) -> dict[str, str]:
        """Return what a file of these gates says of itself."""
        return {"mode": self.mode, "key": self.key}


def gates_of(
    base: Base,
    prompts: Sequence[tuple[Sequence[str], Sequence[str]]],
    mode: str,
    running: Running,
    progress: "Progress | None" = None,
    cache: Path | None = None,
) -> Measured:
    """Return the gates of a base for the prompts of each moe_expert, measured at most once.

    `prompts` has (positive, negative) of each moe_expert in the order of the rows. Gates
    are kept in `cache`, or in ~/.cache/ronghe/gates. Raises EvalError.
    """
    from eval_ops.running.mixtures.gates import check_prompts

    mode = _named_once(mode)
    check_prompts(prompts, mode)
    key = key_of_gates(base, prompts, mode)
    kept = file_of("gates", key, cache)
    known = unless_damaged(lambda: read_gates(kept, experts=len(prompts), key=key))
    if known is not None:
        return Measured(known, mode, key, True)
    asked = {
        "what": "measure",
        "mode": mode,
        "prompts": _as_json(prompts),
    }
    doing = f"measures gates on {base.called}"
    answer = ask_model(_MODULE, base, asked, running, doing, WAY_OUT, progress)
    from eval_ops.running.mixtures.gates import unpacked

    measured = Measured(dict(enumerate(map(unpacked, answer["gates"]))), mode, key, False)
    write_gates(kept, measured.gates, measured.metadata)
    remove_oldest(kept.parent)
    return measured


def key_of_gates(
    base: Base, prompts: Sequence[tuple[Sequence[str], Sequence[str]]], mode: str
) -> str:
    """Return the digest of what gates of a base are measured from, under any name of the mode."""
    from eval_ops.running.mixtures.gates import tokenizer_digest

    return gate_key(base.digest, tokenizer_digest(base.folder), prompts, _named_once(mode))


def _named_once(mode: str) -> str:
    return "hidden" if mode == "hidden_last" else mode  # two names of one


def embedded_gates(
    base: Base, model: "Checkpoint", prompts: Sequence[tuple[Sequence[str], Sequence[str]]]
) -> "Mapping[int, NDArray[np.float32]]":
    """Return the gates that the base's embeddings give, as mode cheap_embed.

    `model` is the base's headers. A child finds the tokens, and their rows are read here, neither
    with torch. No model is run and nothing is kept. Raises EvalError, and StatisticsError for a
    model without such embeddings.
    """
    asked = {
        "prompts": _as_json(prompts),
        "tokenizer_seconds": TOKENIZER_SECONDS,
    }
    doing = f"finds the tokens of prompts by the tokenizer of {base.called}"
    tokens = ask_child(_TOKENS, base.folder, asked, doing, shown=base.called, only_tokens=True)[
        "tokens"
    ]
    return embed_gates(model, tokens)


def routes_of(
    base: Base,
    texts: Sequence[str],
    gates: "Mapping[int, NDArray[np.float32]]",
    experts_per_token: int,
    running: Running,
    progress: "Progress | None" = None,
) -> "NDArray[np.float64]":
    """Return the share of each moe_expert in each layer of each text, [texts, layers, experts].

    See eval_ops.running.mixtures.gates.route_prompts. Raises EvalError.
    """
    import numpy as np

    from eval_ops.running.mixtures.gates import packed, unpacked

    asked = {
        "what": "route",
        "texts": list(texts),
        "gates": [packed(gates[layer]) for layer in sorted(gates)],
        "experts_per_token": experts_per_token,
    }
    doing = f"routes prompts through {base.called}"
    answer = ask_model(_MODULE, base, asked, running, doing, WAY_OUT, progress)
    return np.stack([unpacked(each) for each in answer["shares"]]).astype(np.float64)


def _as_json(prompts: Sequence[tuple[Sequence[str], Sequence[str]]]) -> list[dict[str, list[str]]]:
    return [
        {"positive": list(positive), "negative": list(negative)} for positive, negative in prompts
    ]
