"""Atomic writing."""

import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from napari_cellpath.core.errors import OutputError
from napari_cellpath.core.files import write_atomically


def test_text_and_bytes_arrive_unchanged(tmp_path: Path) -> None:
    """No newline is translated, and nothing but the file is left in the folder."""
    write_atomically(tmp_path / "a", "é\n\r\n")
    write_atomically(tmp_path / "b", b"\x00\xff")
    assert (tmp_path / "a").read_bytes() == "é\n\r\n".encode()
    assert (tmp_path / "b").read_bytes() == b"\x00\xff"
    assert {file.name for file in tmp_path.iterdir()} == {"a", "b"}


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_failure_at_any_step_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    """Full disk, I/O error, read-only: one sentence, the old content, no leftovers."""
    target = tmp_path / "calls.csv"
    target.write_text("old")

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OutputError, match=r"calls\.csv could not be written: .*intact"):
            write_atomically(target, "new")
    assert target.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["calls.csv"]


@pytest.mark.parametrize("name", ["missing/x.csv", "folder", "n" * 300, "a\x00b"])
def test_impossible_places_are_named(tmp_path: Path, name: str) -> None:
    """A missing folder, a folder in the way, a name too long or with a zero byte."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="could not be written"):
        write_atomically(tmp_path / name, "x")


@pytest.mark.skipif(sys.platform == "win32", reason="links and modes are POSIX")
def test_links_and_permissions_survive(tmp_path: Path) -> None:
    """Replacing through a link keeps the link; the file keeps its mode."""
    target = tmp_path / "real.csv"
    target.write_text("old")
    target.chmod(0o640)
    (tmp_path / "link.csv").symlink_to(target)
    write_atomically(tmp_path / "link.csv", "new")
    assert (tmp_path / "link.csv").is_symlink()
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


@pytest.mark.skipif(sys.platform == "win32", reason="umask is POSIX")
def test_new_files_follow_the_umask(tmp_path: Path) -> None:
    """Not the private mode of temporary files: colleagues must be able to read results."""
    before = os.umask(0o022)
    try:
        write_atomically(tmp_path / "x", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o644
