"""Progress in the log: now and then, and only for long work."""

from assets.frame.progress_log import log_progress


class Lines:
    """A log that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def info(self, msg: object) -> None:
        self.said.append(str(msg))


def test_a_line_every_ten_seconds_with_the_time_left() -> None:
    log, now = Lines(), [0.0]
    report = log_progress(log, "ties a+b", lambda: now[0])
    for second in range(1, 41):
        now[0] = float(second)
        report(second, 40)
    assert log.said == [
        "ties a+b: 25% done, about 30 s left",
        "ties a+b: 50% done, about 20 s left",
        "ties a+b: 75% done, about 10 s left",
    ]


def test_short_work_says_nothing() -> None:
    log, now = Lines(), [0.0]
    report = log_progress(log, "ties a+b", lambda: now[0])
    for done in range(100):
        now[0] += 0.09
        report(done, 100)
    assert log.said == []
