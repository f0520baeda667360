"""A served model scores as the same checkpoint in this process; what is not given is refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from assets.work.measuring.asking_child import asked_tokenizer
from assets.work.suite_files import load_suite
from eval_ops.errors import CheckpointLoadError, HarnessError
from eval_ops.running import AskedTokenizer, tokenizer_child
from eval_ops.suites import Evaluator, Suite
from eval_ops.suites.served import Endpoint, score_served
from tests.servers.completions_server import served


def tokenizer_here(folder: Path) -> AskedTokenizer:
    """The child's own module, asked in this process: what it answers goes through JSON as there."""
    named = {"name": str(folder), "folder": str(folder), "tokenizer_seconds": 0}

    def ask(request: Mapping[str, Any]) -> Mapping[str, Any]:
        sent = json.loads(json.dumps({**request, **named}))
        return json.loads(json.dumps(tokenizer_child.answer(sent, print)))

    return AskedTokenizer(ask)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """Four questions with choices, and two that a model answers in its own words."""
    root = tmp_path_factory.mktemp("small")
    rows = [
        {
            "id": f"q{n}",
            "split": ("validation", "test")[n % 2],
            "prompt": f"{n}. What warms the lungs?",
            "choices": ["ginger and mint", "rhubarb", "qi"],
            "answer": n % 3,
        }
        for n in range(4)
    ]
    (root / "choices.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    written = [
        {"id": f"w{n}", "split": "test", "prompt": f"{n}. Say it:", "answers": ["mint"]}
        for n in range(2)
    ]
    (root / "written.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    path = root / "small.yaml"
    path.write_text(
        "name: small\nbenchmarks:\n"
        "  - {name: choices, items: choices.jsonl, delimiter: ' '}\n"
        "  - {name: written, items: written.jsonl, kind: generation, metric: exact_match,"
        " max_new_tokens: 6}\n"
    )
    return load_suite(path)


def test_a_served_model_scores_as_its_checkpoint(small: Suite, checkpoints: list[Path]) -> None:
    expected = Evaluator(small, threads=1).score(checkpoints[0])
    counted: list[tuple[int, int]] = []
    with served(checkpoints[0]) as server:
        endpoint = Endpoint(server.url, "tiny", tokenizer_here(checkpoints[0]), "s3cret")
        found = score_served(small, endpoint, lambda done, total: counted.append((done, total)))
    assert found.scores == expected.scores
    assert counted[-1] == (14, 14)
    for ours, theirs in zip(found.samples, expected.samples, strict=True):
        assert ours.loglikelihoods == pytest.approx(theirs.loglikelihoods, abs=2e-5)
        assert (ours.item, ours.text, ours.length) == (theirs.item, theirs.text, theirs.length)
    assert {headers["Authorization"] for _, headers in server.asked} == {"Bearer s3cret"}
    assert {body["model"] for body, _ in server.asked} == {"tiny"}
    assert "s3cret" not in repr(endpoint)


def test_a_server_that_forgets_the_prompt_is_refused(small: Suite, checkpoints: list[Path]) -> None:
    """Its log-likelihoods would all be 0, and the first choice always the best."""
    with (
        served(checkpoints[0], echo=False) as server,
        pytest.raises(HarnessError, match=r"does not give back the prompt \(`echo`"),
    ):
        score_served(small, Endpoint(server.url, "tiny", tokenizer_here(checkpoints[0])))
    assert all("Authorization" not in headers for _, headers in server.asked)


def test_chat_completions_cannot_weigh_choices(small: Suite, checkpoints: list[Path]) -> None:
    with (
        served(checkpoints[0]) as server,
        pytest.raises(HarnessError, match=r"model tiny at http.*/v1: lm-eval stopped"),
    ):
        score_served(small, Endpoint(server.url, "tiny"))
    assert not server.asked


def test_the_command_shows_scores_and_writes_a_table(
    checkpoints: list[Path],
    suite_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from orchestration.commands.evidence.score_command import run_score

    monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
    rows = (suite_path.parent / "herbs.jsonl").read_text().splitlines()[:4]
    (tmp_path / "herbs.jsonl").write_text("\n".join(rows) + "\n")
    path = tmp_path / "tiny.yaml"
    path.write_text("name: tiny\nbenchmarks: [{name: herbs, items: herbs.jsonl}]\n")
    expected = Evaluator(load_suite(path), threads=1).score(checkpoints[1])
    table = tmp_path / "scores.csv"

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a tokenizer is loaded in the command's own process")

    with served(checkpoints[1]) as server:
        monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", refuse)
        run_score(path, server.url, "tiny", checkpoints[1], table, 1, 256)
    assert {headers["Authorization"] for _, headers in server.asked} == {
        "Bearer from-the-environment"
    }
    assert table.read_text().splitlines() == [
        "model,benchmark,split,score,n",
        *(f"tiny,herbs,{s.split},{s.value!r},{s.n}" for s in expected.scores),
    ]
    assert "herbs" in capsys.readouterr().out


def test_an_asked_tokenizer_is_the_tokenizer(checkpoints: list[Path]) -> None:
    from transformers import AutoTokenizer

    real: Any = AutoTokenizer.from_pretrained(checkpoints[0])
    asked = tokenizer_here(checkpoints[0])
    texts = ["ginseng warms", "", "人参", "ginseng warms"]
    for settings in ({"add_special_tokens": False}, {"truncation": True}, {}):
        assert asked(texts, **settings).input_ids == real(texts, **settings).input_ids
        assert asked(texts[2], **settings).input_ids == real(texts[2], **settings).input_ids
    assert (asked.bos_token_id, asked.eos_token_id) == (real.bos_token_id, real.eos_token_id)
    assert (asked.eos_token, asked.chat_template) == (real.eos_token, real.chat_template)


def test_the_template_of_a_chat_is_filled_in_the_child(
    checkpoints: list[Path], tmp_path: Path
) -> None:
    for file in checkpoints[0].glob("*token*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"
    (tmp_path / "chat_template.jinja").write_text(
        template + "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    asked = asked_tokenizer(tmp_path)
    messages = [{"role": "user", "content": "补气"}]
    assert asked.apply_chat_template(messages) == "[user] 补气[assistant]"
    assert asked.apply_chat_template(messages, add_generation_prompt=False) == "[user] 补气"
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointLoadError, match="its tokenizer cannot be loaded"):
        asked_tokenizer(tmp_path)
