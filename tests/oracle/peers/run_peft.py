"""Has PEFT make adapters, and merge adapters into their bases, in the oracle environment.

    .venv-oracle/bin/python tests/oracle/peers/run_peft.py CASES.json OUTCOMES.json

CASES.json is a list of {"name", "base", "adapter", "out", "config", "loader", "rows"}. A loader is
a class as `module:name`, or null for AutoModelForCausalLM. With a config (`peft_type` and the
fields of its class) an adapter with random values is made and saved first; then it is merged into
its base and the model is saved, in float32. With `rows` the base's embeddings are lengthened to so
many first. OUTCOMES.json maps each name to null, or to the text of the error PEFT stopped with.
"""

import importlib
import json
import sys
from pathlib import Path

import torch
from peft import PeftModel, get_peft_config, get_peft_model

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))


def load(case: dict[str, object]) -> torch.nn.Module:
    """The base model, in float32, with as many rows for tokens as asked for."""
    module, name = str(case["loader"] or "transformers:AutoModelForCausalLM").split(":")
    found = getattr(importlib.import_module(module), name)
    model = found.from_pretrained(case["base"], dtype=torch.float32)
    if case["rows"]:
        model.resize_token_embeddings(case["rows"])
    return model


def make(case: dict[str, object]) -> None:
    """Saves an adapter of which every trainable value is drawn anew."""
    model = get_peft_model(load(case), get_peft_config(case["config"]))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(parameter + 0.1 * noise)
    model.save_pretrained(case["adapter"])


def run_case(case: dict[str, object]) -> str | None:
    """One case; the error's text if it fails."""
    try:
        if case["config"]:
            make(case)
        merged = PeftModel.from_pretrained(load(case), case["adapter"]).merge_and_unload()
        merged.save_pretrained(case["out"])
    except Exception as error:  # the text is the outcome; the caller says whether it is expected
        return f"{type(error).__name__}: {error}"
    return None


def main(cases_file: str, outcomes_file: str) -> None:
    """Runs every case and writes what came of it."""
    torch.set_num_threads(1)
    cases = json.loads(Path(cases_file).read_text(encoding="utf-8"))
    outcomes = {case["name"]: run_case(case) for case in cases}
    Path(outcomes_file).write_text(json.dumps(outcomes, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
