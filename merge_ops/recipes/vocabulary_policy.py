"""What a recipe says of the merged vocabulary: `tokenizer`, `tokenizer_source`, `chat_template`.

    tokenizer:
      source: union                     # or base, or a model
      tokens:
        <|im_start|>: {source: chat}                                    # this model's row for it
        <|pad|>: {source: {kind: zero}}
        <|end|>: {source: {kind: model_token, model: chat, token: <|im_end|>}, force: true}
      pad_to_multiple_of: 64
    chat_template: auto                 # or a built-in name, or Jinja text

The keys are mergekit's. Of `tokenizer` and `tokenizer_source` (only the source) one may stand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from merge_ops.errors import Fault, did_you_mean
from merge_ops.recipes.chat_templates import AUTO, BUILT_IN
from merge_ops.recipes.spelling import reference_faults

BASE, UNION = "base", "union"
KEYS = ("source", "tokens", "pad_to_multiple_of")
RULE_KEYS = ("source", "force")
ZERO, MODEL_TOKEN = "zero", "model_token"
ROW_KEYS = {ZERO: ("kind",), MODEL_TOKEN: ("kind", "model", "token", "token_id")}

MAX_MULTIPLE = 1 << 20
"""A vocabulary is padded to at most so many rows: four times the largest known one."""


@dataclass(frozen=True)
class TokenRow:
    """A token row names the embedding row that a token takes.

    It is the row of `model` for `token`, or the row `token_id` of `model`; without a model it is
    zeros. With neither `token` nor `token_id` it is the row of the token that the rule is for.
    """

    model: str | None = None
    token: str | None = None
    token_id: int | None = None


@dataclass(frozen=True)
class TokenRule:
    """A token rule is one entry of `tokens`: it says where models take the row of a token from.

    It holds for models without the token, with `force` for all models. Without a row the usual rule
    for missing tokens holds, and the entry only adds the token.
    """

    row: TokenRow | None = None
    force: bool = False


@dataclass(frozen=True)
class TokenizerPolicy:
    """A tokenizer policy states which vocabulary the merged checkpoint has.

    `written` holds the recipe's own keys.
    """

    source: str = UNION
    rules: Mapping[str, TokenRule] = field(default_factory=dict[str, TokenRule])
    pad_to_multiple_of: int | None = None
    written: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def model_names(self) -> tuple[str, ...]:
        """Return the models that the policy names, each once."""
        named = [] if self.source in (BASE, UNION) else [self.source]
        named += [rule.row.model for rule in self.rules.values() if rule.row and rule.row.model]
        return tuple(dict.fromkeys(named))


def policy_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield the faults of the keys `tokenizer`, `tokenizer_source` and `chat_template`."""
    source, table = document.get("tokenizer_source"), document.get("tokenizer")
    if source is not None and table is not None:
        problem = "cannot stand beside `tokenizer`; move it there as `tokenizer: {source: …}`"
        yield Fault("tokenizer_source", problem)
    if source is not None:
        yield from _source_faults("tokenizer_source", source)
    if table is not None:
        yield from _table_faults(table)
    yield from _template_faults(document.get("chat_template"))


def _table_faults(value: Any) -> Iterator[Fault]:
    if not isinstance(value, dict):
        yield Fault("tokenizer", f"is {value!r}; it must be a mapping of {', '.join(KEYS)}")
        return
    table = cast(dict[str, Any], value)
    yield from _unknown("tokenizer", table, KEYS)
    if table.get("source") is not None:
        yield from _source_faults("tokenizer.source", table["source"])
    multiple = table.get("pad_to_multiple_of")
    if multiple is not None and (type(multiple) is not int or not 1 <= multiple <= MAX_MULTIPLE):
        problem = f"is {multiple!r}; it must be a whole number from 1 to {MAX_MULTIPLE}"
        yield Fault("tokenizer.pad_to_multiple_of", problem)
    tokens = table.get("tokens")
    if tokens is None:
        return
    if not isinstance(tokens, dict):
        yield Fault("tokenizer.tokens", "must be a mapping of token to {source, force}")
        return
    for token, rule in cast(dict[Any, Any], tokens).items():
        where = f"tokenizer.tokens.{token}"
        if not isinstance(token, str) or not token:
            yield Fault(where, f"is named by {token!r}; put the token in quotes")
        else:
            yield from _rule_faults(where, rule)


def _source_faults(where: str, value: Any) -> Iterator[Fault]:
    if isinstance(value, dict):
        yield from reference_faults(where, value)
    elif not isinstance(value, str) or not value:
        yield Fault(where, f"is {value!r}; it must be {BASE}, {UNION} or the name of a model")
    elif value.startswith("model:"):
        told = f"write {value.removeprefix('model:')!r}, the model's name alone"
        yield Fault(where, f"is {value!r}, as an earlier mergekit had it; {told}")


def _rule_faults(where: str, value: Any) -> Iterator[Fault]:
    if not isinstance(value, dict):
        yield Fault(where, f"is {value!r}; it must be a mapping of {', '.join(RULE_KEYS)}")
        return
    rule = cast(dict[str, Any], value)
    yield from _unknown(where, rule, RULE_KEYS)
    force = rule.get("force")
    if force is not None and not isinstance(force, bool):
        yield Fault(f"{where}.force", f"is {force!r}; it must be true or false")
    source = rule.get("source")
    if source is None:
        if force is True:
            yield Fault(f"{where}.force", "needs a `source` to take the row from")
    elif isinstance(source, dict):
        yield from _row_faults(f"{where}.source", cast(dict[str, Any], source))
    elif not isinstance(source, str) or not source:
        allowed = f"the name of a model, {{kind: {ZERO}}} or {{kind: {MODEL_TOKEN}, model, token}}"
        yield Fault(f"{where}.source", f"is {source!r}; it must be {allowed}")


def _row_faults(where: str, row: Mapping[str, Any]) -> Iterator[Fault]:
    kind = row.get("kind")
    if not isinstance(kind, str) or kind not in ROW_KEYS:
        hint = did_you_mean(str(kind), ROW_KEYS)
        yield Fault(f"{where}.kind", f"is {kind!r}; it must be {ZERO} or {MODEL_TOKEN}.{hint}")
        return
    yield from _unknown(where, row, ROW_KEYS[kind])
    if kind == ZERO:
        return
    model, token, number = row.get("model"), row.get("token"), row.get("token_id")
    if model is None:
        yield Fault(f"{where}.model", f"is {model!r}; it must be the name of a model")
    else:
        yield from reference_faults(f"{where}.model", model)
    if (token is None) == (number is None):
        yield Fault(where, "must have either `token` or `token_id`")
    if token is not None and (not isinstance(token, str) or not token):
        yield Fault(f"{where}.token", f"is {token!r}; it must be a token, in quotes")
    if number is not None and (type(number) is not int or number < 0):
        yield Fault(f"{where}.token_id", f"is {number!r}; it must be a whole number from 0 on")


def _template_faults(value: Any) -> Iterator[Fault]:
    known = (AUTO, *BUILT_IN)
    if value is None or value in known or (isinstance(value, str) and "{" in value):
        return
    hint = did_you_mean(str(value), known)
    allowed = f"{', '.join(known)}, or the text of a Jinja template"
    yield Fault("chat_template", f"is {value!r}; it must be one of {allowed}.{hint}")


def _unknown(where: str, table: Mapping[str, Any], known: tuple[str, ...]) -> Iterator[Fault]:
    for key in table:
        if key not in known:
            hint = did_you_mean(key, known)
            yield Fault(f"{where}.{key}", f"is no key here ({', '.join(known)}).{hint}")


def policy_of(document: Mapping[str, Any]) -> TokenizerPolicy | None:
    """Return the policy of a checked recipe, or None where it does not name a tokenizer."""
    source = document.get("tokenizer_source")
    if source is not None:
        return TokenizerPolicy(source, written={"tokenizer_source": source})
    table = cast("dict[str, Any] | None", document.get("tokenizer"))
    if table is None:
        return None
    tokens = cast("dict[str, dict[str, Any]]", table.get("tokens") or {})
    return TokenizerPolicy(
        table.get("source") or UNION,
        {
            token: TokenRule(_row_of(rule.get("source")), bool(rule.get("force")))
            for token, rule in tokens.items()
        },
        table.get("pad_to_multiple_of"),
        {"tokenizer": table},
    )


def _row_of(source: str | Mapping[str, Any] | None) -> TokenRow | None:
    if source is None or isinstance(source, str):
        return TokenRow(source) if source else None
    if source["kind"] == ZERO:
        return TokenRow()
    return TokenRow(source["model"], source.get("token"), source.get("token_id"))
