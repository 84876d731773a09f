"""The worker's half of RBC: cut the boxes out, features and heads; run the detector."""

from __future__ import annotations

import math
import sys
import threading
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN

from napari_cellpath.core.errors import JobCancelledError, ModelError
from napari_cellpath.core.requests import DETECTION_FLOOR
from napari_cellpath.core.vocabulary import Average, Fit
from napari_cellpath.slides.windows import read
from napari_cellpath.systems.boxed_features import FeaturesPayload
from napari_cellpath.systems.eight_ways import eight_ways
from napari_cellpath.systems.loading import load_referred, memory_of
from napari_cellpath.systems.protocol import Forward, ModelRef, StopCheck
from napari_cellpath.systems.rbc.boxes import RegionInput
from napari_cellpath.systems.rbc.detect_plan import (
    LOOSE_OVERLAP,
    DetectOutput,
    DetectPayload,
    Look,
)
from napari_cellpath.systems.rbc.network import Cascade
from napari_cellpath.systems.rbc.patches import are_blank, patch_of
from napari_cellpath.systems.rbc.plan import LARGEST_GROUP, LabelOutput, LabelPayload, group_of


class _More(threading.local):
    """By how many times a window is larger than the fields a detector was trained on.

    Of each thread: two may look at windows of different sizes.
    """

    times = 1


class LooseDetector(nn.Module):
    """A detector as it is run here: pixels as they come, one image, all it finds.

    torchvision's own resizes images to its training size and drops and caps what overlaps; here
    the plan decides both (`napari_cellpath.systems.rbc.detect_plan`). A window larger than the
    fields it was trained on may hold as many more regions: it gets as many more proposals. The
    weights are shared, and the settings changed: it serves inference alone.
    """

    def __init__(self, detector: FasterRCNN) -> None:
        super().__init__()
        self.detector = detector.eval()
        transform, proposer, heads = detector.transform, detector.rpn, detector.roi_heads
        transform._skip_resize = True
        heads.score_thresh, heads.nms_thresh = DETECTION_FLOOR, LOOSE_OVERLAP
        heads.detections_per_img = sys.maxsize
        self._usual_pixels = transform.min_size[-1] * transform.max_size
        self._more = _More()
        before, after = proposer.pre_nms_top_n(), proposer.post_nms_top_n()
        proposer.pre_nms_top_n = lambda: before * self._more.times
        proposer.post_nms_top_n = lambda: after * self._more.times

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (1, n, 4) x0, y0, x1, y1 and scores (1, n) of one image (1, 3, H, W) in 0..1."""
        self._more.times = math.ceil(image.shape[2] * image.shape[3] / self._usual_pixels)
        (found,) = self.detector([image[0]])
        return found["boxes"][None], found["scores"][None]


class RegionPredictor:
    """A loaded RBC model on a device (`napari_cellpath.systems.protocol.Predictor`)."""

    def __init__(
        self,
        network: Cascade,
        device: torch.device,
        precision: str,
        wanted: RegionInput,
    ) -> None:
        self.memory_bytes = memory_of(network)
        self.trunk = network.trunk.to(device).eval()
        self.trunk.to(memory_format=torch.channels_last)
        # A few million multiplications a box: in float64, so that a sum's last digits never
        # carry a probability over one of the booster's steps.
        self.heads = network.heads.cpu().double().eval()
        self.detector = None
        if network.detector is not None:
            self.detector = LooseDetector(network.detector.to(device))
            self.detector.to(memory_format=torch.channels_last)
        self.device = device
        self.precision = precision
        self.wanted = wanted
        # Few at a time would leave a graphics card idle.
        self.group = group_of(wanted.patch) if device.type == "cpu" else LARGEST_GROUP

    @classmethod
    def load(cls, ref: ModelRef, device: torch.device, precision: str) -> RegionPredictor:
        """Load a model folder; refuse it if its hash is not the one the client saw."""
        network, info = load_referred(ref)
        if not isinstance(network, Cascade):
            raise ModelError(
                f"{ref.folder} holds only a part of an RBC model ({info.architecture}); choose one "
                "of architecture rbc-cascade."
            )
        return cls(network, device, precision, RegionInput.of(info.input, info.name))

    def warm_up(self, forward: Forward) -> None:
        """Run one group of zeros: kernels and memory pools are made on first use."""
        size = self.wanted.patch
        nothing = [torch.zeros(3, size, size)]
        self._features(nothing, self.wanted.average, forward, lambda: False)

    def run(self, payload: Any, forward: Forward, stop: StopCheck) -> Any:
        """Do what a task of any of RBC's plans asks."""
        if isinstance(payload, Look):
            return self.detect(payload.look, forward, stop)
        if isinstance(payload, FeaturesPayload):
            return self.describe(payload.boxes, forward, stop)
        return self.judge(payload, forward, stop)

    def judge(self, payload: LabelPayload, forward: Forward, stop: StopCheck) -> LabelOutput:
        """Probabilities of a task's boxes; NaN of those in which nothing is to be seen."""
        features, blank = self._described(payload, forward, stop)
        with torch.inference_mode():
            probabilities = self.heads.probabilities(torch.from_numpy(features).double()).numpy()
        return LabelOutput(probabilities, blank, self.precision)

    def describe(
        self, payload: LabelPayload, forward: Forward, stop: StopCheck
    ) -> NDArray[np.float32]:
        """Trunk features (n boxes, d); NaN in the rows of blank ones."""
        return self._described(payload, forward, stop)[0]

    def _described(
        self, payload: LabelPayload, forward: Forward, stop: StopCheck
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        patches = self.cut(payload)
        if stop():
            raise JobCancelledError("The job was cancelled.")
        large = np.array([patch is not None for patch in patches], bool)
        features = np.full((len(patches), self.trunk.n_features), np.nan, np.float32)
        blank = ~large
        seen = [patch for patch in patches if patch is not None]
        if seen:
            blank[large] = are_blank(torch.stack(seen))
            features[large] = self._features(seen, payload.average, forward, stop)
            features[blank] = np.nan
        return features, blank

    def _features(
        self, patches: list[Tensor], average: Average, forward: Forward, stop: StopCheck
    ) -> NDArray[np.float32]:
        """Features (n, d) of patches, the mean over the ways round each of them."""
        # Kept with the colours innermost from here on: what the trunk takes needs no further copy.
        ways = torch.stack(patches).contiguous(memory_format=torch.channels_last)
        if average is Average.D4:
            ways = eight_ways(ways).flatten(0, 1)
        found = []
        for some in ways.split(self.group):
            batch = some
            if len(some) < self.group:
                blanks = torch.zeros(self.group - len(some), *some.shape[1:])
                batch = torch.cat([some, blanks]).contiguous(memory_format=torch.channels_last)
            found.append(forward(self.trunk, batch, stop)[: len(some)].float().cpu())
        each = torch.cat(found).unflatten(0, (len(patches), -1))
        return np.asarray(each.mean(dim=1).numpy())

    def cut(self, payload: LabelPayload) -> list[Tensor | None]:
        """The trunk's inputs (3, S, S), in order; None of boxes too small to be looked at."""
        patches: list[Tensor | None] = []
        fit = self.wanted.fit if payload.fit is Fit.MODEL else payload.fit
        size, least = self.wanted.patch, self.wanted.least
        for pool in payload.pools:
            top, left, bottom, right = pool.window
            rgb = read(pool.source, top, left, bottom - top, right - left)
            for box in pool.boxes:
                if box is None:
                    patches.append(None)
                    continue
                crop = rgb[box[0] - top : box[2] - top, box[1] - left : box[3] - left]
                patches.append(patch_of(crop, size, fit, least))
        return patches

    def detect(self, payload: DetectPayload, forward: Forward, stop: StopCheck) -> DetectOutput:
        """Detections of one window, in level-0 pixels of the image."""
        if self.detector is None:
            raise ModelError("This model has no detector.")
        top, left, bottom, right = payload.window
        rgb = read(payload.source, top, left, bottom - top, right - left)
        image = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
        if image.shape[2:] != payload.size:
            image = F.interpolate(
                image, size=payload.size, mode="bilinear", align_corners=False, antialias=True
            )
        boxes, scores = forward(self.detector, image, stop)
        edges = boxes[0].double().cpu().numpy()[:, [1, 0, 3, 2]]
        pixels = np.array([(bottom - top) / payload.size[0], (right - left) / payload.size[1]] * 2)
        whole = np.floor(edges * pixels + 0.5).astype(np.int64)
        whole += np.array([top, left, top, left])
        there = (whole[:, 2:] > whole[:, :2]).all(axis=1)
        return DetectOutput(whole[there], scores[0].double().cpu().numpy()[there])
