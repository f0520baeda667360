"""A sweep of nine lambdas of task_arithmetic: one process of ours against nine of mergekit.

    python -m benchmarks.sweep --work /big/disk/bench --repeats 3 --json results.json

`ronghe merge` takes the sweep as one recipe and writes all coefficients from one read of the
inputs. mergekit, which has no sweeps, runs once for each; so does Ronghe in the third row, which
shows what the sweep is good for and what the programs are. Rows are by turns, after one warm-up;
of several processes times are added and the highest memory counts.

The bytes that a process reads are the kernel's count of read calls (rchar of /proc/PID/io). The
same sweep over checkpoints of 1 MB shows how many of them are Python's own; what is left, by the
bytes of all inputs, is how often an input byte is read by a merge of inputs that were met before.
Hashing new ones, in the warm-up here, reads them once more. mergekit maps its inputs, which this
does not count: there is no figure for it. Nine processes visit every byte at least nine times.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.rigs.contest import (
    Contestant,
    Task,
    by_turns,
    difference,
    figures,
    markdown,
    mergekit,
    models,
    need_mergekit,
    parser_for,
    ratio,
    ronghe,
    save,
    say,
    shape_of,
    weights_of,
    work_folder,
)
from benchmarks.rigs.processes import Run, added, middle
from benchmarks.rigs.recipes import recipe
from benchmarks.rigs.shapes import SHAPES

LAMBDAS = tuple(step / 10 for step in range(1, 10))
LAST = f"lambda={LAMBDAS[-1]}"
COLUMNS = (
    "program", "processes", "wall s", "CPU s", "peak MiB", "anonymous MiB", "times faster",
    "read MB", "reads of an input byte",
)  # fmt: skip


def one_by_one(contestant: Contestant, configs: Sequence[Path], out: Path) -> Run:
    """Every coefficient in a process of its own, into the same folder."""
    return added([contestant.merge(config, out) for config in configs])


def tasks_for(
    folders: Sequence[Path], outputs: Path, arguments: argparse.Namespace
) -> dict[str, Task]:
    """The three rows."""
    base, *experts = folders
    outputs.mkdir(parents=True, exist_ok=True)
    content = json.loads(recipe("task_arithmetic", base, experts))
    swept = outputs / "sweep.yaml"
    swept.write_text(json.dumps({**content, "sweep": {"lambda": LAMBDAS}}), encoding="utf-8")
    configs: list[Path] = []
    for value in LAMBDAS:
        configs.append(outputs / f"lambda-{value}.yaml")
        text = recipe("task_arithmetic", base, experts, **{"lambda": value})
        configs[-1].write_text(text, encoding="utf-8")
    own = ronghe(arguments)
    return {
        "ronghe, sweep": partial(own.merge, swept, outputs / "sweep"),
        "mergekit": partial(one_by_one, mergekit(arguments), configs, outputs / "mergekit"),
        "ronghe, one by one": partial(one_by_one, own, configs, outputs / "ronghe"),
    }


def benchmark(work: Path, arguments: argparse.Namespace) -> None:
    """The sweep over checkpoints of the size asked for, and over the smallest."""
    tiny = models(work, "tiny", arguments.experts)
    folders = models(work, arguments.size, arguments.experts, arguments.layers)
    outputs = work / "merged"
    small = by_turns(tasks_for(tiny, outputs, arguments), 1, "start-up")
    shutil.rmtree(outputs)
    large = by_turns(tasks_for(folders, outputs, arguments), arguments.repeats, arguments.size)
    apart = None
    if large["mergekit"]:
        apart = difference(outputs / "mergekit", outputs / "sweep" / LAST)
        say(f"  {LAST}: {apart['apart']:.2%} of elements more than 1 ulp apart")
    shutil.rmtree(outputs)
    nbytes, tiny_bytes = (
        sum(path.stat().st_size for path in weights_of(each)) for each in (folders, tiny)
    )
    ours = middle(large["ronghe, sweep"])
    rows: list[list[str]] = []
    reads: dict[str, float] = {}
    for name, runs in large.items():
        row = [name, "1" if name == "ronghe, sweep" else str(len(LAMBDAS)), *figures(runs)]
        if not runs:
            rows.append([*row, "", "", ""])
            continue
        m = middle(runs)
        row.append("" if name == "ronghe, sweep" else ratio(m.wall, ours.wall))
        if name == "mergekit":
            rows.append([*row, "–", "–"])
            continue
        beyond = m.read * 1e6 - middle(small[name]).read * 1e6
        reads[name] = beyond / (nbytes - tiny_bytes) if nbytes > tiny_bytes else 0.0
        rows.append([*row, f"{m.read:.0f}", f"{reads[name]:.3f}"])
    print(f"\n{markdown(COLUMNS, rows)}\n")
    print(
        f"{len(LAMBDAS)} coefficients of {arguments.experts} experts, inputs {nbytes / 1e9:.2f} GB "
        f"in all; medians of {arguments.repeats} rounds by turns"
    )
    save(arguments.json, {"size": arguments.size, "experts": arguments.experts, "lambdas": LAMBDAS,
                          "input_bytes": nbytes, "reads_of_an_input_byte": reads, "runs": large,
                          "start_up": small, "difference": apart})  # fmt: skip


def main() -> None:
    """The command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--experts", type=int, default=2)
    parser.add_argument("--size", choices=SHAPES, default="0.4B")
    arguments = parser.parse_args()
    need_mergekit(parser, arguments)
    nbytes = shape_of(arguments.size, arguments.layers).nbytes
    files = arguments.experts + 1 + len(LAMBDAS) + 2
    with work_folder(arguments, 1.05 * nbytes * files + 50e6) as work:
        benchmark(work, arguments)


if __name__ == "__main__":
    main()
