"""``cellpath predict hspnet``: what it writes, that it is what Python gives, what it refuses."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import shapely
import tifffile

from napari_cellpath.backend import connect
from napari_cellpath.cli import main
from napari_cellpath.cli.given import outline_of_file
from napari_cellpath.core.errors import TableError
from napari_cellpath.core.requests import FileImage, SegmentRequest
from napari_cellpath.core.vocabulary import CIN_CLASSES
from napari_cellpath.slides.region_store import UNSEEN, RegionStore
from tests.support.models import write_tissue_model
from tests.support.tissue import picture


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_tissue_model(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """150 x 180 pixels of 0.5 um: 75 x 90 of the model's."""
    path = tmp_path_factory.mktemp("slides") / "s.tif"
    tifffile.imwrite(
        path, picture(150, 180), photometric="rgb", tile=(64, 64), resolution=(2e4, 2e4),
        resolutionunit="CENTIMETER",
    )  # fmt: skip
    return path


def run(*arguments, expect=0):
    code = main(["predict", "hspnet", *map(str, arguments), "--device", "cpu"])
    assert code == expect


@pytest.fixture(scope="module")
def done(tmp_path_factory, model, slide):
    out = tmp_path_factory.mktemp("out") / "o.ome.zarr"
    run(slide, "--model", model, "--out", out, "--polygons", "--stride", 32)
    return out


def test_command_line_and_python_give_equal_classes(done, model, slide, tmp_path):
    request = SegmentRequest(FileImage(str(slide)), model, str(tmp_path / "py.ome.zarr"), stride=32)
    backend = connect(inline=True, device="cpu")
    backend.submit(request).result()
    backend.close()
    ours, theirs = RegionStore.open(tmp_path / "py.ome.zarr"), RegionStore.open(done)
    assert ours.levels[0][:].tobytes() == theirs.levels[0][:].tobytes()
    assert ours.facts == theirs.facts


def test_the_summary_counts_what_is_there(done):
    labels = RegionStore.open(done).levels[0][:]
    summary = json.loads(done.with_name("o.summary.json").read_text())
    assert list(summary["classes"]) == list(CIN_CLASSES)
    for number, part in enumerate(summary["classes"].values()):
        pixels = int((labels == number).sum())
        assert part["pixels"] == pixels
        assert part["share"] == pixels / labels.size
        assert part["area_mm2"] == pytest.approx(pixels * 1e-6)
    assert summary["region"] == [0.0, 0.0, 150.0, 180.0]
    assert (summary["mpp"], summary["stride"], summary["complete"]) == (1.0, [32, 32], True)
    merged = summary["merged"]
    of = {name: part["pixels"] for name, part in summary["classes"].items()}
    assert merged["HSIL"]["pixels"] == of["CIN2"] + of["CIN3"]
    areas = done.with_name("o.areas.csv").read_text().splitlines()
    assert areas[0] == "class,pixels,share,area_mm2"
    assert areas[1].startswith(f"background,{of['background']},")


def test_polygons_lie_on_level_0_and_fill_the_classes(done):
    """Valid, closed, with the areas counted; twice as large as the store's pixels."""
    features = json.loads(done.with_name("o.geojson").read_text())["features"]
    area = dict.fromkeys(CIN_CLASSES, 0.0)
    for feature in features:
        for ring in feature["geometry"]["coordinates"]:
            assert ring[0] == ring[-1]
        shape = shapely.geometry.shape(feature["geometry"])
        assert shape.is_valid
        west, north, east, south = shape.bounds
        assert 0 <= west < east <= 180
        assert 0 <= north < south <= 150
        area[feature["properties"]["classification"]["name"]] += shape.area
    summary = json.loads(done.with_name("o.summary.json").read_text())
    assert summary["polygons"] == {"count": len(features), "drawn_on_level": 0}
    for name, part in summary["classes"].items():
        if name != "background":
            assert area[name] == pytest.approx(part["pixels"] * 4)
    assert sum(area.values()) > 0


def test_a_tiff_has_scale_and_place(model, slide, tmp_path, capsys):
    """Of a region: its classes, micrometres, where it lies; the unfinished store is gone."""
    out = tmp_path / "o.ome.tif"
    run(
        slide, "--model", model, "--out", out, "--region", 20, 40, 100, 120, "--blend", "none",
        "--polygons", "--json",
    )  # fmt: skip
    said = json.loads(capsys.readouterr().out)
    assert said["out"] == str(out)
    assert said["region"] == [20.0, 40.0, 100.0, 120.0]
    with tifffile.TiffFile(out) as tif:
        labels, ome = tif.series[0].asarray(), tif.ome_metadata
    assert labels.shape == (50, 60)
    pixels = [part["pixels"] for part in said["classes"].values()]
    assert np.bincount(labels.ravel(), minlength=5).tolist() == pixels
    assert 'PhysicalSizeX="1.0"' in ome
    assert 'PositionX="20.0"' in ome
    assert 'PositionY="10.0"' in ome
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "o.areas.csv", "o.geojson", "o.ome.tif", "o.summary.json"
    ]  # fmt: skip
    features = json.loads((tmp_path / "o.geojson").read_text())["features"]
    bounds = np.array([shapely.geometry.shape(f["geometry"]).bounds for f in features])
    assert bounds[:, 0].min() >= 40
    assert bounds[:, 3].max() <= 120


def test_a_polygon_is_that_of_python_and_of_qupath(model, slide, tmp_path):
    """Corners as the window counts them, or a file of pixel edges: the same store."""
    corners = ((10.25, 20.0), (15.0, 150.5), (130.0, 60.0))
    request = SegmentRequest(
        FileImage(str(slide)), model, str(tmp_path / "p.ome.zarr"), polygon=corners
    )
    backend = connect(inline=True, device="cpu")
    backend.submit(request).result()
    backend.close()
    ring = [[col + 0.5, row + 0.5] for row, col in (*corners, corners[0])]
    drawn = {
        "type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation"},
    }  # fmt: skip
    (tmp_path / "drawn.geojson").write_text(json.dumps(drawn))
    words = " ".join(f"{row},{col}" for row, col in corners)
    run(slide, "--model", model, "--out", tmp_path / "w.ome.zarr", "--within", words)
    run(slide, "--model", model, "--out", tmp_path / "f.ome.zarr", "--within",
        tmp_path / "drawn.geojson")  # fmt: skip
    by_python, by_words, by_file = (
        RegionStore.open(tmp_path / f"{name}.ome.zarr").levels[0][:] for name in "pwf"
    )
    np.testing.assert_array_equal(by_words, by_python)
    np.testing.assert_array_equal(by_file, by_python)
    inside = (by_python != UNSEEN).mean()
    assert 0.3 < inside < 0.7, "of the box round a triangle about half lies in it"


def test_outlines_of_files(tmp_path):
    """A rectangle, a part of several, a polygon off the slide: corners. A hole, two: refused."""
    ring = [[0.5, 0.5], [10.5, 0.5], [10.5, 5.5], [0.5, 5.5], [0.5, 0.5]]
    off = [[x - 1000, y] for x, y in ring]
    one = {"type": "Polygon", "coordinates": [ring]}
    feature = {"type": "Feature", "geometry": one, "properties": {}}
    corners = ((0.0, 0.0), (0.0, 10.0), (5.0, 10.0), (5.0, 0.0))
    path = tmp_path / "p.geojson"
    for data, expected in (
        (one, corners),
        ({"type": "FeatureCollection", "features": [feature]}, corners),
        ([feature], corners),
        ({"type": "MultiPolygon", "coordinates": [[ring]]}, corners),
        ({"type": "Polygon", "coordinates": [off]}, tuple((r, c - 1000) for r, c in corners)),
    ):
        path.write_text(json.dumps(data))
        assert outline_of_file(path) == expected
    for data, words in (
        ({"type": "FeatureCollection", "features": [feature, feature]}, "holds 2 polygons"),
        ({"type": "Point", "coordinates": [1, 2]}, "holds 0 polygons"),
        ({"type": "Polygon", "coordinates": [ring, ring]}, "has a hole"),
        ({"type": "Polygon", "coordinates": [[["a", 2]]]}, "a corner"),
        ({"type": "Polygon", "coordinates": []}, "no corners"),
    ):
        path.write_text(json.dumps(data))
        with pytest.raises(TableError, match=words):
            outline_of_file(path)


def test_a_preview_and_a_region_over_the_edge_say_so(model, slide, tmp_path, capsys):
    out = tmp_path / "o.ome.zarr"
    run(slide, "--model", model, "--out", out, "--mode", "preview", "--region", 100, 0, 500, 50)
    said = capsys.readouterr()
    assert "(preview)" in said.out
    assert "no single lesion of 0.01 mm²" in said.out, "625 um² are too few, and not nothing"
    assert "leaves the image" in said.err


def test_a_grey_image_and_a_given_pixel_size_are_told(model, tmp_path, capsys):
    """Beside the answer and in its summary: no stain, and whose pixel size it was."""
    path = tmp_path / "grey.tif"
    tifffile.imwrite(path, picture(80, 80)[..., 0])
    run(path, "--model", model, "--out", tmp_path / "o.ome.zarr", "--mpp", 0.25)
    said = capsys.readouterr().err
    assert "no stain is seen" in said
    assert "0.25 µm per pixel as given with --mpp; the file states none." in said
    summary = json.loads((tmp_path / "o.summary.json").read_text())
    assert (summary["image_mpp"], summary["mpp"]) == (0.25, 1.0)
    assert all(any(note in line for line in said.splitlines()) for note in summary["notes"])


def test_what_cannot_be_is_refused(model, slide, done, tmp_path, capsys):
    """One line, exit code 2, nothing written."""
    tifffile.imwrite(tmp_path / "no_scale.tif", picture(80, 80), photometric="rgb")
    new = tmp_path / "new.ome.zarr"
    before = sorted(p.name for p in tmp_path.iterdir())
    for word, arguments in (
        ("another request", (slide, "--out", done, "--blend", "cos")),
        ("--mpp", (tmp_path / "no_scale.tif", "--out", new)),
        ("no pixel size", (slide, "--out", new, "--mpp", 1e9)),
        ("does not exist", (tmp_path / "gone.svs", "--out", new)),
        ("does not meet", (slide, "--out", new, "--region", 900, 0, 10, 10)),
        ("does not meet", (slide, "--out", new, "--within", "900,0 950,0 900,40")),
        (".ome.zarr or .tif", (slide, "--out", tmp_path / "o.png")),
        ("goes with an OME-Zarr", (slide, "--out", tmp_path / "o.tif", "--probabilities")),
        ("its folder does not exist", (slide, "--out", tmp_path / "no" / "o.tif")),
        ("stride of 999", (slide, "--out", new, "--stride", 999)),
        ("is an input", (slide, "--out", slide)),
        ("neither corners", (slide, "--out", new, "--within", "1,2 3")),
        ("encloses nothing", (slide, "--out", new, "--within", "1,2 3,4")),
    ):
        run(*arguments, "--model", model, expect=2)
        (said,) = capsys.readouterr().err.strip().splitlines()
        assert said.startswith("cellpath: ")
        assert word in said
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done(model, tmp_path):
    """Exit code 130; the same command goes on, to the same classes."""
    tifffile.imwrite(tmp_path / "s.tif", picture(800, 64), photometric="rgb")
    out = tmp_path / "o.ome.zarr"
    command = [
        sys.executable, "-m", "napari_cellpath.cli", "predict", "hspnet", str(tmp_path / "s.tif"),
        "--mpp", "1", "--stride", "8", "--model", model, "--out", str(out), "--device", "cpu",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (out / "cellpath.json").is_file() and RegionStore.open(out).progress.rows_done > 30:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "rows are kept" in said
    kept = RegionStore.open(out).progress.rows_done
    assert 0 < kept < 800
    assert subprocess.run(command, check=False).returncode == 0
    command[command.index(str(out))] = str(tmp_path / "whole.ome.zarr")
    assert subprocess.run(command, check=False).returncode == 0
    stores = [RegionStore.open(p) for p in (out, tmp_path / "whole.ome.zarr")]
    assert stores[0].levels[0][:].tobytes() == stores[1].levels[0][:].tobytes()


def test_models_show_prints_the_papers_counts(capsys):
    """``models show hspnet-resnet101 --json``: 67654085, five classes, tiles of 400."""
    assert main(["models", "show", "hspnet-resnet101", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["parameters"], facts["classes"], facts["system"]) == (67_654_085, 5, "hspnet")
    assert facts["input"]["tile"] == 400
