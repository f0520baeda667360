"""What is closed at the end of its context."""

from types import TracebackType
from typing import Self


class ClosedAtEnd:
    """Something that holds a process or memory, and lets go of it at the end of its context."""

    def close(self) -> None:
        """Let go of everything."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Enter the context at whose end it is closed."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()
