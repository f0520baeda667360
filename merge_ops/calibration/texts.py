"""Calibration texts in a file: one a line, or JSON lines that have a `text`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import blake3

from merge_ops.errors import Fault, MissingModelError, SettingsError

MOST_BYTES = 256 << 20
"""Of a file; a thousand sequences of 2048 tokens take some 10 million."""
MOST_FAULTS = 20


@dataclass(frozen=True)
class CalibrationTexts:
    """Calibration texts are those of a file; `lines` holds them once it was read."""

    file: str
    lines: tuple[str, ...] = field(default=(), repr=False)

    @property
    def digest(self) -> str:
        """Return the digest of the lines in their order, whatever the file is called."""
        return blake3.blake3(json.dumps(self.lines).encode()).hexdigest()

    def found(self, read: TextReader) -> CalibrationTexts:
        """Return the same texts with their lines. Raises as `read` does."""
        return dataclasses.replace(self, lines=read(self.file))


TextReader = Callable[[str], tuple[str, ...]]
"""Reads the texts of a file that a recipe names."""


def read_texts(path: Path) -> tuple[str, ...]:
    """Read the texts of a file in their order, lines of blanks left out.

    Raises MissingModelError where there is no file, SettingsError with every fault of its lines.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            problem = f"has more than {MOST_BYTES} bytes; take some of its texts"
            raise SettingsError(str(path), [Fault("", problem)])
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        problem = f"is no text in UTF-8 (byte {error.start}); save it as UTF-8"
        raise SettingsError(str(path), [Fault("", problem)]) from error
    except OSError as error:
        told = error.strerror or str(error)
        raise MissingModelError(f"{path}: calibration texts cannot be read ({told})") from error
    filled = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if path.suffix != ".jsonl":
        texts = [line for _, line in filled]
        faults: list[Fault] = []
    else:
        read = [(number, _text(line)) for number, line in filled]
        texts = [text for _, text in read if text is not None]
        problem = 'has no `text` that is one; a line is such as {"text": "…"}'
        faults = [Fault(f"line {number}", problem) for number, text in read if text is None]
    if not faults and not texts:
        faults = [Fault("", "holds no text; write one a line")]
    if faults:
        raise SettingsError(str(path), faults[:MOST_FAULTS])
    return tuple(texts)


def _text(line: str) -> str | None:
    try:
        read: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    value = cast("dict[str, Any]", read).get("text") if isinstance(read, dict) else None
    return value if isinstance(value, str) and value.strip() else None
