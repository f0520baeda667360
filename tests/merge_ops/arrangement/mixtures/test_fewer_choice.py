"""Which moe_experts stay, by hand and against scipy's clusters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist, squareform

from merge_ops.arrangement.mixtures.fewer_choice import groups_of, kept_share
from merge_ops.calibration.moe_statistics import LayerStatistics


def layer(tokens: list[float], saliency: list[float] | None = None, **matrices: object):
    count = len(tokens)
    return LayerStatistics(
        tokens=np.array(tokens),
        weights=np.array(tokens) / 2,
        saliency=np.array(saliency or tokens),
        distances=np.array(matrices.get("distances", np.zeros((count, count)))),
        similarity=np.array(matrices.get("similarity", np.eye(count))),
    )


def members(groups: tuple) -> list[list[int]]:
    return [[member for member, _ in group] for group in groups]


def test_pruning_by_hand() -> None:
    """Saliency and use disagree; of equal numbers the lower moe_expert stays."""
    one = layer([8, 1, 4, 4, 0], saliency=[0.1, 9, 2, 2, 0])
    assert members(groups_of(one, 2, "reap")) == [[1], [2]]
    assert members(groups_of(one, 3, "reap")) == [[1], [2], [3]]
    assert members(groups_of(one, 2, "frequency")) == [[0], [2]]
    assert kept_share(one, groups_of(one, 2, "frequency")) == 12 / 17
    assert kept_share(layer([0, 0]), groups_of(layer([0, 0]), 1, "reap")) == 1.0


def test_clusters_by_hand() -> None:
    """Points 0, 1, 5, 7 and 20 on a line: {0, 1}, then {5, 7}, then these (mean 5.5), then all."""
    points = np.array([0.0, 1, 5, 7, 20])
    one = layer([1, 3, 0, 0, 2], distances=np.abs(points[:, None] - points))
    assert members(groups_of(one, 4, "hc_smoe")) == [[1, 0], [2], [3], [4]]
    assert members(groups_of(one, 3, "hc_smoe")) == [[1, 0], [2, 3], [4]]
    assert members(groups_of(one, 2, "hc_smoe")) == [[1, 0, 2, 3], [4]]
    first, second, _ = groups_of(one, 3, "hc_smoe")
    assert first == ((1, 0.75), (0, 0.25))
    assert second == ((2, 0.5), (3, 0.5))  # no token went to either


def test_joining_the_most_used_by_hand() -> None:
    similarity = [[1, 0.2, 0.9, 0.1], [0.2, 1, 0.3, 0.8], [0.9, 0.3, 1, 0], [0.1, 0.8, 0, 1]]
    one = layer([1, 6, 3, 2], similarity=similarity)
    assert groups_of(one, 2, "m_smoe") == (((1, 0.75), (3, 0.25)), ((2, 0.75), (0, 0.25)))
    assert members(groups_of(one, 1, "m_smoe")) == [[1, 2, 3, 0]]


@given(st.integers(2, 12), st.data())
def test_clusters_are_those_of_scipy(count: int, data: st.DataObject) -> None:
    keep, seed = data.draw(st.integers(1, count)), data.draw(st.integers(0, 1000))
    points = np.random.default_rng(seed).standard_normal((count, 3))
    labels = fcluster(linkage(points, "average"), keep, criterion="maxclust")
    one = layer([1.0] * count, distances=squareform(pdist(points)))
    ours = {frozenset(each) for each in members(groups_of(one, keep, "hc_smoe"))}
    assert ours == {frozenset(np.flatnonzero(labels == each).tolist()) for each in set(labels)}


@pytest.mark.parametrize("method", ["reap", "frequency", "hc_smoe", "m_smoe"])
@given(st.integers(1, 9), st.data())
def test_groups_are_as_many_as_asked_and_share_all(
    method: str, count: int, data: st.DataObject
) -> None:
    keep, seed = data.draw(st.integers(1, count)), data.draw(st.integers(0, 1000))
    draw = np.random.default_rng(seed)
    tokens = draw.integers(0, 4, count).astype(float)
    one = layer(
        tokens.tolist(),
        distances=squareform(pdist(draw.integers(0, 3, (count, 2)))),
        similarity=np.corrcoef(draw.standard_normal((count, 4))).reshape(count, count),
    )
    groups = groups_of(one, keep, method)
    assert len(groups) == keep
    found = [member for group in groups for member, _ in group]
    assert len(set(found)) == len(found)
    assert [group[0][0] for group in groups] == sorted(group[0][0] for group in groups)
    for group in groups:
        assert sum(share for _, share in group) == pytest.approx(1)
        assert tokens[group[0][0]] == max(tokens[member] for member, _ in group)
    if method.endswith("smoe"):
        assert sorted(found) == list(range(count))
    if keep == count:
        assert groups == tuple(((each, 1.0),) for each in range(count))
