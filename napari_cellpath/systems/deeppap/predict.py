"""The worker's half of DeepPap: read the window, cut the views, run the network."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from napari_cellpath.core.errors import JobCancelledError
from napari_cellpath.core.requests import FileImage, PixelWindow
from napari_cellpath.core.vocabulary import Border
from napari_cellpath.slides.windows import image_shape, read
from napari_cellpath.systems.deeppap.features_plan import FeaturesPayload
from napari_cellpath.systems.deeppap.find_plan import FindPayload, search_tile
from napari_cellpath.systems.deeppap.inference import inference_form
from napari_cellpath.systems.deeppap.network import DeepPapNetwork
from napari_cellpath.systems.deeppap.occlusion_plan import COVER, OcclusionPayload
from napari_cellpath.systems.deeppap.plan import CellViews, ViewsOutput, ViewsPayload
from napari_cellpath.systems.deeppap.presets import CROPS, PATCH, USUAL_MPP, WINDOW, ViewSpec
from napari_cellpath.systems.deeppap.quality import is_blank, is_crowded, measure, out_of_domain
from napari_cellpath.systems.deeppap.views import CROP, VIEW, enlarge, patches, ten_crops, views
from napari_cellpath.systems.loading import load_network as load_network
from napari_cellpath.systems.loading import load_referred, memory_of
from napari_cellpath.systems.protocol import Forward, ModelRef, StopCheck

WINDOWS_KEPT = 64  # a click's refinements come back for the same window up to twenty times


@dataclass(frozen=True, eq=False)
class Look:
    """What is at a nucleus: the window views are cut from, and the patch as it is judged."""

    window: Tensor
    patch: NDArray[np.uint8]
    centre: tuple[float, float]
    blank: bool

    def flags(self, mpp: float, domain: Mapping[str, Any]) -> tuple[str, ...]:
        """Reasons for care: crowded, or unlike the cells the model was trained on."""
        crowded = ("crowded",) if is_crowded(self.patch, self.centre, mpp) else ()
        if not domain:
            return crowded
        return crowded + out_of_domain(measure(self.patch, self.centre, mpp), domain)


class NucleusPredictor:
    """A loaded DeepPap model on a device (`napari_cellpath.systems.protocol.Predictor`)."""

    def __init__(
        self,
        network: DeepPapNetwork,
        device: torch.device,
        precision: str,
        mpp: float | None = None,
        domain: Mapping[str, Any] | None = None,
    ) -> None:
        self.mpp = mpp or USUAL_MPP
        self.domain = domain or {}
        self.network = network.to(device)
        self.computing = inference_form(network).to(device).eval()
        self.computing.to(memory_format=torch.channels_last)
        self.device = device
        self.precision = precision
        self.memory_bytes = memory_of(network)
        self._windows: OrderedDict[Any, Look] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def load(cls, ref: ModelRef, device: torch.device, precision: str) -> NucleusPredictor:
        """Load a model folder; refuse it if its hash is not the one the client saw."""
        network, info = load_referred(ref)
        return cls(network, device, precision, info.mpp, info.input.get("domain"))

    def warm_up(self, forward: Forward) -> None:
        """Run a view and a glance of zeros: kernels and memory pools are made on first use."""
        view = torch.zeros(1, 3, 256, 256)
        forward(self.computing, self._crops(view), lambda: False)
        forward(self.computing, self._glance(view), lambda: False)

    def run(self, payload: Any, forward: Forward, stop: StopCheck) -> Any:
        """Do what a task of any of DeepPap's plans asks."""
        if isinstance(payload, FindPayload):
            return search_tile(payload)
        if isinstance(payload, OcclusionPayload):
            return self.occlude(payload, forward, stop)
        if isinstance(payload, FeaturesPayload):
            return self.describe(payload, forward, stop)
        return self.score(payload, forward, stop)

    def score(self, payload: ViewsPayload, forward: Forward, stop: StopCheck) -> ViewsOutput:
        """Probabilities of every input of the task.

        A cell's views never share a batch with another cell's, so what else is in the task
        cannot change its numbers, not even in the last digit. Where there is nothing to be seen
        the network is not asked: it would call empty glass something. On a CPU each view is a
        batch of its own: ten inputs fill the cores, their activations stay small, and a click
        need not wait for more than one of them.
        """
        outputs: list[NDArray[np.float64] | None] = []
        flags: list[tuple[str, ...]] = []
        for cell in payload.cells:
            if stop():
                raise JobCancelledError("The job was cancelled.")
            look = self._window(cell, payload)
            flags.append(look.flags(self.mpp, self.domain) if cell.judge and not look.blank else ())
            if look.blank:
                outputs.append(None)
                continue
            size = 1 if self.device.type == "cpu" else len(cell.specs)
            cut = self._glance if cell.glance else self._crops
            logits = [
                forward(self.computing, cut(some), stop)
                for some in views(look.window, list(cell.specs)).split(size)
            ]
            outputs.append(F.softmax(torch.cat(logits).double(), dim=1).cpu().numpy())
        return ViewsOutput(tuple(outputs), self.precision, tuple(flags))

    def occlude(
        self, payload: OcclusionPayload, forward: Forward, stop: StopCheck
    ) -> NDArray[np.float64]:
        """Class probabilities of the upright middle crop, one row a covered place.

        What is covered takes the patch's median colour.
        """
        window = window_tensor(
            payload.source, payload.row, payload.col, payload.half, payload.border
        )
        patch = patches(window, [ViewSpec(0.0)])[0]
        ground = patch.flatten(1).median(dim=1).values.view(3, 1, 1)
        covered = patch.repeat(len(payload.places), 1, 1, 1)
        for image, place in zip(covered, payload.places, strict=True):
            if place is not None:
                image[:, place[0] : place[0] + COVER, place[1] : place[1] + COVER] = ground
        crops = self._middle(self.network.normalise(enlarge(covered).to(self.device)))
        logits = [forward(self.computing, part, stop) for part in crops.split(CROPS)]
        return np.asarray(F.softmax(torch.cat(logits).double(), dim=1).cpu().numpy())

    def describe(
        self, payload: FeaturesPayload, forward: Forward, stop: StopCheck
    ) -> NDArray[np.float32]:
        """Trunk features of each nucleus' upright middle crop, averaged over places, (n, d)."""
        found = []
        for source, row, col in payload.places:
            window = window_tensor(source, row, col, payload.half, payload.border)
            view = enlarge(patches(window, [ViewSpec(0.0)]))
            crop = self._middle(self.network.normalise(view.to(self.device)))
            seen = forward(self.network.trunk, crop, stop)
            found.append(seen.float().flatten(2).mean(dim=2)[0].cpu().numpy())
        return np.stack(found)

    @staticmethod
    def _middle(views: Tensor) -> Tensor:
        start = round((VIEW - CROP) / 2)
        crops = views[..., start : start + CROP, start : start + CROP]
        return crops.contiguous(memory_format=torch.channels_last)

    def _crops(self, view_batch: Tensor) -> Tensor:
        normalised = self.network.normalise(view_batch.to(self.device))
        return ten_crops(normalised).contiguous(memory_format=torch.channels_last)

    def _glance(self, view_batch: Tensor) -> Tensor:
        view = self.network.normalise(view_batch.to(self.device))
        return self._middle(torch.cat([view, view.flip(-1)]))

    def _window(self, cell: CellViews, payload: ViewsPayload) -> Look:
        if isinstance(cell.source, PixelWindow):
            return _look(cell.source, cell, payload)
        key = (cell.source, cell.row, cell.col, payload.half, payload.border)
        with self._lock:
            if key in self._windows:
                self._windows.move_to_end(key)
                return self._windows[key]
        looked = _look(cell.source, cell, payload)
        with self._lock:
            self._windows[key] = looked
            while len(self._windows) > WINDOWS_KEPT:
                self._windows.popitem(last=False)
        return looked


def _look(source: FileImage | PixelWindow, cell: CellViews, payload: ViewsPayload) -> Look:
    """A cell's window, and what of its patch lies on the image."""
    row, col, half = cell.row, cell.col, payload.half
    window = window_tensor(source, row, col, half, payload.border)
    shape = source.shape if isinstance(source, PixelWindow) else image_shape(source)
    patch, centre = patch_on_image(window, row, col, half, shape)
    return Look(window, patch, centre, is_blank(patch))


def patch_on_image(
    window: Tensor, row: int, col: int, half: int, shape: Sequence[int]
) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """That part of the patch that lies on the image, not what a border put beside it.

    Parameters
    ----------
    window
        (3, 212, 212) in 0..255, as `window_tensor` gives it.
    row, col, half
        Level-0 edge of the centre and half side of the window, in image pixels.
    shape
        Height and width of the image.

    Returns
    -------
    tuple
        The part, (h, w, 3) uint8, and the row and column of the nucleus in it.
    """
    scale = WINDOW / (2 * half)
    slices, middle = [], []
    for centre, length in ((row, shape[0]), (col, shape[1])):
        start = math.floor(max((WINDOW - PATCH) / 2, (half - centre) * scale))
        stop = math.ceil(min((WINDOW + PATCH) / 2, (half - centre + length) * scale))
        slices.append(slice(start, stop))
        middle.append(WINDOW / 2 - start - 0.5)
    part = window[:, slices[0], slices[1]].permute(1, 2, 0)
    return part.round().to(torch.uint8).contiguous().numpy(), (middle[0], middle[1])


def window_tensor(
    source: FileImage | PixelWindow, row: int, col: int, half: int, border: Border
) -> Tensor:
    """Read the square around a nucleus, at the model's scale, with the asked border.

    Parameters
    ----------
    source
        Where the pixels are.
    row, col
        Integer level-0 edge of the nucleus centre.
    half
        Half side in image pixels; 106 where image and model have the same scale.
    border
        What stands outside the image.

    Returns
    -------
    Tensor
        (3, 212, 212) float32 in 0..255.
    """
    top, left, side = row - half, col - half, 2 * half
    pixels = read(source, top, left, side, side)
    shape = source.shape if isinstance(source, PixelWindow) else image_shape(source)
    pixels = fill_border(pixels, top, left, shape, border)
    window = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float()
    if side != WINDOW:
        window = F.interpolate(
            window[None], size=(WINDOW, WINDOW), mode="bilinear", align_corners=False,
            antialias=True,
        )[0]  # fmt: skip
    return window


def fill_border(
    pixels: NDArray[np.uint8], top: int, left: int, shape: Sequence[int], border: Border
) -> NDArray[np.uint8]:
    """Replace what lies outside the image, zeros so far, as ``border`` says.

    ``background`` is the median colour of the brightest quarter of the pixels present: on a
    bright-field smear, the empty glass.
    """
    height, width = pixels.shape[:2]
    rows = slice(max(0, -top), max(0, min(height, shape[0] - top)))
    cols = slice(max(0, -left), max(0, min(width, shape[1] - left)))
    inside = pixels[rows, cols]
    if border is Border.ZERO or inside.size == 0 or inside.shape[:2] == (height, width):
        return pixels
    around = ((rows.start, height - rows.stop), (cols.start, width - cols.stop), (0, 0))
    if border is Border.REFLECT:
        mode = "reflect" if min(inside.shape[:2]) > 1 else "edge"
        return np.pad(inside, around, mode=mode)  # type: ignore[call-overload, no-any-return]
    flat = inside.reshape(-1, 3)
    brightness = flat.sum(axis=1, dtype=np.int64)
    bright = flat[np.argsort(brightness, kind="stable")[-math.ceil(len(flat) / 4) :]]
    filled = np.empty_like(pixels)
    filled[:] = np.median(bright, axis=0).astype(np.uint8)
    filled[rows, cols] = inside
    return filled
