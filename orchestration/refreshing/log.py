"""Where the log of an in-process refresh goes: a file, so that the terminal shows progress."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from assets.frame.display import TOLD

WAITING = "ronghe.waiting"  # of resources.locks
FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


class ErrorCollector(logging.Handler):
    """An error collector keeps what assets told (assets.frame.display.tell); Dagster's own it
    leaves.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one message, without Dagster's prefix."""
        metadata = getattr(record, "dagster_meta", None)
        if getattr(record, TOLD, False) and metadata:
            self.messages.append(str(metadata.get("orig_message", record.getMessage())))

    def take(self) -> list[str]:
        """Return what was reported since the last time."""
        messages, self.messages = self.messages, []
        return messages


class RunLog:
    """A run log is a file, and the Dagster logger that writes into it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.errors = ErrorCollector()
        path.write_text("", encoding="utf-8")
        # Dagster configures logging at every run, which closes all handlers; this mode opens again.
        self._file = logging.FileHandler(path, mode="a", encoding="utf-8", delay=True)
        self._file.setFormatter(logging.Formatter(FORMAT))

    @property
    def logger(self) -> logging.Logger:
        """A logger that writes into the file, and keeps what assets told."""
        log = logging.Logger("ronghe.refresh", logging.DEBUG)
        log.addHandler(self._file)
        log.addHandler(self.errors)
        return log

    @property
    def loggers(self) -> dict[str, dg.LoggerDefinition]:
        """What to give a job instead of Dagster's console logger."""

        @dg.logger
        def to_file(_: dg.InitLoggerContext) -> logging.Logger:
            return self.logger

        return {"console": to_file}

    @contextmanager
    def everything(self) -> Iterator[None]:
        """Send every other logger of this process, and warnings, to the file as well."""
        _no_other_progress_bars()
        root = logging.getLogger()
        before, level = root.handlers[:], root.level
        root.handlers[:] = [self._file]
        logging.captureWarnings(True)
        waiting, told = logging.getLogger(WAITING), logging.StreamHandler()
        waiting.addHandler(told)  # whom it waits for is said on the terminal too
        try:
            yield
        finally:
            waiting.removeHandler(told)
            logging.captureWarnings(False)
            root.handlers[:] = before
            root.setLevel(level)
            self._file.close()


def _no_other_progress_bars() -> None:
    """Ours are drawn instead of those of transformers, datasets, and whoever draws by tqdm."""
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TQDM_DISABLE", "1")  # children, and what imports tqdm from here on
    for module, quiet in (
        ("transformers.utils.logging", "disable_progress_bar"),
        ("datasets.utils.tqdm", "disable_progress_bars"),
    ):
        imported = sys.modules.get(module)
        if imported is not None:  # it read the variable when it was imported
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the variable says the same already
                getattr(imported, quiet)()
