"""Writing a file so that a crash leaves the old one or the new one, never half of either.

Saving in place leaves an unreadable file after nearly every kill (reliability.md 1); a new
file, fsync and rename leave none, for a few milliseconds.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path

from napari_cellpath.core.errors import OutputError

_REASONS = {
    errno.ENOSPC: "the disk is full",
    getattr(errno, "EDQUOT", -1): "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "writing there is not permitted",
    errno.EPERM: "writing there is not permitted",
    errno.ENOENT: "its folder does not exist",
    errno.ENOTDIR: "its folder does not exist",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EISDIR: "it is a folder",
}


def write_atomically(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Replace ``path`` by ``data`` in one step; text is written as UTF-8, newlines as they are.

    A link is followed and kept; the permissions of an existing file are kept.

    Raises
    ------
    OutputError
        Nothing was written; what stood at ``path`` before is untouched.
    """
    content = data.encode("utf-8") if isinstance(data, str) else data
    named = Path(path)
    temporary: Path | None = None
    try:
        target = Path(os.path.realpath(named))
        mode: int | None = None
        if target.exists():
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, "")
            if not os.access(target, os.W_OK):
                raise PermissionError(errno.EACCES, "")
            mode = target.stat().st_mode & 0o7777
        # A name of its own, so that the longest legal target name still works.
        candidate = target.with_name(f".{secrets.token_hex(8)}.cellpath-tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        descriptor = os.open(candidate, flags, 0o666)
        temporary = candidate
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if mode is not None:
            temporary.chmod(mode)
        os.replace(temporary, target)  # noqa: PTH105 - one system call, patched by fault tests
        temporary = None
        _sync_folder(target.parent)
    except (OSError, ValueError) as error:
        reason = _REASONS.get(getattr(error, "errno", None) or 0) or str(error) or "unknown reason"
        raise OutputError(
            f"{named.name} could not be written: {reason} ({named.parent}). "
            "What was there before is intact."
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system can."""
    if os.name != "posix":
        return
    # Some network file systems refuse fsync on folders; the rename has happened by then.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
