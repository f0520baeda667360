"""`--force`: an old result gives way to a new one, and nothing else ever does."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from merge_ops.errors import OutputError
from orchestration.commands.models.output_folder import check_output, check_space, staged
from resources.store.artifact_store import ArtifactStore
from tests.merges.merging import ROOT, ronghe
from tests.models.checkpoint_factory import LLAMA, read_tensors, write_family
from tests.servers.privileges import permissions_count

FILES = ("config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json")
BESIDE = (
    "README.md", "LICENSE", "NOTICE.txt", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
    "merges.txt", "spiece.model", "qwen.tiktoken", "chat_template.jinja", "generation_config.json",
    "special_tokens_map.json", "modeling_chatglm.py", "mergekit_config.yml", ".gitattributes",
    "preprocessor_config.json", "pytorch_model.bin",
)  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


def old_result(folder: Path, *more: str) -> Path:
    for name in (*FILES, *more):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("old")
    return folder


def replace(out: Path) -> None:
    check_output(out, force=True)
    with staged(out, force=True) as stage:
        (stage / "model.safetensors").write_text("new")


def test_an_old_result_gives_way(place):
    out = old_result(place / "out", *BESIDE, "additional_chat_templates/tool_use.jinja")
    replace(out)
    assert [each.name for each in out.iterdir()] == ["model.safetensors"]
    assert [each.name for each in place.iterdir()] == ["out"]


def test_an_old_sweep_gives_way(place):
    old_result(place / "out" / "density=0.2")
    old_result(place / "out" / "density=0.8")
    replace(place / "out")
    assert [each.name for each in (place / "out").iterdir()] == ["model.safetensors"]


def test_it_stays_until_the_new_one_is_whole(place):
    out = old_result(place / "out")
    stopped = staged(out, force=True)
    (stopped.__enter__() / "model.safetensors").write_text("half")
    assert not stopped.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert sorted(each.name for each in out.iterdir()) == sorted(FILES)
    assert [each.name for each in place.iterdir()] == ["out"]


def test_it_comes_back_where_the_new_one_cannot_take_its_place(place):
    out = old_result(place / "out")
    with pytest.raises(OutputError, match="cannot be written"), staged(out, force=True) as stage:
        stage.rmdir()
    assert sorted(each.name for each in out.iterdir()) == sorted(FILES)
    assert [each.name for each in place.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "stranger",
    ["notes.md", "results.json", "optimizer.pt", "src/train.py", ".git/config", "recipe.yaml",
     "data.csv", "notes.txt", "runs/events.out"],
)  # fmt: skip
def test_a_folder_with_anything_else_stays(place, stranger):
    out = old_result(place / "out", stranger)
    told = f"is not replaced: it also holds {stranger}, which no merge wrote; move what you keep"
    with pytest.raises(OutputError, match=re.escape(told)):
        check_output(out, force=True)
    assert (out / stranger).read_text() == "old"


def test_no_more_of_a_large_folder_is_looked_at_than_is_told(place, monkeypatch):
    home = old_result(place / "home")
    for number in range(20):
        old_result(home / f"{number}", "letter.txt", "thesis.tex")
    walked, walk = [], os.walk
    monkeypatch.setattr(os, "walk", lambda *a, **b: (walked.append(i) or i for i in walk(*a, **b)))
    for force, told in ((False, r"empty this one$"), (True, r"also holds 0/.* and more,")):
        walked.clear()
        with pytest.raises(OutputError, match=told):
            check_output(home, force)
        assert len(walked) < 5


def test_what_comes_while_the_merge_runs_is_seen(place):
    out = old_result(place / "out")
    merge = staged(out, force=True)
    (merge.__enter__() / "model.safetensors").write_text("new")
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="also holds thesis"):
        merge.__exit__(None, None, None)
    assert (out / "thesis.tex").read_text() == "years of work"


def test_links_files_and_folders_without_weights_stay(place):
    out = old_result(place / "out")
    (place / "link").symlink_to(out)
    with pytest.raises(OutputError, match="it is a link; name the folder"):
        check_output(place / "link", force=True)
    (out / "more.safetensors").symlink_to(place)
    with pytest.raises(OutputError, match=r"also holds more\.safetensors"):
        check_output(out, force=True)
    (place / "file").write_text("x")
    with pytest.raises(OutputError, match="it is no folder"):
        check_output(place / "file", force=True)
    (place / "bare").mkdir()
    (place / "bare" / "config.json").write_text("{}")
    with pytest.raises(OutputError, match="it holds no weights"):
        check_output(place / "bare", force=True)


def test_what_is_read_is_never_replaced(place):
    out = old_result(place / "out")
    for read in (out, out / "model.safetensors", place):
        with pytest.raises(OutputError, match="is read for this merge; name another folder"):
            check_output(out, True, [read])
    check_output(out, True, [place / "output", place / "other"])


def test_without_force_the_way_is_named(place):
    out = old_result(place / "out")
    with pytest.raises(OutputError, match="or give --force to replace an old result"):
        check_output(out, force=False)
    with pytest.raises(OutputError, match=r"name a new folder or empty this one$"):
        check_output(out)  # a command without --force
    (out / "notes.md").write_text("mine")  # and --force would not replace it
    with pytest.raises(OutputError, match=r"name a new folder or empty this one$"):
        check_output(out, force=False)
    (place / "text").mkdir()
    (place / "text" / "a.txt").write_text("x")
    with pytest.raises(OutputError, match=r"name a new folder or empty this one$"):
        check_output(place / "text", force=False)


def test_by_the_command_line(tmp_path):
    family = write_family(tmp_path / "models", LLAMA, experts=2)
    text = "merge_method: linear\nmodels: [{{model: {}}}, {{model: {}}}]\nparameters: {{weight: 1}}"
    recipe, out = tmp_path / "study.yaml", tmp_path / "out"
    recipe.write_text(text.format(family.base, family.experts[0]))
    assert ronghe("merge", recipe, out).returncode == 0
    before = read_tensors(out)
    recipe.write_text(text.format(family.base, family.experts[1]))
    refused = ronghe("merge", recipe, out)
    assert refused.returncode == 2
    assert "give --force to replace an old result" in refused.stderr
    assert ronghe("merge", "--force", recipe, out).returncode == 0
    name = "model.layers.0.mlp.up_proj.weight"
    assert not read_tensors(out)[name].equal(before[name])
    told = ronghe("merge", "--force", recipe, family.base)
    assert told.returncode == 2
    assert "is read for this merge; name another folder" in told.stderr


def write(out: Path) -> None:
    check_output(out)
    with staged(out) as stage:
        (stage / "config.json").write_text("{}")
        (stage / "deep").mkdir()
        (stage / "deep" / "model.safetensors").write_text("new")


def whole(out: Path) -> bool:
    return sorted(each.name for each in out.iterdir()) == ["config.json", "deep"]


def as_mount_point(monkeypatch, *folders):
    """Folders that say they are mount points, and cannot be renamed or removed."""
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path) in folders)


def test_a_mount_point_is_filled(place, monkeypatch):
    out = place / "volume"
    (out / "lost+found").mkdir(parents=True)
    as_mount_point(monkeypatch, out)
    before = out.stat().st_ino
    write(out)
    (out / "lost+found").rmdir()
    assert whole(out)
    assert out.stat().st_ino == before
    assert [each.name for each in place.iterdir()] == ["volume"]


def test_a_mount_point_is_left_empty_by_an_error(place, monkeypatch):
    out = place / "volume"
    out.mkdir()
    as_mount_point(monkeypatch, out)
    stopped, error = staged(out), OSError(5, "Input/output error")
    (stopped.__enter__() / "half").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"):
        stopped.__exit__(OSError, error, None)
    assert list(out.iterdir()) == []


def test_what_comes_into_it_meanwhile_is_not_mixed_with_the_result(place, monkeypatch):
    out = place / "volume"
    out.mkdir()
    as_mount_point(monkeypatch, out)
    stopped = staged(out)
    (stopped.__enter__() / "config.json").write_text("{}")
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"no longer empty: it holds thesis\.tex"):
        stopped.__exit__(None, None, None)
    assert [each.name for each in out.iterdir()] == ["thesis.tex"]


def test_a_mount_point_with_an_old_result_is_not_replaced(place, monkeypatch):
    out = old_result(place / "volume")
    as_mount_point(monkeypatch, out)
    with pytest.raises(OutputError, match="not replaced: it is a mount point"):
        check_output(out, force=True)
    assert sorted(each.name for each in out.iterdir()) == sorted(FILES)


def test_a_link_to_an_empty_folder_is_followed_and_stays(place):
    (place / "big-disk").mkdir()
    (place / "out").symlink_to("big-disk")
    write(place / "out")
    assert (place / "out").is_symlink()
    assert whole(place / "big-disk")


def test_the_folder_one_stands_in_stays_the_same(place, monkeypatch):
    monkeypatch.chdir(place)
    before = place.stat().st_ino
    write(Path())
    assert whole(place)
    assert place.stat().st_ino == before
    (place / "sub").mkdir()
    monkeypatch.chdir(place / "sub")
    with pytest.raises(OutputError, match="exists and is not empty"):
        check_output(Path(".."))


def test_missing_parents_are_made_and_removed_where_nothing_comes_of_it(place):
    write(place / "a" / "b" / "out")
    assert whole(place / "a" / "b" / "out")
    with pytest.raises(ValueError, match="no"), staged(place / "c" / "d" / "out"):
        raise ValueError("no")
    assert [each.name for each in place.iterdir()] == ["a"]


def test_what_cannot_be_an_output_is_told_before_work(place):
    (place / "file").write_text("x")
    (place / "dead").symlink_to(place / "absent")
    refused = {
        place / "file": "is a file; name a folder",
        place / "file" / "out": "file is a file",
        place / "dead": "is a link to .*absent, which is not there",
        place / ("x" * 300): "File name too long",
        place / "a\0b": "embedded null",
    }
    for out, told in refused.items():
        with pytest.raises(OutputError, match=told):
            check_output(out)
    assert sorted(each.name for each in place.iterdir()) == ["dead", "file"]


def test_a_place_that_may_not_be_written_is_told_before_work(place):
    (place / "closed" / "empty").mkdir(parents=True)
    (place / "closed").chmod(0o555)
    with permissions_count():
        with pytest.raises(OutputError, match=r"this user may not write to .*closed"):
            check_output(place / "closed" / "new" / "out")
        write(place / "closed" / "empty")  # an empty folder of one's own in it may be filled
    (place / "closed").chmod(0o755)
    assert whole(place / "closed" / "empty")


def test_a_full_disk_is_told_before_work(place, monkeypatch):
    check_space(place / "out", 10**6)
    with pytest.raises(OutputError, match=r"takes .* GB, and .*place has .* free; free space"):
        check_space(place / "deep" / "out", 10**18)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_disk_that_fails_in_the_middle_is_one_line_and_leaves_nothing(place, number):
    stopped, error = staged(place / "out"), OSError(number, os.strerror(number))
    (stopped.__enter__() / "half").write_text("x")
    with pytest.raises(OutputError, match=f"out: cannot be written .*{os.strerror(number)}"):
        stopped.__exit__(OSError, error, None)
    assert list(place.iterdir()) == []


def test_an_exchange_needs_no_moment_without_the_old_result(place, monkeypatch):
    """Where the system can exchange two folders, no rename takes the old one away before."""
    out = old_result(place / "out")
    monkeypatch.setattr(Path, "rename", None)
    replace(out)
    assert [each.name for each in out.iterdir()] == ["model.safetensors"]
    assert [each.name for each in place.iterdir()] == ["out"]


def test_without_it_two_renames_do(place, monkeypatch):
    out = old_result(place / "out")
    monkeypatch.setattr("orchestration.commands.models.output_folder._exchanged", lambda *_: False)
    replace(out)
    assert [each.name for each in out.iterdir()] == ["model.safetensors"]
    assert [each.name for each in place.iterdir()] == ["out"]


KILLED = """
import os, signal, sys
from pathlib import Path
from orchestration.commands.models import output_folder
from orchestration.commands.models.output_folder import staged
output_folder._exchanged = lambda *_: False
plain = Path.rename
def rename(self, target):
    if self.name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(self, target)
Path.rename = rename
with staged(Path(sys.argv[1]), force=True) as stage:
    (stage / "model.safetensors").write_text("new")
"""


@pytest.mark.parametrize("moment", ["place", "out"])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(place, moment):
    """The next command in that place removes what is left, and puts the old result back."""
    out = old_result(place / "result")
    when = "result" if moment == "place" else "out"
    done = subprocess.run([sys.executable, "-c", KILLED, str(out), when], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert len(list(place.iterdir())) == (2 if moment == "place" else 1)
    write(place / "another")
    assert sorted(each.name for each in out.iterdir()) == sorted(FILES)
    assert sorted(each.name for each in place.iterdir()) == ["another", "result"]


def test_a_tilde_in_quotes_is_no_home(place, monkeypatch):
    monkeypatch.chdir(place)
    for each in ("~/models/out", "~", "~nobody/out"):
        with pytest.raises(OutputError, match="in quotes ~ is no home"):
            check_output(Path(each))
    check_output(Path("./models/~"))
    (place / "~").mkdir()
    check_output(Path("~/out"))  # somebody has such a folder
    assert [each.name for each in place.iterdir()] == ["~"]


def test_nothing_is_put_into_an_artifact_store(place):
    store = ArtifactStore.open((place / "store").as_uri())
    with store.attempt("checkpoint") as attempt:
        attempt.write_json("config.json", 1)
        attempt.publish("digest-1")
    for each in ("out", "artifacts/checkpoint/out", "../store/refs/out"):
        with pytest.raises(OutputError, match="lies in the artifact store"):
            check_output(place / "store" / each)
    check_output(place / "out")
