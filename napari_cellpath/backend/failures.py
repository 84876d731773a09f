"""What a task's exception becomes on its way to the user."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cellpath.core.errors import BackendError, CellpathError

if TYPE_CHECKING:
    from napari_cellpath.backend.worker import TaskFailure

log = logging.getLogger(__name__)


def as_user_error(error: BaseException, what: str, details: Path | None = None) -> CellpathError:
    """Our own errors as they are; anything else is a bug, logged with its traceback.

    Parameters
    ----------
    error
        What was raised.
    what
        What failed, as the start of a sentence: "A task failed inside the inference process".
    details
        The log of the inference process, if there is one.
    """
    if isinstance(error, CellpathError):
        return error
    log.error("%s.", what, exc_info=error)
    return _sentence(what, type(error).__name__, str(error), details)


def from_worker(failure: TaskFailure, what: str, details: Path | None) -> CellpathError:
    """The same for an exception that was raised in the inference process."""
    ours = failure.ours()
    if ours is not None:
        return ours
    log.error("%s.\n%s", what, failure.traceback)
    return _sentence(what, failure.kind.rpartition(":")[2], failure.message, details)


def _sentence(what: str, kind: str, message: str, details: Path | None) -> BackendError:
    text = " ".join(message.split())[:500]
    see = f"; see the log {details}" if details is not None else ""
    return BackendError(f"{what}: {kind}: {text}{see}.")
