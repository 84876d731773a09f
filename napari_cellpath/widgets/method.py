"""How nuclei are scored and how scores are read: one frozen value, changed as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from napari_cellpath.bridge.red_cells import RegionScheme
from napari_cellpath.bridge.scheme import Scheme
from napari_cellpath.core.requests import (
    CellBox,
    Image,
    LabelRegionsRequest,
    Nucleus,
    NucleusRequest,
    PatternRequest,
    SegmentRequest,
)
from napari_cellpath.core.vocabulary import (
    Average,
    Blend,
    Border,
    Channel,
    Fit,
    Preset,
    RegionMode,
)
from napari_cellpath.models import ModelEntry
from napari_cellpath.systems.hep2.cells import CellInput
from napari_cellpath.systems.hspnet.summary import LEAST_LESION_MM2
from napari_cellpath.systems.rbc.boxes import RegionInput
from napari_cellpath.systems.rbc.verdict import Verdict

CELL_BAND = 0.2
"""Patterns that lead the next by no more than this are doubtful."""


@dataclass(frozen=True)
class Chosen:
    """The model that was chosen; None if there is none."""

    entry: ModelEntry | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the model's classes."""
        return self.entry.info.class_names if self.entry else ()

    @property
    def colours(self) -> tuple[str, ...]:
        """Colours of the model's classes."""
        return tuple(c.colour for c in self.entry.info.classes) if self.entry else ()

    @property
    def name_for_command(self) -> str:
        """How a command line names the model: by name and hash, else by folder."""
        if self.entry is None:
            return ""
        by_name = self.entry.folder.name == self.entry.name
        return self.entry.label if by_name else str(self.entry.folder)


@dataclass(frozen=True)
class Method(Chosen):
    """Model, preset, border and seed decide scores; threshold and review band only read them.

    ``band_of_user`` is the review band of the user's preferences; None takes each model's own.
    """

    preset: Preset = Preset.BALANCED
    border: Border = Border.ZERO
    seed: int = 0
    threshold: float = 0.5
    band: float = 0.15
    band_of_user: float | None = None

    @property
    def called_by_threshold(self) -> bool:
        """Whether the threshold decides the call; with more classes the largest mean does."""
        return len(self.classes) == 2

    def with_changes(self, **changes: Any) -> Method:
        """Another method; with another model come its threshold and review band."""
        changed = replace(self, **changes)
        if "entry" not in changes or changed.entry is None:
            return changed
        info = changed.entry.info
        band = info.review_band if self.band_of_user is None else self.band_of_user
        return replace(changed, threshold=info.threshold, band=band)

    def scheme(self, mpp: float | None) -> Scheme:
        """How scores of an image with this pixel size are read."""
        if self.entry is None:
            return Scheme(threshold=self.threshold, band=self.band)
        # The adaptive preset stops where the score is certain to lie on one side of it.
        decides = self.threshold if self.preset is Preset.ADAPTIVE else None
        return Scheme(
            model=self.entry.name,
            classes=self.classes,
            colours=self.colours,
            abnormal=tuple(c.abnormal for c in self.entry.info.classes),
            threshold=self.threshold,
            band=self.band,
            settings=(
                self.entry.label,
                str(self.preset),
                str(self.border),
                self.seed,
                mpp,
                decides,
            ),
        )

    def request(self, image: Image, nuclei: Sequence[Nucleus]) -> NucleusRequest:
        """The request that scores these nuclei, a first estimate of each before the rest."""
        if self.entry is None:
            raise ValueError("no model was chosen")
        return NucleusRequest(
            image=image,
            nuclei=tuple(nuclei),
            model=str(self.entry.folder),
            preset=self.preset,
            seed=self.seed,
            threshold=self.threshold,
            border=self.border,
            first_estimate=True,
        )


@dataclass(frozen=True)
class CellMethod(Chosen):
    """Model, channel and average decide the patterns; the review band only reads the margins."""

    average: Average = Average.MODEL
    channel: Channel = Channel.GREEN
    band: float = CELL_BAND

    def with_changes(self, **changes: Any) -> CellMethod:
        """Another method."""
        return replace(self, **changes)

    def scheme(self, _mpp: float | None) -> Scheme:
        """How patterns are read; the box decides what the network sees, not the pixel size."""
        if self.entry is None:
            return Scheme(band=self.band)
        return Scheme(
            model=self.entry.name,
            classes=self.classes,
            colours=self.colours,
            abnormal=(False,) * len(self.classes),
            band=self.band,
            settings=(self.entry.label, str(self._looks), str(self.channel)),
        )

    @property
    def _looks(self) -> Average:
        """The average in effect: equal answers are equal, whoever chose how to look."""
        if self.average is not Average.MODEL or self.entry is None:
            return self.average
        return CellInput.of(self.entry.info.input, self.entry.name).average

    def request(self, image: Image, cells: Sequence[CellBox]) -> PatternRequest:
        """The request that tells the patterns of these cells."""
        if self.entry is None:
            raise ValueError("no model was chosen")
        return PatternRequest(
            image, tuple(cells), str(self.entry.folder), channel=self.channel, average=self.average
        )


@dataclass(frozen=True)
class TissueMethod(Chosen):
    """Model, mode, blend and stride decide the classes of a region; the rest only reads them.

    ``stride`` None is the model's own. ``smallest`` is the area in mm2 below which
    a lesion does not make its class the worst grade.
    """

    mode: RegionMode = RegionMode.EXACT
    blend: Blend = Blend.RBF
    stride: int | None = None
    probabilities: bool = False
    skip_empty: bool = False
    smallest: float = LEAST_LESION_MM2

    def with_changes(self, **changes: Any) -> TissueMethod:
        """Another method; another model has a stride of its own."""
        if "entry" in changes:
            changes.setdefault("stride", None)
        return replace(self, **changes)

    def request(
        self,
        image: Image,
        store: str,
        region: tuple[int, int, int, int] | None,
        polygon: Sequence[tuple[float, float]] = (),
    ) -> SegmentRequest:
        """The request that segments this region into a store."""
        if self.entry is None:
            raise ValueError("no model was chosen")
        return SegmentRequest(
            image, str(self.entry.folder), store, region, tuple(polygon),
            None if self.blend is Blend.NONE else self.stride, self.blend, self.mode,
            self.probabilities, self.skip_empty, first_estimate=True,
        )  # fmt: skip


@dataclass(frozen=True)
class RegionMethod(Chosen):
    """Model, fit and average decide what regions hold; the band only reads how clear that is.

    ``verdict`` is how the model's probabilities are read, None until its folder was looked into.
    """

    fit: Fit = Fit.MODEL
    average: Average = Average.MODEL
    band: float = 0.15
    verdict: Verdict | None = field(default=None, compare=False)

    def with_changes(self, **changes: Any) -> RegionMethod:
        """Another method; with another model comes its review band."""
        changed = replace(self, **changes)
        if "entry" not in changes or changed.entry is None:
            return changed
        return replace(changed, band=changed.entry.info.review_band, verdict=None)

    def scheme(self, _mpp: float | None) -> RegionScheme:
        """How regions are read; the box decides what the network sees, not the pixel size."""
        if self.entry is None:
            return RegionScheme(band=self.band)
        info, verdict = self.entry.info, self.verdict
        return RegionScheme(
            model=self.entry.name,
            classes=self.classes,
            colours=self.colours,
            abnormal=tuple(c.abnormal for c in info.classes),
            threshold=info.threshold,
            band=self.band,
            settings=(self.entry.label, *self._looks),
            thresholds=() if verdict is None else tuple(verdict.thresholds.tolist()),
            judge=None if verdict is None else verdict.probability_of_abnormal,
        )

    @property
    def _looks(self) -> tuple[str, str]:
        """Fit and average in effect: equal answers are equal, whoever chose how to look."""
        if self.entry is None:
            return str(self.fit), str(self.average)
        own = RegionInput.of(self.entry.info.input, self.entry.name)
        return (
            str(own.fit if self.fit is Fit.MODEL else self.fit),
            str(own.average if self.average is Average.MODEL else self.average),
        )

    def request(self, image: Image, boxes: Sequence[CellBox]) -> LabelRegionsRequest:
        """The request that tells what these boxes hold."""
        if self.entry is None:
            raise ValueError("no model was chosen")
        return LabelRegionsRequest(
            image, tuple(boxes), str(self.entry.folder), self.fit, self.average
        )
