"""The C sources: Python's table of their functions says what they say, and compilers are silent."""

import ctypes
import gc
import re
from typing import Any

import pytest

import merge_ops.kernels
from merge_ops.kernels import compile as compile_kernels
from merge_ops.kernels.library import library

SCALARS: dict[str, Any] = {
    "void": None, "int": ctypes.c_int, "float": ctypes.c_float, "double": ctypes.c_double,
    "int32_t": ctypes.c_int32, "int64_t": ctypes.c_int64, "uint8_t": ctypes.c_uint8,
    "uint16_t": ctypes.c_uint16, "uint32_t": ctypes.c_uint32, "uint64_t": ctypes.c_uint64,
    "size_t": ctypes.c_size_t,
}  # fmt: skip
FUNCTION = re.compile(
    r"^(\w[\w \t]*?[ *]+)(\w+)\(([^()]*(?:\([^()]*\)[^()]*)*)\)\s*\{", re.MULTILINE
)


def text() -> str:
    """All sources, without comments and directives."""
    names = (*compile_kernels.HEADERS, *compile_kernels.SOURCES)
    whole = "\n".join((compile_kernels.FOLDER / name).read_text() for name in names)
    return re.sub(r"^\s*#.*$", "", re.sub(r"/\*.*?\*/", " ", whole, flags=re.DOTALL), flags=re.M)


def functions() -> dict[str, tuple[str, list[str]]]:
    """Name → (result, parameters) of every function that others can call, types as written."""
    found = {}
    for result, name, parameters in FUNCTION.findall(text()):
        if "static" in result.split():
            continue
        types = [declared_type(each) for each in parameters.split(",")]
        found[name] = (" ".join(result.split()), [] if types == ["void"] else types)
    return found


def declared_type(parameter: str) -> str:
    """A parameter's type: `const float *const *parts` is `float**`, `(*ends)[2]` has one `*`."""
    words = re.sub(r"\b(const|restrict|struct)\b", " ", parameter)
    if pointed := re.fullmatch(r"\s*(\w+)\s*\(\s*\*\s*\w+\s*\)\s*\[\w+\]\s*", words):
        return f"{pointed[1]}*"
    stars = words.count("*")
    names = words.replace("*", " ").split()
    return names[0] + "*" * stars


def allowed(declared: str) -> list[Any]:
    """What ctypes may be told of a declared type. An address of anything may be a c_void_p."""
    stars = declared.count("*")
    scalar = SCALARS.get(declared.rstrip("*"))
    if stars == 0:
        return [scalar]
    pointers = [ctypes.c_void_p]
    if stars == 1 and scalar is not None:
        pointers.append(ctypes.POINTER(scalar))
    if stars == 2:
        pointers.append(ctypes.POINTER(ctypes.c_void_p))
    return pointers


def loaded() -> ctypes.CDLL:
    loops = library()
    assert loops is not None
    return loops


def test_the_parser_finds_functions_of_every_kind():
    found = functions()
    assert found["source_digest"] == ("const char *", [])
    assert found["leaf_sums"] == ("void", ["float*", "float*", "int64_t", "int64_t", "double*"])
    assert "philox" not in found
    assert len(found) > 15


@pytest.mark.parametrize("name", sorted({*functions()} - {"source_digest"}))
def test_python_calls_a_function_as_it_is_declared(name: str):
    """A wrong type or a missing argument would write somewhere into memory, and say nothing."""
    result, parameters = functions()[name]
    function = getattr(loaded(), name)
    assert function.argtypes is not None, "Python does not say what it takes"
    assert len(function.argtypes) == len(parameters)
    for place, (told, declared) in enumerate(zip(function.argtypes, parameters, strict=True)):
        assert told in allowed(declared), f"argument {place}: {told} for {declared}"
    assert function.restype in allowed(result)


def test_python_knows_no_other_functions():
    kind = type(loaded().source_digest).__base__
    assert kind is not None
    assert {name for name, each in vars(loaded()).items() if isinstance(each, kind)} == {
        *functions()
    }


def structures() -> dict[str, list[Any]]:
    """Fields of every structure that the package declares, by the name it has in C."""
    gc.collect()  # classes that a test made and forgot
    ours = merge_ops.kernels.__name__
    all_of_them = ctypes.Structure.__subclasses__()
    return {
        each.__name__.strip("_").lower(): list(each._fields_)
        for each in all_of_them
        if each.__module__.startswith(ours)
    }


def declared_fields(structure: str) -> list[tuple[str, Any]]:
    """Names and types of a structure's fields, in order."""
    body = re.search(rf"^struct {structure} \{{(.*?)^\}};", text(), re.MULTILINE | re.DOTALL)
    assert body is not None, structure
    lines = [line.split(None, 1) for line in body[1].replace("\n", " ").split(";") if line.strip()]
    return [(name.strip(), SCALARS[kind]) for kind, names in lines for name in names.split(",")]


def test_structures_are_laid_out_as_declared():
    """Fields in one order, with one type each; then compilers and ctypes agree on offsets."""
    told, scalars = structures(), {*SCALARS, "const char *"}
    asked = {kind.rstrip("*") for _, kinds in functions().values() for kind in kinds} - scalars
    assert asked == {*told}
    for name, fields in told.items():
        assert fields == declared_fields(name)
