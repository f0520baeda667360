"""What checkpoints are asked: suites, their items, and the evaluator that asks them.

Read `check_suite`, then `Evaluator`. Only harness.py knows lm-eval.
"""

from eval_ops.suites.evaluator import Evaluator, fetch_data
from eval_ops.suites.items import Item, ItemsFile, read_items
from eval_ops.suites.suite_json import suite_to_json
from eval_ops.suites.suites import Benchmark, Suite, check_suite

__all__ = [
    "Benchmark",
    "Evaluator",
    "Item",
    "ItemsFile",
    "Suite",
    "check_suite",
    "fetch_data",
    "read_items",
    "suite_to_json",
]
