"""What partitions cost beside the work that is done for them: seconds, Dagster runs, each of them.

    python -m benchmarks.partitions --pairs 10 --stored 10 --planned 30

Three cases, a row of the table for each step:
- `pairs`: a refresh of all pairs of so many tiny experts, one recipe; then with one expert changed;
- `stored`: the same catalog on the same store with a Dagster instance that knows nothing: all is
  found, nothing is computed (`--stored 141` has 10,012 partitions);
- `planned`: a refresh looks at pairs of so many experts, all of them made, of which one changed;
  nothing is run (`--planned 122` has 15,007 partitions).

Times are of whole refreshes in one process, imports of torch and transformers left out by a first
one of two experts. On a machine with other work look at CPU seconds.
"""

import argparse
import contextlib
import dataclasses
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from benchmarks.rigs.contest import markdown
from orchestration.definitions import build_definitions
from orchestration.refreshing.instance import open_instance
from orchestration.refreshing.refresh import RefreshReport, refresh
from tests.orchestration.projects.tiny_project import TinyProject, make_project

PAIRS = {
    "merge_method": "linear",
    "base_model": "base",
    "experts": "all-pairs",
    "parameters": {"weight": 1.0},
}
COLUMNS = (
    "case", "partitions", "Dagster runs", "wall s", "CPU s", "wall ms each", "CPU ms each",
    "runs each",
)  # fmt: skip


def row(case: str, partitions: int, runs: int, wall: float, cpu: float) -> list[str]:
    """One step of a case, in all and for each partition."""
    each = max(partitions, 1)
    times = [f"{wall:.1f}", f"{cpu:.1f}", f"{1e3 * wall / each:.1f}", f"{1e3 * cpu / each:.1f}"]
    return [case, str(partitions), str(runs), *times, f"{runs / each:.3f}"]


def refreshed(case: str, project: TinyProject, home: str) -> list[str]:
    """Refresh a project with the Dagster instance of one folder."""
    settings = dataclasses.replace(project.settings(), dagster_home=project.root / home)
    wall, cpu = time.perf_counter(), used()
    with open_instance(settings) as instance:
        report: RefreshReport = refresh(instance, settings)
    if report.failures:
        raise SystemExit("\n".join(report.failures))
    wall, cpu = time.perf_counter() - wall, used() - cpu
    return row(case, report.rerun, report.runs, wall, cpu)


def used() -> float:
    """CPU seconds of this process and of its children, the one that loads checkpoints included.

    That one lives on: the kernel counts a child's time for its parent once it is over, so it is
    looked up here.
    """
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    tick = os.sysconf("SC_CLK_TCK")
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it is over
            fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
            if int(fields[1]) == os.getpid():
                total += (int(fields[11]) + int(fields[12])) / tick
    return total


def pairs(folder: Path, experts: int) -> Iterator[list[str]]:
    """All pairs, then nothing to do, then one expert changed."""
    project = make_project(folder, {"pairs": PAIRS}, experts=experts)
    yield refreshed(f"all pairs of {experts} experts", project, "dagster")
    yield refreshed("nothing changed", project, "dagster")
    project.retrain("e2", seed=77)
    yield refreshed("one expert changed", project, "dagster")


def stored(folder: Path, experts: int) -> Iterator[list[str]]:
    """All is in the store already, and Dagster knows nothing of it."""
    project = make_project(folder, {"pairs": PAIRS}, experts=experts)
    refreshed("", project, "first")
    yield refreshed(f"pairs of {experts} experts, all in the store", project, "second")


def planned(folder: Path, experts: int) -> Iterator[list[str]]:
    """Looks of a refresh at partitions that are all made, but for those of one changed expert."""
    project = make_project(folder, {"pairs": PAIRS}, experts=2)
    lines = ["models:", "  - {name: base, source: ../upstream/base}"]
    for number in range(experts):
        lines.append(f"  - {{name: e{number + 1}, source: ../upstream/e1, base: base}}")
    (project.catalog / "models.yaml").write_text("\n".join(lines), encoding="utf-8")
    settings = project.settings()
    with open_instance(settings) as instance:
        definitions = build_definitions(settings)
        graph, total = definitions.resolve_asset_graph(), 0
        for key in graph.toposorted_asset_keys:
            definition = graph.get(key).partitions_def
            if definition is None or not graph.get(key).is_materializable:
                continue
            for part in definition.get_partition_keys():
                report(instance, key, part, "1")
                total += 1
        cursor = dg.evaluate_automation_conditions(definitions, instance).cursor
        report(instance, dg.AssetKey("model"), "e2", "2")
        wall, cpu, looks, asked = time.perf_counter(), time.process_time(), 0, 0
        requested = 1
        while requested:
            result = dg.evaluate_automation_conditions(definitions, instance, cursor=cursor)
            cursor, requested, looks = result.cursor, result.total_requested, looks + 1
            asked += requested
            for key in graph.materializable_asset_keys:
                for part in result.get_requested_partitions(key):
                    report(instance, key, part, "2")
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    yield row(f"{looks} looks, {asked} asked for", total, 0, wall, cpu)


def report(instance: dg.DagsterInstance, key: dg.AssetKey, part: str | None, version: str) -> None:
    """Tell Dagster that a partition is made, without a run."""
    tags = {"dagster/data_version": version, "dagster/data_version_is_user_provided": "true"}
    made = dg.AssetMaterialization(key, partition=part, tags=tags)
    instance.report_runless_asset_event(made)


def main() -> None:
    """Measure the cases that were asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=4, help="experts; 0 leaves the case out")
    parser.add_argument("--stored", type=int, default=4)
    parser.add_argument("--planned", type=int, default=12)
    arguments = parser.parse_args()
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        if arguments.pairs or arguments.stored:
            list(pairs(Path(folder) / "imports", 2))
        for case in (pairs, stored, planned):
            experts = getattr(arguments, case.__name__)
            if experts:
                rows += case(Path(folder) / case.__name__, experts)
    print(markdown(COLUMNS, rows))


if __name__ == "__main__":
    main()
