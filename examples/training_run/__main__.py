"""`python -m examples.training_run DIR`: train a run, average windows, and score all of them.

A Llama of a hundred thousand weights learns the bytes of this project's documents at a constant
rate. Its loss on documents that it never saw is measured at each of the last six steps, and of the
windows over them, all made by one `ronghe merge`. It takes some minutes on two cores.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
STEPS, UPDATES, RATE, BATCH, LENGTH = 12, 40, 3e-3, 8, 96
SEEN, UNSEEN = ("concepts.md", "methods.md", "catalog.md", "operations.md"), ("evaluation.md",)
SCHEDULES = ("uniform", "linear", "one_minus_sqrt", "cosine", "ema")
RECIPE = """\
window: {{run: {run}, beta: 0.8}}
sweep: {{last: [3, 6], weights: [{schedules}]}}
"""


def main() -> None:
    """Train, merge and print one table."""
    parser = argparse.ArgumentParser(prog="python -m examples.training_run")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    run = folder / "run"
    train(run)
    recipe = folder / "windows.yaml"
    recipe.write_text(RECIPE.format(run=run, schedules=", ".join(SCHEDULES)))
    command = [sys.executable, "-m", "orchestration.commands.cli", "merge"]
    subprocess.run([*command, str(recipe), str(folder / "windows")], check=True, cwd=ROOT)
    steps = sorted(run.iterdir(), key=lambda path: int(path.name.removeprefix("checkpoint-")))
    windows = sorted((folder / "windows").iterdir())
    newest = losses(steps[-1])
    for path in (*steps[-6:], *windows):
        mean, low, high = difference(losses(path), newest)
        total = statistics.fmean(losses(path))
        print(f"{path.name:32} {total:.3f}  {mean:+.3f} ({low:+.3f} to {high:+.3f})")


def train(run: Path) -> None:
    """Write twelve checkpoints of a run at a constant rate, `UPDATES` updates apart."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=LENGTH,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    text = _bytes(SEEN)
    for update in range(1, STEPS * UPDATES + 1):
        starts = torch.randint(len(text) - LENGTH, (BATCH,)).tolist()
        batch = torch.stack([text[start : start + LENGTH] for start in starts])
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if update % UPDATES == 0:
            model.save_pretrained(run / f"checkpoint-{update}")


def losses(folder: Path) -> list[float]:
    """Return the loss of each stretch of the unseen text, in nats a byte."""
    import torch
    from transformers import LlamaForCausalLM

    model: Any = LlamaForCausalLM.from_pretrained(folder)
    text = _bytes(UNSEEN)
    stretches = text[: len(text) // LENGTH * LENGTH].reshape(-1, LENGTH)
    with torch.no_grad():
        return [float(model(input_ids=each[None], labels=each[None]).loss) for each in stretches]


def difference(these: list[float], those: list[float]) -> tuple[float, float, float]:
    """Return the mean difference on the same stretches, and its normal 95 % interval."""
    each = [one - other for one, other in zip(these, those, strict=True)]
    mean = statistics.fmean(each)
    margin = 1.96 * statistics.stdev(each) / math.sqrt(len(each))
    return mean, mean - margin, mean + margin


def _bytes(names: tuple[str, ...]) -> Any:
    import torch

    data = b"".join((ROOT / "docs" / name).read_bytes() for name in names)
    return torch.tensor(list(data))


if __name__ == "__main__":
    main()
