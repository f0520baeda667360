"""`ronghe merge` looks at what it makes: warnings are seen, what does not load is not published."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from merge_ops.errors import Caution, CheckpointError, CompatibilityError
from merge_ops.jobs.verification import check_written
from merge_ops.plans import plan_steps
from merge_ops.recipes import load_steps
from orchestration.commands.cautions import refuse_cautions, show_cautions
from orchestration.commands.console import PlainConsole
from orchestration.commands.models.local_models import open_models
from tests.merges.merging import merge_in_process, ronghe
from tests.models import checkpoint_factory as factory

NORM, EXTRA = "model.norm.weight", "model.extra.weight"
RECIPE = """
merge_method: linear
models:
  - {model: base, parameters: {weight: 1}}
  - {model: expert-1, parameters: {weight: 1}}
"""


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    factory.write_family(folder, factory.LLAMA, experts=1)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def lacking(tmp_path_factory):
    """Base and expert lack the same tensor, so that they fit each other."""
    folder = tmp_path_factory.mktemp("lacking")
    tensors = factory.base_tensors(factory.LLAMA)
    del tensors[NORM]
    for number, name in enumerate(("base", "expert-1")):
        made = factory.expert_tensors(tensors, number) if number else tensors
        factory.write_checkpoint(folder / name, made, factory.LLAMA)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture
def warned(sound, tmp_path):
    """The models, of which the plan has a warning: their windows differ."""
    for name in ("base", "expert-1"):
        shutil.copytree(sound / name, tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        config["sliding_window"] = 64 if name == "base" else 32
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def test_a_sound_merge_says_nothing(sound, tmp_path):
    done = ronghe("merge", "recipe.yaml", tmp_path / "out", folder=sound, verify=True)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert "looked" not in done.stderr
    assert (tmp_path / "out/model.safetensors").exists()


def test_what_the_base_lacks_too_is_refused_unless_it_is_not_looked_at(lacking, tmp_path):
    done = ronghe("merge", "recipe.yaml", tmp_path / "out", folder=lacking, verify=True)
    assert done.returncode == 2
    assert f"the output lacks '{NORM}', which LlamaForCausalLM of its" in done.stderr
    assert "random values there; `--no-verify` merges without this check" in done.stderr
    assert not (tmp_path / "out").exists()
    done = ronghe("merge", "recipe.yaml", tmp_path / "out", folder=lacking)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/model.safetensors").exists()


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Base and expert have the same tensor too much."""
    folder = tmp_path_factory.mktemp("odd")
    tensors = {**factory.base_tensors(factory.LLAMA), EXTRA: torch.ones(4)}
    for number, name in enumerate(("base", "expert-1")):
        made = factory.expert_tensors(tensors, number) if number else tensors
        factory.write_checkpoint(folder / name, made, factory.LLAMA)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


def test_what_the_base_has_too_much_as_well_is_a_warning(odd, tmp_path):
    done = ronghe("merge", "recipe.yaml", tmp_path / "out", folder=odd, verify=True)
    assert done.returncode == 0, done.stderr
    assert f"warning: the output has '{EXTRA}', which LlamaForCausalLM of its" in done.stderr
    assert "so it is with base. Look whether the base is whole" in done.stderr
    assert (tmp_path / "out/model.safetensors").exists()


def test_strict_refuses_it_before_anything_is_written(odd, tmp_path):
    done = ronghe("merge", "recipe.yaml", tmp_path / "out", "--strict", folder=odd, verify=True)
    assert done.returncode == 2
    assert "with `--strict` warnings are errors" in done.stderr
    assert f"has '{EXTRA}'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [each for each in tmp_path.iterdir() if "out" in each.name]


def test_without_verify_transformers_is_not_asked(lacking, tmp_path):
    done = ronghe("merge", "recipe.yaml", tmp_path / "out", "--strict", folder=lacking)
    assert done.returncode == 0, done.stderr
    assert "lacks" not in done.stderr


def test_a_plan_is_verified_where_asked_for(lacking, odd):
    done = ronghe("plan", "recipe.yaml", folder=lacking)
    assert done.returncode == 0
    assert "lacks" not in done.stdout + done.stderr
    done = ronghe("plan", "recipe.yaml", "--verify", folder=lacking)
    assert done.returncode == 2
    assert f"lacks '{NORM}'" in done.stderr
    done = ronghe("plan", "recipe.yaml", "--verify", folder=odd)
    assert done.returncode == 0, done.stderr
    assert f"has '{EXTRA}'" in done.stderr
    done = ronghe("plan", "recipe.yaml", "--verify", "--strict", folder=odd)
    assert done.returncode == 2
    assert f"has '{EXTRA}'" in done.stderr


def test_an_architecture_that_is_not_known_is_said(sound, tmp_path):
    for name in ("base", "expert-1"):
        shutil.copytree(sound / name, tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        config |= {"model_type": "unheard_of", "architectures": ["UnheardForCausalLM"]}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    done = ronghe("merge", sound / "recipe.yaml", "out", folder=tmp_path, verify=True)
    assert done.returncode == 0, done.stderr
    assert "not looked at by transformers: transformers 5" in done.stderr
    assert "knows no 'unheard_of'" in done.stderr


def test_warnings_are_printed_and_counted(warned):
    done = ronghe("merge", "recipe.yaml", "out", folder=warned)
    assert done.returncode == 0, done.stderr
    assert "warning: " in done.stderr
    assert "1 warning; `--strict` makes them errors" in done.stderr
    for command in (("merge", "recipe.yaml", "other"), ("plan", "recipe.yaml")):
        done = ronghe(*command, "--strict", folder=warned)
        assert done.returncode == 2
        assert "(with `--strict` warnings are errors)" in done.stderr
    assert not (warned / "other").exists()
    assert "Warnings:" in (warned / "out/README.md").read_text()


# ------------------------------------------------------------------ the words


def printed(cautions):
    console = PlainConsole()
    with console.capture() as capture:
        show_cautions(console, cautions)
    return capture.get()


def test_words_of_strangers_are_no_markup():
    text = printed([Caution("model '[red]x[/red]'", "has [link=http://e]it[/link]\x1b[2J", "See")])
    assert text.startswith(
        "warning: model '[red]x[/red]' has [link=http://e]it[/link]\\x1b[2J. See\n"
    )
    assert printed([]) == ""


def test_strict_lists_all():
    cautions = [Caution("a", "is odd", "Look"), Caution("b", "is odder", "")]
    with pytest.raises(CompatibilityError, match=r"r.yaml \(with `--strict` .*\): 2 faults\n  - a"):
        refuse_cautions("r.yaml", cautions)
    refuse_cautions("r.yaml", [])


# ------------------------------------------------------------------ the files


@pytest.fixture
def written(sound, tmp_path, monkeypatch):
    monkeypatch.chdir(sound)
    steps = load_steps(Path("recipe.yaml"))
    plan = plan_steps(steps, open_models("recipe.yaml", steps.referenced_models)).result
    return plan, merge_in_process(Path("recipe.yaml"), tmp_path / "out")


def test_written_files_are_as_planned(written):
    check_written(*written)


@pytest.mark.parametrize("spoil", ["drop", "dtype", "cut"])
def test_files_that_are_not_as_planned(written, spoil):
    plan, out = written
    tensors = factory.read_tensors(out)
    if spoil == "drop":
        del tensors[NORM]
    elif spoil == "dtype":
        tensors[NORM] = tensors[NORM].half()
    file = out / "model.safetensors"
    if spoil == "cut":
        file.write_bytes(file.read_bytes()[:-4])
        match = "model.safetensors"
    else:
        factory.save_file(tensors, file, {"format": "pt"})
        match = rf"'{NORM}' is (missing|\('F16', \(64,\)\)), planned: \('F32', \(64,\)\)"
    with pytest.raises(CheckpointError, match=match):
        check_written(plan, out)
