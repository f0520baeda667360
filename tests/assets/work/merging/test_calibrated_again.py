"""A merge whose routers are fitted copies what an earlier one made, also for the fit itself."""

from collections import Counter
from pathlib import Path

import pytest

from assets.work.measuring import router_calibrating
from assets.work.measuring.router_calibrating import Fitted
from assets.work.merging.merging import MergeJob, merge_set, point_at
from assets.work.upstream.entries import UpstreamModel
from assets.work.upstream.pulling import pull_model
from merge_ops.jobs import assembly
from merge_ops.recipes import Steps, check_recipe
from merge_ops.recipes.calibrated import with_texts
from merge_ops.stream import StreamSettings
from resources.store import ArtifactStore
from tests.models.checkpoint_factory import write_tokenizer
from tests.models.moe_models import write_family

ASSET, ON_CPU = "mean/merged_checkpoint", StreamSettings(threads=1, device="cpu")


@pytest.mark.parametrize("store_root", ["local"], indirect=True)
def test_what_did_not_change_is_copied(
    tmp_path: Path, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_family(tmp_path, "qwen2_moe")
    for name in ("base", "expert-1", "expert-2"):
        write_tokenizer(tmp_path / name)
        pull_model(store, UpstreamModel(name.replace("-", ""), str(tmp_path / name)), tmp_path)
    done: list[Counter[str]] = []
    merge = assembly.merge

    def counted(plan, *others, **more):
        done.append(Counter(step.action for step in plan.steps))
        return merge(plan, *others, **more)

    def fitted(calibration, *_: object) -> Fitted:
        texts, rows = calibration.sources[0]  # no model is run here
        return Fitted({layer: each + len(texts[0]) for layer, each in rows.items()})

    monkeypatch.setattr(assembly, "merge", counted)
    monkeypatch.setattr(router_calibrating, "fitted_rows", fitted)
    for written in ("ginger warms", "mint cools"):
        recipe = {
            "merge_method": "linear",
            "models": [{"model": "expert1"}, {"model": "expert2"}],
            "parameters": {"weight": 0.5},
            "router": "calibrate",
            "texts": "texts.txt",
        }
        made = with_texts(check_recipe(recipe, "mean", "mean.yaml"), lambda _, t=written: (t,))
        steps = Steps((made,))
        job = MergeJob(steps, "base", "", {"default": "default"}, ASSET)
        merged = merge_set(store, job, ON_CPU)
        point_at(store, job, merged, "run")
    whole = sum(done[0].values())
    routers = 2
    assert done == [
        {"merge": whole},  # to fit on
        {"merge": whole - routers, "copy": routers},
        {"merge": routers, "reuse": whole - routers},  # to fit on: its routers are not fitted
        {"copy": routers, "reuse": whole - routers},
    ]
