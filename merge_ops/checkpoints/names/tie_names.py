"""Which tensors an architecture may tie, told from their names: embeddings, heads, their biases.

    shared.weight                     = encoder.embed_tokens.weight = decoder.embed_tokens.weight
    any input embedding               = lm_head.weight, proj_out.weight, predictions.decoder.weight
    cls.predictions.bias              = cls.predictions.decoder.bias

Names say what may be tied. Whether it is, configs and bytes say: see `ties`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from merge_ops.checkpoints.names.tensor_names import HEAD_NAMES, is_embedding, is_head

SHARED = "shared.weight"
HEAD = "lm_head.weight"
# Input embeddings by the last part of their modules' names, beside those of `is_embedding`.
_INPUT = re.compile(r"(?:.*\.)?(?:shared|embed_in|tokens_embed|embeddings|word_embedding)\.weight")
_CODER = re.compile(
    r"(?P<prefix>|.*\.)(?:text_)?(?:encoder|decoder)\.(?:embed_tokens|word_embeddings)\.weight"
)
_HEAD = re.compile(
    r"(?:.*\.)?(?:predictions\.decoder|\w*_head\.decoder|\w*lm_head|lm_head\.out_proj|proj_out"
    r"|vocab_projector|output_projection|embed_out|lm_loss|pred_layer\.proj|output)\.weight"
)
_HEAD_ENDS = (
    *HEAD_NAMES,
    *(
        f"{each}.weight"
        for each in (
            "decoder", "lm_head", "out_proj", "proj_out", "vocab_projector", "output_projection",
            "embed_out", "lm_loss", "pred_layer.proj", "output",
        )
    ),
)  # fmt: skip
"""How the names end that `_HEAD` and `is_head` know, told without a search."""
_FAMILY_ENDS = (".embed_tokens.weight", ".word_embeddings.weight", SHARED)
_ENDS = (*_HEAD_ENDS, *_FAMILY_ENDS, "decoder.bias")
_BIAS = re.compile(r"(?P<prefix>(?:.*\.)?(?:predictions|\w*_head)\.)decoder\.bias")
_IN_LAYER = re.compile(r"\.\d+\.")
# What the head is called beside an embedding of this name, where it is no `lm_head`.
_HEADS_OF = (
    (re.compile(r"(?:bert|ernie|roc_bert|mobilebert|layoutlm)\.embeddings\.word_embeddings"),
     "cls.predictions.decoder.weight"),
    (re.compile(r"(?:roberta\w*|esm|longformer|mpnet|data2vec_text)\.embeddings\.word_embeddings"),
     "lm_head.decoder.weight"),
    (re.compile(r"albert\.embeddings\.word_embeddings"), "predictions.decoder.weight"),
    (re.compile(r"(?:electra|convbert)\.embeddings\.word_embeddings"), "generator_lm_head.weight"),
    (re.compile(r"distilbert\.embeddings\.word_embeddings"), "vocab_projector.weight"),
    (re.compile(r"gpt_neox(?:_japanese)?\.embed_in"), "embed_out.weight"),
    (re.compile(r"transformer\.embedding\.word_embeddings"), "transformer.output_layer.weight"),
    (re.compile(r"model\.tok_embeddings"), "output.weight"),
)  # fmt: skip
_LOADED_WITHOUT_HEAD = re.compile(
    r"(?<!LMHead)(?<!Heads)(?<!MT)(?<!GLM)Model$|EncoderModel$|Classification$|QuestionAnswering$"
    r"|Reward|MultipleChoice$|Embedding"
)


def is_input(name: str) -> bool:
    """Return whether a tensor is an input embedding, by its name; none in a layer is."""
    outside = _IN_LAYER.search(name) is None
    return outside and (is_embedding(name) or _INPUT.fullmatch(name) is not None)


def is_output(name: str) -> bool:
    """Return whether a tensor is an output head that may be tied, by its name."""
    if not name.endswith(_HEAD_ENDS):  # most names are through here
        return False
    outside = _IN_LAYER.search(name) is None
    return outside and (is_head(name) or _HEAD.fullmatch(name) is not None)


def may_be_tied(name: str) -> bool:
    """Return whether a tensor may be a head, a head's bias or a shared embedding, by its ending."""
    return name.endswith(_ENDS)


def shared_names(name: str) -> tuple[str, ...]:
    """Return the names of a family of shared input embeddings that `name` belongs to.

    The first is that of the shared one. Without a family the result is empty.
    """
    if not name.endswith(_FAMILY_ENDS):
        return ()
    found = _CODER.fullmatch(name)
    if found is not None:
        prefix = found["prefix"]
    elif name == SHARED or name.endswith(f".{SHARED}"):
        prefix = name.removesuffix(SHARED)
    else:
        return ()
    coders = (f"{prefix}{coder}.embed_tokens.weight" for coder in ("encoder", "decoder"))
    return tuple(dict.fromkeys((prefix + SHARED, *coders, name)))


def bias_partners(name: str) -> tuple[str, ...]:
    """Return the names that the bias `name` of a head may stand for, and be left out for."""
    found = _BIAS.fullmatch(name)
    if found is not None:
        return (f"{found['prefix']}bias",)
    if re.search(r"(?:predictions|_head)\.bias$", name):
        return (f"{name.removesuffix('bias')}decoder.bias",)
    return ()


def is_bias_copy(name: str) -> bool:
    """Return whether a tensor is the second name of a head's bias, as in BERT."""
    return name.endswith("decoder.bias") and _BIAS.fullmatch(name) is not None


def inputs_for(head: str, names: Iterable[str]) -> list[str]:
    """Return the input embeddings among `names` that a head may be tied to, the likeliest first.

    Those below the head's own prefix come first, then shared ones, then a decoder's.
    """
    prefix = head.rpartition("lm_head.")[0]

    def likelihood(name: str) -> tuple[bool, bool, bool]:
        shared = name == SHARED or name.endswith(f".{SHARED}")
        return (not name.startswith(prefix), not shared, "encoder." in name)

    return sorted(filter(is_input, names), key=likelihood)


def head_name(embedding: str, config: Mapping[str, Any]) -> str | None:
    """Return what the output head beside an input embedding is called in a checkpoint.

    It is None for models that are loaded without a head.
    """
    architectures: Any = config.get("architectures") or ()
    if architectures and all(_LOADED_WITHOUT_HEAD.search(str(each)) for each in architectures):
        return None
    for pattern, head in _HEADS_OF:
        if pattern.match(embedding):
            return head
    if str(config.get("model_type")) == "whisper":
        return "proj_out.weight"
    tower, model, _ = embedding.rpartition("model.embed_tokens.")
    return f"{tower}{HEAD}" if model and tower.endswith(".") else HEAD


def dependents(name: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the tensors that are `name` where a checkpoint does not store them: head, coders."""
    if not is_input(name):
        return
    family = shared_names(name)
    if family and name == family[0]:
        yield from family[1:]
    head = head_name(name, config)
    if head is not None and (not family or name == family[0] or head == "proj_out.weight"):
        yield head
