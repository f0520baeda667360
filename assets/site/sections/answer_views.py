"""Every answer to every question, of the checkpoints that a suite's leaderboard begins with."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from assets.site.view import AnswersView, BoardRow
from assets.work.scoring.scoring import SCORES, read_scores
from eval_ops.errors import EvalError
from eval_ops.scores import scores_digest
from resources.errors import ResourceError

if TYPE_CHECKING:
    from eval_ops.scores import Sample, SuiteScores
    from eval_ops.suites import Suite
    from resources.store import ArtifactStore

MOST_MODELS = 24
"""Checkpoints of a suite whose answers are shown: champions, single models, then the best."""
MOST_ITEMS = 2000
"""Questions of a benchmark; of more the first ones are shown."""
MOST_QUESTION, MOST_TEXT = 1500, 400
"""Characters of a question or a choice, and of what a model wrote."""

Asked = tuple[str, str]
"""Whose answers they are: a label and a digest."""


def answer_views(
    store: "ArtifactStore",
    suite: "Suite",
    rows: Sequence[BoardRow],
    more: Mapping[str, str],
    problems: dict[str, str],
) -> Iterator[AnswersView]:
    """Show the answers to a suite's test items, a benchmark each.

    `more` are labels by digest of what is scored and has no row, the best first.
    """
    shown: list[tuple[Asked, SuiteScores]] = []
    for label, digest in chosen(rows, more):
        try:
            artifact = store.find(SCORES, scores_digest(digest, suite.digest))
            if artifact is not None:
                shown.append(((label, digest), read_scores(artifact)))
        except (ResourceError, EvalError) as error:
            problems[f"scores of {label}"] = f"{type(error).__name__}: {error}"
    for benchmark in suite.benchmarks:
        answers: list[tuple[Asked, dict[str, Sample]]] = []
        for row, scores in shown:
            of_row = {
                each.item: each
                for each in scores.samples
                if each.benchmark == benchmark.name and each.split == "test"
            }
            if of_row:
                answers.append((row, of_row))
        if answers:
            asked = {each.id: each for each in benchmark.items}
            yield _view(suite.name, benchmark.name, benchmark.title, answers, asked)


def chosen(rows: Sequence[BoardRow], more: Mapping[str, str]) -> list[Asked]:
    """Choose whose answers are shown: labels and digests, each content once.

    They stand in the order of the leaderboard; where there is room, what has no row follows.
    """
    known: dict[str, BoardRow] = {}
    for row in rows:
        if row.digest:
            known.setdefault(row.digest, row)
    order = sorted(known.values(), key=lambda row: (not row.champion, bool(row.experts)))
    kept = {row.digest for row in order[:MOST_MODELS]}
    found = [(row.label, row.digest) for row in known.values() if row.digest in kept]
    rest = [(label, digest) for digest, label in more.items() if digest not in known]
    return found + rest[: MOST_MODELS - len(found)]


def _view(
    suite: str,
    benchmark: str,
    title: str,
    answers: Sequence[tuple[Asked, Mapping[str, "Sample"]]],
    asked: Mapping[str, Any],
) -> AnswersView:
    every = list(dict.fromkeys(item for _, of_row in answers for item in of_row))
    there = set(every)
    order = [each for each in asked if each in there] or sorted(every, key=_numbers_first)
    names = order[:MOST_ITEMS]
    wrote = any(each.text is not None for _, of_row in answers for each in of_row.values())
    return AnswersView(
        suite=suite,
        benchmark=benchmark,
        title=title,
        models=tuple(named for named, _ in answers),
        items=tuple(_item(name, asked.get(name), answers) for name in names),
        values=tuple(tuple(_value(of_row.get(name)) for name in names) for _, of_row in answers),
        choices=tuple(tuple(_choice(of_row.get(name)) for name in names) for _, of_row in answers),
        texts=tuple(tuple(_text(of_row.get(name)) for name in names) for _, of_row in answers)
        if wrote
        else (),
        hidden=len(order) - len(names),
    )


def _item(
    name: str, asked: Any, answers: Sequence[tuple[Asked, Mapping[str, "Sample"]]]
) -> tuple[str, str, tuple[str, ...], int]:
    """A question as it is known: its text, its choices and which one is right."""
    if asked is not None:
        choices = tuple(str(each)[:MOST_QUESTION] for each in asked.choices)
        return name, asked.prompt[:MOST_QUESTION], choices, _right(name, answers)
    return name, "", (), _right(name, answers)


def _right(name: str, answers: Sequence[tuple[Asked, Mapping[str, "Sample"]]]) -> int:
    for _, of_row in answers:
        sample = of_row.get(name)
        if sample is not None and sample.answer is not None:
            return sample.answer
    return -1


def _value(sample: "Sample | None") -> float:
    return -1.0 if sample is None else round(sample.value, 4)


def _choice(sample: "Sample | None") -> int:
    return -1 if sample is None or sample.choice is None else sample.choice


def _text(sample: "Sample | None") -> str:
    return "" if sample is None or sample.text is None else sample.text[:MOST_TEXT]


def _numbers_first(name: str) -> tuple[int, int, str]:
    """Sort `2` before `10`, and names that are no numbers after them."""
    return (0, int(name), name) if name.isascii() and name.isdigit() else (1, 0, name)
