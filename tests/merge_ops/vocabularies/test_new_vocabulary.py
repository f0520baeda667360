"""`vocabulary: extend` end to end: the model says what it said, Chinese takes fewer tokens."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CompatibilityError, RecipeError
from merge_ops.plans.plan_json import plan_json
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.document import recipe_document
from merge_ops.recipes.reading import parse_recipe
from tests.merges.merging import merge_in_process
from tests.models import checkpoint_factory as factory
from tests.models import grown_tokenizers as grown

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
EXTEND = "vocabulary: {extend: [茯苓, 当归, 融合模型], pad_to_multiple_of: 64}\n"


def write(folder, tokenizer=None, seed=0, rows=340, **settings):
    """A model of 340 rows, of which the tokenizer has 332: eight are padding."""
    shape = replace(factory.LLAMA, vocabulary=rows, layers=2, **settings)
    tensors = factory.base_tensors(shape)
    if seed:
        tensors = factory.expert_tensors(tensors, seed, 0.02)
    factory.write_checkpoint(folder, tensors, shape)
    grown.write(tokenizer or grown.byte_level(), folder)
    factory.edit_config(folder, bos_token_id=330, eos_token_id=330)
    return folder


def merged(out, text):
    config = out.parent / f"{out.name}.yaml"
    config.write_text(text, encoding="utf-8")
    return merge_in_process(config, out)


def logits(folder, ids):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("vocabulary")


@pytest.fixture(scope="module")
def base(root):
    return write(root / "base")


@pytest.fixture(scope="module")
def longer(root, base):
    return merged(root / "longer", f"{EXTEND}models: [{{model: {base}}}]\n")


def test_old_texts_have_their_tokens_and_their_logits_to_the_bit(base, longer):
    old, new = tokenizer(base), tokenizer(longer)
    for text in (*grown.ENGLISH, "<|endoftext|> many"):
        assert new.encode(text) == old.encode(text)
    ids = old.encode(grown.ENGLISH[0])
    assert torch.equal(logits(longer, ids)[:, :332], logits(base, ids)[:, :332])
    assert (new.eos_token, new.eos_token_id) == (old.eos_token, old.eos_token_id)


def test_chinese_takes_fewer_tokens_and_comes_back(base, longer):
    old, new = tokenizer(base), tokenizer(longer)
    text = f"{grown.CHINESE} {grown.ENGLISH[0]}"
    assert len(new.encode(text)) < len(old.encode(text)) - 20
    assert new.decode(new.encode(text)) == text
    assert new.encode("茯苓") == [332]


def test_rows_are_means_of_the_parts_and_padding_is_the_mean_of_all(base, longer):
    config = json.loads((longer / "config.json").read_text())
    ids = tokenizer(base).encode("茯苓")
    for name in (EMBEDDING, HEAD):
        before, after = factory.read_tensors(base)[name], factory.read_tensors(longer)[name]
        assert after.shape[0] == config["vocab_size"] == 384
        assert torch.equal(after[:332], before[:332])
        mean = np.float32(before[ids[0]].numpy())
        for number in ids[1:]:
            mean = mean + before[number].numpy()
        assert np.array_equal(after[332].numpy(), mean / np.float32(len(ids)))
        used = len(tokenizer(longer))
        whole = after[:used].double().mean(dim=0).float()
        torch.testing.assert_close(after[used], whole, rtol=0, atol=1e-8)
        assert torch.equal(after[used], after[383])


@pytest.mark.parametrize("kind", ["pieces", "unigram"])
def test_tied_models_of_other_tokenizers_keep_their_logits_too(tmp_path, kind):
    base = write(tmp_path / "base", grown.KINDS[kind](), tied=True, dtype=torch.bfloat16)
    factory.edit_config(base, bos_token_id=1, eos_token_id=2)
    out = merged(tmp_path / "out", f"{EXTEND}models: [{{model: {base}}}]\n")
    assert HEAD not in factory.read_tensors(out)
    old, new = tokenizer(base), tokenizer(out)
    ids = old.encode(grown.ENGLISH[1])
    assert new.encode(grown.ENGLISH[1]) == ids
    count = len(old)
    assert torch.equal(logits(out, ids)[:, :count], logits(base, ids)[:, :count])
    if kind == "pieces":  # a Unigram model had one <unk> for all of it
        assert len(new.encode(grown.CHINESE)) < len(old.encode(grown.CHINESE)) - 15
    assert new.decode(new.encode("茯苓")) == "茯苓"


def test_new_rows_as_the_mean_of_all_or_zero(tmp_path, base):
    for rows, expected in (("mean", None), ("zero", 0.0)):
        text = f"vocabulary: {{extend: [茯苓], new_rows: {rows}}}\nmodels: [{{model: {base}}}]\n"
        table = factory.read_tensors(merged(tmp_path / rows, text))[EMBEDDING]
        wanted = table.new_zeros(64) if expected == 0.0 else None
        if wanted is None:  # of all rows that have values: the old ones but those that became new
            used = [*range(332), *range(332 + 5, 340)]
            wanted = factory.read_tensors(base)[EMBEDDING][used].double().mean(dim=0).float()
        torch.testing.assert_close(table[332], wanted, rtol=0, atol=1e-8)


# --------------------------------------------------------- merges with experts that have the tokens


def test_a_longer_base_merges_with_an_expert_that_has_its_tokens(root, longer, tmp_path):
    """Acceptance: by the same vocabulary, and by token where the expert numbers them otherwise."""
    expert = write(tmp_path / "expert", grown.byte_level(), 1)
    twin = merged(tmp_path / "twin", f"{EXTEND}models: [{{model: {expert}}}]\n")
    text = f"merge_method: linear\nmodels: [{{model: {longer}}}, {{model: {twin}}}]\n"
    out = merged(tmp_path / "same", text + "parameters: {weight: 0.5}\n")
    one, two, both = (factory.read_tensors(each)[EMBEDDING] for each in (longer, twin, out))
    torch.testing.assert_close(both, (one + two) / 2, rtol=0, atol=1e-7)
    assert tokenizer(out).encode(grown.CHINESE) == tokenizer(longer).encode(grown.CHINESE)
    moved = f"vocabulary: {{extend: [融合模型, 茯苓, 当归]}}\nmodels: [{{model: {expert}}}]\n"
    other = merged(tmp_path / "other", moved)
    text = (
        f"merge_method: task_arithmetic\nbase_model: {longer}\nmodels: [{{model: {other}}}]\n"
        "parameters: {weight: 0.5}\ntokenizer: {source: base}\n"
    )
    out = merged(tmp_path / "by-token", text)
    rows = factory.read_tensors(out)[EMBEDDING], factory.read_tensors(other)[EMBEDDING]
    number = tokenizer(other).encode("茯苓")
    assert number == [333]
    torch.testing.assert_close(rows[0][332], (one[332] + rows[1][333]) / 2, rtol=0, atol=1e-7)
    assert tokenizer(out).encode("茯苓") == [332]
    assert torch.isfinite(logits(out, tokenizer(out).encode(grown.CHINESE))).all()


# ------------------------------------------------------------------------------ plans and refusals


def planned(text, **folders):
    opened = {
        name: open_checkpoint(name, FolderSource(folder), f"digest of {name}")
        for name, folder in folders.items()
    }
    return plan_merge(parse_recipe(text, "longer", "longer.yaml"), opened)


def test_the_plan_tells_the_new_vocabulary_and_its_digest_stands_for_the_tokens(base):
    text = "vocabulary: {{extend: [{}]}}\nmodels: [{{model: m}}]\n"
    one, two = (planned(text.format(each), m=base) for each in ("茯苓", "茯芩"))
    assert one.outputs[0].digest not in (None, two.outputs[0].digest)
    told = plan_json(one)["vocabulary"]
    written = {"extend": ["茯苓"], "new_rows": "subword_mean"}
    counts = {"tokens": 337, "rows": 340, "new": 5, "bridges": 4}
    assert told == {**counts, "vocabulary": written}
    assert one.tokenizer.summary == (
        "vocabulary: 5 new tokens from 332 on, 4 of them parts of others, 340 rows"
    )
    assert recipe_document(one.recipe, {})["vocabulary"] == written


def test_tokens_of_a_model_are_named_by_it(base, longer):
    plan = planned("vocabulary: {extend: other}\nmodels: [{model: m}]\n", m=base, other=longer)
    assert plan.role_of(plan.checkpoints[-1]) == "gives its vocabulary"
    assert plan_json(plan)["vocabulary"]["bridges"] == 0  # the other's bridges are its tokens


def test_a_chat_template_may_stand_beside(base):
    plan = planned(f"{EXTEND}models: [{{model: m}}]\nchat_template: chatml\n", m=base)
    assert "chat_template.jinja" in plan.tokenizer.files


def lengthen_head(folder):
    tensors = factory.read_tensors(folder)
    tensors[HEAD] = torch.cat([tensors[HEAD], tensors[HEAD][:8]])
    factory.rewrite_weights(folder, tensors)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: factory.edit_config(f, vocab_size=None), None),
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lengthen_head, "both must have a row for each token"),
    ],
)
def test_models_that_cannot_have_more_rows(tmp_path, spoil, message):
    folder = write(tmp_path / "m")
    if message is None:
        config = json.loads((folder / "config.json").read_text())
        del config["vocab_size"]
        factory.write_json(folder / "config.json", config)
        message = "does not say `vocab_size`"
    else:
        spoil(folder)
    with pytest.raises(CompatibilityError, match=message):
        planned(f"{EXTEND}models: [{{model: m}}]\n", m=folder)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("vocabulary: {extnd: x}", "Did you mean 'extend'"),
        ("vocabulary: {extend: x, transplant: y}", "has both"),
        ("vocabulary: chinese", "must be a mapping"),
        ("vocabulary: {extend: []}", "is empty; list the new tokens"),
        ("vocabulary: {extend: [a, a]}", "stands in the list before"),
        ("vocabulary: {extend: [1]}", "a token is text"),
        ("vocabulary: {extend: x, new_rows: hewitt}", "must be one of subword_mean, mean, zero"),
        ("vocabulary: {extend: x, k: 3}", "It belongs to `transplant`"),
        ("vocabulary: {extend: [a], only: chinese}", "has no effect on a list"),
        ("vocabulary: {extend: x, only: han}", "must be one of chinese"),
        ("vocabulary: {transplant: x.model}", "so name a model"),
        ("vocabulary: {transplant: x, k: 0}", "a whole number from 1 to 1024"),
        ("vocabulary: {transplant: x, approximation: mean, k: 3}", "has no effect without"),
        ("vocabulary: {extend: x}\nmerge_method: ties", "merges nothing: leave it out"),
        ("vocabulary: {extend: x}\nbase_model: y", "has no place beside `vocabulary`"),
        ("vocabulary: {extend: x}\ntokenizer: {source: base}", "has no place beside"),
    ],
)
def test_impossible_values_are_faults_at_once(keys, message):
    with pytest.raises(RecipeError, match=message):
        parse_recipe(f"{keys}\nmodels: [{{model: m}}]\n", "longer", "longer.yaml")
