"""Run by `pickled_weights` as a process of its own: pickled files in, safetensors files out.

    python -P merge_ops/checkpoints/convert_pickles.py FROM TO [FROM TO]...

torch unpickles nothing but tensors and plain containers (`weights_only`). The process imports no
package of ours, and ends with one line on stderr and status 3 where a file asks for more.
"""

import pickle
import sys
import zipfile
from typing import Any, cast

WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
"""Keys under which trainers put the weights, beside what else they save."""


def convert(source: str, target: str) -> None:
    """Convert the pickled file `source` to the safetensors file `target`.

    Raises what torch raises for the file, and ValueError where it holds more than tensors.
    """
    import torch
    from safetensors import torch as safetensors_torch

    mapped = zipfile.is_zipfile(source)  # the form before torch 1.6 cannot be mapped
    load: Any = torch.load
    content: object = load(source, map_location="cpu", weights_only=True, mmap=mapped)
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, and no table of tensors")
    tensors: dict[str, torch.Tensor] = {}
    for name, value in unwrapped(cast(dict[object, object], content)).items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ValueError(f"its entry {name!r} is a {type(value).__name__}, and no tensor")
        tensors[name] = value.detach().clone(memory_format=torch.contiguous_format)
    save: Any = cast(Any, safetensors_torch).save_file
    save(tensors, target, metadata={"format": "pt"})


def unwrapped(content: dict[object, object]) -> dict[object, object]:
    """Return the table of weights in what a trainer saved: the content, or one of its entries.

    Raises ValueError where several entries may be the weights: averaged ones (EMA) beside the last.
    """
    import torch

    if any(isinstance(value, torch.Tensor) and value.dim() for value in content.values()):
        return content
    tables = {
        str(key): cast(dict[object, object], value)
        for key, value in content.items()
        if isinstance(value, dict) and _is_table(cast(dict[object, object], value))
    }
    if len(tables) > 1:
        named = ", ".join(sorted(tables))
        raise ValueError(
            f"it holds several tables of tensors ({named}); save the one that is meant"
        )
    known = [key for key in tables if key in WRAPPERS]
    return tables[known[0]] if known else content


def _is_table(value: dict[object, object]) -> bool:
    """Whether every entry is a tensor by name."""
    import torch

    pairs = value.items()
    return bool(value) and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in pairs)


def main(paths: list[str]) -> int:
    """Convert each pair of paths and return the exit status: 0, or 3 where one is refused.

    What was wrong with it is written to stderr.
    """
    for source, target in zip(paths[::2], paths[1::2], strict=True):
        try:
            convert(source, target)
        except (pickle.UnpicklingError, ValueError, RuntimeError, EOFError) as error:
            told = " ".join(str(error).split())
            sys.stderr.write(f"\n{source}: {told}\n")
            return 3
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
