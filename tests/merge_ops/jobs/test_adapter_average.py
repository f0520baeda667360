"""Adapters averaged into an adapter: by hand, and against dense averages."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.errors import CompatibilityError, NonFiniteError
from merge_ops.sources.lora.adapters import read_adapter
from tests.merges.adapter_averages import BASE, KEY, QUERY, SHAPE, average, dense
from tests.models import checkpoint_factory as factory
from tests.models.adapter_factory import PREFIX, lora_tensors, modules_of, write_adapter


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
