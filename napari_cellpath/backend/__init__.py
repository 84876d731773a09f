"""The one shared inference backend: jobs on the client, the engine on the worker.

`connect` makes a backend; `shared_backend` is the one that all widgets of a process use.
Importing this package imports neither torch nor Dask.
"""

from __future__ import annotations

import threading
from pathlib import Path

from napari_cellpath.backend.job import Backend, Job, JobEvent, JobState, Listener, WorkerStatus

__all__ = [
    "Backend", "Job", "JobEvent", "JobState", "Listener", "WorkerStatus", "connect",
    "shared_backend",
]  # fmt: skip

_shared: Backend | None = None
_lock = threading.Lock()


def connect(
    address: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    inline: bool = False,
    *,
    credentials: Path | str | None = None,
    memory_budget_bytes: int | None = None,
) -> Backend:
    """Make a backend; nothing is started before its first request.

    Parameters
    ----------
    address
        ``tls://host:port`` of the lab's scheduler; None uses this machine.
    device, precision
        ``auto``, or a name (`napari_cellpath.backend.device`); never replaced by another.
    inline
        Compute in this process, synchronously.
    credentials
        Folder with ``ca.pem``, ``cert.pem`` and ``key.pem`` for ``address``.
    memory_budget_bytes
        What loaded models may hold together; None lets the engine decide.

    Raises
    ------
    CellpathError
        Unknown device or precision; an address without credentials, or with ``inline``.
    """
    if inline:
        from napari_cellpath.backend.inline import InlineBackend
        from napari_cellpath.core.errors import BackendError

        if address is not None:
            raise BackendError("An inline backend has no address; leave one of the two out.")
        return InlineBackend(device, precision, memory_budget_bytes=memory_budget_bytes)
    from napari_cellpath.backend.dask_backend import DaskBackend

    return DaskBackend(
        device,
        precision,
        address=address,
        credentials=credentials,
        memory_budget_bytes=memory_budget_bytes,
    )


def shared_backend() -> Backend:
    """The process's one local backend, made on first use, closed when the process ends."""
    global _shared
    with _lock:
        if _shared is None:
            _shared = connect()
        return _shared
