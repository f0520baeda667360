"""Everything that eval_ops raises on purpose.

    EvalError                    catch this one to catch them all
    ├── FaultyInputError         input with one or more faults (`.faults` lists them all)
    │   ├── SuiteError           a suite file is missing, unreadable or wrong
    │   │   └── ItemsError       so is an items file that the suite names
    │   ├── ImportedScoresError  a CSV of scores from elsewhere is unreadable or wrong
    │   ├── GateError            a recipe's `gate` is wrong, or there is nothing to compare with
    │   ├── PromptsError         prompts, or a model, that routers' gates cannot be measured from
    │   └── SearchError          a recipe's `search` is wrong
    ├── HarnessError             lm-eval cannot prepare or run what the suite asks for
    │   ├── UnknownTaskError     no built-in lm-eval task has that name
    │   └── MetricError          the metric does not exist, or cannot be compared item by item
    ├── JudgeError               a judge gives no grade
    ├── CheckpointLoadError      a checkpoint folder cannot be loaded as a causal language model
    ├── NonFiniteError           a checkpoint answers with NaN or infinite log-likelihoods
    ├── ScoresError              a stored scores file is unreadable or contradicts itself
    └── PairingError             two sets of scores do not cover the same items

Every message says where, what was given, what is allowed and what to do.
"""

from collections.abc import Sequence


class EvalError(Exception):
    """The root of this tree."""


class FaultyInputError(EvalError):
    """Input with one or more faults, all of them listed.

    `faults` holds one sentence a fault, each naming its place inside `where`.
    """

    def __init__(self, where: str, faults: Sequence[str]) -> None:
        self.where = where
        self.faults = tuple(faults)
        super().__init__(self._message())

    def _message(self) -> str:
        if len(self.faults) == 1:
            return f"{self.where}: {self.faults[0]}"
        lines = [f"{self.where}: {len(self.faults)} faults"]
        return "\n".join([*lines, *(f"  - {fault}" for fault in self.faults)])


class SuiteError(FaultyInputError):
    """A suite file is missing, unreadable or wrong."""


class ItemsError(SuiteError):
    """An items file named by a suite is missing, unreadable or wrong."""


class ImportedScoresError(FaultyInputError):
    """A CSV of scores from elsewhere is unreadable or wrong."""


class GateError(FaultyInputError):
    """A gate's settings are wrong, or there is nothing to compare with."""


class PromptsError(FaultyInputError):
    """Prompts, or a model, that gates of routers cannot be measured from."""


class SearchError(FaultyInputError):
    """A search's settings are wrong."""


class HarnessError(EvalError):
    """lm-eval cannot prepare or run what the suite asks for."""


class UnknownTaskError(HarnessError):
    """No built-in lm-eval task has that name."""


class MetricError(HarnessError):
    """The metric does not exist in the task, or cannot be compared item by item."""


class JudgeError(EvalError):
    """A judge gives no grade."""


class CheckpointLoadError(EvalError):
    """A checkpoint folder cannot be loaded as a causal language model."""


class ModelEndedError(EvalError):
    """The child that builds and runs a model ended at it: out of memory or time, or it crashed."""


class NonFiniteError(EvalError):
    """A checkpoint answers with NaN or infinite log-likelihoods."""


class ScoresError(EvalError):
    """A stored scores file is unreadable or contradicts itself."""


class PairingError(EvalError):
    """Two sets of scores do not cover the same items, so they cannot be compared."""


def raised_by_child(kind: str, message: str) -> EvalError:
    """Return the error of this tree that a child raised, or the tree's root for any other."""
    found = {each.__name__: each for each in _kinds(EvalError)}.get(kind, EvalError)
    if issubclass(found, FaultyInputError):
        where, _, fault = message.partition(": ")
        return found(where, [fault])
    return found(message if found is not EvalError else f"{kind}: {message}")


def _kinds(root: type[EvalError]) -> list[type[EvalError]]:
    return [root, *(kind for each in root.__subclasses__() for kind in _kinds(each))]
