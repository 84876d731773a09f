"""How a call is read: which class it amounts to, and whether it is still what was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_cellpath.core.results import NucleusCall, PatternCall, RegionCall

Call = NucleusCall | PatternCall | RegionCall


@dataclass(frozen=True)
class Scheme:
    """How scores are read: the current model's classes, the threshold and the review band.

    ``settings`` is everything a score depends on (model, preset, border, seed, scale), as one
    comparable value: calls made under other settings are stale, and are fresh again when the
    settings return.
    """

    model: str = ""
    classes: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    abnormal: tuple[bool, ...] = ()
    threshold: float = 0.5
    band: float = 0.1
    settings: tuple[Any, ...] = ()

    @property
    def by_threshold(self) -> bool:
        """Whether the threshold decides between two classes."""
        return len(self.classes) == 2 and sum(self.abnormal) == 1

    def label(self, call: Call) -> str:
        """The class a call amounts to: two classes by this threshold, more by the network's.

        Empty where there is no answer.
        """
        if np.isnan(call.score) or not self.by_threshold:
            return call.label
        return self.classes[self.abnormal.index(call.score > self.threshold)]
