"""What is asked of the backend: small, frozen, complete.

A request holds everything that decides the answer, so that the viewer, the command line and
a notebook that build equal requests get equal numbers.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.vocabulary import (
    Average,
    Blend,
    Border,
    Channel,
    Fit,
    Preset,
    RegionMode,
    System,
)


@dataclass(frozen=True)
class FileImage:
    """An image on disk; the worker reads the pixels itself.

    ``mpp`` is given by the user and overrides what the file says; None takes the file's.
    """

    path: str
    mpp: float | None = None


@dataclass(frozen=True, eq=False)
class MemoryImage:
    """An image that exists only in memory, e.g. the layer of another plugin.

    ``pixels`` is anything that slices to a NumPy array: (H, W), (H, W, 3) or (H, W, 4), level 0.
    Only the windows a task needs are ever copied out of it. ``value_range`` fixes how 16-bit
    and float values map to 0..255 (see `napari_cellpath.slides.convert`); None means the
    range of the data type.
    """

    pixels: Any
    name: str = "image"
    mpp: float | None = None
    value_range: tuple[float, float] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return int(self.pixels.shape[0]), int(self.pixels.shape[1])


Image = FileImage | MemoryImage


@dataclass(frozen=True, eq=False)
class PixelWindow:
    """Pixels cut from a `MemoryImage` for one task: uint8 (h, w, 3) at level-0 (row, col).

    ``shape`` is the whole image's height and width: what lies outside it is border, not
    missing data.
    """

    pixels: NDArray[np.uint8]
    row: int
    col: int
    shape: tuple[int, int]
    mpp: float | None = None


def new_uid() -> str:
    """Fresh identity of one object; results find their object by it, never by table row."""
    return uuid.uuid4().hex[:16]


@dataclass(frozen=True)
class Nucleus:
    """One coarse nucleus centre: level-0 pixels, napari convention (integer = pixel centre)."""

    row: float
    col: float
    uid: str = field(default_factory=new_uid)


@dataclass(frozen=True)
class NucleusRequest:
    """Score these nuclei of this image with this model (DeepPap, papers.md 1).

    ``model`` is a name known to the registry or a folder. ``first_estimate`` also delivers a
    first answer before the preset's, a glance for a single nucleus and ``fast`` for several; the
    final numbers are the same either way.
    ``threshold`` None takes the model's own.
    """

    image: Image
    nuclei: tuple[Nucleus, ...]
    model: str
    preset: Preset = Preset.BALANCED
    seed: int = 0
    threshold: float | None = None
    border: Border = Border.ZERO
    first_estimate: bool = False
    system: System = System.DEEPPAP


NUCLEUS_UM = (5.0, 16.0)
"""Diameters of nuclei looked for by default, micrometres."""
NUCLEUS_CONTRAST = 0.10


@dataclass(frozen=True)
class FindNucleiRequest:
    """Find nuclei in this image, or in a region of it.

    ``region`` is (row, column, height, width) in level-0 pixels, None the whole image.
    Diameters are micrometres; ``contrast`` is how much denser than its surroundings a nucleus
    must be (see `napari_cellpath.systems.deeppap.find.FindSettings`). ``model`` is the one that
    will score them: its pixel size is taken where the image states none.
    """

    image: Image
    model: str
    region: tuple[int, int, int, int] | None = None
    smallest: float = NUCLEUS_UM[0]
    largest: float = NUCLEUS_UM[1]
    contrast: float = NUCLEUS_CONTRAST
    system: System = System.DEEPPAP


@dataclass(frozen=True)
class OcclusionRequest:
    """What the score of one nucleus hangs on: cover each place of its patch and score again."""

    image: Image
    nucleus: Nucleus
    model: str
    border: Border = Border.ZERO
    system: System = System.DEEPPAP


@dataclass(frozen=True)
class CellBox:
    """A box round one object (the nucleus of a HEp-2 cell, a region of red cells).

    Half-open level-0 pixel edges.

    Rows 2 to 4 are ``row0`` 2, ``row1`` 5.
    """

    row0: int
    col0: int
    row1: int
    col1: int
    uid: str = field(default_factory=new_uid)

    @property
    def centre(self) -> tuple[float, float]:
        """Row and column of the middle, napari convention (integer = pixel centre)."""
        return (self.row0 + self.row1 - 1) / 2, (self.col0 + self.col1 - 1) / 2

    def on(self, shape: tuple[int, int]) -> CellBox:
        """The part of it on an image of this height and width, under the same ``uid``.

        Window, command line and Python all look at this part: where a box is drawn by hand, it
        often begins beside the image.
        """
        inside = max(self.row0, 0), max(self.col0, 0), min(self.row1, shape[0])
        return CellBox(*inside, min(self.col1, shape[1]), self.uid)


@dataclass(frozen=True)
class PatternRequest:
    """Tell the staining pattern of these cells with this model (HEp-2, papers.md 4).

    The network sees a square round each box, wider by the model's framing; with ``whole`` it
    sees the boxes as they are (images of single cells). ``channel`` says which plane of a
    colour image is looked at.
    """

    image: Image
    cells: tuple[CellBox, ...]
    model: str
    whole: bool = False
    channel: Channel = Channel.GREEN
    average: Average = Average.MODEL
    system: System = System.HEP2


CELL_UM = (8.0, 30.0)
"""Diameters of HEp-2 nuclei looked for by default, micrometres."""


@dataclass(frozen=True)
class FindCellsRequest:
    """Find the cells of a fluorescence field, or of a region of it, and their masks.

    ``region`` is (row, column, height, width) in level-0 pixels, None the whole image.
    Diameters are micrometres; ``sensitivity`` scales the automatic threshold: above 1 dimmer
    cells are found too.
    """

    image: Image
    model: str
    region: tuple[int, int, int, int] | None = None
    smallest: float = CELL_UM[0]
    largest: float = CELL_UM[1]
    sensitivity: float = 1.0
    channel: Channel = Channel.GREEN
    system: System = System.HEP2


@dataclass(frozen=True)
class LabelRegionsRequest:
    """Tell what these boxes of red cells hold and whether it is abnormal (papers.md 2.3, 2.4).

    ``average`` says how many ways round each box is looked at; the heads see the mean of the
    trunk's features.
    """

    image: Image
    boxes: tuple[CellBox, ...]
    model: str
    fit: Fit = Fit.MODEL
    average: Average = Average.MODEL
    system: System = System.RBC


DETECTION_FLOOR = 0.05
"""Detections below this score are never kept; sliders above it act on what came back."""
DETECTION_OVERLAP = 0.5
"""Intersection over union above which the weaker of two detections is dropped."""


@dataclass(frozen=True)
class DetectRegionsRequest:
    """Find the regions of red cells of an image, or of a part of it (papers.md 2.2).

    ``region`` is (row, column, height, width) in level-0 pixels, None the whole image. All
    detections of at least ``score`` come back, after suppression at ``overlap``.
    """

    image: Image
    model: str
    region: tuple[int, int, int, int] | None = None
    score: float = DETECTION_FLOOR
    overlap: float = DETECTION_OVERLAP
    system: System = System.RBC


@dataclass(frozen=True)
class SegmentRequest:
    """Segment a region of a slide into an OME-Zarr store (HSP-Net, papers.md 3).

    Attributes
    ----------
    region
        (row, column, height, width) in level-0 pixels, None the whole image.
    store
        Folder of the store; it is continued if it holds the beginnings of an equal request.
    polygon
        Vertices (row, col) in level-0 pixels, napari convention: only what lies inside is kept.
    stride
        Between tiles, pixels of the model's scale; None is the model's own. Blend ``none`` takes
        the tile's side.
    probabilities
        Also store the probability of every class, uint8.
    skip_empty
        Tiles without tissue by the thumbnail are not computed; the area is reported.
    first_estimate
        Also deliver a first look at once, marked provisional; the final classes are the same
        either way.
    """

    image: Image
    model: str
    store: str
    region: tuple[int, int, int, int] | None = None
    polygon: tuple[tuple[float, float], ...] = ()
    stride: int | None = None
    blend: Blend = Blend.RBF
    mode: RegionMode = RegionMode.EXACT
    probabilities: bool = False
    skip_empty: bool = False
    first_estimate: bool = False
    system: System = System.HSPNET


@dataclass(frozen=True)
class FeaturesRequest:
    """What the trunk of a model sees of these objects, to tell which look alike."""

    image: Image
    objects: tuple[Nucleus, ...] | tuple[CellBox, ...]
    model: str
    system: System
