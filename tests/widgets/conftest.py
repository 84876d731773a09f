"""A backend that answers from a thread as the real one does, models of no weight, a test image."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torchvision  # noqa: F401  # it brings triton, which crashes if Mesa's OpenGL came first

from napari_cellpath.backend.job import Job, JobState, WorkerStatus
from napari_cellpath.core.errors import BackendError
from napari_cellpath.core.requests import FindNucleiRequest, NucleusRequest, OcclusionRequest
from napari_cellpath.core.results import FoundNucleus, NucleusCall, OcclusionMap
from napari_cellpath.core.vocabulary import Preset, System
from napari_cellpath.models import ClassInfo, ModelEntry, ModelInfo

INPUTS = {Preset.FAST: 10, Preset.BALANCED: 100, Preset.PAPER: 1000, Preset.ADAPTIVE: 300}


def score_at(row: float, col: float) -> float:
    """What the fake network says: left is normal, right is abnormal, over 300 columns."""
    return float(np.clip(col / 300.0, 0.0, 1.0))


class FakeBackend:
    """Answers each request on a thread: a first estimate, then refinements, then done.

    ``pause`` seconds lie between answers; with ``hold`` set, nothing is answered until released.
    """

    def __init__(self, pause: float = 0.01) -> None:
        self.pause = pause
        self.hold = threading.Event()
        self.hold.set()
        self.hold_second = threading.Event()
        self.hold_second.set()
        self.requests: list[NucleusRequest] = []
        self.jobs: list[Job] = []
        self.warmed: list[str] = []
        self.freed = 0
        self.fail_with: str | None = None
        self.notices: list[Callable[[str], None]] = []
        self._by_target: dict[str, Job] = {}
        self._threads: list[threading.Thread] = []
        self._closed = False

    def submit(self, request, *, priority=None, listener=None) -> Job:
        nuclei = getattr(request, "nuclei", ())
        if nuclei:
            target = "field" if len(nuclei) > 1 else nuclei[0].uid
        else:
            target = type(request).__name__
        job = Job(request, target, lambda job: job.ended(JobState.CANCELLED))
        if listener is not None:
            job.add_listener(listener)
        previous = self._by_target.get(target)
        if previous is not None:
            previous.cancel()
        self._by_target[target] = job
        self.requests.append(request)
        self.jobs.append(job)
        thread = threading.Thread(target=self._answer, args=(job, request), daemon=True)
        self._threads.append(thread)
        thread.start()
        return job

    def _answer(self, job: Job, request: NucleusRequest) -> None:
        self.hold.wait(20)
        if job.state.final or self._closed:
            return
        job.started()
        if self.fail_with is not None:
            job.ended(JobState.FAILED, BackendError(self.fail_with))
            return
        if isinstance(request, FindNucleiRequest):
            self._find(job, request)
            return
        if isinstance(request, OcclusionRequest):
            drop = np.zeros((128, 128), np.float32)
            drop[60:70, 60:70] = 0.4
            found = OcclusionMap(request.nucleus.row - 64, request.nucleus.col - 64, 1.0, drop,
                                 0.7, f"{Path(request.model).name}@00000000")  # fmt: skip
            job.advanced([found], [found], 1.0)
            job.ended(JobState.DONE)
            return
        total = INPUTS[request.preset]
        steps = sorted({10, max(10, total // 2), total})
        for step, n_views in enumerate(steps):
            self.hold.wait(20)
            if job.state.final:
                return
            final = n_views == total
            calls = [self._call(request, n, n_views, final) for n in request.nuclei]
            job.advanced(calls, calls, (step + 1) / len(steps))
            time.sleep(self.pause)
        job.ended(JobState.DONE)

    def _find(self, job: Job, request: FindNucleiRequest) -> None:
        """The dark discs of `field`, half of them first."""
        top, left, high, wide = request.region or (0, 0, 200, 300)
        found = [
            FoundNucleus(float(row), float(col), 8.0, 0.5)
            for row in range(25, 200, 50)
            for col in range(25, 300, 50)
            if top <= row < top + high and left <= col < left + wide
        ]
        half = found[: len(found) // 2]
        job.advanced(half, half, 0.5)
        time.sleep(self.pause)
        self.hold_second.wait(20)
        if not job.state.final:
            job.advanced(found, found, 1.0)
            job.ended(JobState.DONE)

    def _call(self, request, nucleus, n_views: int, final: bool) -> NucleusCall:
        score = score_at(nucleus.row, nucleus.col)
        name = Path(request.model).name
        classes = 7 if "seven" in name else 2
        if classes == 2:
            label, probabilities = (
                ("abnormal" if score > request.threshold else "normal"),
                (1 - score, score),
            )
        else:
            place = min(6, int(score * 7))
            label = SEVEN[place]
            probabilities = tuple(0.7 if i == place else 0.05 for i in range(7))
        return NucleusCall(
            uid=nucleus.uid, row=nucleus.row, col=nucleus.col, score=score, std=0.08,
            n_views=n_views, label=label, probabilities=probabilities,
            threshold=request.threshold, model=f"{name}@00000000", final=final,
        )  # fmt: skip

    def warm_up(self, model: str) -> None:
        self.warmed.append(model)

    def free_memory(self) -> None:
        self.freed += 1

    def status(self) -> WorkerStatus:
        return WorkerStatus(
            True, "cpu", "bf16", "Test processor", 812 << 20, ("deeppap-test@00000000",)
        )

    def add_notice_listener(self, listener) -> None:
        self.notices.append(listener)

    def close(self) -> None:
        self._closed = True
        self.hold.set()
        self.hold_second.set()
        for job in self.jobs:
            job.cancel()
        for thread in self._threads:
            thread.join(5)


SEVEN = (
    "superficial", "intermediate", "columnar", "light dysplasia", "moderate dysplasia",
    "severe dysplasia", "carcinoma in situ",
)  # fmt: skip
COLOURS = ("#0072b2", "#56b4e9", "#009e73", "#f0e442", "#e69f00", "#d55e00", "#cc79a7")


def entry(name: str, classes: tuple[ClassInfo, ...], **changes) -> ModelEntry:
    report = {
        "accuracy": 0.912, "accuracy_interval": [0.85, 0.96], "auc": 0.97, "n": 92, "n_groups": 6
    }  # fmt: skip
    info = ModelInfo(
        name=name, system=System.DEEPPAP, architecture="convnet-t", classes=classes, mpp=0.201,
        metrics={"reserve": {"protocol": "groups set apart", "as_marked": report}},
        licence="CC BY 4.0", sha256="0" * 64,
    )  # fmt: skip
    return ModelEntry(name, Path("/models") / name, info.model_copy(update=changes))


TWO = (
    ClassInfo(name="normal", colour="#0072b2"),
    ClassInfo(name="abnormal", colour="#d55e00", abnormal=True),
)


@pytest.fixture
def models():
    """A two-class model, another one, and a seven-class model."""
    seven = tuple(
        ClassInfo(name=n, colour=c, abnormal=i > 2)
        for i, (n, c) in enumerate(zip(SEVEN, COLOURS, strict=True))
    )
    found = [
        entry("deeppap-herlev", TWO),
        entry("other", TWO, threshold=0.3),
        entry("seven", seven),
    ]
    return lambda: found


@pytest.fixture
def backend():
    """A backend that answers at once."""
    fake = FakeBackend()
    yield fake
    fake.close()


@pytest.fixture
def field():
    """A pale field with dark nuclei, (200, 300, 3)."""
    rows, cols = np.mgrid[:200, :300]
    image = np.full((200, 300, 3), (232, 214, 226), dtype=np.uint8)
    for row in range(25, 200, 50):
        for col in range(25, 300, 50):
            image[(rows - row) ** 2 + (cols - col) ** 2 < 81] = (96, 66, 128)
    return image
