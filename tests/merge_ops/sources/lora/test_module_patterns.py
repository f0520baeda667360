"""Patterns of modules mean what they mean to PEFT, and none costs more than its bound."""

import re
import warnings

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from merge_ops.sources.lora import module_patterns
from merge_ops.sources.lora.module_patterns import PatternError, module_pattern

NAME = "model.layers.17.self_attn.q_proj"
PIECES = (
    "a", "b", ".", r"\.", "[ab]", "[^a]", "[]a]", r"\w", r"\d", r"\x61", "^", "$", r"\b", r"\B",
    r"\Z", "_", "0", r"\n", "\n", "", "{", "}", "(?#c)",
)  # fmt: skip
QUANTIFIERS = ("", "*", "+", "?", "{2}", "{1,2}", "{,1}", "{0}", "{2,}", "{,}", "*?", "{1,3}?")
OPENINGS = ("(", "(?:", "(?P<n>", "(?=", "(?!", "(?<=", "(?<!")
PATTERNS = st.recursive(
    st.sampled_from(PIECES),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join),
        st.builds("{}{}){}".format, st.sampled_from(OPENINGS), inner, st.sampled_from(QUANTIFIERS)),
    ),
    max_leaves=8,
)


def as_peft(pattern: str, module: str) -> bool:
    """`get_pattern_key` of peft/utils/other.py."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return re.match(rf"(.*\.)?({pattern})$", module) is not None


@settings(deadline=None, max_examples=400)
@given(PATTERNS, st.lists(st.text("ab.0_\n", max_size=8), max_size=6))
@example("a|b", ["a", "x.b", "xb"])
@example("a)(b", ["ab", "x.ab", "b"])
def test_a_pattern_means_what_it_means_to_peft(pattern: str, modules: list[str]) -> None:
    try:
        expected = [as_peft(pattern, module) for module in modules]
    except re.error:
        with pytest.raises(PatternError, match="no regular expression"):
            module_pattern(pattern)
    else:
        assert [module_pattern(pattern).means(module) for module in modules] == expected


@pytest.mark.parametrize(
    ("pattern", "means"),
    [
        ("q_proj", True),
        ("proj", False),
        ("self_attn.q_proj", True),
        (r"^model\.layers\.17\..*", True),
        (r".*layers\.\d+\.(self_attn|mlp)\.(q|k|v|o)_proj", True),
        ("^(?!.*vision).*proj", True),
        ("^(?!.*layers).*proj", False),
        (r"(?:.*\.)?layers\.(?:1[0-5])\..*", False),
    ],
)
def test_patterns_as_people_write_them(pattern: str, means: bool) -> None:
    assert as_peft(pattern, NAME) == means
    assert module_pattern(pattern).means(NAME) == means


@pytest.mark.parametrize(
    "pattern",
    ["(.|..)*(?<=Z)", "(a+)+Z", "((((.*)*)*)*)*Z", "((.?){1000}){1000}Z", "(.*){60}Z", "(.|.)*Z"],
)
def test_a_pattern_with_endless_ways_is_answered_in_few_steps(
    pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module_patterns, "MAX_STEPS", 100_000)
    assert not module_pattern(pattern).means("a" * 64)
    assert module_pattern(pattern.replace("Z", "a")).means("a" * 64)


def test_steps_are_bounded_for_any_name() -> None:
    pattern = module_pattern("(.*b.*)*c")
    assert not pattern.means("ab" * 20)
    with pytest.raises(PatternError, match="too much work; write it without nested repetitions"):
        pattern.means("ab" * 5000)


def test_a_long_name_is_matched_in_counted_steps_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module_pattern("q_proj").means("a." * 2000 + "q_proj")
    monkeypatch.setattr(module_patterns, "MAX_STEPS", 1000)
    with pytest.raises(PatternError, match="too much work"):
        module_pattern("q_proj").means("a." * 2000 + "q_proj")


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        (r"(q|k)_\3", "which refers to a group; name the modules one by one"),
        ("(?P<a>q)(?P=a)", "which refers to a group"),
        ("(?>q|k)_proj", "which refers to a group or closes one"),
        ("(q)?(?(3)a|b)", "which refers to a group or closes one"),
        ("(a|b)++", r"gives nothing back \(a second \+\)"),
        ("(?i:q)_proj", r"which sets flags inside; write it without, for example \[Qq\]"),
        ("(?i)q_proj", "which sets flags inside"),
        ("a(", "which is no regular expression"),
        ("a{99999999999}", "which is no regular expression"),
        ("a" * 5000, "too long .at most 4096 characters and 64 groups"),
        ("(" * 70 + ")" * 70, "too long"),
    ],
)
def test_what_cannot_be_matched_in_bounded_work_is_refused(pattern: str, problem: str) -> None:
    with pytest.raises(PatternError, match=problem):
        module_pattern(pattern)
