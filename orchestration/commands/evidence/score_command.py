"""`ronghe score`: a suite put to a model that somebody serves already."""

import csv
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from merge_ops.errors import Fault, SettingsError
from orchestration.commands.console import PlainConsole, print_json, progress_bar
from orchestration.commands.store_tables import make_console, print_table
from orchestration.settings import load_settings

if TYPE_CHECKING:
    from eval_ops.scores import SuiteScores

COLUMNS = ("benchmark", "split", "metric", "score", "95 %", "n")


def run_score(
    suite: Path,
    url: str,
    model: str,
    tokenizer: Path | None,
    table: Path | None,
    concurrent: int,
    max_length: int,
    as_json: bool = False,
) -> None:
    """Score a served model, and show its scores; with `table` write them as CSV too.

    The key that the server asks for is OPENAI_API_KEY. Raises SettingsError for wrong options,
    SuiteError for a wrong suite, and EvalError where the tokenizer cannot be loaded by the limited
    child, or the server does not answer as it must.
    """
    faults: list[Fault] = []
    if not url.startswith(("http://", "https://")) or "@" in url:
        problem = f"is {url!r}; give an http:// or https:// address without a password in it"
        faults.append(Fault("--endpoint", problem))
    if tokenizer is not None and not (tokenizer / "tokenizer_config.json").is_file():
        problem = f"is {str(tokenizer)!r}, which holds no tokenizer_config.json"
        faults.append(Fault("--tokenizer", problem))
    if faults:
        raise SettingsError("ronghe score", faults)
    from assets.work.measuring.asking_child import asked_tokenizer
    from assets.work.suite_files import load_suite
    from eval_ops.suites import served
    from resources.benchmarks import endpoint_key

    checked = load_suite(suite, fetch=True)
    asked = asked_tokenizer(tokenizer) if tokenizer is not None else None
    endpoint = served.Endpoint(url, model, asked, endpoint_key(), concurrent, max_length)
    bar = progress_bar(PlainConsole(stderr=True))
    with bar:
        task = bar.add_task("answers", total=None)
        scores = served.score_served(
            checked, endpoint, lambda done, total: bar.update(task, completed=done, total=total)
        )
    if checked.valued_later:
        from assets.work.measuring.grading import with_later_scores
        from merge_ops.stream import choose_device

        settings = load_settings()
        device = choose_device(settings.device)
        scores = with_later_scores(checked, scores, device, settings.threads)
    if as_json:
        rows = [asdict(each) for each in scores.scores]
        print_json({"model": model, "endpoint": url, "suite": checked.name, "scores": rows})
    else:
        _show(scores, f"{model} at {url}, suite {checked.name}")
    if table is not None:
        _write(scores, model, table)


def _show(scores: "SuiteScores", title: str) -> None:
    rows = [
        [
            *(score.benchmark, score.split, score.metric, f"{score.value:.4f}"),
            *(f"{score.low:.3f} to {score.high:.3f}", str(score.n)),
        ]
        for score in scores.scores
    ]
    print_table(make_console(), title, COLUMNS, rows)


def _write(scores: "SuiteScores", model: str, path: Path) -> None:
    """Write one row a benchmark and split, as scores from elsewhere are written."""
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(("model", "benchmark", "split", "score", "n"))
        for score in scores.scores:
            out.writerow((model, score.benchmark, score.split, repr(score.value), score.n))
