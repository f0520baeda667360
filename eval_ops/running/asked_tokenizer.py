"""A tokenizer whose work another process does: texts go there, tokens come back.

A tokenizer is a program of its author, so it is loaded where a model would be, in the limited child
(tokenizer_child.py), also when the model itself is served elsewhere. This class has what lm-eval's
client of a server uses of a Hugging Face tokenizer, and nothing more.
"""

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

Ask = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Hands a request to `tokenizer_child.answer` in the child, and returns the answer."""
MOST_KEPT = 20_000
"""Texts whose tokens are kept: a question is asked once for each of its choices."""


class AskedTokenizer:
    """Stands for a tokenizer; `ask` has the child that holds it do one piece of work.

    Raises what `ask` raises, at its making too: then the tokenizer is loaded and described.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._kept: dict[tuple[str, bool, bool], list[int]] = {}
        told = ask({"what": "describe"})
        self.bos_token_id: int | None = told["bos_token_id"]
        self.eos_token_id: int | None = told["eos_token_id"]
        self.eos_token: str | None = told["eos_token"]
        self.chat_template: Any = told["chat_template"]

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        add_special_tokens: bool = True,
        truncation: bool = False,
        return_attention_mask: bool = False,
    ) -> Any:
        """Return `input_ids`: the tokens of a text, or a list of them for several texts."""
        texts = [text] if isinstance(text, str) else list(text)
        keys = [(each, add_special_tokens, truncation) for each in texts]
        missing = list(dict.fromkeys(key for key in keys if key not in self._kept))
        found: dict[tuple[str, bool, bool], list[int]] = {}
        if missing:
            settings = {"add_special_tokens": add_special_tokens, "truncation": truncation}
            asked = {"what": "encode", "texts": [key[0] for key in missing], **settings}
            found = dict(zip(missing, self._ask(asked)["tokens"], strict=True))
        tokens = [list(found[key] if key in found else self._kept[key]) for key in keys]
        if len(self._kept) + len(found) <= MOST_KEPT:
            self._kept |= found
        return SimpleNamespace(input_ids=tokens[0] if isinstance(text, str) else tokens)

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        tokenize: bool = False,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> str:
        """Return a conversation as one prompt, by the tokenizer's own template."""
        asked = {
            "what": "chat",
            "messages": [dict(message) for message in messages],
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
        }
        return str(self._ask(asked)["text"])
