"""A file of statistics of moe_experts: written, read, and every fault of something else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from merge_ops.calibration.moe_statistics import (
    FORMAT,
    PARTS,
    LayerStatistics,
    MoeStatistics,
    moe_key,
    read_moe_statistics,
    write_moe_statistics,
)
from merge_ops.errors import CheckpointError, MissingModelError, OutputError, StatisticsError


def statistics(experts: int = 3, layers: tuple[int, ...] = (1, 3)) -> MoeStatistics:
    draw = np.random.default_rng(1)
    made = {
        layer: LayerStatistics(
            tokens=draw.integers(0, 9, experts).astype(float),
            weights=draw.random(experts),
            saliency=draw.random(experts),
            distances=draw.random((experts, experts)),
            similarity=draw.random((experts, experts)) - 0.5,
        )
        for layer in layers
    }
    return MoeStatistics(made, "m" * 64, "k" * 64, 40, 2)


def told(**changed: str) -> dict[str, str]:
    known = {"format": FORMAT, "key": "k", "model": "m", "total": "4", "chosen": "2"}
    return {**known, "content": "c", **changed}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_moe_statistics(tmp_path / "s.safetensors", statistics())
    return tmp_path / "s.safetensors"


def test_what_is_written_is_read_again(file: Path, tmp_path: Path) -> None:
    read, wanted = read_moe_statistics(file, "k" * 64), statistics()
    assert (read.model, read.key, read.total, read.chosen) == ("m" * 64, "k" * 64, 40, 2)
    assert (list(read.layers), read.experts, read.digest) == ([1, 3], 3, wanted.digest)
    for layer, each in wanted.layers.items():
        for part in PARTS:
            np.testing.assert_array_equal(getattr(read.layers[layer], part), getattr(each, part))
    assert len(load_file(file)) == 10
    again = tmp_path / "again"
    write_moe_statistics(again, read)
    assert again.read_bytes() == file.read_bytes()


def test_the_key_follows_from_everything_that_decides() -> None:
    one = moe_key("m", "t", ["a", "b"])
    others = {moe_key("M", "t", ["a", "b"]), moe_key("m", "T", ["a", "b"])}
    others |= {moe_key("m", "t", ["b", "a"]), moe_key("m", "t", ["ab"])}
    assert one == moe_key("m", "t", ("a", "b"))
    assert len(others | {one}) == 5


def test_the_digest_knows_every_number() -> None:
    seen = {statistics().digest, replace(statistics(), total=41).digest}
    for layer in (1, 3):
        for part in PARTS:
            made = statistics()
            getattr(made.layers[layer], part).flat[-1] += 1
            seen.add(made.digest)
    assert len(seen) == 2 + 10


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    tensors = {
        "layers.0.tokens": np.ones(3),
        "layers.0.weights": np.ones(2),
        "layers.0.saliency": np.ones(3, dtype=np.float32),
        "layers.0.distances": np.ones((3, 3)),
        "layers.0.norms": np.ones(3),
    }
    save_file(tensors, tmp_path / "s", metadata=told())
    with pytest.raises(StatisticsError, match=r"s: 4 faults") as caught:
        read_moe_statistics(tmp_path / "s")
    text = str(caught.value)
    assert "tensor 'layers.0.norms' is unknown; names are layers.L.{tokens,weights," in text
    assert "layers.0.weights is F64 [2]; it must be F64 [3]" in text
    assert "layers.0.saliency is F32 [3]; it must be F64 [3]" in text
    assert "layers.0.similarity is missing" in text
    save_file(tensors, tmp_path / "s", metadata=told(key="", total="-4"))
    with pytest.raises(
        StatisticsError, match=r"metadata\.key is missing; write(.|\n)*total is '-4"
    ):
        read_moe_statistics(tmp_path / "s")
    save_file(tensors, tmp_path / "s", metadata={"format": "pt"})
    with pytest.raises(StatisticsError, match="is 'pt'; it must be 'ronghe-moe-statistics-1'"):
        read_moe_statistics(tmp_path / "s")


def test_other_files_and_damage_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingModelError, match="is not there; `ronghe moe-saliency` writes"):
        read_moe_statistics(tmp_path / "none")
    with pytest.raises(StatisticsError, match="are of another model or of other texts"):
        read_moe_statistics(file, "other")
    content = bytearray(file.read_bytes())
    content[-8] ^= 1  # the last bit of a mantissa
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="its numbers are not those that were written"):
        read_moe_statistics(file)
    content[-1] ^= 0x7F
    content[-2] |= 0xF0
    file.write_bytes(content)
    with pytest.raises((CheckpointError, StatisticsError), match=r"NaN or infinity|the digest"):
        read_moe_statistics(file)


def test_only_what_a_mixture_can_have_is_written(tmp_path: Path) -> None:
    path, made = tmp_path / "s", statistics()
    made.layers[1].saliency[0] = np.nan
    made.layers[3].tokens[0] = -1
    match = r"layers\.1\.saliency has NaN or infinity(.|\n)*layers\.3\.tokens has numbers below 0"
    with pytest.raises(StatisticsError, match=match):
        write_moe_statistics(path, made)
    several = {**statistics().layers, 5: statistics(2).layers[1]}
    with pytest.raises(StatisticsError, match=r"layers\.5\.tokens has the shape \[2\]; it must be"):
        write_moe_statistics(path, replace(made, layers=several))
    with pytest.raises(StatisticsError, match="there is no layer with moe_experts"):
        write_moe_statistics(path, replace(made, layers={}))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="statistics cannot be written"):
        write_moe_statistics(tmp_path / "file" / "s", statistics())
    assert not path.exists()
