"""`router: calibrate` by `ronghe merge`: fitted in the child, kept, and part of the digest."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from eval_ops.errors import EvalError
from merge_ops.errors import CompatibilityError, RecipeError
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes import load_steps
from orchestration.commands.merging.merge_command import MergeOptions, run_merge
from orchestration.commands.merging.plan_command import concrete_steps, show_plan
from orchestration.commands.models.local_models import open_models
from tests.models.dense_models import write_dense_family
from tests.models.moe_models import logits, write_family
from tests.models.moe_saliency import TEXTS, write_mixture

OPTIONS = MergeOptions("1", "cpu", None, "5GB", verify=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mixtures")
    write_family(root / "family", "mixtral")
    write_mixture(root / "m", "mixtral")
    (root / "a.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    (root / "b.jsonl").write_text('{"text": "one two"}\n{"text": "three, four, five"}\n')
    return root


def _merge(place: Path, document: dict[str, object], name: str = "out") -> Path:
    (place / f"{name}.yaml").write_text(json.dumps(document))
    run_merge(place / f"{name}.yaml", place / name, OPTIONS)
    return place / name


def _two(root: Path, **more: object) -> dict[str, object]:
    one, other = (str(root / "family" / f"expert-{number}") for number in (1, 2))
    texts = {one: str(root / "a.txt"), other: str(root / "b.jsonl")}
    return {
        "merge_method": "linear",
        "models": [{"model": one}, {"model": other}],
        "parameters": {"weight": 0.5},
        "router": "calibrate",
        "texts": texts,
        **more,
    }


def test_only_routers_change_and_are_fitted_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    made = load_file(_merge(tmp_path, _two(root)) / "model.safetensors")
    assert "routers of out: from their sources' odds" in capsys.readouterr().err
    plain = {key: each for key, each in _two(root).items() if key not in ("router", "texts")}
    unfitted = load_file(_merge(tmp_path, plain, "plain") / "model.safetensors")
    changed = {name for name, each in made.items() if not torch.equal(each, unfitted[name])}
    assert changed == {f"model.layers.{n}.block_sparse_moe.gate.weight" for n in range(2)}
    assert logits(tmp_path / "out").isfinite().all()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing is fitted twice")

    monkeypatch.setattr("assets.work.measuring.model_child.ask_child", refuse)
    again = load_file(_merge(tmp_path, _two(root), "again") / "model.safetensors")
    assert all(torch.equal(made[name], each) for name, each in again.items())
    with pytest.raises(AssertionError, match="twice"):  # other texts are other rows
        _merge(tmp_path, _two(root, texts=str(root / "a.txt")), "other")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_gates_and_routers_are_measured_on_results_of_earlier_documents(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    step = {"keep": 3, "method": "hc_smoe", "texts": str(root / "a.txt"), "router": "calibrate"}
    documents = [_two(root, name="both"), {"moe": step, "models": [{"model": "both"}]}]
    (tmp_path / "c.yaml").write_text("---\n".join(f"{json.dumps(each)}\n" for each in documents))
    run_merge(tmp_path / "c.yaml", tmp_path / "out", OPTIONS)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_local_experts"] == 3
    plain = {**step, "router": "first"}
    documents[1]["moe"] = plain
    (tmp_path / "c.yaml").write_text("---\n".join(f"{json.dumps(each)}\n" for each in documents))
    run_merge(tmp_path / "c.yaml", tmp_path / "first", OPTIONS)
    fitted, first = (load_file(tmp_path / at / "model.safetensors") for at in ("out", "first"))
    changed = {name for name, each in fitted.items() if not torch.equal(each, first[name])}
    assert changed == {f"model.layers.{n}.block_sparse_moe.gate.weight" for n in range(2)}


def test_gates_are_made_of_texts_as_of_prompts_and_on_earlier_results(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    base, one, two = map(str, write_dense_family(tmp_path / "dense", "llama", 2))
    mean = {
        "name": "mean",
        "merge_method": "linear",
        "models": [{"model": base}, {"model": one}],
        "parameters": {"weight": 0.5},
    }
    files = [str(root / "a.txt"), str(root / "b.jsonl")]
    prompts = [list(TEXTS), ["one two", "three, four, five"]]
    made = []
    for name, ways in (
        ("texts", [{"texts": each} for each in files]),
        ("prompts", [{"positive_prompts": each} for each in prompts]),
    ):
        listed = [{"source_model": m, **how} for m, how in zip((one, two), ways, strict=True)]
        mixture = {"base_model": "mean", "gate_mode": "hidden_avg", "experts": listed}
        text = "---\n".join(f"{json.dumps(each)}\n" for each in (mean, mixture))
        (tmp_path / f"{name}.yaml").write_text(text)
        run_merge(tmp_path / f"{name}.yaml", tmp_path / name, OPTIONS)
        made.append((tmp_path / name / "model.safetensors").read_bytes())
    assert made[0] == made[1]
    recipe = load_steps(tmp_path / "texts.yaml").result
    assert recipe.moe is not None
    assert [each.written["texts"] for each in recipe.moe.experts] == files


def test_a_plan_says_what_will_be_measured(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = {"keep": 3, "method": "m_smoe", "texts": str(root / "a.txt"), "router": "calibrate"}
    for name, document, told in (
        ("two", _two(root), "router: its rows are fitted on the texts by `ronghe merge`"),
        ("fewer", {"moe": step, "models": [{"model": str(root / "m")}]}, "moe: which moe_experts"),
    ):
        (tmp_path / f"{name}.yaml").write_text(json.dumps(document))
        show_plan(tmp_path / f"{name}.yaml", as_json=False)
        assert told in capsys.readouterr().out
        recipe = load_steps(tmp_path / f"{name}.yaml").result
        opened = open_models("r", recipe.referenced_models)
        for number, model in enumerate(opened.values()):
            object.__setattr__(model, "digest", str(number))
        with pytest.raises(RecipeError, match="and its numbers were not measured; `ronghe merge`"):
            plan_merge(recipe, opened).outputs[0].digest  # noqa: B018


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"texts": {"nobody": "a.txt"}}, "names none for '.*expert-1'; write a file for each"),
        ({"texts": {"nobody": "a.txt"}}, "texts.nobody is no model whose router is merged here"),
        (
            {"sweep": {"weight": [0.4, 0.5]}},
            "routers of one checkpoint, and `sweep` makes",
        ),
        ({"texts": 3}, "texts is 3; write `texts: {MODEL: FILE, …}`, or one FILE for all"),
        ({"router": "merge"}, "texts has no effect without `router: calibrate`; remove it"),
    ],
)
def test_what_cannot_be_fitted_is_told_before_a_weight_is_read(
    root: Path, tmp_path: Path, more: dict[str, object], told: str
) -> None:
    (tmp_path / "a.txt").write_text("qi\n")
    (tmp_path / "r.yaml").write_text(json.dumps(_two(root, **more)))

    def planned() -> None:
        recipe = load_steps(tmp_path / "r.yaml").result
        plan_merge(recipe, open_models("r", recipe.referenced_models))

    with pytest.raises(RecipeError, match=told):
        planned()


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"router": "calibrate", "statistics": "s"}, "fitted on texts; write `texts: FILE` beside"),
        ({}, "statistics is missing; it must name a file .* or write `texts: FILE`"),
        ({"texts": 3}, "moe.texts is 3; it must name a file: one text a line"),
        ({"texts": "a", "statistics": "s"}, "has no effect beside `statistics` without `router"),
        ({"texts": "a", "method": "reap", "router": "calibrate"}, "has no effect on reap"),
    ],
)
def test_what_is_wrong_with_the_texts_of_a_step_is_told(
    tmp_path: Path, table: dict[str, object], told: str
) -> None:
    step = {"keep": 3, "method": "hc_smoe", **table}
    (tmp_path / "r.yaml").write_text(json.dumps({"moe": step, "models": [{"model": "m"}]}))
    with pytest.raises(RecipeError, match=told):
        load_steps(tmp_path / "r.yaml")


def test_a_family_whose_routing_is_not_computed_is_refused(root: Path, tmp_path: Path) -> None:
    from tests.models.checkpoint_factory import edit_config

    write_family(tmp_path / "family", "qwen2_moe")
    for name in ("base", "expert-1", "expert-2"):
        edit_config(tmp_path / "family" / name, model_type="olmoe")
    document = {**_two(tmp_path), "texts": str(root / "a.txt")}
    (tmp_path / "r.yaml").write_text(json.dumps(document))
    steps = concrete_steps(tmp_path / "r.yaml")
    opened = open_models("r", steps.result.referenced_models)
    with pytest.raises((RecipeError, CompatibilityError), match="routing of model_type 'olmoe'"):
        plan_merge(steps.result, opened)


def test_texts_of_too_many_tokens_end_the_merge(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "long.txt").write_text("word " * 500)
    with pytest.raises(EvalError, match="it must have 1 to 64 for this model"):
        _merge(tmp_path, _two(root, texts=str(tmp_path / "long.txt")))
    assert not (tmp_path / "out").exists()
