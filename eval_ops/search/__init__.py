"""Search: which points of a recipe's parameters to try next, told from those that were tried.

Read `check_search`, then `propose`: a point follows from the settings and the trials before it, so
a study that was killed goes on as if it had not been. `winners` says which point is taken in the
end. Nothing here knows a store or a model.
"""

from eval_ops.search import winners
from eval_ops.search.samplers import propose
from eval_ops.search.settings import MEAN, SearchSettings, check_search
from eval_ops.search.spaces import Point, SearchSpace, space_of
from eval_ops.search.studies import Study, Trial
from eval_ops.search.studies import pareto_front as pareto_front

__all__ = [
    "MEAN",
    "Point",
    "SearchSettings",
    "SearchSpace",
    "Study",
    "Trial",
    "check_search",
    "propose",
    "space_of",
    "winners",
]
