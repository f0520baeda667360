"""What documents call their results names no folder: a recipe writes its output and no more."""

from pathlib import Path

import pytest

from tests.merges.merging import ronghe
from tests.models.checkpoint_factory import LLAMA, read_tensors, write_family


@pytest.mark.parametrize("name", ["../../outside", "ROOT/outside", "..", "n" * 300])
def test_results_of_earlier_documents_lie_in_the_working_folder(tmp_path: Path, name: str) -> None:
    base, (one, two) = write_family(tmp_path / "models", LLAMA)
    name = name.replace("ROOT", str(tmp_path))
    recipe, out = tmp_path / "r.yaml", tmp_path / "out"
    recipe.write_text(
        f"name: {name}\nmerge_method: linear\nmodels: [{{model: {base}}}, {{model: {one}}}]\n"
        "parameters: {weight: 1}\n---\n"
        f"merge_method: linear\nmodels: [{{model: {name}}}, {{model: {two}}}]\n"
        "parameters: {weight: 1}\n"
    )
    done = ronghe("merge", recipe, out, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    checked = ronghe("verify-merge", out, "--recipe", recipe, folder=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert {each.name for each in tmp_path.iterdir()} == {"models", "r.yaml", "out", "home"}
    assert not (tmp_path.parent / "outside").exists()
    assert len(read_tensors(out)) == len(read_tensors(base))
