"""A dozen flipped bits: each is noticed before anything is made of it, or touched nothing read."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.bit_flips import folder_cases, store_cases
from benchmarks.rigs.flips import run_cases
from resources.store.artifact_store import ArtifactStore
from tests.models.checkpoint_factory import LLAMA, write_family

TINY = replace(LLAMA, layers=1, hidden=128, vocabulary=1200)  # embeddings of more than one piece


def test_flipped_bits_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    family = write_family(tmp_path / "models", TINY)
    rows, misses = run_cases(folder_cases(tmp_path, family), 6, seed=3)
    assert misses == []
    assert sum(int(number) for row in rows for number in row[1:]) == 6


def test_flipped_bits_of_a_store(tmp_path: Path) -> None:
    """In a bucket the same cases are the benchmark's: there each wrong piece is asked for again."""
    store = ArtifactStore.open((tmp_path / "store").as_uri(), cache=tmp_path / "cache")
    family = write_family(tmp_path / "models", TINY)
    rows, misses = run_cases(store_cases(store, family, "here", tmp_path), 10, seed=5)
    assert misses == []
    assert sum(int(row[1]) for row in rows) > 0, "some were refused"
