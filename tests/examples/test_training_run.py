"""The training run of the example: it goes on as if it had not stopped, and its items are apart."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from examples.quickstart.recipe import Shape
from examples.training_run.catalog import SEEN, SPLITS, UNSEEN, items, text_of
from examples.training_run.training import steps_in, train

TINY = Shape(hidden=16, intermediate=24, layers=1, heads=2, kv_heads=1)


def test_a_run_that_goes_on_has_the_bits_of_one_that_did_not_stop(tmp_path: Path) -> None:
    for stops in (["whole", 3], ["parts", 1, 2, 3]):
        for steps in stops[1:]:
            train(tmp_path / str(stops[0]), int(steps), updates=2, shape=TINY)
    assert steps_in(tmp_path / "parts") == [2, 4, 6]
    whole, parts = (
        load_file(tmp_path / name / "run" / "checkpoint-6" / "model.safetensors")
        for name in ("whole", "parts")
    )
    assert all(bool((parts[name] == tensor).all()) for name, tensor in whole.items())
    with pytest.raises(ValueError, match="has 3 steps, which are more than 2"):
        train(tmp_path / "parts", 2, updates=2, shape=TINY)
    (tmp_path / "parts" / "optimizer" / "6.safetensors").unlink()
    with pytest.raises(ValueError, match=r"6.safetensors is gone: the run cannot go on"):
        train(tmp_path / "parts", 4, updates=2, shape=TINY)


def test_items_have_one_right_answer_and_share_no_passage() -> None:
    rows = items(text_of(UNSEEN), SPLITS)
    prompts = [row["prompt"] for row in rows]
    assert len(set(prompts)) == len(prompts) == sum(SPLITS.values())
    assert not any(prompt in text_of(SEEN) for prompt in prompts)
    for row in rows:
        assert len(set(row["choices"])) == 4
        assert f"{row['prompt']}{row['choices'][row['answer']]}" in text_of(UNSEEN)
    with pytest.raises(ValueError, match="passages of 80 characters, not 600"):
        items("short" * 40, SPLITS)
