import json
import math
from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eval_ops.errors import PairingError, ScoresError
from eval_ops.scores.scores import (
    Sample,
    SuiteScores,
    mean_and_stderr,
    samples_from_parquet,
    samples_to_parquet,
    scores_digest,
    summarize,
)

ScoresOf = Callable[..., SuiteScores]


def test_mean_and_standard_error_by_hand() -> None:
    # 3 of 4 right: mean 3/4; squared distances 3 · (1/4)² + (3/4)² = 3/4; variance (3/4) / 3 = 1/4;
    # standard error √(1/4 / 4) = 1/4.
    assert mean_and_stderr([1, 1, 0, 1]) == (0.75, 0.25)
    # 1 of 2: squared distances 2 · (1/2)² = 1/2, which is the variance; standard error √(1/2 / 2).
    assert mean_and_stderr([1, 0]) == (0.5, 0.5)
    assert mean_and_stderr([1.0]) == (1.0, None)


def test_standard_error_is_that_of_lm_eval() -> None:
    from lm_eval.api.metrics import mean, mean_stderr

    for values in ([1, 0, 0, 1, 1], [0.25, 0.5, 1.75], [1.0] * 7):
        assert mean_and_stderr(values)[0] == pytest.approx(mean(values), rel=1e-15)
        assert mean_and_stderr(values)[1] == pytest.approx(mean_stderr(values), rel=1e-15)


def test_mean_over_benchmarks_by_hand(scores_of: ScoresOf) -> None:
    # herbs 3/4 ± 1/4, idioms 2/4 ± √(1/3 / 4); mean 5/8 ± ½ √(1/16 + 1/12).
    scores = scores_of(herbs=([1], [1, 1, 0, 1]), idioms=([0], [1, 0, 0, 1]))
    assert scores.benchmarks == ("herbs", "idioms")
    assert scores.mean().value == 0.625
    assert scores.mean().stderr == pytest.approx(math.sqrt(1 / 16 + 1 / 12) / 2)
    assert scores.mean("validation")[:2] == (0.5, None)
    assert scores.score("idioms", "test").n == 4
    assert scores.values("herbs")["herbs-test-2"] == 0.0


def test_what_is_not_there(scores_of: ScoresOf) -> None:
    scores = scores_of(herbs=([], [1, 0]))
    with pytest.raises(PairingError, match=r"'herbs' has no validation items that were scored"):
        scores.mean("validation")
    with pytest.raises(PairingError, match=r"'idioms' has no test items"):
        scores.score("idioms")
    bare = SuiteScores.from_json(scores.to_json())
    with pytest.raises(PairingError, match=r"carry no samples of 'herbs' \(test\)"):
        bare.values("herbs")


def test_a_split_that_was_not_scored_is_told_from_samples_that_were_left_out(
    scores_of: ScoresOf,
) -> None:
    """The first asks for items, the second for the Parquet file."""
    whole = scores_of(herbs=([], [1, 0]))
    bare = SuiteScores.from_json(whole.to_json())
    for scores in (whole, bare):
        with pytest.raises(PairingError, match=r"'herbs' has no validation items that were scored"):
            scores.values("herbs", "validation")
        with pytest.raises(PairingError, match=r"'idioms' has no test items that were scored"):
            scores.values("idioms")
    with pytest.raises(PairingError, match=r"carry no samples of 'herbs' \(test\)"):
        bare.values("herbs")


SAMPLES = (
    Sample("herbs", "test", "人参-1", 1.0, 2, 2, (-1.5, -0.25, -1e-300)),
    Sample("herbs", "test", "b", 0.0, 0, 1, (-0.1, -0.2)),
    Sample("herbs", "validation", "c", 0.5, group="passage 7", text="答案", length=2),
    Sample("herbs", "validation", "d", 1.0, group="passage 7", text="", length=1),
)


def test_round_trip_through_json_and_parquet() -> None:
    scores = SuiteScores("s", "d" * 64, summarize(SAMPLES, "acc", "v"), SAMPLES, {"torch": "2"})
    data = scores.samples_to_parquet()
    assert samples_from_parquet(data) == SAMPLES
    assert SuiteScores.from_json(scores.to_json(), data) == scores
    assert scores.samples_to_parquet() == data
    assert json.loads(scores.to_json())["scores"][1]["n"] == 2
    assert [sample.correct for sample in SAMPLES] == [True, False, False, True]
    assert [score.mean_length for score in scores.scores] == [1.5, None]
    assert scores.groups("herbs", "validation") == {"c": "passage 7", "d": "passage 7"}
    assert scores.groups("herbs") == {}


def test_scores_of_format_1_are_read() -> None:
    """They know no intervals, groups, texts or lengths: the intervals follow from what they say."""
    text = (
        '{"format": 1, "suite": "s", "suite_digest": "d", "versions": {}, "scores": [{"benchmark":'
        ' "b", "split": "test", "metric": "acc", "value": 1.0, "stderr": 0.0, "n": 20, "version":'
        ' "v"}]}'
    )
    samples = tuple(Sample("b", "test", str(n), 1.0, 0, 0, (-1.0, -2.0)) for n in range(20))
    table = pq.read_table(pa.BufferReader(samples_to_parquet(samples)))
    sink = pa.BufferOutputStream()
    pq.write_table(table.drop_columns(["group", "text", "length"]), sink)
    earlier = sink.getvalue().to_pybytes()
    assert samples_from_parquet(earlier) == samples
    for data in (earlier, lambda: earlier):
        scores = SuiteScores.from_json(text, data)
        assert len(scores.values("b")) == 20
        assert scores.groups("b") == {}
        # Wilson's lower bound of 20 of 20 is n / (n + z²).
        assert scores.score("b").low == pytest.approx(20 / (20 + 1.959964**2))
        assert (scores.score("b").high, scores.score("b").mean_length) == (1.0, None)
    sink = pa.BufferOutputStream()
    pq.write_table(table.drop_columns(["text"]), sink)  # of no format
    with pytest.raises(ScoresError, match="the samples cannot be read"):
        samples_from_parquet(sink.getvalue().to_pybytes())


def test_scores_digests_did_not_change_with_the_form() -> None:
    """What was scored before is not scored again."""
    assert scores_digest("a", "b").startswith("449ac48fe8ed4630")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the scores cannot be read: JSONDecodeError"),
        ("{}", "the scores cannot be read: KeyError: 'format'"),
        ('{"format": 99}', "format 99; this version of Ronghe reads formats 1 and 2"),
        ("[]", "the scores cannot be read: TypeError"),
    ],
)
def test_unreadable_scores(text: str, message: str) -> None:
    with pytest.raises(ScoresError, match=message):
        SuiteScores.from_json(text)


def test_unreadable_or_foreign_samples(scores_of: ScoresOf) -> None:
    scores = scores_of(herbs=([1], [1, 0]))
    with pytest.raises(ScoresError, match="the samples cannot be read"):
        samples_from_parquet(b"PAR1 nonsense")
    other = scores_of(herbs=([1], [1, 0, 1])).samples_to_parquet()
    with pytest.raises(ScoresError, match="the two files do not belong together"):
        SuiteScores.from_json(scores.to_json(), other)


def test_scores_digest_tells_checkpoints_and_suites_apart() -> None:
    digests = {scores_digest("a", "b"), scores_digest("b", "a"), scores_digest("ab", "")}
    assert len(digests) == 3
    assert scores_digest("a", "b") == scores_digest("a", "b")


def test_answers_worth_nan_are_told_when_samples_are_checked(scores_of: ScoresOf) -> None:
    """What compares with nothing is named where it is read, and not ranked by chance."""
    sound = scores_of(a=([1, 0], [1, 1]))
    sound.check_samples()
    samples = (replace(sound.samples[0], value=math.nan), *sound.samples[1:])
    with pytest.raises(ScoresError, match=r"suite 'tiny': answers are worth NaN or infinity"):
        replace(sound, samples=samples).check_samples()
    scores = (replace(sound.scores[0], value=math.inf), *sound.scores[1:])
    with pytest.raises(ScoresError, match="weights are broken"):
        replace(sound, scores=scores).check_samples()
