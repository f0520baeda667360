"""Packed experts: how small, how fast, and what a merge from them costs.

    python -m benchmarks.packing BASE EXPERT [EXPERT ...] --repeats 3 --json results.json

Each expert is packed against the base and restored, and every file compared with the original's
hash: the benchmark fails where a byte differs. Then it is merged with the base, from the full files
and from the packed ones by turns, and the outputs are compared. Beside the ratio stand two
yardsticks, for the bfloat16 and float16 weights: zstd level 3 on the split bytes of the
differences, and their order-0 entropy: what an ideal code of each difference by itself would take.
Rates are the median of the repeats, in 10⁶ bytes of the full model: by wall time with all threads,
and by CPU second, which other work on the machine disturbs less.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow

from benchmarks.rigs.contest import markdown
from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.files.byte_sources import ByteSource, FolderSink, FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.jobs.assembly import merge
from merge_ops.jobs.packing import PackingSink
from merge_ops.jobs.restoring import Nowhere, copy_files, restore
from merge_ops.kernels.cores import usable_cores
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from merge_ops.sources.packed_source import PackedSource
from merge_ops.stream.stream import StreamSettings
from orchestration.commands.models.input_digests import content_digest

COLUMNS = (
    "expert", "MB", "packed MB", "ratio", "weights", "zstd-3 split", "order-0", "unchanged",
    "pack MB/s", "unpack MB/s", "pack MB/CPU s", "unpack MB/CPU s", "merge packed/full", "by CPU",
)  # fmt: skip
RECIPE = """
merge_method: task_arithmetic
base_model: base
models: [{model: expert}]
parameters: {weight: 0.5}
"""


@dataclass(frozen=True)
class Spent:
    """Wall and CPU seconds of one go."""

    wall: float
    cpu: float


@dataclass
class Result:
    """One expert: bytes, yardsticks in bytes, and the medians of what was timed."""

    expert: str
    nbytes: int
    packed: int
    weights: int
    packed_weights: int
    split_zstd: int
    order_0: float
    half_bytes: int
    unchanged: float
    pack: Spent
    unpack: Spent
    merge_full: Spent
    merge_packed: Spent


def timed(work: Callable[[], object]) -> Spent:
    """Do it once."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


def median(runs: list[Spent]) -> Spent:
    return Spent(statistics.median(r.wall for r in runs), statistics.median(r.cpu for r in runs))


def differences(base: Checkpoint, expert: Checkpoint) -> tuple[int, float, int, float]:
    """Bytes, order-0 entropy and split zstd-3 in bytes, and the unchanged share; 16-bit floats."""
    codec = pyarrow.Codec("zstd", compression_level=3)
    nbytes, entropy, zstd, same = 0, 0.0, 0, 0
    for name, entry in expert.tensors.items():
        own = base.tensors.get(name)
        if own is None or (own.dtype, own.shape) != (entry.dtype, entry.shape):
            continue
        if entry.dtype not in ("BF16", "F16"):
            continue
        rows = []
        for model, at in ((expert, entry), (base, own)):
            values = np.empty(at.nbytes, dtype=np.uint8)
            model.source.read_into(at.file, at.offset, memoryview(values))
            signed = values.view(np.int16)
            rows.append(signed ^ ((signed >> 15) & 0x7FFF))
        moved = rows[0] - rows[1]
        zigzag = ((moved << 1) ^ (moved >> 15)).view(np.uint16)
        counts = np.bincount(zigzag)
        shares = counts[counts > 0] / len(zigzag)
        entropy -= float((shares * np.log2(shares)).sum()) * len(zigzag) / 8
        planes = zigzag.view(np.uint8).reshape(-1, 2)
        zstd += sum(len(codec.compress(planes[:, p].tobytes(), asbytes=True)) for p in (0, 1))
        nbytes, same = nbytes + entry.nbytes, same + int(counts[0])
    return nbytes, entropy, zstd, 2 * same / max(1, nbytes)


def measure(base: Checkpoint, folder: Path, work: Path, options: argparse.Namespace) -> Result:
    """Pack, restore, compare and merge one expert."""
    source, threads = FolderSource(folder), options.threads
    expert = open_checkpoint("expert", source, content_digest(folder))
    originals = copy_files(source, Nowhere(), threads)
    packs: list[Spent] = []
    unpacks: list[Spent] = []
    for number in range(options.repeats):
        out = work / f"packed-{number}"
        out.mkdir()

        def pack(out: Path = out) -> None:
            with PackingSink(out, base, threads) as sink:
                copy_files(source, sink, threads)
                sink.finish()

        packs.append(timed(pack))
        packed = PackedSource(FolderSource(out), base)
        unpacks.append(timed(lambda packed=packed: restore(packed, Nowhere(), threads)))
        if {file.path: file.blake3 for file in packed.index.files} != originals:
            sys.exit(f"{folder}: what was packed is not what is there")
    thin = open_checkpoint("expert", packed, expert.digest)
    full, from_packed = merges(base, expert, thin, work, options)
    nbytes, entropy, zstd, same = differences(base, expert)
    files = [file for file in packed.index.files if file.sections is not None]
    return Result(
        folder.name, packed.index.nbytes, packed.index.packed_nbytes,
        sum(file.size for file in files), sum(file.packed_size for file in files),
        zstd, entropy, nbytes, same, median(packs), median(unpacks), full, from_packed,
    )  # fmt: skip


def merges(
    base: Checkpoint, full: Checkpoint, thin: Checkpoint, work: Path, options: argparse.Namespace
) -> tuple[Spent, Spent]:
    """A merge from the full files and one from the packed, by turns; same digest, same bytes."""
    recipe, runs, made = parse_recipe(RECIPE, "benchmark", "benchmark"), ([], []), set()
    stream = StreamSettings(threads=options.threads, device="cpu")
    for number in range(options.repeats + 1):
        for place, expert in enumerate((full, thin)):
            plan = plan_merge(recipe, {"base": base, "expert": expert})
            out = work / f"merged-{number}-{place}"
            out.mkdir()
            spent = timed(lambda p=plan, o=out: merge(p, {"default": FolderSink(o)}, stream))
            hashes = copy_files(FolderSource(out), Nowhere(), options.threads)
            made.add((plan.outputs[0].digest, *sorted(hashes.items())))
            for path in out.iterdir():
                path.unlink()
            if number:  # the first warms up
                runs[place].append(spent)
    if len(made) != 1:
        sys.exit("merges from full and packed files differ")
    return median(runs[0]), median(runs[1])


def row(result: Result) -> list[str]:
    """One line of the table."""
    size, half = result.nbytes / 1e6, max(1, result.half_bytes)
    return [
        result.expert, f"{size:.1f}", f"{result.packed / 1e6:.1f}",
        f"{result.nbytes / result.packed:.2f}", f"{result.weights / result.packed_weights:.2f}",
        f"{half / result.split_zstd:.2f}" if result.split_zstd else "–",
        f"{half / result.order_0:.2f}" if result.order_0 else "–",
        f"{100 * result.unchanged:.0f} %" if result.half_bytes else "–",
        f"{size / result.pack.wall:.0f}", f"{size / result.unpack.wall:.0f}",
        f"{size / result.pack.cpu:.0f}", f"{size / result.unpack.cpu:.0f}",
        f"{result.merge_packed.wall / result.merge_full.wall:.2f}",
        f"{result.merge_packed.cpu / result.merge_full.cpu:.2f}",
    ]  # fmt: skip


def open_base(folder: Path) -> Checkpoint:
    source: ByteSource = FolderSource(folder)
    return open_checkpoint("base", source, content_digest(folder))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", type=Path, help="folder of the base model")
    parser.add_argument("experts", type=Path, nargs="+", help="folders of full-weight experts")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--work", type=Path, help="where temporary folders go")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    base, results = open_base(options.base), []
    for folder in options.experts:
        with tempfile.TemporaryDirectory(dir=options.work, prefix="packing-") as work:
            results.append(measure(base, folder, Path(work), options))
    print(markdown(COLUMNS, [row(each) for each in results]))
    print(f"every file restored to the bit; {options.threads} threads, {options.repeats} repeats")
    if options.json:
        figures = {"threads": options.threads, "experts": [asdict(each) for each in results]}
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
