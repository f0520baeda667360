"""A search of coefficients against the best point of a recipe's own grid, and a search killed.

    python -m benchmarks.search_trials --work /tmp/searches --recipe ties
    python -m benchmarks.search_trials --work … --samplers tpe --killed-at 17

Reads the catalog and the store of the environment (RONGHE_CATALOG, RONGHE_STORE), where the recipe
is scored at every point of its sweep, and writes to copies of the store alone, in `--work`. Both
are chosen on validation items and compared on test items: the winner of so many trials, and the
grid point that the sweep would take. `how sure` is the share of 10,000 resamples of the test items
in which the winner is at least as good. The grid's best point on test items is told too: it was
picked by what it is judged on, so it flatters itself.

With `--killed-at N` one search runs through, and another is killed (SIGKILL) after N trials and
begun again; the trials of both are compared, all of them.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from benchmarks.rigs.contest import markdown, parser_for, save, say
from benchmarks.rigs.processes import ROOT

if TYPE_CHECKING:
    from eval_ops.scores import SuiteScores
    from eval_ops.scores.leaderboard import Entry
    from resources.store import ArtifactStore

NAME = "searched_by_benchmark"
SAMPLERS = ("tpe", "cma-es", "random")
WEIGHTS = {"weight": {"low": 0.0, "high": 1.5, "per": "expert"}}
RESAMPLES = 10_000
TRIAL = "trial "
COLUMNS = ("search", "winner", "validation", "test", "of the grid's choice", "verdict", "how sure",
           "of the grid's best on test", "s")  # fmt: skip


def document_of(recipe: Path, search: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The recipe's document with a search in place of its sweep and of what is searched."""
    import yaml

    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    content.pop("sweep", None)
    given = content.get("parameters") or {}
    searched = search["parameters"]
    content["parameters"] = {key: value for key, value in given.items() if key not in searched}
    return {**content, "search": dict(search), "seed": seed}


def search(store_uri: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Run one search in this process; its study, and the digests of winner and best trial."""
    from assets.work.merging.merging import MergeJob
    from assets.work.scoring.scoring import Scoring
    from assets.work.scoring.searching import search_set
    from assets.work.suite_files import load_suite
    from merge_ops.recipes import Steps
    from merge_ops.recipes.recipe_check import check_recipe
    from merge_ops.stream import StreamSettings

    recipe = check_recipe(request["document"], NAME, f"{NAME}.yaml")
    experts = request["experts"]
    points: dict[str, str | None] = {"searched": f"{experts}|searched"}
    job = MergeJob(Steps((recipe,)), request["base"], experts, points, f"{NAME}/merged_checkpoint")
    scoring = Scoring(load_suite(Path(request["suite"])), "cpu", request["threads"])

    def tell(done: int, of: int) -> None:
        print(f"{TRIAL}{done} of {of}", flush=True)

    stream = StreamSettings(threads=request["threads"], device="cpu")
    found = search_set(opened(store_uri, request["catalog"]), job, scoring, stream, tell)
    study = found.study
    assert study.winner is not None
    assert study.best is not None
    return {
        "study": found.artifact.digest,
        "trials": [[each.number, dict(each.point), each.values] for each in study.trials],
        "winner": study.winner.digest,
        "best": study.best.digest,
        "centre wins": study.centre_wins,
        "scores that were there": found.found,
    }


def opened(uri: str, catalog: str | None) -> "ArtifactStore":
    """A store by its address."""
    from resources.store import ArtifactStore

    return ArtifactStore.open(uri, catalog=catalog)


def searched(store: Path, request: Mapping[str, Any], killed_at: int = 0) -> dict[str, Any]:
    """Run a search in a process of its own; killed after so many trials it returns nothing."""
    command = [sys.executable, "-m", "benchmarks.search_trials", "--child", store.as_uri()]
    with subprocess.Popen(
        [*command, json.dumps(request)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        last = ""
        for line in process.stdout:
            last = line
            if killed_at and line.startswith(f"{TRIAL}{killed_at} of "):
                os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
    if killed_at:
        return {}
    if status:
        sys.exit(f"the search ended with status {status}")
    return json.loads(last)


def at_least_as_good(ours: "SuiteScores", theirs: "SuiteScores", seed: int = 0) -> float:
    """The share of resamples of test items in which ours has at least the mean of theirs."""
    import numpy as np

    draw = np.random.default_rng(seed)
    means = np.zeros(RESAMPLES)
    for benchmark in ours.benchmarks:
        mine, other = ours.values(benchmark, "test"), theirs.values(benchmark, "test")
        differences = np.array([value - other[item] for item, value in mine.items()])
        picks = draw.integers(0, len(differences), size=(RESAMPLES, len(differences)))
        means += differences[picks].mean(axis=1)
    return float((means >= -1e-12).mean())


def grid_points(arguments: argparse.Namespace) -> tuple[dict[str, Any], list["Entry"]]:
    """What a search of the recipe needs, and the scored points of its sweep for its largest set."""
    from assets.work.ranking.collecting import collect_entries
    from assets.work.suite_files import load_suite
    from orchestration.catalogs import load_catalog
    from orchestration.catalogs.catalog_name import named_settings
    from orchestration.definitions import contest_of
    from orchestration.settings import load_settings

    settings = named_settings(load_settings())
    catalog = load_catalog(settings.catalog)
    contest = contest_of(catalog)
    ranked = contest.recipe(arguments.recipe)
    suite = contest.suites[ranked.suite]
    store = opened(settings.store, settings.catalog_name)
    entries = collect_entries(store, contest, load_suite(suite), [ranked]).entries
    points = [each for each in entries if each.recipe == ranked.name]
    if not points:
        sys.exit(f"{ranked.name} has no scores in {settings.store}; run `ronghe refresh` first")
    largest = max((each.experts for each in points), key=len)
    points = [each for each in points if each.experts == largest]
    base = catalog.base_of(catalog.recipes[ranked.name])
    request = {"experts": "+".join(sorted(largest)), "base": base, "suite": str(suite.resolve()),
               "catalog": settings.catalog_name, "threads": arguments.threads,
               "store": settings.store}  # fmt: skip
    return request, points


def copied(request: Mapping[str, Any], folder: Path) -> Path:
    """A copy of the environment's store, which must be a local one."""
    source = urlparse(str(request["store"]))
    if source.scheme != "file":
        sys.exit(f"the store is {request['store']}; copies are made of local stores alone")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(unquote(source.path), folder, symlinks=True)
    return folder


def compared(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Search with each sampler and seed, and compare with the grid."""
    from assets.work.ranking.named_checkpoints import scores_on
    from assets.work.suite_files import load_suite
    from eval_ops.scores import compare

    request, points = grid_points(arguments)
    suite = load_suite(Path(request["suite"]))
    chosen = max(points, key=lambda each: each.scores.mean("validation").value)
    luckiest = max(points, key=lambda each: each.scores.mean().value)
    say(f"{len(points)} grid points of {request['experts']}; the best on validation items"
        f" {chosen.coefficient}: {_points(chosen.scores)}; the best on test items"
        f" {luckiest.coefficient}: {_points(luckiest.scores)}")  # fmt: skip
    store = copied(request, arguments.work / "store")
    rows: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        for sampler in arguments.samplers:
            document = _document(arguments, sampler, seed)
            started = time.perf_counter()
            found = searched(store, {**request, "document": document})
            seconds = time.perf_counter() - started
            for which in dict.fromkeys(("winner", "best")):
                scores = scores_on(opened(store.as_uri(), request["catalog"]), found[which], suite)
                assert scores is not None
                against = compare(scores, chosen.scores)
                lucky = compare(scores, luckiest.scores)
                rows.append(
                    {
                        "sampler": sampler,
                        "seed": seed,
                        "which": _which(which, found),
                        "validation": scores.mean("validation").value,
                        "test": scores.mean().value,
                        "difference": [against.difference, against.low, against.high],
                        "verdict": against.verdict,
                        "how sure": at_least_as_good(scores, chosen.scores),
                        "of the best on test": [lucky.difference, lucky.low, lucky.high],
                        "seconds": seconds,
                    }
                )
                say(json.dumps(rows[-1]))
    return rows


def _document(arguments: argparse.Namespace, sampler: str, seed: int) -> dict[str, Any]:
    from orchestration.settings import load_settings

    # With the centre, which is scored as one candidate more, there are as many as were asked for.
    wanted = {"sampler": sampler, "trials": arguments.candidates - 1,
              "parameters": arguments.parameters}  # fmt: skip
    path = load_settings().catalog / "recipes" / f"{arguments.recipe}.yaml"
    return document_of(path, wanted, seed)


def _which(which: str, found: Mapping[str, Any]) -> str:
    if which == "best":
        return "best trial"
    return "the winner: the centre" if found["centre wins"] else "the winner: the best trial"


def _points(scores: "SuiteScores") -> str:
    validation, test = scores.mean("validation").value, scores.mean().value
    return f"{100 * validation:.1f} there, {100 * test:.1f} on test items"


def _difference(three: list[float]) -> str:
    difference, low, high = (100 * each for each in three)
    return f"{difference:+.1f} ({low:+.1f} to {high:+.1f})"


def killed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run a search through, and another that is killed and begun again; say whether they agree."""
    request, _ = grid_points(arguments)
    request["document"] = _document(arguments, arguments.samplers[0], arguments.seeds[0])
    whole = searched(copied(request, arguments.work / "whole"), request)
    store = copied(request, arguments.work / "killed")
    searched(store, request, arguments.killed_at)
    study = store / "refs"
    assert not list(study.rglob(f"*{NAME}*"))  # nothing was published before the end
    resumed = searched(store, request)
    return {
        "trials": len(whole["trials"]),
        "scores that the resumed one found": resumed["scores that were there"],
        "the same trials": resumed["trials"] == whole["trials"],
        "the same study": resumed["study"] == whole["study"],
        "the same winner": resumed["winner"] == whole["winner"],
    }


def main() -> None:
    """The command line."""
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(search(sys.argv[2], json.loads(sys.argv[3]))), flush=True)
        return
    parser = parser_for(__doc__)
    parser.add_argument("--recipe", default="ties")
    parser.add_argument("--samplers", nargs="*", default=SAMPLERS)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--candidates", type=int, default=40, help="trials and the centre")
    parser.add_argument("--parameters", type=json.loads, default=WEIGHTS, help="as in a recipe")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--killed-at", type=int, default=0, help="kill one after so many trials")
    arguments = parser.parse_args()
    if arguments.work is None:
        parser.error("--work is missing: the folder for copies of the store")
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.killed_at:
        found = killed(arguments)
        print(json.dumps(found, indent=1))
        save(arguments.json, found)
        sys.exit(not found["the same trials"])
    rows = compared(arguments)
    cells = [
        [
            f"{row['sampler']}, seed {row['seed']}",
            row["which"],
            f"{100 * row['validation']:.1f}",
            f"{100 * row['test']:.1f}",
            _difference(row["difference"]),
            row["verdict"],
            f"{100 * row['how sure']:.0f} %",
            _difference(row["of the best on test"]),
            f"{row['seconds']:.0f}",
        ]
        for row in rows
    ]
    print(f"\n{markdown(COLUMNS, cells, left=2)}")
    save(arguments.json, {"recipe": arguments.recipe, "rows": rows})


if __name__ == "__main__":
    main()
