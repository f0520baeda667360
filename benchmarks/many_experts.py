"""Memory by the number of experts: 72 of them in one ties merge, beside 8.

    python -m benchmarks.many_experts --work /big/disk/bench --json results.json

Experts have 88 M parameters (0.18 GB in bfloat16). To save disk only eight of them have files of
their own; the others are hard links to those under other names. The merge does not know: it opens,
reads and computes every expert. What the links spare is page cache, so times flatter a machine
whose memory would not hold 72 files; `--distinct 72` makes them all (13 GB).

Holds, or not: peak resident memory below 1 GiB, and within 15 % of that of 8 experts. With
`--with-mergekit` mergekit merges the same files by turns; it may need more memory than there is.
"""

import argparse
import shutil
import sys
from functools import partial
from pathlib import Path

from benchmarks.rigs.contest import (
    Task,
    by_turns,
    figures,
    markdown,
    mergekit,
    models,
    need_mergekit,
    parser_for,
    ratio,
    ronghe,
    save,
    shape_of,
    weights_of,
    work_folder,
)
from benchmarks.rigs.processes import middle
from benchmarks.rigs.recipes import recipe
from benchmarks.rigs.shapes import SHAPES

LIMIT_MIB, GROWTH = 1024, 1.15
COLUMNS = (
    "program", "experts", "wall s", "CPU s", "peak MiB", "anonymous MiB", "peak by that of fewest",
    "ms an expert",
)  # fmt: skip


def benchmark(work: Path, arguments: argparse.Namespace) -> bool:
    """Fewest and most experts by turns; whether the promise holds."""
    counts: tuple[int, int] = (arguments.fewest, arguments.most)
    base, *experts = models(
        work, arguments.size, arguments.most, arguments.layers, arguments.distinct
    )
    for number, expert in enumerate(experts):  # equal folders are one model, and refused
        (expert / "README.md").write_text(f"# Expert {number}\n", encoding="utf-8")
    outputs = work / "merged"
    outputs.mkdir(exist_ok=True)
    programs = [ronghe(arguments)] + ([mergekit(arguments)] if arguments.with_mergekit else [])
    tasks: dict[str, Task] = {}
    for count in counts:
        config = outputs / f"{count}.yaml"
        config.write_text(recipe(arguments.method, base, experts[:count]), encoding="utf-8")
        for program in programs:
            out = outputs / program.name
            tasks[f"{program.name} {count}"] = partial(program.merge, config, out)
    runs = by_turns(tasks, arguments.repeats, arguments.method)
    shutil.rmtree(outputs)
    rows: list[list[str]] = []
    for program in programs:
        fewest = runs[f"{program.name} {counts[0]}"]
        for count in counts:
            measured = runs[f"{program.name} {count}"]
            row = [program.name, str(count), *figures(measured)]
            grown = each = ""
            if measured and fewest:
                grown = ratio(middle(measured).peak, middle(fewest).peak, digits=2)
                each = f"{1000 * middle(measured).wall / count:.0f}"
            rows.append([*row, grown, each])
    print(f"\n{markdown(COLUMNS, rows)}\n")
    few, many = (runs[f"ronghe {count}"] for count in counts)
    if not many:
        sys.exit(f"the merge of {counts[1]} experts failed")
    peak = middle(many).peak
    grown = peak / middle(few).peak
    holds = peak < LIMIT_MIB and grown <= GROWTH
    megabytes = weights_of([base])[0].stat().st_size / 1e6
    print(
        f"{arguments.method}, experts of {megabytes:.1f} MB, {arguments.distinct} distinct; "
        f"medians of {arguments.repeats} whole processes by turns\n"
        f"{'holds' if holds else 'DOES NOT HOLD'}: peak of {counts[1]} experts {peak:.0f} MiB "
        f"(below {LIMIT_MIB}), {grown:.2f} times that of {counts[0]} (at most {GROWTH})"
    )
    save(arguments.json, {"method": arguments.method, "size": arguments.size, "experts": counts,
                          "distinct": arguments.distinct, "peak_mib": peak, "growth": grown,
                          "holds": holds, "runs": runs})  # fmt: skip
    return holds


def main() -> None:
    """The command line; exit status 1 where the promise does not hold."""
    parser = parser_for(__doc__)
    parser.add_argument("--method", default="ties")
    parser.add_argument("--most", type=int, default=72, help="experts of the large merge")
    parser.add_argument("--fewest", type=int, default=8, help="experts of the small merge")
    parser.add_argument("--distinct", type=int, default=8, help="experts with files of their own")
    parser.add_argument("--size", choices=SHAPES, default="88M")
    parser.add_argument("--with-mergekit", action="store_true")
    arguments = parser.parse_args()
    if arguments.with_mergekit:
        need_mergekit(parser, arguments)
    arguments.distinct = min(arguments.distinct, arguments.most)
    nbytes = shape_of(arguments.size, arguments.layers).nbytes
    with work_folder(arguments, 1.05 * nbytes * (arguments.distinct + 3) + 20e6) as work:
        if not benchmark(work, arguments):
            sys.exit(1)


if __name__ == "__main__":
    main()
