"""Ronghe's own reasons and errors in Chinese, where they are known; what others wrote stays.

The pairs are data, in reasons.yaml; static/own.js does the same in a reader's browser.
"""

import re
from functools import cache
from pathlib import Path

import yaml

LONGEST = 3000
"""Characters of a text that is looked at."""
DEEPEST = 4
"""Texts within texts that are looked at."""
BETWEEN = (("\n", "\n", -1), ("; ", "；", -1), (": ", "：", 1))
"""What stands between texts that are looked up each for itself, and how often it counts."""
_HOLE = re.compile(r"\{(\w)\}")


@cache
def reasons() -> tuple[tuple[str, str], ...]:
    """Return pairs of English and Chinese, the first that fits is the right one."""
    written = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return tuple((english, chinese) for english, chinese in written)


def in_chinese(text: str, depth: int = 0) -> str:
    """Return what Ronghe said in Chinese, as far as it is known; anything else as it is."""
    if not text or len(text) > LONGEST or depth > DEEPEST:
        return text
    for pattern, names, chinese in _patterns():
        found = pattern.fullmatch(text)
        if found is not None:
            parts = [in_chinese(part, depth + 1) for part in found.groups()]
            return chinese.format_map(dict(zip(names, parts, strict=True)))
    for between, written, most in BETWEEN:
        parts = text.split(between, most)
        known = [in_chinese(part, depth + 1) for part in parts]
        if known != parts:
            return written.join(known)
    return text


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], tuple[str, ...], str], ...]:
    found: list[tuple[re.Pattern[str], tuple[str, ...], str]] = []
    for english, chinese in reasons():
        fixed = map(re.escape, re.split(r"\{\w\}", english))
        names = tuple(_HOLE.findall(english))
        found.append((re.compile("([\\s\\S]*?)".join(fixed)), names, chinese))
    return tuple(found)
