"""From a cell's box to what the network sees: exact whole-pixel geometry, channel, contrast, size.

Inference and training both go this way, so that a model is used as it was trained. NumPy, but for
`prepare`, whose resize is torch's and is loaded when it is first called.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.errors import ModelError
from napari_cellpath.core.geometry import boxes_of_labels
from napari_cellpath.core.geometry import check_box as check_edges
from napari_cellpath.core.requests import CellBox, new_uid
from napari_cellpath.core.vocabulary import Average, Channel, Contrast

if TYPE_CHECKING:
    from torch import Tensor

SIZE = 60
"""Side of the network's input, pixels (papers.md 4.2)."""
FRAMING = 1.3
"""Side of the square seen, in lengths of the nucleus' box: what the I3A cells leave round it."""
USUAL_MPP = 0.3225
"""Micrometres per pixel where neither image nor model says: a 6.45 um camera behind a 20x lens."""
LEAST_SIDE = 6
"""Boxes narrower than this many pixels are ``tiny``: there is no pattern to be told in them."""
LARGEST_SIDE = 4096
"""Boxes with a longer side are a mistake: no cell has as many pixels."""
LEAST_RANGE = 2
"""Grey levels (of 255) that a crop must span for anything to be seen in it."""

LEAST_STRUCTURE = 3.5
"""Below it a crop is noise: see `structure`. Flat noise reaches 2.7, the background of generated
fields 3.4; the least of 10,882 I3A cells is 4.7."""
_STEP_TO_DEVIATION = 1 / (0.6745 * math.sqrt(2))  # median step of normal noise to its deviation

_PLANES = {Channel.RED: 0, Channel.GREEN: 1, Channel.BLUE: 2}


@dataclass(frozen=True)
class CellInput:
    """How a model wants its cells: what ``model.json`` says under ``input``.

    Attributes
    ----------
    size
        Side of the network's input, pixels.
    contrast
        ``none`` (the paper's) or ``minmax`` of each crop.
    framing
        Side of the square seen, in lengths of the longer side of the nucleus' box.
    average
        How many ways round a cell was looked at when the model was measured.
    """

    size: int = SIZE
    contrast: Contrast = Contrast.NONE
    framing: float = FRAMING
    average: Average = Average.NONE

    @classmethod
    def of(cls, facts: Mapping[str, Any], where: str) -> CellInput:
        """Read it from ``model.json``'s ``input``; what is not there takes the default.

        Raises
        ------
        ModelError
            A value makes no sense; ``where`` names the model.
        """
        size, framing = facts.get("size", SIZE), facts.get("framing", FRAMING)
        contrast = facts.get("contrast", Contrast.NONE)
        if not isinstance(size, int) or not 7 <= size <= 512:
            raise ModelError(f"{where}: an input of size {size} is not between 7 and 512 pixels.")
        if not isinstance(framing, int | float) or not 0.5 <= framing <= 4.0:
            raise ModelError(f"{where}: a framing of {framing} is not between 0.5 and 4.")
        if contrast not in list(Contrast):
            raise ModelError(
                f"{where}: there is no contrast '{contrast}'; known: {', '.join(Contrast)}."
            )
        average = facts.get("average", Average.NONE)
        if average not in (Average.NONE, Average.D4):
            raise ModelError(f"{where}: there is no average '{average}'; known: none, d4.")
        return cls(size, Contrast(contrast), float(framing), Average(average))

    def facts(self) -> dict[str, Any]:
        """What `of` reads, for ``model.json``."""
        return {
            "size": self.size, "channels": 1, "contrast": str(self.contrast),
            "framing": self.framing, "average": str(self.average),
        }  # fmt: skip


class Frame(NamedTuple):
    """A rectangle of level-0 pixels, which may leave the image: first row and column, size."""

    row: int
    col: int
    height: int
    width: int

    def leaves(self, shape: tuple[int, int]) -> bool:
        """Whether part of it lies outside an image of this height and width."""
        return (
            min(self.row, self.col) < 0
            or self.row + self.height > shape[0]
            or self.col + self.width > shape[1]
        )


def boxes_in(labels: NDArray[Any]) -> list[CellBox]:
    """Boxes of the cells of a label image, in label order; ``uid`` is the label."""
    values, boxes = boxes_of_labels(labels)
    return [
        CellBox(row0, col0, row1, col1, uid=str(value))
        for value, (row0, col0, row1, col1) in zip(values, boxes.tolist(), strict=True)
    ]


def box_round(row: float, col: float, diameter: float, uid: str | None = None) -> CellBox:
    """The square box round a point (napari convention) of a nucleus ``diameter`` pixels wide."""
    side = max(1, round(diameter))
    row0, col0 = math.ceil(row - side / 2), math.ceil(col - side / 2)
    return CellBox(row0, col0, row0 + side, col0 + side, uid or new_uid())


def check_box(box: CellBox, shape: tuple[int, int], what: str) -> None:
    """Raise unless a box can be one of a cell on an image of this height and width.

    Raises
    ------
    OutsideImageError
        It is inverted, empty, does not meet the image, or is larger than any cell; ``what``
        names it.
    """
    check_edges((box.row0, box.col0, box.row1, box.col1), shape, what, LARGEST_SIDE, "cell")


def is_tiny(box: CellBox) -> bool:
    """Whether it is too few pixels wide or high for a pattern."""
    return min(box.row1 - box.row0, box.col1 - box.col0) < LEAST_SIDE


def whole_of(box: CellBox) -> Frame:
    """The box itself: how an image of a single cell is seen."""
    return Frame(box.row0, box.col0, box.row1 - box.row0, box.col1 - box.col0)


def frame_of(box: CellBox, shape: tuple[int, int], framing: float = FRAMING) -> Frame:
    """What the network sees of a cell: the square round its box.

    A box that is the whole image marks an image of a single cell, which is seen as it is.
    """
    if (box.row0, box.col0, box.row1, box.col1) == (0, 0, *shape):
        return whole_of(box)
    return square_of(box, framing)


def square_of(box: CellBox, framing: float = FRAMING) -> Frame:
    """The square round a box that the network sees.

    Its side is the box's longer side and the same margin at both ends, whole pixels, about
    ``framing`` times as long. Along the longer side it is centred exactly; along the shorter one
    it lies half a pixel up or left where the middle falls between two pixels.
    """
    height, width = box.row1 - box.row0, box.col1 - box.col0
    longer = max(height, width)
    # At least one pixel is left of a tiny box, however narrow the framing.
    margin = max(math.floor(longer * (framing - 1.0) / 2 + 0.5), -((longer - 1) // 2))
    side = longer + 2 * margin
    return Frame((box.row0 + box.row1 - side) // 2, (box.col0 + box.col1 - side) // 2, side, side)


def mirrored(start: int, count: int, length: int) -> NDArray[np.intp]:
    """Indices ``start .. start + count - 1`` of an axis of ``length``, mirrored at its two edges.

    The pixel at the edge stands on both sides of the mirror; narrow images are mirrored again
    and again.
    """
    index = np.mod(np.arange(start, start + count), 2 * length)
    return np.where(index < length, index, 2 * length - 1 - index)


def needed(frame: Frame, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Which pixels of the image a crop is made of: (top, left, bottom, right), half-open."""
    if not frame.leaves(shape):
        return frame.row, frame.col, frame.row + frame.height, frame.col + frame.width
    rows = mirrored(frame.row, frame.height, shape[0])
    cols = mirrored(frame.col, frame.width, shape[1])
    return int(rows.min()), int(cols.min()), int(rows.max()) + 1, int(cols.max()) + 1


def crop_of(
    pixels: NDArray[Any],
    frame: Frame,
    shape: tuple[int, int] | None = None,
    origin: tuple[int, int] = (0, 0),
) -> NDArray[Any]:
    """Cut a frame out; what leaves the image is mirrored.

    Parameters
    ----------
    pixels
        (H, W, ...): the image, or a window of it that holds what `needed` says.
    frame
        What to cut.
    shape
        Height and width of the whole image; None: ``pixels`` is the whole image.
    origin
        Row and column of the image at which ``pixels`` begins.

    Returns
    -------
    ndarray
        (frame.height, frame.width, ...); a view of ``pixels`` where nothing is mirrored.
    """
    image = shape or (pixels.shape[0], pixels.shape[1])
    row, col = frame.row - origin[0], frame.col - origin[1]
    if not frame.leaves(image):
        return pixels[row : row + frame.height, col : col + frame.width]
    rows = mirrored(frame.row, frame.height, image[0]) - origin[0]
    cols = mirrored(frame.col, frame.width, image[1]) - origin[1]
    return pixels[rows[:, None], cols[None, :]]


def plane_of(rgb: NDArray[np.uint8], channel: Channel) -> NDArray[np.uint8]:
    """The one plane that shows the fluorescence.

    Parameters
    ----------
    rgb
        (H, W, 3) uint8, or (H, W) of one plane, which is handed back.
    channel
        Green is fluorescein's; ``mean`` is rounded half up.

    Returns
    -------
    ndarray
        (H, W) uint8.
    """
    if rgb.ndim == 2:
        return rgb
    if channel is Channel.MEAN:
        total = rgb.sum(axis=2, dtype=np.uint16)
        return ((2 * total + 3) // 6).astype(np.uint8)
    return rgb[..., _PLANES[channel]]


def is_blank(plane: NDArray[np.uint8]) -> bool:
    """Whether nothing is to be seen: all within `LEAST_RANGE` grey levels, or noise alone.

    Noise, once stretched, is called something with confidence.
    """
    if plane.size == 0 or int(plane.max()) - int(plane.min()) < LEAST_RANGE:
        return True
    return structure(plane) < LEAST_STRUCTURE


def structure(plane: NDArray[np.uint8]) -> float:
    """By how many times the noise do places differ once each is averaged.

    Places are squares of a twentieth of the side; what they span is taken between their 2nd and
    98th percentiles. Noise is what neighbouring pixels differ by, at least half a grey level.
    Infinite for planes too small to tell.
    """
    side = max(2, min(plane.shape) // 20)
    rows, cols = plane.shape[0] // side, plane.shape[1] // side
    if min(rows, cols) < 4:
        return math.inf
    grey = plane[: rows * side, : cols * side].astype(np.float32)
    places = np.sort(grey.reshape(rows, side, cols, side).mean(axis=(1, 3)), axis=None)
    spared = len(places) // 50  # sorted and counted off: a percentile takes five times as long
    steps = np.abs(np.diff(grey[::4], axis=1)).ravel()
    middle = len(steps) // 2
    noise = max(float(np.partition(steps, middle)[middle]) * _STEP_TO_DEVIATION, 0.5)
    return float(places[-1 - spared] - places[spared]) / noise


def contrasted(plane: NDArray[np.uint8], contrast: Contrast) -> NDArray[np.float32]:
    """Grey levels as the network takes them, (H, W) float32 in 0..1.

    ``none`` divides by 255; ``minmax`` stretches the darkest to 0 and the brightest to 1, and
    gives zeros where they are the same.
    """
    if contrast is Contrast.NONE:
        return plane.astype(np.float32) / np.float32(255)
    lowest, highest = int(plane.min()), int(plane.max())
    return (plane.astype(np.float32) - np.float32(lowest)) / np.float32(max(highest - lowest, 1))


def prepare(
    crop: NDArray[np.uint8],
    channel: Channel = Channel.GREEN,
    contrast: Contrast = Contrast.NONE,
    size: int = SIZE,
) -> Tensor:
    """A crop as the network takes it.

    Parameters
    ----------
    crop
        (H, W, 3) or (H, W) uint8, at least one pixel; a crop that is not square is squeezed.
    channel, contrast
        See `plane_of` and `contrasted`.
    size
        Side of the network's input.

    Returns
    -------
    Tensor
        (1, size, size) float32 in 0..1: bilinear, averaging where it shrinks (papers.md 4.2).
    """
    import torch
    from torch.nn import functional as F

    cell = torch.from_numpy(contrasted(plane_of(crop, channel), contrast))[None]
    if cell.shape[1:] == (size, size):
        return cell
    return F.interpolate(
        cell[None], size=(size, size), mode="bilinear", align_corners=False, antialias=True
    )[0]
