"""Talk to a scheduler, local or remote: one Dask client with an event loop on its own thread.

Nothing here knows of jobs. Opening and closing block and are for backend threads only.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import uuid
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cellpath.backend.credentials import security_from_folder
from napari_cellpath.backend.job import WorkerStatus
from napari_cellpath.backend.local_server import BULK, START_TIMEOUT, LocalServer
from napari_cellpath.backend.schedule import BULK_WINDOW
from napari_cellpath.core.errors import BackendError
from napari_cellpath.core.vocabulary import Priority, System
from napari_cellpath.systems.protocol import ModelRef, Task

if TYPE_CHECKING:
    from distributed import Client, Security

    from napari_cellpath.backend.worker import EngineOptions

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0


class Connection:
    """One Dask client on one scheduler, its event loop on a thread of its own.

    Callbacks are called on that thread and must return quickly.

    Parameters
    ----------
    address, security
        Of the scheduler.
    direct
        Whether results may come straight from the worker (the client must reach it).
    on_worker_lost
        Called with the worker's address and the keys of the tasks it had.
    on_notice
        Called with sentences for the user that the worker sent.
    """

    def __init__(
        self,
        address: str,
        security: Security,
        *,
        direct: bool,
        on_worker_lost: Callable[[str, frozenset[str]], None],
        on_notice: Callable[[str], None],
    ) -> None:
        self.address = address
        self._security = security
        self._direct = direct
        self._on_worker_lost = on_worker_lost
        self._on_notice = on_notice
        self._loop = asyncio.new_event_loop()
        self._client: Client | None = None
        self._numbers = itertools.count()
        self._orderly = asyncio.Lock()
        self._prefix = f"cellpath-{uuid.uuid4().hex[:12]}"
        self._thread = threading.Thread(target=self._run, name="cellpath-client", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left, timeout=0.2))
        self._loop.close()

    def open(self) -> None:
        """Connect.

        Raises
        ------
        BackendError
            Nobody answers there, or the credentials are not theirs.
        """
        try:
            self.call(self._open()).result(START_TIMEOUT)
        except Exception as error:
            self.close()
            raise BackendError(
                f"The inference backend at {self.address} cannot be reached "
                f"({type(error).__name__}: {error})."
            ) from error

    async def _open(self) -> None:
        from napari_cellpath.backend._client import OneConnectionClient
        from napari_cellpath.backend.worker import NOTICE_TOPIC

        # Not the default client: other plugins' Dask arrays are not to be computed on it.
        self._client = await OneConnectionClient(
            self.address,
            security=self._security,
            set_as_default=False,
            asynchronous=True,
            direct_to_workers=self._direct,
            timeout=CONNECT_TIMEOUT,
        )
        self._client.subscribe_topic("all", self._scheduler_event)
        self._client.subscribe_topic(NOTICE_TOPIC, lambda event: self._on_notice(str(event[1])))

    def _scheduler_event(self, event: tuple[float, Any]) -> None:
        message = event[1]
        if not isinstance(message, dict) or message.get("action") != "remove-worker":
            return
        if not message.get("expected", False):
            keys = frozenset(str(k) for k in message.get("processing-tasks", ()))
            self._on_worker_lost(
                str(message["worker"]), frozenset(k for k in keys if k.startswith(self._prefix))
            )

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Run a coroutine on the loop; its result comes through the future."""
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:  # closed
            coroutine.close()
            cancelled: Future[Any] = Future()
            cancelled.cancel()
            return cancelled

    def new_key(self) -> str:
        """A fresh name for a task of this connection."""
        return f"{self._prefix}-{next(self._numbers)}"

    async def compute(
        self, function: Callable[..., Any], *args: Any, key: str, priority: int, bulk: bool
    ) -> Any:
        """Run ``function(*args)`` on a worker; cancelling the coroutine cancels the task."""
        assert self._client is not None  # noqa: S101
        future = self._client.submit(
            function,
            *args,
            key=key,
            pure=False,
            priority=priority,
            resources={BULK: 1} if bulk else None,
        )
        try:
            return await future
        except asyncio.CancelledError:
            await self._client.cancel([future])
            raise
        finally:
            # A result still held would be computed again after a worker's death.
            future.release()

    async def free_memory(self) -> None:
        """Have every worker drop its models; a later `status` sees it done."""
        from napari_cellpath.backend.worker import free_memory

        assert self._client is not None  # noqa: S101
        async with self._orderly:
            await self._client.run(free_memory)

    async def status(self, options: EngineOptions) -> WorkerStatus:
        """What a worker says of its engine."""
        from napari_cellpath.backend.worker import engine_status

        async with self._orderly:
            answer: WorkerStatus = await self.compute(
                engine_status, options, key=self.new_key(), priority=Priority.CLICK, bulk=False
            )
        return answer

    async def worker_resources(self) -> list[dict[str, float]]:
        """Resources of each worker that is there now."""
        assert self._client is not None  # noqa: S101
        scheduler: Any = self._client.scheduler
        identity = await scheduler.identity(n_workers=-1)
        return [dict(w.get("resources", {})) for w in identity["workers"].values()]

    def close(self, timeout: float = 0.5) -> None:
        """Close the client and end the thread; gives up politeness after ``timeout``."""
        if self._loop.is_closed():
            return
        closing = self.call(self._close(0.8 * timeout))
        with suppress(Exception):
            closing.result(timeout)
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    async def _close(self, timeout: float) -> None:
        if self._client is not None:
            # Or the scheduler complains that it cannot tell us of our own leaving.
            if self._client.status == "running":
                self._client.unsubscribe_topic("all")
            with suppress(TimeoutError):
                await self._client.close(timeout=timeout)


class Link:
    """A way to a worker: a connection and, on this machine, the process behind it.

    Parameters
    ----------
    address, credentials
        Of a remote scheduler; None starts a `LocalServer`.
    engine
        Device, precision and memory budget of the engine it is to use.
    on_lost
        Called with the link once its local process has ended by itself.
    on_worker_lost
        Called with the link, the worker's address and the keys of our tasks that it had.
    on_notice
        Called with sentences for the user that the worker sent.
    """

    def __init__(
        self,
        address: str | None,
        credentials: Path | str | None,
        engine: tuple[str, str, int | None],
        *,
        on_lost: Callable[[Link], None],
        on_worker_lost: Callable[[Link, str, frozenset[str]], None],
        on_notice: Callable[[str], None],
    ) -> None:
        self.bulk_window = BULK_WINDOW
        self._bulk_resource = True
        self._address = address
        self._credentials = credentials
        self._engine = engine
        self._on_worker_lost = on_worker_lost
        self._on_notice = on_notice
        self._connection: Connection | None = None
        self._closed = False
        self.server = LocalServer(lambda: on_lost(self)) if address is None else None

    def open(self) -> None:
        """Start what must be started and connect.

        Raises
        ------
        CellpathError
            It could not be started or reached, or `close` was called meanwhile.
        """
        if self.server is not None:
            self.server.start()
            assert self.server.security is not None  # noqa: S101
            self._connect(self.server.address, self.server.security)
        else:
            assert self._address is not None  # noqa: S101
            assert self._credentials is not None  # noqa: S101
            self._connect(self._address, security_from_folder(self._credentials))
            self._count_slots()
        if self._closed:
            self.close()
            raise BackendError("The inference backend was closed while it started.")

    def _connect(self, address: str, security: Security) -> None:
        connection = Connection(
            address,
            security,
            # Straight from the worker is faster, but a remote one may not be reachable.
            direct=self.server is not None,
            on_worker_lost=lambda worker, keys: self._on_worker_lost(self, worker, keys),
            on_notice=self._on_notice,
        )
        connection.open()
        self._connection = connection

    def _count_slots(self) -> None:
        """Learn what a remote cluster reserves for bulk; a plain Dask worker reserves nothing."""
        workers = self.connection.call(self.connection.worker_resources()).result(CONNECT_TIMEOUT)
        slots = int(sum(w.get(BULK, 0) for w in workers))
        self._bulk_resource = slots > 0
        self.bulk_window = max(BULK_WINDOW, slots + 1)

    @property
    def connection(self) -> Connection:
        """The open connection."""
        assert self._connection is not None  # noqa: S101
        return self._connection

    @property
    def alive(self) -> bool:
        """Whether the local process runs; of a remote one nothing is known."""
        return self.server is None or self.server.alive

    @property
    def log(self) -> Path | None:
        """The log of the local process."""
        return self.server.log if self.server is not None else None

    async def run_task(self, task: Task, *, key: str, priority: int) -> Any:
        """The task's output, or a `napari_cellpath.backend.worker.TaskFailure`."""
        from distributed.protocol import serialize_bytes

        from napari_cellpath.backend.worker import EngineOptions, run_task

        return await self.connection.compute(
            run_task,
            serialize_bytes(task),
            EngineOptions(*self._engine),
            key=key,
            priority=priority,
            # Asking for a resource that nobody offers would wait for ever.
            bulk=self._bulk_resource and not task.urgent,
        )

    def warm_up(self, system: System, model: ModelRef) -> None:
        """Have the worker load a model; trouble is only logged, a request will meet it again."""
        from napari_cellpath.backend.worker import EngineOptions, warm_up

        for _ in range(2):  # each of the worker's threads has its own pool to set up
            warming = self.connection.compute(
                warm_up, system, model, EngineOptions(*self._engine),
                key=self.connection.new_key(), priority=Priority.BATCH, bulk=False,
            )  # fmt: skip
            self.connection.call(warming).add_done_callback(_log_failure)

    def free_memory(self) -> None:
        """Have every worker drop its models; returns at once."""
        self.connection.call(self.connection.free_memory()).add_done_callback(_log_failure)

    def ask_status(self, answer: Callable[[WorkerStatus], object]) -> None:
        """Have ``answer`` called with the worker's status, not alive if there is none."""
        from napari_cellpath.backend.worker import EngineOptions

        def answered(future: Future[WorkerStatus]) -> None:
            good = not future.cancelled() and future.exception() is None
            answer(future.result() if good else WorkerStatus(alive=False))

        asking = self.connection.status(EngineOptions(*self._engine))
        self.connection.call(asking).add_done_callback(answered)

    def close(self) -> None:
        """Disconnect and end the local process, politely for a second at most."""
        self._closed = True
        if self._connection is not None:
            self._connection.close(0.3)
        if self.server is not None:
            self.server.stop(0.7)


def _log_failure(future: Future[Any]) -> None:
    problem = None if future.cancelled() else future.exception() or future.result()
    if problem is not None:
        log.warning("%s", problem)
