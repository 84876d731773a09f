"""Times that can be trusted on a shared machine: ratios within one run, and a contention check.

A measurement counts as steady if the pure forward before and after it agree within 3 % and the
process had its cores: CPU seconds over wall seconds of at least 0.92 times the threads.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

AGREE, SHARE = 0.03, 0.92


@dataclass(frozen=True)
class Timing:
    """Seconds of one run by the wall clock, and of CPU in this process."""

    wall: float
    cpu: float


def timed(work: Callable[[], Any]) -> Timing:
    """Run once."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Timing(time.perf_counter() - wall, time.process_time() - cpu)


@dataclass(frozen=True)
class Rounds:
    """Interleaved rounds of several kinds of work; the first round is discarded.

    ``best`` is the least wall time of each kind; ``steady`` whether the reference kind's times
    agree and had their cores.
    """

    best: dict[str, float]
    steady: bool
    busy: float


def interleave(
    kinds: dict[str, Callable[[], Any]], reference: str, rounds: int, threads: int
) -> Rounds:
    """Run every kind once a round, the reference first and last."""
    times: dict[str, list[Timing]] = {name: [] for name in kinds}
    for number in range(rounds + 1):
        for name, work in kinds.items():
            taken = timed(work)
            if number:
                times[name].append(taken)
    times[reference].append(timed(kinds[reference]))
    walls = [t.wall for t in times[reference]]
    busy = max(t.cpu / t.wall for t in times[reference])
    steady = max(walls) <= (1 + AGREE) * min(walls) and busy >= SHARE * threads
    return Rounds({name: min(t.wall for t in ts) for name, ts in times.items()}, steady, busy)


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    import torch

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().splitlines()
        name = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), name)
        flags = next((x for x in lines if x.startswith("flags")), "").split()
        known = [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in flags]
        name = f"{name} ({', '.join(known)})"
    return {
        "date": date.today().isoformat(),
        "processor": name,
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
