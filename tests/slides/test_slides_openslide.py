"""Slides through OpenSlide: clear words without it, the same pixels with it."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from napari_cellpath.core.errors import UnreadableImageError
from napari_cellpath.slides import open_slide
from napari_cellpath.slides.reader import get_reader


def test_without_it_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openslide", None)
    (tmp_path / "s.mrxs").write_bytes(b"x")
    with pytest.raises(UnreadableImageError, match=r"s\.mrxs needs OpenSlide.*\[openslide\]"):
        open_slide(tmp_path / "s.mrxs")
    assert get_reader(str(tmp_path / "s.mrxs")) is not None  # napari shows the sentence


def test_unsafe_versions_are_refused(tmp_path, monkeypatch):
    """4.0.0 writes out of bounds on a crafted BIF."""
    monkeypatch.setitem(sys.modules, "openslide", SimpleNamespace(__library_version__="4.0.0"))
    (tmp_path / "s.bif").write_bytes(b"x")
    with pytest.raises(UnreadableImageError, match=r"4\.0\.1 or newer"):
        open_slide(tmp_path / "s.bif")


class FakeSlide:
    """Two levels of a half transparent slide; a square of it cannot be read."""

    level_count = 2
    level_dimensions = ((1300, 700), (325, 175))
    level_downsamples = (1.0, 4.0)

    def __init__(self, path):
        self.properties = {"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25"}

    def read_region(self, place, level, size):
        if place == (1024, 512):
            raise ValueError("damaged")
        rgba = np.zeros((size[1], size[0], 4), np.uint8)
        rgba[..., 0] = 200
        rgba[:, : size[0] // 2, 3] = 255
        return rgba

    def close(self):
        pass


def test_levels_scale_and_glass(tmp_path, monkeypatch):
    """Where the scanner did not look it is white; damage is told apart; squares are kept."""
    fake = SimpleNamespace(__library_version__="4.0.1.2", OpenSlide=FakeSlide)
    monkeypatch.setitem(sys.modules, "openslide", fake)
    (tmp_path / "s.ndpi").write_bytes(b"x")
    with open_slide(tmp_path / "s.ndpi") as slide:
        assert [level.shape for level in slide.levels] == [(700, 1300), (175, 325)]
        assert slide.mpp == 0.25
        part = slide.read_region(0, 0, 512, 512)
        assert part[0, 0].tolist() == [200, 0, 0]
        assert part[0, 500].tolist() == [255, 255, 255]
        slide.read_region(100, 100, 300, 300)
        assert slide.decoded_pixels == 512 * 512
        damaged = []
        slide.read_region(500, 1000, 100, 100, 0, damaged)
        assert damaged == [(512, 1024, 700, 1300)]


def test_it_reads_what_our_reader_reads(tmp_path, small_slide):
    """OpenSlide's own small slide, under a name that goes through it (JPEG to a few levels)."""
    pytest.importorskip("openslide")
    link = tmp_path / "same.svslide"
    link.symlink_to(small_slide)
    with open_slide(small_slide) as ours, open_slide(link) as theirs:
        assert theirs.shape == ours.shape
        assert theirs.mpp == pytest.approx(ours.mpp, rel=1e-3)
        a, b = (s.read_region(900, 700, 600, 600).astype(int) for s in (ours, theirs))
        assert np.abs(a - b).mean() < 1
