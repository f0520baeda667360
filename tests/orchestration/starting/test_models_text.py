"""models.yaml as text: entries are added, and every other byte stays."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from merge_ops.errors import SettingsError
from orchestration.commands.starting.models_text import scalar, with_entries
from orchestration.commands.starting.new_models import NewModel, asked, clean_name, name_of_far

NEW = [NewModel("诗 词"[:1], "hf://a/b@v1", "base", "lora", "mit")]


@pytest.mark.parametrize(
    "text",
    [
        "models:\n- name: a\n  source: x\n",
        "models:\n    - name: a\n      source: x   # here\n# behind\n\nname: team\n",
        "# first\nmodels:\n  -\n    name: a\n    source: 'x'\n",
        "models:\n -\n      name: a\n      source: x\n -\n       name: b\n       source: x\n",
        "models:\n  - {name: a, source: x}",
        "models:\r\n  - name: a\r\n    source: x\r\n",
        "models:\n  - name: a\n    source: x\n    title: |\n      many\n      words\n\n\nname: t\n",
        "models:\n  - name: a\n    source: x\n    title: >-\n      many\n      words\n",
    ],
)
def test_nothing_else_changes(text: str) -> None:
    after = with_entries(text, NEW)
    document, before = yaml.safe_load(after), yaml.safe_load(text)
    assert document.pop("models") == [
        *before.pop("models"),
        {"name": "诗", "source": "hf://a/b@v1", "base": "base", "kind": "lora", "licence": "mit"},
    ]
    assert document == before
    lines = [line for line in after.splitlines() if line in text.splitlines()]
    assert lines == text.splitlines()
    assert ("\r\n" in after) == ("\r\n" in text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("models: [{name: a, source: x}]\n", "has its list in brackets"),
        ("models:\n", "lists no model"),
        ("{models: [}", "is no sound YAML"),
        ("[]", "lists no model"),
    ],
)
def test_what_nothing_can_be_put_into_is_said(text: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        with_entries(text, NEW)


@given(st.text(min_size=1, max_size=30).filter(lambda text: text.isprintable()))
def test_every_text_is_read_back(text: str) -> None:
    assert yaml.safe_load(f"a: {scalar(text)}") == {"a": text}


@given(st.text(max_size=200))
def test_every_name_can_be_cleaned(text: str) -> None:
    from orchestration.catalogs.names import BANNED

    name = clean_name(text)
    assert 0 < len(name) <= 120
    assert not BANNED.search(name)


def test_names_of_far_models() -> None:
    assert name_of_far("Qwen/Qwen2.5-7B-Instruct@v1") == "Qwen2.5-7B-Instruct"
    assert name_of_far("bucket/runs/sft/checkpoint-500/") == "sft-checkpoint-500"
    assert asked("tcm=team/lora") == asked("tcm=team/lora")
    assert (asked("tcm=team/lora").name, asked("team/a=b").name) == ("tcm", None)
