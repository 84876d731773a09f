"""What comes back from the backend: frozen, with its provenance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class NucleusCall:
    """DeepPap's answer for one nucleus.

    Attributes
    ----------
    uid, row, col
        The nucleus as asked for.
    score
        Mean probability of "abnormal" over all network inputs so far, 0..1. For models of more
        than two classes, the summed probability of the classes marked abnormal. NaN, with an
        empty label and a flag that says why, where there is no answer.
    std
        Standard deviation of that probability over the network inputs (population, ddof 0).
    n_views
        Network inputs averaged (after the ten crops): 10, 100, 1000 or, adaptive, in between.
    label
        Name of the class called: two classes by the threshold, more by the largest mean.
    probabilities
        Mean probability of each class, in the model's order.
    threshold
        The score above which a two-class model says abnormal.
    model
        Name and short hash of the weights, e.g. ``deeppap-herlev@1f0c92ab``.
    precision
        ``fp32`` or ``bf16``: what the network computed in.
    final
        False while better estimates are still to come.
    flags
        Reasons for care: ``border`` (the patch leaves the image), ``unknown-scale``,
        ``crowded`` (another nucleus is near), ``out-of-focus``, ``noisy``; unlike the cells the
        model was trained on: ``unusual-stain``, ``unusual-nucleus-size``. Reasons why there is
        no score: ``blank`` (nothing is to be seen there), ``not-finite``.
    calibrated
        The score after the model's calibration; None where it has none, or there is no score.
        The threshold and the label go by ``score``.
    """

    uid: str
    row: float
    col: float
    score: float
    std: float
    n_views: int
    label: str
    probabilities: tuple[float, ...]
    threshold: float
    model: str
    precision: str = "fp32"
    final: bool = True
    flags: tuple[str, ...] = ()
    calibrated: float | None = None

    def doubtful(self, band: float) -> bool:
        """Whether the score lies within ``band`` of the threshold and a person should look."""
        return abs(self.score - self.threshold) <= band


@dataclass(frozen=True)
class FoundNucleus:
    """A nucleus proposed by *Find nuclei*: level-0 pixels, diameter in um, contrast strength."""

    row: float
    col: float
    diameter: float
    strength: float


@dataclass(frozen=True, eq=False)
class OcclusionMap:
    """How much each place of a patch speaks for abnormal.

    Attributes
    ----------
    row, col
        Level-0 coordinates (integers are pixel centres) of the map's first pixel.
    pixel
        Side of a map pixel in level-0 pixels.
    drop
        (h, w) float32: score of the patch as it is, less its score with this place covered.
        NaN where it has not been covered yet.
    score
        Of the patch as it is: upright view, middle crop.
    model
        Name and short hash of the weights.
    """

    row: float
    col: float
    pixel: float
    drop: NDArray[np.float32]
    score: float
    model: str


@dataclass(frozen=True)
class PatternCall:
    """HEp-2's answer for one cell.

    Attributes
    ----------
    uid, row, col
        The cell as asked for; row and col are the middle of its box.
    label
        The pattern of largest probability; empty, with a flag that says why, where there is no
        answer.
    probabilities
        Of each class, in the model's order; empty where there is no answer.
    n_views
        Network inputs averaged: 1, or 8 with ``d4``.
    model, precision
        As of `NucleusCall`.
    flags
        ``border`` (its square leaves the image), ``unknown-scale``; with no answer: ``blank``
        (nothing is to be seen there), ``not-finite``, ``tiny`` (a box of a few pixels).
    calibrated
        The probabilities after the model's calibration, or empty.
    """

    uid: str
    row: float
    col: float
    label: str
    probabilities: tuple[float, ...]
    n_views: int
    model: str
    precision: str = "fp32"
    final: bool = True
    flags: tuple[str, ...] = ()
    calibrated: tuple[float, ...] = ()

    @property
    def score(self) -> float:
        """Probability of the pattern called; NaN where there is no answer."""
        return max(self.probabilities, default=float("nan"))

    @property
    def margin(self) -> float:
        """By how much it leads the next pattern, 0..1; NaN where there is no answer."""
        first, second = ([*sorted(self.probabilities, reverse=True)] + [float("nan")] * 2)[:2]
        return first - second


@dataclass(frozen=True, eq=False)
class FoundCell:
    """A cell found in a fluorescence field.

    Attributes
    ----------
    row, col
        Centre of gravity, level-0 pixels (integer = pixel centre).
    box
        (row0, col0, row1, col1), half-open level-0 pixel edges.
    mask
        (row1 - row0, col1 - col0) bool: the nucleus within its box.
    """

    row: float
    col: float
    box: tuple[int, int, int, int]
    mask: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class CellFeatures:
    """What a network's trunk sees of one cell: ``vector`` is (d,) float32."""

    uid: str
    vector: NDArray[np.float32]


@dataclass(frozen=True)
class FoundRegion:
    """A region of red cells that the detector found: half-open level-0 pixel edges, its score."""

    box: tuple[int, int, int, int]
    detection: float


@dataclass(frozen=True)
class RegionCall:
    """RBC's answer for one box.

    Attributes
    ----------
    uid, row, col
        The box as asked for; row and col are its middle.
    labels
        Types whose probability is strictly above their threshold, in the model's order.
    probabilities
        Of each type, in the model's order; independent, they do not sum to one. Empty, with a
        flag that says why, where there is no answer.
    thresholds
        Of each type.
    abnormal
        Probability that the box holds an abnormal cell, by the model's booster; NaN where there
        is no answer.
    label
        ``abnormal`` or ``normal`` by ``abnormal_threshold``; empty where there is no answer.
    model, precision
        As of `NucleusCall`.
    flags
        ``border`` (cut by the image's edge), ``stretched`` (sides more than 2 : 1, scaled
        apart), ``unlabelled`` (no type above its threshold); with no answer: ``blank``,
        ``tiny``, ``not-finite``.
    """

    uid: str
    row: float
    col: float
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    thresholds: tuple[float, ...]
    abnormal: float
    abnormal_threshold: float
    label: str
    model: str
    n_views: int = 1
    precision: str = "fp32"
    final: bool = True
    flags: tuple[str, ...] = ()

    @property
    def score(self) -> float:
        """Probability of abnormal; NaN where there is no answer."""
        return self.abnormal

    @property
    def margin(self) -> float:
        """How clear the least clear of its decisions is, verdict or type; NaN without an answer."""
        if not self.probabilities or math.isnan(self.abnormal):
            return float("nan")
        types = zip(self.probabilities, self.thresholds, strict=True)
        verdict = clearance(self.abnormal, self.abnormal_threshold)
        return min([verdict, *(clearance(p, t) for p, t in types)])


def clearance(probability: float, threshold: float) -> float:
    """How far a probability is from its threshold, 0..0.5: 0 and 1 are always half away.

    Types are called at thresholds from 0.15 to 0.65; counted in plain differences, a type that is
    certainly absent would be near a low one.
    """
    room = threshold if probability < threshold else 1 - threshold
    return 0.5 * abs(probability - threshold) / room if room > 0 else 0.5


@dataclass(frozen=True)
class SegmentedRows:
    """Rows of a region that are final in its store.

    ``row0`` and ``row1`` are half-open, in pixels of the store's full level.
    """

    store: str
    row0: int
    row1: int
    total: int
    provisional: bool = False
