"""Settings for every merge method, and applying one to flat values: for tests over the registry."""

import torch

from merge_ops.checkpoints.names.depth import Position
from merge_ops.measures.measure import Block, TensorJob, measure_whole
from merge_ops.methods import METHODS
from merge_ops.methods.parameters import REQUIRED
from merge_ops.stream.rounding import worked_out
from tests.merges import arithmetics

OTHER_VALUES = {
    "weight": 0.4, "density": 0.3, "lambda": 0.7, "t": 0.9,
    "gamma": 0.2, "scale": 0.5, "max_iter": 1, "tol": 0.5,
    "eps": 0.3, "epsilon": 0.2, "r": 0.4, "alpha": 5.0, "select_topk": 0.5,
    "tall_lambda": 1.5, "consensus": 3, "extrapolation": 0.5, "gradient_values": (0.9, 0.1),
    "above_average_value_ratio": 0.5, "score_calibration_value": 0.5,
    "common_space_fraction": 0.5,
}  # fmt: skip
USUAL = {
    "weight": 1.0, "density": 0.6, "t": 0.3, "epsilon": 0.5, "select_topk": 0.6,
    "gradient_values": (0.2, 0.6),
}  # fmt: skip
PLACE = Position("t", 0.0, in_layer=False, position=2, count=7, position_in_kind=1, count_of_kind=3)
USUAL_OF = {  # where the usual value is not allowed
    "della": {"epsilon": 0.1},
    "della_linear": {"epsilon": 0.1},
    "nuslerp": {"nuslerp_flatten": False},
}


def usual_value(method, name):
    usual = {**USUAL, **USUAL_OF.get(method.name, {})}
    return usual.get(name, method.parameter_specs[name].default)


def usual_parameters(method, count, **changes):
    values = []
    for name, spec in method.parameter_specs.items():
        value = changes.get(name, usual_value(method, name))
        assert value is not REQUIRED
        spread = spec.per_input and not isinstance(value, tuple)
        values.append(tuple([value] * count) if spread else value)
    parameters = method.parameters(*values)
    return method.at_position(parameters, PLACE) if method.at_position else parameters


def other_value(method, name):
    """One that is not usual."""
    spec = method.parameter_specs[name]
    if spec.kind is bool:
        return not usual_value(method, name)
    other = next((each for each in spec.choices if each != spec.default), None)
    return other or OTHER_VALUES[name]


def apply(name, tensors, parameters, seed=5, arithmetic=None):
    """The method on flat tensors, as a tensor; methods on rows or tensors see 64 columns."""
    method, flat = METHODS[name], tensors[0].shape
    if method.span_for([parameters]) != "element":
        tensors = [each.reshape(-1, 64) for each in tensors]
    return merged_whole(name, tensors, parameters, arithmetic, seed).reshape(flat)


def merged_whole(name, tensors, parameters, arithmetic=None, seed=7, shape=None, tensor="t"):
    """The method on tensors in the shape of its span, measured as the stream would; a tensor.

    `shape` is the whole tensor's where it is another.
    """
    method, arithmetic = METHODS[name], arithmetic or arithmetics.current()
    names = tuple(f"e{number}" for number in range(len(tensors)))
    job = TensorJob(tensor, tuple(shape or tensors[0].shape), names, seed, arithmetic)
    block = Block(0, 0, [arithmetic.own(each) for each in tensors])
    known = None
    if method.measure is not None:
        measure = method.measure(job, [parameters])
        measure_whole(measure, block, arithmetic)
        known = measure.at(block, 0)
    result = method.function(block.inputs, known, parameters, arithmetic)
    return arithmetic.tensor(worked_out(result, arithmetic))


def inputs(method, n=4096, count=3):
    generator = torch.Generator().manual_seed(n)
    return [torch.randn(n, generator=generator) for _ in range(method.exactly or count)]
