"""Trains the quickstart models: `python -m examples.quickstart [--update EXPERT] [--force]`."""

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console

from examples.quickstart.train import EXPERTS, THREADS, prepare


def main() -> None:
    """Read the options, train what is missing, and say where everything is."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.quickstart",
        description="Train a tiny base model and three experts (about a minute on two cores).",
    )
    parser.add_argument("--root", type=Path, default=Path(".ronghe"), help="the work folder")
    parser.add_argument(
        "--update", choices=EXPERTS, help="train this expert again, as an upstream update"
    )
    parser.add_argument("--force", action="store_true", help="train all, also what is there")
    parser.add_argument(
        "--threads",
        type=int,
        default=THREADS,
        help="CPU threads for each model; they decide the last bits of the weights",
    )
    options = parser.parse_args()
    if options.threads < 1:
        parser.error(f"argument --threads: {options.threads} is given; it must be 1 or more")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    console = Console()
    try:
        trained = prepare(
            options.root,
            options.update,
            force=options.force,
            threads=options.threads,
            console=console,
        )
    except KeyboardInterrupt:
        sys.exit("interrupted; models that were not finished were not saved, run this again")
    except (RuntimeError, OSError, ModuleNotFoundError) as error:
        sys.exit(f"error: {error}")
    if not trained:
        console.print("all models are there already (--force trains them again)")
    for model in trained:
        change = f", update {model.revision}" if model.revision else ""
        console.print(f"{model.model}{change}: trained in {model.seconds:.0f} s")
    console.print(f"models: {options.root / 'upstream'}, items: {options.root / 'suites'}")


if __name__ == "__main__":
    main()
