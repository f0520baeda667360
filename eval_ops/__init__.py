"""Evaluation as a library: suites, one wrapper of lm-eval, scores, comparison, gates, plots.

Read `suites.check_suite`, then `harness.Evaluator`. Nothing heavy is imported here or at the top
of any module of this package: torch, transformers, datasets, lm_eval, pyarrow and matplotlib come
in when a function first needs them.
"""
