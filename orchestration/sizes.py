"""Sizes as people read them: `1.2 GB`."""


def size_text(size: int) -> str:
    """Bytes as people compare them with a disk or a line: GB, or MB where there are few."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"
