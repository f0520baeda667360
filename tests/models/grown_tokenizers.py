"""Small tokenizers of an English corpus, of the kinds that grow."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tests.models.checkpoint_factory import write_json

ENGLISH = (
    "the quick brown fox jumps over the lazy dog",
    "merging models is a way to make one of many",
    "a model that says what it was trained to say",
)
CHINESE = "融合模型，茯苓当归。中药方剂很好"
WORDS = ("茯苓", "当归", "融合", "模型", "融合模型", "中药方剂", "，", "茯")
END = "<|endoftext|>"


def byte_level(size: int = 330, corpus: tuple[str, ...] = ENGLISH) -> Tokenizer:
    """A byte-level BPE, as of Qwen, with a special token and an added one behind its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, show_progress=False, special_tokens=[]
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens([END])
    tokenizer.add_tokens(["<tool>"])
    return tokenizer


def pieces(size: int = 330, corpus: tuple[str, ...] = ENGLISH) -> Tokenizer:
    """A BPE of SentencePiece with tokens for bytes, as of Llama 2."""
    special = ["<unk>", "<s>", END, *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=special)
    tokenizer.train_from_iterator(corpus, trainer)
    document = json.loads(tokenizer.to_str())
    added = [each for each in document["added_tokens"] if each["id"] < 3]  # bytes are plain tokens
    return Tokenizer.from_str(json.dumps({**document, "added_tokens": added}))


def unigram() -> Tokenizer:
    """A Unigram model, as of T5, with a special token behind its own."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=80, special_tokens=["<unk>", "<s>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(ENGLISH, trainer)
    tokenizer.add_special_tokens([END])
    return tokenizer


KINDS = {"byte_level": byte_level, "pieces": pieces, "unigram": unigram}


def write(tokenizer: Tokenizer, folder: Path) -> Path:
    """Writes tokenizer.json and tokenizer_config.json into a folder; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "pad_token": END}
    write_json(folder / "tokenizer_config.json", settings)
    return folder
