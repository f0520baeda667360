"""What checkpoints are asked: suites, their items, and the evaluator that asks them.

Read `load_suite`, then `Evaluator`. Only harness.py knows lm-eval.
"""

from eval_ops.suites.evaluator import Evaluator
from eval_ops.suites.items import Item, ItemsFile, read_items
from eval_ops.suites.suites import Benchmark, Suite, load_suite

__all__ = ["Benchmark", "Evaluator", "Item", "ItemsFile", "Suite", "load_suite", "read_items"]
