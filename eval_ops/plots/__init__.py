"""Pictures of scores and task vectors for people: each `…_plot` returns the bytes of one PNG.

Labels may be Chinese (fonts.py); what no font has is written as an escape (`\\u4e2d`). Colours can
be told apart by colour-blind readers. `…_figure` returns the same picture as a matplotlib figure,
before it is drawn.
"""

from eval_ops.plots.course import course_plot
from eval_ops.plots.heatmap import heatmap
from eval_ops.plots.layer_norms import layer_norm_plot
from eval_ops.plots.leaderboard import leaderboard_plot
from eval_ops.plots.routing import routing_plot
from eval_ops.plots.saliency import saliency_plot
from eval_ops.plots.study import study_plot
from eval_ops.plots.sweep import coefficient_plot
from eval_ops.plots.tradeoffs import front_plot, retention_plot

__all__ = [
    "coefficient_plot",
    "course_plot",
    "front_plot",
    "heatmap",
    "layer_norm_plot",
    "leaderboard_plot",
    "retention_plot",
    "routing_plot",
    "saliency_plot",
    "study_plot",
]
