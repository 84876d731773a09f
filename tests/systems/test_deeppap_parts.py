"""The measures of outlined nuclei, against discs and ellipses whose sizes are known."""

import math

import pytest
import torch

from napari_cellpath.systems.catalogue import build
from napari_cellpath.systems.deeppap.parts import GRID, N_MEASURES, measures, on_grid

AREA, CELL, RATIO = 0, 1, 2
NUCLEUS_COLOUR, CYTOPLASM_COLOUR = slice(3, 6), slice(9, 12)
LONG, SHORT, OUTLINE, BLUR, OFF_CENTRE, FRAME = range(15, N_MEASURES)


def ellipse(a: float, b: float, angle: float = 0.0, at=(27.0, 27.0)) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(GRID * 8), torch.arange(GRID * 8), indexing="ij")
    y, x = (y + 0.5) / 8 - 0.5 - at[0], (x + 0.5) / 8 - 0.5 - at[1]
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    inside = ((along / a) ** 2 + (across / b) ** 2 <= 1).float()
    return torch.nn.functional.avg_pool2d(inside[None], 8)[0]


def measured(nucleus, cell, colours=None) -> torch.Tensor:
    colours = torch.zeros(1, 3, GRID, GRID) if colours is None else colours
    return measures(torch.stack([nucleus, cell])[None], colours)[0]


def test_areas_and_ratio_are_those_of_the_discs():
    """Logarithms of areas in places; the ratio's is their difference."""
    got = measured(ellipse(8, 8), ellipse(20, 20))
    assert math.exp(got[AREA]) * 300 == pytest.approx(math.pi * 64 + 1, rel=0.01)
    assert math.exp(got[CELL]) * 1000 == pytest.approx(math.pi * 400 + 1, rel=0.01)
    assert float(got[RATIO]) == pytest.approx(math.log(64 / 400) + 1, abs=0.02)


def test_axes_do_not_depend_on_the_angle():
    """An ellipse's axes are found whichever way it lies; doubled, they are doubled."""
    cell = ellipse(25, 25)
    first = measured(ellipse(12, 6), cell)
    for angle in (0.4, 1.1, 2.9):
        turned = measured(ellipse(12, 6, angle), cell)
        assert turned[LONG:BLUR].tolist() == pytest.approx(first[LONG:BLUR].tolist(), abs=0.15)
        assert turned[AREA].item() == pytest.approx(first[AREA].item(), abs=0.01)
    assert (first[LONG] - first[SHORT]).item() == pytest.approx(2 * math.log(2), abs=0.05)


def test_colours_are_those_of_nucleus_and_cytoplasm():
    """Means over each part, whatever lies outside the cell."""
    nucleus, cell = ellipse(8, 8), ellipse(18, 18)
    level = torch.where(nucleus > 0, -1.5, torch.where(cell > 0, 0.5, 9.0))
    got = measured(nucleus, cell, level.expand(1, 3, GRID, GRID))
    assert got[NUCLEUS_COLOUR].tolist() == pytest.approx([-1.5] * 3, abs=0.05)
    assert got[CYTOPLASM_COLOUR].tolist() == pytest.approx([0.5] * 3, abs=0.2)


def test_place_blur_and_frame():
    """Off the cell's centre, blurred, and leaving the view are each seen by one measure."""
    middle = measured(ellipse(8, 8), ellipse(18, 18))
    beside = measured(ellipse(8, 8, at=(27.0, 37.0)), ellipse(18, 18))
    assert beside[OFF_CENTRE] > middle[OFF_CENTRE] + 0.5
    soft = measured(ellipse(8, 8) * 0.5, ellipse(18, 18))
    assert soft[BLUR] > middle[BLUR] + 1.0
    assert middle[FRAME].item() == 0.0
    assert measured(ellipse(8, 8), ellipse(60, 60))[FRAME].item() == pytest.approx(1.0)


def test_nothing_outlined_is_finite_and_differentiable():
    """An empty outline gives numbers, and gradients that are numbers."""
    parts = torch.zeros(2, 2, GRID, GRID, requires_grad=True)
    got = measures(parts, torch.randn(2, 3, GRID, GRID))
    assert got.shape == (2, N_MEASURES)
    assert torch.isfinite(got).all()
    got.sum().backward()
    assert torch.isfinite(parts.grad).all()


def test_grid_lies_over_the_trunks_places():
    """A spot in the crop is in the bin of the place whose maps look at it."""
    network = build("squeezenet-parts").eval()
    crop = torch.zeros(1, 3, 227, 227)
    crop[..., 111:116, 111:116] = 1.0  # round pixel 113 = 4 * 27 + 5
    assert on_grid(crop)[0, 0].argmax() == 27 * GRID + 27
    with torch.inference_mode():
        first = network.trunk[:5](crop) - network.trunk[:5](torch.zeros_like(crop))
    energy = first.abs().sum(dim=1)[0]
    assert divmod(int(energy.argmax()), GRID) == pytest.approx((27, 27), abs=1)


def test_classes_do_not_pull_the_outline():
    """Gradients of a call reach the reader and the look's head, never the outliner."""
    network = build("squeezenet-parts")
    network(torch.randn(1, 3, 227, 227)).sum().backward()
    assert all(p.grad is None for p in network.outliner.parameters())
    assert all(p.grad is not None for p in network.reader.parameters())
