"""What a merge takes along from its base, beside the weights."""

import json

import pytest
import torch
from safetensors.torch import save_file

from merge_ops.checkpoints.files.byte_sources import FolderSink, FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CompatibilityError
from merge_ops.jobs.assembly import merge
from merge_ops.plans import side_files as module
from merge_ops.plans.planning import plan_merge
from merge_ops.plans.side_files import absent_file_cautions, is_side_file, side_files
from merge_ops.recipes.reading import parse_recipe
from merge_ops.stream.stream import StreamSettings
from tests.models import vocabulary_folders as folders

RECIPE = "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: base}, {model: e1}]\n"
TAKEN = (
    "generation_config.json", "preprocessor_config.json", "video_preprocessor_config.json",
    "processor_config.json", "image_processor_config.json", "feature_extractor_config.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt",
    "vocab.txt", "vocab.bpe", "bpe.codes", "spiece.model", "ice_text.model", "source.spm",
    "sentencepiece.bpe.model", "qwen.tiktoken", "tekken.json", "tokenizer.model.v3",
    "normalizer.json", "chat_template.json", "chat_template.jinja", "tool_use.jinja",
    "additional_chat_templates/tool_use.jinja", "additional_chat_templates/rag.jinja",
    "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json",
    "1_Pooling/config.json", "2_Dense/config.json", "modeling_own.py",
    "custom_generate/generate.py",
    "LICENSE", "LICENSE.md", "LICENCE.txt", "license", "NOTICE", "Notice.txt", "USE_POLICY.md",
    "COPYING", "LICENSE-MODEL", "params.json",
)  # fmt: skip
LEFT = (
    "README.md", "adapter_config.json", "model_index.json", "model.safetensors.index.json",
    "pytorch_model.bin.index.json", "trainer_state.json", "training_args.json",
    "train_results.json",
    "all_results.json", "eval_results.json", "trainer_log.json", "log.txt", "train_log.txt",
    "training_loss.json", "dataset_infos.json", "zero_to_fp32.py", "optimizer.pt", "rng_state.pth",
    "training_args.bin", "scheduler.pt", "pytorch_model.bin", "weights.gguf", "figure.png",
    ".gitattributes", ".cache/x.json", "original/params.json", "onnx/config.json", "runs/a.txt",
    "checkpoint-10/config.json", "2_Dense/model.safetensors", "additional_chat_templates/a.md",
    "1_Pooling/deeper/config.json", "events.out.tfevents.1", "notes.md", "2024_runs/config.json",
)  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
def test_what_belongs_to_a_model(name):
    assert is_side_file(name)


@pytest.mark.parametrize("name", LEFT)
def test_what_does_not(name):
    assert not is_side_file(name)


def planned(tmp_path, files, text=RECIPE, expert=None):
    opened = {
        "base": folders.model(tmp_path / "base", files),
        "e1": folders.model(tmp_path / "e1", expert or {}),
    }
    return plan_merge(parse_recipe(text, "r", "r.yaml"), opened)


def test_every_one_is_copied_byte_for_byte(tmp_path):
    files = {
        name: json.dumps({"of": name}).encode() if name.endswith(".json") else f"{name}!".encode()
        for name in TAKEN
    }
    files |= {"generation_config.json": b"{}", "special_tokens_map.json": b"{}"}
    plan = planned(tmp_path, files | {"trainer_state.json": b"{}", "optimizer.pt": b"x"})
    out = tmp_path / "out"
    merge(plan, {"default": FolderSink(out)}, StreamSettings(threads=1, device="cpu"))
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert written == {*TAKEN, "README.md", "model.safetensors", "config.json"}
    for name, data in files.items():
        assert (out / name).read_bytes() == data


def test_another_tokenizer_replaces_all_that_belongs_to_the_bases(tmp_path):
    theirs = {
        "tokenizer.json": folders.tokenizer_json(folders.WORDS[::-1]),
        "additional_chat_templates/theirs.jinja": b"t",
    }
    ours = {
        "tokenizer.json": folders.tokenizer_json(),
        "tekken.json": folders.tekken(),
        "x.spm": b"x",
        "vocab.bpe": b"x",
        "additional_chat_templates/ours.jinja": b"o",
        "preprocessor_config.json": {},
    }
    plan = planned(tmp_path, ours, RECIPE + "tokenizer: {source: e1}\n", theirs)
    assert set(side_files(plan)) == {
        "config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "additional_chat_templates/theirs.jinja",
    }


def test_templates_stay_where_a_union_changes_the_tokens(tmp_path):
    theirs = {"tokenizer.json": folders.tokenizer_json(folders.WORDS[:-1])}
    ours = {
        "tokenizer.json": folders.tokenizer_json(folders.WORDS[:-2]),
        "tekken.json": folders.tekken(),
        "additional_chat_templates/tool.jinja": b"o",
    }
    plan = planned(tmp_path, ours, RECIPE + "tokenizer: {source: union}\n", theirs)
    files = side_files(plan)
    assert set(files) == {"config.json", "tokenizer.json", "additional_chat_templates/tool.jinja"}
    assert json.loads(files["tokenizer.json"])["added_tokens"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("2_Dense/model.safetensors", "2_Dense/model.safetensors"),
        ("2_Dense/pytorch_model.bin", "2_Dense/pytorch_model.bin"),
        ("speech_tokenizer/config.json", "speech_tokenizer/"),
        ("image_processor/a/b.json", "image_processor/"),
        ("original/params.json", None),
        ("checkpoint-7/optimizer.pt", None),
    ],
)
def test_what_a_person_may_miss_is_told(tmp_path, name, told):
    files = {"modules.json": b"[]", name: b"x", f"{name}.2": b"x"}
    cautions = planned(tmp_path, files).cautions
    assert len(cautions) == (1 if told else 0)
    if told:
        assert f"base has {told} beside its weights, which no merge takes along" in str(cautions[0])
        assert "Copy it into the result" in cautions[0].advice


def test_what_only_another_model_has_is_told(tmp_path):
    models = {name: folders.model(tmp_path / name, {}) for name in ("base", "e1")}
    config = (tmp_path / "e1" / "config.json").read_bytes()
    (tmp_path / "base" / "config.json").unlink()  # as one that is called Config.json
    (tmp_path / "e1" / "tokenizer.model").write_bytes(b"")
    models["base"] = open_checkpoint("base", FolderSource(tmp_path / "base"))
    told = absent_file_cautions(models["base"], [models["e1"]], has_tokenizer=True)
    assert [each.problem for each in told] == [
        "has no config.json, so the result will have none, and e1 has one"
    ]
    (tmp_path / "base" / "config.json").write_bytes(config)
    models = {name: open_checkpoint(name, FolderSource(tmp_path / name)) for name in models}
    [tokenizer] = absent_file_cautions(models["base"], [models["e1"]], has_tokenizer=False)
    assert tokenizer.problem.startswith("has no tokenizer")
    assert not absent_file_cautions(models["e1"], [models["base"]], has_tokenizer=False)


def test_a_file_of_an_unlikely_size_is_told_and_never_read(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_SIDE_FILE", 100)
    plan = planned(tmp_path, {"huge.json": b"x" * 101, "small.json": b"x" * 100})
    assert set(side_files(plan)) == {"config.json", "small.json"}
    assert "base has huge.json beside its weights" in str(plan.cautions[0])


def test_folders_are_listed_whole(tmp_path):
    """What a checkpoint knows of its files has folders in it."""
    folder = folders.put(tmp_path / "m", {"1_Pooling/config.json": {}, ".hidden/x.json": {}})
    save_file({"w": torch.ones(1)}, folder / "model.safetensors")
    found = open_checkpoint("m", FolderSource(folder)).files
    assert set(found) == {"1_Pooling/config.json", "model.safetensors"}


@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.json", "added_tokens.json"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data.decode().encode("utf-16"),
        lambda data: b"<html>gone</html>",
        lambda data: b" " * 5000,
        lambda data: b"",
    ],
)
def test_a_vocabulary_that_no_loader_reads_is_not_copied(tmp_path, file, spoil):
    whole = json.dumps(folders.tokenizer_json()).encode() + b"\n\n"
    data = spoil(whole)
    with pytest.raises(CompatibilityError, match=f"{file}: not one whole JSON object in UTF-8"):
        planned(tmp_path, {file: data}, expert={file: data})  # equal bytes, which nobody parses


PROXY = b'\n<!DOCTYPE html>\n<html lang="zh">404</html>'
TEMPLATE = "additional_chat_templates/tool_use.jinja"


@pytest.mark.parametrize(
    ("file", "data", "told"),
    [
        ("tokenizer.model", PROXY, "it is a web page"),
        ("spiece.model", b"<html>gone</html>", "it is a web page"),
        ("merges.txt", PROXY, "it is a web page"),
        ("qwen.tiktoken", PROXY, "it is a web page"),
        ("chat_template.jinja", PROXY, "it is a web page"),
        ("vocab.txt", "[PAD]\n中\n".encode("utf-16"), "no text in UTF-8"),
        ("vocab.txt", "[PAD]\n中文\n".encode("gbk"), "no text in UTF-8"),
        ("merges.txt", b"#version: 0.2\0\n", "no text in UTF-8"),
        ("chat_template.jinja", b"\xff\xfe{\0{\0", "no text in UTF-8"),
        (TEMPLATE, b"{{ messages \xff }}", "no text in UTF-8"),
        ("preprocessor_config.json", b"{", "preprocessor_config.json"),
        ("processor_config.json", PROXY, "processor_config.json"),
        ("tokenizer.json", b"{}", "it holds no tokens"),
        ("vocab.json", b"{\n}\n", "it holds no tokens"),
    ],
)
def test_a_text_that_no_loader_reads_is_not_copied(tmp_path, file, data, told):
    with pytest.raises(CompatibilityError, match=told):
        planned(tmp_path, {file: data}, expert={file: data})


@pytest.mark.parametrize(
    ("file", "data"),
    [
        ("chat_template.jinja", b"\xef\xbb\xbf{{ messages }}"),
        ("chat_template.jinja", "中".encode() * 1000),  # 1,024 bytes end within a character
        ("merges.txt", b""),
        ("vocab.txt", b"<s>\n</s>\n<html\n"),
        ("generation_config.json", b"{}"),
        ("added_tokens.json", b"{}"),
    ],
)
def test_texts_that_are_merely_odd_are_copied(tmp_path, file, data):
    assert file in side_files(planned(tmp_path, {file: data}, expert={file: data}))
