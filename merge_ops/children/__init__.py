"""Work of foreign code is done by limited children: pickles, and models that are built and run."""

from merge_ops.children.limited_child import LimitedChild
from merge_ops.children.own_folders import OwnFolder

__all__ = ["LimitedChild", "OwnFolder"]
