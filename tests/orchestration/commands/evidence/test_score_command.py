"""What `ronghe score` refuses before it asks anybody; eval_ops has the test of what it shows."""

from pathlib import Path

import pytest

from merge_ops.errors import SettingsError
from orchestration.commands.evidence.score_command import run_score
from resources.benchmarks import endpoint_key


def refused(url: str, tokenizer: Path | None = None) -> None:
    run_score(Path("suite.yaml"), url, "m", tokenizer, None, 1, 2048)


def test_wrong_options_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--endpoint.*http:// or https://") as caught:
        refused("localhost:8000", tmp_path)
    assert "holds no tokenizer_config.json" in str(caught.value)
    with pytest.raises(SettingsError, match="without a password"):
        refused("http://me:secret@host/v1")


def test_the_key_is_the_one_that_all_clients_take() -> None:
    assert endpoint_key({"OPENAI_API_KEY": "k"}) == "k"
    assert endpoint_key({}) == ""
