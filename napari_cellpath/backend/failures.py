"""What a task's exception becomes on its way to the user."""

from __future__ import annotations

import logging
from pathlib import Path

from napari_cellpath.core.errors import BackendError, CellpathError

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
    text = " ".join(str(error).split())[:500]
    see = f"; see the log {details}" if details is not None else ""
    return BackendError(f"{what}: {type(error).__name__}: {text}{see}.")
