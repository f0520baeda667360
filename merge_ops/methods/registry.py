"""The registry of merge methods, and the shape every method has.

A method is a plain function on float32 tensors: it sees a block of every input (flat, as rows or as
the whole tensor: its span), what was measured of the whole tensor, and its resolved parameters, and
returns the merged block, or the weighted sum that it is, which the stream works out and rounds in
one pass. It does no I/O and knows no dtype, device or thread. For `inputs="task_vectors"` it sees
expert − base and returns the merged task vector; the stream adds the base. `inputs="either"` sees
task vectors where the recipe names a base, and whole checkpoints where it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from merge_ops.checkpoints.depth import Position
from merge_ops.errors import Fault, UnknownMethodError, did_you_mean
from merge_ops.measures.combination import WeightedSum, worked_out
from merge_ops.methods.parameters import Parameter, parameters_of

if TYPE_CHECKING:
    from torch import Tensor

    from merge_ops.measures.measure import Measure, ModelWide, TensorJob

MergeFunction = Callable[[Sequence["Tensor"], Any, Any], "Tensor | WeightedSum"]
MeasureFactory = Callable[["TensorJob", Sequence[Any]], "Measure"]
Span = Literal["element", "row", "tensor"]
Function = TypeVar("Function", bound=MergeFunction)


@dataclass(frozen=True)
class MergeMethod:
    """One row of the registry.

    `span` is the most that the method must see at once: any run of elements, whole rows (runs of
    the last dimension), or a whole tensor; `span_of` says for which parameters less will do. Memory
    is bounded by blocks, by rows or by tensors accordingly. `measure` builds what the method must
    know of the whole tensor first, or where `model_wide` says so of the whole model: then all
    inputs are read once more. `version` is part of a plan's digest: raise it when a change alters
    any bit. `check` says what is wrong with parameters that are sound each for itself;
    `at_position` makes of them what the method gets for one tensor, where that depends on the
    tensor's position among all. With `arrays` the function and its measure do with numpy arrays as
    well (values.py) where the loops in C were compiled: such a merge needs no torch. With `span_of`
    that holds for runs of elements only. With `sums_inputs` it returns a weighted sum of its inputs
    and looks at no value of them, and nothing is measured: they may be handed to it as stored.
    """

    name: str
    function: MergeFunction
    parameters: type
    inputs: Literal["checkpoints", "task_vectors", "either"]
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
    version: int = 1
    base: Literal["required", "optional"] = "required"
    exactly: int | None = None
    at_least: int = 1
    unused: tuple[str, ...] = ()

    def merge(self, inputs: Sequence[Tensor], known: Any, parameters: Any) -> Tensor:
        """What the function makes of a block, as a new tensor."""
        return worked_out(self.function(inputs, known, parameters))

    @property
    def parameter_specs(self) -> dict[str, Parameter]:
        """Its parameters by name."""
        return parameters_of(self.parameters)

    def works_on_arrays(self, span: Span) -> bool:
        """Whether it does with arrays for a tensor that needs this span."""
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
