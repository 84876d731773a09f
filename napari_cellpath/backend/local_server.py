"""Own the inference process on this machine: the launcher child and what lives below it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
import psutil

from napari_cellpath.backend.credentials import temporary_security
from napari_cellpath.backend.device import cpu_threads
from napari_cellpath.core.errors import BackendError

if TYPE_CHECKING:
    from distributed import Security

log = logging.getLogger(__name__)

START_TIMEOUT = 60.0  # seconds; one is usual, but a cold disk or a virus scanner takes longer
MAX_LOG_BYTES = 2**20
THREADS = 2  # one for bulk, one kept free for whoever is waiting
BULK = "bulk"  # the resource a bulk task takes; a worker has one less than threads


def log_path() -> Path:
    """Where the inference process writes its log; made private, kept below two megabytes."""
    folder = Path(platformdirs.user_log_path("napari-cellpath", appauthor=False))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "inference.log"
        if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
            path.replace(folder / "inference.old.log")
        path.touch(mode=0o600)
    except OSError:  # a read-only home must not keep anyone from computing
        handle, name = tempfile.mkstemp(prefix="cellpath-", suffix=".log")
        os.close(handle)
        return Path(name)
    return path


class LocalServer:
    """The launcher child and, below it, the worker process.

    Parameters
    ----------
    on_exit
        Called from a thread of its own when the child has ended without `stop`.
    """

    def __init__(self, on_exit: Callable[[], None]) -> None:
        self.log = log_path()
        self.address = ""
        self.security: Security | None = None
        self._on_exit = on_exit
        self._process: subprocess.Popen[str] | None = None
        self._scratch = ""
        self._stopping = False
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the child and wait for its address (half a second).

        Raises
        ------
        BackendError
            It could not be started, or ended before it could be reached.
        """
        self.security = temporary_security()
        fields = ("ca_file", "client_key", "client_cert", "scheduler_key", "scheduler_cert",
                  "worker_key", "worker_cert")  # fmt: skip
        options = {
            "security": {
                "require_encryption": True,
                **{f"tls_{f}": getattr(self.security, f"tls_{f}") for f in fields},
            },
            "parent": os.getpid(),
            "nthreads": THREADS,
            "resources": {BULK: THREADS - 1},
            "threads": cpu_threads(),
        }
        # Private to the user; the child removes it, and we do where it was killed.
        self._scratch = options["scratch"] = tempfile.mkdtemp(prefix="cellpath-")
        line = self._launch(json.dumps(options))
        try:
            self.address = str(json.loads(line)["address"])
        except (ValueError, KeyError):
            self.stop()
            raise BackendError(
                f"The inference process could not be started; its log is {self.log}."
            ) from None
        threading.Thread(target=self._watch, name="cellpath-watch", daemon=True).start()

    def _launch(self, options: str) -> str:
        try:
            with self.log.open("a") as stderr, self._lock:
                if self._stopping:
                    return ""
                # A session of its own: Ctrl-C in the user's terminal is not meant for it.
                # -P: never import from the folder the user happens to be in.
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "napari_cellpath.backend._serve"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    text=True,
                    start_new_session=True,
                    env=_child_environment(),
                )
            process = self._process
            assert process.stdin is not None  # noqa: S101
            assert process.stdout is not None  # noqa: S101
            watchdog = threading.Timer(START_TIMEOUT, process.kill)
            watchdog.daemon = True
            watchdog.start()
            try:
                process.stdin.write(options + "\n")
                process.stdin.flush()
                return process.stdout.readline()
            finally:
                watchdog.cancel()
        except OSError as error:
            log.debug("launching failed", exc_info=error)
            return ""

    def _watch(self) -> None:
        assert self._process is not None  # noqa: S101
        self._process.wait()
        if not self._stopping:
            _kill_session(self._process.pid)
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._on_exit()

    @property
    def alive(self) -> bool:
        """Whether the child runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The launcher's process id."""
        return self._process.pid if self._process is not None else None

    def stop(self, timeout: float = 1.0) -> None:
        """End the child: closing its stdin is enough; after ``timeout`` it is killed."""
        with self._lock:
            self._stopping = True
        process = self._process
        if process is None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            return
        with suppress(OSError):
            assert process.stdin is not None  # noqa: S101
            process.stdin.close()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            _kill_family(process.pid)
        if process.stdout is not None:
            process.stdout.close()
        shutil.rmtree(self._scratch, ignore_errors=True)


def _child_environment() -> dict[str, str]:
    """Ours, plus the folder this package was imported from where Python would not find it."""
    root = str(Path(__file__).resolve().parents[2])
    environment = {"DASK_LOGGING__DISTRIBUTED": "warning", **os.environ}
    if root not in (*site.getsitepackages(), site.getusersitepackages()):
        paths = [root, *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment


def _kill_family(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        launcher = psutil.Process(pid)
        for process in [*launcher.children(recursive=True), launcher]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _kill_session(pid: int) -> None:
    """Kill what a dead launcher left behind: a busy worker may not notice that it is alone."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
