"""The door to a model's folder: what of a stranger's is read, and what is refused."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from merge_ops.checkpoints.files import folder_door
from merge_ops.checkpoints.files.byte_sources import FolderSource, read_file
from merge_ops.checkpoints.files.folder_door import FolderDoor, RefusedFileError, open_regular
from merge_ops.checkpoints.folders.folder_verdict import read_folder
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CheckpointError, UnreadableFileError
from resources.errors import ModelSourceError
from resources.upstream.folder_source import FolderModel
from tests.merges.merging import ROOT
from tests.models import checkpoint_factory as factory

SECRET = b"a private key of whoever runs this"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound model, with a private file beside its folder."""
    made = tmp_path / "model"
    factory.write_checkpoint(made, factory.base_tensors(factory.LLAMA), factory.LLAMA)
    (tmp_path / "private").write_bytes(SECRET)
    (tmp_path / "private-folder").mkdir()
    (tmp_path / "private-folder" / "config.json").write_bytes(SECRET)
    return made


def refused(folder: Path, follow_links: bool = False) -> str:
    """What the verdict and the pull say of a folder, which must both refuse it."""
    verdict = read_folder(FolderSource(folder, follow_links=follow_links)).verdict
    assert verdict.kind == "unsafe"
    with pytest.raises(ModelSourceError, match=r"is refused: "):
        FolderModel(folder, folder.parent / "hashes", follow_links=follow_links).revision()
    return "; ".join(verdict.faults)


def test_both_packages_have_the_same_door() -> None:
    other = ROOT / "resources" / "upstream" / "folder_door.py"
    assert Path(folder_door.__file__).read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "LICENSE", "NOTICE.txt", "README.md", "tokenizer.model", "tokenizer.json", "config.json",
        "generation_config.json", "modeling_x.py", "chat_template.jinja", "vocab.txt",
        "model.safetensors.index.json", "tokenizer.model.v3",
    ],
)  # fmt: skip
def test_a_link_out_of_the_folder_is_refused_by_name(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("../private")
    told = refused(folder)
    assert f"{folder}/{name} is a link out of the folder, to {folder.parent}/private" in told
    assert "--follow-links" in told
    with pytest.raises(UnreadableFileError, match="is a link out of the folder"):
        read_file(FolderSource(folder), name, 0, 4)


@pytest.mark.parametrize(
    "target",
    [
        "../model/../private",  # inside by its spelling alone
        "hop",  # a chain
        "{folder}/../private",
        "{folder}/inner/../../private",
    ],
)
def test_where_a_link_ends_counts_and_not_how_it_is_written(folder: Path, target: str) -> None:
    (folder / "inner").mkdir()
    (folder / "hop").symlink_to("hop2")
    (folder / "hop2").symlink_to("../private")
    (folder / "LICENSE").symlink_to(target.format(folder=folder))
    assert f"LICENSE is a link out of the folder, to {folder.parent}/private" in refused(folder)


@pytest.mark.parametrize("target", ["/proc/self/environ", "/proc/self/maps", "/dev/zero", "/dev"])
@pytest.mark.parametrize("follow_links", [False, True])
@pytest.mark.parametrize("name", ["LICENSE", "model.safetensors", "pytorch_model.bin"])
def test_nothing_of_the_machine_is_a_file_of_a_model(
    folder: Path, target: str, follow_links: bool, name: str
) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)
    assert f"{name} is a link out of the folder, to /" in refused(folder, follow_links)


def test_a_folder_of_the_model_that_is_a_link_is_refused(folder: Path) -> None:
    (folder / "1_Pooling").symlink_to("../private-folder")
    assert "1_Pooling is a link out of the folder" in refused(folder)


def test_links_that_nobody_reads_are_passed_over(folder: Path) -> None:
    (folder / "runs").symlink_to("../private-folder")
    (folder / "log.out").symlink_to("../private")
    assert open_checkpoint(str(folder)).tensors
    assert FolderModel(folder, folder.parent / "hashes").revision()
    assert {"runs", "log.out"}.isdisjoint(FolderSource(folder).sizes())


def test_links_inside_the_folder_are_read(folder: Path) -> None:
    (folder / "of-others").mkdir()
    (folder / "config.json").rename(folder / "of-others" / "config.json")
    (folder / "config.json").symlink_to("of-others/config.json")
    (folder / "2_Dense").symlink_to("of-others")
    source = FolderSource(folder)
    assert read_folder(source).verdict.mergeable
    assert "2_Dense/config.json" in source.sizes()
    assert json.loads(read_file(source, "config.json", 0, source.sizes()["config.json"]))


def test_weights_may_lie_on_another_disk(folder: Path) -> None:
    disk = folder.parent / "disk"
    disk.mkdir()
    for name in ("w.safetensors", "0123456789abcdef0123456789abcdef01234567"):
        (folder / "model.safetensors").rename(disk / name)
        (folder / "model.safetensors").symlink_to(disk / name)
        assert open_checkpoint(str(folder)).tensors
        assert FolderModel(folder, folder.parent / "hashes").revision()
        (folder / "model.safetensors").unlink()
        (disk / name).rename(folder / "model.safetensors")


@pytest.mark.parametrize("target", ["private", "weights-of-nobody", "plain.safetensors"])
def test_a_link_of_weights_leads_to_weights(folder: Path, target: str) -> None:
    good = (folder / "model.safetensors").read_bytes()
    (folder.parent / "weights-of-nobody").write_bytes(good)
    (folder.parent / "plain.safetensors").write_bytes(SECRET)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(folder.parent / target)
    assert "which holds no weights; put the weights in its place" in refused(folder)


def cached(folder: Path) -> Path:
    """The model as the Hub's cache has it: links into the blobs beside the snapshots."""
    snapshot = folder.parent / "models--o--n" / "snapshots" / ("0" * 40)
    blobs = folder.parent / "models--o--n" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(blobs / f"{number:040x}")
        (snapshot / path.name).symlink_to(f"../../blobs/{number:040x}")
    return snapshot


def test_the_cache_of_the_hub_is_read(folder: Path) -> None:
    snapshot = cached(folder)
    assert open_checkpoint(str(snapshot)).config
    assert FolderModel(snapshot, folder.parent / "hashes").revision()
    (folder.parent / "nearby").symlink_to(snapshot)
    assert open_checkpoint(str(folder.parent / "nearby")).config


@pytest.mark.parametrize("where", ["models--o--other/blobs", "models--o--n/blobs2", "elsewhere"])
def test_blobs_of_another_model_are_not_its_own(folder: Path, where: str) -> None:
    snapshot = cached(folder)
    place = folder.parent / where
    place.mkdir(parents=True)
    (place / "a").write_bytes(SECRET)
    (snapshot / "LICENSE").symlink_to(place / "a")
    assert "LICENSE is a link out of the folder" in refused(snapshot)


def test_blobs_that_are_a_link_themselves_lead_nowhere(folder: Path) -> None:
    snapshot = cached(folder)
    blobs = folder.parent / "models--o--n" / "blobs"
    blobs.rename(folder.parent / "moved")
    blobs.symlink_to("../moved")
    assert "config.json is a link out of the folder" in refused(snapshot)


def test_follow_links_is_for_ones_own(folder: Path) -> None:
    (folder.parent / "text").write_bytes(b"a licence")
    (folder / "LICENSE").symlink_to("../text")
    source = FolderSource(folder, follow_links=True)
    assert read_folder(source).verdict.mergeable
    assert read_file(source, "LICENSE", 0, 9) == b"a licence"
    assert FolderModel(folder, folder.parent / "hashes", follow_links=True).revision()


@pytest.mark.parametrize("name", ["LICENSE", "tokenizer.json", "config.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "socket", "link to a pipe", "folder"])
def test_what_is_no_file_is_neither_waited_for_nor_read(folder: Path, name: str, kind: str) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
        with pytest.raises(UnreadableFileError, match="is a folder, and no file"):
            read_file(FolderSource(folder), name, 0, 1)
        return
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as opened:
            before = os.getcwd()
            os.chdir(folder)  # a socket's path is short
            try:
                opened.bind(name)
            finally:
                os.chdir(before)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        os.mkfifo(folder / ".pipe")
        path.symlink_to(".pipe")
    assert f"{name} is a " in refused(folder)
    with pytest.raises(UnreadableFileError, match=r"is a (named pipe|socket), and no file"):
        read_file(FolderSource(folder), name, 0, 1)


def test_a_file_that_is_exchanged_for_a_link_is_not_read(folder: Path) -> None:
    source, model = FolderSource(folder), FolderModel(folder, folder.parent / "hashes")
    assert "config.json" in source.sizes()
    model.revision()
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("../private")
    with pytest.raises(UnreadableFileError, match="is a link out of the folder"):
        read_file(source, "config.json", 0, 4)
    with pytest.raises(ModelSourceError, match="is a link out of the folder"):
        model.copy_to(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["../private", "/etc/passwd", "a/../../private", "", "a\0b", "./x"]
)
def test_names_that_lead_out_are_no_files(folder: Path, name: str) -> None:
    with pytest.raises(RefusedFileError, match="is no file of "):
        FolderDoor(folder).open(name)


def test_links_in_a_circle_and_endless_chains(folder: Path) -> None:
    (folder / "LICENSE").symlink_to("LICENSE")
    for number in range(50):
        (folder / f"hop{number}").symlink_to(f"hop{number + 1}")
    (folder / "NOTICE").symlink_to("hop0")
    told = refused(folder)
    assert "LICENSE is a link that leads to itself" in told
    assert "NOTICE" not in told  # its chain ends nowhere: a dead link of a name that nobody needs


def test_a_folder_of_far_too_many_files_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_door, "MAX_FILES", 5)
    for number in range(6):
        (folder / f"{number}.log").touch()
    assert "holds more than 5 files; name the folder of one model" in refused_once(folder)


def refused_once(folder: Path) -> str:
    return "; ".join(read_folder(FolderSource(folder)).verdict.faults)


def test_folders_in_one_another_without_end_are_not_gone_through(folder: Path) -> None:
    deep = folder
    for _ in range(30):
        deep = deep / "deeper"
        deep.mkdir()
    (deep / "model.safetensors").touch()
    (folder / "again").symlink_to(".")
    assert open_checkpoint(str(folder)).tensors


def test_a_name_that_is_no_text_is_refused(folder: Path) -> None:
    (folder / os.fsdecode(b"\xff.json")).write_text("{}")
    assert r"\xff.json: its name is no text; rename it" in refused(folder)


@pytest.mark.parametrize("name", ["m\0x", "x" * 5000, "y/" * 3000, "config.json/x"])
def test_a_folder_of_an_impossible_name_is_not_there(folder: Path, name: str) -> None:
    path = folder / name if name.endswith("x") and "/" in name else Path(name)
    with pytest.raises(CheckpointError, match="does not exist or is empty"):
        open_checkpoint(str(path))
    with pytest.raises(ModelSourceError, match="is not there, or is no folder"):
        FolderModel(path, folder.parent / "hashes").revision()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all")
def test_a_file_without_permission_is_named(folder: Path) -> None:
    (folder / "config.json").chmod(0)
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read \(Permission denied\)"):
        open_checkpoint(str(folder))


def test_a_lone_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RefusedFileError, match="is a named pipe, and no file"):
        open_regular(tmp_path / "pipe")
    with pytest.raises(RefusedFileError, match="is a device, and no file"):
        open_regular("/dev/zero")


def test_the_door_needs_no_library(folder: Path) -> None:
    code = "import sys, merge_ops.checkpoints.files.folder_door; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
