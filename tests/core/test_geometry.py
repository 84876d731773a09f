"""Coordinates: points, edges, scales, centroids."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_cellpath.core.errors import OutsideImageError
from napari_cellpath.core.geometry import (
    centroids,
    check_inside,
    edge_of_point,
    plausible_mpp,
    scale_between,
)


@pytest.mark.parametrize(
    ("point", "edge"), [(64.0, 64), (64.5, 65), (64.49, 65), (63.51, 64), (63.5, 64), (-0.4, 0)]
)
def test_edge_of_point_is_the_nearest_edge_with_ties_down(point: float, edge: int) -> None:
    """Pixel i spans point coordinates i-0.5..i+0.5, so the edge nearest to p is ceil(p)."""
    assert edge_of_point(point, point) == (edge, edge)


@given(st.integers(-(10**6), 10**6))
def test_integer_points_keep_their_edge(place: int) -> None:
    """An integer centre (cy, cx) cuts rows cy-64 .. cy+63, whatever its parity."""
    assert edge_of_point(float(place), float(place)) == (place, place)


@pytest.mark.parametrize("inside", [(-0.5, -0.5), (0, 0), (9.5, 19.5)])
def test_points_on_the_border_are_inside(inside: tuple[float, float]) -> None:
    """The outer half pixels belong to the image."""
    check_inside(*inside, (10, 20), "p")


@pytest.mark.parametrize(
    ("row", "col", "says"),
    [
        (-0.51, 0, "outside the image of 10 x 20"),
        (9.51, 0, "outside"),
        (0, 19.6, "outside"),
        (math.nan, 0, "not finite"),
        (0, math.inf, "not finite"),
    ],
)
def test_points_outside_are_refused_by_name(row: float, col: float, says: str) -> None:
    """The message names the point, so that a user finds it in the table."""
    with pytest.raises(OutsideImageError, match=f"points.csv line 3.*{says}"):
        check_inside(row, col, (10, 20), "points.csv line 3")


def test_scale_between_ignores_two_percent_and_the_unknown() -> None:
    """Nothing is resampled for a difference smaller than that between cells, or on a guess."""
    assert scale_between(None, 0.2) == scale_between(0.2, None) == 1.0
    assert scale_between(0.2, 0.2039) == 1.0
    assert scale_between(0.25, 0.2) == pytest.approx(0.8)
    assert scale_between(0.1, 0.2) == pytest.approx(2.0)


@pytest.mark.parametrize("claim", [0, -1, math.nan, math.inf, 1e9, "x", None, [1]])
def test_absurd_pixel_sizes_are_unknown(claim: object) -> None:
    """Files claim 0, -1, NaN and 1e9 um; none of them reaches a computation."""
    assert plausible_mpp(claim) is None


def test_believable_pixel_sizes_are_kept() -> None:
    """Numbers and their text are both accepted, as headers hold text."""
    assert plausible_mpp("0.4990") == 0.499
    assert plausible_mpp(100) == 100.0


def test_centroids_are_mean_pixel_centres_in_label_order() -> None:
    """A 2 x 2 square on rows 2-3 has its centre at 2.5; gaps in the numbering are no rows."""
    labels = np.zeros((8, 8), np.int32)
    labels[2:4, 4:6] = 9
    labels[7, 0] = 3
    assert centroids(labels).tolist() == [[7.0, 0.0], [2.5, 4.5]]
    assert centroids(np.zeros((4, 4), int)).shape == (0, 2)
    with pytest.raises(ValueError, match="2-D"):
        centroids(np.zeros((2, 2, 2), int))
