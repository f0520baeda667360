"""Files of a folder: one door to them, their bytes, and text of strangers read within bounds."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # modules, imported when they are asked for
    from merge_ops.checkpoints.files import bounded_yaml, plain_files

__all__ = ["bounded_yaml", "plain_files"]
