"""A tokenizer of which tokenizer.json alone decides, read by the tokenizers library alone.

transformers makes a tokenizer out of several files: for many classes it builds the parts anew from
the vocabulary, adds tokens that other files name, and mends known mistakes. Where it would take
tokenizer.json as it stands, its answer is that of the library, which is here in a tenth of the
time. `lone_tokenizer` is narrow on purpose: it returns None for everything that it does not know,
and transformers is asked.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""What transformers calls a tokenizer that is its file, and nothing else."""
MODEL_TYPES = ("llama", "qwen3")
"""Kinds of models of which transformers takes these classes at their word. It builds a qwen2's
anew whatever the file says, and mends expressions of a mistral's."""
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTED = ("extra_special_tokens", "additional_special_tokens")
_SILENT = (  # of tokenizer_config.json: they change no token of a text without special tokens
    "tokenizer_class", "backend", "chat_template", "model_max_length", "model_input_names",
    "clean_up_tokenization_spaces", "padding_side", "is_local", "local_files_only",
    "add_bos_token", "add_eos_token", "name_or_path",
)  # fmt: skip
_OLD_FILES = ("special_tokens_map.json", "added_tokens.json")
"""Read where tokenizer_config.json has no `added_tokens_decoder`."""
_FIELDS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")


class LoneTokenizer(NamedTuple):
    """A tokenizer of the tokenizers library, and the text that begins a prompt."""

    tokenizer: Any
    bos_token: str | None

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text, without special tokens around it."""
        encoded = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [list(each.ids) for each in encoded]


def lone_tokenizer(folder: Path) -> LoneTokenizer | None:
    """Return the tokenizer in a folder; None where more than its file decides, or may decide."""
    try:
        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
        document, config, model = (
            _mapping(each)
            for each in (
                text,
                (folder / "tokenizer_config.json").read_text(encoding="utf-8"),
                (folder / "config.json").read_text(encoding="utf-8"),
            )
        )
    except (OSError, ValueError, RecursionError):
        return None
    old = any((folder / name).exists() for name in _OLD_FILES)
    if not _decides(document, config, model, old):
        return None
    from tokenizers import Tokenizer

    found = config.get("bos_token")
    begin = found["content"] if isinstance(found, dict) else found
    try:
        return LoneTokenizer(Tokenizer.from_str(text), begin)
    except Exception:  # the library raises no kind of its own; transformers says what is wrong
        return None


def _mapping(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("no mapping")
    return cast("dict[str, Any]", found)


def _decides(
    document: Mapping[str, Any], config: Mapping[str, Any], model: Mapping[str, Any], old: bool
) -> bool:
    """Whether transformers would take tokenizer.json as it stands, for texts without padding."""
    added = _added(document.get("added_tokens"))
    known = {*_SILENT, *NAMED, *_LISTED, "added_tokens_decoder"}
    if added is None or not known.issuperset(config):
        return False
    if config.get("tokenizer_class") not in CLASSES or model.get("model_type") not in MODEL_TYPES:
        return False
    if "auto_map" in model or "tokenizer_class" in model or "_name_or_path" in model:
        return False
    if document.get("truncation") is not None or document.get("padding") is not None:
        return False
    if "added_tokens_decoder" not in config:
        if old:
            return False
    elif config["added_tokens_decoder"] != added:
        return False
    names = {each["content"] for each in added.values()}
    named = [_text(config[name]) for name in NAMED if config.get(name) is not None]
    for key in _LISTED:
        listed = config.get(key) or []
        if not isinstance(listed, list):
            return False
        named += [each if isinstance(each, str) else None for each in cast("list[Any]", listed)]
    return all(name is not None and name in names for name in named)


def _added(tokens: Any) -> dict[str, dict[str, Any]] | None:
    """The added tokens of tokenizer.json by their ids, as tokenizer_config.json lists them."""
    if not isinstance(tokens, list):
        return None
    found: dict[str, dict[str, Any]] = {}
    for token in cast("list[Any]", tokens):
        if not isinstance(token, dict) or set(token) != {"id", *_FIELDS}:
            return None
        found[str(token["id"])] = {name: token[name] for name in _FIELDS}
    return found


def _text(token: Any) -> str | None:
    """A special token as a configuration names it; None for what is no plain one."""
    if isinstance(token, dict):
        saved = cast("dict[str, Any]", token)
        token = saved.get("content") if saved.get("__type") == "AddedToken" else None
    return token if isinstance(token, str) else None
