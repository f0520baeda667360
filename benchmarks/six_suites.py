"""The six suites end to end, offline, on one model: what each benchmark asks, and what comes out.

    python -m benchmarks.six_suites --model /models/SmolLM2-135M-Instruct --data /data/benchmarks

Every shipped suite is read with `data_dir` and a limit, and scored in the limited child; what is
graded is graded by the same model as judge, and programs are run. `quickstart` is this project's
own suite, whose items `python -m examples.quickstart` writes. Suites whose data is not there are
told and left out. Nothing is fetched.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.rigs.contest import markdown, save, say
from benchmarks.rigs.processes import ROOT

QUICKSTART = "catalog/suites/quickstart.yaml"
COLUMNS = ("suite", "benchmark", "split", "metric", "value", "95 %", "n", "mean length")


def suites(work: Path, arguments: argparse.Namespace) -> dict[str, Path]:
    """Write a file for each shipped suite, with the data's folder and the limit."""
    from eval_ops.suites import shipped_suites

    found: dict[str, Path] = {}
    for name in shipped_suites():
        content: dict[str, Any] = {
            "shipped": name,
            "name": name,
            "data_dir": str(arguments.data.resolve()),
            "limit": arguments.limit,
        }
        if name == "math-code":
            content["allow_code"] = True
        if name == "mt-bench":
            content["judge"] = {"model": str(arguments.model.resolve()), "max_new_tokens": 16}
        if arguments.new_tokens:
            content["max_new_tokens"] = arguments.new_tokens
        if arguments.benchmarks:
            content["only"] = arguments.benchmarks
        found[name] = work / f"{name}.yaml"
        found[name].write_text(json.dumps(content), encoding="utf-8")
    found["quickstart"] = work / "quickstart.yaml"
    content = _absolute(arguments.quickstart.resolve())
    found["quickstart"].write_text(json.dumps({**content, "limit": arguments.limit}))
    return found


def _absolute(path: Path) -> dict[str, Any]:
    """A suite's file with its items' paths as they are from anywhere."""
    import yaml

    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for benchmark in content["benchmarks"]:
        benchmark["items"] = str(path.parent / benchmark["items"])
    return content


def score(model: Path, path: Path, threads: int) -> tuple[list[list[str]], float, int]:
    """The rows of a suite, its seconds of wall clock, and how many questions were asked."""
    from assets.work.scoring.scoring import Scoring, score_in_child
    from assets.work.suite_files import load_suite

    started = time.perf_counter()
    suite = load_suite(path)
    scores = score_in_child(model, model.name, Scoring(suite, "cpu", threads), None)
    rows = [
        [
            *(suite.name, score.benchmark, score.split, score.metric, f"{score.value:.3f}"),
            *(f"{score.low:.3f} to {score.high:.3f}", str(score.n)),
            "" if score.mean_length is None else f"{score.mean_length:.1f}",
        ]
        for score in scores.scores
    ]
    return rows, time.perf_counter() - started, len(scores.samples)


def main() -> None:
    """The command line."""
    from eval_ops.errors import EvalError

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="a checkpoint's folder")
    data = Path(os.environ.get("RONGHE_TEST_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data, help="the folder of benchmark data")
    parser.add_argument("--limit", type=int, default=20, help="items of each benchmark and split")
    parser.add_argument("--new-tokens", type=int, help="the most that are written to an answer")
    parser.add_argument("--only", nargs="*", help="names of suites")
    parser.add_argument("--benchmarks", nargs="*", help="names of benchmarks, with --only")
    parser.add_argument("--threads", type=int, default=0, help="0: the cores of this process")
    parser.add_argument("--work", type=Path, required=True, help="a folder for the suites' files")
    own = ROOT / QUICKSTART
    parser.add_argument("--quickstart", type=Path, default=own, help="its suite, beside its items")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    rows: list[list[str]] = []
    left_out: list[str] = []
    for name, path in suites(arguments.work, arguments).items():
        if arguments.only and name not in arguments.only:
            continue
        try:
            found, seconds, asked = score(arguments.model, path, arguments.threads)
        except EvalError as error:
            left_out.append(f"{name}: {error}")
            continue
        say(f"{name}: {asked} answers in {seconds:.1f} s")
        rows += found
    print(f"\n{markdown(COLUMNS, rows)}")
    for line in left_out:
        print(f"\nnot asked: {line}")
    save(arguments.json, {"model": str(arguments.model), "limit": arguments.limit, "rows": rows})
    sys.exit(bool(left_out))


if __name__ == "__main__":
    main()
