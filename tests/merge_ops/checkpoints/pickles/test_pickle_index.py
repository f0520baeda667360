"""Pickles read by their index: the same files as torch and safetensors make, and no more."""

import collections
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from merge_ops.checkpoints.pickles import pickle_reader
from merge_ops.checkpoints.pickles.pickle_index import IndexFaultError, read_index
from merge_ops.checkpoints.pickles.pickle_reader import answer
from merge_ops.children import LimitedChild
from merge_ops.errors import ChildEndedError

DTYPES = (
    "bool", "uint8", "int8", "float8_e5m2", "float8_e4m3fn", "float8_e8m0fnu", "int16", "uint16",
    "float16", "bfloat16", "int32", "uint32", "float32", "complex64", "float64", "int64", "uint64",
)  # fmt: skip


def saved(tmp_path: Path, content: object, legacy: bool = False) -> Path:
    path = tmp_path / "pytorch_model.bin"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def converted(path: Path) -> bytes:
    told = answer({"file": str(path), "into": str(path.with_suffix(".safetensors"))}, print)
    assert "refused" not in told, told
    assert answer({"file": str(path)}, print) == told
    data = path.with_suffix(".safetensors").read_bytes()
    assert data[8 : 8 + len(told["header"].encode())].decode() == told["header"]
    return data


def as_safetensors(tensors: dict[str, torch.Tensor]) -> bytes:
    copies = {
        name: each.detach().clone(memory_format=torch.contiguous_format)
        for name, each in tensors.items()
    }
    return save(copies, metadata={"format": "pt"})


def some_tensors() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    plain = torch.randn(6, 5, generator=random)
    tied = torch.randn(4, 3, generator=random)
    found = {
        "plain": plain,
        '融合 "\\\n\x01é\u2028/': torch.arange(4.0),
        "transposed": plain.T,
        "part": plain[2:4, 1:],
        "every_second": plain.flatten()[1::2],
        "expanded": torch.arange(3).expand(2, 3),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 7),
        "empty_view": plain[3:3],
        "tied.a": tied,
        "tied.b": tied,
        "tied.view": tied.view(12),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "of_one": torch.randn(1, 8, 1).transpose(0, 2),
        "parameter": torch.nn.Parameter(torch.randn(3, generator=random)),
        "frozen": torch.nn.Parameter(torch.arange(3), requires_grad=False),
    }
    for name in DTYPES:
        found[name] = torch.zeros(3, dtype=torch.uint8).to(getattr(torch, name))
    return found


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("table", [dict, collections.OrderedDict])
def test_files_are_byte_for_byte_what_safetensors_writes(tmp_path, legacy, table):
    tensors = table(some_tensors())
    path = saved(tmp_path, tensors, legacy)
    assert converted(path) == as_safetensors(tensors)


def test_large_tensors_are_copied_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(pickle_reader, "PIECE", 64)
    path = saved(tmp_path, some_tensors())
    assert converted(path) == as_safetensors(torch.load(path, weights_only=True))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_view_has_the_values_that_torch_reads(tmp_path, data):
    base = torch.arange(60, dtype=torch.float32)
    shape = tuple(data.draw(st.lists(st.integers(0, 4), max_size=4)))
    strides = tuple(data.draw(st.integers(0, 4)) for _ in shape)
    reach = sum((n - 1) * s for n, s in zip(shape, strides, strict=True) if n)
    start = data.draw(st.integers(0, max(0, 59 - reach)))
    view = base.as_strided(shape, strides, start)
    path = saved(tmp_path, {"view": view, "base": base}, data.draw(st.booleans()))
    assert converted(path) == as_safetensors(torch.load(path, weights_only=True))


def test_the_state_of_a_trainer_is_unwrapped(tmp_path):
    weights = {"a.weight": torch.ones(2, 2)}
    beside = {
        "epoch": 3,
        "size": torch.Size([2, 3]),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "loss": 1.5,
        "seen": {1, 2},
        "complex": 1j,
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-3}]},
    }
    path = saved(tmp_path, {"state_dict": weights, **beside})
    assert converted(path) == as_safetensors(weights)
    path = saved(tmp_path, torch.nn.Linear(2, 3).state_dict())
    assert set(read_index(path)) == {"weight", "bias"}
    path = saved(tmp_path, {"a": {"w": torch.ones(1)}, "ema": {"w": torch.ones(1)}})
    with pytest.raises(IndexFaultError, match=r"several tables of tensors \(a, ema\)"):
        read_index(path)


class Calls:
    """Unpickled, it calls something."""

    def __init__(self, function, *given):
        self.given = function, given

    def __reduce__(self):
        return self.given


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": Calls(os.mkdir, "x")}, r"it wants to call posix.mkdir"),
        ({"a": Calls(eval, "1")}, r"it wants to call builtins.eval"),
        ({"a": Calls(torch.load, "x")}, r"it wants to call torch.serialization.load"),
        ({"a": Calls(print, "x")}, r"it wants to call builtins.print"),
        ({"a": Calls(getattr, "x", "y")}, r"it wants to call builtins.getattr"),
        ({"a": torch.nn.Linear(1, 1)}, r"it wants to call torch.nn.modules.linear.Linear"),
        ([torch.ones(1)], "it holds a list, and no table of tensors"),
        ({"a": [1]}, "its entry 'a' is a list, and no tensor"),
        ({3: torch.ones(1)}, "its entry 3 is a PickledTensor, and no tensor"),
        ({"a": bytearray(b"xx")}, "its entry 'a' is a _codecs.encode|bytearray, and no tensor"),
        ({"a": torch.ones(2, 2).to_sparse()}, r"_rebuild_sparse_tensor, and no tensor"),
        ({"a": torch.ones(2, dtype=torch.complex128)}, r"a tensor of ComplexDouble, and no"),
        ({"a": torch.ones(2, dtype=torch.complex64).conj()}, "conjugated or negated, and no"),
        ({"__metadata__": torch.ones(1)}, "'__metadata__', which safetensors cannot hold"),
        ({"a\ud800": torch.ones(1)}, r"damaged, or no pickle of tensors \(UnicodeEncodeError"),
    ],
)
def test_what_is_more_or_less_than_tensors_is_refused(tmp_path, content, message):
    with pytest.raises(AssertionError, match=message):
        converted(saved(tmp_path, content))


def entries_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {each.filename: archive.read(each) for each in archive.infolist()}


def packed(path: Path, entries: dict[str, bytes], compression=zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def claims(entries: dict[str, bytes], old: bytes, new: bytes) -> dict[str, bytes]:
    name = next(each for each in entries if each.endswith("data.pkl"))
    assert old in entries[name]
    return {**entries, name: entries[name].replace(old, new)}


def test_sizes_are_compared_with_what_is_stored(tmp_path):
    """Each of these files has some hundred bytes and claims gigabytes."""
    path = saved(tmp_path, {"w": torch.zeros(77)})
    entries, count = entries_of(path), pickle.dumps(77, 2)[2:-1]
    large = b"J" + struct.pack("<i", 1_500_000_000)
    with pytest.raises(IndexFaultError, match=r"'w' claims 6,000,000,000 bytes .* has 308 in the"):
        read_index(packed(path, claims(entries, count, large)))
    path = saved(tmp_path, {"w": torch.zeros(1).expand(1_500_000_000)})
    with pytest.raises(IndexFaultError, match=r"claim more than 6,000,000,000 bytes up to 'w'"):
        read_index(path)
    path = saved(tmp_path, dict.fromkeys(map(str, range(9000)), torch.zeros(1 << 20)))
    with pytest.raises(IndexFaultError, match="they repeat what is stored more than 8 times"):
        read_index(path)
    zeros = {name: data * (1 if len(data) < 300 else 10_000) for name, data in entries.items()}
    with pytest.raises(IndexFaultError, match=r"compressed, which torch.save never does"):
        read_index(packed(path, zeros, zipfile.ZIP_DEFLATED))
    path = saved(tmp_path, {"w": torch.zeros(77)}, legacy=True)
    whole = path.read_bytes()
    size = (77).to_bytes(8, "little")
    path.write_bytes(whole.replace(size, (1 << 40).to_bytes(8, "little")))
    with pytest.raises(IndexFaultError, match=r"claims 4,398,046,511,104 bytes; it is cut off"):
        read_index(path)
    path.write_bytes(whole[:-4])
    with pytest.raises(IndexFaultError, match="claims 308 bytes; it is cut off"):
        read_index(path)


def test_archives_that_can_be_read_in_two_ways_are_refused(tmp_path):
    path = saved(tmp_path, {"w": torch.zeros(3)})
    entries = entries_of(path)
    more = {**entries, "other/data.pkl": b"x"}
    with pytest.raises(IndexFaultError, match=r"none that torch.save writes"):
        read_index(packed(path, more))
    big = {n: b"big" if n.endswith("byteorder") else data for n, data in entries.items()}
    with pytest.raises(IndexFaultError, match="another byte order"):
        read_index(packed(path, big))
    lost = {n: data for n, data in entries.items() if not n.endswith("/data/0")}
    with pytest.raises(IndexFaultError, match="the storage of 'w' is not in the file"):
        read_index(packed(path, lost))
    packed(path, entries)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(next(iter(entries)), b"x")
    with pytest.raises(IndexFaultError, match="a name stands twice"):
        read_index(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_damaged_files_are_refused_in_words(tmp_path, legacy):
    path = saved(tmp_path, some_tensors(), legacy)
    whole = path.read_bytes()
    random = torch.Generator().manual_seed(1)
    causes: set[str] = set()
    child = LimitedChild(
        "merge_ops.checkpoints.pickles.pickle_reader", memory=256 << 20, cpu_seconds=60
    )
    for _ in range(150):
        at = int(torch.randint(len(whole), (), generator=random))
        bit = 1 << int(torch.randint(8, (), generator=random))
        cut = whole[:at] if at % 5 == 0 else whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :]
        path.write_bytes(cut)
        try:
            assert set(child.ask({"file": str(path)}, "reads pickles")) <= {"header", "refused"}
        except ChildEndedError as error:  # a far place in its memo
            causes.add(error.cause)
    child.close()
    assert causes <= {"out of memory (limit 0.25 GiB)"}


def test_other_files_are_told_apart(tmp_path):
    path = tmp_path / "a.bin"
    for content, message in (
        (b"", "EOFError"),
        (b"<!DOCTYPE html>", "UnpicklingError"),
        (pickle.dumps({"a": 1}), "it is no file that torch.save wrote"),
        (bytes(257) + b"ustar" + bytes(300), "the form that torch wrote before 0.1.10"),
    ):
        path.write_bytes(content)
        assert message in answer({"file": str(path)}, print)["refused"]
    packed(path, {"m/data.pkl": b"\x80\x02c__torch__.layers\nReLU\n."})  # of TorchScript
    assert "it wants to call __torch__.layers.ReLU" in answer({"file": str(path)}, print)["refused"]
