"""Where an output's tensors will lie: shards at their limit, offsets, names, the index."""

import functools
import json

from hypothesis import given
from hypothesis import strategies as st

from merge_ops.checkpoints.header import ITEM_SIZES, read_header
from merge_ops.checkpoints.layout import OutputTensor, header_of, index_file, lay_out, natural_key


def tensor(name: str, count: int, dtype: str = "F32") -> OutputTensor:
    return OutputTensor(name, dtype, (count,))


def test_a_shard_may_be_full_and_not_fuller() -> None:
    four, eight = tensor("a", 1), tensor("b", 2)
    assert [len(shard.tensors) for shard in lay_out([four, eight], 12)] == [2]
    assert [len(shard.tensors) for shard in lay_out([four, eight], 11)] == [1, 1]
    assert [len(shard.tensors) for shard in lay_out([eight, eight, four], 12)] == [1, 2]


def test_a_tensor_larger_than_a_shard_has_one_of_its_own() -> None:
    tensors = [tensor("a", 1), tensor("b", 9), tensor("c", 1)]
    shards = lay_out(tensors, 8, stem="adapter_model")
    assert [[each.name for each in shard.tensors] for shard in shards] == [["a"], ["b"], ["c"]]
    assert [shard.file for shard in shards] == [
        f"adapter_model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)
    ]
    assert [shard.size - len(shard.header) for shard in shards] == [4, 36, 4]
    (name, text), *others = index_file(shards).items()
    assert (name, others) == ("adapter_model.safetensors.index.json", [])
    assert json.loads(text) == {
        "metadata": {"total_size": 44},
        "weight_map": {"a": shards[0].file, "b": shards[1].file, "c": shards[2].file},
    }
    assert text.endswith(b"\n")


def test_one_shard_has_a_plain_name_and_no_index() -> None:
    (shard,) = lay_out([tensor("a", 1)])
    assert shard.file == "model.safetensors"
    assert index_file([shard]) == {}


def test_headers_carry_metadata_and_keep_names_as_they_are() -> None:
    header = header_of([tensor("权重", 3)], {"format": "pt", "kind": "packed"})
    text = header[8:].decode()
    assert json.loads(text)["__metadata__"] == {"format": "pt", "kind": "packed"}
    assert "权重" in text
    assert "__metadata__" in json.loads(header_of([])[8:])


def test_names_sort_by_their_numbers() -> None:
    assert sorted(["h.10.a", "h.9.b", "h.9.a", "h.w", "2", "10"], key=natural_key) == [
        "2", "10", "h.9.a", "h.9.b", "h.10.a", "h.w",
    ]  # fmt: skip


def part_of(content: bytes, offset: int, length: int) -> bytes:
    return content[offset : offset + length]


tensors = st.lists(
    st.tuples(st.sampled_from(sorted(ITEM_SIZES)), st.lists(st.integers(0, 5), max_size=3)),
    min_size=1,
    max_size=12,
)


@given(tensors, st.integers(1, 400))
def test_every_layout_is_read_back_whole_and_aligned(
    drawn: list[tuple[str, list[int]]], limit: int
) -> None:
    outputs = [
        OutputTensor(f"t.{number}", dtype, tuple(shape))
        for number, (dtype, shape) in enumerate(drawn)
    ]
    shards = lay_out(outputs, limit)
    laid = [each for shard in shards for each in sorted(shard.tensors, key=outputs.index)]
    assert laid == outputs
    for shard in shards:
        data = shard.size - len(shard.header)
        assert data <= limit or len([each for each in shard.tensors if each.nbytes]) == 1
        assert len(shard.header) % 8 == 0
        read = functools.partial(part_of, shard.header)
        entries = read_header(shard.file, shard.file, shard.size, read)
        assert set(entries) == {each.name for each in shard.tensors}
        for each in shard.tensors:
            entry = entries[each.name]
            assert (entry.dtype, entry.shape, entry.nbytes) == (each.dtype, each.shape, each.nbytes)
            assert entry.offset % ITEM_SIZES[each.dtype] == 0
