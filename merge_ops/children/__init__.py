"""Work of foreign code is done by limited children: pickles, and models that are built and run."""

from merge_ops.children.kept_models import ask_of_model, model_child
from merge_ops.children.limited_child import LimitedChild
from merge_ops.children.own_folders import OwnFolder

__all__ = ["LimitedChild", "OwnFolder", "ask_of_model", "model_child"]
