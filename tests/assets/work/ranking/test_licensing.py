"""Licences at the gate: a candidate that has won stays where its inputs' licences conflict."""

import dataclasses
from pathlib import Path

import dagster as dg
import pytest

from assets.evidence.champions import LICENCES, _check, _licences
from assets.work import names
from assets.work.merging.manifests import ANCESTRY
from assets.work.ranking.crowning import promote_by_hand
from assets.work.ranking.named_checkpoints import NamedCheckpoint
from assets.work.ranking.ranking import Held, Promotion, promote
from merge_ops.errors import LicenceConflictError
from tests.assets.work.made_up_store import ScoredStore

POINT = "x=1|e1+e2"


class LicensedStore(ScoredStore):
    """A scored store whose experts have licences that do not go together."""

    def store_model(self, name: str, release: int = 1) -> None:
        super().store_model(name, release)
        licence = {"base": "mit", "e1": "gpl-3.0", "e2": "llama3.1"}[name]
        self.store.point("model", name, "model", self.digests[name], licence=licence)

    def _publish(self, kind: str, content: str) -> str:
        digest = super()._publish(kind, content)
        if kind != "checkpoint":
            return digest
        parents = [
            {"digest": d, "relation": "expert", "weight": 0.5} for d in self.digests.values()
        ]
        other = digest[::-1]
        return self.store.publish_virtual(kind, other, **{ANCESTRY: parents}).digest


def test_the_gate_says_yes_and_the_licences_say_no(tmp_path: Path) -> None:
    made = LicensedStore(tmp_path)
    made.everything({"x=0": 0.5, "x=1": 0.95})
    unkept = dataclasses.replace(made.recipe, keep="none")
    held = promote(made.store, made.contest, unkept, "cpu", 1)
    assert isinstance(held, Held)
    assert held.licences
    assert "gpl-3.0 + llama3.1 (a derivative would have to stay under" in held.reason
    assert "`accept_licence_conflicts: [gpl-3.0 + llama3.1]`" in held.reason
    assert names.ref_of(made.store, names.champion("ties")) is None
    result = _licences(held)
    assert (result.check_name, result.passed, result.severity) == (
        LICENCES, False, dg.AssetCheckSeverity.ERROR,
    )  # fmt: skip
    assert not _check(held).passed
    ref = names.ref_of(made.store, names.merged_checkpoint("ties"), POINT)
    assert ref is not None
    candidate = NamedCheckpoint("ties", ref.digest, "ties", "e1+e2", "x=1")
    with pytest.raises(LicenceConflictError, match="ties is no champion: the licences of its inp"):
        promote_by_hand(made.store, made.contest, unkept, candidate, "we like it")

    accepting = dataclasses.replace(unkept, accepted_conflicts=("Llama 3.1 + GPL-3.0",))
    promotion = promote(made.store, made.contest, accepting, "cpu", 1)
    assert isinstance(promotion, Promotion)
    assert promotion.changed
    assert _licences(promotion).passed
