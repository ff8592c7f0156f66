from pathlib import Path

import pytest

from deploy.files import check_writable, write_at_once
from deploy.runners import DeployError


def test_what_was_there_is_replaced(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        write_at_once(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["folder", "file/below", "nowhere/file"])
def test_what_cannot_be_written_is_named_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"kept")
    for attempt in (check_writable, lambda path: write_at_once(path, b"new")):
        with pytest.raises(DeployError, match=rf"^cannot write .*{name}: "):
            attempt(tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == b"kept"


def test_a_look_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    check_writable(tmp_path / "file")
    check_writable(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
