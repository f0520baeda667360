"""The child that asks transformers imports, and opens, no more than an answer needs."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from merge_ops.children import loading_child


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is imported; transformers knows no architecture here."""
    names: list[str] = []
    logging = SimpleNamespace(
        CRITICAL=0, set_verbosity=lambda _: None, disable_progress_bar=lambda: None
    )
    fake = SimpleNamespace(CONFIG_MAPPING={}, __version__="0", logging=logging)

    def imports(*wanted: str) -> list[Any]:
        names.extend(wanted)
        return [fake for _ in wanted]

    monkeypatch.setattr(loading_child, "_imported", imports)
    monkeypatch.setattr(loading_child, "_loaders", [])
    return names


def test_what_transformers_does_not_know_needs_nothing_of_loading(
    imported: list[str], tmp_path: Path
) -> None:
    config = {"model_type": "of_tomorrow"}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"not looked into")
    requests: list[dict[str, Any]] = [
        {"config": config, "tensors": [["a", [1]]]},
        {"folder": str(tmp_path), "architectures": None},
    ]
    for request in requests:
        answer = loading_child.answer(request, print)
        assert answer == {"state": "unknown", "why": "transformers 0 knows no 'of_tomorrow'"}
    assert imported == ["torch", "transformers"]


def test_what_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading_child, "_loaders", [])

    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(loading_child, "import_module", missing)
    answer = loading_child.answer({"config": {}, "tensors": []}, print)
    assert answer == {"state": "unknown", "why": "torch is not installed"}
