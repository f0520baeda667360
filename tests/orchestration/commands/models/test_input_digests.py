"""What is used is what was named: inputs that change, rot or move while a command reads them."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from merge_ops.checkpoints.files import opened_files
from merge_ops.checkpoints.files.opened_files import FileState
from merge_ops.errors import ChangedInputError
from merge_ops.jobs.extraction_plan import ExtractionSettings
from orchestration.commands.merging import adapter_command, extract_command, merge_command
from orchestration.commands.merging.adapter_command import run_adapter_average
from orchestration.commands.merging.extract_command import run_extraction
from orchestration.commands.merging.merge_command import MergeOptions, run_merge
from orchestration.commands.models import input_digests
from orchestration.commands.models.input_digests import content_digest
from resources.errors import ModelSourceError
from resources.upstream import folder_source
from tests.models.adapter_factory import lora_tensors, modules_of, write_adapter
from tests.models.checkpoint_factory import LLAMA, Family, read_tensors, write_family

OPTIONS = MergeOptions("2", "cpu", "256MiB", "200KB", verify=False)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A memory of hashes of this test's own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def family(tmp_path: Path) -> Family:
    return write_family(tmp_path, LLAMA, experts=2, shards=2)


def recipe(root: Path, method: str = "ties", base: str = "base") -> Path:
    config = root / "recipe.yaml"
    config.write_text(
        f"merge_method: {method}\nbase_model: {root / base}\nmodels:\n"
        f"  - model: {root / 'expert-1'}\n    parameters: {{weight: 0.5, density: 0.5}}\n"
        f"  - model: {root / 'expert-2'}\n    parameters: {{weight: 0.5, density: 0.5}}\n"
        if method == "ties"
        else f"merge_method: linear\nmodels:\n"
        f"  - {{model: {root / base}, parameters: {{weight: 1}}}}\n"
        f"  - {{model: {root / 'expert-2'}, parameters: {{weight: 1}}}}\n"
    )
    return config


def weights(folder: Path) -> Path:
    return folder / "model-00001-of-00002.safetensors"


def overwrite(path: Path) -> None:
    """Other bytes in place, and the time of the last write put back."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        file.write(b"\x00\x3c" * 500)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def replace_by_rename(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy2(path, other)
    overwrite(other)
    os.replace(other, path)


def replace_by_link(path: Path) -> None:
    other = path.parent.parent / "elsewhere"
    shutil.copy2(path, other)
    overwrite(other)
    path.unlink()
    path.symlink_to(other)


def swap_the_folder(path: Path) -> None:
    folder = path.parent
    shutil.copytree(folder, folder.with_name("swapped"))
    overwrite(folder.with_name("swapped") / path.name)
    folder.rename(folder.with_name("away"))
    folder.with_name("swapped").rename(folder)


def remove(path: Path) -> None:
    path.unlink()


def make_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


CHANGES = (
    overwrite, cut_off, replace_by_rename, replace_by_link, swap_the_folder, remove, make_a_pipe
)  # fmt: skip


def at(
    monkeypatch: pytest.MonkeyPatch, module: object, name: str, change: Callable[[], None]
) -> None:
    """Have `change` happen when a function of a command is called for the first time."""
    real, done = getattr(module, name), list[int]()

    def changed(*given: object, **named: object) -> object:
        if not done:
            done.append(1)
            change()
        return real(*given, **named)

    monkeypatch.setattr(module, name, changed)


MOMENTS = {
    "before it is hashed": (merge_command, "prove_models"),
    "before it is merged": (merge_command, "_merge"),
    "before it is published": (merge_command, "check_unchanged"),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_shard_that_changes_while_it_is_merged(
    tmp_path: Path, family: Family, monkeypatch, change, moment: str
) -> None:
    """Refused, the old output stays; the same bytes on the same disk would be no fault."""
    shard = weights(family.experts[0])
    out = tmp_path / "out"
    run_merge(recipe(tmp_path), out, OPTIONS)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    at(monkeypatch, *MOMENTS[moment], lambda: change(shard))
    force = MergeOptions(**{**vars(OPTIONS), "force": True})
    if moment == "before it is hashed" and change is overwrite:  # all that is read is new
        run_merge(recipe(tmp_path), out, force)
        assert f"`{content_digest(shard.parent)}`" in (out / "README.md").read_text()
        return
    told = r"00001-of-00002\.safetensors.* (changed while it was read|is a link|is a named pipe)"
    with pytest.raises((ChangedInputError, ModelSourceError), match=told):
        run_merge(recipe(tmp_path), out, force)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert not [*tmp_path.glob(".out*")]


@pytest.mark.parametrize("file", ["tokenizer.json", "config.json", "generation_config.json"])
def test_a_side_file_that_changes_between_plan_and_writing(
    tmp_path: Path, family: Family, monkeypatch, file: str
) -> None:
    def change() -> None:
        path = family.base / file
        path.write_text(path.read_text().replace("256", "255").replace("end", "END"))

    for moment in MOMENTS.values():
        with monkeypatch.context() as patch:
            before = (family.base / file).read_text()
            at(patch, *moment, change)
            with pytest.raises(ChangedInputError, match=rf"{file} changed while it was read"):
                run_merge(recipe(tmp_path), tmp_path / "out", OPTIONS)
            (family.base / file).write_text(before)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["linear", "ties"])
def test_bytes_that_rotted_under_equal_stamps_are_never_merged(
    tmp_path: Path, family: Family, monkeypatch, method: str
) -> None:
    """The memory of hashes is right about what the file was; the disk has lost a bit since."""
    moment = max(path.stat().st_ctime_ns for path in tmp_path.rglob("*")) + 2_100_000_000
    monkeypatch.setattr(folder_source.time, "time_ns", lambda: moment)
    config = recipe(tmp_path, method)
    run_merge(config, tmp_path / "right", OPTIONS)
    state_of = folder_source._state_of
    states = {path.stat().st_ino: state_of(path.stat()) for path in tmp_path.rglob("*")}
    shard = weights(family.base)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    shard.write_bytes(data)
    for at_place, name in ((folder_source, "_state_of"), (opened_files.FileState, "of")):
        monkeypatch.setattr(
            at_place, name, lambda found: FileState(*states.get(found.st_ino, state_of(found)))
        )
    told = r"are not those that were hashed, though its size.*`touch` it to have it hashed anew"
    with pytest.raises(ChangedInputError, match=told):
        run_merge(config, tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    os.utime(shard)  # the way out that it names
    run_merge(config, tmp_path / "out", OPTIONS)
    rotten = content_digest(family.base)
    assert f"`{rotten}`" in (tmp_path / "out" / "README.md").read_text()
    assert f"`{rotten}`" not in (tmp_path / "right" / "README.md").read_text()


def test_what_was_only_touched_is_read_again_and_taken(
    tmp_path: Path, family: Family, monkeypatch
) -> None:
    shard = weights(family.experts[0])
    run_merge(recipe(tmp_path), tmp_path / "right", OPTIONS)

    def touch() -> None:
        shutil.copy(shard, shard.with_name("same"))
        os.replace(shard.with_name("same"), shard)
        os.utime(family.base / "config.json")

    at(monkeypatch, merge_command, "_merge", touch)
    run_merge(recipe(tmp_path), tmp_path / "out", OPTIONS)
    for path in (tmp_path / "right").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_clock_that_goes_back_hides_nothing(tmp_path: Path, family: Family, monkeypatch) -> None:
    """Files of tomorrow are hashed each time; what is written to one then is seen."""
    shard = weights(family.base)
    later = shard.stat().st_mtime + 86_400
    os.utime(shard, (later, later))
    run_merge(recipe(tmp_path), tmp_path / "right", OPTIONS)
    first = content_digest(family.base)
    overwrite(shard)
    assert content_digest(family.base) != first
    at(monkeypatch, merge_command, "_merge", lambda: overwrite(weights(family.experts[1])))
    with pytest.raises(ChangedInputError, match="changed while it was read"):
        run_merge(recipe(tmp_path), tmp_path / "out", OPTIONS)


def test_one_file_as_a_model(tmp_path: Path, monkeypatch) -> None:
    write_family(tmp_path, LLAMA, experts=2)
    file = tmp_path / "base" / "model.safetensors"
    config = recipe(tmp_path, "linear", "base/model.safetensors")
    at(monkeypatch, merge_command, "_merge", lambda: cut_off(file))
    with pytest.raises(ChangedInputError, match=r"model\.safetensors changed while it was read"):
        run_merge(config, tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()


def test_an_extraction_names_its_inputs_and_refuses_others(
    tmp_path: Path, family: Family, monkeypatch
) -> None:
    base, tuned = family.base, family.experts[0]
    settings = ExtractionSettings(rank=2)
    run_extraction(str(tuned), str(base), tmp_path / "a", settings)
    digests = {"base": content_digest(base), "tuned": content_digest(tuned)}
    assert json.loads((tmp_path / "a" / "extraction.json").read_text())["digests"] == digests
    card = (tmp_path / "a" / "README.md").read_text()
    assert all(f"`{digest}`" in card for digest in digests.values())
    for name in ("plan_extraction", "extract", "check_unchanged"):
        with monkeypatch.context() as patch:
            at(patch, extract_command, name, lambda: overwrite(weights(tuned)))
            before = weights(tuned).read_bytes()
            with pytest.raises(ChangedInputError, match="changed while it was read"):
                run_extraction(str(tuned), str(base), tmp_path / "b", settings)
            weights(tuned).write_bytes(before)
    assert not (tmp_path / "b").exists()


def test_an_average_of_adapters_refuses_others(tmp_path: Path, monkeypatch) -> None:
    family = write_family(tmp_path, LLAMA, experts=1)
    base = read_tensors(family.base)
    lines = []
    for number in (1, 2):
        tensors = lora_tensors(base, modules_of(base, "q_proj"), 4, number)
        folder = write_adapter(tmp_path / f"adapter-{number}", tensors, r=4, lora_alpha=8)
        lines.append(f"  - {{model: {folder}, parameters: {{weight: 0.5}}}}")
    config = tmp_path / "adapters.yaml"
    config.write_text("merge_method: linear\nmodels:\n" + "\n".join(lines) + "\n")
    run_adapter_average(config, tmp_path / "a", False)
    digest = content_digest(tmp_path / "adapter-2")
    assert f"`{digest}`" in (tmp_path / "a" / "README.md").read_text()
    file = tmp_path / "adapter-2" / "adapter_model.safetensors"
    for name in ("write_average", "check_unchanged"):
        with monkeypatch.context() as patch:
            at(patch, adapter_command, name, lambda: overwrite(file))
            before = file.read_bytes()
            with pytest.raises(ChangedInputError, match="changed while it was read"):
                run_adapter_average(config, tmp_path / "b", False)
            file.write_bytes(before)
    assert not (tmp_path / "b").exists()


def test_a_file_that_is_cut_off_while_it_is_hashed_is_an_error(tmp_path: Path) -> None:
    """It is read and not mapped, so no signal ends the process."""
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(40 << 20))
    real = input_digests.FolderSource.note

    class Cutting(real):
        def update(self, data: memoryview) -> None:
            os.truncate(file, 17 << 20)
            super().update(data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(input_digests.FolderSource, "note", Cutting)
        with pytest.raises(ChangedInputError, match="changed while it was hashed"):
            content_digest(file)
