"""The store of a region: what survives a kill, what other programs see, what is damaged."""

import json

import numpy as np
import pytest
import zarr

from napari_cellpath.core.errors import OutputError, UnreadableImageError
from napari_cellpath.slides.region_store import (
    JOURNAL,
    UNSEEN,
    RegionFacts,
    RegionStore,
    entropy_of,
    level_shapes,
)

FACTS = RegionFacts(
    image={"name": "s.svs", "shape": [9000, 9000], "fingerprint": "ab", "mpp": 0.25},
    model="m@12345678", sha256="00", class_names=("background", "a", "b"),
    colours=("#000000", "#00ff00", "#ff0000"), abnormal=(False, False, True),
    shape=(1100, 1300), step=(4.0, 4.0), corner=(400.0, 800.0), mpp=1.0,
    layout={"tile": [400, 400]}, probabilities=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def answer():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, FACTS.shape).astype(np.uint8)
    return labels, rng.integers(0, 256, (3, *FACTS.shape)).astype(np.uint8)


def fill(store, answer, start, end, step=100):
    labels, probabilities = answer
    for row in range(start, end, step):
        rows = slice(row, min(row + step, end))
        store.write_rows(row, labels[rows], probabilities[:, rows])


def test_levels_hold_every_second_pixel(tmp_path, answer):
    """Whatever the bands were, also where a level's rows fall between them."""
    store = RegionStore.create(tmp_path / "r.ome.zarr", FACTS, chunk_rows=100)
    fill(store, answer, 0, 700, 100)
    fill(store, answer, 700, 1100, 33)
    assert [level.shape for level in store.levels] == level_shapes(FACTS.shape)
    assert len(store.levels) == 2
    for number, (level, shares) in enumerate(zip(store.levels, store.probabilities, strict=True)):
        step = 2**number
        assert (level[:] == answer[0][::step, ::step]).all()
        assert (shares[:] == answer[1][:, ::step, ::step]).all()
    counts = store.progress.counts
    assert counts[:3] == np.bincount(answer[0].ravel()).tolist()
    assert store.progress.complete


def test_rows_come_in_order_and_are_counted_last(tmp_path, answer):
    """What a kill leaves: rows beyond the count are written again."""
    store = RegionStore.create(tmp_path / "r.ome.zarr", FACTS)
    fill(store, answer, 0, 300)
    with pytest.raises(ValueError, match="row 500"):
        store.write_rows(500, answer[0][500:600])
    # A kill between the pixels and the journal:
    journal = (store.path / JOURNAL).read_bytes()
    fill(store, answer, 300, 400)
    (store.path / JOURNAL).write_bytes(journal)
    again = RegionStore.resume(store.path, FACTS)
    assert again.progress.rows_done == 300
    fill(again, answer, 300, 1100)
    assert (again.levels[0][:] == answer[0]).all()
    assert sum(again.progress.counts) == answer[0].size


def test_what_is_not_done_is_unseen(tmp_path, answer):
    store = RegionStore.create(tmp_path / "r.ome.zarr", FACTS)
    fill(store, answer, 0, 300)
    reader = RegionStore.open(store.path)
    assert (reader.rows(300, 1100) == UNSEEN).all()
    assert (reader.rows(0, 300) == answer[0][:300]).all()
    assert np.isnan(reader.entropy(300, 310)).all()


def test_other_programs_see_an_ome_zarr(tmp_path, answer):
    """Version 0.4: axes with units, scale and translation of each level, classes with colours."""
    store = RegionStore.create(tmp_path / "r.ome.zarr", FACTS)
    store.look(0, 0, answer[0][:100, :100])
    group = zarr.open_group(str(store.path), mode="r")
    assert group.metadata.zarr_format == 2
    scales = group.attrs["multiscales"][0]
    assert scales["version"] == "0.4"
    assert scales["axes"] == [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"]
    for number, dataset in enumerate(scales["datasets"]):
        scale, translation = dataset["coordinateTransformations"]
        assert scale["scale"] == [2.0**number] * 2
        # The middle of its first pixel: 400 + 2 - 1/2 level-0 pixels of 0.25 um.
        assert translation["translation"] == [100.375, 200.375]
    colours = group.attrs["image-label"]["colors"]
    assert colours[2] == {"label-value": 2, "rgba": [255, 0, 0, 255]}
    shares = group["probabilities"].attrs["multiscales"][0]
    assert [a["name"] for a in shares["axes"]] == ["c", "y", "x"]
    look = group["provisional"].attrs["multiscales"][0]["datasets"][0]
    assert look["coordinateTransformations"][0]["scale"] == [4.0, 4.0]


def test_a_first_look_holds_every_fourth_pixel(tmp_path, answer):
    store = RegionStore.create(tmp_path / "r.ome.zarr", FACTS)
    store.look(70, 130, answer[0][70:170, 130:230])
    looked = RegionStore.open(store.path).provisional[:]
    assert (looked[18:43, 33:58] == answer[0][72:170:4, 132:230:4]).all()
    assert (looked != UNSEEN).sum() == 25 * 25
    assert RegionStore.open(store.path).progress.rows_done == 0


def test_entropy_is_0_when_sure_and_1_when_not():
    shares = np.array([[[255, 85, 128, 0]], [[0, 85, 127, 0]], [[0, 85, 0, 0]]], np.uint8)
    found = entropy_of(shares)[0]
    assert found[:2] == pytest.approx([0.0, 1.0], abs=1e-6)
    assert found[2] == pytest.approx(np.log(2) / np.log(3), abs=1e-4)
    assert np.isnan(found[3])


def test_damaged_journals_are_refused_by_name(tmp_path, answer):
    store = RegionStore.create(tmp_path / "r.ome.zarr", FACTS)
    path = store.path / JOURNAL
    good = json.loads(path.read_text())
    for change, word in (
        ({"format": 99}, "update"),
        ({"progress": {"rows_done": 5000}}, "damaged"),
        ({"request": {}}, "damaged"),
        ({"progress": {"nonsense": 1}}, "damaged"),
    ):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(UnreadableImageError, match=word):
            RegionStore.resume(store.path, FACTS)
    for content in ("", "{", "[" * 100_000):
        path.write_text(content)
        with pytest.raises(UnreadableImageError, match=JOURNAL):
            RegionStore.open(store.path)
    path.unlink()
    with pytest.raises(UnreadableImageError, match="no region of ours"):
        RegionStore.open(store.path)
    with pytest.raises(OutputError, match="no region of ours"):
        RegionStore.resume(store.path, FACTS)


def test_a_store_without_its_arrays_is_damaged(tmp_path):
    import shutil

    store = RegionStore.create(tmp_path / "r.ome.zarr", FACTS)
    shutil.rmtree(store.path / "1")
    with pytest.raises(UnreadableImageError, match="damaged"):
        RegionStore.open(store.path)


def test_an_unwritable_place_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError):
        RegionStore.create(tmp_path / "file" / "r.ome.zarr", FACTS)
    with pytest.raises(OutputError):
        RegionStore.create(tmp_path / "file", FACTS)


def test_probabilities_are_asked_for(tmp_path):
    from dataclasses import replace

    store = RegionStore.create(tmp_path / "r.ome.zarr", replace(FACTS, probabilities=False))
    with pytest.raises(OutputError, match="no probabilities"):
        store.entropy(0, 10)
