"""Scoring in a child: the same scores to the last bit, one start, and one fault for one model."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assets.work.scoring import scoring
from assets.work.suite_files import load_suite
from eval_ops.errors import CheckpointLoadError, ModelEndedError
from eval_ops.suites import Evaluator, Suite
from merge_ops.children import model_child
from merge_ops.jobs import verification
from tests.eval_ops.conftest import _write_checkpoint, _write_items

Score = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_checkpoint(tmp_path_factory.mktemp("model") / "m", seed=1, kind="llama")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    place = tmp_path_factory.mktemp("suite")
    _write_items(place / "herbs.jsonl")
    (place / "s.yaml").write_text("name: s\nbenchmarks: [{name: herbs, items: herbs.jsonl}]\n")
    return load_suite(place / "s.yaml")


@pytest.fixture(scope="module")
def score(suite: Suite) -> Score:
    def ask(folder: Path, progress: Any = None) -> Any:
        named = f"model {folder.name}"
        return scoring.score_in_child(folder, named, scoring.Scoring(suite, "cpu", 1), progress)

    return ask


def changed(folder: Path, out: Path, **files: Any) -> Path:
    """A copy of a model's folder, with some of its JSON files changed by functions."""
    shutil.copytree(folder, out)
    for name, change in files.items():
        path = out / f"{name}.json"
        document = json.loads(path.read_text()) if path.exists() else {}
        change(document)
        path.write_text(json.dumps(document))
    return out


def test_scores_are_those_of_this_process_and_one_child_gives_them_all(
    tmp_path: Path, folder: Path, suite: Suite, score: Score
) -> None:
    other = _write_checkpoint(tmp_path / "other", seed=2, kind="llama")
    told: list[tuple[int, int]] = []
    first = score(folder, lambda done, total: told.append((done, total)))
    starts = model_child(False).starts
    second, again = score(other), score(folder)
    assert verification.verify_checkpoint(other).passed
    assert model_child(False).starts == starts  # checks and scores share it
    here = Evaluator(suite, threads=1)
    assert (first, second, again) == (here.score(folder), here.score(other), first)
    assert told[-1] == (96, 96)


def test_a_model_that_cannot_be_loaded_is_told_as_before(tmp_path: Path, score: Score) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointLoadError, match=rf"^{tmp_path}/empty: holds no config.json"):
        score(tmp_path / "empty")


def bomb(tokenizer: dict[str, Any]) -> None:
    """Five rules, each of which makes a thousand letters of one."""
    rules = [
        {"type": "Replace", "pattern": {"String": old}, "content": new * 1000}
        for old, new in zip("eabcd", "abcde", strict=True)
    ]
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": rules}


def replacing(expression: str) -> Callable[[dict[str, Any]], None]:
    """A tokenizer that looks for an expression in every text."""

    def change(tokenizer: dict[str, Any]) -> None:
        pattern = {"Regex": expression}
        tokenizer["normalizer"] = {"type": "Replace", "pattern": pattern, "content": ""}

    return change


def test_a_bomb_ends_the_child_and_that_model_alone(
    tmp_path: Path, folder: Path, score: Score, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = score(folder)
    monkeypatch.setattr("merge_ops.children.kept_models.LEAST_MEMORY", 3 << 29)
    ended = r"^the child that scores model bomb on suite s ended: out of memory \(limit 1.5 GiB"
    with pytest.raises(ModelEndedError, match=ended):
        score(changed(folder, tmp_path / "bomb", tokenizer=bomb))
    assert score(folder) == sound


@pytest.mark.parametrize(
    ("expression", "cause"),
    [
        ("(?:.|[^q])+(?!)", "PanicException: Onig: Regex search error: retry-limit-in-match over"),
        ("(?:.|[^q]){1,18}(?!)", r"it took far more CPU time than such work takes \(SIGXCPU"),
    ],
)
def test_an_expression_that_takes_for_ever_ends_the_child_and_that_model_alone(
    tmp_path: Path,
    folder: Path,
    score: Score,
    monkeypatch: pytest.MonkeyPatch,
    expression: str,
    cause: str,
) -> None:
    """The first gives up by a panic, which is no Exception; the second tries 2^18 ways a letter."""
    monkeypatch.setattr(scoring, "TOKENIZER_SECONDS", 1)
    with pytest.raises(ModelEndedError, match=f"scores model ever on suite s ended: {cause}"):
        score(changed(folder, tmp_path / "ever", tokenizer=replacing(expression)))


def test_a_config_of_far_more_layers_is_refused_before_they_are_built(
    tmp_path: Path, folder: Path, score: Score
) -> None:
    def deep(config: dict[str, Any]) -> None:
        config["num_hidden_layers"] = 10**7
        config.pop("layer_types", None)

    place = changed(folder, tmp_path / "deep", config=deep)
    with pytest.raises(CheckpointLoadError, match="describes a far larger model than the 2"):
        score(place)
    (problem,) = verification.verify_checkpoint(place).problems
    assert "layers" in problem or "far larger" in problem


def test_what_lies_beside_a_model_changes_no_score(
    tmp_path: Path, folder: Path, score: Score
) -> None:
    """An adapter, code, weights of other programs, and kernels that a machine may have or not."""
    place = changed(
        folder,
        tmp_path / "beside",
        adapter_config=lambda document: document.update(peft_type="LORA", r=8),
        config=lambda document: document.update(
            attn_implementation="flash_attention_2",
            _attn_implementation="kernels-community/flash-attn",
            auto_map={"AutoModelForCausalLM": "modeling.M"},
        ),
    )
    (place / "adapter_model.safetensors").write_bytes(b"no adapter")
    (place / "modeling.py").write_text("raise SystemExit('run')")
    (place / "pytorch_model.bin").write_bytes(b"older weights")
    (place / "model.gguf").write_bytes(b"quantized")
    assert score(place).scores == score(folder).scores
    for name in ("adapter_model.safetensors", "adapter_config.json"):  # refused before it is loaded
        (place / name).unlink()
    assert verification.verify_checkpoint(place).problems == ()
