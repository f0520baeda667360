"""Gates of routers from the base's embeddings alone: mergekit-moe's `cheap_embed`, to the bit.

A row is the sum of the embeddings of all tokens of an expert's prompts, divided by its length, less
that of the negative prompts, divided by its length again; it is the same in every layer. mergekit
(LGPL; reimplemented from its formula) multiplies one-hot vectors by the whole embedding; here the
rows of the tokens that occur are read, and no others. Sums run over padded prompts in its order.

The tokenizer is a stranger's program, so the limited child asks it for the tokens (`answer`), and
needs no torch for that; rows are read and added by whoever has the tokens (`embed_gates`).
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval_ops.errors import PromptsError
from eval_ops.running.foreign_work import limit_tokenizers, limited
from eval_ops.running.gates import SHORTEST, Prompts
from eval_ops.running.live_model import load_tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

CHEAP_EMBED = "cheap_embed"
TokenLists = tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]
"""The tokens of the positive and of the negative prompts of one moe_expert, prompt by prompt."""
EMBEDDING = "model.embed_tokens.weight"
_INDEX = "model.safetensors.index.json"


def answer(request: Mapping[str, Any], tell: Callable[[Any], None]) -> dict[str, Any]:
    """Return the tokens of `prompts` by the tokenizer of the base in `folder`.

    It is what a limited child is asked. Raises what `tokens_of` raises.
    """
    limit_tokenizers(int(request["tokenizer_seconds"]))
    prompts = [(each["positive"], each["negative"]) for each in request["prompts"]]
    return {"tokens": tokens_of(Path(request["folder"]), prompts)}


def tokens_of(folder: Path, prompts: Sequence[Prompts]) -> list[TokenLists]:
    """Return the tokens of each prompt, for each moe_expert the positive and the negative ones.

    Raises PromptsError for texts without tokens.
    """
    tokenizer: Any = load_tokenizer(folder)
    begin = tokenizer.bos_token or ""
    return [
        (
            _tokens(tokenizer, begin, positive, folder),
            _tokens(tokenizer, begin, negative, folder) if negative else [],
        )
        for positive, negative in prompts
    ]


def embed_gates(folder: Path, tokens: Sequence[TokenLists]) -> "list[NDArray[np.float32]]":
    """Return one matrix of rows for each layer of the base in `folder`, (moe_experts, hidden).

    `tokens` are those of `tokens_of`. Raises PromptsError for a folder without such an embedding.
    """
    import torch

    layers = int(
        json.loads((folder / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    )
    rows: list[Tensor] = []
    with torch.inference_mode(), _Rows(folder) as embedding:
        for positive, negative in tokens:
            gate = _embedded(positive, embedding, layers)
            if negative:
                gate = gate - _embedded(negative, embedding, layers)
            rows.append(gate / gate.norm(p=2, dim=-1, keepdim=True).clamp(min=SHORTEST))
        stacked = torch.stack(rows, dim=0).permute(1, 0, 2)
        return [each.contiguous().numpy().copy() for each in stacked]


def _tokens(tokenizer: Any, begin: str, texts: Sequence[str], folder: Path) -> list[list[int]]:
    with limited(sum(map(len, texts))):
        found = tokenizer([begin + text for text in texts], add_special_tokens=False)["input_ids"]
    empty = [text[:60] for text, tokens in zip(texts, found, strict=True) if not tokens]
    if empty:
        raise PromptsError(str(folder), [f"prompt {each!r} has no tokens" for each in empty])
    return [list(map(int, tokens)) for tokens in found]


def _embedded(prompts: Sequence[Sequence[int]], embedding: "_Rows", layers: int) -> "Tensor":
    """The row of some prompts, [layers, hidden], each layer's the same."""
    import torch

    longest = max(map(len, prompts))
    values = torch.zeros(len(prompts), longest, embedding.width, dtype=torch.float32)
    for number, tokens in enumerate(prompts):  # pads stand to the left, as zeros
        values[number, longest - len(tokens) :] = embedding.of(tokens)
    summed = values.sum(dim=1).sum(dim=0, keepdim=True)
    row = summed / summed.norm(dim=-1, keepdim=True).clamp(min=SHORTEST)
    return row.repeat(layers, 1)


class _Rows:
    """The embedding in a folder, of which single rows are read."""

    def __init__(self, folder: Path) -> None:
        from safetensors import safe_open

        index = folder / _INDEX
        file = "model.safetensors"
        if index.is_file():
            file = json.loads(index.read_text(encoding="utf-8"))["weight_map"].get(EMBEDDING, "")
        path = folder / file
        if not file or not path.is_file():
            problem = f"{file or _INDEX} has no {EMBEDDING}; save the base by transformers"
            raise PromptsError(str(folder), [problem])
        self._file: Any = safe_open(path, framework="pt", device="cpu")
        self._folder = folder

    def __enter__(self) -> "_Rows":
        """Open the file and return the embedding."""
        opened = self._file.__enter__()
        if EMBEDDING not in opened.keys():  # noqa: SIM118 (it is no mapping)
            problem = f"has no {EMBEDDING}; save the base by transformers"
            raise PromptsError(str(self._folder), [problem])
        self._whole = opened.get_slice(EMBEDDING)
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self._file.__exit__(*error)

    @property
    def width(self) -> int:
        """Return the hidden size."""
        return int(self._whole.get_shape()[1])

    def of(self, tokens: Sequence[int]) -> "Tensor":
        """Return the rows of tokens, [tokens, hidden] in float32. Raises PromptsError."""
        import torch

        rows = int(self._whole.get_shape()[0])
        if not 0 <= min(tokens) <= max(tokens) < rows:
            problem = f"token {max(tokens)} of a prompt has no row among the {rows} of {EMBEDDING}"
            raise PromptsError(str(self._folder), [problem])
        read = {token: self._whole[token : token + 1] for token in set(tokens)}
        # A product with a one-hot vector has no −0.
        return torch.cat([read[token] for token in tokens]).float() + 0.0
