"""A model's folder as others publish it: what is taken of it, and what is passed over."""

from pathlib import Path

from resources.upstream.folder_source import FolderModel
from resources.upstream.model_sources import open_model_source


def write_model(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(200)) * 100)
    for name in (
        "config.json",
        "merges.txt",
        "tokenizer.model",
        "chat_template.jinja",
        "README.md",
    ):
        (folder / name).write_text(name)
    for name in ("training_args.bin", "optimizer.pt", ".gitattributes", "modeling_x.py", "x.png"):
        (folder / name).write_text(name)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool.jinja").write_text("tool")
    (folder / "modules.json").write_text("[]")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    (folder / "original").mkdir()
    (folder / "original" / "consolidated.safetensors").write_text("no")


TAKEN = {
    "model.safetensors", "config.json", "merges.txt", "tokenizer.model", "chat_template.jinja",
    "README.md", "additional_chat_templates/tool.jinja", "modules.json", "1_Pooling/config.json",
}  # fmt: skip


def opened(folder: Path, tmp_path: Path) -> FolderModel:
    """The folder as an upstream model; hashes that are remembered lie in tmp_path."""
    source = open_model_source(folder.name, folder.parent, cache=tmp_path / "revisions")
    assert isinstance(source, FolderModel)
    return source


def upload(folder: Path, root: str) -> None:
    import s3fs

    files = s3fs.S3FileSystem(skip_instance_cache=True)
    for path in folder.rglob("*"):
        if path.is_file():
            files.pipe_file(f"{root}/{path.relative_to(folder).as_posix()}", path.read_bytes())
