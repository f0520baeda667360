"""Import rules that no contract of import-linter can say."""

import re
from pathlib import Path

from tests.merges.merging import ROOT

PRIVATE = re.compile(r"\bdagster(_shared)?\.(_\w+|serdes)\b")


def modules(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def test_private_names_of_dagster_are_in_one_module() -> None:
    packages = ("merge_ops", "eval_ops", "resources", "assets", "orchestration", "examples")
    users = [path for path in modules(*packages) if PRIVATE.search(path.read_text("utf-8"))]
    assert users == [ROOT / "assets" / "frame" / "dagster_internals.py"]


def test_the_environment_is_read_by_settings_alone() -> None:
    read = re.compile(r"os\.(environ(?!\.setdefault)|getenv)")
    users = [p for p in modules("assets", "orchestration") if read.search(p.read_text("utf-8"))]
    assert users == [ROOT / "orchestration" / "settings.py"]
