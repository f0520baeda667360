"""A training run at a constant rate: a Qwen2 of a hundred thousand weights learns characters.

Each step is a checkpoint of its own, `UPDATES` updates behind the one before. A run that stopped
goes on where it was, and gives the bits that it would have given without the stop.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from examples.quickstart.recipe import Shape
from examples.training_run.catalog import SEEN, UPDATES, text_of

if TYPE_CHECKING:
    from torch import Tensor

RATE, BATCH, LENGTH = 3e-3, 8, 96
SHAPE = Shape(hidden=64, intermediate=128, layers=2, heads=4, kv_heads=2, max_length=128)
PREFIX = "checkpoint-"


def steps_in(folder: Path) -> list[int]:
    """Return the numbers of the steps that FOLDER/run has, rising."""
    run = folder / "run"
    names = [each.name for each in run.iterdir()] if run.is_dir() else []
    return sorted(int(name.removeprefix(PREFIX)) for name in names if name.startswith(PREFIX))


def train(folder: Path, steps: int, updates: int = UPDATES, shape: Shape = SHAPE) -> None:
    """Train until FOLDER/run has so many steps.

    Raises ValueError where it has more of them, or what the optimizer knew at the newest is gone.
    """
    import torch
    from transformers import Qwen2ForCausalLM

    from examples.quickstart.tokenizer import build_tokenizer
    from examples.quickstart.training import new_model
    from merge_ops.kernels.cores import torch_threads

    there = steps_in(folder)
    if len(there) > steps:
        raise ValueError(f"{folder / 'run'} has {len(there)} steps, which are more than {steps}")
    done = there[-1] if there else 0
    tokenizer: Any = build_tokenizer([], shape.max_length)
    model: Any = new_model(shape, tokenizer, seed=0)
    if there:
        model = Qwen2ForCausalLM.from_pretrained(folder / "run" / f"{PREFIX}{done}")
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    if there:
        _restore(optimizer, model, _state(folder, done))
    text = torch.tensor(tokenizer.backend_tokenizer.encode(text_of(SEEN)).ids)
    with torch_threads(1):
        for update in range(done + 1, steps * updates + 1):
            # Drawn by the update's number, so that a run that goes on draws what it would have.
            draw = torch.Generator().manual_seed(update)
            starts = torch.randint(len(text) - LENGTH, (BATCH,), generator=draw).tolist()
            batch = torch.stack([text[start : start + LENGTH] for start in starts])
            loss = model(input_ids=batch, labels=batch).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if update % updates == 0:
                _save(folder, update, model, tokenizer, optimizer)


def _save(folder: Path, update: int, model: Any, tokenizer: Any, optimizer: Any) -> None:
    """A step that is whole when it is there, and what its optimizer knew beside the run."""
    from safetensors.torch import save_file

    state: dict[str, Tensor] = {
        f"{number}.{key}": value
        for number, each in enumerate(model.parameters())
        for key, value in optimizer.state[each].items()
    }
    optimizers = folder / "optimizer"
    optimizers.mkdir(parents=True, exist_ok=True)
    save_file(state, _state(folder, update))
    writing = folder / "run" / "unfinished"
    model.save_pretrained(writing)
    tokenizer.save_pretrained(writing)
    writing.rename(folder / "run" / f"{PREFIX}{update}")
    for old in optimizers.iterdir():
        if old != _state(folder, update):
            old.unlink()


def _state(folder: Path, update: int) -> Path:
    return folder / "optimizer" / f"{update}.safetensors"


def _restore(optimizer: Any, model: Any, file: Path) -> None:
    from safetensors.torch import load_file

    if not file.is_file():
        raise ValueError(f"{file} is gone: the run cannot go on; begin one in another folder")
    state = load_file(file)
    for number, each in enumerate(model.parameters()):
        keys = ("step", "exp_avg", "exp_avg_sq")
        optimizer.state[each] = {key: state[f"{number}.{key}"] for key in keys}
