"""`ronghe gates`: measured once in the child, kept by digest, shown as a table and a picture."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from assets.work.measuring import kept_numbers
from assets.work.measuring.gating import gates_of, routes_of
from assets.work.measuring.model_child import Running
from eval_ops.errors import CheckpointLoadError, PromptsError
from eval_ops.running.mixtures.gates import measure_gates
from merge_ops.calibration.gates import Prompts, metadata_of, read_gates, write_gates
from merge_ops.calibration.moe_statistics import read_moe_statistics
from merge_ops.errors import (
    ChangedInputError,
    CompatibilityError,
    MissingModelError,
    RecipeError,
    SettingsError,
)
from orchestration.commands.mixtures import gates_command
from orchestration.commands.mixtures.gates_command import GateOptions, base_of, run_gates
from orchestration.commands.mixtures.moe_prompts import read_moe_prompts
from orchestration.commands.mixtures.saliency_command import SaliencyOptions, run_saliency
from tests.eval_ops.conftest import _write_checkpoint
from tests.merges.merging import merge_in_process
from tests.models.moe_models import logits
from tests.models.moe_saliency import TEXTS, write_mixture, write_statistics

PROMPTS = [Prompts(("mint cools",), ("qi",)), Prompts(("ginger warms", "rhubarb."))]
MOE = """
base_model: base
gate_mode: hidden
experts:
  - {source_model: teams/herbs, positive_prompts: [mint cools], negative_prompts: [qi]}
  - {source_model: teams/warmth, positive_prompts: [ginger warms, rhubarb.]}
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moe") / "base"
    return _write_checkpoint(folder, 3, "llama", num_hidden_layers=3)


@pytest.fixture
def place(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the base and a mergekit-moe file, where the command runs."""
    shutil.copytree(source, tmp_path / "base")
    (tmp_path / "moe.yaml").write_text(MOE)
    monkeypatch.chdir(tmp_path)
    for name in [each for each in os.environ if each.startswith("RONGHE_")]:
        monkeypatch.delenv(name)
    return tmp_path


def test_gates_are_measured_in_the_child_and_kept(place: Path) -> None:
    base, cache = base_of("moe.yaml", "base"), place / "cache"
    told: list[tuple[int, int]] = []
    running = Running(threads=1)
    first = gates_of(base, PROMPTS, "hidden_last", running, lambda *done: told.append(done), cache)
    assert (first.memoized, first.mode) == (False, "hidden")
    assert told[-1] == (12, 12)  # four texts through three layers
    wanted = measure_gates(base.folder, PROMPTS, "hidden")
    for layer, rows in enumerate(wanted):
        np.testing.assert_allclose(first.gates[layer], rows, atol=1e-6)
    again = gates_of(base, PROMPTS, "hidden", running, cache=cache)
    assert again.memoized
    assert again.key == first.key
    assert all(np.array_equal(again.gates[layer], first.gates[layer]) for layer in range(3))
    # What is damaged is measured again, and other prompts have a file of their own.
    (kept,) = cache.glob("*.safetensors")
    kept.write_bytes(kept.read_bytes()[:-4])
    assert not gates_of(base, PROMPTS, "hidden", running, cache=cache).memoized
    assert not gates_of(base, PROMPTS[::-1], "hidden", running, cache=cache).memoized
    assert len(list(cache.iterdir())) == 2
    shares = routes_of(base, ["mint cools"], first.gates, 1, running)
    assert shares.shape == (1, 3, 2)
    np.testing.assert_allclose(shares.sum(axis=-1), 1.0, atol=1e-6)


def test_the_last_measured_files_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_numbers, "MOST_KEPT", 2)
    for number in range(4):
        path = tmp_path / f"{number}.safetensors"
        write_gates(path, {0: np.ones((1, 2), np.float32)}, {"mode": "hidden", "key": "k"})
        os.utime(path, ns=(0, number))
    kept_numbers.remove_oldest(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        "2.safetensors",
        "3.safetensors",
    ]


def test_the_command_shows_where_prompts_go(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, picture = place / "made" / "g.safetensors", place / "made" / "r.png"
    run_gates(place / "moe.yaml", GateOptions(out=out, picture=picture, threads="1"))
    printed = capsys.readouterr().out
    assert "gates by hidden: 3 layers, 2 moe_experts" in printed
    assert "where prompts go, 2 a token, mean over layers" in printed
    assert "rhubarb." in printed
    assert "1: warmth" in printed
    assert "of 3 prompts go most to the expert they were written for" in printed
    assert read_gates(out, layers=3, experts=2, hidden=32)[0].shape == (2, 32)
    assert metadata_of(out)["mode"] == "hidden"
    assert picture.read_bytes().startswith(b"\x89PNG")
    run_gates(place / "moe.yaml", GateOptions(mode="hidden_avg", as_json=True, threads="1"))
    told = json.loads(capsys.readouterr().out)
    assert told["mode"] == "hidden_avg"
    assert [each["expert"] for each in told["prompts"]] == [0, 1, 1]
    assert [len(each["layers"]) for each in told["prompts"]] == [3, 3, 3]
    for each in told["prompts"]:
        assert sum(each["shares"]) == pytest.approx(1, abs=1e-5)
        first = each["layers"][0]
        assert first["first"][0] == int(np.argmax(first["shares"]))
    run_gates(place / "moe.yaml", GateOptions(mode="hidden_avg", threads="1"))
    assert "gates of these prompts on base were measured before" in capsys.readouterr().out


def test_prompts_with_one_last_token_are_a_warning(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "dots.yaml").write_text(
        "base_model: base\nexperts:\n"
        "  - {source_model: a, positive_prompts: [mint cools.]}\n"
        "  - {source_model: b, positive_prompts: [ginger warms qi.]}\n"
    )
    run_gates(place / "dots.yaml", GateOptions(threads="1"))
    printed = capsys.readouterr().out
    assert "warning: gates of" in printed
    assert "has equal rows for moe_experts 0 and 1 in layer 0" in printed
    assert "set gate_mode: hidden_avg" in printed
    with pytest.raises(CompatibilityError, match=r"`--strict` warnings are errors(?s:.)*equal row"):
        run_gates(place / "dots.yaml", GateOptions(threads="1", strict=True))


def test_what_cannot_be_measured_is_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PromptsError, match="gate_mode is 'cheap_embed'; a model is run for hidden"):
        run_gates(place / "moe.yaml", GateOptions(mode="cheap_embed"))
    with pytest.raises(SettingsError, match=r"--out is .*which is a folder; name a file"):
        run_gates(place / "moe.yaml", GateOptions(out=place))
    with pytest.raises(MissingModelError, match="there is no folder"):
        base_of("moe.yaml", "./nowhere")
    with pytest.raises(SettingsError, match=r"is 'base\+b', an adapter on a base; merge"):
        base_of("moe.yaml", "base+b")
    with pytest.raises(SettingsError, match="gates need a folder with a config and a tokenizer"):
        base_of("moe.yaml", "base/model.safetensors")
    base = base_of("moe.yaml", "base")
    notes = gates_command.make_list_console()
    (place / "base" / "config.json").write_text("{}")
    with pytest.raises(CheckpointLoadError, match=r"^base: cannot be loaded as a causal language"):
        gates_of(base, PROMPTS, "hidden", Running(threads=1), cache=place / "cache")
    monkeypatch.setattr(gates_command, "gates_of", lambda *_, **__: None)
    with pytest.raises(ChangedInputError, match="base changed while gates were measured"):
        gates_command.measured_gates(base, PROMPTS, "hidden", Running(), notes)


def test_the_file_is_a_recipe_of_a_mixture(tmp_path: Path) -> None:
    path = tmp_path / "moe.yaml"
    path.write_text(MOE)
    read = read_moe_prompts(path)
    assert (read.base, read.mode, read.experts_per_token) == ("base", "hidden", 2)
    assert read.models == ("teams/herbs", "teams/warmth")
    assert read.prompts == tuple(tuple(each) for each in PROMPTS)
    path.write_text(MOE.replace("positive_prompts: [mint cools]", "positive_prompts: 1"))
    with pytest.raises(RecipeError, match=r"experts\[0\]\.positive_prompts"):
        read_moe_prompts(path)
    path.write_text("merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}]\n")
    with pytest.raises(RecipeError, match="is no mergekit-moe file, which has `base_model`"):
        read_moe_prompts(path)


def test_moe_experts_are_measured_in_the_same_child_and_fewer_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    model, texts = write_mixture(tmp_path / "mixtral", "mixtral"), tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS))
    out, picture = tmp_path / "made" / "s.safetensors", tmp_path / "made" / "s.png"
    run_saliency("mixtral", texts, SaliencyOptions(out, picture, "cpu", "1"))
    printed = capsys.readouterr().out
    assert "2 layers of 6 moe_experts, 2 a token; " in printed
    assert "most used (of tokens)" in printed
    wanted = write_statistics(tmp_path / "wanted", model)
    assert read_moe_statistics(out).digest == wanted.digest
    assert picture.read_bytes().startswith(b"\x89PNG")
    run_saliency("mixtral", texts, SaliencyOptions(as_json=True))
    told = json.loads(capsys.readouterr().out)
    assert told["layers"][0]["saliency"] == wanted.layers[0].saliency.tolist()
    run_saliency("mixtral", texts, SaliencyOptions())
    assert "mixtral was measured on these texts before" in capsys.readouterr().out
    recipe = tmp_path / "less.yaml"
    recipe.write_text(
        "moe: {keep: 0.5, method: reap, statistics: made/s.safetensors}\n"
        "models: [{model: mixtral}]\n"
    )
    assert logits(merge_in_process(recipe, tmp_path / "less")).isfinite().all()
    with pytest.raises(SettingsError, match=r"--out is .*which is a folder; name a file"):
        run_saliency("mixtral", texts, SaliencyOptions(tmp_path))
    with pytest.raises(SettingsError, match=r"MODEL is 'mixtral\+b', an adapter on a base; merge"):
        run_saliency("mixtral+b", texts, SaliencyOptions())
