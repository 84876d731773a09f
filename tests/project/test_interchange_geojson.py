"""QuPath's GeoJSON, out and in."""

import json
import math
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_cellpath.core.annotations import Annotation, ImageFacts, Prediction, Shape
from napari_cellpath.core.errors import OutputError, ScaleError, TableError
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project.interchange import read_file, write_geojson
from tests.support.annotations import IMAGE, OTHER, annotations, cells, several

REGION = ImageFacts("key-r", "region.tif", height=200, width=250, mpp=0.25)


def feature(kind: str, coordinates: Any, **properties: Any) -> dict[str, Any]:
    """A feature as QuPath 0.5 writes it."""
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, repr(coordinates))),
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": {"objectType": "annotation", **properties},
    }


def read(tmp_path: Path, content: Any, **options: Any) -> tuple[Annotation, ...]:
    file = tmp_path / "cells.geojson"
    file.write_text(json.dumps(content), encoding="utf-8")
    return read_file(file, [IMAGE], **options).annotations


@settings(max_examples=120, deadline=None)
@given(
    made=several(annotations()),
    offset=st.tuples(st.floats(-50, 50), st.floats(-50, 50)) | st.just((0.0, 0.0)),
)
def test_everything_comes_back(
    tmp_path_factory: pytest.TempPathFactory, made: list[Annotation], offset: tuple[float, float]
) -> None:
    """Whatever a project says of its objects is equal after a round trip, bit for bit."""
    file = tmp_path_factory.getbasetemp() / "all.geojson"
    assert write_geojson(file, made, IMAGE, {"normal": "#0072b2"}, offset=offset) == len(made)
    imported = read_file(file, [IMAGE, OTHER])  # the file says of which image it is
    assert (list(imported.annotations), imported.format) == (made, "geojson")
    assert list(read_file(file, [IMAGE], offset=offset).annotations) == made


def test_a_region_has_coordinates_of_its_own(tmp_path: Path) -> None:
    """Written less an offset and read for the region's own image, marks lie where they show."""
    mark = Annotation("0" * 16, IMAGE.key, geometry=(120.0, 90.0), labels=("normal",),
                      prediction=Prediction("normal", 0.25, at=(120.0, 90.0)))  # fmt: skip
    box = replace(mark, uid="1" * 16, shape=Shape.BOX, geometry=(110.0, 80.0, 130.0, 95.0))
    file = tmp_path / "region.geojson"
    write_geojson(file, [mark, box], IMAGE, offset=(100, 60))
    on_region = read_file(file, [REGION]).annotations
    assert [a.geometry for a in on_region] == [(20.0, 30.0), (10.0, 20.0, 30.0, 35.0)]
    assert on_region[0].image == REGION.key
    assert on_region[0].prediction is not None
    assert on_region[0].prediction.at == (20.0, 30.0)
    assert read_file(file, [IMAGE]).annotations == (mark, box)
    assert read_file(file, [IMAGE], offset=(0, 0)).annotations[0].geometry == (20.0, 30.0)


def test_points_are_pixel_centres_and_boxes_pixel_edges(tmp_path: Path) -> None:
    """The first pixel's middle is x = y = 0.5; its box runs from 0 to 1."""
    point = Annotation("0" * 16, IMAGE.key, geometry=(0, 0))
    box = Annotation("1" * 16, IMAGE.key, shape=Shape.BOX, geometry=(2, 3, 5, 4))
    file = tmp_path / "cells.geojson"
    write_geojson(file, [point, box], IMAGE)
    first, second = json.loads(file.read_text())["features"]
    assert first["geometry"] == {"type": "Point", "coordinates": [0.5, 0.5]}
    assert second["geometry"]["coordinates"] == [[[3, 2], [4, 2], [4, 5], [3, 5], [3, 2]]]


def test_micrometres(tmp_path: Path) -> None:
    """Files in micrometres are read by the image's pixel size, which has to be known."""
    content = [feature("Point", [10.125, 2.625]),
               feature("Polygon", [[[1, 2], [3, 2], [3, 5], [1, 5], [1, 2]]])]  # fmt: skip
    point, box = read(tmp_path, content, unit="um", offset=(7, 0))
    assert point.geometry == (10.0 + 7, 40.0)
    assert (box.shape, box.geometry) == (Shape.BOX, (8 + 7, 4, 20 + 7, 12))
    with pytest.raises(ScaleError, match=r"need the pixel size of a\.tif"):
        read_file(tmp_path / "cells.geojson", [replace(IMAGE, mpp=None)], unit="um")
    with pytest.raises(TableError, match="no unit 'mm'"):
        read_file(tmp_path / "cells.geojson", [IMAGE], unit="mm")


def test_what_qupath_writes(tmp_path: Path) -> None:
    """An export of QuPath 0.5: annotations, cells with nuclei, derived classes, NaN measured."""
    square = [[[10, 20], [40, 20], [40, 50], [10, 50], [10, 20]]]
    blob = [[[10.25, 20.5], [41.02, 22.11], [38.4, 50.73], [10.25, 20.5]]]
    content = {
        "type": "FeatureCollection",
        "features": [
            feature("Polygon", square, classification={"name": "Tumor", "color": [200, 0, 0]},
                    name="Annotation 1", isLocked=True),
            feature("Polygon", blob, objectType="cell", measurements={"Area": math.nan},
                    classification={"names": ["Tumor", "Positive"], "color": [250, 62, 62]})
            | {"nucleusGeometry": {"type": "Polygon", "coordinates": square}},
            feature("MultiPoint", [[1.5, 2.5], [3.5, 4.5]], color=[0, 0, 0]),
            feature("MultiPolygon", [square, blob], classification={"name": "Stroma"}),
            feature("Point", [7.5, 8.5], classification=None),
        ],
    }  # fmt: skip
    got = read(tmp_path, content)
    assert [(a.shape, a.labels) for a in got] == [
        (Shape.BOX, ("Tumor",)), (Shape.POLYGON, ("Tumor: Positive",)), (Shape.POINT, ()),
        (Shape.POINT, ()), (Shape.BOX, ("Stroma",)), (Shape.POLYGON, ("Stroma",)),
        (Shape.POINT, ()),
    ]  # fmt: skip
    assert got[0].geometry == (20, 10, 50, 40)
    assert got[0].id == "Annotation 1"
    assert [a.geometry for a in got[2:4]] == [(2, 1), (4, 3)]
    assert got[5].geometry == (((20.5, 10.25), (22.11, 41.02), (50.73, 38.4)),)
    assert all(a.prediction is None and not a.complete for a in got)
    assert [a.seen for a in got] == [bool(a.labels) for a in got]
    assert len({a.uid for a in got}) == len(got)
    assert read(tmp_path, content) == got, "the second reading gives the same uids"
    assert read(tmp_path, content["features"]) == got, "a bare list of features"
    assert read(tmp_path, content["features"][0]) == got[:1], "a single feature"
    split = read(tmp_path, content, system=System.RBC)
    assert split[1].labels == ("Tumor", "Positive")


def test_older_qupath_and_other_programs(tmp_path: Path) -> None:
    """Types where ids belong (0.2), children in a hierarchy, a class as plain text."""
    old = [feature("Point", [n + 0.5, 1.5]) | {"id": "PathAnnotationObject"} for n in range(2)]
    assert [a.geometry for a in read(tmp_path, old)] == [(1, 0), (1, 1)]
    parent = feature("Polygon", [[[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]]])
    parent["properties"]["childObjects"] = [
        feature("Point", [4.5, 3.5], classification="normal"),
        feature("Point", [5.5, 3.5, 0.0]),
    ]
    assert [(a.shape, a.labels) for a in read(tmp_path, parent)] == [
        (Shape.BOX, ()), (Shape.POINT, ("normal",)), (Shape.POINT, ()),
    ]  # fmt: skip
    plain = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 1]}}
    assert read(tmp_path, plain)[0].geometry == (0.5, 0.5)


def through_qupath(file: Path, change: dict[int, str] | None = None) -> None:
    """Forget what QuPath forgets, round as it rounds; give some objects another class."""
    content = json.loads(file.read_text())
    del content["cellpath"]
    for n, entry in enumerate(content["features"]):
        del entry["properties"]["cellpath"]
        if n in (change or {}):
            entry["properties"]["classification"] = {"name": (change or {})[n]}
        if entry["geometry"]["type"] == "Point":
            entry["geometry"]["coordinates"] = [
                round(x, 2) for x in entry["geometry"]["coordinates"]
            ]
    file.write_text(json.dumps(content))


def test_a_model_s_call_is_no_label_after_a_stay_in_qupath(tmp_path: Path) -> None:
    """QuPath drops our key; who said what is still told apart, and identities stay."""
    called = Prediction("abnormal", 0.75, 0.125, 100, (("normal", 0.25), ("abnormal", 0.75)),
                        0.5, "m@1", calibrated=0.5)  # fmt: skip
    made = [
        Annotation("00000000000000aa", IMAGE.key, geometry=(1, 2), prediction=called),
        Annotation("00000000000000ab", IMAGE.key, geometry=(3, 4), prediction=called),
        Annotation("00000000000000ac", IMAGE.key, geometry=(5, 6), prediction=called,
                   labels=("abnormal",), id="7"),
        Annotation("00000000000000ad", IMAGE.key, geometry=(7, 8), labels=("normal",)),
        Annotation("00000000000000ae", IMAGE.key, shape=Shape.BOX, geometry=(0, 0, 50, 60),
                   complete=True, labels=("abnormal",)),
    ]  # fmt: skip
    file = tmp_path / "cells.geojson"
    write_geojson(file, made, IMAGE)
    content = json.loads(file.read_text())["features"]
    assert [f["properties"]["objectType"] for f in content] == ["detection"] * 2 + [
        "annotation"
    ] * 3
    assert content[4]["properties"]["classification"] == {"name": "Region*"}
    assert content[4]["properties"]["isLocked"] is True
    assert all(uuid.UUID(f["id"]) for f in content)
    through_qupath(file, {1: "normal"})
    got = read_file(file, [IMAGE]).annotations
    assert [a.uid for a in got] == [a.uid for a in made]
    assert [a.labels for a in got] == [(), ("normal",), ("abnormal",), ("normal",), ("abnormal",)]
    assert [a.prediction for a in got] == [called, called, called, None, None]
    assert [a.complete for a in got] == [False] * 4 + [True]
    assert [a.id for a in got] == ["", "", "7", "", ""]


def test_edits_of_other_programs_count(tmp_path: Path) -> None:
    """Where our key is kept, a moved mark has moved and a changed class is a person's."""
    made = cells(6)
    file = tmp_path / "cells.geojson"
    write_geojson(file, made, IMAGE)
    content = json.loads(file.read_text())
    content["features"][0]["geometry"]["coordinates"] = [33.5, 44.5]
    content["features"][0]["properties"]["classification"]["name"] = "normal"
    del content["features"][3]["properties"]["classification"]
    file.write_text(json.dumps(content))
    got = read_file(file, [IMAGE]).annotations
    assert got[0] == replace(made[0], geometry=(44, 33), labels=("normal",))
    assert got[3] == replace(made[3], labels=())
    assert got[1:3] + got[4:] == tuple(made[1:3] + made[4:])


def test_measurements_as_older_qupath_lists_them(tmp_path: Path) -> None:
    """Before 0.4 they were a list of names and values, whatever those are."""
    made = Annotation("00000000000000aa", IMAGE.key, geometry=(1, 2),
                      prediction=Prediction("abnormal", 0.75))  # fmt: skip
    write_geojson(tmp_path / "a.geojson", [made], IMAGE)
    content = json.loads((tmp_path / "a.geojson").read_text())["features"]
    properties = content[0]["properties"]
    del properties["cellpath"], properties["metadata"]
    properties["measurements"] = [{"name": "score", "value": 0.75}, {"name": [], "value": None}, 7]
    (got,) = read(tmp_path, content)
    assert (got.uid, got.labels, got.prediction) == (made.uid, (), made.prediction)


def test_qupath_s_identities_are_kept(tmp_path: Path) -> None:
    """What came from QuPath goes back under the UUID that it had there."""
    content = feature("Point", [4.5, 4.5], classification={"name": "normal"})
    got = read(tmp_path, content)
    write_geojson(tmp_path / "back.geojson", got, IMAGE)
    back = json.loads((tmp_path / "back.geojson").read_text())["features"][0]
    assert back["id"] == content["id"]


def test_colours_and_classes(tmp_path: Path) -> None:
    """The class is the person's, else the model's; several are a derived class; colours are RGB."""
    called = Prediction("abnormal", 0.9)
    base = Annotation("0" * 16, IMAGE.key, System.RBC, geometry=(1, 1), prediction=called)
    made = [base, replace(base, uid="1" * 16, labels=("burr", "teardrop"))]
    made += [replace(base, uid="2" * 16, prediction=None)]
    file = tmp_path / "cells.geojson"
    write_geojson(file, made, IMAGE, {"abnormal": "#d55e00"})
    properties = [f["properties"] for f in json.loads(file.read_text())["features"]]
    assert properties[0]["classification"] == {"name": "abnormal", "color": [213, 94, 0]}
    assert properties[0]["measurements"] == {"score": 0.9, "n_views": 0}
    assert properties[1]["classification"] == {"name": "burr: teardrop"}
    assert "classification" not in properties[2]


def test_nothing_is_written_of_nan(tmp_path: Path) -> None:
    """A score that is none is named, and the old file stays."""
    file = tmp_path / "cells.geojson"
    file.write_text("old")
    bad = Annotation("0" * 16, IMAGE.key, geometry=(1, 1), prediction=Prediction("a", math.nan))
    with pytest.raises(OutputError, match="object 0000000000000000 holds a number"):
        write_geojson(file, [bad], IMAGE)
    assert file.read_text() == "old"


def test_100_000_points(tmp_path: Path) -> None:
    """A large slide's nuclei are written and read in seconds."""
    made = [
        Annotation(f"{n:016x}", IMAGE.key, geometry=(n % 299 + 0.5, n % 397 + 0.25),
                   prediction=Prediction("normal", 0.25, 0.1, 100, at=(1.0, 2.0), model="m@1"))
        for n in range(100_000)
    ]  # fmt: skip
    file = tmp_path / "many.geojson"
    start = time.process_time()
    write_geojson(file, made, IMAGE)
    written = time.process_time()
    assert list(read_file(file, [IMAGE]).annotations) == made
    seconds = written - start, time.process_time() - written
    print(f"100,000 points: written in {seconds[0]:.1f} s, read in {seconds[1]:.1f} s")
    assert max(seconds) < 30  # on a machine that trains beside; alone a fifth of it
