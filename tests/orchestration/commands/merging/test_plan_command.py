"""What `ronghe plan` prints: who is what, parameters in words, bytes, and strangers' names."""

import json
import re
from pathlib import Path

import pytest
import torch

from tests.merges.merging import ronghe
from tests.models import checkpoint_factory as factory

WIDE = {"COLUMNS": "200"}


def write(folder: Path, seed: int, layers: int = 32, head: str = "lm_head.weight") -> Path:
    names = [f"model.layers.{n}.{part}" for n in range(layers) for part in ("mlp.w", "attn.w")]
    names += ["model.embed_tokens.weight", head]
    folder.mkdir(parents=True)
    factory.write_weights(folder, {name: factory.draw(name, (2, 4), seed, 1.0) for name in names})
    factory.write_json(folder / "config.json", {"num_hidden_layers": layers})
    return folder


def planned(tmp_path: Path, text: str, *more: str, expected: int = 0) -> str:
    (tmp_path / "r.yaml").write_text(text)
    result = ronghe("plan", "r.yaml", *more, folder=tmp_path, environment=WIDE)
    assert result.returncode == expected, result.stdout + result.stderr
    return result.stdout


def rows(printed: str) -> list[list[str]]:
    """The cells of all rows of the tables, without their borders."""
    lines = [line for line in printed.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


LINEAR = "merge_method: linear\nmodels:\n  - {model: a, parameters: {weight: %s}}\n"
LINEAR += "  - {model: b, parameters: {weight: %s}}\n"


def test_a_gradient_is_one_line(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        write(tmp_path / name, seed)
    printed = planned(tmp_path, LINEAR % ("[1, 0]", "[0, 1]"))
    assert rows(printed)[2:] == [
        ["weight of a 1, weight of b 0, normalize true", "2", "lm_head.weight"],
        ["weight of a 1 → 0 over 32 layers of model.layers, weight of b 0 → 1 over 32 layers of"
         " model.layers, normalize true", "64", "model.layers.0.attn.w"],
    ]  # fmt: skip
    assert "Parameters(" not in printed
    assert "gradients run over the layers of a stack" in printed


def test_turning_points_filters_and_constants_have_rows_of_their_own(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        write(tmp_path / name, seed, layers=5)
    text = "merge_method: slerp\nbase_model: a\nmodels: [{model: b}]\nparameters:\n"
    text += "  t: [{filter: attn, value: [0, 0.5, 0.3, 0.7, 1]}, {filter: mlp, value: [1, 0.5]},"
    printed = planned(tmp_path, text + " {value: 0.5}]\n")
    assert [row[:2] for row in rows(printed)[2:]] == [
        ["t 0.5", "2"],
        ["t 0 → 0.5 → 0.3 → 0.7 → 1 over 5 layers of model.layers", "5"],
        ["t 1 → 0.5 over 5 layers of model.layers", "5"],
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("merge_method: ties\nbase_model: a\nmodels: [{model: b}]\n"
         "parameters: {weight: 0.5, density: 0.3, normalize: false}",
         "weight 0.5, density 0.3"),
        (LINEAR % (0.25, 0.75), "weight of a 0.25, weight of b 0.75, normalize true"),
        (LINEAR % (0.5, 0.5), "weight 0.5, normalize true"),
        ("merge_method: blockmerge\nbase_model: a\nmodels: [{model: b}]\n"
         "parameters: {gradient_values: [0.5]}", "share 0.5"),
    ],
)  # fmt: skip
def test_parameters_are_told_in_words(text: str, words: str, tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        write(tmp_path / name, seed, layers=2)
    printed = planned(tmp_path, text)
    (row,) = rows(printed)[2:]
    assert row[0].startswith(words)
    assert row[1] == "6"
    assert not re.search(r"Parameters\(|True|False|\(0|,\)", printed)


def test_bytes_are_those_of_one_coefficient_and_of_all(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        write(tmp_path / name, seed, layers=1)
    text = "merge_method: slerp\nbase_model: a\nmodels: [{model: b}]\n"
    one = planned(tmp_path, text + "parameters: {t: 0.5}")
    found = re.search(r"writes ([\d,]+) bytes in 1 file\(s\)$", one.strip())
    assert found
    size = int(found.group(1).replace(",", ""))
    three = planned(tmp_path, text + "sweep: {t: [0, 0.5, 1]}")
    total = f"writes {size:,} bytes in 1 file(s) for each coefficient, {3 * size:,} bytes for all 3"
    assert total in three
    assert "(coefficient t=0.0, the first of 3)" in three


@pytest.mark.parametrize(
    ("text", "roles"),
    [
        (LINEAR % (0.5, 0.5), ["expert (gives config and tokenizer)", "expert"]),
        (LINEAR % (0.5, 0.5) + "base_model: b", ["base", "expert"]),
        ("merge_method: slerp\nbase_model: a\nmodels: [{model: b}]\nparameters: {t: 0.5}",
         ["base", "expert"]),
        ("merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [0, 2]}]},"
         " {sources: [{model: b, layer_range: [0, 2]}]}]",
         ["expert (gives config and tokenizer)", "expert"]),
        ("merge_method: passthrough\nbase_model: a\nslices:"
         " [{sources: [{model: a, layer_range: [0, 2]}]},"
         " {sources: [{model: b, layer_range: [0, 2]}]}]", ["base", "expert"]),
    ],
)  # fmt: skip
def test_a_base_is_a_model_that_the_recipe_calls_so(
    text: str, roles: list[str], tmp_path: Path
) -> None:
    for seed, name in enumerate("ab"):
        write(tmp_path / name, seed, layers=2)
    assert [row[0] for row in rows(planned(tmp_path, text))[:2]] == roles
    document = json.loads(planned(tmp_path, text, "--json"))
    assert (document["base"] is not None) == (roles[0] == "base")
    result = ronghe("merge", "r.yaml", "out", folder=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    card = (tmp_path / "out/README.md").read_text()
    assert re.findall(r"^\| (base|expert.*?) \|", card, re.MULTILINE) == roles


def test_names_are_printed_as_they_are_and_cannot_reach_the_terminal(tmp_path: Path) -> None:
    odd = "head[/x] [bold]\x1b[31m.weight"
    for seed, name in enumerate(("[red]a", "b[green]")):
        write(tmp_path / name, seed, layers=1, head=odd)
    text = 'merge_method: linear\nmodels: [{model: "[red]a"}, {model: "b[green]"}]\n'
    printed = planned(
        tmp_path, text + "parameters: {weight: [{filter: head, value: 1}, {value: 2}]}"
    )
    assert "head[/x] [bold]\\x1b[31m.weight" in printed
    assert "\x1b[31m" not in printed
    assert [row[1] for row in rows(printed)[:2]] == ["[red]a", "b[green]"]


def test_what_is_not_written_is_named_by_its_reason(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        write(tmp_path / name, seed, layers=3)
        factory.edit_config(tmp_path / name, num_hidden_layers=2, num_nextn_predict_layers=1)
    cut = {k: v for k, v in factory.read_tensors(tmp_path / "b").items() if "layers.2" not in k}
    factory.rewrite_weights(tmp_path / "b", cut)
    text = "merge_method: linear\nparameters: {weight: 1}\nslices:\n"
    text += "  - sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 2]}]\n"
    printed = planned(tmp_path, text)
    assert (
        "not written: model.layers.2.attn.w, model.layers.2.mlp.w (multi-token prediction behind"
        " the layers, which not all models have)\n"
    ) in printed
    assert "warning: a has 'model.layers.2.attn.w', 'model.layers.2.mlp.w' for multi-tok" in printed
    assert torch.equal(
        cut["model.layers.0.mlp.w"], factory.read_tensors(tmp_path / "b")["model.layers.0.mlp.w"]
    )
