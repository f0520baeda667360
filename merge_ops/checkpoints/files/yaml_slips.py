"""What usually went wrong where a text is no YAML, or is YAML of something else than was meant."""

from __future__ import annotations

import re

FULL_WIDTH = {
    "：": "a full-width colon `：`; YAML wants `: `, a plain colon and a space",
    "，": "a full-width comma `，`; YAML wants `, `",
    "“": "a typographic quote `“`; YAML wants a plain one, or none",
    "”": "a typographic quote `”`; YAML wants a plain one, or none",
    "‘": "a typographic quote `‘`; YAML wants a plain one, or none",
    "’": "a typographic quote `’`; YAML wants a plain one, or none",
    "　": "a full-width space (U+3000); YAML wants plain ones",
    "\u00a0": "a no-break space (U+00A0); YAML wants plain ones",
    "\u200b": "an invisible space (U+200B); remove it",
    "\ufeff": "a byte order mark (U+FEFF) in the middle of the text; remove it",
}
_WIDE_DASH = re.compile(r"^\s*－")
_WIDE_BRACKET = re.compile(r":\s*[［｛]|^\s*- *[［｛]")
_FENCE = re.compile(r"^\s*(```|~~~)")
_TAB = re.compile(r"^ *\t")
_NO_SPACE = re.compile(r"^\s*(?:- )?[A-Za-z_]+:[^\s:/\\]")
_EQUALS = re.compile(r"^\s*[A-Za-z_]+\s*=\s*\S")


def odd_character(text: str) -> str | None:
    """Return what is wrong with the first full-width or invisible character of a key, or None."""
    return next((FULL_WIDTH[each] for each in text if each in FULL_WIDTH), None)


def slip_in(text: str, error: str = "") -> str:
    """Return a sentence on the slip that is seen in a text, or an empty string.

    `error` is what the YAML reader said of it.
    """
    lines = list(enumerate(text.splitlines(), start=1))
    fences = [number for number, line in lines if _FENCE.match(line)]
    if fences:
        problem = "holds the fences of a Markdown code block"
        return _told(f"it {problem} (```, on line {fences[0]}); keep what stands between them")
    if "escape character" in error:
        return _told("a backslash in double quotes begins an escape; use '…', or / for folders")
    for number, line in lines:
        written = line.split(" #")[0]
        if _TAB.match(written):
            return _told(f"line {number} is indented with a tab; YAML indents with spaces")
        odd = odd_character(written) if not written.lstrip().startswith("#") else None
        if odd is not None:
            return _told(f"line {number} holds {odd}")
        if _WIDE_DASH.match(written):
            return _told(f"line {number} begins with a full-width dash `－`; YAML wants `- `")
        if _WIDE_BRACKET.search(written):
            return _told(f"line {number} holds full-width brackets; YAML wants `[ ]` and `{{ }}`")
        if _NO_SPACE.match(written):
            return _told(f"line {number} has no space after its colon; YAML wants `key: value`")
        if _EQUALS.match(written):
            return _told(f"line {number} has `=`; YAML wants `key: value`")
    return ""


def _told(what: str) -> str:
    return f" (probably because {what})"
