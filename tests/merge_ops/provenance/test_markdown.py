"""Strangers' words in Markdown, read again by a CommonMark parser (markdown-it)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from merge_ops.errors import shown
from merge_ops.provenance.markdown import as_code, fenced, in_markdown

HOSTILE = [
    "# big", "a\n\n# heading", "[x](javascript:alert(1))", "![x](http://e/p.png)", "<b>1</b>",
    "a | b", "`code`", "**bold**", "&lt;b&gt;", "x\\", "~~gone~~", "\x1b[2Jwiped", "``` a",
]  # fmt: skip


def tokens(text: str) -> list:
    parsed = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    return [each for token in parsed for each in (token, *(token.children or ()))]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_cell_holds_the_name_and_nothing_else(name):
    found = tokens(f"| model | digest |\n|---|---|\n| {in_markdown(name)} | `1` |\n\nend\n")
    assert [each.tag for each in found if each.type == "td_open"] == ["td", "td"]
    assert not {each.type for each in found} & {
        "link_open", "image", "html_inline", "html_block", "heading_open", "strong_open", "s_open",
    }  # fmt: skip
    text = "".join(each.content for each in found if each.type in ("text", "text_special"))
    assert name.encode("unicode_escape").decode() in text.encode("unicode_escape").decode().replace(
        "\\\\", "\\"
    ) or (name.isprintable() and name in text)


@pytest.mark.parametrize("name", HOSTILE)
def test_code_holds_the_name(name):
    (code,) = [each for each in tokens(f"- {as_code(name)}: why\n") if each.type == "code_inline"]
    wanted = name.replace("|", "\\|")  # a table takes the backslash away, a list shows it
    assert code.content.strip() == shown(wanted)


@given(st.text(alphabet="`~# \n-a", max_size=40))
def test_nothing_ends_a_block_of_code(text):
    found = tokens("\n".join([*fenced(text, "yaml"), "", "end"]))
    assert [each.type for each in found if each.level == 0 and each.block] == [
        "fence", "paragraph_open", "paragraph_close",
    ]  # fmt: skip
    assert found[0].content == text + "\n"


def test_everyday_names_stay_as_they_are():
    for name in ("Qwen2.5-7B-Instruct", "models/my_model_v2", "hf://org/name@1.0", "本草 (中药)"):
        assert in_markdown(name) == name
    assert as_code("density=0.3_lambda=1.0") == "`density=0.3_lambda=1.0`"
