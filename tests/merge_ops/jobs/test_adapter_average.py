"""Adapters averaged into an adapter: by hand, against dense averages, what is refused."""

import json
import math
import re
from dataclasses import replace

import pytest
import torch
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from merge_ops.checkpoints.checkpoint import source_of
from merge_ops.checkpoints.files.byte_sources import FolderSink, FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CompatibilityError, NonFiniteError, RecipeError
from merge_ops.jobs.adapter_average import BLOCK, plan_average, write_average
from merge_ops.recipes.reading import parse_recipe
from merge_ops.sources.lora.adapters import open_adapter, read_adapter
from merge_ops.stream.block_reader import fetch_stored
from tests.merges.merging import ronghe
from tests.models import checkpoint_factory as factory
from tests.models.adapter_factory import PREFIX, lora_tensors, modules_of, write_adapter

QUERY, KEY = (f"model.layers.0.self_attn.{each}_proj" for each in "qk")
SHAPE = replace(factory.QWEN2, tied=False)
BASE = factory.base_tensors(SHAPE)


def text(weights, **more):
    models = [{"model": f"a{n}", "parameters": {"weight": w}} for n, w in enumerate(weights)]
    return json.dumps({"merge_method": "linear", "models": models, **more})


def average(folders, out, weights, factor_wise=False, block=BLOCK, **more):
    """The averaged folder's tensors and config."""
    recipe = parse_recipe(text(weights, **more), "average", "average.yaml")
    adapters = [read_adapter(str(each), FolderSource(each)) for each in folders]
    write_average(plan_average(recipe, adapters, factor_wise), FolderSink(out), block=block)
    config = json.loads((out / "adapter_config.json").read_text())
    return factory.read_tensors(out), config


def tiny(folder, name, tensors, **config):
    tensors = {f"{PREFIX}{key}": torch.tensor(value) for key, value in tensors.items()}
    return write_adapter(folder / name, tensors, **config)


def two(folder):
    """Changes of a 2 x 2 matrix at ranks 1 and 2, with scales 3 / 1 and 1 / 2."""
    one = {"m.lora_A.weight": [[1.0, 0]], "m.lora_B.weight": [[1.0], [2]]}
    other = {"m.lora_A.weight": [[0.0, 1], [2, 0]], "m.lora_B.weight": [[4.0, 0], [0, 8]]}
    return (
        tiny(folder, "one", one, r=1, lora_alpha=3),
        tiny(folder, "other", other, r=2, lora_alpha=1),
    )


def test_by_hand(tmp_path):
    # weights 1 and 3, normalized: 1/4 and 3/4. Times the scales: 3/4 and 3/8.
    # B = [3/4 [1, 2]^T, 3/8 [[4, 0], [0, 8]]], A = the rows of both, as they are.
    # B A = 3/4 [[1, 0], [2, 0]] + 3/8 [[0, 4], [16, 0]] = [[.75, 1.5], [7.5, 0]]
    tensors, config = average(two(tmp_path), tmp_path / "out", [1, 3])
    down, up = tensors[f"{PREFIX}m.lora_A.weight"], tensors[f"{PREFIX}m.lora_B.weight"]
    assert down.tolist() == [[1, 0], [0, 1], [2, 0]]
    assert up.tolist() == [[0.75, 1.5, 0], [1.5, 0, 3]]
    assert (up @ down).tolist() == [[0.75, 1.5], [7.5, 0]]
    assert (config["r"], config["lora_alpha"], config["rank_pattern"]) == (3, 3, {})
    assert config["target_modules"] == ["m"]


def test_by_hand_factor_wise(tmp_path):
    # A = 1/4 [[1, 0], [0, 0]] + 3/4 [[0, 1], [2, 0]], the first filled up to rank 2
    # B = 3/4 [[1, 0], [2, 0]] + 3/8 [[4, 0], [0, 8]]
    # B A = [[2.25 / 4, 2.25 · 3/4], [1.5 / 4 + 3 · 1.5, 1.5 · 3/4]]: not the average of the changes
    tensors, config = average(two(tmp_path), tmp_path / "out", [1, 3], factor_wise=True)
    down, up = tensors[f"{PREFIX}m.lora_A.weight"], tensors[f"{PREFIX}m.lora_B.weight"]
    assert down.tolist() == [[0.25, 0.75], [1.5, 0]]
    assert up.tolist() == [[2.25, 0], [1.5, 3]]
    assert (up @ down).tolist() == [[0.5625, 1.6875], [4.875, 1.125]]
    assert config["r"] == config["lora_alpha"] == 2


def test_by_hand_without_normalize_and_with_a_negative_weight(tmp_path):
    # 2 · 3 · [1, 2]^T [1, 0] − 1 · 1/2 · [[0, 4], [16, 0]] = [[6, −2], [4, 0]]
    tensors, _ = average(two(tmp_path), tmp_path / "out", [2, -1], parameters={"normalize": False})
    down, up = tensors[f"{PREFIX}m.lora_A.weight"], tensors[f"{PREFIX}m.lora_B.weight"]
    assert (up @ down).tolist() == [[6, -2], [4, 0]]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return factory.write_checkpoint(tmp_path_factory.mktemp("models") / "base", BASE, SHAPE)


def whole(names, seed):
    """Other values of tensors of the base, as an adapter keeps them."""
    return {
        f"{PREFIX}{name}": factory.draw(name, tuple(BASE[name].shape), seed, 1) for name in names
    }


def three(folder):
    """Adapters of different ranks, alphas and modules, one with rslora; two have whole tensors."""
    queries, ups = modules_of(BASE, "q_proj"), modules_of(BASE, "up_proj", "lm_head")
    saved = whole(["model.norm.weight", f"{QUERY}.bias"], 1)
    more = whole(["model.norm.weight", f"{QUERY}.bias"], 2)
    embedding = {
        f"{PREFIX}model.embed_tokens.lora_embedding_A": factory.draw("A", (3, 264), 1, 0.1),
        f"{PREFIX}model.embed_tokens.lora_embedding_B": factory.draw("B", (64, 3), 1, 0.1),
    }
    return [
        write_adapter(
            folder / "first", lora_tensors(BASE, queries, 4, 1) | saved,
            r=4, lora_alpha=6, modules_to_save=["norm"], bias="all",
        ),
        write_adapter(
            folder / "second",
            lora_tensors(BASE, ups, 2, 2) | lora_tensors(BASE, queries[:1], 3, 2) | more,
            r=2, lora_alpha=5,
            rank_pattern={"q_proj": 3}, alpha_pattern={"layers.1.mlp.up_proj": 1},
            modules_to_save=["norm"], use_rslora=True, bias="all",
        ),
        write_adapter(
            folder / "third",
            lora_tensors(BASE, queries[1:], 3, 3) | embedding | saved,
            r=3, lora_alpha=7, modules_to_save=["model.norm"], bias="all",
        ),
    ]  # fmt: skip


def dense(base, adapter):
    """Every tensor of the base with an adapter on it, in float64 where there is a change."""
    below = open_checkpoint("base", FolderSource(base))
    opened = open_adapter("x", below, FolderSource(adapter))
    found = {}
    for name in opened.tensors:
        source = source_of(opened, name)
        out = torch.empty(math.prod(source.shape))
        source.fill(fetch_stored, 0, out)
        found[name] = out.view(source.shape).double()
    return found


def test_equals_the_average_of_the_dense_models(base, tmp_path):
    folders, weights = three(tmp_path), (0.5, 0.3, 0.4)
    tensors, config = average(folders, tmp_path / "out", weights)
    models = [dense(base, folder) for folder in folders]
    merged = dense(base, tmp_path / "out")
    assert merged.keys() == models[0].keys()
    for name, tensor in merged.items():
        parts = zip(weights, models, strict=True)
        expected = sum(weight * model[name] for weight, model in parts) / sum(weights)
        torch.testing.assert_close(tensor, expected, rtol=3e-6, atol=3e-7)
    assert {each.dtype for each in tensors.values()} == {torch.float32}
    ranks = config["rank_pattern"]
    assert config["rank_pattern"] == config["alpha_pattern"]
    # 4 + 3 of the queries everywhere, from the second adapter or the third; one adapter elsewhere
    assert config["r"] == config["lora_alpha"] == 2  # what most modules have
    assert {**dict.fromkeys(config["target_modules"], config["r"]), **ranks} == {
        **dict.fromkeys(modules_of(BASE, "q_proj"), 7),
        **dict.fromkeys(modules_of(BASE, "up_proj", "lm_head"), 2),
        "model.embed_tokens": 3,
    }
    assert config["modules_to_save"] == ["norm", "model.norm"]


def test_block_sizes_give_the_same_bytes(tmp_path):
    folders, seen = three(tmp_path), set()
    for factor_wise in (False, True):
        for block in (1, 777, 1 << 18):
            out = tmp_path / f"{factor_wise}-{block}"
            average(folders, out, (0.5, 0.3, 0.4), factor_wise, block)
            seen.add((factor_wise, (out / "adapter_model.safetensors").read_bytes()))
    assert len(seen) == 2


def test_factor_wise_is_the_average_of_factors(tmp_path):
    """Of one module: ΣwA and ΣwsB; the product is another than the exact one."""
    folders, weights = three(tmp_path), (0.5, 0.3, 0.2)
    tensors, _ = average(folders, tmp_path / "out", weights, factor_wise=True)
    first, second, _ = (factory.read_tensors(folder) for folder in folders)
    down, up = (f"{PREFIX}{QUERY}.lora_{each}.weight" for each in "AB")
    padded = torch.nn.functional.pad
    expected = 0.5 * first[down] + 0.3 * padded(second[down], (0, 0, 0, 1))
    torch.testing.assert_close(tensors[down], expected, rtol=1e-6, atol=1e-8)
    scales = 0.5 * 6 / 4, 0.3 * 5 / math.sqrt(3)
    expected = scales[0] * first[up] + scales[1] * padded(second[up], (0, 1))
    torch.testing.assert_close(tensors[up], expected, rtol=1e-6, atol=1e-8)
    exact, _ = average(folders, tmp_path / "exact", weights)
    assert not torch.allclose(tensors[up] @ tensors[down], exact[up] @ exact[down], atol=1e-4)


WEIGHT = st.floats(-2, 2).filter(lambda weight: abs(weight) > 0.01)
ADAPTER = st.tuples(st.integers(1, 6), st.floats(0.1, 64), st.booleans(), WEIGHT)


@settings(max_examples=40, deadline=None)
@given(drawn=st.lists(ADAPTER, min_size=1, max_size=4), normalize=st.booleans())
def test_the_product_is_the_weighted_sum_of_the_changes(tmp_path_factory, drawn, normalize):
    """Within float32: the error is measured against the sum of the sizes of what is added."""
    weights = [weight for *_, weight in drawn]
    assume(abs(sum(weights)) > 0.1)
    folder, folders = tmp_path_factory.mktemp("law"), []
    expected, size = torch.zeros(64, 64, dtype=torch.float64), 0.0
    for number, (rank, alpha, root, weight) in enumerate(drawn):
        tensors = lora_tensors(BASE, [QUERY], rank, seed=number)
        config = {"r": rank, "lora_alpha": alpha, "use_rslora": root}
        folders.append(write_adapter(folder / str(number), tensors, **config))
        down, up = (tensors[f"{PREFIX}{QUERY}.lora_{each}.weight"].double() for each in "AB")
        share = weight * alpha / (math.sqrt(rank) if root else rank)
        share /= sum(weights) if normalize else 1
        expected += share * up @ down
        size += abs(share) * float((up.abs() @ down.abs()).max())
    more = {"parameters": {"normalize": normalize}}
    tensors, config = average(folders, folder / "out", weights, **more)
    down, up = (tensors[f"{PREFIX}{QUERY}.lora_{each}.weight"].double() for each in "AB")
    assert config["r"] == down.shape[0] == sum(rank for rank, *_ in drawn)
    assert float((up @ down - expected).abs().max()) <= 2**-24 * size


@pytest.mark.parametrize("factor_wise", [False, True])
def test_an_adapter_alone_or_with_itself_stays_what_it_was(base, tmp_path, factor_wise):
    adapter = three(tmp_path)[1]
    for number, folders in enumerate(([adapter], [adapter, adapter])):
        out = tmp_path / f"out-{number}"
        average(folders, out, [0.7] * len(folders), factor_wise)
        before, after = dense(base, adapter), dense(base, out)
        for name, tensor in before.items():
            torch.testing.assert_close(after[name], tensor, rtol=1e-6, atol=1e-6)


def test_filters_give_modules_their_own_weights(tmp_path):
    folders = three(tmp_path)[:1]
    layer = [{"filter": "layers.0.", "value": 2}, {"value": 1}]
    twice = tmp_path / "out", [layer]
    with pytest.raises(
        CompatibilityError, match=r"weight sums to 2 for '.*q_proj.bias', which is s"
    ):
        average(folders, *twice, parameters={"normalize": False})
    bare = [write_adapter(tmp_path / "bare", lora_tensors(BASE, [QUERY, KEY], 2), r=2)]
    layer = [{"filter": "q_proj", "value": 2}, {"value": 1}]
    tensors, _ = average(bare, tmp_path / "out", [layer], parameters={"normalize": False})
    before = factory.read_tensors(bare[0])
    for module, weight in ((QUERY, 2), (KEY, 1)):
        name = f"{PREFIX}{module}.lora_B.weight"
        torch.testing.assert_close(tensors[name], weight * 4 * before[name])


def test_a_module_whose_name_ends_another_keeps_its_rank(tmp_path):
    sizes = {f"{name}.weight": torch.empty(8, 8) for name in ("m", "x.m", "y.m", "y.n")}
    parts = lora_tensors(sizes, ["m"], 1) | lora_tensors(sizes, ["x.m"], 2)
    one = write_adapter(tmp_path / "a", parts, r=2, rank_pattern={"^m": 1})
    other = write_adapter(tmp_path / "b", lora_tensors(sizes, ["y.m", "y.n"], 2, 2), r=2)
    _, config = average([one, other], tmp_path / "out", [1, 1])
    assert (config["r"], config["rank_pattern"]) == (2, {"^m": 1})
    read = read_adapter("out", FolderSource(tmp_path / "out")).config
    assert [read.rank_of(each) for each in config["target_modules"]] == [1, 2, 2, 2]
    assert {read.scale_of(each) for each in config["target_modules"]} == {1}


def test_dtypes(tmp_path):
    half = {name: each.bfloat16() for name, each in lora_tensors(BASE, [QUERY], 2).items()}
    half[f"{PREFIX}model.norm.weight"] = torch.ones(64, dtype=torch.bfloat16)
    folders = [write_adapter(tmp_path / "a", half, r=2)] * 2
    tensors, _ = average(folders, tmp_path / "out", [1, 2])
    norm = tensors.pop(f"{PREFIX}model.norm.weight")
    assert norm.dtype == torch.bfloat16
    assert {each.dtype for each in tensors.values()} == {torch.float32}
    tensors, _ = average(folders, tmp_path / "half", [1, 2], dtype="float16")
    assert {each.dtype for each in tensors.values()} == {torch.float16}
    with pytest.raises(NonFiniteError, match=r"lora_B.weight' does not fit F16; leave out `dtype`"):
        average(folders, tmp_path / "large", [1, -0.999997], dtype="float16")


def test_the_bias_of_a_low_rank_layer(base, tmp_path):
    folders = []
    for seed, alpha in ((1, 4), (2, 6)):
        tensors = lora_tensors(BASE, [QUERY, KEY], 2, seed)
        for module in (QUERY, KEY):
            tensors |= {f"{PREFIX}{module}.lora_B.bias": BASE[f"{module}.bias"] + seed}
        config = {"r": 2, "lora_alpha": alpha, "lora_bias": True}
        folders.append(write_adapter(tmp_path / str(seed), tensors, **config))
    average(folders, tmp_path / "out", [1, 3])
    one, other, merged = (dense(base, each) for each in (*folders, tmp_path / "out"))
    for name, tensor in merged.items():
        expected = 0.25 * one[name] + 0.75 * other[name]
        torch.testing.assert_close(tensor, expected, rtol=3e-6, atol=3e-6)
    folders[1] = write_adapter(tmp_path / "3", lora_tensors(BASE, [f"{QUERY[:-6]}o_proj"], 2), r=2)
    with pytest.raises(CompatibilityError, match=r"lora_bias trains a bias of '.*k_proj', but no"):
        average(folders, tmp_path / "none", [1, 3])


def query(folder, name, size=(64, 64), rank=2, extra=(), **config):
    tensors = lora_tensors({f"{QUERY}.weight": torch.empty(size)}, [QUERY], rank)
    tensors |= {f"{PREFIX}{key}": torch.ones(shape) for key, shape in dict(extra).items()}
    return write_adapter(folder / name, tensors, **{"r": rank, **config})


NORM = "model.norm.weight"
DIFFER = {
    "shapes": (
        {"size": (64, 32)},
        r"'.*q_proj' has 'lora_A.weight' and changes \[64, 32\] in .*b, but 'lora_A.weight' and"
        r" changes \[64, 64\] in .*a; their bases differ",
    ),
    "bases": (
        {"base_model_name_or_path": "other"},
        "base_model_name_or_path is 'base' in .*a, 'other' in .*b; adapters of one base are"
        " averaged; .* say which to write as `base_model`",
    ),
    "tasks": ({"task_type": "SEQ_CLS"}, "task_type is 'CAUSAL_LM' in .*a, 'SEQ_CLS' in .*b"),
    "layers": ({"fan_in_fan_out": True}, "fan_in_fan_out is False in .*a, True in .*b"),
    "whole": (
        {"extra": {NORM: (64,)}, "modules_to_save": ["norm"]},
        r"'model.norm.weight' is saved whole in .*b, but not in .*a; without the base only",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DIFFER)
def test_adapters_that_differ(tmp_path, case):
    config, message = DIFFER[case]
    folders = [query(tmp_path, "a"), query(tmp_path, "b", **config)]
    with pytest.raises(CompatibilityError, match=message):
        average(folders, tmp_path / "out", [1, 1])
    assert not (tmp_path / "out").exists()


def test_all_differences_come_at_once(tmp_path):
    folders = [query(tmp_path, "a"), query(tmp_path, "b", size=(32, 64), fan_in_fan_out=True,
               extra={NORM: (64,)}, base_model_name_or_path="other")]  # fmt: skip
    with pytest.raises(CompatibilityError, match="weight sums to zero") as raised:
        average(folders, tmp_path / "out", [1, -1])
    assert len(raised.value.faults) == 5


def test_a_named_base_settles_what_it_is_called(tmp_path):
    folders = [query(tmp_path, "a"), query(tmp_path, "b", base_model_name_or_path="/models/base/")]
    _, config = average(folders, tmp_path / "out", [1, 1], base_model="hub/base")
    assert config["base_model_name_or_path"] == "hub/base"
    silent = [query(tmp_path, "c", base_model_name_or_path=None), folders[1]]
    _, config = average(silent, tmp_path / "more", [1, 1])
    assert config["base_model_name_or_path"] == "/models/base/"


def test_whole_tensors_that_do_not_go_together(tmp_path):
    saved = {"extra": {NORM: (64,)}, "modules_to_save": ["norm"]}
    folders = [
        query(tmp_path, "a", **saved),
        query(tmp_path, "b", **{**saved, "extra": {NORM: (9,)}}),
    ]
    with pytest.raises(
        CompatibilityError, match=r"norm.weight' is \[9\] in .*b, but \[64\] in .*a"
    ):
        average(folders, tmp_path / "out", [1, 1])
    embedding = "model.embed_tokens"
    extra = {f"{embedding}.weight": (9, 4)}
    factors = {f"{embedding}.lora_embedding_A": (2, 9), f"{embedding}.lora_embedding_B": (4, 2)}
    beside = query(tmp_path, "e", extra={f"{embedding}.base_layer.weight": (9, 4), **factors})
    with pytest.raises(CompatibilityError, match=r"own: PEFT's `save_embedding_layers=False`\)"):
        average([folders[0], beside], tmp_path / "out", [1, 1])
    folders = [
        query(tmp_path, "c", extra=extra, modules_to_save=["embed_tokens"]),
        query(tmp_path, "d", extra={f"{embedding}.base_layer.weight": (9, 4), **factors}),
    ]
    with pytest.raises(
        CompatibilityError, match="is changed by factors in one adapter and is one of"
    ):
        average(folders, tmp_path / "out", [1, 1])


RECIPES = {
    "method": ({"merge_method": "ties", "base_model": "x"}, "merge_method is 'ties'; adapters are"),
    "sweep": ({"sweep": {"normalize": [True, False]}}, "sweep cannot be had of adapters alone"),
    "tokenizer": ({"tokenizer_source": "base"}, "tokenizer cannot be had"),
    "gradient": (
        {"models": [{"model": "a", "parameters": {"weight": [0, 1]}}]},
        r"models\[0\].parameters.weight is a gradient over layers, .* use filters",
    ),
    "no weight": ({"models": [{"model": "a"}]}, "parameters.weight has no value of model '.*a'"),
}  # fmt: skip


@pytest.mark.parametrize("case", RECIPES)
def test_recipes_that_ask_for_more(tmp_path, case):
    more, message = RECIPES[case]
    with pytest.raises(RecipeError, match=message):
        average([query(tmp_path, "a")], tmp_path / "out", [1], **more)


def test_not_a_number_is_refused(tmp_path):
    tensors = lora_tensors(BASE, [QUERY], 2)
    tensors[f"{PREFIX}{QUERY}.lora_A.weight"][1, 3] = math.nan
    adapter = write_adapter(tmp_path / "a", tensors, r=2)
    with pytest.raises(NonFiniteError, match=r"adapter '.*a': tensor '.*lora_A.weight' holds NaN"):
        average([adapter], tmp_path / "out", [1])


def command(tmp_path, *models, **more):
    models = [{"model": str(each), "parameters": {"weight": 1}} for each in models]
    config = tmp_path / "average.yaml"
    config.write_text(json.dumps({"merge_method": "linear", "models": models, **more}))
    return config, tmp_path / "out"


def test_the_command_line(base, tmp_path):
    folders = [query(tmp_path, "a"), query(tmp_path, "b", rank=3)]
    config, out = command(tmp_path, *folders)
    told = ronghe("merge-adapters", config, out)
    assert told.returncode == 0, told.stderr
    assert "an adapter of 2 in" in told.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors"
    ]  # fmt: skip
    card = (out / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert (front["base_model"], front["library_name"]) == ("base", "peft")
    assert "averaged exactly" in card
    assert all(re.search(rf"^\| {each} \| `[0-9a-f]{{64}}` \|$", card, re.M) for each in folders)
    assert yaml.safe_load(card.split("```yaml")[1].rstrip("`\n")) == yaml.safe_load(
        config.read_text()
    )
    one, other, merged = (dense(base, each)[f"{QUERY}.weight"] for each in (*folders, out))
    torch.testing.assert_close(merged, (one + other) / 2, rtol=3e-6, atol=1e-7)
    again = ronghe("merge-adapters", config, out)
    assert (again.returncode, "exists and is not empty" in again.stderr) == (2, True)
    told = ronghe("merge-adapters", config, tmp_path / "wise", "--factor-wise")
    assert told.returncode == 0, told.stderr
    assert json.loads((tmp_path / "wise" / "adapter_config.json").read_text())["r"] == 3


def test_the_command_line_reports_all_that_is_wrong_and_writes_nothing(base, tmp_path):
    config, out = command(
        tmp_path,
        query(tmp_path, "dora", use_dora=True),
        query(tmp_path, "odd", extra={f"{QUERY}.lora_C.weight": (3,)}),
        base,
        f"{base}+{query(tmp_path, 'a')}",
    )
    told = ronghe("merge-adapters", config, out)
    assert told.returncode == 2
    for message in (
        "dora': adapter_config.json: use_dora is set",
        "lora_C.weight' is no lora_A, lora_B",
        f"{base} has no adapter_config.json; an adapter is a folder",
        "names a base as well",
    ):
        assert message in told.stderr
    (tmp_path / "link").symlink_to("a")
    config, out = command(tmp_path, tmp_path / "a", tmp_path / "link", f"{tmp_path}/./a")
    told = ronghe("merge-adapters", config, out)
    assert told.stderr.count("is the same adapter as ") == 2
    assert "and would count twice; list it once" in told.stderr
    config, out = command(tmp_path, tmp_path / "gone", tmp_path / "lost")
    told = ronghe("merge-adapters", config, out)
    assert f"there is no folder {tmp_path}/gone" in told.stderr
    assert f"there is no folder {tmp_path}/lost" in told.stderr
    config, out = command(tmp_path, tmp_path / "gone", dtpye="float32", merge_method="ties")
    told = ronghe("merge-adapters", config, out)
    assert "dtpye is no key of a recipe. Did you mean 'dtype'?" in told.stderr
    tensors = lora_tensors(BASE, [QUERY], 2)
    tensors[f"{PREFIX}{QUERY}.lora_B.weight"][0, 0] = math.inf
    config, out = command(tmp_path, write_adapter(tmp_path / "inf", tensors, r=2))
    told = ronghe("merge-adapters", config, out)
    assert "holds NaN or infinity" in told.stderr
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]
