"""What a limited child is asked of a tokenizer: the parts of texts, by the tokenizers library.

A request is `{"tokenizer": <the text of tokenizer.json>, "spelled": […], "texts": […]}`: texts,
and how its tokens would spell each. The answer has for each the ids of the parts that the model of
the tokenizer cuts it into (`pieces`), and whether all of it comes to the model at once (`whole`);
or `missing`, where the library is not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def answer(request: Mapping[str, Any], tell: Callable[[Any], None]) -> dict[str, Any]:
    """Answer one request."""
    try:
        library: Any = import_module("tokenizers")
    except ImportError as error:
        return {"missing": error.name or "tokenizers"}
    tokenizer: Any = library.Tokenizer.from_str(request["tokenizer"])
    pieces = [
        [token.id for token in tokenizer.model.tokenize(spelled)] for spelled in request["spelled"]
    ]
    pairs = zip(request["spelled"], request["texts"], strict=True)
    return {"pieces": pieces, "whole": [_is_whole(tokenizer, *pair) for pair in pairs]}


def _is_whole(tokenizer: Any, spelled: str, text: str) -> bool:
    """Whether a text, as its tokens spell it, is handed to the model within one part."""
    if tokenizer.normalizer is not None:
        text = tokenizer.normalizer.normalize_str(text)
    if tokenizer.pre_tokenizer is None:
        return spelled in text
    return any(spelled in part for part, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text))
