"""Adapters that bring an embedding and a head with rows of their own, and who names the output."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from merge_ops.checkpoints.files.byte_sources import FolderSource, read_file
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CompatibilityError
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from merge_ops.sources.lora.adapters import open_adapter
from tests.merges.merging import merge_in_process, ronghe
from tests.models import checkpoint_factory as factory
from tests.models.adapter_factory import PREFIX, lora_tensors, write_adapter

QUERY = "model.layers.0.self_attn.q_proj"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
ROWS, LONGER = 264, 272
ADDED = ("茯苓", "当归", "<|tool|>")
ALONE = (
    "merge_method: linear\nmodels:\n  - {{model: {base}+{adapter}, parameters: {{weight: 1.0}}}}\n"
)


def written_base(folder, shape=factory.LLAMA):
    base = factory.write_checkpoint(folder, factory.base_tensors(shape), shape)
    factory.write_tokenizer(base)
    return base


def saved(rows=LONGER, names=(EMBEDDING, HEAD), seed=5):
    return {f"{PREFIX}{name}": factory.draw(name, (rows, 64), seed, 0.02) for name in names}


def written_adapter(folder, whole, tokenizer=True, shape=factory.LLAMA, **config):
    tensors = lora_tensors(factory.base_tensors(shape), [QUERY], 2) | whole
    adapter = write_adapter(folder, tensors, **{"r": 2, "lora_alpha": 4, **config})
    if tokenizer:
        factory.write_tokenizer(adapter, added=ADDED)
    return adapter


def opened(base, adapter):
    below = open_checkpoint("base", FolderSource(base))
    return open_adapter("base+adapter", below, FolderSource(adapter))


def merged(folder, text, **models):
    (folder / "m.yaml").write_text(text.format(**models))
    return merge_in_process(folder / "m.yaml", folder / "out")


def by_hand(base, adapter, **changed):
    """The base's tensors with the adapter's: W + 2 · B A, and those saved whole."""
    tensors, own = factory.read_tensors(base), factory.read_tensors(adapter)
    down, up = (own.pop(f"{PREFIX}{QUERY}.lora_{each}.weight").double() for each in "AB")
    tensors[f"{QUERY}.weight"] = (tensors[f"{QUERY}.weight"].double() + 2 * up @ down).float()
    return tensors | {name.removeprefix(PREFIX): value for name, value in own.items()}


@pytest.mark.parametrize("shape", [factory.LLAMA, factory.QWEN2], ids=["untied", "tied"])
def test_the_result_has_the_adapters_rows_and_tokenizer(tmp_path, shape):
    base = written_base(tmp_path / "base", shape)
    adapter = written_adapter(tmp_path / "a", saved(), shape=shape)
    out = merged(tmp_path, ALONE, base=base, adapter=adapter)
    expected = by_hand(base, adapter)
    result = factory.read_tensors(out)
    assert sorted(result) == sorted(expected)
    for name, value in result.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-7)
    config = json.loads((out / "config.json").read_text())
    assert (config["vocab_size"], config["tie_word_embeddings"]) == (LONGER, False)
    assert AutoTokenizer.from_pretrained(out).convert_tokens_to_ids("茯苓") == 259
    reference = AutoModelForCausalLM.from_pretrained(base)
    reference.resize_token_embeddings(LONGER, mean_resizing=False)
    reference.config.tie_word_embeddings = False
    reference.lm_head.weight = torch.nn.Parameter(expected[HEAD])
    reference.load_state_dict(expected)
    tokens = torch.tensor([[259, 7, LONGER - 1, 260]])
    with torch.inference_mode():
        ours = AutoModelForCausalLM.from_pretrained(out)(tokens).logits
        torch.testing.assert_close(ours, reference(tokens).logits, rtol=1e-5, atol=1e-6)


def test_fewer_rows_replace_the_bases_as_well(tmp_path):
    """As where padding rows were cut off by resize_token_embeddings(len(tokenizer))."""
    base = written_base(tmp_path / "base")
    adapter = written_adapter(tmp_path / "a", saved(262))
    out = merged(tmp_path, ALONE, base=base, adapter=adapter)
    assert factory.read_tensors(out)[HEAD].shape == (262, 64)
    assert json.loads((out / "config.json").read_text())["vocab_size"] == 262
    AutoModelForCausalLM.from_pretrained(out)


def test_tokens_in_padding_rows_come_with_the_adapters_tokenizer(tmp_path):
    """As many rows as before, of which more are used: the embedding was trained for them."""
    base = written_base(tmp_path / "base")
    adapter = written_adapter(tmp_path / "a", saved(ROWS))
    out = merged(tmp_path, ALONE, base=base, adapter=adapter)
    assert AutoTokenizer.from_pretrained(out).convert_tokens_to_ids("茯苓") == 259


def test_an_adapter_of_layers_alone_leaves_the_bases_tokenizer(tmp_path):
    base = written_base(tmp_path / "base")
    adapter = written_adapter(tmp_path / "a", {})
    checkpoint = opened(base, adapter)
    kept = read_file(checkpoint.source, "tokenizer.json", 0, checkpoint.files["tokenizer.json"])
    assert kept == (base / "tokenizer.json").read_bytes()


def test_other_forms_of_the_bases_vocabulary_go(tmp_path):
    """A tokenizer.model of the base would contradict the adapter's tokenizer.json."""
    base = written_base(tmp_path / "base")
    (base / "tokenizer.model").write_bytes(b"old")
    (base / "chat_template.jinja").write_text("of the base")
    out = merged(tmp_path, ALONE, base=base, adapter=written_adapter(tmp_path / "a", saved()))
    assert not (out / "tokenizer.model").exists()
    assert (out / "chat_template.jinja").read_text() == "of the base"


def test_without_a_tokenizer_a_caution_says_what_to_do(tmp_path):
    base = written_base(tmp_path / "base")
    adapter = written_adapter(tmp_path / "a", saved(), tokenizer=False)
    text = "merge_method: passthrough\nmodels: [{model: x}]"
    plan = plan_merge(parse_recipe(text, "s", "s.yaml"), {"x": opened(base, adapter)})
    (caution,) = plan.cautions
    assert "has 272 rows for tokens by its adapter" in str(caution)
    assert "Put the tokenizer that the adapter was trained with into" in str(caution)


REFUSED = {
    "only the embedding": (
        saved(names=[EMBEDDING]),
        r"(?s)embed_tokens.weight' is \[272, 64\], but \[264, 64\] in base, and 'lm_head.weight'"
        r" has 264 rows; save every tensor.*resize_token_embeddings\(272\)",
    ),
    "only the head": (
        saved(names=[HEAD]),
        r"lm_head.weight' is \[272, 64\], but \[264, 64\] in base, and 'model.embed_tokens.weight'",
    ),
    "two lengths": (
        saved(names=[EMBEDDING]) | saved(280, names=[HEAD]),
        r"has 272 rows; save every tensor",
    ),
    "another width": (
        {f"{PREFIX}{EMBEDDING}": torch.ones(272, 60)},
        r"is \[272, 60\], but \[264, 64\] in base; only equal shapes merge",
    ),
    "low rank": (
        {
            f"{PREFIX}model.embed_tokens.lora_embedding_A": torch.ones(2, 272),
            f"{PREFIX}model.embed_tokens.lora_embedding_B": torch.ones(64, 2),
        },
        r"makes a change of \[272, 64\].*bring the base to 272 rows first",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("shape", [factory.LLAMA, factory.QWEN2], ids=["untied", "tied"])
def test_one_of_both_is_refused(tmp_path, kind, shape):
    whole, message = REFUSED[kind]
    base = written_base(tmp_path / "base", shape)
    with pytest.raises(CompatibilityError, match=message):
        opened(base, written_adapter(tmp_path / "a", whole, shape=shape))


def test_a_heads_bias_must_follow(tmp_path):
    tensors = {**factory.base_tensors(factory.LLAMA), "lm_head.bias": torch.zeros(ROWS)}
    base = factory.write_checkpoint(tmp_path / "base", tensors, factory.LLAMA)
    with pytest.raises(CompatibilityError, match=r"and 'lm_head.bias' has 264 rows"):
        opened(base, written_adapter(tmp_path / "a", saved()))
    bias = {f"{PREFIX}lm_head.bias": torch.ones(LONGER)}
    checkpoint = opened(base, written_adapter(tmp_path / "b", saved() | bias))
    assert checkpoint.tensors["lm_head.bias"].shape == (LONGER,)


def test_beside_the_base_the_vocabulary_policy_applies(tmp_path):
    base = written_base(tmp_path / "base")
    adapter = written_adapter(tmp_path / "a", saved())
    text = (
        "merge_method: linear\nbase_model: {base}\nmodels:\n"
        "  - {{model: {base}, parameters: {{weight: 0.5}}}}\n"
        "  - {{model: {base}+{adapter}, parameters: {{weight: 0.5}}}}\n"
    )
    with pytest.raises(CompatibilityError, match=r"another vocabulary than .*3 new"):
        merged(tmp_path, text, base=base, adapter=adapter)
    out = merged(tmp_path, text + "tokenizer: {{source: union}}\n", base=base, adapter=adapter)
    before, own = factory.read_tensors(base), factory.read_tensors(adapter)
    result = factory.read_tensors(out)
    new = slice(259, 262)
    torch.testing.assert_close(
        result[HEAD][:256], (before[HEAD][:256] + own[f"{PREFIX}{HEAD}"][:256]) / 2
    )
    torch.testing.assert_close(result[EMBEDDING][new], own[f"{PREFIX}{EMBEDDING}"][new])
    assert AutoTokenizer.from_pretrained(out).convert_tokens_to_ids("茯苓") == 259
    assert json.loads((out / "config.json").read_text())["vocab_size"] == 262


# --------------------------------------------------------------------------- names of the output


LED_BY_AN_ADAPTER = {
    "models": ALONE,
    "stock": "merge_method: model_stock\nbase_model: {base}+{adapter}\n"
    "models: [{{model: {base}}}, {{model: {base}+{other}}}]\n",
    "slices": "merge_method: passthrough\nslices:\n"
    "  - sources: [{{model: {base}+{adapter}, layer_range: [0, 2]}}]\n"
    "  - sources: [{{model: {base}, layer_range: [1, 3]}}]\n",
    "modules": "merge_method: linear\nbase_model: {base}+{adapter}\nmodules:\n"
    "  text_decoder: {{models: [{{model: {base}}}], parameters: {{weight: 1}}}}\n",
}


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("form", LED_BY_AN_ADAPTER)
def test_the_base_names_the_output(tmp_path, form, shards):
    shape = factory.LLAMA
    base = factory.write_checkpoint(
        tmp_path / "base", factory.base_tensors(shape), shape, shards=shards
    )
    adapter = written_adapter(tmp_path / "a", saved(ROWS, [HEAD]), tokenizer=False)
    other = written_adapter(tmp_path / "b", {}, tokenizer=False)
    text = LED_BY_AN_ADAPTER[form]
    out = merged(tmp_path, text, base=base, adapter=adapter, other=other)
    assert [path.name for path in out.glob("*.safetensors")] == ["model.safetensors"]
    AutoModelForCausalLM.from_pretrained(out)


def test_a_chain_of_steps_is_named_by_its_base(tmp_path):
    base = written_base(tmp_path / "base")
    adapter = written_adapter(tmp_path / "a", saved())
    text = f"name: first\n{ALONE}---\nname: second\n{ALONE}".replace(
        "second\nmerge_method: linear\nmodels:\n  - {{model: {base}+{adapter}",
        "second\nmerge_method: linear\nmodels:\n  - {{model: first",
    )
    (tmp_path / "m.yaml").write_text(text.format(base=base, adapter=adapter))
    done = ronghe("merge", tmp_path / "m.yaml", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "out").glob("*.safetensors")] == ["model.safetensors"]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.config.vocab_size == LONGER
    torch.testing.assert_close(loaded.lm_head.weight.data, saved()[f"{PREFIX}{HEAD}"])


def test_files_of_diffusers_keep_their_name(tmp_path):
    """An adapter with a module saved whole on weights that are called otherwise."""
    shape = replace(factory.LLAMA, layers=1)
    base = factory.write_checkpoint(tmp_path / "base", factory.base_tensors(shape), shape)
    (base / "model.safetensors").rename(base / "diffusion_pytorch_model.safetensors")
    factory.edit_config(base, _class_name="UNet2DConditionModel")
    adapter = written_adapter(tmp_path / "a", saved(ROWS), tokenizer=False, shape=shape)
    out = merged(tmp_path, ALONE, base=base, adapter=adapter)
    assert [path.name for path in out.glob("*.safetensors")] == [
        "diffusion_pytorch_model.safetensors"
    ]
