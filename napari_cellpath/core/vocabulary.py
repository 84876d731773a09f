"""The field's words, spelled once: systems, presets, priorities, layer facts, colours."""

from __future__ import annotations

from enum import IntEnum, StrEnum

METADATA_KEY = "napari-cellpath"
"""Our facts about a napari layer live in ``layer.metadata[METADATA_KEY]``; names are the user's."""

RESEARCH_ONLY = "Research use only; not for diagnosis."


class System(StrEnum):
    """The four systems, by the name used on the command line and in model folders."""

    DEEPPAP = "deeppap"
    RBC = "rbc"
    HSPNET = "hspnet"
    HEP2 = "hep2"


class Preset(StrEnum):
    """How many views of a cell DeepPap averages (papers.md 1.5)."""

    FAST = "fast"  # the unrotated, unshifted view, ten crops: 10 network inputs
    BALANCED = "balanced"  # its ten rotations: 100 inputs
    PAPER = "paper"  # ten rotations x ten shifts: 1000 inputs
    ADAPTIVE = "adaptive"  # the paper's views in a fixed order, stopping when the call is certain


class Border(StrEnum):
    """What stands where a patch leaves the image."""

    ZERO = "zero"  # the paper's
    REFLECT = "reflect"
    BACKGROUND = "background"  # the median of the brightest pixels present


class Channel(StrEnum):
    """Which plane of a colour image shows the fluorescence; of a grey one all are the same."""

    GREEN = "green"  # fluorescein
    RED = "red"
    BLUE = "blue"
    MEAN = "mean"


PATTERNS = ("Homogeneous", "Speckled", "Nucleolar", "Centromere", "NuMem", "Golgi")
"""The six staining patterns of HEp-2 cells, in the order of the paper's tables (papers.md 4.6)."""


RBC_TYPES = ("Oval", "Elon", "Reti", "Gran", "Echi", "Stom")
"""What a region of red cells may hold, in the order of the paper's tables (papers.md 2.1)."""

NO_TYPE = "none"
"""A person's word that a region holds none of its model's types; no word at all is no label."""

NORMAL, ABNORMAL = "normal", "abnormal"
"""The two verdicts on a region of red cells."""


CIN_CLASSES = ("background", "normal", "CIN1", "CIN2", "CIN3")
"""What a pixel of cervical epithelium may be, in the order of severity (papers.md 3.1)."""
CIN_COLOURS = ("#000000", "#ffffff", "#00ff00", "#0000ff", "#ff0000")
"""The paper's colours of them (its Fig. 4)."""


class Fit(StrEnum):
    """How a box of any proportions becomes the square that the label heads see."""

    MODEL = "model"  # as its model was trained
    STRETCH = "stretch"  # sides scaled apart, the paper's
    LETTERBOX = "letterbox"  # proportions kept, the rest filled with the box's own border


class Blend(StrEnum):
    """Weight of a tile's pixels where tiles overlap (papers.md 3.6)."""

    RBF = "rbf"  # exp(-d2 / 2 (side/2)2), the default reading of "Gauss-weighted"
    EXP = "exp"
    COS = "cos"
    NONE = "none"  # tiles side by side, no overlap


class RegionMode(StrEnum):
    """How a region of a slide is segmented."""

    EXACT = "exact"  # the paper's tiles
    PREVIEW = "preview"  # one pass over large tiles: many times faster, other numbers


class Intensity(StrEnum):
    """How brightly a specimen fluoresces; a person says so."""

    POSITIVE = "positive"
    INTERMEDIATE = "intermediate"


class Contrast(StrEnum):
    """What is done to the grey levels of a HEp-2 cell before the network sees them."""

    NONE = "none"  # divided by 255, the paper's
    MINMAX = "minmax"  # each crop from its darkest to its brightest


class Average(StrEnum):
    """How many ways round a HEp-2 cell or a box of red cells is looked at."""

    MODEL = "model"  # as many as its model was measured with
    NONE = "none"  # as it is, the paper's
    D4 = "d4"  # the four right-angle rotations of the patch and their mirrors

    @property
    def ways(self) -> int:
        """Network inputs of a cell or box; of ``model`` a model must be asked.

        Raises
        ------
        ValueError
            It is ``model``.
        """
        if self is Average.MODEL:
            raise ValueError("how many ways round a model looks stands in its folder")
        return 8 if self is Average.D4 else 1


class Priority(IntEnum):
    """Order in which the worker takes tasks; larger first."""

    CLICK = 100
    BOX = 80
    REFINE = 70
    SEARCH = 65  # short, and somebody waits for it before there is anything to score
    FIELD = 60
    REGION = 40
    BATCH = 20


class Role(StrEnum):
    """What one of our layers is for."""

    NUCLEI = "nuclei"
    OCCLUSION = "occlusion"
    CELLS = "cells"  # HEp-2 cells, points
    MASKS = "masks"  # their masks, labels coloured by pattern
    REGIONS = "regions"  # red-cell regions, points in the middle of their boxes
    FIELD_REGIONS = "field-regions"  # the outlines of all their boxes, one light layer
    EDITED = "edited"  # the few that are drawn or changed now, shapes
    TISSUE = "tissue"  # classes of a slide region, labels
    PAINTED = "painted"  # what a person painted over it, labels at the image's resolution
    CLASS_PROBABILITY = "class-probability"
    ENTROPY = "entropy"
    COMPLETE = "complete"  # rectangles in which whatever is not marked is not there


FLAG_WORDS = {
    "border": "its patch leaves the image",
    "unknown-scale": "the pixel size is not known",
    "crowded": "another nucleus is near",
    "out-of-focus": "out of focus",
    "noisy": "noisier than the training cells",
    "unusual-stain": "stained unlike the training cells",
    "unusual-nucleus-size": "a nucleus of another size than the training cells'",
    "blank": "nothing is to be seen there",
    "not-finite": "the network gave no number",
    "tiny": "its box is too small to be looked at",
    "stretched": "its sides are far from equal, and were scaled to be",
    "unlabelled": "no type is above its threshold",
}
"""What the flags of a call say to a person."""

UNLIKE_FLAGS = frozenset({"out-of-focus", "noisy", "unusual-stain", "unusual-nucleus-size"})
"""Flags of cells unlike those a model was trained on: its score is not to be believed blindly."""

# Two ends and the middle of one sequential, colour-blind safe map (viridis would hide dark
# points on dark nuclei; this runs from blue over pale yellow to red-brown and prints well).
SCORE_COLOURS = ("#2166ac", "#92c5de", "#f7f7c8", "#f4a582", "#b2182b")

# Okabe and Ito's eight colours: distinct under the common colour-vision deficiencies.
CLASS_COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#e69f00", "#56b4e9", "#cc79a7", "#f0e442", "#000000",
)  # fmt: skip
