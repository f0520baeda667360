"""What a mergekit-moe file says of gates: the base, and the prompts of each moe_expert."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from merge_ops.calibration import Prompts
from merge_ops.checkpoints import bounded_yaml
from merge_ops.errors import Fault, RecipeError, quoted

DEFAULT_MODE, DEFAULT_CHOSEN = "hidden", 2


@dataclass(frozen=True)
class MoePrompts:
    """What gates follow from: `models` are the experts' source models, in the order of the rows."""

    base: str
    models: tuple[str, ...]
    prompts: tuple[Prompts, ...]
    mode: str
    experts_per_token: int


def read_moe_prompts(path: Path) -> MoePrompts:
    """Read a mergekit-moe file as far as gates need it. Raises RecipeError with every fault."""
    try:
        documents = bounded_yaml.read_documents(path)
    except FileNotFoundError as error:
        problem = f"the file cannot be read ({error.strerror})"
        raise RecipeError(str(path), [Fault("", problem)]) from error
    except bounded_yaml.DocumentError as error:
        raise RecipeError(str(path), error.faults) from error
    found = documents[0] if len(documents) == 1 else None
    table = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    listed = table.get("experts")
    if not isinstance(listed, list) or not all(
        isinstance(each, dict) and "source_model" in each for each in cast("list[Any]", listed)
    ):
        problem = (
            "is no mergekit-moe file, which has `base_model`, and `experts` with a `source_model`"
            " and `positive_prompts` each"
        )
        raise RecipeError(str(path), [Fault("", problem)])
    return _checked(str(path), table, cast("list[Mapping[str, Any]]", listed))


def _checked(
    subject: str, table: Mapping[str, Any], experts: list[Mapping[str, Any]]
) -> MoePrompts:
    faults: list[Fault] = []
    base = table.get("base_model")
    if not isinstance(base, str) or not base:
        told = "is missing" if base is None else f"is {quoted(base)}"
        faults.append(Fault("base_model", f"{told}; it must name the model that the gates are of"))
    mode = table.get("gate_mode", DEFAULT_MODE)
    if not isinstance(mode, str):
        faults.append(Fault("gate_mode", f"is {quoted(mode)}; it must be a name"))
    chosen = table.get("experts_per_token", DEFAULT_CHOSEN)
    if type(chosen) is not int or not 1 <= chosen <= len(experts):
        allowed = f"it must be 1 to {len(experts)}, the experts of the file"
        faults.append(Fault("experts_per_token", f"is {quoted(chosen)}; {allowed}"))
    prompts: list[Prompts] = []
    for number, each in enumerate(experts):
        where = f"experts[{number}]"
        if not isinstance(each["source_model"], str):
            problem = f"is {quoted(each['source_model'])}; it must name a model"
            faults.append(Fault(f"{where}.source_model", problem))
        texts = [
            _texts(f"{where}.{key}", each.get(key), faults)
            for key in ("positive_prompts", "negative_prompts")
        ]
        prompts.append(Prompts(*texts))
    if faults:
        raise RecipeError(subject, faults)
    models = tuple(str(each["source_model"]) for each in experts)
    return MoePrompts(str(base), models, tuple(prompts), str(mode), chosen)


def _texts(where: str, value: object, faults: list[Fault]) -> tuple[str, ...]:
    """A list of texts; none where there is no list."""
    if value is None:
        return ()
    texts = cast("list[object]", value) if isinstance(value, list) else None
    if texts is None or not all(isinstance(text, str) for text in texts):
        faults.append(Fault(where, f"is {quoted(value)}; it must be a list of texts"))
        return ()
    return tuple(map(str, texts))
