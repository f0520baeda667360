"""`python -m examples.fewer_experts DIR`: train a mixture, leave fewer moe_experts, score each.

A Mixtral of half a million weights learns the bytes of this project's documents. Its moe_experts
are measured on stretches of a document that it learned from, and then six or four of eight are left
in each layer by every method. Of each result the bytes on the disk, the tokens a second of one
forward pass, and the loss on a document that none of this ever saw are printed, the loss with an
interval of its difference from the whole mixture's on the same stretches.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EXPERTS, CHOSEN, UPDATES, RATE, BATCH, LENGTH = 8, 2, 600, 3e-3, 8, 96
SEEN, UNSEEN = ("concepts.md", "methods.md", "catalog.md", "operations.md"), "evaluation.md"
CALIBRATION, TEXTS = "recipes.md", 48
STEPS: tuple[dict[str, Any], ...] = (
    *({"keep": keep, "method": method} for keep in (6, 4) for method in ("reap", "frequency")),
    *({"keep": keep, "method": method} for keep in (6, 4) for method in ("hc_smoe", "m_smoe")),
    {"keep": 6, "method": "m_smoe", "neurons": "as_they_are"},
    {"keep": 4, "method": "m_smoe", "neurons": "as_they_are"},
    {"keep": 4, "method": "hc_smoe", "neurons": "matched"},
    {"keep": 4, "method": "hc_smoe", "router": "mean"},
    {"keep": 4, "method": "hc_smoe", "router": "all"},
    *(
        {"keep": keep, "method": method, "router": "calibrate"}
        for keep in (6, 4)
        for method in ("hc_smoe", "m_smoe")
    ),
    {"keep": 4, "method": "reap", "experts_per_token": 1},
)


def main() -> None:
    """Train, measure, leave fewer and print one table."""
    parser = argparse.ArgumentParser(prog="python -m examples.fewer_experts")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    whole = folder / "whole"
    train(whole)
    chosen = stretches(CALIBRATION)[:TEXTS]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in chosen)
    (folder / "texts.jsonl").write_text(lines, encoding="utf-8")
    measured = folder / "saliency.safetensors"
    words = ["moe-saliency", whole, folder / "texts.jsonl", "--out", measured, "--threads", "1"]
    command([*words, "--picture", folder / "saliency.png"])
    before = losses(whole)
    print("| moe_experts | MB | tokens a second | loss, nats a byte | more than whole (95 %) |")
    print("|---|---:|---:|---:|---:|")
    row(f"{EXPERTS}, {CHOSEN} a token", whole, before)
    for step in STEPS:
        words = [f"{step['keep']} by {step['method']}"]
        words += [f"`{key}: {step[key]}`" for key in step if key not in ("keep", "method")]
        row(", ".join(words), fewer(whole, measured, step, folder), before)


def command(words: list[Any]) -> None:
    """Run a command of `ronghe`."""
    program = [sys.executable, "-m", "orchestration.commands.cli"]
    subprocess.run([*program, *map(str, words)], check=True, cwd=ROOT)


def fewer(whole: Path, measured: Path, step: dict[str, Any], folder: Path) -> Path:
    """Merge one `moe:` step and return the folder that it wrote."""
    from merge_ops import load_recipe, merge, open_checkpoint, plan_merge

    name = "-".join(map(str, step.values()))
    path = folder / f"{name}.yaml"
    table = {**step, "statistics": str(measured)}
    if step.get("router") == "calibrate":
        table["texts"] = str(folder / "texts.jsonl")
    path.write_text(json.dumps({"moe": table, "models": [{"model": str(whole)}]}))
    if "texts" in table:
        command(["merge", path, folder / name, "--threads", "1", "--no-verify", "--force"])
        return folder / name
    recipe = load_recipe(path).result
    models = {each: open_checkpoint(each) for each in recipe.referenced_models}
    merge(plan_merge(recipe, models), folder / name)
    return folder / name


def row(words: str, folder: Path, before: list[float]) -> None:
    """Print a row of the table."""
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    after = losses(folder)
    mean, low, high = difference(after, before)
    told = f"{mean:+.3f} ({low:+.3f} to {high:+.3f})" if after != before else ""
    loss = statistics.fmean(after)
    print(
        f"| {words} | {size / 1e6:.2f} | {speed(folder):,.0f} | {loss:.3f} | {told} |", flush=True
    )


def train(folder: Path) -> None:
    """Write a mixture that learned the bytes of the documents, and its tokenizer."""
    import torch
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = MixtralConfig(
        vocab_size=256, hidden_size=64, intermediate_size=96, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=LENGTH,
        num_local_experts=EXPERTS, num_experts_per_tok=CHOSEN, output_router_logits=True,
        router_aux_loss_coef=0.001, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model: Any = MixtralForCausalLM(config)
    bytes_of = tokenizer()
    texts = "\n".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in SEEN)
    fit(model, bytes_of.encode(texts).ids, UPDATES, RATE)
    model.config.output_router_logits = False
    model.save_pretrained(folder)
    bytes_of.save(str(folder / "tokenizer.json"))
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": LENGTH}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))


def fit(model: Any, tokens: list[int], updates: int, rate: float) -> None:
    """Train a causal model on stretches of LENGTH tokens, BATCH at a time."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    text = torch.tensor(tokens)
    for _ in range(updates):
        starts = torch.randint(len(text) - LENGTH, (BATCH,)).tolist()
        batch = torch.stack([text[start : start + LENGTH] for start in starts])
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def losses(folder: Path) -> list[float]:
    """Return the loss of each stretch of the unseen document, in nats a byte."""
    import torch

    model, bytes_of = _loaded(folder), tokenizer()
    found: list[float] = []
    with torch.inference_mode():
        for text in stretches(UNSEEN):
            tokens = torch.tensor([bytes_of.encode(text).ids[:LENGTH]])
            found.append(float(model(input_ids=tokens, labels=tokens).loss))
    return found


def speed(folder: Path, rounds: int = 7) -> float:
    """Return tokens a second of one forward pass over 16 stretches, the median of some rounds."""
    import torch

    model = _loaded(folder)
    batch = torch.arange(16 * LENGTH).reshape(16, LENGTH) % 251
    seconds: list[float] = []
    with torch.inference_mode():
        for _ in range(rounds):
            started = time.process_time()
            model(input_ids=batch)
            seconds.append(time.process_time() - started)
    return batch.numel() / statistics.median(seconds)


def difference(after: list[float], before: list[float]) -> tuple[float, float, float]:
    """Return the mean of paired differences and its 95 % interval."""
    pairs = [one - other for one, other in zip(after, before, strict=True)]
    mean = statistics.fmean(pairs)
    half = 1.96 * statistics.stdev(pairs) / math.sqrt(len(pairs))
    return mean, mean - half, mean + half


def _loaded(folder: Path) -> Any:
    import torch
    from transformers import MixtralForCausalLM

    torch.set_num_threads(1)
    return MixtralForCausalLM.from_pretrained(folder).eval()  # pyright: ignore


def tokenizer() -> Any:
    """Return a tokenizer with a token for each byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={each: at for at, each in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def stretches(name: str) -> list[str]:
    """Return the stretches of a document, of at most LENGTH bytes each."""
    text = (ROOT / "docs" / name).read_text(encoding="utf-8").encode()
    parts = [text[at : at + LENGTH].decode(errors="ignore") for at in range(0, len(text), LENGTH)]
    return [part for part in parts if len(part.encode()) > LENGTH // 2]


if __name__ == "__main__":
    main()
