"""Side by side with mergekit: the same files, whole processes, one run.

    make bench
    python -m benchmarks.vs_mergekit --work /big/disk/bench --methods all --experts 2,4,8 \\
        --sizes 0.4B,1.5B --repeats 5 --json results.json

Makes bfloat16 checkpoints (a base and experts; by default three of 0.83 GB), then merges them with
`ronghe merge` and with `mergekit-yaml` by turns (A B A B …), after one warm-up of each, so that all
inputs are in the page cache for both, where it is large enough. Each merge is one whole process,
start-up included. Measured per process: wall-clock seconds, user + system seconds, peak resident
memory as the kernel reports it to the parent (ru_maxrss), and the highest anonymous resident memory
seen by sampling: ru_maxrss counts mapped input files, which mergekit uses and which the kernel may
take back, so the second figure is the one that is kinder to it. mergekit runs with its default
options on the CPU; `--also "--async-write"` adds a column with other ones. `copy` is a process that
only reads all inputs and writes as many bytes as a merge does: the least that a merge could take.

Ronghe hashes inputs that it has not met, and remembers the hashes; as a rule that falls into the
warm-up. `--first-time` adds a row for merges that remember nothing, and hash each time.

Methods that take a fixed number of models (slerp, nuslerp, nearswap, arcee_fusion) are measured
once for each size. A program that fails, for want of memory say, is reported as failed.
"""

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.rigs.contest import (
    by_turns,
    copy,
    difference,
    figures,
    markdown,
    mergekit,
    models,
    need_mergekit,
    parser_for,
    python,
    ratio,
    ronghe,
    save,
    say,
    shape_of,
    weights_of,
    work_folder,
)
from benchmarks.rigs.processes import Run, middle
from benchmarks.rigs.recipes import EXPERTS_TAKEN, METHODS, RANDOM, experts_of, recipe
from benchmarks.rigs.shapes import SHAPES

COLUMNS = (
    "method", "program", "wall s", "CPU s", "peak MiB", "anonymous MiB", "times faster",
    "peak, times smaller", "anonymous, times smaller",
)  # fmt: skip
KNOWN = "import json; from merge_ops.methods import METHODS; print(json.dumps(sorted(METHODS)))"


def table(results: Mapping[str, Mapping[str, list[Run]]], copies: Sequence[Run]) -> str:
    """Medians and ratios as a Markdown table; a ratio above 1 is in Ronghe's favour."""
    rows: list[list[str]] = []
    for method, runs in results.items():
        ours = middle(runs["ronghe"])
        for name, measured in runs.items():
            told = ["", "", ""]
            if measured and not name.startswith("ronghe"):
                m = middle(measured)
                told = [
                    ratio(m.wall, ours.wall),
                    ratio(m.peak, ours.peak),
                    ratio(m.anonymous, ours.anonymous),
                ]
            rows.append([method, name, *figures(measured), *told])
    rows.append(["(copy)", "read and write", *figures(copies), "", "", ""])
    return markdown(COLUMNS, rows, left=2)


def contest(
    method: str, folders: Sequence[Path], outputs: Path, arguments: argparse.Namespace
) -> tuple[dict[str, list[Run]], dict[str, float] | None]:
    """One method by turns; with it how far the results are apart, where chance plays no part."""
    base, *experts = folders
    outputs.mkdir(parents=True, exist_ok=True)
    config = outputs / f"{method}.yaml"
    config.write_text(recipe(method, base, experts), encoding="utf-8")
    peers = [mergekit(arguments), *(mergekit(arguments, more) for more in arguments.also)]
    own = [ronghe(arguments)]
    if arguments.first_time:
        own.append(replace(own[0], name="ronghe, first time", forgets=True))
    tasks = {each.name: partial(each.merge, config, outputs / each.name) for each in (*own, *peers)}
    runs = by_turns(tasks, arguments.repeats, method)
    apart = None
    if method not in RANDOM and runs["mergekit"]:
        apart = difference(outputs / "mergekit", outputs / "ronghe")
        say(
            f"  {method}: largest difference {apart['largest']:.1e} of a tensor's largest value, "
            f"{apart['apart']:.2%} of elements more than 1 ulp apart"
        )
    shutil.rmtree(outputs)
    return runs, apart


def benchmark(work: Path, arguments: argparse.Namespace) -> None:
    """Every size, number of experts and method, in the work folder."""
    records: list[dict[str, object]] = []
    copies: list[dict[str, object]] = []
    for size in arguments.sizes:
        done: set[str] = set()  # methods that take a fixed number of models
        for offered in arguments.experts:
            folders = models(work, size, offered, arguments.layers)
            results: dict[str, dict[str, list[Run]]] = {}
            for method in arguments.methods:
                taken = experts_of(method, offered)
                if taken is None or method in done:
                    continue
                done |= {method} & set(EXPERTS_TAKEN)
                say(f"{size}, {taken} expert(s), {method}")
                runs, apart = contest(method, folders[: taken + 1], work / "merged", arguments)
                results[method] = runs
                record = {"size": size, "experts": taken, "method": method, "difference": apart}
                records.append({**record, "runs": runs})
            weights = weights_of(folders)
            once = partial(copy, weights, work / "copy")
            copied = by_turns({"copy": once}, arguments.repeats, "read and write")["copy"]
            copies.append({"size": size, "experts": offered, "runs": copied})
            print(f"\n{table(results, copied)}\n")
            print(
                f"{offered + 1} checkpoints of {weights[0].stat().st_size / 1e9:.2f} GB, bfloat16; "
                f"medians of {arguments.repeats} whole processes by turns",
                flush=True,
            )
    save(arguments.json, {"merges": records, "copies": copies})


def parse() -> argparse.Namespace:
    """The command line."""
    parser = parser_for(__doc__)
    parser.add_argument(
        "--methods", default="linear,task_arithmetic,ties", help=f"all, or of {', '.join(METHODS)}"
    )
    parser.add_argument("--experts", default="2", help="how many; several numbers by commas")
    parser.add_argument("--sizes", default="0.4B", help=f"some of {', '.join(SHAPES)}")
    parser.add_argument("--also", action="append", default=[], help="more mergekit options")
    parser.add_argument("--first-time", action="store_true", help="also with inputs to be hashed")
    arguments = parser.parse_args()
    wanted = METHODS if arguments.methods == "all" else tuple(arguments.methods.split(","))
    arguments.sizes = arguments.sizes.split(",")
    for given, known in ((wanted, METHODS), (arguments.sizes, SHAPES)):
        if unknown := [each for each in given if each not in known]:
            parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    try:
        arguments.experts = [int(number) for number in arguments.experts.split(",")]
    except ValueError:
        parser.error(f"--experts is {arguments.experts!r}; give numbers such as 2,4,8")
    need_mergekit(parser, arguments)
    registered = json.loads(python("-c", KNOWN))
    if missing := [method for method in wanted if method not in registered]:
        say(f"left out, for ronghe has no such method: {', '.join(missing)}")
    arguments.methods = [method for method in wanted if method in registered]
    return arguments


def main() -> None:
    """The command line."""
    arguments = parse()
    models_kept = max(arguments.experts) + 1
    outputs = 3 + arguments.first_time + len(arguments.also)
    kept = sum(models_kept * shape_of(s, arguments.layers).nbytes for s in arguments.sizes)
    written = outputs * max(shape_of(s, arguments.layers).nbytes for s in arguments.sizes)
    with work_folder(arguments, 1.05 * (kept + written)) as work:
        benchmark(work, arguments)


if __name__ == "__main__":
    main()
