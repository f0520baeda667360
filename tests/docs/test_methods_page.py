"""docs/methods.md is what the registry says, its recipes plan, and its pictures are there."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from docs.method_examples import recipe
from docs.method_pictures import merged, picture, toy
from docs.methods_page import PAGE, PICTURES, markdown, page, section
from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.methods import METHODS, MergeMethod
from merge_ops.methods.parameters import REQUIRED, per_input, shared
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from tests.models import checkpoint_factory as factory

OUTDATED = "docs/methods.md or its pictures are not what the registry says now; run `make docs`"


def test_the_committed_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(METHODS.values()), OUTDATED


def test_every_method_has_its_picture_and_no_other_lies_there():
    assert {path.stem for path in PICTURES.iterdir()} == set(METHODS), OUTDATED
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", PAGE.read_text(encoding="utf-8"))
    assert {PAGE.parent / each for each in shown} == set(PICTURES.iterdir()), OUTDATED
    for path in PICTURES.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG"), path
        assert path.stat().st_size < 40_000, path


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    family = factory.write_family(tmp_path_factory.mktemp("family"), factory.LLAMA, experts=3)
    folders = {"base": family.base, **{each.name: each for each in family.experts}}
    return {name: open_checkpoint(name, FolderSource(Path(at))) for name, at in folders.items()}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_recipe_of_the_page_plans(name, checkpoints):
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (text,) = [each for each in blocks if each.startswith(f"merge_method: {name}\n")]
    plan = plan_merge(parse_recipe(text, name, f"{name}.yaml"), checkpoints)
    assert plan.method is METHODS[name]


@dataclass(frozen=True)
class OddParameters:
    rank: int = shared("rank", int, REQUIRED, "directions kept", at_least=3)
    share: tuple = per_input("share", REQUIRED, "how much | of it", above=2, at_most=3)
    how: str = shared("how", str, REQUIRED, "which way", choices=("left", "right"))
    slow: bool = shared("slow", bool, REQUIRED, "take time")
    floor: float = shared("floor", float, REQUIRED, "no less", at_most=-4)


def odd(tensors, _, parameters, arithmetic):
    """Σ of all, of *matrices*.

    A list:
    - one_thing
      over two lines
    - another

        indented = formula
    """
    assert tensors[0].shape == (20, 20)
    return sum(tensors)


def test_a_method_nobody_prepared_for_has_its_section():
    method = MergeMethod(
        "odd", odd, OddParameters, "task_vectors", "tensor", "calibration", "arXiv:1", at_least=3
    )
    text = section(method)
    given = "parameters: {rank: 4, share: 2.5, how: left, slow: true, floor: -4.5}"
    assert given in recipe(method)
    assert recipe(method) in text
    assert "  - model: expert-3\n" in text
    assert "[arXiv:1](https://arxiv.org/abs/1)" in text
    assert "at least 3 models besides the base, which is required" in text
    assert (
        r"| `share` | number | required | above 2 and at most 3 | per model | how much \| of"
        in text
    )
    assert "\nΣ of all, of \\*matrices\\*.\n" in text
    assert "A list:\n- one\\_thing over two lines\n- another\n" in text
    assert "```text\nindented = formula\n```" in text
    tensors = toy(method)
    assert len(tensors) == 3
    assert merged(method, tensors).equal(sum(tensors))


def test_formulas_and_addresses_survive_markdown():
    text = "|a_i| * [b] < `c_d*` at https://e.org/f_g, see. (https://e.org:1/2): x"
    told = r"\|a\_i\| \* \[b\] \< `c_d*` at <https://e.org/f_g>, see. (<https://e.org:1/2>): x"
    assert markdown(text) == told


def test_a_picture_drawn_twice_has_the_same_bytes_and_no_date():
    first = picture(METHODS["ties"])
    assert first == picture(METHODS["ties"])
    assert not any(kind in first for kind in (b"tEXt", b"tIME", b"iTXt", b"zTXt"))
