"""With `lm_eval_batch_size` answers are those of lm-eval's own class, to the digit in bfloat16."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from assets.work.suite_files import load_suite
from eval_ops.suites import Evaluator
from eval_ops.suites.suite_json import suite_from_json, suite_to_json

BATCH = 3


@pytest.fixture(scope="module")
def half(checkpoints: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in bfloat16."""
    folder = tmp_path_factory.mktemp("half")
    for file in checkpoints[2].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    halved = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    save_file(halved, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    return folder


@pytest.fixture(scope="module")
def suite_file(suite_path: Path, write_items: Callable[..., Path]) -> Path:
    """Two benchmarks of choices, whose questions lm-eval would mix, and one that is written."""
    written = suite_path.parent / "written.jsonl"
    rows = [
        {"id": f"w{n}", "split": "test", "prompt": f"{n}. Say it:", "answers": ["mint"]}
        for n in range(4)
    ]
    written.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = suite_path.parent / "exact.yaml"
    path.write_text(
        f"name: exact\nlm_eval_batch_size: {BATCH}\nbenchmarks:\n"
        "  - {name: herbs, items: herbs.jsonl}\n"
        "  - {name: idioms, items: idioms.jsonl, metric: acc_norm, delimiter: ' '}\n"
        "  - {name: written, items: written.jsonl, kind: generation, metric: exact_match,"
        " max_new_tokens: 5}\n"
    )
    return path


def ask_lm_eval(folder: Path, suite: Any, name: str) -> list[Any]:
    """The answers of lm-eval's class alone to one benchmark, in the order of its items."""
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from eval_ops.suites import harness

    (benchmark,) = [each for each in suite.benchmarks if each.name == name]
    (task,) = harness.build_tasks(benchmark).values()
    task.build_all_requests(rank=0, world_size=1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert model.dtype == torch.bfloat16
    kind: Any = HFLM
    lm = kind(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(folder), batch_size=BATCH)
    return list(getattr(lm, task.instances[0].request_type)(task.instances, disable_tqdm=True))


def test_the_digits_are_those_of_lm_eval(half: Path, suite_file: Path) -> None:
    suite = load_suite(suite_file)
    counted: list[tuple[int, int]] = []
    evaluator = Evaluator(suite, threads=1)
    scores = evaluator.score(half, lambda done, total: counted.append((done, total)))
    for name in ("herbs", "idioms"):
        ours = [v for s in scores.samples if s.benchmark == name for v in s.loglikelihoods]
        assert ours == [value for value, _ in ask_lm_eval(half, suite, name)]
    ours = [sample.text for sample in scores.samples if sample.benchmark == "written"]
    assert ours == ask_lm_eval(half, suite, "written")
    assert [last for last in counted if last[0] == last[1]] == [(96, 96), (60, 60), (4, 4)]


def test_one_benchmark_alone_has_the_same_digits(half: Path, suite_file: Path) -> None:
    """Batches hold one benchmark's questions, so another one beside it moves nothing."""
    suite = load_suite(suite_file)
    whole = Evaluator(suite, threads=1).score(half)
    alone = suite_file.with_name("alone.yaml")
    text = suite_file.read_text() + "only: [idioms]\n"
    alone.write_text(text.replace("name: exact", "name: alone"))
    part = Evaluator(load_suite(alone), threads=1).score(half)
    assert part.samples == tuple(s for s in whole.samples if s.benchmark == "idioms")


def test_the_batch_size_is_a_part_of_the_suite(suite_file: Path) -> None:
    suite = load_suite(suite_file)
    assert suite.lm_eval_batch_size == BATCH
    assert suite_from_json(json.loads(json.dumps(suite_to_json(suite)))) == suite
    text = suite_file.read_text()
    other = suite_file.with_name("other.yaml")
    digests = {suite.digest}
    for line in ("lm_eval_batch_size: 4\n", ""):
        other.write_text(text.replace(f"lm_eval_batch_size: {BATCH}\n", line))
        digests.add(load_suite(other).digest)
    assert len(digests) == 3
