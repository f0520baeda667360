"""A Qwen2 tokenizer with one token per Chinese character that the models use.

transformers puts its own byte-level BPE in place of whatever a folder of model type qwen2 holds,
so the vocabulary has to be one: the 256 bytes, and for each character a chain of merges from its
first byte to the whole. Other text falls back to bytes; nothing is ever unknown.
"""

from collections.abc import Iterable

from tokenizers import pre_tokenizers
from transformers import Qwen2Tokenizer

END = "<|endoftext|>"


def build_tokenizer(texts: Iterable[str], max_length: int) -> Qwen2Tokenizer:
    """Return a tokenizer whose tokens are END, the bytes, and the characters of `texts`.

    The ids depend only on the set of characters. `max_length` is in tokens.
    """
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokens = [END, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    known = set(tokens)
    merges: list[tuple[str, str]] = []
    for character in sorted(set("".join(texts))):
        ((spelling, _),) = bytes_of.pre_tokenize_str(character)
        for length in range(2, len(spelling) + 1):
            if spelling[:length] not in known:
                known.add(spelling[:length])
                tokens.append(spelling[:length])
                merges.append((spelling[: length - 1], spelling[length - 1]))
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return Qwen2Tokenizer(vocab=vocabulary, merges=merges, model_max_length=max_length)
