"""What a request names for a layer: the file where that is what is shown, else the pixels."""

import numpy as np
import pytest
import tifffile
from napari.layers import Image, Labels
from PIL import Image as Pillow

from napari_cellpath.bridge.conventions import create_nuclei_layer, to_image_pixels
from napari_cellpath.bridge.sources import ScaleOrigin, Sources, layer_mpp, prepare
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.requests import FileImage, MemoryImage
from napari_cellpath.core.vocabulary import METADATA_KEY


@pytest.fixture
def pixels():
    return np.random.default_rng(1).integers(0, 255, (120, 160, 3), dtype=np.uint8)


@pytest.fixture
def png(tmp_path, pixels):
    path = tmp_path / "cell field.png"
    Pillow.fromarray(pixels).save(path)
    return path


def layer_of(path, data, **options) -> Image:
    return Image(data, metadata={METADATA_KEY: {"path": str(path)}}, **options)


def test_unmodified_file_is_named(png, pixels):
    """A layer that shows a file unmodified becomes a request for that file."""
    source = prepare(layer_of(png, pixels))
    assert source.image == FileImage(str(png))
    assert source.origin is ScaleOrigin.UNKNOWN


def test_edited_layer_is_taken_as_shown(png, pixels):
    """A layer edited since it was opened is analysed as shown, and the user is told."""
    edited = pixels // 2
    source = prepare(layer_of(png, edited))
    assert isinstance(source.image, MemoryImage)
    assert source.image.pixels is edited
    assert "differs from cell field.png" in source.notes[0]


def test_other_size_or_missing_file_is_memory(png, pixels):
    """A cropped layer, and one whose file is gone, are analysed from memory."""
    assert isinstance(prepare(layer_of(png, pixels[:100])).image, MemoryImage)
    assert isinstance(prepare(layer_of(png.with_name("gone.png"), pixels)).image, MemoryImage)


def test_scale_in_micrometres_counts(png, pixels):
    """A layer scale in micrometres is the pixel size; one in pixels or uneven says nothing."""
    source = prepare(layer_of(png, pixels, scale=(0.25, 0.25), units=("um", "um")))
    assert source.mpp == pytest.approx(0.25)
    assert source.origin is ScaleOrigin.LAYER
    assert source.image.mpp == pytest.approx(0.25)
    assert layer_mpp(Image(pixels, scale=(250, 250), units=("nm", "nm"))) == pytest.approx(0.25)
    assert layer_mpp(Image(pixels, scale=(0.25, 0.25))) is None
    assert layer_mpp(Image(pixels, scale=(0.25, 0.5), units=("um", "um"))) is None


def test_file_scale_stays_with_the_file(tmp_path, pixels):
    """A pixel size that the file states is left to the file, so that worker and CLI agree."""
    path = tmp_path / "scaled.tif"
    tifffile.imwrite(path, pixels, resolution=(4e4, 4e4), resolutionunit="CENTIMETER")
    source = prepare(layer_of(path, pixels, scale=(0.25, 0.25), units=("um", "um")))
    assert source.image == FileImage(str(path))
    assert source.mpp == pytest.approx(0.25)
    assert source.origin is ScaleOrigin.FILE


def test_users_scale_wins(png, pixels):
    """What the user types overrides file and layer."""
    source = prepare(layer_of(png, pixels)).with_mpp(0.3)
    assert source.image == FileImage(str(png), mpp=0.3)
    assert source.origin is ScaleOrigin.USER


def test_stack_is_refused_in_words():
    """A stack is no image to be analysed; the sentence says what to do."""
    stack = Image(np.zeros((3, 20, 20)), name="stack")
    with pytest.raises(CellpathError, match="2-D plane"):
        prepare(stack)
    with pytest.raises(CellpathError, match="'stack' is a stack of 3 axes"):
        create_nuclei_layer(stack)


def test_sixteen_bits_keep_one_range():
    """A 16-bit layer gets one value range for the whole image, so that windows agree."""
    data = np.zeros((50, 50), dtype=np.uint16)
    data[0, 0] = 4000
    assert prepare(Image(data)).image.value_range == (0.0, 4095.0)


def test_float_beyond_one_takes_contrast_limits():
    """Floats beyond 0..1 are mapped by the contrast limits the user sees, and it is said."""
    data = np.linspace(0, 900, 2500).reshape(50, 50)
    source = prepare(Image(data, contrast_limits=(0, 800), name="float"))
    assert source.image.value_range == (0.0, 800.0)
    assert "contrast limits 0 to 800" in source.notes[0]


def test_pyramid_gives_level_0(pixels):
    """Of a pyramid the finest level is analysed."""
    source = prepare(Image([pixels, pixels[::2, ::2]], multiscale=True))
    assert source.image.shape == (120, 160)


def test_answer_is_forgotten_when_pixels_change(pixels):
    """Replacing or editing the pixels, or rescaling, drops what was known, late answers too."""
    layer = Image(pixels)
    sources = Sources()
    sources.watch(layer)
    doubted: list[Image] = []
    sources.doubted.connect(doubted.append)
    for change in (
        lambda: setattr(layer, "data", pixels // 2),
        lambda: layer.refresh(),
        lambda: setattr(layer, "scale", (2, 2)),
    ):
        version = sources.version(layer)
        assert sources.put(layer, prepare(layer), version)
        doubted.clear()
        change()
        assert sources.get(layer) is None
        assert sources.latest(layer) is not None, "what is shown does not flicker"
        assert doubted, "somebody has to look again"
        assert not sources.put(layer, prepare(layer), version)
    sources.close()


def test_labels_reach_the_image_through_the_world(pixels):
    """Points of a layer at another scale and offset land on the image's own pixels."""
    image = Image(pixels, scale=(0.5, 0.5), translate=(10, 20))
    labels = Labels(np.zeros((60, 80), dtype=int), scale=(1.0, 1.0), translate=(10, 20))
    mapped = to_image_pixels(np.array([[0.0, 0.0], [5.0, 7.0]]), labels, image)
    np.testing.assert_allclose(mapped, [[0, 0], [10, 14]])
