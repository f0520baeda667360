"""What a merge_plan shows in Dagster has a bound, whatever the number of experts."""

import pytest

from assets import merge_plans
from assets.merge_plans import MOST_PAIRS


def interference_of(experts: int) -> dict[str, list]:
    names = [f"e{number}" for number in range(experts)]
    conflict = [[(row * column) % 97 / 97 for column in range(experts)] for row in range(experts)]
    return {"names": names, "cosine": conflict, "sign_conflict": conflict}


@pytest.mark.parametrize(("experts", "shown"), [(2, 1), (20, 190), (21, MOST_PAIRS), (60, 200)])
def test_the_table_of_pairs_has_those_that_conflict_most(experts: int, shown: int) -> None:
    interference = interference_of(experts)
    rows = merge_plans._pairs(interference)  # pyright: ignore[reportPrivateUsage]
    assert len(rows) == shown
    conflict = interference["sign_conflict"]
    worst = sorted((conflict[i][j] for i in range(experts) for j in range(i)), reverse=True)
    told = sorted((row["sign conflict"] for row in rows), reverse=True)
    assert told == [round(each, 5) for each in worst[:shown]]
    assert rows[0]["experts"] == "e0 + e1" or experts > 20
