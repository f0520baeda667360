"""Which tensors of a checkpoint are one: by config, by the class's default, by bytes."""

import logging
from dataclasses import replace

import pytest
import torch
from transformers import CONFIG_MAPPING

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.configs.config import untied
from merge_ops.checkpoints.configs.tie_defaults import TIED, UNTIED, default_tie, stated_tie
from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.header import TensorEntry
from merge_ops.checkpoints.names.tie_names import head_name
from merge_ops.checkpoints.names.tied_copies import FIRST_BLOCK
from merge_ops.checkpoints.names.ties import (
    excluded,
    find_source,
    head_is_embedding,
    own_heads,
    tied_tensors,
)
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CheckpointError
from tests.models import checkpoint_factory as factory

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


class CountingSource(FolderSource):
    """A folder that counts what is read of its weights."""

    read = 0

    def read_into(self, file, offset, buffer):
        self.read += len(buffer) if file.endswith(".safetensors") else 0
        super().read_into(file, offset, buffer)


def written(folder, tensors, **config):
    factory.write_checkpoint(folder, tensors, factory.QWEN2)
    said = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], **config}
    factory.write_json(folder / "config.json", said)
    checkpoint = open_checkpoint("m", CountingSource(folder))
    checkpoint.source.read = 0
    return checkpoint


def with_head(change=0.0):
    tensors = factory.base_tensors(factory.QWEN2)
    return {**tensors, HEAD: tensors[EMBEDDING] + change}


def test_a_copied_head_is_the_embedding_and_is_compared_once(tmp_path):
    checkpoint = written(tmp_path / "m", with_head(), tie_word_embeddings=True)
    assert tied_tensors(checkpoint) == {HEAD: EMBEDDING}
    assert "tied to the input embedding" in excluded(checkpoint)[HEAD]
    assert own_heads([checkpoint]) == set()
    assert head_is_embedding(checkpoint)
    assert find_source(checkpoint, HEAD).name == EMBEDDING
    assert checkpoint.source.read == 2 * checkpoint.tensors[HEAD].nbytes


def test_a_head_of_its_own_is_found_in_the_first_block(tmp_path):
    shape = replace(factory.QWEN2, vocabulary=8192, layers=1)
    tensors = factory.base_tensors(shape)
    tensors[HEAD] = tensors[EMBEDDING].clone()
    tensors[HEAD][0, 0] += 1
    checkpoint = written(tmp_path / "m", tensors, tie_word_embeddings=True)
    assert tied_tensors(checkpoint) == {}
    assert own_heads([checkpoint]) == {HEAD}
    assert not head_is_embedding(checkpoint)
    assert find_source(checkpoint, HEAD).name == HEAD
    assert checkpoint.source.read == 2 * FIRST_BLOCK < checkpoint.tensors[HEAD].nbytes


def test_the_last_byte_counts(tmp_path):
    shape = replace(factory.QWEN2, vocabulary=8192, layers=1)
    tensors = factory.base_tensors(shape)
    tensors[HEAD] = tensors[EMBEDDING].clone()
    tensors[HEAD][-1, -1] += 1
    checkpoint = written(tmp_path / "m", tensors, tie_word_embeddings=True)
    assert own_heads([checkpoint]) == {HEAD}


@pytest.mark.parametrize(
    ("change", "config"),
    [
        (None, {"tie_word_embeddings": True}),  # nothing is stored
        (0.0, {"tie_word_embeddings": False}),  # the config says that it is its own
        (0.0, {}),  # so does the class of Qwen 2
        (0.0, {"model_type": "of-remote-code"}),  # nobody says that it would come back
    ],
)
def test_nothing_is_read_where_nothing_may_be_a_copy(tmp_path, change, config):
    tensors = factory.base_tensors(factory.QWEN2) if change is None else with_head(change)
    checkpoint = written(tmp_path / "m", tensors, **config)
    assert tied_tensors(checkpoint) == {}
    assert own_heads([checkpoint]) == ({HEAD} if HEAD in tensors else set())
    assert checkpoint.source.read == 0


def test_the_result_of_a_merge_is_not_asked_for_bytes():
    entry = TensorEntry("F32", (2, 2), "model.safetensors", 0, 16)
    source = FolderSource("nowhere")
    tensors = {"shared.weight": entry, "encoder.embed_tokens.weight": entry}
    result = Checkpoint("r", source, tensors, {"model_type": "t5"}, distinct=True)
    assert tied_tensors(result) == {}
    assert own_heads([result]) == set(tensors)


def test_a_head_of_another_dtype_or_length_is_its_own(tmp_path):
    tensors = with_head()
    for number, head in enumerate((tensors[HEAD].double(), tensors[HEAD][:-1].contiguous())):
        folder = tmp_path / str(number)
        checkpoint = written(folder, {**tensors, HEAD: head}, tie_word_embeddings=True)
        assert own_heads([checkpoint]) == {HEAD}


def test_a_cut_file_names_itself(tmp_path):
    checkpoint = written(tmp_path / "m", with_head(), tie_word_embeddings=True)
    (tmp_path / "m" / "model.safetensors").write_bytes(b"")
    told = r"model.safetensors changed while it was read \(it had \d+ bytes and has 0\)"
    with pytest.raises(CheckpointError, match=told):
        excluded(checkpoint)


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        ({"model_type": "gemma2"}, True),
        ({"model_type": "gemma2", "tie_word_embeddings": False}, False),
        ({"model_type": "llama"}, False),
        ({"model_type": "of-remote-code"}, True),
        ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}, True),
        ({"model_type": "qwen2_5_vl", "text_config": {"tie_word_embeddings": True}}, True),
        ({"model_type": "internvl_chat", "llm_config": {"tie_word_embeddings": False}}, False),
        ({"model_type": "llava", "text_config": {"model_type": "llama"}}, False),
        ({"model_type": "of-remote-code", "text_config": {"model_type": "gemma2"}}, True),
    ],
)
def test_a_head_that_is_not_stored(tmp_path, config, tied):
    factory.write_checkpoint(tmp_path, factory.base_tensors(factory.QWEN2), factory.QWEN2)
    factory.write_json(tmp_path / "config.json", config)
    checkpoint = open_checkpoint("m", FolderSource(tmp_path))
    assert checkpoint.ties_embeddings is tied
    assert (find_source(checkpoint, HEAD) is not None) is tied


def test_weights_without_a_config_tie_nothing(tmp_path):
    factory.write_weights(tmp_path, factory.base_tensors(factory.QWEN2))
    checkpoint = open_checkpoint("m", FolderSource(tmp_path))
    assert find_source(checkpoint, HEAD) is None


def test_the_table_of_defaults_is_that_of_transformers():
    logging.getLogger("transformers").setLevel(logging.CRITICAL)
    for kind, config_class in CONFIG_MAPPING.items():
        default = getattr(config_class, "tie_word_embeddings", None)
        if (
            kind in TIED | UNTIED and default is None
        ) or kind == "shieldgemma2":  # set while one is made
            default = config_class().tie_word_embeddings
        assert default_tie({"model_type": kind}) is default, kind
    assert not TIED & UNTIED


def test_an_untied_config_says_so_at_every_level():
    config = {"text_config": {"model_type": "gemma3_text"}, "model_type": "gemma3"}
    assert stated_tie(untied(config)) is False
    assert untied(config)["text_config"]["tie_word_embeddings"] is False
    scaled = {"model_type": "t5", "tie_word_embeddings": True}
    assert untied(scaled) == scaled  # it says there that the output is scaled


@pytest.mark.parametrize(
    ("embedding", "config", "head"),
    [
        (EMBEDDING, {}, HEAD),
        ("language_model.model.embed_tokens.weight", {}, "language_model.lm_head.weight"),
        ("model.language_model.embed_tokens.weight", {}, HEAD),
        ("shared.weight", {}, HEAD),
        ("bert.embeddings.word_embeddings.weight", {}, "cls.predictions.decoder.weight"),
        (EMBEDDING, {"architectures": ["Qwen2Model"]}, None),
        (EMBEDDING, {"architectures": ["Qwen2ForSequenceClassification"]}, None),
        ("transformer.wte.weight", {"architectures": ["GPT2LMHeadModel"]}, HEAD),
        ("shared.weight", {"architectures": ["T5EncoderModel"]}, None),
    ],
)
def test_what_the_head_is_called(embedding, config, head):
    assert head_name(embedding, config) == head


# ------------------------------------------------------------------------- names of weight files


def entry(file, size=4):
    return TensorEntry("F32", (size // 4,), file, 0, size)


@pytest.mark.parametrize(
    ("files", "stem"),
    [
        ({}, "model"),
        ({"model-00001-of-00002.safetensors": 8, "extra.safetensors": 400}, "model"),
        ({"diffusion_pytorch_model.safetensors": 8}, "diffusion_pytorch_model"),
        ({"a.safetensors": 8, "weights-00001-of-00001.safetensors": 400}, "weights"),
        ({"unet/diffusion_pytorch_model.fp16.safetensors": 8}, "diffusion_pytorch_model.fp16"),
    ],
)
def test_an_output_is_called_like_the_main_files(files, stem):
    tensors = {f"t{number}": entry(*each) for number, each in enumerate(files.items())}
    assert Checkpoint("m", FolderSource("nowhere"), tensors, {}).stem == stem


def test_an_index_names_the_main_files():
    tensors = {"a": entry("big.safetensors", 400), "b": entry("x-00001-of-00001.safetensors")}
    files = {"x.safetensors.index.json": 1}
    assert Checkpoint("m", FolderSource("nowhere"), tensors, {}, files=files).stem == "x"


def test_an_embedding_of_a_layer_is_no_copy(tmp_path):
    """Such as that of DeepSeek's and GLM's layers behind the last, which are loaded by name."""
    tensors = factory.base_tensors(factory.QWEN2)
    layer = "model.layers.3.embed_tokens.weight"
    checkpoint = written(
        tmp_path / "m", {**tensors, layer: tensors[EMBEDDING].clone()}, tie_word_embeddings=True
    )
    assert tied_tensors(checkpoint) == {}
    assert torch.equal(factory.read_tensors(tmp_path / "m")[layer], tensors[EMBEDDING])
