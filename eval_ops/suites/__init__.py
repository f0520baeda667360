"""What checkpoints are asked: suites, their items, and the evaluator that asks them.

Read `check_suite`, then `Evaluator`. Only harness.py knows lm-eval. What a judge grades, and
programs that are run, get their scores in `later_scores`.
"""

from eval_ops.suites import served
from eval_ops.suites.evaluator import Evaluator, fetch_data
from eval_ops.suites.reading.items import Item
from eval_ops.suites.reading.items import read_items as read_items
from eval_ops.suites.suite_json import suite_to_json
from eval_ops.suites.suites import Judge, Suite, check_suite, shipped_suites
from eval_ops.suites.valuing.later_scores import later_scores

__all__ = [
    "Evaluator",
    "Item",
    "Judge",
    "Suite",
    "check_suite",
    "fetch_data",
    "later_scores",
    "served",
    "shipped_suites",
    "suite_to_json",
]
