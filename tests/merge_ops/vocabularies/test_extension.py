"""Longer vocabularies: what was encoded stays, what is new is found, whatever the tokenizer."""

import functools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers.models import WordLevel

from merge_ops.children import LimitedChild
from merge_ops.errors import CheckpointError, CompatibilityError
from merge_ops.recipes.structures.vocabulary_step import VocabularyStep
from merge_ops.vocabularies import tokenizer_pieces
from merge_ops.vocabularies.extension import Extension, extended
from merge_ops.vocabularies.offered_tokens import OfferedTokens, offered_tokens
from merge_ops.vocabularies.tokenizers import tokenizer_of
from tests.models import grown_tokenizers as grown
from tests.models import vocabulary_folders as folders


def grow(tokenizer, offered, rows=10_000, **settings) -> Extension:
    read = tokenizer_of(json.loads(tokenizer.to_str()), {})
    return extended(VocabularyStep("extend", "x", **settings), "m", read, rows, offered)


def listed(*texts):
    return OfferedTokens("the list", texts)


@pytest.fixture(scope="module")
def pairs():
    """For each kind: the tokenizer, its extension, and that as the library loads it."""
    found = {}
    for kind, make in grown.KINDS.items():
        tokenizer = make()
        longer = grow(tokenizer, listed(*grown.WORDS))
        found[kind] = (
            tokenizer, longer, LibraryTokenizer.from_str(longer.tokenizer.rewritten().decode())
        )  # fmt: skip
    return found


@pytest.mark.parametrize("kind", grown.KINDS)
def test_old_tokens_keep_their_ids_and_old_texts_their_tokens(pairs, kind):
    old, longer, new = pairs[kind]
    before, after = old.get_vocab(), new.get_vocab()
    assert {token: after[token] for token in before} == before
    assert longer.first == max(before.values()) + 1
    assert len(after) == longer.first + len(longer.parts) == max(after.values()) + 1
    for text in (*grown.ENGLISH, f"{grown.END} a<tool> dog"):
        assert new.encode(text).ids == old.encode(text).ids


@pytest.mark.parametrize("kind", grown.KINDS)
def test_every_new_token_is_found_in_a_text(pairs, kind):
    _, longer, new = pairs[kind]
    for text in grown.WORDS:
        if kind == "unigram" and text == "，":
            continue  # which NFKC makes a comma
        assert new.encode(text).tokens[-1] == new.id_to_token(new.encode(text).ids[-1])
        assert new.encode(text).ids[-1] >= longer.first
        assert new.decode(new.encode(text).ids[-1:]) == text


def test_new_tokens_come_in_their_order_and_bridges_behind(pairs):
    """茯 and 苓 are parts of 茯苓; a list has no order of merges, so the shortest come first."""
    _, longer, new = pairs["pieces"]
    assert [new.id_to_token(longer.first + at) for at in range(len(grown.WORDS))] == list(
        grown.WORDS
    )
    assert longer.bridges == len(longer.parts) - len(grown.WORDS)
    assert new.token_to_id("苓") >= longer.first + len(grown.WORDS)


MIXED = st.lists(
    st.sampled_from([*grown.WORDS, *grown.ENGLISH, "苓", "药", "融", " ", "é", "日本", "\n", "ing"])
    | st.text(max_size=5),
    max_size=6,
).map("".join)


@given(MIXED)
def test_texts_never_take_more_tokens_and_change_only_with_a_new_one(pairs, text):
    for kind in ("byte_level", "pieces"):
        old, longer, new = pairs[kind]
        before, after = old.encode(text), new.encode(text)
        assert len(after.ids) <= len(before.ids)
        assert new.decode(after.ids) == old.decode(before.ids)
        if all(number < longer.first for number in after.ids):
            assert after.ids == before.ids


@given(MIXED)
def test_a_unigram_changes_only_where_a_new_piece_stands(pairs, text):
    old, longer, new = pairs["unigram"]
    after = new.encode(text).ids
    if not any(word in text for word in grown.WORDS):
        assert after == old.encode(text).ids
    else:
        assert any(number >= longer.first for number in after) or "，" in text


def test_chinese_takes_far_fewer_tokens(pairs):
    for kind, most in (("byte_level", 15), ("pieces", 17)):
        old, _, new = pairs[kind]
        assert len(new.encode(grown.CHINESE).ids) <= most
        assert len(old.encode(grown.CHINESE).ids) >= 3 * len(grown.CHINESE)


def test_the_parts_of_a_new_token_are_those_that_it_was_cut_into(pairs):
    old, longer, new = pairs["byte_level"]
    at = new.encode("茯苓").ids[0] - longer.first
    assert longer.parts[at] == old.encode("茯苓").ids
    old, longer, new = pairs["pieces"]
    at = new.token_to_id("茯苓") - longer.first
    assert longer.parts[at] == old.encode("茯苓").ids[1:]  # without ▁, the start of a text


def test_a_model_that_knows_nothing_of_a_token_says_so(pairs):
    _, longer, _ = pairs["unigram"]
    assert set(map(tuple, longer.parts)) == {()}
    assert any("knows nothing of 7 new tokens but <unk>" in str(each) for each in longer.cautions)


def test_what_is_cut_before_the_model_sees_it_is_left_out():
    longer = grow(grown.byte_level(), listed("很 好", "茯苓"))
    assert any('offers 1 tokens ("很 好")' in str(each) for each in longer.cautions)
    assert "å¾Ī" not in longer.tokenizer.tokens


def test_tokens_of_another_kind_of_tokenizer(tmp_path):
    """A trained BPE of bytes offers its texts to pieces, Chinese ones where these are asked for."""
    donor = grown.write(grown.byte_level(420, (*grown.ENGLISH, grown.CHINESE * 4)), tmp_path)
    step = VocabularyStep("extend", str(donor / "tokenizer.json"), only="chinese")
    offered = offered_tokens(step, {})
    assert offered.in_order
    assert "the" in {text.strip() for text in offered.texts}
    longer = grow(grown.pieces(), offered, only="chinese")
    new = LibraryTokenizer.from_str(longer.tokenizer.rewritten().decode())
    assert new.encode(grown.ENGLISH[0]).ids == grown.pieces().encode(grown.ENGLISH[0]).ids
    assert len(new.encode(grown.CHINESE).ids) < 20
    assert new.decode(new.encode(grown.CHINESE).ids) == grown.CHINESE


def test_added_tokens_of_the_source_are_added_tokens(tmp_path):
    donor = grown.byte_level()
    donor.add_tokens(["黄芪"])
    grown.write(donor, tmp_path)
    offered = offered_tokens(VocabularyStep("extend", str(tmp_path / "tokenizer.json")), {})
    longer = grow(grown.byte_level(), offered)
    assert longer.tokenizer.added["黄芪"]["id"] == longer.first
    assert longer.parts == [grown.byte_level().encode("黄芪").ids]
    new = LibraryTokenizer.from_str(longer.tokenizer.rewritten().decode())
    assert new.encode("黄芪").ids == [longer.first]


def test_pieces_of_sentencepiece_come_as_chinese_llama_appended_them(tmp_path):
    """Control tokens and bytes are no texts; the rest has the ids of `merge_tokenizers.py`."""
    file = tmp_path / "chinese_sp.model"
    file.write_bytes(folders.sentencepiece(["<unk>", "</s>", "<0x0A>", "▁the", "茯", "苓", "茯苓"]))
    offered = offered_tokens(VocabularyStep("extend", str(file)), {})
    assert offered.texts == [" the", "茯", "苓", "茯苓"]
    base = grown.pieces()
    longer = grow(base, offered)
    first = base.get_vocab_size()
    ids = [longer.tokenizer.tokens[token] for token in ("▁the", "茯", "苓", "茯苓")]
    assert ids == [first, first + 1, first + 2, first + 3]
    assert longer.bridges == 0


def test_new_tokens_without_chinese_letters_are_told():
    longer = grow(grown.byte_level(), listed("lazydog", "茯苓"))
    assert any("1 new tokens without Chinese letters" in str(each) for each in longer.cautions)


# ------------------------------------------------------------------------------------ refused


def test_nothing_new_is_refused():
    with pytest.raises(CompatibilityError, match="the list offers no token that 'm' lacks"):
        grow(grown.byte_level(), listed("a", "<tool>"))


def test_a_tokenizer_of_words_is_refused():
    words = LibraryTokenizer(WordLevel({"a": 0}, unk_token="a"))
    with pytest.raises(CompatibilityError, match="has a tokenizer of the kind WordLevel"):
        grow(words, listed("茯苓"))


def test_tokens_without_a_row_are_refused():
    with pytest.raises(CompatibilityError, match="tokens without a row in its embedding"):
        grow(grown.byte_level(), listed("茯苓"), rows=331)


def test_a_tokenizer_without_a_known_spelling_is_refused():
    from tokenizers.models import BPE

    bare = LibraryTokenizer(BPE({"a": 0}, []))
    with pytest.raises(CompatibilityError, match="neither spells bytes"):
        grow(bare, listed("茯苓"))


def test_without_the_library_the_way_on_is_told(monkeypatch):
    hiding = functools.partial(LimitedChild, hidden=("tokenizers",))
    monkeypatch.setattr(tokenizer_pieces, "LimitedChild", hiding)
    with pytest.raises(CheckpointError, match="run: pip install tokenizers"):
        grow(grown.byte_level(), listed("茯苓"))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("x.json", b"{}", "is no tokenizer.json"),
        ("x.model", b"\x00", "is no SentencePiece model"),
        ("none.json", None, "there is no file"),
    ],
)
def test_sources_that_are_none(tmp_path, file, content, message):
    path: Path = tmp_path / file
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        offered_tokens(VocabularyStep("extend", str(path)), {})
