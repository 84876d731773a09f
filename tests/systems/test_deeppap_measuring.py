"""The SqueezeNet that measures: areas, weights, and the same numbers however it is computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_cellpath.systems.catalogue import build
from napari_cellpath.systems.deeppap.inference import inference_form
from napari_cellpath.systems.deeppap.measuring import (
    GRID,
    N_MEASURES,
    USUAL_CYTOPLASM,
    USUAL_NUCLEUS,
    Measurer,
    areas,
    fuse,
    measured,
)
from napari_cellpath.systems.deeppap.network import squeezenet1_0


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build("squeezenet1_0-measured").eval()


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    return torch.randn(2, 3, 227, 227, generator=torch.Generator().manual_seed(1))


def test_areas_count_places():
    """A nucleus of 400 places in a cell of 1300 measures as the usual ones do: nought."""
    parts = torch.zeros(1, 2, GRID, GRID)
    parts[0, 0, :20, :20] = 1.0
    parts[0, 1, :26, :50] = 1.0
    expected = np.log([(400 + 4) / USUAL_NUCLEUS, (1300 - 400 + 4) / USUAL_CYTOPLASM])
    assert areas(parts)[0].numpy() == pytest.approx(expected, abs=1e-6)


def test_areas_of_nothing_are_numbers():
    assert torch.isfinite(areas(torch.zeros(1, 2, GRID, GRID))).all()


def test_outlines_are_as_fine_as_said(crops):
    assert Measurer().eval().outlines(crops).shape == (2, 2, GRID, GRID)


def test_measures_stand_beside_the_maps_at_every_place(network, crops):
    with torch.inference_mode():
        maps = network.trunk(crops)
        measures = network.trunk.measurer(crops)
    assert maps.shape == (2, 512 + N_MEASURES, 13, 13)
    assert torch.equal(maps[:, -N_MEASURES:, 0, 0], measures)
    assert (maps[:, -N_MEASURES:] == measures[:, :, None, None]).all()


def test_a_measurer_that_has_no_weight_changes_nothing(crops):
    look = squeezenet1_0().eval()
    with torch.inference_mode():
        before = look(crops)
        after = measured(look, Measurer()).eval()(crops)
    assert torch.allclose(before, after, atol=1e-6)


def test_fusing_weighs_look_and_measures(crops):
    whole = measured(squeezenet1_0().eval(), Measurer()).eval()
    with torch.inference_mode():
        seen = whole.trunk(crops)[:, -N_MEASURES:, 0, 0]
        before = whole(crops).diff(dim=1)[:, 0]
        fuse(whole, 1.5, (2.0, -0.5), 0.25)
        after = whole(crops).diff(dim=1)[:, 0]
    expected = 1.5 * before + seen @ torch.tensor([2.0, -0.5]) + 0.25
    assert torch.allclose(after, expected, atol=1e-5)


def test_seven_classes_cannot_be_fused():
    with pytest.raises(ValueError, match="two classes"):
        fuse(build("squeezenet1_0-measured", n_classes=7), 1.0, (0.0, 0.0), 0.0)


def test_inference_form_gives_the_same_logits(network, crops):
    with torch.inference_mode():
        fuse(network, 1.0, (1.0, 1.0), 0.0)
        assert torch.allclose(network(crops), inference_form(network).eval()(crops), atol=1e-4)


def test_training_the_network_leaves_the_measurer_alone(network):
    network.train()
    try:
        assert not network.trunk.measurer.training
        assert network.trunk.look.training
        assert not any(p.requires_grad for p in network.trunk.measurer.parameters())
    finally:
        network.eval()
