"""What an adapter's config says of its modules, against the modules that its weights change."""

import pytest

from merge_ops.checkpoints.header import TensorEntry
from merge_ops.errors import CompatibilityError
from merge_ops.sources.lora.adapter_config import FILE
from merge_ops.sources.lora.adapter_targets import parse_targets, target_faults, targets_caution

DECODER = "model.layers.{}.self_attn.{}"
QUERIES = [DECODER.format(layer, "q_proj") for layer in (0, 1)]
MOE_EXPERT = "model.layers.3.mlp.experts.5.up_proj"


def targets(**raw):
    faults = []
    read = parse_targets(raw, FILE, faults)
    assert not faults
    return read


@pytest.mark.parametrize(
    ("raw", "module", "meant"),
    [
        ({"target_modules": ["q_proj"]}, QUERIES[0], True),
        ({"target_modules": ["proj"]}, QUERIES[0], False),
        ({"target_modules": [QUERIES[1]]}, QUERIES[0], False),
        ({"target_modules": r".*\.(q|v)_proj"}, QUERIES[0], True),
        ({"target_modules": "q_proj|v_proj"}, QUERIES[0], False),  # the whole name, unlike patterns
        ({"target_modules": ["q_proj"], "exclude_modules": ["q_proj"]}, QUERIES[0], False),
        ({"target_modules": ["q_proj"], "exclude_modules": ".*layers.0.*"}, QUERIES[0], False),
        ({"target_modules": ["q_proj"], "layers_to_transform": [1]}, QUERIES[0], False),
        ({"target_modules": ["q_proj"], "layers_to_transform": 0}, QUERIES[0], True),
        ({"target_modules": ["q_proj"], "layers_to_transform": []}, QUERIES[0], True),
        ({"target_modules": [QUERIES[0]], "layers_to_transform": [1]}, QUERIES[0], True),
        ({"target_modules": ["up_proj"], "layers_to_transform": [3]}, MOE_EXPERT, True),
        ({"target_modules": ["up_proj"], "layers_to_transform": [5]}, MOE_EXPERT, False),
        ({"target_modules": ["up_proj"], "layers_to_transform": [5], "layers_pattern": "experts"},
         MOE_EXPERT, True),
        ({"target_modules": ["up_proj"], "layers_to_transform": [3], "layers_pattern": ["h"]},
         MOE_EXPERT, False),
    ],
)  # fmt: skip
def test_the_modules_that_peft_would_change(raw, module, meant):
    assert targets(**raw).means(module) == meant


@pytest.mark.parametrize("named", [None, "all-linear", "ALL-LINEAR"])
def test_what_only_peft_can_tell_is_not_judged(named):
    assert targets(target_modules=named) is None


@pytest.mark.parametrize("named", ["[", "(?i)Q_PROJ", "(a|a)*" * 600 + "b"])
def test_what_cannot_be_matched_is_not_judged(named):
    assert list(target_faults(targets(target_modules=named), QUERIES, FILE)) == []


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"target_modules": 3}, "target_modules is 3; it must be a list of module names or"),
        ({"target_modules": {"q_proj": 1}}, "target_modules is {'q_proj': 1}"),
        ({"exclude_modules": [None]}, r"exclude_modules is \[None\]"),
        ({"layers_to_transform": [0, "x"]}, "must be a layer's number or a list of them"),
        ({"layers_to_transform": True}, "layers_to_transform is True"),
    ],
)
def test_what_is_no_name_is_a_fault(raw, message):
    faults = []
    assert parse_targets({"target_modules": ["q_proj"], **raw}, FILE, faults) is None
    with pytest.raises(CompatibilityError, match=message):
        raise CompatibilityError("adapter", faults)


def test_factors_of_other_modules_are_a_fault():
    read = targets(target_modules=["q_proj"], layers_to_transform=[0])
    assert list(target_faults(read, QUERIES[:1], FILE)) == []
    (fault,) = target_faults(read, [*QUERIES, DECODER.format(1, "v_proj")], FILE)
    assert f"do not mean '{QUERIES[1]}' and 1 more, but the weights hold factors" in str(fault)


def test_modules_without_factors_are_a_caution():
    matrix = TensorEntry("F32", (2, 2), 0, 16, "model.safetensors")
    tensors = {f"{module}.weight": matrix for module in QUERIES}
    named = targets(target_modules=["q_proj"])
    (caution,) = targets_caution("b+a", named, tensors, [f"{QUERIES[0]}.weight"])
    told = f"b+a changes 1 of the 2 modules that its {FILE} names: the weights hold no factors of"
    assert str(caution).startswith(f"{told} '{QUERIES[1]}'")
    assert not list(targets_caution("b+a", named, tensors, list(tensors)))
    norm = {"model.q_proj.weight": TensorEntry("F32", (2,), 0, 8, "model.safetensors")}
    assert not list(targets_caution("b+a", named, norm, []))
