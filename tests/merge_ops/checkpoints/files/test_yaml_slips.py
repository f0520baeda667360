"""Slips in YAML: what was seen is said, with its line."""

import re

import pytest

from merge_ops.checkpoints.files.bounded_yaml import DocumentError, load_documents, read_documents
from merge_ops.checkpoints.files.yaml_slips import slip_in

SLIPS = {
    "tab": ("a: 1\nb:\n\t- c", "line 3 is indented with a tab; YAML indents with spaces"),
    "tabs in JSON": ('{\n\t"a": 1\n}', "line 2 is indented with a tab"),
    "full-width colon": ("a: 1\nb：2\nc: 3", "line 2 holds a full-width colon `：`"),
    "one full-width colon": ("merge_method：linear", "line 1 holds a full-width colon"),
    "typographic quotes": ("a: “b”: c", "line 1 holds a typographic quote `“`"),
    "no space": ("merge_method:linear\nmodels: []", "line 1 has no space after its colon"),
    "equals": ("merge_method = linear\nmodels: []", "line 1 has `=`; YAML wants `key: value`"),
    "fences": ("```yaml\na: 1\n```\n", "the fences of a Markdown code block (```, on line 1)"),
    "a card": ("---\na: b\n---\n# Name\n\n```yaml\na: 1\n```\n", "code block (```, on line 6)"),
    "full-width dash": ("a:\n－ b: 1\n  c: 2", "line 2 begins with a full-width dash"),
    "full-width brackets": ("a: ［{b: 1}］", "line 1 holds full-width brackets"),
    "escape": ('a: "C:\\models\\base"', "a backslash in double quotes begins an escape"),
}


@pytest.mark.parametrize("name", SLIPS)
def test_slips(name):
    text, expected = SLIPS[name]
    with pytest.raises(DocumentError, match=re.escape(expected)):
        load_documents(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models: [{model： a}]", r"models\[0\].model： a on line 1 holds a full-width colon"),
        ("a: 1\n　b: 2", "　b on line 2 holds a full-width space"),
        ("a: 1\n“b”: 2", "on line 2 holds a typographic quote"),
        ("a: 1\nb\u00a0: 2", "on line 2 holds a no-break space"),
    ],
)
def test_odd_characters_in_keys(text, expected):
    with pytest.raises(DocumentError, match=expected):
        load_documents(text)


def test_odd_characters_where_they_belong_are_fine():
    text = 'tokens: {"：": {force: true}, "　": 1}\ntitle: “中药”：模型，新\n# a：b\n'
    assert load_documents(text) == [
        {"tokens": {"：": {"force": True}, "　": 1}, "title": "“中药”：模型，新"}
    ]


def test_keys_that_are_one_once_they_are_read():
    for text in (
        "a: {10: x, 0xa: y}",
        "a: {yes: x, true: y}",
        "a: {1: x, true: y}",
        "~: 1\nnull: 2",
    ):
        with pytest.raises(DocumentError, match="is given twice"):
            load_documents(text)
    assert load_documents("a: {'10': x, 10: y}") == [{"a": {"10": "x", 10: "y"}}]


def test_a_byte_order_mark_at_the_start_is_fine():
    assert load_documents("\ufeffa: 1") == [{"a": 1}]


def test_nothing_seen():
    assert slip_in("a: [") == ""


def test_other_encodings(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes("名: 1".encode("gb18030"))
    with pytest.raises(DocumentError, match="save it as UTF-8"):
        read_documents(path)
