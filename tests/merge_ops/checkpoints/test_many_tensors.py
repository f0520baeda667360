"""What is told quickly of very many tensors is what is told of each alone."""

import json

import pytest

from merge_ops.checkpoints.header import read_header
from merge_ops.checkpoints.layout import PYTORCH, OutputTensor, header_of
from merge_ops.checkpoints.names.tie_names import is_bias_copy, is_output, may_be_tied, shared_names
from merge_ops.errors import CheckpointError


def test_a_header_in_pieces_is_the_json_of_the_whole():
    tensors = [
        OutputTensor('a "层"\n', "F32", (2, 3)),
        OutputTensor("b", "BF16", ()),
        OutputTensor("c", "I64", (0, 4)),
    ]
    entries = [("F32", [2, 3], [0, 24]), ("BF16", [], [24, 26]), ("I64", [0, 4], [26, 26])]
    for count in range(4):
        table: dict[str, object] = {"__metadata__": dict(PYTORCH)}
        for tensor, (dtype, shape, at) in zip(tensors[:count], entries, strict=False):
            table[tensor.name] = {"dtype": dtype, "shape": shape, "data_offsets": at}
        text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        assert header_of(tensors[:count]) == len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize("shape", [[True, 2], [1.0, 2], ["1", 2], {"1": 2}, [1, 2, 1]])
def test_a_sound_tensor_before_does_not_vouch_for_another(shape):
    table = {
        "a": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]},
        "b": {"dtype": "F32", "shape": shape, "data_offsets": [8, 16]},
    }
    text = json.dumps(table).encode()
    data = len(text).to_bytes(8, "little") + text

    def read():
        size = len(data) + 16
        return read_header("m", "m.safetensors", size, lambda at, n: data[at : at + n])

    if shape == [1, 2, 1]:
        assert [each.shape for each in read().values()] == [(1, 2), (1, 2, 1)]
    else:
        with pytest.raises(CheckpointError, match="'b' has a malformed header entry"):
            read()


def test_tensors_of_one_kind_share_what_is_equal():
    table = {
        name: {"dtype": "F32", "shape": [1, 2], "data_offsets": [8 * at, 8 * at + 8]}
        for at, name in enumerate("abc")
    }
    text = json.dumps(table).encode()
    data = len(text).to_bytes(8, "little") + text
    size = len(data) + 24
    entries = read_header("m", "m.safetensors", size, lambda at, n: data[at : at + n])
    assert len({id(each.shape) for each in entries.values()}) == 1


@pytest.mark.parametrize(
    "name",
    ["lm_head.weight", "x.xlm_head.weight", "cls.predictions.decoder.weight", "embed_out.weight",
     "lm_head.out_proj.weight", "pred_layer.proj.weight", "vocab_projector.weight",
     "output.weight", "proj_out.weight", "output_layer.weight",
     "generator_lm_head.weight", "lm_loss.weight",
     "cls.predictions.decoder.bias", "shared.weight", "model.encoder.embed_tokens.weight",
     "text_decoder.word_embeddings.weight", "output_projection.weight"],
)  # fmt: skip
def test_what_may_be_tied_passes_the_quick_look(name):
    assert is_output(name) or is_bias_copy(name) or shared_names(name)
    assert may_be_tied(name)
