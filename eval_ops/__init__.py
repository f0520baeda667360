"""Evaluation as a library: suites, one wrapper of lm-eval, scores, comparison, gates, plots.

Four rooms: `suites` (what is asked, and the evaluator that asks it), `running` (a model in memory),
`scores` (what came out, compared and judged), `plots`. Read `suites.load_suite`, then
`suites.Evaluator`, then `scores.SuiteScores`.

Nothing heavy is imported here or at the top of any module of this package: torch, transformers,
datasets, lm_eval, pyarrow and matplotlib come in when a function first needs them.
"""
