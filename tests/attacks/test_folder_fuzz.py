"""Generated folders are refused clearly or load whole; `benchmarks/fuzz.py --folders` has more."""

from pathlib import Path

from tests.attacks import folder_fuzz
from tests.attacks.fuzzing import Tally, guarded, run_case

CASES = 90


def test_generated_folders_are_refused_clearly_or_load_whole(tmp_path: Path) -> None:
    folder_fuzz.prepare()
    tally = Tally()
    try:
        with guarded():
            for number in range(CASES):
                tally.add(*run_case(20261128, number, tmp_path, only=folder_fuzz.TARGET))
    finally:
        folder_fuzz.child().close()
        folder_fuzz.child.cache_clear()
    assert tally.finds == []
    (outcomes,) = tally.outcomes.values()
    assert outcomes["success"] > CASES / 6
    assert outcomes["CompatibilityError"] > CASES / 6
    assert outcomes["CheckpointError"] > 0
