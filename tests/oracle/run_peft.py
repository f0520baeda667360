"""Has PEFT make adapters, and merge adapters into their bases, in the oracle environment.

    .venv-oracle/bin/python tests/oracle/run_peft.py CASES.json OUTCOMES.json

CASES.json is a list of {"name", "base", "adapter", "out", "config", "loader"}. A loader is a class
as `module:name`, or null for AutoModelForCausalLM. With a config (`peft_type` and
the fields of its class) an adapter with random values is made and saved first; then the adapter is
merged into its base and the model is saved, in float32. OUTCOMES.json maps each name to null, or to
the text of the error PEFT stopped with.
"""

import importlib
import json
import sys
from pathlib import Path

import torch
from peft import PeftModel, get_peft_config, get_peft_model

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def load(base: str, loader: str | None) -> torch.nn.Module:
    """The base model, in float32."""
    module, name = (loader or "transformers:AutoModelForCausalLM").split(":")
    found = getattr(importlib.import_module(module), name)
    return found.from_pretrained(base, dtype=torch.float32)


def make(base: str, adapter: str, config: dict[str, object], loader: str | None) -> None:
    """Saves an adapter of which every trainable value is drawn anew."""
    model = get_peft_model(load(base, loader), get_peft_config(config))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(parameter + 0.1 * noise)
    model.save_pretrained(adapter)


def run_case(case: dict[str, object]) -> str | None:
    """One case; the error's text if it fails."""
    base, adapter, out = (str(case[key]) for key in ("base", "adapter", "out"))
    try:
        if case["config"]:
            make(base, adapter, case["config"], case["loader"])
        merged = PeftModel.from_pretrained(load(base, case["loader"]), adapter).merge_and_unload()
        merged.save_pretrained(out)
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
