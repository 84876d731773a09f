"""One controller a layer of objects, shared by every dock that works on it.

Two controllers on one layer would each keep a table of their own, and an answer or a correction
written by one would not reach the other. So docks take the controller from here; the first
makes it, the last to let go closes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

from napari.layers import Image, Layer, Points
from psygnal import SignalInstance

from napari_cellpath.bridge.cells import CellsLayer
from napari_cellpath.bridge.kinds import kind_of
from napari_cellpath.bridge.nuclei import NucleiLayer
from napari_cellpath.bridge.objects import ObjectLayer
from napari_cellpath.bridge.red_cells import RedCellsLayer
from napari_cellpath.bridge.scheme import Scheme
from napari_cellpath.core.vocabulary import Role

CONTROLLERS: dict[Role, type[ObjectLayer]] = {
    kind.kind.role: kind for kind in (NucleiLayer, CellsLayer, RedCellsLayer)
}


class _Shared:
    def __init__(self, objects: ObjectLayer) -> None:
        self.objects = objects
        self.holders = 0


_shared: WeakValueDictionary[Layer, _Shared] = WeakValueDictionary()


class Hold:
    """One dock's share in a controller; what it listens to ends with it.

    Attributes
    ----------
    objects
        The controller.
    """

    def __init__(self, shared: _Shared) -> None:
        self.objects = shared.objects
        self._shared = shared
        self._listeners: list[tuple[SignalInstance, Callable[..., Any]]] = []
        self._released = False
        shared.holders += 1

    def listen(self, signal: SignalInstance, listener: Callable[..., Any]) -> None:
        """Connect to a signal of the controller until `release`."""
        signal.connect(listener)
        self._listeners.append((signal, listener))

    def release(self, *, asked: bool = False) -> bool:
        """Let go; the last one to do so closes the controller. Safe to call twice.

        Returns whether this was the last one. With ``asked`` it was this dock that asked for
        scores: what still waits waits in vain.
        """
        if self._released:
            return False
        self._released = True
        for signal, listener in self._listeners:
            signal.disconnect(listener, missing_ok=True)
        self._listeners.clear()
        self._shared.holders -= 1
        if not self._shared.holders:
            _shared.pop(self.objects.layer, None)
            self.objects.close()
            return True
        if asked:
            table = self.objects.table
            self.objects.mark_pending([str(u) for u in table.uids[table.pending]], pending=False)
        return False


def take(layer: Points, image: Image, scheme: Scheme) -> Hold:
    """Share in a layer's controller, made if there is none; its scores are read with ``scheme``.

    Raises
    ------
    ValueError
        The layer is none of ours.
    """
    kind = kind_of(layer)
    if kind is None:
        raise ValueError(f"{layer.name} is no layer of objects of ours")
    shared = _shared.get(layer)
    if shared is None:
        taken = [str(uid) for other in _shared.values() for uid in other.objects.table.uids]
        shared = _shared[layer] = _Shared(CONTROLLERS[kind.role](layer, image, scheme, taken))
    else:
        shared.objects.read_with(scheme)
    return Hold(shared)


def join(layer: Points) -> Hold | None:
    """Share in a controller that another dock has made, as it is; None if there is none."""
    shared = _shared.get(layer)
    return None if shared is None else Hold(shared)
