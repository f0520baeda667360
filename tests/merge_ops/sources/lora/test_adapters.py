"""Adapters as experts: the formula by hand, the same bits however it is cut, what is refused."""

import json
import math
from dataclasses import replace
from operator import attrgetter

import numpy as np
import pytest
import torch

from merge_ops.checkpoints.checkpoint import source_of
from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CheckpointError, CompatibilityError, NonFiniteError
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from merge_ops.sources.lora.adapters import open_adapter
from merge_ops.stream.block_reader import fetch_stored
from merge_ops.stream.stream import BlockStream, StreamSettings
from tests.merges.merging import merge_in_process, ronghe
from tests.models import checkpoint_factory as factory
from tests.models.adapter_factory import PREFIX, lora_tensors, modules_of, write_adapter

QUERY = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "base"
    return factory.write_checkpoint(folder, factory.base_tensors(factory.LLAMA), factory.LLAMA)


def opened(base, adapter, digest=None):
    below = open_checkpoint("base", FolderSource(base), digest)
    return open_adapter("base+adapter", below, FolderSource(adapter), digest)


def values(checkpoint, name):
    source = source_of(checkpoint, name)
    out = torch.empty(math.prod(source.shape))
    source.fill(fetch_stored, 0, out)
    return out.view(source.shape)


def tiny(folder, weight, tensors, name="m", **config):
    """A base of one weight, an adapter on it, and what both make of that weight."""
    factory.write_json(folder / "config.json", {})
    factory.write_weights(folder, {f"{name}.weight": torch.tensor(weight)})
    changed = {f"{PREFIX}{key}": torch.tensor(value) for key, value in tensors.items()}
    adapter = write_adapter(folder / "adapter", changed, **config)
    return values(opened(folder, adapter), f"{name}.weight").tolist()


def test_by_hand(tmp_path):
    # r = 1, alpha = 3: scale 3. B A = [[1], [2]] [[1, 0, −1]] = [[1, 0, −1], [2, 0, −2]]
    out = tiny(
        tmp_path, [[1.0, 1, 1], [0, 0, 0]],
        {"m.lora_A.weight": [[1.0, 0, -1]], "m.lora_B.weight": [[1.0], [2]]},
        r=1, lora_alpha=3,
    )  # fmt: skip
    assert out == [[4, 1, -2], [6, 0, -6]]


def test_by_hand_with_rslora(tmp_path):
    # r = 4, alpha = 6: 6 / √4 = 3 rather than 6 / 4. B A = 1·1 + 0 + 0 + 1·1 = 2
    out = tiny(
        tmp_path, [[1.0]],
        {"m.lora_A.weight": [[1.0], [0], [5], [1]], "m.lora_B.weight": [[1.0, 2, 0, 1]]},
        r=4, lora_alpha=6, use_rslora=True,
    )  # fmt: skip
    assert out == [[7]]


def test_by_hand_of_an_embedding(tmp_path):
    # 3 rows of width 2. A [1, 3], B [2, 1]: (B A)^T = [1, 2, 3]^T [10, 20]; scale 2 / 1
    out = tiny(
        tmp_path, [[0.0, 0], [0, 0], [1, 1]],
        {"m.lora_embedding_A": [[1.0, 2, 3]], "m.lora_embedding_B": [[10.0], [20]]},
        r=1, lora_alpha=2,
    )  # fmt: skip
    assert out == [[20, 40], [40, 80], [61, 121]]


def test_by_hand_with_fan_in_fan_out(tmp_path):
    # W is [in, out] = [3, 2]; A [1, 3], B [2, 1]: (B A)^T
    out = tiny(
        tmp_path, [[0.0, 0], [0, 0], [1, 1]],
        {"m.lora_A.weight": [[1.0, 2, 3]], "m.lora_B.weight": [[10.0], [20]]},
        r=1, lora_alpha=1, fan_in_fan_out=True,
    )  # fmt: skip
    assert out == [[10, 20], [20, 40], [31, 61]]


def test_patterns_say_rank_and_alpha_of_modules(base, tmp_path):
    before = factory.read_tensors(base)
    queries, ups = modules_of(before, "q_proj"), modules_of(before, "up_proj")
    tensors = lora_tensors(before, queries, 4) | lora_tensors(before, ups, 2)
    adapter = write_adapter(
        tmp_path / "a", tensors, r=4, lora_alpha=8,
        rank_pattern={"up_proj": 2}, alpha_pattern={r"layers\.[01]\.mlp\.up_proj": 6, "up": 100},
    )  # fmt: skip
    checkpoint = opened(base, adapter)
    for module in (*queries, *ups):
        weight, factors = f"{module}.weight", f"{PREFIX}{module}"
        # alpha / r: 8 / 4 by default; 6 / 2 where both patterns match; 8 / 2 in the last layer
        scale = 2.0 if "q_proj" in module else 4.0 if ".2." in module else 3.0
        product = tensors[f"{factors}.lora_B.weight"] @ tensors[f"{factors}.lora_A.weight"]
        expected = before[weight] + scale * product
        torch.testing.assert_close(values(checkpoint, weight), expected, rtol=1e-6, atol=1e-7)
    untouched = "model.layers.0.self_attn.k_proj.weight"
    assert torch.equal(values(checkpoint, untouched), before[untouched])


def test_whole_modules_and_biases_replace_the_bases(tmp_path):
    shape = replace(factory.QWEN2, tied=False)
    before = factory.base_tensors(shape)
    base = factory.write_checkpoint(tmp_path / "base", before, shape)
    norm, head = torch.full((64,), 2.0), torch.ones(264, 64)
    bias, shift = torch.arange(64.0), torch.ones(64)
    tensors = lora_tensors(before, [QUERY], 2) | {
        f"{PREFIX}model.norm.weight": norm,
        f"{PREFIX}lm_head.modules_to_save.weight": head,
        f"{PREFIX}{QUERY}.base_layer.bias": bias,
        f"{PREFIX}{QUERY}.lora_B.bias": shift,
    }
    saved = ["norm", "lm_head"]
    adapter = write_adapter(
        tmp_path / "a", tensors, r=2, lora_alpha=6, bias="lora_only", lora_bias=True,
        modules_to_save=saved,
    )  # fmt: skip
    checkpoint = opened(base, adapter)
    assert torch.equal(values(checkpoint, "model.norm.weight"), norm)
    assert torch.equal(values(checkpoint, "lm_head.weight"), head)
    assert torch.equal(values(checkpoint, f"{QUERY}.bias"), bias + 3)


def test_a_head_on_a_tied_base_is_its_own(tmp_path):
    shape = factory.QWEN2
    before = factory.base_tensors(shape)
    base = factory.write_checkpoint(tmp_path / "base", before, shape)
    embedding = "model.embed_tokens.weight"
    untied = {**before, "lm_head.weight": before[embedding]}
    tensors = lora_tensors(untied, ["lm_head"], 2)
    adapter = write_adapter(tmp_path / "a", tensors, r=2, lora_alpha=2)
    config = tmp_path / "m.yaml"
    config.write_text(
        f"merge_method: passthrough\nmodels: [{{model: {base}+{adapter}}}]\ndtype: float32\n"
    )
    out = merge_in_process(config, tmp_path / "out")
    merged = factory.read_tensors(out)
    down, up = (tensors[f"{PREFIX}lm_head.lora_{each}.weight"] for each in "AB")
    torch.testing.assert_close(
        merged["lm_head.weight"], before[embedding] + up @ down, rtol=1e-6, atol=1e-7
    )
    assert torch.equal(merged[embedding], before[embedding])
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False


WIDE = {
    "plain": (700, 1000, False),
    "transposed": (1000, 700, True),
    "few rows": (3, 300_000, False),
}


@pytest.mark.parametrize("kind", WIDE)
@pytest.mark.parametrize("rank", [5, 64])
def test_the_same_bits_for_every_way_to_cut_it(tmp_path, kind, rank):
    """A weight of 0.7 Mi elements or more, in blocks from 64 Ki to 16 Mi, on 1, 2, 4 threads."""
    rows, columns, turned = WIDE[kind]
    folder = tmp_path / "base"
    folder.mkdir()
    factory.write_json(folder / "config.json", {})
    factory.write_weights(folder, {"m.weight": factory.draw("w", (rows, columns), 0, 1.0)})
    size = (columns, rows) if turned else (rows, columns)
    factors = lora_tensors({"m.weight": torch.empty(size)}, ["m"], rank)
    adapter = write_adapter(tmp_path / "a", factors, r=rank, lora_alpha=7, fan_in_fan_out=turned)
    text = "merge_method: task_arithmetic\nbase_model: base\nmodels:\n"
    text += "  - {model: base+adapter, parameters: {weight: 1}}\n"
    models = {"base": open_checkpoint("base", FolderSource(folder))}
    seen = set()
    for block in (1 << 16, 3 << 16, 1 << 18, 1 << 19, 1 << 24):
        for threads in (1, 2, 4):
            models["base+adapter"] = opened(folder, adapter)
            plan = plan_merge(parse_recipe(text, "study", "study.yaml"), models)
            found = []
            settings = StreamSettings(threads=threads, device="cpu", block=block)
            BlockStream(plan, settings).run(lambda _, blocks, to=found: to.append(blocks[0].copy()))
            seen.add(np.concatenate(found).tobytes())
    assert len(seen) == 1


def test_any_range_reads_the_same_bits(tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    factory.write_json(folder / "config.json", {})
    factory.write_weights(folder, {"m.weight": factory.draw("w", (77, 130), 0, 1.0)})
    factors = lora_tensors({"m.weight": torch.empty(77, 130)}, ["m"], 9)
    checkpoint = opened(folder, write_adapter(tmp_path / "a", factors, r=9, lora_alpha=7))
    whole = values(checkpoint, "m.weight").view(-1)
    source = source_of(checkpoint, "m.weight")
    for start, count in (
        (0, 1),
        (129, 2),
        (32 * 130 - 1, 3),
        (5000, 5010),
        (77 * 130 - 1, 1),
        (7, 0),
    ):
        part = torch.empty(count)
        source.fill(fetch_stored, start, part)
        assert torch.equal(part, whole[start : start + count])


def test_a_plan_knows_adapters(base, tmp_path):
    tensors = lora_tensors(factory.read_tensors(base), [QUERY], 2)
    adapter = write_adapter(tmp_path / "a", tensors, r=2)
    one, same = opened(base, adapter, "d"), opened(base, adapter, "d")
    other = write_adapter(tmp_path / "b", tensors, r=2, lora_alpha=16)
    assert one.digest == same.digest != "d"
    identity = source_of(one, f"{QUERY}.weight").identity(attrgetter("digest"))
    assert identity != source_of(opened(base, other, "d"), f"{QUERY}.weight").identity(
        attrgetter("digest")
    )
    assert opened(base, adapter).digest is None


def test_what_no_module_covers_is_copied_with_the_change(base, tmp_path):
    tensors = lora_tensors(factory.read_tensors(base), [QUERY], 2)
    adapter = write_adapter(tmp_path / "a", tensors, r=2)
    config = tmp_path / "m.yaml"
    config.write_text(
        f"merge_method: linear\nbase_model: {base}+{adapter}\nmodules:\n  model.norm:\n"
        f"    models: [{{model: {base}}}]\n    parameters: {{weight: 1}}\n"
    )
    merged = factory.read_tensors(merge_in_process(config, tmp_path / "out"))
    assert torch.equal(merged[f"{QUERY}.weight"], values(opened(base, adapter), f"{QUERY}.weight"))


def test_not_a_number_names_both_folders(base, tmp_path):
    tensors = lora_tensors(factory.read_tensors(base), [QUERY], 2)
    tensors[f"{PREFIX}{QUERY}.lora_B.weight"][0, 0] = math.inf
    adapter = write_adapter(tmp_path / "a", tensors, r=2)
    text = "merge_method: passthrough\nmodels: [{model: x}]"
    plan = plan_merge(parse_recipe(text, "s", "s.yaml"), {"x": opened(base, adapter)})
    stream = BlockStream(plan, StreamSettings(threads=1, device="cpu"))
    with pytest.raises(NonFiniteError, match=rf"{base} or {adapter} is damaged"):
        stream.run(lambda *_: None)


REFUSED_CONFIGS = [
    ({"peft_type": "IA3"}, "peft_type is 'IA3'; only LORA adapters can be merged"),
    ({"peft_type": "ADALORA"}, "(?s)^(?!.*Did you mean).*peft_type is 'ADALORA'"),
    ({"peft_type": "LOHA"}, "(?s)^(?!.*Did you mean).*peft_type is 'LOHA'; only LORA"),
    ({"peft_type": "RANDLORA"}, "(?s)^(?!.*Did you mean).*peft_type is 'RANDLORA'; only LORA"),
    ({"peft_type": "PROMPT_TUNING"}, "peft_type is 'PROMPT_TUNING'"),
    ({"use_dora": True}, "use_dora is set, which cannot be merged here: DoRA"),
    ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication is set"),
    ({"target_parameters": ["x"]}, "target_parameters is set"),
    ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights is 'pissa_niter_16'"),
    ({"r": 4}, rf"'{PREFIX}{QUERY}' has rank 2, but adapter_config.json says 4"),
    ({"rank_pattern": {"q_proj": 8}}, "has rank 2, but adapter_config.json says 8"),
    ({"r": 0}, "r is 0; it must be a whole number above 0"),
    ({"alpha_pattern": {"(": 8}}, "which is no regular expression"),
    ({"modules_to_save": ["lm_head"]}, "names 'lm_head', but no tensor of it"),
    ({"target_modules": ["v_proj"]}, rf"do not mean '{QUERY}', but the weights hold factors"),
]


@pytest.mark.parametrize(("config", "message"), REFUSED_CONFIGS)
def test_configs_that_are_refused(base, tmp_path, config, message):
    tensors = lora_tensors(factory.read_tensors(base), [QUERY], 2)
    adapter = write_adapter(tmp_path / "a", tensors, **{"r": 2, **config})
    with pytest.raises(CompatibilityError, match=message):
        opened(base, adapter)


REFUSED_TENSORS = [
    ({f"{PREFIX}model.layers.0.mlp.up_prj.lora_A.weight": (2, 64),
      f"{PREFIX}model.layers.0.mlp.up_prj.lora_B.weight": (96, 2)},
     r"up_prj.weight' is changed by the adapter, but base lacks it. Did you mean '.*up_proj.w"),
    ({f"{PREFIX}{QUERY}.lora_magnitude_vector": (64,)}, "belongs to DoRA"),
    ({f"{PREFIX}{QUERY}.lora_C.weight": (64,)}, "is no lora_A, lora_B"),
    ({"model.stray.weight": (3,)}, "does not start with base_model.model."),
    ({f"{PREFIX}model.stray.weight": (3,)}, "'model.stray.weight' is changed by the adapter"),
    ({f"{PREFIX}model.embed_tokens.weight": (272, 64)},
     r"embed_tokens.weight' is \[272, 64\], but \[264, 64\] in base"),
    ({f"{PREFIX}model.layers.1.mlp.up_proj.lora_A.weight": (2, 64)},
     r"up_proj.lora_A.weight' has no lora_B.weight beside it"),
    ({f"{PREFIX}model.layers.1.mlp.up_proj.lora_A.weight": (2, 60),
      f"{PREFIX}model.layers.1.mlp.up_proj.lora_B.weight": (96, 2)},
     r"makes a change of \[96, 60\], but 'model.layers.1.mlp.up_proj.weight' is F32 \[96, 64\]"),
    ({f"{PREFIX}model.layers.1.mlp.up_proj.lora_A.weight": (2, 64),
      f"{PREFIX}model.layers.1.mlp.up_proj.lora_B.weight": (96, 3)}, r"\[r, in\] and \[out, r\]"),
    ({f"{PREFIX}model.norm.lora_A.weight": (2, 1), f"{PREFIX}model.norm.lora_B.weight": (64, 2)},
     r"makes a change of \[64, 1\], but 'model.norm.weight' is F32 \[64\]"),
    ({f"{PREFIX}{QUERY}.lora_B.bias": (64,)}, "q_proj.bias', which base lacks"),
]  # fmt: skip


@pytest.mark.parametrize(("extra", "message"), REFUSED_TENSORS)
def test_tensors_that_are_refused(base, tmp_path, extra, message):
    tensors = lora_tensors(factory.read_tensors(base), [QUERY], 2)
    tensors |= {name: torch.ones(size) for name, size in extra.items()}
    adapter = write_adapter(tmp_path / "a", tensors, r=2)
    with pytest.raises(CompatibilityError, match=message):
        opened(base, adapter)


def test_all_faults_come_at_once(base, tmp_path):
    tensors = lora_tensors(factory.read_tensors(base), [QUERY], 2)
    tensors |= {f"{PREFIX}model.{name}.weight": torch.ones(3) for name in ("ghost", "spook")}
    with pytest.raises(CompatibilityError, match=r"(?s)ghost.*lacks it.*spook.*lacks") as raised:
        opened(base, write_adapter(tmp_path / "a", tensors, r=2))
    assert len(raised.value.faults) == 2
    with pytest.raises(CompatibilityError, match=r"(?s)use_dora.*has rank 2, but") as raised:
        opened(base, write_adapter(tmp_path / "b", tensors, r=4, use_dora=True))
    assert len(raised.value.faults) == 2


def test_folders_that_are_no_adapters(base, tmp_path):
    with pytest.raises(
        CheckpointError, match=r"has no adapter_config.json; an adapter is a folder"
    ):
        opened(base, base)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(CheckpointError, match=r"holds no adapter_model.safetensors"):
        opened(base, tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(
        CheckpointError, match=r"pickled weights \(adapter_model.bin\), which can run"
    ):
        opened(base, tmp_path)


def test_the_command_line_takes_base_and_adapter(base, tmp_path):
    before = factory.read_tensors(base)
    tensors = lora_tensors(before, [QUERY], 2)
    adapter = write_adapter(tmp_path / "a", tensors, r=2, lora_alpha=2)
    further = write_adapter(tmp_path / "b", tensors, r=2, lora_alpha=4)
    config = tmp_path / "m.yaml"
    config.write_text(
        "merge_method: linear\nparameters: {normalize: false, weight: 1.0}\n"
        f"models: [{{model: {base}+{adapter}}}, {{model: {base}+{adapter}+{further}}}]\n"
    )
    shown = ronghe("plan", config, "--json")
    assert shown.returncode == 0, shown.stderr
    assert [each["name"] for each in json.loads(shown.stdout)["inputs"]] == [
        f"{base}+{adapter}", f"{base}+{adapter}+{further}"
    ]  # fmt: skip
    result = ronghe("merge", config, tmp_path / "out", "--device", "cpu")
    assert result.returncode == 0, result.stderr
    down, up = (tensors[f"{PREFIX}{QUERY}.lora_{each}.weight"] for each in "AB")
    merged = factory.read_tensors(tmp_path / "out")[f"{QUERY}.weight"]
    expected = 2 * before[f"{QUERY}.weight"] + 4 * (up @ down)
    torch.testing.assert_close(merged, expected, rtol=1e-6, atol=1e-6)


def test_the_command_line_reports_all_that_is_missing_and_wrong(base, tmp_path):
    config = tmp_path / "m.yaml"
    config.write_text(
        "merge_method: linear\nparameters: {weight: 1.0}\n"
        f"models: [{{model: {base}+{tmp_path}/gone}}, {{model: {tmp_path}/lost+{base}}}]\n"
    )
    result = ronghe("plan", config)
    assert result.returncode == 2
    assert f"there is no folder {tmp_path}/gone" in result.stderr
    assert f"there is no folder {tmp_path}/lost" in result.stderr
    tensors = lora_tensors(factory.read_tensors(base), [QUERY], 2)
    one = write_adapter(tmp_path / "a", tensors, r=4)
    two = write_adapter(tmp_path / "b", tensors, r=2, use_dora=True)
    config.write_text(
        "merge_method: linear\nparameters: {weight: 1.0}\n"
        f"models: [{{model: {base}+{one}}}, {{model: {base}+{two}}}]\n"
    )
    result = ronghe("plan", config)
    assert result.returncode == 2
    assert f"model '{base}+{one}'" in result.stderr
    assert f"model '{base}+{two}'" in result.stderr
