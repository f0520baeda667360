"""Real benchmark data for tests: a folder that is not part of the project, found or skipped.

`RONGHE_TEST_DATA` names it, or it lies at `../shared/data` beside the folder that holds this
checkout. Tests only read it.
"""

import os
from pathlib import Path

import pytest

VARIABLE = "RONGHE_TEST_DATA"
_CHECKOUT = Path(__file__).resolve().parents[1]


def real_data(*parts: str) -> Path:
    """Return a file or folder of the real data; skip the test, with the reason, where it is not."""
    given = os.environ.get(VARIABLE)
    places = [Path(given)] if given else [_up(levels) for levels in (1, 2)]
    for place in places:
        path = place.joinpath(*parts)
        if path.exists():
            return path
    looked = " and ".join(str(place) for place in places)
    pytest.skip(f"needs {'/'.join(parts)} of the real data, looked for in {looked} ({VARIABLE})")


def _up(levels: int) -> Path:
    """The shared folder beside the checkout, or beside the folder that holds several checkouts."""
    return _CHECKOUT.parents[levels - 1] / "shared" / "data"
