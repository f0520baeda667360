"""`--force`: an old result gives way to a new one, and nothing else ever does."""

import re
from pathlib import Path

import pytest

from merge_ops.errors import OutputError
from orchestration.commands.output_folder import check_output, staged
from tests.checkpoint_factory import LLAMA, read_tensors, write_family
from tests.merging import ronghe

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
