"""The catalog site of a large catalog: its size, the time and memory to render it, and to filter.

    python -m benchmarks.site                         # 2,000 checkpoints, in a browser
    python -m benchmarks.site --models 1000 --checkpoints 10000

A store is made up: models, checkpoints that are planned and not written, scores with samples, a
leaderboard. The site is then rendered three times, each in a process of its own: for the first
time, with nothing changed, and with one checkpoint that has new scores. A headless Chromium opens
the leaderboard and filters it. With --axe FILE (axe.min.js of the npm package axe-core) it also
looks at every page.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from blake3 import blake3

from assets.site.facts import CatalogFacts, RecipeFacts
from assets.work import names
from assets.work.ranking.collecting import Contest, RankedRecipe
from assets.work.suite_files import load_suite
from assets.work.upstream.entries import UpstreamModel
from eval_ops.scores import scores_digest
from eval_ops.scores.scores import Sample, SuiteScores, summarize
from merge_ops.recipes import load_steps
from resources.store import ArtifactStore

RECIPES, COEFFICIENTS, ITEMS = 10, 5, 20
MOST_ROWS = 2000
"""Of the made-up leaderboard: of more checkpoints one coefficient each is there."""
MEASURED = ("first", "unchanged", "one new")
FILTER = """(() => {
  const box = document.getElementById('search'), times = [];
  const every = ['e1', 'e12', 'recipe3 x=2', 'nothing at all', ''];
  for (const words of [...every, ...every, ...every]) {
    const start = performance.now();
    box.value = words;
    box.dispatchEvent(new Event('input'));
    document.body.offsetHeight;
    times.push(performance.now() - start);
  }
  const start = performance.now();
  document.querySelector('th[data-sort=name] button').click();
  document.body.offsetHeight;
  times.sort((a, b) => a - b);
  return [times[7], performance.now() - start,
          [...document.querySelectorAll('.count')].map(each => each.textContent).join()];
})()"""


class MadeUpCatalog:
    """A catalog on disk: a suite, recipes, models and points in whatever number is asked for."""

    def __init__(self, root: Path, models: int, checkpoints: int) -> None:
        self.root, self.models = root, models
        self.store = ArtifactStore.open((root / "store").as_uri(), catalog="large")
        self.sets = max(1, checkpoints // (RECIPES * COEFFICIENTS))
        self.suite = root / "one.yaml"

    def write_files(self) -> None:
        """The suite and the recipes."""
        rows = [
            {
                "id": f"{split}{n}",
                "split": split,
                "prompt": f"{split} question {n}",
                "answer": n % 2,
            }
            | {"choices": ["red", "blue"]}
            for split in ("validation", "test")
            for n in range(ITEMS)
        ]
        items = "".join(json.dumps(row) + "\n" for row in rows)
        (self.root / "items.jsonl").write_text(items, "utf-8")
        self.suite.write_text("name: one\nbenchmarks: [{name: b, items: items.jsonl}]\n", "utf-8")
        for number in range(RECIPES):
            text = "merge_method: linear\nexperts: [all]\nparameters: {weight: 0.5}\nsuite: one\n"
            (self.root / f"recipe{number}.yaml").write_text(text, "utf-8")

    def points(self) -> dict[str, tuple[str, str]]:
        """Expert set and coefficient by partition."""
        found: dict[str, tuple[str, str]] = {}
        for number in range(self.sets):
            pair = sorted(f"e{1 + (number * k) % (self.models - 1)}" for k in (1, 7))
            experts = "+".join(dict.fromkeys([*pair, f"e{1 + number % (self.models - 1)}"]))
            for value in range(COEFFICIENTS):
                found[f"x={value}|{experts}~{number}"] = (f"{experts}~{number}", f"x={value}")
        return found

    def facts(self) -> CatalogFacts:
        """What the site needs of the folder."""
        points = self.points()
        upstream = {"base": UpstreamModel("base", "hf://org/base", licence="apache-2.0")}
        for number in range(1, self.models):
            name = f"e{number}"
            upstream[name] = UpstreamModel(
                name, f"hf://org/{name}", "base", "full", "mit", f"expert number {number}"
            )
        recipes: dict[str, RecipeFacts] = {}
        ranked: list[RankedRecipe] = []
        for number in range(RECIPES):
            name = f"recipe{number}"
            recipes[name] = RecipeFacts(load_steps(self.root / f"{name}.yaml"), points)
            ranked.append(RankedRecipe(name, "one", False, points))
        contest = Contest(["base"], [*upstream][1:], ranked, {"one": self.suite})
        return CatalogFacts("large", upstream, recipes, contest)

    def fill(self) -> None:
        """Publish everything, and point to it."""
        suite, points = load_suite(self.suite), self.points()
        with ThreadPoolExecutor(8) as pool:
            models = list(self.facts().models)
            digests = dict(zip(models, pool.map(self._model, models), strict=True))

            def one(made: tuple[str, str]) -> dict[str, Any]:
                return self._candidate(*made, points[made[1]], digests, suite)

            kept = {"x=0"} if len(points) * RECIPES > MOST_ROWS else {f"x={n}" for n in range(9)}
            every = [(f"recipe{n}", key) for n in range(RECIPES) for key in points]
            rows = [row for row in pool.map(one, every) if row["coefficient"] in kept]
        rows.sort(key=lambda row: -row["mean"]["value"])
        with self.store.attempt("leaderboard") as attempt:
            attempt.write_json("one.json", rows)
            attempt.write_bytes("one.md", b"")
            artifact = attempt.publish()
        self.store.point("leaderboard", None, "leaderboard", artifact.digest)

    def _model(self, name: str) -> str:
        digest = self._publish("model", f"model {name}")
        self.store.point("model", name, "model", digest, revision="r1")
        return digest

    def _candidate(
        self,
        recipe: str,
        partition: str,
        point: tuple[str, str],
        digests: dict[str, str],
        suite: Any,
    ) -> dict[str, Any]:
        experts, coefficient = point
        digest = blake3(f"{recipe} {partition}".encode()).hexdigest()
        self.store.publish_virtual("checkpoint", digest, making={})
        own = {each: digests[each] for each in experts.partition("~")[0].split("+")}
        models = {"base": digests["base"], **own}
        named = names.merged_checkpoint(recipe)
        self.store.point(named, partition, "checkpoint", digest, models=models)
        share = (int(digest[:4], 16) % 18) / 20
        scores = self.score(recipe, partition, digest, suite, share)
        return _row(recipe, experts, coefficient, digest, scores)

    def score(
        self, recipe: str, partition: str, digest: str, suite: Any, share: float
    ) -> SuiteScores:
        """Scores with samples, so many of them right."""
        samples = [
            Sample("b", split, f"{split}{n}", float(n < share * ITEMS), n % 2, n % 2)
            for split in ("validation", "test")
            for n in range(ITEMS)
        ]
        made = SuiteScores("one", suite.digest, summarize(samples, "acc", "1"), tuple(samples))
        of_scores = scores_digest(digest, suite.digest)
        with self.store.attempt("scores") as attempt:
            attempt.write_bytes("scores.json", made.to_json().encode())
            attempt.write_bytes("samples.parquet", made.samples_to_parquet())
            said = {"checkpoint": {"digest": digest}, "suite": {"digest": suite.digest}}
            attempt.publish(of_scores, **said)
        self.store.point(names.scores(recipe), partition, "scores", of_scores)
        return made

    def renew(self) -> None:
        """One checkpoint is another now, with scores of its own."""
        partition = next(iter(self.points()))
        digest = blake3(b"renewed").hexdigest()
        self.store.publish_virtual("checkpoint", digest, making={})
        named = names.merged_checkpoint("recipe0")
        self.store.point(named, partition, "checkpoint", digest, models={})
        self.score("recipe0", partition, digest, load_suite(self.suite), 0.5)

    def _publish(self, kind: str, content: str) -> str:
        digest = blake3(content.encode()).hexdigest()
        with self.store.attempt(kind) as attempt:
            attempt.write_bytes("README.md", f"# {content}\n\n{'a line of a card. ' * 40}".encode())
            attempt.publish(digest)
        return digest


def _row(
    recipe: str, experts: str, coefficient: str, digest: str, scores: SuiteScores
) -> dict[str, Any]:
    """A row of the leaderboard as it is written."""
    score, mean = scores.score("b"), scores.mean()
    numbers = {"value": score.value, "low": score.low, "high": score.high, "n": score.n}
    side = {"verdict": "undecided", "difference": 0.01, "low": -0.1, "high": 0.12}
    return {
        "kind": "candidate",
        "label": f"{recipe} {experts} {coefficient}",
        "recipe": recipe,
        "experts": experts.partition("~")[0].split("+"),
        "coefficient": coefficient,
        "digest": digest,
        "benchmarks": {"b": numbers},
        "mean": mean._asdict(),
        "validation_mean": scores.mean("validation").value,
        "vs_base": side,
        "vs_best_expert": side,
        "vs_average": None,
    }


def measure(catalog: MadeUpCatalog) -> dict[str, Any]:
    """Render the site once; say how long it took, its size, and the most memory of the process."""
    from assets.site.publishing import publish_site

    facts = catalog.facts()
    started, before = time.perf_counter(), time.process_time()
    site = publish_site(catalog.store, facts)
    return {
        "CPU seconds": round(time.process_time() - before, 2),
        "seconds": round(time.perf_counter() - started, 2),
        "collect": round(site.seconds[0], 2),
        "render": round(site.seconds[1], 2),
        "MB of memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "MB": round(site.artifact.nbytes / 1e6, 2),
        "files": len(site.artifact.files),
        "unchanged": site.memoized,
        "checkpoints": len(site.view.checkpoints),
        "problems": len(site.view.problems),
        "index": site.index,
    }


def in_a_browser(index: Path, axe: Path | None) -> Iterator[tuple[str, Any]]:
    """Yield what a browser takes for the leaderboard, and what axe finds on the pages."""
    from tests.orchestration.projects.browser import browser, find_chromium

    program = find_chromium()
    if program is None:
        yield "browser", "no Chromium on PATH"
        return
    with tempfile.TemporaryDirectory() as folder, browser(program, Path(folder)) as page:
        page.open(index.as_uri())
        page.wait_until("document.querySelectorAll('#board tbody tr').length > 0")
        opened = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
        yield "ms until the page is there", round(page.evaluate(opened))
        longest, sort, count = page.evaluate(FILTER)
        yield "ms to filter, the middle of fifteen", round(longest, 1)
        yield "ms to sort by name", round(sort, 1)
        yield "shown at the end", count
        page.evaluate("[...document.querySelectorAll('main button')].at(-1).click()")
        yield "ms to filter with every row drawn", round(page.evaluate(FILTER)[0], 1)
        for name in sorted(index.parent.glob("*.html")) if axe is not None else ():
            assert axe is not None
            page.open(name.as_uri())
            page.wait_until("document.readyState === 'complete' && !!window.Ronghe")
            page.evaluate(f"(() => {{ {axe.read_text('utf-8')}; return 1; }})()")
            page.evaluate("axe.run().then(each => { window.told = each; })")
            page.wait_until("window.told !== undefined")
            told = "window.told.violations.map(v => v.impact + ' ' + v.id)"
            yield f"axe on {name.name}", page.evaluate(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--checkpoints", type=int, default=2000)
    parser.add_argument("--folder", type=Path, help="Where the store is made, or lies already.")
    parser.add_argument("--axe", type=Path, help="axe.min.js")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    root = options.folder or Path(tempfile.mkdtemp(prefix="site-"))
    root.mkdir(parents=True, exist_ok=True)
    catalog = MadeUpCatalog(root, options.models, options.checkpoints)
    if options.measure:
        print(json.dumps(measure(catalog)))
        return
    if not (root / "store").exists():
        started = time.perf_counter()
        catalog.write_files()
        catalog.fill()
        print(f"store made in {time.perf_counter() - started:.0f} s: {root}", flush=True)
    told: dict[str, Any] = {}
    sizes = ["--models", str(options.models), "--checkpoints", str(options.checkpoints)]
    for what in MEASURED:
        if what == "one new":
            catalog.renew()
        command = [sys.executable, "-m", "benchmarks.site", "--measure", "--folder", str(root)]
        done = subprocess.run([*command, *sizes], capture_output=True, text=True, check=True)
        told = json.loads(done.stdout)
        print(what, json.dumps(told), flush=True)
    for what, found in in_a_browser(Path(told["index"]), options.axe):
        print(f"{what}: {found}", flush=True)


if __name__ == "__main__":
    main()
