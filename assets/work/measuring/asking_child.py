"""The child that runs models, asked by whoever scores or grades. Knows no Dagster."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from eval_ops.running import AskedTokenizer

TOKENIZER_SECONDS = 60
"""CPU time of a tokenizer on one text or task; a healthy one takes a hundredth of it."""


def ask_child(
    module: str,
    folder: Path,
    request: Mapping[str, Any],
    doing: str,
    *,
    cuda: bool = False,
    tell: "Callable[[Mapping[str, Any]], None] | None" = None,
    shown: str | None = None,
    way_out: str = "",
    only_tokens: bool = False,
) -> dict[str, Any]:
    """Return what a module answers in the child that this process keeps for models.

    It is given `folder`, which messages call `shown`. With `only_tokens` a child of its own, which
    has no torch and ends with its answer, is asked: it starts in a third of the time. Raises the
    EvalError that the module raised, and ModelEndedError, with `way_out` behind it, where the child
    ended instead.
    """
    from eval_ops.errors import ModelEndedError, raised_by_child
    from merge_ops.children import ask_for_tokens, ask_of_model
    from merge_ops.errors import ChildEndedError, ChildRaisedError

    try:
        if only_tokens:
            return ask_for_tokens(module, folder, request, doing)
        return ask_of_model(module, folder, request, doing, cuda=cuda, tell=tell)
    except ChildRaisedError as error:
        why = error.why if shown is None else error.why.replace(str(folder.absolute()), shown)
        raise raised_by_child(error.kind, why) from error
    except ChildEndedError as error:
        raise ModelEndedError(f"{error}. {way_out}" if way_out else str(error)) from error


def asked_tokenizer(folder: Path) -> "AskedTokenizer":
    """Return the tokenizer in a folder, which the child loads and works with.

    Raises EvalError where it cannot be loaded there, or ends the child.
    """
    from eval_ops.running import AskedTokenizer

    named = {"name": uuid.uuid4().hex, "tokenizer_seconds": TOKENIZER_SECONDS}
    doing = f"works with the tokenizer in {folder}"

    def ask(request: Mapping[str, Any]) -> Mapping[str, Any]:
        module = "eval_ops.running.tokenizer_child"
        return ask_child(module, folder, {**request, **named}, doing)

    return AskedTokenizer(ask)
