"""Calibration texts: one a line, or JSON lines; every faulty line is told."""

from pathlib import Path

import pytest

from merge_ops.calibration import texts
from merge_ops.calibration.texts import read_texts
from merge_ops.errors import MissingModelError, SettingsError


def test_lines_and_json_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeffone\n\n  \n茯苓 two \n", encoding="utf-8")
    assert read_texts(tmp_path / "a.txt") == ("one", "茯苓 two ")
    (tmp_path / "a.jsonl").write_text('{"text": "a\\nb", "id": 1}\n\n{"text": "c"}\n')
    assert read_texts(tmp_path / "a.jsonl") == ("a\nb", "c")


def test_faults_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\nplain\n{"words": "a"}\n{"text": " "}\n[1]\n')
    with pytest.raises(SettingsError, match=r"4 faults(.|\n)*line 2 has no `text`(.|\n)*line 5"):
        read_texts(path)
    path.write_text("\n")
    with pytest.raises(SettingsError, match="holds no text; write one a line"):
        read_texts(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"is no text in UTF-8 \(byte 0\)"):
        read_texts(path)
    with pytest.raises(MissingModelError, match="calibration texts cannot be read"):
        read_texts(tmp_path / "none")
    monkeypatch.setattr(texts, "MOST_BYTES", 1)
    with pytest.raises(SettingsError, match="has more than 1 bytes; take some of its texts"):
        read_texts(path)
