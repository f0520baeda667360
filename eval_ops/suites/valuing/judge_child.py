"""What the child that runs models is asked of a judge in a folder: its words on one answer.

The child is started by assets/work; nothing of it is imported here. The judge stays in memory for
the next answer. Where its words hold no grade, as those of a small model may not, it is held to
one: of the ten grades it gives the one whose text, put behind its own words, is likeliest to it.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from eval_ops.running import LiveModel, Loaded
from eval_ops.running.foreign_work import limit_tokenizers, limited
from eval_ops.running.pinning import pinned
from eval_ops.suites.valuing.judging import HIGHEST, grade_in

LEAD = "\nRating: [["
END = "]]"
_judges: dict[tuple[str, str], Loaded] = {}


def answer(request: Mapping[str, Any], tell: Callable[[Any], None]) -> dict[str, Any]:
    """Return `says`, what the judge in `folder` says to `messages`; `digest` names its folder.

    Raises EvalError where it cannot be loaded.
    """
    key = str(request["digest"]), str(request["device"])
    limit_tokenizers(int(request["tokenizer_seconds"]))
    if key not in _judges:
        _judges.clear()
        _judges[key] = LiveModel(key[1]).load(Path(request["folder"]))
    settings = float(request["temperature"]), int(request["max_new_tokens"])
    with pinned(int(request["threads"]), 0, key[1]):
        return {"says": says(_judges[key], request["messages"], *settings)}


def says(
    judge: Loaded, messages: Sequence[Mapping[str, str]], temperature: float, max_new_tokens: int
) -> str:
    """Return what a judge says to messages, with a grade in it; `temperature` 0 is greedy."""
    import torch

    model, tokenizer = judge
    encoder: Any = tokenizer
    with limited(sum(len(message["content"]) for message in messages)):
        prompt = _prompt(encoder, messages)
        tokens = encoder(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
    tokens = tokens.to(model.device)
    sampling = {"do_sample": True, "temperature": temperature} if temperature else {}
    settings: dict[str, Any] = {"do_sample": False, "pad_token_id": encoder.eos_token_id}
    with torch.no_grad():
        written: Any = model.generate(  # pyright: ignore[reportCallIssue]
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=max_new_tokens,
            return_dict_in_generate=True,
            **{**settings, **sampling},
        )
    output = cast(Any, written)
    seen: Any = output.sequences
    text = str(encoder.decode(seen[0, tokens.shape[1] :], skip_special_tokens=True))
    if grade_in(text) is not None:
        return text
    if int(seen[0, -1]) in _ends(model, encoder):
        seen = seen[:, :-1]
    known: Any = getattr(output, "past_key_values", None)
    endings = [f"{grade}{END}" for grade in range(1, HIGHEST + 1)]
    return text + LEAD + _likeliest(model, encoder, Read(seen, known), LEAD, endings)


def _ends(model: Any, encoder: Any) -> set[int]:
    """The tokens that end what a model writes."""
    given: Any = model.generation_config.eos_token_id
    return {encoder.eos_token_id, *(given if isinstance(given, list) else [given])}


def _prompt(encoder: Any, messages: Sequence[Mapping[str, str]]) -> str:
    plain = [dict(message) for message in messages]
    if encoder.chat_template:
        return str(encoder.apply_chat_template(plain, tokenize=False, add_generation_prompt=True))
    return "\n\n".join(message["content"] for message in plain) + "\n\n"


class Read(NamedTuple):
    """What a model has read and written: tokens [1, n], and the keys and values of the first ones.

    `known` is None for a model that keeps none, or another state.
    """

    tokens: Any
    known: Any


def _likeliest(model: Any, encoder: Any, so_far: Read, lead: str, endings: Sequence[str]) -> str:
    """The ending with the largest log-likelihood after `lead`, which follows what was read so far.

    The tokens of `lead` and of each ending are read on their own, endings behind a copy of what the
    model keeps, so that nothing is read twice. A model that keeps nothing reads all each time.
    """
    import torch

    def tokens_of(words: str) -> Any:
        return torch.tensor([encoder(words, add_special_tokens=False)["input_ids"]]).to(device)

    device, known = model.device, so_far.known
    before, afters = torch.cat([so_far.tokens, tokens_of(lead)], dim=1), map(tokens_of, endings)
    likelihoods: list[float] = []
    last: Any = None
    with torch.no_grad():
        if known is not None:
            last = model(before[:, known.get_seq_length() :], past_key_values=known, use_cache=True)
        for after in afters:
            if known is None:
                logits = model(torch.cat([before, after], dim=1)).logits[0, before.shape[1] - 1 :]
            else:
                rest = model(after, past_key_values=copy.deepcopy(known), use_cache=True)
                logits = torch.cat([last.logits[0, -1:], rest.logits[0]])
            table = logits[:-1].log_softmax(dim=-1, dtype=torch.float32)
            likelihoods.append(float(table.gather(1, after[0, :, None]).sum()))
    return endings[likelihoods.index(max(likelihoods))]
