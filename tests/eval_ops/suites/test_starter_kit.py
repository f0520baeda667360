"""The LLM-Merging starter kit's formulas, written anew: accuracy by summed log-likelihood, ROUGE.

Independent of lm-eval, of our evaluator and of rouge_score: transformers alone gives probabilities
and texts, and ROUGE is counted here.
"""

import ast
import csv
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assets.work.suite_files import load_suite
from eval_ops.suites import Evaluator
from tests.real_data import real_data

LIMIT = 6


@pytest.fixture(scope="module")
def checkpoint(write_checkpoint: Callable[..., Path], tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("starter-kit")
    return write_checkpoint(folder, 11, max_position_embeddings=8192)


@pytest.fixture(scope="module")
def scores(checkpoint: Path, tmp_path_factory: Any) -> Any:
    path = tmp_path_factory.mktemp("suite") / "merging-challenge.yaml"
    document = {"shipped": "merging-challenge", "name": "merging-challenge", "limit": LIMIT}
    path.write_text(json.dumps({**document, "data_dir": str(real_data())}))
    return Evaluator(load_suite(path), batch_size=8).score(checkpoint)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="auto")
    return loaded.eval(), AutoTokenizer.from_pretrained(checkpoint)


def rows_of(file: str) -> dict[str, dict[str, str]]:
    with real_data("llm_merging", file).open(newline="", encoding="utf-8") as lines:
        return {row["id"]: row for row in csv.DictReader(lines)}


def summed(model: Any, tokenizer: Any, prompt: str, choice: str) -> float:
    """Sum log p(token | everything before it) over the tokens of a choice."""
    import torch

    before, after = tokenizer.encode(prompt), tokenizer.encode(f" {choice}")
    with torch.no_grad():
        logits = model(torch.tensor([before + after])).logits[0].double()
    table = torch.log_softmax(logits, dim=-1)
    return sum(float(table[len(before) + n - 1, token]) for n, token in enumerate(after))


def test_accuracy_is_that_of_summed_likelihoods(scores: Any, model: tuple[Any, Any]) -> None:
    rows = rows_of("cosmos_qa.csv")
    right = Counter[str]()
    for sample in scores.samples:
        if sample.benchmark != "cosmos_qa":
            continue
        row = rows[sample.item]
        choices = ast.literal_eval(row["answer_choices"])
        sums = [summed(*model, row["input"], choice) for choice in choices]
        assert sample.loglikelihoods == pytest.approx(sums, abs=1e-3)
        chosen = sums.index(max(sums))
        assert sample.choice == chosen
        assert sample.value == float(chosen == int(row["target"]))
        right[sample.split] += chosen == int(row["target"])
    for split in ("validation", "test"):
        assert scores.score("cosmos_qa", split).value == right[split] / LIMIT


def words(text: str) -> list[str]:
    return re.findall("[a-z0-9]+", text.lower())


def f_measure(common: int, written: int, wanted: int) -> float:
    if not common:
        return 0.0
    precision, recall = common / written, common / wanted
    return 2 * precision * recall / (precision + recall)


def rouge_l(text: str, target: str) -> float:
    a, b = words(text), words(target)
    lengths = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            same = lengths[i][j] + 1
            lengths[i + 1][j + 1] = same if x == y else max(lengths[i][j + 1], lengths[i + 1][j])
    return f_measure(lengths[-1][-1], len(a), len(b))


def test_summaries_and_rouge_are_those_of_greedy_generation(
    scores: Any, model: tuple[Any, Any]
) -> None:
    import torch

    module, tokenizer = model
    rows = rows_of("xsum.csv")
    values: dict[str, list[float]] = {"validation": [], "test": []}
    for sample in scores.samples:
        if sample.benchmark == "xsum":
            row = rows[sample.item]
            prompt = tokenizer(row["input"], return_tensors="pt")
            with torch.no_grad():
                out = module.generate(**prompt, max_new_tokens=64, do_sample=False)
            new = out[0, prompt["input_ids"].shape[1] :]
            assert sample.text == tokenizer.decode(new, skip_special_tokens=True)
            assert sample.value == pytest.approx(rouge_l(sample.text, row["target"]))
            values[sample.split].append(rouge_l(sample.text, row["target"]))
    for split, given in values.items():
        assert len(given) == LIMIT
        assert scores.score("xsum", split).value == pytest.approx(sum(given) / LIMIT)


def test_rouge_of_real_summaries_is_what_is_counted_by_hand() -> None:
    from eval_ops.suites.valuing.answers import rouge

    rows = list(rows_of("xsum.csv").values())
    for row, other in itertools.pairwise(rows):
        text, target = other["input"][:400], row["target"]
        ours = rouge(text, [target])
        a, b = Counter(words(text)), Counter(words(target))
        assert ours["rouge1"] == pytest.approx(f_measure((a & b).total(), a.total(), b.total()))
        assert ours["rougeL"] == pytest.approx(rouge_l(text, target))
