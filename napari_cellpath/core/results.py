"""What comes back from the backend: frozen, with its provenance."""

from __future__ import annotations

from dataclasses import dataclass


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
        Reasons for care: ``border`` (the patch leaves the image), ``unknown-scale``; reasons
        why there is no score: ``blank`` (nothing is to be seen there), ``not-finite``.
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

    def doubtful(self, band: float) -> bool:
        """Whether the score lies within ``band`` of the threshold and a person should look."""
        return abs(self.score - self.threshold) <= band
