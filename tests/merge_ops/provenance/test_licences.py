"""Licences as rules: worked examples by hand, and the laws of what holds for a merge."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merge_ops.errors import AncestryError
from merge_ops.provenance.licences import (
    ASK,
    NO_ADVICE,
    UNKNOWN,
    conflict_id,
    effective,
    licence,
    rules,
)

IDS = sorted(rules())
SEVERAL = st.dictionaries(
    st.sampled_from("abcdefgh"), st.sampled_from([*IDS, None, "a house licence"]), min_size=1
)


@pytest.mark.parametrize(
    ("written", "id_"),
    [
        ("Apache-2.0", "apache-2.0"), ("apache 2.0", "apache-2.0"), ("MIT License", "mit"),
        ("Llama 3.1", "llama3.1"), ("llama3.1-community-license", "llama3.1"),
        ("AGPL-3.0-only", "agpl-3.0"), ("CC-BY-NC-4.0", "cc-by-nc-4.0"),
        ("cc-by-nc", "cc-by-nc-4.0"),
        ("tongyi-qianwen-license-agreement", "tongyi-qianwen"), ("Qwen Research", "qwen-research"),
        ("glm4", "glm-4"), ("yi", "yi-license"), ("Baichuan 2", "baichuan2"),
        ("other", UNKNOWN), ("", UNKNOWN), (None, UNKNOWN), ("our own", "our own"),
    ],
)  # fmt: skip
def test_spellings(written: str | None, id_: str) -> None:
    found = licence(written)
    assert found.id == id_
    assert found.known is (id_ in rules() and id_ != UNKNOWN)


def test_the_strictest_decides_and_every_duty_stays() -> None:
    """Apache-2.0 with a Llama expert and a Qwen expert, by hand."""
    found = effective({"base": "apache-2.0", "math": "llama3.1", "tcm": "qwen"})
    assert (found.licence.id, found.licence.rank_name) == ("llama3.1", "commercial_terms")
    assert found.decided_by == ("math",)
    assert [each.id for each in found.binding] == ["llama3.1", "qwen", "apache-2.0"]
    duties = [str(each) for each in found.duties]
    assert 'show "Built with Llama" where it is offered' in duties
    assert 'show "Built with Qwen" or "Improved using Qwen" where it is offered' in duties
    assert 'give it a name that begins with "Llama"' in duties
    assert "say that files were changed" in duties
    assert found.conflicts == ()
    assert found.name_faults("tcm-math") == ("Llama",)
    assert found.name_faults("Llama_3.1-tcm") == ()
    assert found.to_json()["note"] == NO_ADVICE


def test_what_states_nothing_is_asked_and_hides_nothing() -> None:
    found = effective({"a": "mit", "b": None})
    assert (found.licence.id, found.licence.rank_name, found.decided_by) == (UNKNOWN, ASK, ("b",))
    assert [each.id for each in found.binding] == [UNKNOWN, "mit"]
    assert str(found.duties[0]) == "ask what the licence is: a model states none"
    named = effective({"a": "house rules"})
    assert named.licence.id == "house rules"
    assert "'house rules' allows: the rules do not know it" in str(named.duties[0])
    assert named.conflicts == ()  # unknown is unknown: it is said, and nothing is made up
    with pytest.raises(AncestryError, match="made of no model"):
        effective({})


CONFLICTS = [
    ("gpl-3.0", "llama3.1", True), ("agpl-3.0", "cc-by-nc-4.0", True), ("gpl-3.0", "mit", False),
    ("gpl-3.0", "apache-2.0", False), ("gpl-2.0", "apache-2.0", True), ("gpl-2.0", "gpl-3.0", True),
    ("gpl-3.0", "agpl-3.0", False), ("cc-by-sa-4.0", "gpl-3.0", False),
    ("cc-by-sa-4.0", "qwen", True),
    ("cc-by-nc-sa-4.0", "cc-by-sa-4.0", True), ("cc-by-nc-4.0", "llama3.1", False),
    ("llama3", "llama3.3", False), ("llama3.1", "glm-4", True), ("qwen", "qwen-research", False),
    ("openrail", "gemma", False), ("mpl-2.0", "cc-by-nc-4.0", False),
]  # fmt: skip


@pytest.mark.parametrize(("first", "second", "conflict"), CONFLICTS)
def test_pairs(first: str, second: str, conflict: bool) -> None:
    found = effective({"a": first, "b": second}).conflicts
    assert [each.id for each in found] == ([conflict_id(f"{first} + {second}")] if conflict else [])
    assert (second in rules()[first].conflicts) is (first in rules()[second].conflicts) is conflict


def test_no_derivatives_stand_alone() -> None:
    (found,) = effective({"a": "cc-by-nd-4.0"}).conflicts
    assert (found.id, found.because) == (
        "cc-by-nd-4.0",
        "what is changed may not be passed on, and a merge is changed",
    )


def test_a_conflict_is_accepted_by_name_in_any_order_and_spelling() -> None:
    found = effective({"a": "gpl-3.0", "b": "llama3.1", "c": "glm-4"})
    assert [each.id for each in found.conflicts] == [
        "glm-4 + gpl-3.0", "glm-4 + llama3.1", "gpl-3.0 + llama3.1",
    ]  # fmt: skip
    assert len(found.open_conflicts(["gpl-3.0"])) == 3  # half of one accepts nothing
    left = found.open_conflicts(["Llama 3.1 + GPL-3.0-only", "glm-4 + gpl-3.0"])
    assert [each.id for each in left] == ["glm-4 + llama3.1"]
    assert conflict_id("openrail++ + gpl-3.0") == "gpl-3.0 + openrail++"


@given(SEVERAL, st.randoms(use_true_random=False))
def test_order_does_not_matter(stated: dict[str, str | None], random: object) -> None:
    pairs = list(stated.items())
    random.shuffle(pairs)  # type: ignore[attr-defined]
    assert effective(dict(pairs)) == effective(stated)


@given(SEVERAL)
def test_saying_it_twice_changes_nothing_that_holds(stated: dict[str, str | None]) -> None:
    twice = {**stated, **{f"{name} again": each for name, each in stated.items()}}
    one, two = effective(stated), effective(twice)
    assert (one.licence, one.binding, one.duties, one.conflicts) == (
        two.licence, two.binding, two.duties, two.conflicts,
    )  # fmt: skip


@given(SEVERAL, st.sampled_from([*IDS, None]))
def test_one_more_input_takes_nothing_away(stated: dict[str, str | None], more: str | None) -> None:
    before, after = effective(stated), effective({**stated, "one more": more})
    assert after.licence.rank >= before.licence.rank
    assert set(before.duties) <= set(after.duties)
    assert set(before.conflicts) <= set(after.conflicts)
    assert set(before.binding) <= set(after.binding)


def test_the_rules_are_whole() -> None:
    """Every licence has a link, and what the Hub does not know has no id of the Hub's."""
    unlinked = [each.id for each in rules().values() if each.link is None]
    assert unlinked == [UNKNOWN]
    assert {each.id for each in rules().values() if not each.on_hub} >= {
        "qwen",
        "glm-4",
        "deepseek",
    }
    assert all(each.headings for each in rules().values() if each.id != UNKNOWN)
