"""How near elementwise merges come to plain I/O: reading the inputs and writing the output.

    python -m benchmarks.vs_copy --work /big/disk/bench --repeats 5 --json results.json

`copy` is a process that reads every weight file with plain reads and writes as many bytes as a
merge does; it computes nothing. Each merge reads and writes the same bytes. All run by turns, as
whole processes, after one warm-up each. The same is done with checkpoints of 1 MB, which shows what
starting up takes; the rate after start-up is bytes read and written by the seconds beyond that, and
the share is that rate as a part of the copy's. The inputs should fit in the page cache; hashing
them, which the first merge of new files does, falls into the warm-up.
"""

import argparse
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.rigs.contest import (
    by_turns,
    copy,
    figures,
    markdown,
    models,
    parser_for,
    ratio,
    ronghe,
    save,
    shape_of,
    weights_of,
    work_folder,
)
from benchmarks.rigs.processes import Run, middle
from benchmarks.rigs.recipes import METHODS, recipe
from benchmarks.rigs.shapes import SHAPES

COLUMNS = (
    "what", "wall s", "CPU s", "peak MiB", "anonymous MiB", "start-up s", "MB/s after it",
    "share of copy",
)  # fmt: skip


def contest(
    folders: Sequence[Path], work: Path, arguments: argparse.Namespace, label: str
) -> dict[str, list[Run]]:
    """The copy and every method by turns, on these checkpoints."""
    base, *experts = folders
    own, merged = ronghe(arguments), work / "merged"
    merged.mkdir(exist_ok=True)
    tasks = {"copy": partial(copy, weights_of(folders), work / "copy")}
    for method in arguments.methods:
        config = merged / f"{method}.yaml"
        config.write_text(recipe(method, base, experts), encoding="utf-8")
        tasks[method] = partial(own.merge, config, merged / "out")
    runs = by_turns(tasks, arguments.repeats, label)
    shutil.rmtree(merged)
    return runs


def table(
    large: Mapping[str, list[Run]], small: Mapping[str, list[Run]], nbytes: int
) -> tuple[str, dict[str, dict[str, float]]]:
    """The table, and the medians it is made of."""
    told: dict[str, dict[str, float]] = {}
    rows: list[list[str]] = []
    for name in [name for name in large if large[name] and small[name]]:
        start = middle(small[name]).wall
        seconds = middle(large[name]).wall - start
        rate = nbytes / 1e6 / seconds if seconds > 0 else 0.0
        told[name] = {"start_up": start, "after": seconds, "rate": rate}
        share = ratio(rate, told["copy"]["rate"], digits=2)
        rate_told = f"{rate:.0f}" if rate else "–"
        rows.append([name, *figures(large[name]), f"{start:.2f}", rate_told, share])
    return markdown(COLUMNS, rows), told


def benchmark(work: Path, arguments: argparse.Namespace) -> None:
    """The contest on the size asked for and on the smallest."""
    tiny = models(work, "tiny", arguments.experts)
    folders = models(work, arguments.size, arguments.experts, arguments.layers)
    small = contest(tiny, work, arguments, "start-up")
    large = contest(folders, work, arguments, arguments.size)
    sizes = [path.stat().st_size for path in weights_of(folders)]
    text, medians = table(large, small, sum(sizes) + sizes[0])
    print(f"\n{text}\n")
    print(
        f"read {sum(sizes) / 1e9:.2f} GB, wrote {sizes[0] / 1e9:.2f} GB; "
        f"medians of {arguments.repeats} whole processes by turns"
    )
    save(arguments.json, {"size": arguments.size, "experts": arguments.experts, "medians": medians,
                          "runs": large, "start_up": small})  # fmt: skip


def main() -> None:
    """The command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--methods", default="linear,task_arithmetic")
    parser.add_argument("--experts", type=int, default=2)
    parser.add_argument("--size", choices=SHAPES, default="0.4B")
    arguments = parser.parse_args()
    arguments.methods = arguments.methods.split(",")
    if unknown := set(arguments.methods) - set(METHODS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(METHODS)}")
    nbytes = shape_of(arguments.size, arguments.layers).nbytes
    with work_folder(arguments, 1.05 * nbytes * (arguments.experts + 2) + 20e6) as work:
        benchmark(work, arguments)


if __name__ == "__main__":
    main()
