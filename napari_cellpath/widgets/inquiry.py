"""From "score these objects" to a job and back: images looked into, requests sent, answers taken.

Main thread only. What may take time runs on threads that end with the process and comes back
through the door, in which nothing waits.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Image
from numpy.typing import NDArray
from psygnal import Signal

from napari_cellpath.backend.job import Backend, Job, JobEvent, WorkerStatus
from napari_cellpath.bridge.objects import ObjectLayer
from napari_cellpath.bridge.sources import Source, Sources, prepare
from napari_cellpath.bridge.timing import timed
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.requests import new_uid
from napari_cellpath.widgets.ahead import Ahead
from napari_cellpath.widgets.door import Door
from napari_cellpath.widgets.errands import Errands
from napari_cellpath.widgets.jobs import JobBook

CLICKS = 8  # so many new ones at once are asked for one by one, each with its own first answer


class Inquiry:
    """Everything a dock has asked of the backend.

    Parameters
    ----------
    backend
        Gives the backend; called once, when it is first needed.
    method
        Gives the method in force.
    """

    told = Signal(str, str)
    """Severity (``info``, ``warning``, ``error``) and a sentence for the user."""
    changed = Signal()
    """Jobs began, went on or ended."""
    source_known = Signal(object)
    """An image layer whose file and pixel size are now known, or cannot be."""
    mpp_settled = Signal(object)
    """An image layer whose pixel size in effect changed."""
    status_changed = Signal(WorkerStatus)

    def __init__(self, backend: Callable[[], Backend], method: Callable[[], Any]) -> None:
        self._make_backend = backend
        self._backend: Backend | None = None
        self._method = method
        self.door = Door(self._deliver)
        self.jobs = JobBook(self._submit)
        self.errands = Errands(self._submit)
        self.ahead = Ahead(self._submit)
        self._sources = Sources()
        self._sources.doubted.connect(self.look_into)
        self._looking: set[Image] = set()
        self._mpp_of_user: dict[Image, float] = {}
        self._mpp_in_effect: dict[Image, float | None] = {}
        self._refused: WeakKeyDictionary[Image, str] = WeakKeyDictionary()
        self._waiting: dict[ObjectLayer, list[str]] = {}
        self._asking_status = False
        self._closed = False

    def close(self) -> None:
        """Cancel everything and let go."""
        self._closed = True
        self.door.close()
        self._waiting.clear()
        self.jobs.cancel_all()
        self.errands.cancel_all()
        self.ahead.drop()
        self._sources.close()

    # The backend.

    @property
    def backend(self) -> Backend:
        """The backend, made on first use."""
        if self._backend is None:
            self._backend = self._make_backend()
            # The backend outlives this dock and has no way to take a listener back.
            self._backend.add_notice_listener(_weak_listener(self))
        return self._backend

    def warm_up(self) -> None:
        """Start the process and load the chosen model, so that the first click is quick."""
        entry = self._method().entry
        if entry is not None:
            self.backend.warm_up(str(entry.folder))

    def free_memory(self) -> None:
        """Drop loaded models on the worker."""
        self.backend.free_memory()
        self.ask_status()

    def ask_status(self) -> None:
        """Ask the worker how it is; the answer comes by signal. Starts nothing."""
        if self._asking_status or self._backend is None or self._closed:
            return
        self._asking_status = True

        def done(status: WorkerStatus) -> None:
            self._asking_status = False
            self.status_changed.emit(status)

        def failed(_error: CellpathError) -> None:
            done(WorkerStatus(alive=False))

        self.in_background(self._backend.status, done, failed)

    # Images.

    def look_into(self, image: Image) -> None:
        """Find out in the background what to read for an image, unless that is known."""
        if self._sources.get(image) is not None or image in self._looking or self._closed:
            return
        self._sources.watch(image)
        self._looking.add(image)
        version = self._sources.version(image)

        def done(source: Source) -> None:
            self._looking.discard(image)
            self._refused.pop(image, None)
            before = self._sources.latest(image)
            if not self._sources.put(image, source, version):
                self.look_into(image)  # it changed meanwhile
                return
            for note in source.notes:
                if before is None or note not in before.notes:
                    self.told.emit("info", note)
            self._settle_mpp(image)
            self.source_known.emit(image)
            self._send()

        def failed(error: CellpathError) -> None:
            self._looking.discard(image)
            self._sources.forget(image)
            self._refused[image] = str(error)
            for objects in [n for n in self._waiting if n.image is image]:
                objects.mark_pending(self._waiting.pop(objects), pending=False)
            self.told.emit("error", str(error))
            self.source_known.emit(image)
            self.changed.emit()

        self.in_background(lambda: prepare(image), done, failed)

    def source(self, image: Image | None) -> Source | None:
        """What is read for an image, with the user's pixel size; None until it is known."""
        source = self._sources.get(image) if image is not None else None
        return source.with_mpp(self._mpp_of_user.get(image)) if source and image else None

    def stated(self, image: Image) -> Source | None:
        """What is read for an image, with the pixel size that it states itself, if any."""
        return self._sources.get(image)

    def refusal(self, image: Image | None) -> str:
        """Why an image cannot be read; empty if it can, or is not known yet."""
        return self._refused.get(image, "") if image is not None else ""

    def latest_source(self, image: Image | None) -> Source | None:
        """What was last known of an image, to be shown; not to be scored."""
        source = self._sources.latest(image) if image is not None else None
        return source.with_mpp(self._mpp_of_user.get(image)) if source and image else None

    def mpp(self, image: Image) -> float | None:
        """Pixel size that scores of an image are made with."""
        return self._mpp_in_effect.get(image)

    def set_mpp(self, image: Image, mpp: float | None) -> None:
        """Override an image's pixel size; None takes its own again."""
        if mpp is None:
            self._mpp_of_user.pop(image, None)
        else:
            self._mpp_of_user[image] = mpp
        self._settle_mpp(image)

    def forget_image(self, image: Image) -> None:
        """An image layer is gone."""
        self._mpp_of_user.pop(image, None)
        self._mpp_in_effect.pop(image, None)

    def _settle_mpp(self, image: Image) -> None:
        source = self.source(image)
        mpp = source.mpp if source else self._mpp_of_user.get(image)
        if image not in self._mpp_in_effect or self._mpp_in_effect[image] != mpp:
            self._mpp_in_effect[image] = mpp
            self.mpp_settled.emit(image)

    # Objects.

    @property
    def waiting(self) -> int:
        """Objects that will be asked for once their image is known or a field has ended."""
        return sum(map(len, self._waiting.values()))

    @timed
    def ask(self, objects: ObjectLayer, uids: Sequence[str]) -> None:
        """Have objects looked at: a few as jobs of their own, many as one job for the field."""
        kind = objects.kind
        if self._method().entry is None:
            self.told.emit("warning", f"Choose a model first; the {kind.many} are not {kind.done}.")
            return
        objects.mark_pending(uids)
        waiting = self._waiting.setdefault(objects, [])
        known = set(waiting)
        waiting.extend(uid for uid in uids if uid not in known)
        self._send()

    @timed
    def ask_ahead(self, objects: ObjectLayer, position: NDArray[np.float64]) -> None:
        """Ask for the object that a click may add here, (2,) pixels, before napari has added it."""
        source = self.source(objects.image)
        thing = objects.thing_at(position, new_uid())
        if source is None or self._method().entry is None or thing is None:
            return
        settings = self._method().scheme(self.mpp(objects.image)).settings
        self.ahead.ask(thing.uid, self._method().request(source.image, (thing,)), settings)
        objects.expect(position, thing.uid)

    def forget(self, uids: Sequence[str]) -> None:
        """Objects are gone: whoever works on them alone is stopped."""
        self.jobs.forget(uids)
        gone = set(uids)
        for waiting in self._waiting.values():
            waiting[:] = [uid for uid in waiting if uid not in gone]
        self.changed.emit()

    def drop(self, objects: ObjectLayer) -> None:
        """A layer of objects is gone."""
        self._waiting.pop(objects, None)
        self.jobs.drop(objects)
        self.changed.emit()

    def cancel(self) -> None:
        """Stop everything; answers already there stay."""
        for objects, uids in self._waiting.items():
            objects.mark_pending(uids, pending=False)
        self._waiting.clear()
        self.jobs.cancel_all()
        self.errands.cancel_all()
        self.changed.emit()

    def _send(self) -> None:
        for objects, uids in list(self._waiting.items()):
            source = self.source(objects.image)
            if source is None:
                self.look_into(objects.image)
                continue
            there = objects.wanted(uids)
            many = len(there) > CLICKS
            if many and self.jobs.busy_with_many(objects):
                continue  # the backend would take a second field for a newer version of it
            del self._waiting[objects]
            settings = self._method().scheme(self.mpp(objects.image)).settings
            for batch in [there] if many else [(thing,) for thing in there]:
                asked = [thing.uid for thing in batch]
                early = self.ahead.take(asked[0], settings) if len(asked) == 1 else None
                request = self._method().request(source.image, batch)
                self.jobs.ask(objects, asked, request, settings, early.job if early else None)
                if early is not None and early.events:
                    self.door.call(self._deliver, early.events)
        self.changed.emit()

    def send(
        self,
        kind: str,
        title: str,
        request: Any,
        done: Callable[[Sequence[Any], bool], None],
        some: Callable[[Sequence[Any]], None] | None = None,
    ) -> None:
        """Ask for something that is about no object of a table (see `Errands.send`)."""
        self.errands.send(kind, title, request, done, some)
        self.changed.emit()

    def _submit(self, request: Any) -> Job:
        return self.backend.submit(request, listener=self.door.post)

    def _deliver(self, events: list[JobEvent]) -> bool:
        events = self.ahead.hold(events)
        outcome = self.jobs.deliver(events)
        failures = self.errands.deliver(events)
        for sentence in dict.fromkeys(str(e) for e in (*outcome.failures, *failures)):
            self.told.emit("error", sentence)
        if outcome.ended:
            self._send()
        else:
            self.changed.emit()
        return outcome.more

    # Threads.

    def in_background(
        self,
        work: Callable[[], Any],
        done: Callable[[Any], None],
        failed: Callable[[CellpathError], None] | None = None,
    ) -> None:
        """Run ``work`` on a thread of its own; its result or error comes to the main thread."""

        def tell(error: CellpathError) -> None:
            self.told.emit("error", str(error))

        self.door.fetch(work, done, failed or tell)


def _weak_listener(inquiry: Inquiry) -> Callable[[str], None]:
    there = weakref.ref(inquiry)

    def listener(sentence: str) -> None:
        now = there()
        if now is not None:
            now.door.call(now.told.emit, "warning", sentence)

    return listener
