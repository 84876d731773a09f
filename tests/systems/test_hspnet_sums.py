"""Sums of a wide region lie in a file but for two blocks, and no bit is another."""

import os

import numpy as np
import pytest
import torch

from napari_cellpath.core.requests import MemoryImage, SegmentRequest
from napari_cellpath.slides.region_store import RegionStore
from napari_cellpath.systems.hspnet import strips, sums
from napari_cellpath.systems.hspnet.plan import SegmentPlan
from napari_cellpath.systems.hspnet.strips import Strips
from napari_cellpath.systems.hspnet.sums import Sums
from tests.support.models import write_tissue_model
from tests.support.tissue import N_CLASSES, Stub, drive, forward, picture, predictor

CPU = torch.device("cpu")


@pytest.fixture
def in_blocks(monkeypatch):
    """Blocks of some dozens of columns, narrower and wider than a tile is apart."""

    def arrange(columns):
        monkeypatch.setattr(sums, "HELD_WHOLE", 0)
        monkeypatch.setattr(sums, "BLOCK_BYTES", 1)
        monkeypatch.setattr(strips, "BLOCK", columns)

    return arrange


def fill(held):
    """Adds to overlapping columns from left to right, as tiles do, thrice over."""
    for number in range(3):
        for col in range(0, 81, 10):
            for left, part in held.parts(col, col + 20):
                part += torch.arange(left, left + part.shape[2]) * (1 + number)
        for left, part in held.parts(0, 100, backwards=True):
            part[:, number] = -left
    return torch.cat([part.clone() for _, part in held.parts(0, 100)], dim=2)


def test_blocks_hold_what_one_tensor_holds(in_blocks):
    whole = Sums(2, 5, 100, CPU, 30)
    wanted = fill(whole)
    assert whole.memory_bytes == 2 * 5 * 100 * 4
    in_blocks(30)
    blocks = Sums(2, 5, 100, CPU, 30)
    found = fill(blocks)
    assert found[:, 3:].equal(wanted[:, 3:])
    assert found[:, 2].unique().tolist() == [-90, -60, -30, 0]  # the last to be set
    assert blocks.memory_bytes == 2 * 2 * 5 * 30 * 4


def test_where_there_is_no_room_for_a_file_all_is_held(in_blocks, monkeypatch):
    if not hasattr(os, "posix_fallocate"):
        pytest.skip("this system does not set room aside")
    in_blocks(30)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    held = Sums(2, 5, 100, CPU, 30)
    fill(held)
    assert held.memory_bytes == 2 * 5 * 100 * 4


@pytest.fixture
def region(tmp_path):
    """Runs a region to its end; options are of the request."""
    model = str(write_tissue_model(tmp_path / "model"))
    stores = iter(range(9))

    def run(image, lose_every=0, **options):
        request = SegmentRequest(
            MemoryImage(image, mpp=1.0), model, str(tmp_path / f"{next(stores)}.ome.zarr"),
            probabilities=True, **options,
        )  # fmt: skip
        plan, network = SegmentPlan(request), Stub()
        worker, steps = predictor(network), 0
        if not lose_every:
            drive(plan, worker)
        while not plan.finished:
            task = plan.take()
            steps += 1
            if steps % lose_every == 0:
                worker = predictor(network)
            plan.give(task, worker.run(task.payload, forward, lambda: False))
        store = RegionStore.open(request.store)
        return [a[:] for a in (*store.levels, *store.probabilities)], store.progress.counts

    return run


@pytest.mark.parametrize("columns", [16, 48, 112])
@pytest.mark.parametrize("shape", [(150, 333), (200, 130)])
def test_a_region_in_blocks_is_the_same_to_the_bit(region, in_blocks, columns, shape):
    """Blocks narrower than a tile, one and a half, of nearly the width; a polygon beside them."""
    image = picture(*shape)
    both = {}, {"polygon": ((0, 0), (shape[0], 20), (90, shape[1]))}
    wanted = [region(image, **options) for options in both]
    in_blocks(columns)
    for options, (whole, counts) in zip(both, wanted, strict=True):
        found, found_counts = region(image, **options)
        assert found_counts == counts
        assert all(np.array_equal(a, b) for a, b in zip(whole, found, strict=True))


def test_lost_workers_change_no_bit_in_blocks(region, in_blocks):
    whole, _ = region(image := picture(220, 210))
    in_blocks(48)
    found, _ = region(image, lose_every=23)
    assert all(np.array_equal(a, b) for a, b in zip(whole, found, strict=True))


def test_memory_hardly_grows_with_the_width(region, in_blocks, monkeypatch):
    """Beside two blocks there are the source's bytes alone: three a column and row."""
    in_blocks(32)
    most = []
    finish = Strips.finish

    def watched(self, *arguments, **options):
        most.append((self.layout.padded[1], self.memory_bytes))
        return finish(self, *arguments, **options)

    monkeypatch.setattr(Strips, "finish", watched)
    for width in (300, 600):
        region(picture(70, width))
    blocks = 2 * N_CLASSES * 64 * 32 * 4
    assert {held - 64 * wide * 3 for wide, held in most} == {blocks}
    assert {wide for wide, _ in most} == {300, 600}
