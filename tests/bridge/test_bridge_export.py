"""The CSV of a nuclei layer, and the command line that scores it again."""

import csv
import shlex
from dataclasses import replace

import numpy as np
import pytest
from napari.layers import Image

from napari_cellpath.bridge.conventions import create_nuclei_layer
from napari_cellpath.bridge.export import command_line, csv_rows, export_csv
from napari_cellpath.bridge.nuclei import NucleiLayer
from napari_cellpath.bridge.scheme import Scheme
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.requests import FileImage, MemoryImage, NucleusRequest
from napari_cellpath.core.results import NucleusCall
from napari_cellpath.core.tables import read_points
from napari_cellpath.core.vocabulary import Border, Preset

THREE = Scheme(
    model="m", classes=("a", "b", "c"), colours=("#000000",) * 3, abnormal=(False, True, True),
    settings=("m",),
)  # fmt: skip
IMAGE = FileImage("/data/a slide.svs")
NAME = "a slide.svs"


@pytest.fixture
def nuclei():
    image = Image(np.zeros((100, 100), dtype=np.uint8))
    controller = NucleiLayer(create_nuclei_layer(image), image, THREE)
    yield controller
    controller.close()


def call(uid: str, score: float = 0.7) -> NucleusCall:
    return NucleusCall(
        uid=uid, row=1, col=1, score=score, std=0.1, n_views=100, label="b",
        probabilities=(0.3, 0.6, 0.1), threshold=0.5, model="m@1", flags=("border",),
    )  # fmt: skip


def test_every_nucleus_has_a_row(nuclei, tmp_path):
    """Scored, unscored and off-image nuclei are all there; blanks are blanks, not zeros."""
    uids = nuclei.add(np.array([[1.5, 2], [3, 4], [500, 4]]), ids=["x", "y", "z"])
    nuclei.write([call(uids[0])], ("m",))
    nuclei.correct(uids[:1], "c")
    path = tmp_path / "out.csv"
    assert export_csv(path, nuclei, NAME) == 3
    rows = list(csv.DictReader(path.open()))
    assert [r["id"] for r in rows] == ["x", "y", "z"]
    assert rows[0]["label"] == "b"
    assert rows[0]["correction"] == "c"
    assert float(rows[0]["p_b"]) == 0.6
    assert rows[0]["flags"] == "border"
    assert rows[1]["score"] == rows[1]["label"] == rows[1]["n_views"] == ""
    assert rows[2]["flags"] == "outside"
    assert {r["image"] for r in rows} == {NAME}
    assert [p.outside for p in read_points(path)] == [False, False, True]


def test_ids_stay_unique(nuclei, tmp_path):
    """Row numbers of clicked nuclei never repeat an id that came with a labels layer."""
    nuclei.add(np.array([[1, 1]]), ids=["1"])
    nuclei.add(np.array([[2, 2], [3, 3]]))
    path = tmp_path / "out.csv"
    export_csv(path, nuclei, NAME)
    assert len({p.id for p in read_points(path)}) == 3


def test_stale_and_not_finite_calls_are_told_apart(nuclei):
    """A stale call carries that flag; a score that is not finite is left blank."""
    uids = nuclei.add(np.array([[1, 1], [2, 2]]))
    nuclei.write([call(uids[0]), call(uids[1], float("nan"))], ("m",))
    nuclei.read_with(replace(THREE, settings=("other",)))
    rows = csv_rows(nuclei, NAME)
    assert rows[0]["flags"] == ("border", "stale")
    assert "score" not in rows[1]


def test_nothing_to_export_is_an_error(nuclei, tmp_path):
    """An empty table is not written."""
    with pytest.raises(CellpathError, match="no nuclei"):
        export_csv(tmp_path / "out.csv", nuclei, NAME)
    assert not (tmp_path / "out.csv").exists()


def test_command_survives_the_shell():
    """Spaces and quotes in paths come back whole, and every setting that matters is named."""
    request = NucleusRequest(
        FileImage("/data/it's one.tif", mpp=0.25), (), "m", preset=Preset.PAPER, seed=3,
        threshold=0.42, border=Border.REFLECT,
    )  # fmt: skip
    words = shlex.split(command_line(request, "p 1.csv", "o.csv", model="m@12ab34cd"))
    assert words == [
        "cellpath", "predict", "deeppap", "/data/it's one.tif", "--points", "p 1.csv",
        "--out", "o.csv", "--views", "paper", "--model", "m@12ab34cd", "--seed", "3",
        "--threshold", "0.42", "--mpp", "0.25", "--border", "reflect",
    ]  # fmt: skip
    in_memory = replace(request, image=MemoryImage(np.zeros((9, 9)), name="x"))
    with pytest.raises(CellpathError, match="only in memory"):
        command_line(in_memory, "p.csv", "o.csv", model="m")
