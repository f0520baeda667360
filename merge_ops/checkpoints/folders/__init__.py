"""What a folder is: its verdict and facts, its files of weights, and what is none."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # modules, imported when they are asked for
    from merge_ops.checkpoints.folders import folder_facts, folder_verdict

__all__ = ["folder_facts", "folder_verdict"]
