"""The site's own words, in English and Chinese: data, in texts.yaml beside this module."""

from pathlib import Path

import yaml

LANGUAGES = ("en", "zh")


def _read() -> dict[str, dict[str, str]]:
    """Texts by language and key. Each key has one in every language."""
    path = Path(__file__).with_suffix(".yaml")
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {
        language: {key: texts[place] for key, texts in written.items()}
        for place, language in enumerate(LANGUAGES)
    }


TEXTS = _read()
