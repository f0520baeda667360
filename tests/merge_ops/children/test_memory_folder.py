"""A folder whose weights lie in memory: written over, readable by path, and gone at its end."""

import os
from pathlib import Path

import pytest

from merge_ops.children import MemoryFolder, kept_models, shares_memory
from merge_ops.children.memory_folder import MemoryFile, answer
from merge_ops.children.model_view import make_view


def write(folder: MemoryFolder, **files: bytes) -> dict[str, bytes]:
    """Write one checkpoint; what can be read of it by path afterwards."""
    folder.start()
    for name, data in files.items():
        file = name.replace("__", "/").replace("_", ".")
        with folder.open(file, len(data)) as writer:
            for at in range(0, len(data), 3):
                writer.write(memoryview(data)[at : at + 3])
    folder.finish()
    found = sorted(path for path in folder.path.rglob("*") if path.is_file())
    return {path.relative_to(folder.path).as_posix(): path.read_bytes() for path in found}


def test_the_next_checkpoint_is_written_over_the_one_before() -> None:
    with MemoryFolder() as folder:
        first = write(folder, model_safetensors=b"weights 1", config_json=b"{}", a__b_txt=b"x")
        assert first == {"model.safetensors": b"weights 1", "config.json": b"{}", "a/b.txt": b"x"}
        link = os.readlink(folder.path / "model.safetensors")
        assert link.startswith(f"/proc/{os.getpid()}/fd/")
        mapped = os.open(link, os.O_RDONLY)
        second = write(folder, model_safetensors=b"weights 2", config_json=b'{"a": 1}')
        assert second == {"model.safetensors": b"weights 2", "config.json": b'{"a": 1}'}
        assert os.readlink(folder.path / "model.safetensors") == link  # the same memory
        third = write(folder, model_safetensors=b"less", config_json=b"{}")
        assert third["model.safetensors"] == b"less"
        assert os.pread(mapped, 99, 0) == b"weights 2"  # never shrunk below who has it mapped
        os.close(mapped)
        parts = {"model-1_safetensors": b"one", "model-2_safetensors": b"two"}
        assert set(write(folder, **parts)) == {"model-1.safetensors", "model-2.safetensors"}
        path = folder.path
    assert not path.exists()


def test_a_view_for_the_child_leads_to_the_memory(tmp_path: Path) -> None:
    with MemoryFolder() as folder:
        write(folder, model_safetensors=b"weights", config_json=b"{}")
        view = make_view(folder.path, tmp_path / "view")
        assert (view / "model.safetensors").read_bytes() == b"weights"


def test_without_such_memory_it_is_a_temporary_folder() -> None:
    with MemoryFolder(in_memory=False) as folder:
        assert write(folder, model_safetensors=b"weights") == {"model.safetensors": b"weights"}
        assert not (folder.path / "model.safetensors").is_symlink()


def test_the_child_can_read_it() -> None:
    shares_memory.cache_clear()
    assert shares_memory(False)


@pytest.mark.parametrize("fails", ["system", "child"])
def test_where_it_cannot_be_read_that_is_known(monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    class Child:
        def ask(self, request: dict[str, str], *_: object, **__: object) -> dict[str, str]:
            return answer({"path": f"{request['path']}-hidden"}, None)

    if fails == "system":
        monkeypatch.setattr(kept_models, "has_memory_files", lambda: False)
    monkeypatch.setattr(kept_models, "model_child", lambda _: Child())
    shares_memory.cache_clear()
    assert not shares_memory(False)
    shares_memory.cache_clear()


def test_memory_is_let_go_once() -> None:
    memory = MemoryFile(4)
    memory.close()
    memory.close()
    assert not memory.path.exists()
