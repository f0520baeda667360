"""A mixture of experts made from files: `ronghe merge` beside mergekit-moe, whole processes.

    python -m benchmarks.moe --work /big/disk/moe --size 0.4B --experts 4 --repeats 3

Makes a base and as many dense Llama-shaped experts in bfloat16 (0.4B: 0.83 GB each), and one
mergekit-moe file with two prompts an expert and `gate_mode: cheap_embed`, which reads embeddings
and runs no model. Both programs make a Mixtral of it by turns, after one unmeasured round, each
time in a process of its own, start-up included. Measured as in benchmarks/vs_mergekit.py; where a
program starts others, as we do for the tokenizer, `peak` is the largest of them and `anonymous`
the sum of all at one time.

`compare` tells how many of our tensors are mergekit's bit for bit; its fused ones are cut for that.
Only one result lies on the disk at a time unless `--compare` is given.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.rigs.contest import (
    RONGHE,
    Contestant,
    by_turns,
    figures,
    markdown,
    module,
    parser_for,
    ratio,
    save,
    say,
    shape_of,
    work_folder,
)
from benchmarks.rigs.processes import ROOT, Run, middle
from benchmarks.rigs.shapes import SHAPES, Shape, model_folder

COLUMNS = (
    "program", "wall s", "CPU s", "peak MiB", "anonymous MiB", "times faster",
    "peak, times smaller", "anonymous, times smaller",
)  # fmt: skip
PROMPTS = ("solve for x: {}", "the {} of herbs in spring")


def recipe(root: Path, experts: int) -> str:
    """A mergekit-moe file, which is JSON and so YAML."""
    listed = [
        {
            "source_model": str(model_folder(root, number)),
            "positive_prompts": [text.format(number * 7) for text in PROMPTS],
        }
        for number in range(1, experts + 1)
    ]
    base = str(model_folder(root, 0))
    told = {"base_model": base, "gate_mode": "cheap_embed", "dtype": "bfloat16"}
    return json.dumps({**told, "experts": listed}, indent=2)


def mixture_bytes(shape: Shape, experts: int) -> int:
    """Bytes of the mixture: the base, and the MLPs of all experts but one."""
    mlps = 3 * shape.layers * shape.hidden * shape.intermediate
    return shape.nbytes + 2 * (experts - 1) * mlps


def table(runs: Mapping[str, list[Run]]) -> str:
    """Medians and ratios as a Markdown table; a ratio above 1 is in Ronghe's favour."""
    ours = middle(runs["ronghe"])
    rows: list[list[str]] = []
    for name, measured in runs.items():
        told = ["", "", ""]
        if measured and name != "ronghe":
            m = middle(measured)
            told = [
                ratio(m.wall, ours.wall),
                ratio(m.peak, ours.peak),
                ratio(m.anonymous, ours.anonymous),
            ]
        rows.append([name, *figures(measured), *told])
    return markdown(COLUMNS, rows)


def benchmark(work: Path, arguments: argparse.Namespace) -> None:
    """The mixture, made by both in turns."""
    root = work / f"{arguments.size}-llama"
    options = ["--layers", str(arguments.layers)] if arguments.layers else []
    say(f"checkpoints in {root}")
    where = ["make", str(root), "--size", arguments.size, "--experts", str(arguments.experts)]
    module("benchmarks.rigs.moe_work", *where, *options)
    config = work / "moe.yaml"
    config.write_text(recipe(root, arguments.experts), encoding="utf-8")
    contestants = (
        Contestant("ronghe", RONGHE),
        Contestant("mergekit-moe", (str(arguments.mergekit),)),
    )
    tasks: dict[str, Callable[[], Run]] = {}
    for each in contestants:
        tasks[each.name] = _once(each, config, work / each.name, arguments.compare)
    runs = by_turns(tasks, arguments.repeats, "moe")
    found = None
    if arguments.compare and runs["mergekit-moe"]:
        where = [str(work / each.name) for each in contestants[::-1]]
        found = json.loads(module("benchmarks.rigs.moe_work", "compare", *where))
        say(f"  {found}")
    shape = shape_of(arguments.size, arguments.layers)
    print(f"\n{table(runs)}\n")
    print(
        f"{arguments.experts} experts of {shape.nbytes / 1e9:.2f} GB become a Mixtral of"
        f" {mixture_bytes(shape, arguments.experts) / 1e9:.2f} GB, bfloat16; medians of"
        f" {arguments.repeats} whole processes by turns",
        flush=True,
    )
    save(arguments.json, {"runs": runs, "compared": found})


def _once(each: Contestant, config: Path, out: Path, keep: bool) -> Callable[[], Run]:
    def task() -> Run:
        try:
            return each.merge(config, out)
        finally:
            if not keep:
                shutil.rmtree(out, ignore_errors=True)

    return task


def main() -> None:
    """The command line."""
    parser = parser_for(__doc__)
    parser.set_defaults(mergekit=ROOT / ".venv-oracle/bin/mergekit-moe")
    parser.add_argument("--size", choices=SHAPES, default="0.4B")
    parser.add_argument("--experts", type=int, default=4)
    parser.add_argument("--compare", action="store_true", help="keep both results and compare")
    arguments = parser.parse_args()
    if not arguments.mergekit.exists():
        sys.exit(f"no mergekit-moe at {arguments.mergekit}; `make oracle` installs it")
    shape = replace(
        SHAPES[arguments.size], layers=arguments.layers or SHAPES[arguments.size].layers
    )
    needed = (arguments.experts + 1) * shape.nbytes
    needed += (1 + arguments.compare) * mixture_bytes(shape, arguments.experts)
    with work_folder(arguments, 1.05 * needed) as work:
        benchmark(work, arguments)


if __name__ == "__main__":
    main()
