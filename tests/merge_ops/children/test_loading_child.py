"""The child that asks transformers imports, and opens, no more than an answer needs."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from merge_ops.children import loading_child
from tests.models.checkpoint_factory import LLAMA, read_tensors, write_family


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


def test_files_as_planned_have_the_answer_of_the_plan(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(loading_child, "_loaders", [])
    looks = []
    looked = loading_child._Loader._looked

    def counted(self: Any, config: Any, tensors: Any) -> dict[str, Any]:
        looks.append(len(tensors))
        return looked(self, config, tensors)

    monkeypatch.setattr(loading_child._Loader, "_looked", counted)
    folder = write_family(tmp_path, LLAMA, 1).base
    shapes = {name: list(tensor.shape) for name, tensor in read_tensors(folder).items()}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    planned = {"config": config, "tensors": [*reversed(shapes.items())]}
    written = {"folder": str(folder), "architectures": None}
    first = loading_child.answer(planned, print)
    assert (first["state"], first["missing"]) == ("looked", [])
    assert loading_child.answer(written, print) == first
    assert looks == [len(shapes)]
    lacking = {"config": config, "tensors": [*shapes.items()][1:]}
    assert loading_child.answer(lacking, print)["missing"] == [next(iter(shapes))]
    assert loading_child.answer({**planned, "config": {**config, "x": 1}}, print) == first
    assert looks == [len(shapes), len(shapes) - 1, len(shapes)]
