"""Models that are not there: what each reference looks like, and what to write instead."""

import re

import pytest

from merge_ops.errors import MissingModelError
from orchestration.commands.models.local_models import open_models
from orchestration.commands.models.model_references import local_path
from tests.models.checkpoint_factory import LLAMA, write_family


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("NOWHERE", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("acme/model-b", "is not in the local cache"),
        ("acme/b@v1", "is not in the local cache"),
        ("https://huggingface.co/acme/b/tree/main", "that is a page on the web; write acme/b"),
        ("https://hf-mirror.com/acme/b", "that is a page on the web; write acme/b"),
        ("C:\\models\\base", "a path of Windows; under WSL it is /mnt/c/models/base"),
        ("D:/models/base", "a path of Windows; under WSL it is /mnt/d/models/base"),
        ("models\\base", "Folders are divided by `/` here, not by a backslash"),
        ("$NOWHERE/base", "The environment has no variable NOWHERE"),
        ("${NOWHERE}/base", "The environment has no variable NOWHERE"),
        ("“base”", "Its typographic quotes are part of the name"),
        ("gone", "It is a link to elsewhere, which is gone"),
        ("expert_1", "Did you mean 'expert-1'?"),
        ("./no/such/place", "there is no folder"),
        ("x" * 5000, "there is no folder"),
    ],
)
def test_what_it_looks_like(here, reference, told):
    (here / "gone").symlink_to("elsewhere")
    (here / "expert-1").mkdir()
    with pytest.raises(MissingModelError, match=re.escape(told)):
        open_models("study.yaml", [reference])


@pytest.mark.parametrize("reference", ["~/base", "$HOME/base", "${MODELS}/base", "$MODELS/../m/b"])
def test_home_and_variables_are_filled_in(here, reference):
    family = write_family(here / "family", LLAMA, experts=1)
    for place in ("home/base", "models/base", "m/b"):
        (here / place).parent.mkdir(exist_ok=True)
        (here / place).symlink_to(family.base)
    (opened,) = open_models("study.yaml", [reference]).values()
    assert "model.norm.weight" in opened.tensors


def test_a_folder_of_that_very_name_comes_first(here):
    (here / "$MODELS").mkdir()
    assert str(local_path("$MODELS")) == "$MODELS"
    assert str(local_path("$MODELS/x")) == f"{here}/models/x"
