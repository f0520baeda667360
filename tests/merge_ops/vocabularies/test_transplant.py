"""`vocabulary: transplant`: a donor's tokenizer on a model, by hand and by its laws."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CompatibilityError, NonFiniteError, RecipeError
from merge_ops.jobs.assembly import merge
from merge_ops.plans.plan_json import plan_json
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from merge_ops.sources import matched_rows
from merge_ops.stream.stream import StreamSettings
from tests.merge_ops.measures.test_matching_pursuit import by_definition
from tests.merges.merging import merge_in_process
from tests.models import checkpoint_factory as factory
from tests.models import grown_tokenizers as grown

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
CORPUS = (*grown.ENGLISH, "an other text, of other words", *["茯苓 当归 融合 模型"] * 3)
OTHER = grown.byte_level(380, CORPUS)
SIZE, END = OTHER.get_vocab_size(), OTHER.token_to_id(grown.END)


def write(folder, tokenizer, seed=0, **settings):
    end = tokenizer.token_to_id(grown.END)
    shape = replace(factory.LLAMA, vocabulary=432, layers=1, **settings)
    factory.write_checkpoint(folder, factory.base_tensors(shape, seed), shape)
    grown.write(tokenizer, folder)
    factory.edit_config(folder, bos_token_id=end, eos_token_id=end)
    factory.write_json(folder / "generation_config.json", {"eos_token_id": end})
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model, and a donor of another width and with other tokens of the same kind."""
    root = tmp_path_factory.mktemp("transplant")
    model = write(root / "model", grown.byte_level())
    donor = write(root / "donor", OTHER, 7, hidden=32)
    llama = write(root / "llama", grown.pieces(420, CORPUS), 8)
    return {"model": model, "donor": donor, "llama": llama}


def planned(keys, folders, donor="donor", model="model"):
    text = f"vocabulary: {{transplant: {donor}, {keys}}}\nmodels: [{{model: {model}}}]\n"
    opened = {
        name: open_checkpoint(name, FolderSource(folder), f"digest of {name}")
        for name, folder in folders.items()
    }
    return plan_merge(parse_recipe(text, "other", "other.yaml"), opened)


def merged(out, *asked, threads=1, **named):
    merge(planned(*asked, **named), out, StreamSettings(threads=threads, device="cpu"))
    return out


def vocabularies(*folders):
    return [AutoTokenizer.from_pretrained(each).get_vocab() for each in folders]


def test_shared_tokens_keep_their_rows_and_others_are_sums_by_the_donors(folders, tmp_path):
    out = merged(tmp_path / "out", "k: 6", folders)
    ours, theirs = vocabularies(folders["model"], folders["donor"])
    shared = sorted((t for t in theirs if t in ours), key=theirs.__getitem__)
    lacking = [t for t in theirs if t not in ours]
    assert len(lacking) > 20
    for name in (EMBEDDING, HEAD):
        own, donor, made = (
            factory.read_tensors(each)[name] for each in (folders["model"], folders["donor"], out)
        )
        assert made.shape == (SIZE, 64)
        for token in shared:
            assert torch.equal(made[theirs[token]], own[ours[token]])
        atoms = donor[[theirs[t] for t in shared]].double().numpy()
        mine = own[[ours[t] for t in shared]].double().numpy()
        for token in lacking[:8]:
            chosen, shares = by_definition(donor[theirs[token]].double().numpy(), atoms, 6)
            found = made[theirs[token]].double().numpy()
            np.testing.assert_allclose(found, shares @ mine[chosen], rtol=1e-5, atol=1e-7)


def test_the_result_loads_with_the_donors_tokenizer_and_its_end(folders, tmp_path):
    out = merged(tmp_path / "out", "k: 4, pad_to_multiple_of: 64", folders)
    config = json.loads((out / "config.json").read_text())
    generation = json.loads((out / "generation_config.json").read_text())
    assert (config["vocab_size"], config["eos_token_id"], config["hidden_size"]) == (384, END, 64)
    assert generation["eos_token_id"] == END
    tokenizer = AutoTokenizer.from_pretrained(out)
    ids = tokenizer.encode(grown.CHINESE)
    assert ids == AutoTokenizer.from_pretrained(folders["donor"]).encode(grown.CHINESE)
    model = AutoModelForCausalLM.from_pretrained(out)
    with torch.no_grad():
        assert torch.isfinite(model(torch.tensor([ids])).logits).all()


def test_the_same_tokenizer_changes_nothing(folders, tmp_path):
    out = merged(tmp_path / "out", "k: 4", folders, donor="model")
    one, two = factory.read_tensors(folders["model"]), factory.read_tensors(out)
    assert all(torch.equal(two[name][:332], one[name][:332]) for name in one)


def test_cuts_and_threads_change_no_bit(folders, tmp_path):
    one = merged(tmp_path / "one", "k: 5", folders)
    two = merged(tmp_path / "two", "k: 5", folders, threads=4)
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()


def test_rows_are_made_on_the_cores_that_the_container_has(folders, tmp_path, monkeypatch):
    asked, pool = [], matched_rows.ThreadPoolExecutor

    def counted(workers, name):
        asked.append(workers)
        return pool(workers, name)

    monkeypatch.setattr(matched_rows, "usable_cores", lambda: 3)
    monkeypatch.setattr(matched_rows, "ThreadPoolExecutor", counted)
    merged(tmp_path / "out", "k: 4", folders)
    assert asked == [3, 3]  # the embedding, and the head


def test_subword_means_across_kinds_of_tokenizers(folders, tmp_path):
    """▁the and Ġthe are one token, as the byte 0x41 and A are; the end is the end."""
    keys = "approximation: subword_mean"
    out = merged(tmp_path / "out", keys, folders, donor="llama")
    tokenizer = AutoTokenizer.from_pretrained(folders["model"])
    ours, theirs = vocabularies(folders["model"], folders["llama"])
    own, made = (factory.read_tensors(each)[EMBEDDING] for each in (folders["model"], out))
    assert torch.equal(made[theirs["▁model"]], own[ours["Ġmodel"]])
    assert torch.equal(made[theirs["<0x41>"]], own[ours["A"]])
    assert torch.equal(made[theirs["<0xE8>"]], own[ours["è"]])
    assert torch.equal(made[theirs[grown.END]], own[ours[grown.END]])
    ids = tokenizer.encode(" 茯")
    torch.testing.assert_close(made[theirs["▁茯"]], own[ids].mean(dim=0), rtol=0, atol=1e-7)
    back = merged(tmp_path / "back", keys, folders, donor="donor", model="llama")
    made, own = (factory.read_tensors(each)[EMBEDDING] for each in (back, folders["llama"]))
    (donors,) = vocabularies(folders["donor"])
    assert torch.equal(made[donors["è"]], own[theirs["<0xE8>"]])


@pytest.mark.parametrize(
    ("keys", "value"), [("approximation: zero", 0.0), ("approximation: mean", None)]
)
def test_zero_and_mean(folders, tmp_path, keys, value):
    out = merged(tmp_path / "out", keys, folders)
    ours, theirs = vocabularies(folders["model"], folders["donor"])
    lacking = next(t for t in theirs if t not in ours)
    made = factory.read_tensors(out)[EMBEDDING]
    kept = made[[number for token, number in theirs.items() if token in ours]]
    wanted = torch.zeros(64) if value == 0.0 else kept.double().mean(dim=0).float()
    torch.testing.assert_close(made[theirs[lacking]], wanted, rtol=0, atol=1e-7)


def test_rows_that_the_donor_turned_are_turned_back(folders, tmp_path):
    turned = write(tmp_path / "turned", OTHER, 7)
    tensors = factory.read_tensors(turned)
    ours, theirs = vocabularies(folders["model"], turned)
    turn = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(1))).Q
    lacking = [number for token, number in theirs.items() if token not in ours]
    for name in (EMBEDDING, HEAD):
        own = factory.read_tensors(folders["model"])[name]
        tensors[name] = torch.randn(tensors[name].shape, generator=torch.Generator().manual_seed(2))
        for token, number in theirs.items():
            if token in ours:
                tensors[name][number] = own[ours[token]] @ turn + 0.5
    factory.rewrite_weights(turned, tensors)
    found = {**folders, "turned": turned}
    keys = "approximation: landmark_pca"
    out = merged(tmp_path / "out", keys, found, donor="turned", threads=3)
    made = factory.read_tensors(out)[EMBEDDING][lacking]
    wanted = (tensors[EMBEDDING][lacking] - 0.5) @ turn.T
    torch.testing.assert_close(made, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "keys",
    ["k: 33", "approximation: common_interpolation, k: 400",
     "approximation: common_interpolation, weight_scheme: barycentric, k: 33"],
)  # fmt: skip
def test_more_than_the_common_tokens_can_tell_is_refused(folders, keys):
    with pytest.raises(CompatibilityError, match=r"vocabulary\.k is \d+; .* tokens in common"):
        planned(keys, folders)
    planned("approximation: common_interpolation, k: 100", folders)  # more than 32 columns


@pytest.mark.parametrize(
    ("keys", "name", "told"),
    [
        ("approximation: randn", "approximation", "draws rows that know nothing"),
        ("approximation: john_hewitt", "approximation", "mean is that mean"),
        ("approximation: stb", "approximation", "ends with an error in mergekit"),
        ("approximation: mp_rope", "approximation", "a rotation of queries and keys"),
        ("approximation: subword", "approximation", "is mergekit's name of several"),
        ("approximation: subword_sum", "approximation", "as many times too long"),
        ("weight_scheme: barycentric", "weight_scheme", "no effect without `approximation: common"),
        ("approximation: common_interpolation, distance: cosin", "distance", "Did you mean"),
        ("approximation: landmark_pca, k: 3", "k", "no effect without"),
    ],
)
def test_ways_that_are_not_taken_are_refused_with_the_reason(folders, keys, name, told):
    with pytest.raises(RecipeError, match=rf"vocabulary\.{name} .*{told}"):
        planned(keys, folders)


def test_the_plan_tells_what_is_shared(folders):
    plan = planned("k: 4", folders)
    told = plan_json(plan)["vocabulary"]
    assert told["shared"] + told["new"] == told["tokens"] == told["rows"] == SIZE
    assert f"{told['new']} by omp, {SIZE} rows" in plan.tokenizer.summary
    assert [plan.role_of(each) for each in plan.checkpoints][-1] == "gives its vocabulary"
    other = planned("k: 5", folders)
    assert plan.outputs[0].digest not in (None, other.outputs[0].digest)


def test_models_whose_vocabularies_differed_merge_after_it(folders, tmp_path):
    """By the donor's tokens; without it there is hardly a row that means the same in both."""
    alike = merged(tmp_path / "alike", "k: 8, pad_to_multiple_of: 432", folders, donor="llama")
    config = tmp_path / "merge.yaml"
    text = "merge_method: linear\nparameters: {weight: 0.5}\nmodels:\n"
    config.write_text(f"{text}- model: {folders['llama']}\n- model: {alike}\n")
    out = merge_in_process(config, tmp_path / "out")
    one, two, both = (
        factory.read_tensors(each)[EMBEDDING] for each in (folders["llama"], alike, out)
    )
    torch.testing.assert_close(both, (one + two) / 2, rtol=0, atol=1e-7)
    config.write_text(f"{text}- model: {folders['llama']}\n- model: {folders['model']}\n")
    with pytest.raises(CompatibilityError, match="has another vocabulary than"):
        merge_in_process(config, tmp_path / "refused")


# ------------------------------------------------------------------------------------ refused


def test_more_rows_than_say_anything_are_refused(folders):
    with pytest.raises(CompatibilityError, match="with rows of 32: at most 32 rows say more"):
        planned("k: 33", folders)


def test_a_donor_without_a_tokenizer_is_refused(folders, tmp_path):
    donor = write(tmp_path / "donor", grown.byte_level())
    (donor / "tokenizer.json").unlink()
    with pytest.raises(CompatibilityError, match=r"has no tokenizer\.json"):
        planned("k: 4", {**folders, "donor": donor})


def test_a_donor_with_rows_that_are_none_is_refused(folders, tmp_path):
    donor = write(tmp_path / "donor", OTHER, 7)
    tensors = factory.read_tensors(donor)
    tensors[EMBEDDING][5, 3] = float("nan")
    factory.rewrite_weights(donor, tensors)
    with pytest.raises(NonFiniteError, match="its embeddings hold NaN or infinity"):
        merged(tmp_path / "out", "k: 4", {**folders, "donor": donor})
