"""How near a merge on S3 comes to the best plain client, on the same server for the same bytes.

    python -m benchmarks.s3_throughput --size 88M --repeats 5 --json results.json

SeaweedFS runs on this machine with a base and two experts. Plain clients read all three models,
write as many bytes as a merge does, and do both at once (`copy`); Ronghe reads them as a merge does
(blocks of 1 MiB, every piece checked), writes (hashed) and merges. The share is the merge's rate as
a part of the best copy's. The same merge on a local store shows what memory it takes there. Each is
a process of its own, by turns, after one warm-up; rates are of the work without start-up.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.rigs.contest import (
    by_turns,
    markdown,
    models,
    module,
    parser_for,
    save,
    shape_of,
    work_folder,
)
from benchmarks.rigs.processes import Run, measure, middle
from benchmarks.rigs.shapes import SHAPES
from benchmarks.s3_clients import CLIENTS

Figures = dict[str, list[dict[str, float]]]


def work(client: str, what: str, uri: str, folder: Path, name: str, told: Figures) -> Run:
    """One process of benchmarks.s3_clients; its own seconds go to `told`."""
    result = folder / "result.json"
    run = measure([sys.executable, "-m", "benchmarks.s3_clients", client, what, str(result), uri])
    told.setdefault(name, []).append(json.loads(result.read_text()))
    return run


def benchmark(folder: Path, arguments: argparse.Namespace) -> None:
    """Everything by turns, on the size asked for."""
    from tests.servers.storage_servers import BUCKET, running_seaweedfs

    base, *experts = models(folder, arguments.size, 2, arguments.layers)
    size = (base / "model.safetensors").stat().st_size
    told: Figures = {}
    with (
        tempfile.TemporaryDirectory(dir=folder) as fresh,
        running_seaweedfs(Path(fresh) / "weed") as server,
    ):
        near, far = (Path(fresh) / "store").as_uri(), f"s3://{BUCKET}/bench"
        os.environ.update(server.environment())
        for uri in (near, far):
            module("benchmarks.s3_clients", "fill", uri, *map(str, (base, *experts)))
        wanted = [
            ("ronghe", "merge", far),
            *((client, "copy", far) for client in CLIENTS),
            *((client, "read", far) for client in (*CLIENTS, "ronghe")),
            *((client, "write", far) for client in (*CLIENTS, "ronghe")),
            ("ronghe", "merge", near),
        ]
        tasks = {
            name: partial(work, client, what, uri, folder, name, told)
            for client, what, uri in wanted
            for name in [f"{what}, {client}" + (", local store" if uri == near else "")]
            if what in arguments.what
        }
        runs = by_turns(tasks, arguments.repeats, arguments.size)
    report(told, runs, size, arguments)


def report(
    told: Figures, runs: Mapping[str, list[Run]], size: int, arguments: argparse.Namespace
) -> None:
    """The table, the share and the memory."""
    moved = {"read": 3 * size, "write": size, "copy": 4 * size, "merge": 4 * size}
    rates: dict[str, float] = {}
    rows: list[list[str]] = []
    for name in [name for name in runs if runs[name]]:
        measured = told[name][1:]  # the first was the warm-up
        seconds = median(each["seconds"] for each in measured)
        cpu = median(each["cpu"] for each in measured)
        nbytes = moved[name.split(",")[0]]
        rates[name] = nbytes / 1e6 / seconds
        peak = middle(runs[name])
        rows.append([name, f"{seconds:.2f}", f"{rates[name]:.0f}", f"{cpu / nbytes * 1e9:.2f}",
                     f"{peak.peak:.0f}", f"{peak.anonymous:.0f}"])  # fmt: skip
    columns = ("what", "seconds", "MB/s", "CPU s/GB", "peak MiB", "anonymous MiB")
    print("\n" + markdown(columns, rows) + "\n")
    copies = {name: rate for name, rate in rates.items() if name.startswith("copy")}
    best = max(copies, key=copies.__getitem__, default=None)
    share = rates["merge, ronghe"] / copies[best] if best else None
    if best:
        print(f"merge on S3: {share:.2f} of the best plain copy ({best})")
    far, near = (middle(runs[f"merge, ronghe{store}"]).anonymous for store in ("", ", local store"))
    print(f"peak memory on S3 / local: {far / near:.2f}")
    save(arguments.json, {"size": arguments.size, "bytes": size, "rates": rates, "share": share,
                          "best": best, "seconds": told, "runs": dict(runs)})  # fmt: skip


def main() -> None:
    """The command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--size", choices=SHAPES, default="88M")
    parser.add_argument("--what", nargs="+", default=["merge", "copy", "read", "write"])
    arguments = parser.parse_args()
    nbytes = shape_of(arguments.size, arguments.layers).nbytes
    with work_folder(arguments, nbytes * (12 + 10 * (arguments.repeats + 1))) as folder:
        benchmark(folder, arguments)


if __name__ == "__main__":
    main()
