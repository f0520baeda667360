"""What the child that runs models is asked of a tokenizer in a folder: tokens, and chats as text.

The child is started by assets/work; nothing of it is imported here. A tokenizer, and its chat
template, are programs of strangers: what they take is limited as in scoring (foreign_work.py). The
last tokenizer stays loaded for the next text.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from eval_ops.errors import CheckpointLoadError
from eval_ops.running.foreign_work import limit_tokenizers, limited
from eval_ops.running.live_model import load_tokenizer

_held: dict[str, Any] = {}


def answer(request: Mapping[str, Any], tell: Callable[[Any], None]) -> dict[str, Any]:
    """Do one piece of work with the tokenizer in `folder`, which `name` names from then on.

    `what` is `describe` (special tokens and the template), `encode` (`texts` → `tokens`) or `chat`
    (`messages` → `text`). Raises CheckpointLoadError.
    """
    limit_tokenizers(int(request["tokenizer_seconds"]))
    tokenizer = _tokenizer(str(request["name"]), Path(request["folder"]))
    if request["what"] == "describe":
        names = ("bos_token_id", "eos_token_id", "eos_token", "chat_template")
        return {name: getattr(tokenizer, name, None) for name in names}
    if request["what"] == "encode":
        texts = [str(text) for text in request["texts"]]
        with limited(sum(map(len, texts))):
            tokens = tokenizer(
                texts,
                add_special_tokens=request["add_special_tokens"],
                truncation=request["truncation"],
                return_attention_mask=False,
            )["input_ids"]
        return {"tokens": tokens}
    messages = request["messages"]
    with limited(sum(len(message["content"]) for message in messages)):
        text = tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=request["add_generation_prompt"],
            continue_final_message=request["continue_final_message"],
        )
    return {"text": text}


def _tokenizer(name: str, folder: Path) -> Any:
    """The tokenizer of that name, loaded from its folder where it is not held yet."""
    if name not in _held:
        _held.clear()
        try:
            _held[name] = load_tokenizer(folder)
        except Exception as error:  # transformers raises nearly every kind
            raise CheckpointLoadError(
                f"{folder}: its tokenizer cannot be loaded: {type(error).__name__}: {error}"
            ) from error
    return _held[name]
