"""What models say of themselves: cards, licence files, and what nobody can read."""

from pathlib import Path

import pytest

from merge_ops.checkpoints import FolderSource
from merge_ops.errors import AncestryError
from merge_ops.provenance.licences import rules
from merge_ops.provenance.upstream_card import CardFacts, read_facts, stated_ids

APACHE = "      Apache License\n      Version 2.0, January 2004\n"
QWEN = (
    "Qwen RESEARCH LICENSE AGREEMENT\n\nQwen RESEARCH LICENSE AGREEMENT Release Date: September 19"
)


def facts_of(folder: Path, **files: str) -> CardFacts:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    source = FolderSource(folder)
    return read_facts(source, source.sizes())


def card(front: str) -> str:
    return f"---\n{front}\n---\n# A model\n"


@pytest.mark.parametrize(
    ("front", "ids"),
    [
        ("license: apache-2.0", ("apache-2.0",)),
        ("license: llama3.1", ("llama3.1",)),
        ("license: other\nlicense_name: tongyi-qianwen", ("tongyi-qianwen",)),
        ("license: other\nlicense_name: qwen-research", ("qwen-research",)),
        ("license: other\nlicense_name: house rules", ("house rules",)),
        ("license: other", ()),
        ("license: [mit, cc-by-nc-4.0]", ("cc-by-nc-4.0", "mit")),
        ("license: {a: b}", ()),
        ("title: x", ()),
    ],
)  # fmt: skip
def test_the_front_matter(tmp_path: Path, front: str, ids: tuple[str, ...]) -> None:
    found = facts_of(tmp_path, README__md=card(front))
    assert found.licence_ids == ids
    assert CardFacts.from_json(found.to_json()) == found


def test_licence_files_are_known_by_how_they_begin(tmp_path: Path) -> None:
    found = facts_of(tmp_path, LICENSE=APACHE, LICENSE_MODEL=QWEN, NOTICE="Apache License")
    assert dict(found.heads) == {"LICENSE": "apache-2.0", "LICENSE_MODEL": "qwen-research"}
    assert found.licence_ids == ("apache-2.0", "qwen-research")


@pytest.mark.parametrize("id_", [each for each in rules() if rules()[each].headings])
def test_each_heading_is_its_own_licence(tmp_path: Path, id_: str) -> None:
    for heading in rules()[id_].headings:
        found = facts_of(tmp_path, LICENSE="\n".join(heading) + "\nand more")
        assert dict(found.heads) == {"LICENSE": id_}


def test_what_disagrees_counts_and_is_said(tmp_path: Path) -> None:
    found = facts_of(tmp_path, README__md=card("license: mit"), LICENSE=QWEN)
    ids, notes = stated_ids(found, "apache-2.0")
    assert ids == ("apache-2.0", "mit", "qwen-research")
    assert notes == (
        "states different licences (its card: mit, its licence files: qwen-research, the catalog:"
        " apache-2.0); all count, and the strictest decides",
    )
    unknown = facts_of(tmp_path, README__md=card("license: other\nlicense_name: a name of ours"))
    assert stated_ids(unknown) == (("qwen-research",), ())  # its licence file says which it is
    assert stated_ids(None, "our contract") == (("our contract",), ())
    assert stated_ids(None) == ((), ())


def test_the_card_of_a_merge_says_nothing_of_the_licence_file_beside_it(tmp_path: Path) -> None:
    """That file is one input's."""
    found = facts_of(tmp_path, README__md=card("tags: [merge, ronghe]"), LICENSE=APACHE)
    assert found.licence_ids == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("---\nlicense: [\n---\n", "begins with no YAML that can be read"),
        ("---\n- a\n- b\n---\n", "begins with no mapping of names to values"),
        ("---\nlicense: mit\nlicense: gpl-3.0\n---\n", "begins with no YAML that can be read"),
    ],
)
def test_a_card_that_cannot_be_read_says_so(tmp_path: Path, text: str, problem: str) -> None:
    found = facts_of(tmp_path, README__md=text)
    assert found.problem == problem
    assert stated_ids(found)[1] == (f"has a card that says nothing: it {problem}",)


def test_languages_and_strange_words_are_bounded(tmp_path: Path) -> None:
    front = f"language: [zh, en, {{a: b}}, true]\nlicense: other\nlicense_name: {'x' * 5000}"
    found = facts_of(tmp_path, README__md=card(front))
    assert found.languages == ("zh", "en")
    assert found.licence_name == "x" * 120
    with pytest.raises(AncestryError, match="no facts of a model's card"):
        CardFacts.from_json({"licences": 3})


def test_numbers_that_strangers_wrote_in_another_base_hide_no_licence(tmp_path: Path) -> None:
    found = facts_of(tmp_path, README__md=card("license: mit\nversion: 017\ntrained: 1:30"))
    assert (found.licences, found.problem) == (("mit",), None)
