"""Tokens for filling in the middle of a text, by the spellings that families have for them."""

from __future__ import annotations

import re
from collections.abc import Iterable

_FIM = re.compile(
    r"fim[_▁-]?(prefix|middle|suffix|pad|begin|hole|end)|^▁?<(PRE|MID|SUF|EOT)>$"
    r"|code_(prefix|middle|suffix)|\[(PREFIX|MIDDLE|SUFFIX)\]",
    re.IGNORECASE,
)


def fim_tokens(tokens: Iterable[str]) -> list[str]:
    """Return those of the tokens that mark a prefix, a middle or a suffix to be filled in."""
    return [token for token in tokens if _FIM.search(token)]
