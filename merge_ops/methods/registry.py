"""The registry of merge methods, and the shape every method has.

A method is a plain function on float32 values: it gets a block of every input (flat, as rows or as
the whole tensor: its span), what its measure knows of that block, its resolved parameters, and the
arithmetic to compute with. It returns the merged block, or the weighted sum that it is, which the
stream works out and rounds in one pass. It does no I/O and knows no dtype, device or thread.

What it `sees` are whole `checkpoints`; `task_vectors` (expert − base: then it returns the merged
task vector, and the stream adds the base); task vectors that its measure has `trimmed` by magnitude
or `dropped` at random; or `either`: task vectors where the recipe names a base, whole checkpoints
where it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from merge_ops.checkpoints.names.depth import Position
from merge_ops.errors import Fault, UnknownMethodError, did_you_mean
from merge_ops.kernels.linear_algebra import linear_algebra_kind
from merge_ops.methods.parameters import Parameter, parameters_of

if TYPE_CHECKING:
    from merge_ops.kernels.arithmetic import Arithmetic, Values
    from merge_ops.measures.combination import WeightedSum
    from merge_ops.measures.measure import Measure, ModelWide, TensorJob

MergeFunction = Callable[[Sequence[Any], Any, Any, "Arithmetic"], "Values | WeightedSum"]
"""(inputs, what the measure knows, parameters, arithmetic) to the merged block."""
MeasureFactory = Callable[["TensorJob", Sequence[Any]], "Measure"]
Span = Literal["element", "row", "tensor"]
Sees = Literal["checkpoints", "task_vectors", "trimmed", "dropped", "either"]
Function = TypeVar("Function", bound=MergeFunction)


@dataclass(frozen=True)
class MergeMethod:
    """One row of the registry.

    `span` is the most that the method must see at once: any run of elements, whole rows (runs of
    the last dimension), or a whole tensor; `span_of` says for which parameters less will do. Memory
    is bounded by blocks, by rows or by tensors accordingly. `measure` builds what the method must
    know of the whole tensor first, or where `model_wide` says so of the whole model: then all
    inputs are read once more. `version` is part of a plan's digest: raise it when a change alters
    any bit. `by_lapack` says that its bits follow from the processor's linear algebra library,
    which the digest then names too. `check` says what is wrong with parameters that are sound each
    for itself; `at_position` makes of them what the method gets for one tensor, where that depends
    on the tensor's position among all. With `arrays` the function and its measure use no torch of
    their own: where the loops in C were compiled, such a merge does not import it. A method with
    `span_of` then does so for runs of elements only. With `sums_inputs` it returns a weighted sum
    of its inputs and looks at no value of them, and nothing is measured: they may be handed to it
    as stored.
    """

    name: str
    function: MergeFunction
    parameters: type
    sees: Sees
    span: Span
    family: Literal["basic", "weighted", "subspace", "routing", "calibration"]
    source: str
    measure: MeasureFactory | None = None
    model_wide: ModelWide | None = None
    span_of: Callable[[Any], Span] | None = None
    check: Callable[[Any], Fault | None] | None = None
    at_position: Callable[[Any, Position], Any] | None = None
    random: bool = False
    arrays: bool = False
    sums_inputs: bool = False
    by_lapack: bool = False
    version: int = 1
    base: Literal["required", "optional"] = "required"
    exactly: int | None = None
    at_least: int = 1
    unused: tuple[str, ...] = ()

    @property
    def inputs(self) -> Literal["checkpoints", "task_vectors", "either"]:
        """What is read for it: what it sees, before its measure trims or drops."""
        return "task_vectors" if self.sees in ("trimmed", "dropped") else self.sees

    @property
    def identity(self) -> list[object]:
        """What decides its bits beside inputs and parameters, as plain data for a digest."""
        return [self.name, self.version, *([linear_algebra_kind()] if self.by_lapack else [])]

    @property
    def parameter_specs(self) -> dict[str, Parameter]:
        """Its parameters by name."""
        return parameters_of(self.parameters)

    def works_on_arrays(self, span: Span) -> bool:
        """Whether it needs no torch for a tensor that needs this span."""
        return self.arrays and (self.span_of is None or span == "element")

    def measures_model(self, parameters: Any) -> bool:
        """Whether one coefficient's measure goes over the whole model."""
        return self.model_wide is not None and self.model_wide.asked(parameters)

    def span_for(self, parameters: Sequence[Any]) -> Span:
        """What one tensor needs, over all coefficients of a sweep.

        Where they differ it is the whole tensor: runs of elements and of rows cut it in different
        places, and a coefficient must not depend on which others it is merged with.
        """
        if self.span_of is None:
            return self.span
        wanted: set[Span] = {self.span_of(each) for each in parameters}
        return next(iter(wanted)) if len(wanted) == 1 else "tensor"


METHODS: dict[str, MergeMethod] = {}


def merge_method(name: str, **row: Any) -> Callable[[Function], Function]:
    """Register the decorated function as the merge method `name`."""

    def register(function: Function) -> Function:
        if name in METHODS:
            raise ValueError(f"two merge methods are called {name!r}")
        METHODS[name] = MergeMethod(name=name, function=function, **row)
        return function

    return register


def method_named(name: str, subject: str) -> MergeMethod:
    """The method `name`; `subject` is the recipe, for the message of UnknownMethodError."""
    if name in METHODS:
        return METHODS[name]
    known = ", ".join(sorted(METHODS))
    problem = f"no merge method is called {name!r}.{did_you_mean(name, METHODS)} Known: {known}"
    raise UnknownMethodError(subject, [Fault("merge_method:", problem)])
