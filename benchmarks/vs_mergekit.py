"""Side by side with mergekit: the same files, whole processes, one run.

    make bench
    python -m benchmarks.vs_mergekit --work /big/disk/bench --methods linear,ties --repeats 5

Makes three bfloat16 checkpoints of 0.83 GB (a base and two experts; `--experts 3` for four), then
merges them with `ronghe merge` and with `mergekit-yaml` by turns (A B A B …), after one warm-up of
each, so that all inputs are in the page cache for both. Each merge is one whole process, start-up
included. Measured per process: wall-clock seconds, user + system seconds, peak resident memory as
the kernel reports it to the parent (ru_maxrss), and the highest anonymous resident memory seen by
sampling: ru_maxrss counts mapped input files, which mergekit uses and which the kernel may take
back, so the second figure is the one that is kinder to it. mergekit runs with its default options
on the CPU; `--also "--async-write"` adds a column with other ones. `copy` is a process that only
reads all inputs and writes as many bytes as a merge does: the least that a merge could take.

What needs torch runs in a process of its own, so that this one stays small (see processes.py).
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.processes import COPY, ROOT, Run, machine, measure, middle

DETERMINISTIC = ("linear", "slerp", "task_arithmetic", "ties")
METHODS = (*DETERMINISTIC, "dare_linear", "dare_ties")

RONGHE = [sys.executable, "-c", "from orchestration.cli import main; main()", "merge"]


@dataclass(frozen=True)
class Contestant:
    """A program that merges: its name and the command before CONFIG and OUT, and after them."""

    name: str
    command: tuple[str, ...]
    options: tuple[str, ...] = ()


def recipe(method: str, base: Path, experts: Sequence[Path]) -> str:
    """A mergekit file for the method; JSON is YAML."""
    content: dict[str, object] = {"merge_method": method, "dtype": "bfloat16"}
    content["base_model"] = str(base)
    if method == "slerp":
        content["models"] = [{"model": str(base)}, {"model": str(experts[0])}]
        content["parameters"] = {"t": 0.4}
        return json.dumps(content, indent=2)
    parameters: dict[str, object] = {"weight": 1 / len(experts)}
    if method not in ("linear", "task_arithmetic"):
        parameters["density"] = 0.2 if method == "ties" else 0.5
    models = [{"model": str(expert), "parameters": parameters} for expert in experts]
    if method == "linear":
        models.insert(0, {"model": str(base), "parameters": {"weight": 0.5}})
    content["models"] = models
    return json.dumps(content, indent=2)


def rounds(
    contestants: Sequence[Contestant], config: Path, outputs: Path, repeats: int
) -> dict[str, list[Run]]:
    """One unmeasured round, then `repeats` measured ones, the contestants taking turns."""
    runs: dict[str, list[Run]] = {contestant.name: [] for contestant in contestants}
    for turn in range(repeats + 1):
        for contestant in contestants:
            out = outputs / contestant.name
            shutil.rmtree(out, ignore_errors=True)
            run = measure([*contestant.command, str(config), str(out), *contestant.options])
            if turn:
                runs[contestant.name].append(run)
            label = f"round {turn}" if turn else "warm-up"
            say(
                f"  {config.stem} {label} {contestant.name}: {run.wall:.2f} s, "
                f"CPU {run.cpu:.2f} s, peak {run.peak:.0f} MiB ({run.anonymous:.0f} anonymous)"
            )
    return runs


def module(name: str, *arguments: str) -> str:
    """Runs a module of the project in a process of its own; its output."""
    return subprocess.run(
        [sys.executable, "-m", name, *arguments],
        cwd=ROOT,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    ).stdout


def table(results: dict[str, dict[str, list[Run]]], copies: Sequence[Run]) -> str:
    """Medians and ratios as a Markdown table; a ratio above 1 is in Ronghe's favour."""
    lines = [
        "| method | program | wall s | CPU s | peak MiB | anonymous MiB "
        "| times faster | peak, times smaller | anonymous, times smaller |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for method, runs in results.items():
        ours = middle(runs["ronghe"])
        for name, measured in runs.items():
            m = middle(measured)
            ratios = (m.wall / ours.wall, m.peak / ours.peak, m.anonymous / ours.anonymous)
            told = ["" if name == "ronghe" else f"{ratio:.1f}" for ratio in ratios]
            lines.append(row(method, name, m, told))
    lines.append(row("(copy)", "read and write", middle(copies), ["", "", ""]))
    return "\n".join(lines)


def row(method: str, name: str, run: Run, told: Sequence[str]) -> str:
    """One line of the table."""
    figures = (f"{run.wall:.2f}", f"{run.cpu:.2f}", f"{run.peak:.0f}", f"{run.anonymous:.0f}")
    return "| " + " | ".join([method, name, *figures, *told]) + " |"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, help="where to put checkpoints (default: temporary)")
    parser.add_argument("--methods", default="linear,task_arithmetic,ties", help=", ".join(METHODS))
    parser.add_argument("--experts", type=int, default=2)
    parser.add_argument("--layers", type=int, default=24, help="fewer for a quick try")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--also", action="append", default=[], help="more mergekit options")
    parser.add_argument("--ronghe-options", default="", help='such as "--threads 1"')
    parser.add_argument("--mergekit", type=Path, default=ROOT / ".venv-oracle/bin/mergekit-yaml")
    parser.add_argument("--json", type=Path, help="where to write every figure")
    arguments = parser.parse_args()
    arguments.methods = arguments.methods.split(",")
    if unknown := set(arguments.methods) - set(METHODS):
        parser.error(f"no such method: {', '.join(sorted(unknown))}; known: {', '.join(METHODS)}")
    if not arguments.mergekit.exists():
        parser.error(f"no mergekit at {arguments.mergekit}; `make oracle` installs it")
    return arguments


def contestants_of(arguments: argparse.Namespace) -> list[Contestant]:
    """Ronghe, mergekit, and mergekit with each set of further options."""
    mergekit = (str(arguments.mergekit),)
    own = tuple(shlex.split(arguments.ronghe_options))
    return [
        Contestant("ronghe", tuple(RONGHE), own),
        Contestant("mergekit", mergekit),
        *(
            Contestant(f"mergekit {more}", mergekit, tuple(shlex.split(more)))
            for more in arguments.also
        ),
    ]


def benchmark(work: Path, arguments: argparse.Namespace) -> None:
    """Everything, in the work folder."""
    models = work / f"{arguments.layers}-layers"
    needed = (arguments.experts + 4 + len(arguments.also)) * 0.9e9
    if shutil.disk_usage(work).free < needed:
        sys.exit(f"{work} has not the {needed / 1e9:.1f} GB free that this takes; use --work")
    say(f"checkpoints in {models}")
    module(
        "benchmarks.checkpoints",
        "make",
        str(models),
        "--experts",
        str(arguments.experts),
        "--layers",
        str(arguments.layers),
    )
    base, *experts = (
        models / name for name in ("base", *(f"expert-{i + 1}" for i in range(arguments.experts)))
    )
    results: dict[str, dict[str, list[Run]]] = {}
    agreement: dict[str, dict[str, float]] = {}
    outputs = work / "merged"
    for method in arguments.methods:
        config = work / f"{method}.yaml"
        config.write_text(recipe(method, base, experts), encoding="utf-8")
        results[method] = rounds(contestants_of(arguments), config, outputs, arguments.repeats)
        if method in DETERMINISTIC:
            told = module(
                "benchmarks.checkpoints",
                "compare",
                str(outputs / "mergekit"),
                str(outputs / "ronghe"),
            )
            agreement[method] = json.loads(told)
            say(
                f"  {method}: largest difference {agreement[method]['largest']:.1e} of a tensor's "
                f"largest value, {agreement[method]['apart']:.2%} of elements more than 1 ulp apart"
            )
        shutil.rmtree(outputs)
    weights = [str(model / "model.safetensors") for model in (base, *experts)]
    copies = [
        measure([sys.executable, "-c", COPY, str(work / "copy"), *weights])
        for _ in range(arguments.repeats + 1)
    ][1:]
    (work / "copy").unlink()
    facts = machine()
    print("\n" + table(results, copies) + "\n")
    print(
        f"{arguments.experts + 1} checkpoints of {Path(weights[0]).stat().st_size / 1e9:.2f} GB, "
        f"bfloat16; medians of {arguments.repeats} whole processes by turns; {facts}"
    )
    if arguments.json:
        arguments.json.write_text(
            json.dumps(
                {
                    "machine": facts,
                    "agreement": agreement,
                    "copy": [asdict(run) for run in copies],
                    "runs": {
                        m: {n: [asdict(r) for r in runs] for n, runs in by.items()}
                        for m, by in results.items()
                    },
                },
                indent=2,
            )
            + "\n",
            encoding="utf-8",
        )


def say(text: str) -> None:
    """Progress, apart from the table."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """The command line."""
    arguments = parse()
    if arguments.work:
        arguments.work.mkdir(parents=True, exist_ok=True)
        benchmark(arguments.work.resolve(), arguments)
        return
    with tempfile.TemporaryDirectory(prefix="vs-mergekit-") as folder:
        benchmark(Path(folder).resolve(), arguments)


if __name__ == "__main__":
    main()
