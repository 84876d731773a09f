"""Small pictures cut from large images, off the main thread, of what is on screen now.

Whoever shows them says which are wanted, in order; what was wanted before and is not any more is
dropped before it is read. What was read is kept, the latest used longest.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtGui import QImage

from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.requests import Image
from napari_cellpath.slides import windows

log = logging.getLogger(__name__)

THREADS = 2
BYTES = 96 << 20  # kept: 2,600 pictures of 96 pixels
LARGEST = 4096  # pixels read for one picture: a field wider than that is cut to it


@dataclass(frozen=True)
class Cut:
    """One square of an image: which image, in which state, where, and how large it is shown.

    ``serial`` numbers image and state; ``row`` and ``col`` are the first pixel, ``side`` is in
    level-0 pixels, ``shown`` in screen pixels.
    """

    serial: int
    row: int
    col: int
    side: int
    shown: int

    @classmethod
    def round(cls, serial: int, row: float, col: float, side: float, shown: int) -> Cut:
        """A square about a place, (row, col) being pixel centres."""
        size = min(max(8, round(side)), LARGEST)
        top, left = round(row + 0.5 - size / 2), round(col + 0.5 - size / 2)
        return cls(serial, top, left, size, shown)


class Thumbnails(QObject):
    """Pictures read in the background.

    Used on the main thread; `arrived` is emitted there too, once for all that came meanwhile.
    """

    arrived = Signal()
    _came = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._news = threading.Condition()
        self._wanted: list[tuple[Cut, Image]] = []  # the next one last
        self._reading: set[Cut] = set()
        self._kept: OrderedDict[Cut, QImage] = OrderedDict()
        self._bytes = 0
        self._told = False
        self._closed = False
        self._threads: list[threading.Thread] = []
        self._came.connect(self._on_came, Qt.ConnectionType.QueuedConnection)

    def get(self, cut: Cut) -> QImage | None:
        """A picture that is there; null if its pixels cannot be read, None if not there yet."""
        with self._news:
            picture = self._kept.get(cut)
            if picture is not None:
                self._kept.move_to_end(cut)
            return picture

    def want(self, cuts: Sequence[tuple[Cut, Image]]) -> None:
        """Have these read, the first first, instead of what was wanted before."""
        with self._news:
            if self._closed:
                return
            self._wanted = [
                (cut, image)
                for cut, image in reversed(cuts)
                if cut not in self._kept and cut not in self._reading
            ]
            if self._wanted and not self._threads:
                self._start()
            self._news.notify_all()

    @property
    def waiting(self) -> int:
        """Pictures wanted or being read."""
        with self._news:
            return len(self._wanted) + len(self._reading)

    def close(self) -> None:
        """Read nothing more and let go of everything; safe to call twice."""
        with self._news:
            self._closed = True
            self._wanted.clear()
            self._kept.clear()
            self._bytes = 0
            self._news.notify_all()

    def _start(self) -> None:
        for number in range(THREADS):
            thread = threading.Thread(
                target=self._work, name=f"cellpath-thumbnails-{number}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while True:
            with self._news:
                while not self._wanted and not self._closed:
                    self._news.wait()
                if self._closed:
                    return
                cut, image = self._wanted.pop()
                self._reading.add(cut)
            picture = _read(cut, image)
            with self._news:
                self._reading.discard(cut)
                if self._closed:
                    return
                self._keep(cut, picture)
                tell, self._told = not self._told, True
                if tell:  # under the lock: `close` is then the end of it
                    self._came.emit()

    def _keep(self, cut: Cut, picture: QImage) -> None:
        self._kept[cut] = picture
        self._bytes += picture.sizeInBytes()
        while self._bytes > BYTES and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.sizeInBytes()

    def _on_came(self) -> None:
        with self._news:
            self._told = False
            if self._closed:
                return
        self.arrived.emit()


def _read(cut: Cut, image: Image) -> QImage:
    try:
        place = (cut.row, cut.col, cut.side, cut.side)
        pixels = windows.read(windows.source_of(image, *place), *place)
    except CellpathError:  # the dock has been told when it looked into the image
        return QImage()
    except Exception:
        log.exception("A thumbnail could not be cut.")
        return QImage()
    whole = QImage(pixels.data, cut.side, cut.side, 3 * cut.side, QImage.Format.Format_RGB888)
    smooth = Qt.TransformationMode.SmoothTransformation
    aspect = Qt.AspectRatioMode.IgnoreAspectRatio
    scaled = whole.scaled(cut.shown, cut.shown, aspect, smooth)
    # The screen's own format, and a copy: `whole` only borrows the pixels.
    return scaled.convertToFormat(QImage.Format.Format_RGB32).copy()
