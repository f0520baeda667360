"""Tokens of prompts, for gates that need no model: what a limited child is asked.

A tokenizer is a stranger's program, so the child works with it. Where tokenizer.json alone decides
(lone_tokenizer.py), transformers, which takes most of a second, is not imported.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval_ops.errors import PromptsError
from eval_ops.running.foreign_work import limit_tokenizers, limited
from eval_ops.running.live_model import load_tokenizer, tokenizer_bytes
from eval_ops.running.lone_tokenizer import LoneTokenizer, lone_tokenizer

Texts = Sequence[str]
TokenLists = tuple[list[list[int]], list[list[int]]]
"""The tokens of the positive and of the negative prompts of one moe_expert, prompt by prompt."""


def answer(request: Mapping[str, Any], tell: Callable[[Any], None]) -> dict[str, Any]:
    """Return the tokens of `prompts` by the tokenizer of the base in `folder`.

    It is what a limited child is asked. Raises what `tokens_of` raises.
    """
    limit_tokenizers(int(request["tokenizer_seconds"]))
    prompts = [(each["positive"], each["negative"]) for each in request["prompts"]]
    return {"tokens": tokens_of(Path(request["folder"]), prompts)}


def tokens_of(folder: Path, prompts: Sequence[tuple[Texts, Texts]]) -> list[TokenLists]:
    """Return the tokens of each prompt, for each moe_expert the positive and the negative ones.

    A prompt begins with the tokenizer's `bos_token`, where it has one, and has no other special
    token. Raises PromptsError for texts without tokens.
    """
    with limited(tokenizer_bytes(folder)):
        lone = lone_tokenizer(folder)
    tokenizer: Any = lone or load_tokenizer(folder)
    begin = tokenizer.bos_token or ""
    return [
        (
            _tokens(tokenizer, begin, positive, folder),
            _tokens(tokenizer, begin, negative, folder) if negative else [],
        )
        for positive, negative in prompts
    ]


def _tokens(tokenizer: Any, begin: str, texts: Texts, folder: Path) -> list[list[int]]:
    asked = [begin + text for text in texts]
    with limited(sum(map(len, texts))):
        if isinstance(tokenizer, LoneTokenizer):
            found = tokenizer.tokens(asked)
        else:
            found = tokenizer(asked, add_special_tokens=False)["input_ids"]
    empty = [text[:60] for text, tokens in zip(texts, found, strict=True) if not tokens]
    if empty:
        raise PromptsError(str(folder), [f"prompt {each!r} has no tokens" for each in empty])
    return [list(map(int, tokens)) for tokens in found]
