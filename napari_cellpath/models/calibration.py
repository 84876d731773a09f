"""A model's calibration: what turns its mean score into a probability that can be believed."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

_CLOSEST = 1e-6
"""Scores are kept this far from 0 and 1, where the logit ends."""


def logit(score: float) -> float:
    """Log odds of a score, finite for 0 and 1 too."""
    kept = min(max(score, _CLOSEST), 1.0 - _CLOSEST)
    return math.log(kept / (1.0 - kept))


class Calibration(BaseModel):
    """Temperature scaling of the logit of the mean score; ``training.calibration`` fits it.

    Of models of several patterns it scales the log of each probability (`apply_many`).

    Attributes
    ----------
    method
        ``temperature``, or ``temperature+bias``.
    temperature, bias
        Calibrated log odds are ``logit(score) / temperature + bias``.
    n, groups
        Cells it was fitted to, and the slides, patients or specimens they are of.
    fitted_on
        Which cells those were, in words.
    bins
        Equally wide bins of the expected calibration error.
    ece_before, ece_after, brier_before, brier_after
        On those cells; after: each group scored by a calibration fitted to the others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["temperature", "temperature+bias"] = "temperature"
    temperature: float = Field(gt=0.0, lt=1000.0)
    bias: float = Field(default=0.0, gt=-100.0, lt=100.0)
    n: int = Field(default=0, ge=0)
    groups: int = Field(default=0, ge=0)
    fitted_on: str = ""
    bins: int = 15
    ece_before: float | None = None
    ece_after: float | None = None
    brier_before: float | None = None
    brier_after: float | None = None

    def apply_many(self, probabilities: ArrayLike) -> NDArray[np.float64]:
        """The calibrated probabilities of several classes: softmax of ``log p / temperature``.

        Parameters
        ----------
        probabilities
            (..., classes), each row summing to 1. Rows with NaN stay NaN.

        Raises
        ------
        ValueError
            The calibration has a bias, which says nothing about more than two classes.
        """
        if self.bias:
            raise ValueError("a calibration with a bias is one of two classes")
        given = np.asarray(probabilities, dtype=np.float64)
        powers = np.log(np.maximum(given, np.finfo(np.float64).tiny)) / self.temperature
        powers = np.exp(powers - powers.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))

    def apply(self, score: float) -> float:
        """The calibrated probability of a raw score in 0..1; NaN stays NaN."""
        if math.isnan(score):
            return score
        odds = logit(score) / self.temperature + self.bias
        # Two forms, so that neither overflows.
        return 1 / (1 + math.exp(-odds)) if odds >= 0 else math.exp(odds) / (1 + math.exp(odds))
