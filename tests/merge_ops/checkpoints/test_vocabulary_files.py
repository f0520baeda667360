"""The row of each token, from every form that a vocabulary is kept in."""

import pytest
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer
from transformers.utils import sentencepiece_model_pb2_new

from merge_ops.checkpoints.sentencepiece_pieces import sentencepiece_pieces
from merge_ops.checkpoints.vocabulary import (
    vocabularies_of,
    vocabulary,
    vocabulary_files,
    vocabulary_rows,
)
from merge_ops.checkpoints.vocabulary_forms import files_by_form, rows_in
from merge_ops.errors import CheckpointError
from tests.models import checkpoint_factory as factory
from tests.models import vocabulary_folders as folders

ROWS = {word: row for row, word in enumerate(folders.WORDS)}


@pytest.mark.parametrize("file", sorted(folders.FORMS))
def test_every_form_gives_the_same_rows(tmp_path, file):
    found = folders.model(tmp_path / "m", {file: folders.FORMS[file]()})
    assert vocabulary_files(found) == (file,)
    read = vocabulary(found)
    assert read is not None
    rows = dict(read)
    if file in ("qwen.tiktoken", "tiktoken.model", "tekken.json"):
        # as byte-level tokenizers spell it: the bytes e8 8c af e8 8b 93
        assert rows.pop("èĮ¯èĭĵ") == 7
        assert rows == {word: row for word, row in ROWS.items() if row != 7}
    else:
        assert rows == ROWS


def test_pieces_are_those_that_protocol_buffers_read():
    """Also with fields of every wire type between them, which a later version may add."""
    data = folders.sentencepiece(["<unk>", "<s>", "</s>", "▁the", "<0x0A>", "𠮷", "x" * 300])
    data += b"\x78\x05\x79" + bytes(8) + b"\x7a\x03abc\x7d" + bytes(4)
    proto = sentencepiece_model_pb2_new.ModelProto.FromString(data)
    assert sentencepiece_pieces(data) == [each.piece for each in proto.pieces]


def test_bytes_are_spelt_as_a_byte_level_tokenizer_spells_them(tmp_path):
    """All 256 of them, against the library's own alphabet of tokens."""
    factory.write_tokenizer(tmp_path)
    letters = set(Tokenizer.from_file(str(tmp_path / "tokenizer.json")).get_vocab())
    ranks = b"".join(
        f"{folders.base64.b64encode(bytes([byte])).decode()} {byte}\n".encode()
        for byte in range(256)
    )
    assert set(rows_in("tiktoken", ranks)) == letters - set(factory.SPECIAL_TOKENS)


def test_added_tokens_of_further_files(tmp_path):
    files = {
        "vocab.json": folders.vocab_json(),
        "merges.txt": b"#version: 0.2\n",
        "added_tokens.json": {"<|im_end|>": 9},
        "tokenizer_config.json": {
            "added_tokens_decoder": {"8": {"content": "<|im_start|>"}},
            "pad_token": {"content": "<pad>"},
            "eos_token": "</s>",
        },
    }
    found = folders.model(tmp_path / "m", files)
    assert vocabulary_files(found) == ("vocab.json", "added_tokens.json", "tokenizer_config.json")
    rows, unsure = vocabularies_of(found)["vocab.json"].all_rows()
    assert rows == ROWS | {"<|im_start|>": 8, "<|im_end|>": 9, "<pad>": 10}
    assert unsure == {"<pad>"}


def test_rows_that_tokenizer_json_does_not_know_are_those_that_loading_gives(tmp_path):
    """A token that the config places on another's row goes behind all others."""
    tokenizer = Tokenizer(models.BPE(vocab=ROWS, merges=[], unk_token="<unk>"))
    folder = tmp_path / "m"
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {"3": {"content": "<clash>", "special": True}},
        "additional_special_tokens": ["<e>"],
        "pad_token": "<pad>",
    }
    found = folders.model(
        folder,
        {"tokenizer.json": tokenizer.to_str().encode(), "tokenizer_config.json": config},
    )
    rows, _ = vocabularies_of(found)["tokenizer.json"].all_rows()
    assert rows == AutoTokenizer.from_pretrained(folder).get_vocab()


def test_the_preferred_of_several_forms():
    names = ["tekken.json", "b.tiktoken", "x.model", "tokenizer.model", "vocab.txt", "a/vocab.json"]
    assert files_by_form(names) == {
        "vocab.txt": "vocab.txt",
        "SentencePiece": "tokenizer.model",
        "tiktoken": "b.tiktoken",
        "tekken.json": "tekken.json",
    }
    assert next(iter(files_by_form([*names, "tokenizer.json"]))) == "tokenizer.json"


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "has no piece"),
        (b"\n\x0e", "cut off at byte 2"),
        (b"\n\x02\x0a\x05", "cut off at byte 4"),
        (b"\n\x02\x18\x01", "a piece has no text"),
        (b"\x0b", "wire type 3 at byte 1"),
        (b"\x80" * 12, "more than 64 bits"),
        (b"\n\xff\xff\xff\xff\xff\xff\xff\xff\x01", "cut off"),
        (b"version https://git-lfs.github.com/spec/v1", "no SentencePiece model|cut off"),
    ],
)
def test_what_is_no_sentencepiece_model(data, match):
    with pytest.raises(ValueError, match=match):
        sentencepiece_pieces(data)


def test_every_cut_of_a_model_is_refused_or_shorter():
    whole = folders.sentencepiece()
    for length in range(len(whole)):
        try:
            pieces = sentencepiece_pieces(whole[:length])
        except ValueError:
            continue
        assert pieces == list(folders.WORDS)[: len(pieces)]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", b"{"),
        ("tokenizer.json", {"model": 3}),
        ("tokenizer.json", {}),
        ("vocab.json", {"a": "x"}),
        ("vocab.json", [1]),
        ("vocab.txt", b"\xff\xfe"),
        ("tokenizer.model", b"\n\x0e"),
        ("x.tiktoken", b"YQ== 0\nno rank\n"),
        ("x.tiktoken", b"Y 0\n"),
        ("tekken.json", {"vocab": [{"rank": 0}]}),
        ("tekken.json", {"vocab": 7}),
        ("tekken.json", {"config": [], "vocab": []}),
    ],
)
def test_malformed_files_have_no_vocabulary(tmp_path, file, content):
    found = folders.model(tmp_path / "m", {file: content})
    assert vocabulary(found) is None
    with pytest.raises(CheckpointError, match=rf"{file}: "):
        next(iter(vocabularies_of(found).values())).rows()


def test_malformed_added_tokens(tmp_path):
    files = {"vocab.json": folders.vocab_json(), "added_tokens.json": {"<a>": "first"}}
    found = folders.model(tmp_path / "m", files)
    with pytest.raises(CheckpointError, match="the added tokens of its tokenizer are malformed"):
        vocabularies_of(found)


def test_the_rows_are_those_of_the_embedding(tmp_path):
    assert vocabulary_rows(folders.model(tmp_path / "m", {}, rows=5)) == 5
    assert vocabulary_files(folders.model(tmp_path / "n", {})) == ()
