"""The launcher child: ``python -m napari_cellpath.backend._serve``; see `cluster.LocalServer`.

It serves one scheduler and one worker (in a child of its own, under a nanny that restarts it)
on the loopback interface, with TLS credentials that come over stdin and are never written to
disk or shown in a process list. Stdin is also the life line: when it closes, or the parent is
gone (a fork of the parent could hold the pipe open), everything ends at once.

The protocol: one line of JSON in (`LocalServer` writes it), one line of JSON out with the
scheduler's address, then silence.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import threading
import time
import traceback
from typing import Any, NoReturn

import psutil

PARENT_POLL = 1.0  # seconds
WORKER_MISSING = 60.0  # seconds without a worker after which a new launcher is the better try


def main() -> None:
    """Serve until the parent lets go."""
    options = json.loads(sys.stdin.readline())
    scratch = options["scratch"]
    threading.Thread(target=_await_end, args=(scratch,), daemon=True).start()
    threading.Thread(target=_await_orphaned, args=(options, scratch), daemon=True).start()
    try:
        asyncio.run(_serve(options, scratch))
    except BaseException:
        traceback.print_exc()  # stderr is the log; os._exit would swallow it
    _end(scratch, 1)


def _await_end(scratch: str) -> None:
    sys.stdin.read()
    _end(scratch, 0)


def _await_orphaned(options: dict[str, Any], scratch: str) -> None:
    try:
        parent = psutil.Process(options["parent"])
        while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
            time.sleep(PARENT_POLL)
    except psutil.NoSuchProcess:
        pass
    _end(scratch, 0)


def _end(scratch: str, code: int) -> NoReturn:
    """Take the whole family down; a worker whose thread holds the GIL would not go by itself."""
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(code)


async def _serve(options: dict[str, Any], scratch: str) -> None:
    import dask
    from distributed import Nanny, Scheduler, Security

    dask.config.set(
        {
            # Without this both processes serve an open HTTP page, TLS or not.
            "distributed.scheduler.http.routes": [],
            "distributed.worker.http.routes": [],
            "distributed.scheduler.allowed-failures": 1,
            "distributed.scheduler.work-stealing": False,
            "distributed.scheduler.active-memory-manager.start": False,
            "distributed.worker.profile.enabled": False,
            "distributed.nanny.pre-spawn-environ": _worker_environment(options["threads"]),
        }
    )
    security = Security(**options["security"])
    # ":0" alone would bind every interface.
    quiet: dict[str, Any] = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    async with Scheduler(
        host="127.0.0.1", port=0, protocol="tls", security=security, **quiet
    ) as scheduler:
        # The client connects while the worker is still starting.
        print(json.dumps({"address": scheduler.address}), flush=True)
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nobody reads the pipe from here on
        async with Nanny(
            scheduler.address,
            host="127.0.0.1",
            nthreads=options["nthreads"],
            resources=options["resources"],
            security=security,
            local_directory=scratch,
            memory_limit=0,  # Dask's own limit kills a worker for holding a large model
            **quiet,
        ) as nanny:
            missing_since = time.monotonic()
            while time.monotonic() - missing_since < WORKER_MISSING:
                await asyncio.sleep(PARENT_POLL)
                if nanny.pid is not None and scheduler.workers:
                    missing_since = time.monotonic()
    raise RuntimeError(f"no worker could be started for {WORKER_MISSING:.0f} s")


def _worker_environment(threads: int) -> dict[str, str]:
    """Environment of the worker, in place of Dask's (one thread; every freed page given back)."""
    keep = str(2**30)
    return {
        # MKL must be told too, or torch stays at one thread.
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        # Threads that wait must sleep: spinning cost 2.4 times the CPU time of a DeepPap click
        # (331 against 136 ms) on cores shared with a GUI, and won nothing.
        "OMP_WAIT_POLICY": "PASSIVE",
        # Keep freed activations for the next batch: at Dask's 64 kB every forward pass faults
        # its pages in again (21,600 faults, 45 of 180 ms). `Engine.free_memory` gives them back.
        "MALLOC_TRIM_THRESHOLD_": keep,
        "MALLOC_MMAP_THRESHOLD_": keep,
        # One heap for all threads: the private heaps that glibc gives to threads end at 64 MB
        # and are unmapped when empty, so only the main one really keeps its pages.
        "MALLOC_ARENA_MAX": "1",
    }


if __name__ == "__main__":
    main()
