"""Tiles and their weights, and the blend of them (papers.md 3.10, facts 6, 7, 8 and 12)."""

import numpy as np
import pytest
import torch

from napari_cellpath.core.errors import OutsideImageError, ScaleError
from napari_cellpath.core.requests import MemoryImage, SegmentRequest
from napari_cellpath.core.vocabulary import Blend, RegionMode
from napari_cellpath.models import ClassInfo, ModelInfo
from napari_cellpath.systems.hspnet.layout import Polygon, layout_of
from napari_cellpath.systems.hspnet.strips import blend_image
from napari_cellpath.systems.hspnet.tiles import importance_map, ramp_map, tile_starts
from tests.support.tissue import N_CLASSES, Stub, picture, reference

INFO = ModelInfo(
    name="m", system="hspnet", architecture="hspnet-resnet34", mpp=None,
    classes=tuple(ClassInfo(name=f"c{i}", colour="#000000") for i in range(N_CLASSES)),
    input={"tile": 64, "stride": 16},
)  # fmt: skip


def layout(shape, **options):
    image = MemoryImage(np.zeros((*shape, 3), np.uint8))
    return layout_of(SegmentRequest(image, "m", "s.ome.zarr", **options), INFO)


@pytest.mark.parametrize(
    ("length", "starts"),
    [(400, [0]), (401, [0, 1]), (500, [0, 100]), (399, [0]), (1, [0])],
)
def test_the_last_tile_ends_at_the_border(length, starts):
    assert tile_starts(length, 400, 100) == starts


def test_tile_starts_of_longer_images():
    assert len(tile_starts(1000, 400, 100)) == 7
    assert tile_starts(1050, 400, 100) == [0, 100, 200, 300, 400, 500, 600, 650]


def test_weights_are_the_papers():
    """Middle 1; corner e^-1 and, of cos, the floor; middles of the edges (fact 6)."""
    rbf, exp, cos = (importance_map(b, 401) for b in (Blend.RBF, Blend.EXP, Blend.COS))
    for weights in (rbf, exp, cos):
        assert weights[200, 200] == 1
    assert rbf[0, 0] == pytest.approx(0.367879, abs=1e-6)
    assert exp[0, 0] == pytest.approx(0.367879, abs=1e-6)
    assert cos[0, 0] == pytest.approx(1e-3)
    assert rbf[0, 200] == pytest.approx(0.606531, abs=1e-6)
    assert exp[0, 200] == pytest.approx(0.493069, abs=1e-6)
    assert cos[0, 200] == pytest.approx(0.444016, abs=1e-6)
    five = importance_map(Blend.RBF, 5)[0]
    assert five == pytest.approx([0.3679, 0.5353, 0.6065, 0.5353, 0.3679], abs=1e-4)


@pytest.mark.parametrize("blend", list(Blend))
@pytest.mark.parametrize("side", [5, 64])
def test_weights_are_the_same_all_eight_ways_round(blend, side):
    weights = importance_map(blend, side)
    for turned in (weights[::-1], weights[:, ::-1], weights.T):
        assert turned == pytest.approx(weights, abs=1e-7)


def test_ramps_of_neighbours_add_up():
    """A preview's tile fades out as the next one fades in."""
    weights = ramp_map((96, 96), (32, 32))
    assert weights[48, 64:] + weights[48, :32] == pytest.approx(np.ones(32), abs=1e-6)
    assert weights[48, 32:64] == pytest.approx(np.ones(32))


@pytest.mark.parametrize("blend", list(Blend))
@pytest.mark.parametrize("shape", [(64, 64), (65, 91), (150, 70), (130, 200)])
def test_blending_equals_the_plain_loop(blend, shape):
    """The strips, rings and windows give what adding whole tiles to a whole map gives."""
    image, network = picture(*shape), Stub()
    found = layout(shape, blend=blend)
    ours = blend_image(image, found, network, network.normalise, N_CLASSES)
    stride = 64 if blend is Blend.NONE else 16
    plain = reference(
        image, network, 64, lambda n: tile_starts(n, 64, stride), importance_map(blend, 64)
    )
    assert np.abs(ours - plain).max() < 1e-6


@pytest.mark.parametrize("shape", [(64, 64), (64, 80), (100, 77), (129, 200)])
@pytest.mark.parametrize("blend", list(Blend))
def test_a_constant_stays_constant(shape, blend):
    """Whatever the size and the weights, to 1e-6 (fact 7)."""
    share = torch.tensor([0.1, 0.2, 0.3, 0.15, 0.25])

    def network(tile):
        return share[None, :, None, None].expand(1, -1, *tile.shape[2:])

    image = np.zeros((*shape, 3), np.uint8)
    found = blend_image(image, layout(shape, blend=blend), network, lambda x: x.float(), N_CLASSES)
    assert np.abs(found - share.numpy()[:, None, None]).max() < 1e-6


def test_one_tile_is_the_tile():
    image, network = picture(64, 64), Stub()
    found = blend_image(image, layout((64, 64)), network, network.normalise, N_CLASSES)
    whole = network(network.normalise(torch.from_numpy(image).permute(2, 0, 1)[None]))
    assert np.abs(found - whole[0].detach().numpy()).max() < 1e-6


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mirrored_image_gives_the_mirrored_blend(axis):
    """Of a network that does not know left from right (fact 12); sizes whose tiles mirror."""
    image, network = picture(112, 160), Stub()
    found = layout(image.shape[:2])
    one = blend_image(image, found, network, network.normalise, N_CLASSES)
    mirrored = np.ascontiguousarray(np.flip(image, axis))
    other = blend_image(mirrored, found, network, network.normalise, N_CLASSES)
    assert np.abs(np.flip(other, axis + 1) - one).max() < 1e-5


def test_small_regions_look_at_their_surroundings():
    """A region smaller than a tile is computed on a tile of the image, not on reflections."""
    found = layout((500, 300), region=(490, 100, 10, 20))
    assert found.kept == (490, 100, 500, 120)
    assert found.frame == (436, 78, 500, 142)
    assert found.pad == (0, 0)
    small = layout((40, 300))
    assert small.frame == (0, 0, 40, 300)
    assert (small.pad, small.padded) == ((12, 0), (64, 300))
    assert small.offset == (12, 0)


def test_a_preview_has_a_tenth_of_the_tiles():
    exact, preview = layout((2000, 2000)), layout((2000, 2000), mode=RegionMode.PREVIEW)

    def work(found):
        return len(found.row_starts) * len(found.col_starts) * np.prod(found.tile)

    assert 8 < work(exact) / work(preview) < 12
    assert layout((50, 70), mode=RegionMode.PREVIEW).tile == (64, 96)


@pytest.mark.parametrize("stride", [0, -3, 65])
def test_strides_that_are_none_are_refused(stride):
    with pytest.raises(ScaleError, match="stride"):
        layout((200, 200), stride=stride)


@pytest.mark.parametrize(
    ("polygon", "word"),
    [
        (((0, 0), (5, 5)), "encloses nothing"),
        (((0, 0), (50, 50), (100, 100)), "encloses nothing"),
        (((0, 0), (np.nan, 50), (100, 10)), "encloses nothing"),
        (((900, 900), (950, 900), (950, 950)), "does not meet"),
    ],
)
def test_polygons_that_are_none_are_refused(polygon, word):
    with pytest.raises(OutsideImageError, match=word):
        layout((200, 200), polygon=polygon)


def test_a_polygons_pixels_are_those_whose_centres_lie_inside():
    """Also of one that crosses itself (even-odd), and the same in bands as at once."""
    from skimage.draw import polygon2mask

    corners = ((10.2, 20.3), (90.7, 15.1), (60.4, 110.6), (20.9, 80.2))
    grid = layout((120, 130)).grid
    whole = Polygon(corners, grid).mask((0, 0, 120, 130))
    assert (whole == polygon2mask((120, 130), corners)).mean() > 0.999
    bands = [Polygon(corners, grid).mask((r, 0, r + 30, 130)) for r in range(0, 120, 30)]
    assert (np.concatenate(bands) == whole).all()
    part = Polygon(corners, grid).mask((33, 17, 70, 99))
    assert (part == whole[33:70, 17:99]).all()
    bow = Polygon(((10.5, 10.5), (90.5, 90.5), (10.5, 90.5), (90.5, 10.5)), grid)
    mask = bow.mask((0, 0, 120, 130))
    assert [mask[50, 20], mask[50, 80], mask[20, 50], mask[80, 50]] == [True, True, False, False]
