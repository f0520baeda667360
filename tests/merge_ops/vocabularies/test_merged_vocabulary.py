"""Merged vocabularies by hand, and their laws."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from merge_ops.sources.gathered_rows import AVERAGE, MEAN, ZERO, GatheredRows, RowMap
from merge_ops.stream.stream import StreamSettings
from tests.models import checkpoint_factory as factory
from tests.models.vocabulary_models import (
    ARITHMETIC,
    EMBEDDING,
    UNION,
    merged,
    model_of_words,
    plan,
)


def rows_of(text, folders, out):
    return factory.read_tensors(merged(text, folders, out))[EMBEDDING].tolist()


@pytest.fixture
def words(tmp_path):
    return {
        "base": model_of_words(tmp_path / "base", {"a": [1, 2], "b": [3, 4]}, padding=2),
        "one": model_of_words(tmp_path / "one", {"b": [30, 40], "a": [10, 20], "c": [50, 60]}),
        "two": model_of_words(
            tmp_path / "two", {"a": [100, 200], "c": [300, 400], "b": [500, 600], "d": [7, 8]}
        ),
    }


# ------------------------------------------------------------------------------------- by hand


def test_union_by_hand(words, tmp_path):
    """c: the base takes (50 + 300) / 2 = 175 and (60 + 400) / 2 = 230; d: all take two's row."""
    assert rows_of(UNION, words, tmp_path / "out") == [
        [1 + 9 + 0.5 * 99, 2 + 18 + 0.5 * 198],
        [3 + 27 + 0.5 * 497, 4 + 36 + 0.5 * 596],
        [175 - 125 + 0.5 * 125, 230 - 170 + 0.5 * 170],
        [7, 8],
    ]


def test_base_drops_the_padding_and_the_others_tokens(words, tmp_path):
    text = ARITHMETIC + "tokenizer_source: base"
    assert rows_of(text, words, tmp_path / "out") == [[59.5, 119], [278.5, 338]]


def test_a_models_vocabulary(words, tmp_path):
    """one's order: b, a, c."""
    text = ARITHMETIC + "tokenizer_source: one"
    assert rows_of(text, words, tmp_path / "out") == [[278.5, 338], [59.5, 119], [112.5, 145]]


def test_padding_is_the_mean_of_each_models_rows(words, tmp_path):
    """base: (1 + 3) / 2 = 2, one: (10 + 30) / 2 = 20, two: (100 + 500) / 2 = 300."""
    text = ARITHMETIC + "tokenizer: {source: base, pad_to_multiple_of: 3}"
    rows = rows_of(text, words, tmp_path / "out")
    assert rows[2] == [2 + 18 + 0.5 * 298, 3 + 27 + 0.5 * 397]
    assert len(rows) == 3
    assert json.loads((tmp_path / "out/config.json").read_text())["vocab_size"] == 3


def test_tokens_by_hand(words, tmp_path):
    """base and two take one's row for b; c is zero where it is missing; new is two's row 3."""
    text = ARITHMETIC + (
        "tokenizer:\n  source: one\n  tokens:\n"
        "    b: {source: one, force: true}\n    c: {source: {kind: zero}}\n"
        "    new: {source: {kind: model_token, model: two, token_id: 3}}\n"
    )
    assert rows_of(text, words, tmp_path / "out") == [
        [30, 40],
        [59.5, 119],
        [50 + 0.5 * 300, 60 + 0.5 * 400],
        [7, 8],
    ]


def test_two_owners_without_a_base_in_the_merge_are_averaged(words, tmp_path):
    text = (
        "merge_method: linear\nmodels: [{model: base}, {model: one}, {model: two}]\n"
        "parameters: {weight: 1}\ntokenizer: {source: union}"
    )
    rows = rows_of(text, words, tmp_path / "out")
    assert rows[2] == [(175 + 50 + 300) / 3, pytest.approx((230 + 60 + 400) / 3)]


def test_of_several_owners_the_base_gives_the_row(tmp_path):
    """b: one lacks it and takes the base's, (3 + 3 + 2 · 500) / 4."""
    folders = {
        "base": model_of_words(tmp_path / "base", {"a": [1.0], "b": [3.0]}),
        "one": model_of_words(tmp_path / "one", {"a": [10.0]}),
        "two": model_of_words(tmp_path / "two", {"b": [500.0], "a": [100.0]}),
    }
    text = (
        "merge_method: linear\nbase_model: base\nmodels: [{model: one}, {model: two,"
        " parameters: {weight: 2}}]\nparameters: {weight: 1}\ntokenizer: {source: union}"
    )
    assert rows_of(text, folders, tmp_path / "out") == [[(1 + 10 + 200) / 4], [(3 + 3 + 1000) / 4]]


# ---------------------------------------------------------------------------------------- laws


@dataclass(frozen=True)
class InMemory:
    """A tensor source whose values are at hand."""

    table: torch.Tensor
    model: str = "memory"
    dtype: str = "F32"
    nbytes: int = 0
    parts: tuple = ()

    @property
    def shape(self):
        return tuple(self.table.shape)

    def identity(self, digest_of):
        return [self.model]

    def fill(self, fetch, start, into):
        into.copy_(self.table.reshape(-1)[start : start + into.numel()])


@st.composite
def maps(draw):
    """A map over two tables of 6 rows, and what each output row is."""
    tables = [torch.randn(6, 3, generator=torch.Generator().manual_seed(each)) for each in (1, 2)]
    size = draw(st.integers(2, 12))
    kinds = draw(
        st.lists(st.sampled_from([0, 0, 0, 1, ZERO, AVERAGE, MEAN]), min_size=size, max_size=size)
    )
    kinds[0] = 0
    row = draw(st.lists(st.integers(0, 5), min_size=size, max_size=size))
    averages = {at: [(0, row[at]), (1, 5 - row[at])] for at in range(size) if kinds[at] == AVERAGE}
    expected = torch.zeros(size, 3)
    for at, kind in enumerate(kinds):
        if kind >= 0:
            expected[at] = tables[kind][row[at]]
        elif kind == AVERAGE:
            expected[at] = (tables[0][row[at]] + tables[1][5 - row[at]]) / 2
    others = [at for at in range(size) if kinds[at] != MEAN]
    mean = expected[others].double().mean(0).float()
    expected[[at for at in range(size) if kinds[at] == MEAN]] = mean
    rows = RowMap(np.array(kinds, np.int32), np.array(row, np.int32), averages)
    sources = tuple(InMemory(each) for each in tables)
    return GatheredRows(sources[0], sources, rows), expected


@given(maps(), st.lists(st.integers(1, 11), min_size=1, max_size=40))
def test_any_way_to_cut_it_gathers_the_same_bits(drawn, lengths):
    source, expected = drawn
    whole, start = torch.full((expected.numel(),), torch.nan), 0
    for length in [*lengths, *[5] * 20]:
        source.fill(lambda *_: None, start, whole[start : start + length])
        start = min(start + length, len(whole))
        if start == len(whole):
            break
    assert torch.equal(whole, expected.reshape(-1))


def test_one_read_for_rows_that_lie_together():
    table = InMemory(torch.arange(24.0).reshape(8, 3))
    row = np.array([2, 3, 4, 0, 1, 7], np.int32)
    rows = RowMap(np.zeros(6, np.int32), row, {})
    assert rows.starts.tolist() == [0, 3, 5, 6]
    into = torch.empty(18)
    GatheredRows(table, (table,), rows).fill(lambda *_: None, 0, into)
    assert into.tolist() == [*range(6, 15), *range(6), *range(21, 24)]


def test_a_maps_digest_covers_all_of_it():
    def digest(origin, row, averages):
        return RowMap(np.array(origin, np.int32), np.array(row, np.int32), averages).digest

    plain = digest([0, AVERAGE], [0, 0], {1: [(0, 1), (1, 2)]})
    assert plain != digest([1, AVERAGE], [0, 0], {1: [(0, 1), (1, 2)]})
    assert plain != digest([0, AVERAGE], [1, 0], {1: [(0, 1), (1, 2)]})
    assert plain != digest([0, AVERAGE], [0, 0], {1: [(0, 1), (1, 3)]})


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory):
    return factory.write_vocabulary_family(tmp_path_factory.mktemp("family"), factory.LLAMA)


@pytest.mark.parametrize("policy", ["union", "base"])
def test_equal_vocabularies_change_nothing(tmp_path, policy):
    shape = replace(factory.QWEN2, vocabulary=259)
    base, (one, two) = factory.write_family(tmp_path / "family", shape)
    folders = {"base": base, "one": one, "two": two}
    plain = plan(ARITHMETIC, folders)
    same = plan(ARITHMETIC + f"tokenizer: {{source: {policy}}}", folders)
    assert same.outputs == plain.outputs
    out = merged(ARITHMETIC + f"tokenizer_source: {policy}", folders, tmp_path / "out")
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        assert (out / name).read_bytes() == (base / name).read_bytes()


def test_the_digest_covers_rows_and_tokens(vocabularies):
    texts = [
        UNION,
        ARITHMETIC + "tokenizer: {source: base}",
        ARITHMETIC + "tokenizer: {source: two}",
        ARITHMETIC + "tokenizer: {tokens: {茯苓: {source: {kind: zero}}}}",
        ARITHMETIC + "tokenizer: {tokens: {a: {source: two, force: true}}}",
        ARITHMETIC + "tokenizer: {tokens: {a: {source: two}}}",  # all have it: as the union
        UNION + "chat_template: chatml",
    ]
    digests = [plan(text, vocabularies).outputs[0].digest for text in texts]
    assert digests[5] == digests[0]
    assert len(set(digests)) == len(texts) - 1


def test_the_same_bits_for_any_block_and_threads(tmp_path):
    shape = factory.Shape("llama", layers=1, hidden=1024, heads=8, kv_heads=1)
    folders = factory.write_vocabulary_family(tmp_path / "models", shape)
    text = UNION.replace("union", "union, pad_to_multiple_of: 128")
    outs = [
        merged(text, folders, tmp_path / str(number), settings)
        for number, settings in enumerate(
            [
                StreamSettings(threads=1, device="cpu", block=1 << 16),
                StreamSettings(threads=3, device="cpu", block=1 << 17),
                StreamSettings(threads=2, device="cpu", block=1 << 24),
            ]
        )
    ]
    first, *others = [(out / "model.safetensors").read_bytes() for out in outs]
    assert all(other == first for other in others)
