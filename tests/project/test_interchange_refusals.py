"""Bad input: one clear line each, and nothing imported; no other error ever leaves."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_cellpath.core.annotations import Annotation, check_geometry
from napari_cellpath.core.errors import CellpathError, MissingFileError, TableError
from napari_cellpath.project.interchange import (
    coco,
    geojson,
    intake,
    read_file,
    table,
    write_coco,
    write_csv,
    write_geojson,
    write_labels,
)
from tests.support.annotations import IMAGE, OTHER, cells


def point(x: Any = 1.5, y: Any = 2.5, **more: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": [x, y]},
        "properties": {},
    } | more


def polygon(*ring: tuple[float, float]) -> dict[str, Any]:
    return point() | {"geometry": {"type": "Polygon", "coordinates": [[list(p) for p in ring]]}}


SQUARE = ((0, 0), (9, 0), (9, 9), (0, 9), (0, 0))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"type":"Feature","geometry":{"type":"Point","coordinates":[NaN,1]}}', "not a finite"),
        ('{"type":"Feature","geometry":{"type":"Point","coordinates":[1,1e999]}}', "not a finite"),
        ('{"type":"Feature","geometry":{"type":"Point","coordinates":[-Infinity,1]}}', "finite"),
        (point(10**400), "not a finite number"),
        (point("1"), "a coordinate is not a number"),
        (point(True), "a coordinate is not a number"),
        (point() | {"geometry": {"type": "Point", "coordinates": [1]}}, "needs x and y"),
        (point() | {"geometry": {"type": "Point", "coordinates": 1}}, "needs x and y"),
        (point() | {"geometry": {"type": "Polygon", "coordinates": [5]}}, "its outline is none"),
        (point() | {"geometry": {"type": "MultiPoint", "coordinates": []}}, "has no coordinates"),
        (point() | {"geometry": None}, "has no geometry"),
        (point() | {"geometry": {"type": "LineString", "coordinates": []}}, "is a LineString"),
        (point() | {"geometry": {"type": "GeometryCollection"}}, "is a GeometryCollection"),
        (point(properties=[1]), "its properties are none"),
        (point(type="Geometry"), "is no GeoJSON feature"),
        (7, "is no GeoJSON feature"),
        (point(400.5, 1), "lies outside its image of 300 x 400"),
        (point(-0.1, 1), "lies outside its image"),
        (polygon((0, 0), (5, 5), (0, 0)), "at least three corners"),
        (polygon((0, 0), (5, 0), (9, 0), (0, 0)), "the outline has no area"),
        (polygon((0, 0), (9, 9), (9, 0), (0, 9), (0, 0)), r"not one \(self-intersection\)"),
        (point(properties={"classification": {"name": "odd"}}), "unknown class 'odd'; known are"),
        (point(properties={"classification": 7}), "its class is not text"),
        (point(properties={"classification": {"name": "\ud800"}}), "its class is not text"),
        (point(properties={"name": 7}), "its name is not text"),
        (point(id=["x"]), "its id is not text"),
        (point(properties={"metadata": {"cellpath.call": []}}), "its call is not text"),
        (point(properties={"metadata": {"cellpath.complete": "[", "cellpath.call": "a"},
                           "classification": "Region*"}), "its rectangle are no list"),
        (point(properties={"cellpath": {"system": "nose"}}), "under 'cellpath' is damaged"),
        (point(properties={"cellpath": {"labels": [7]}}), "a name is not text"),
        (point(properties={"cellpath": {"readings": [7]}}), "under 'cellpath' is damaged"),
        (point(properties={"cellpath": {"prediction": {"at": ["x"]}}}), "place of its prediction"),
        (point(properties={"cellpath": {"prediction": 7}}), "under 'cellpath' is damaged"),
    ],
)  # fmt: skip
def test_a_bad_feature_is_refused_by_number(tmp_path: Path, bad: Any, message: str) -> None:
    """The first of three is fine, the second is not: nothing, or the other two if so asked."""
    written = bad if isinstance(bad, str) else json.dumps(bad)
    file = tmp_path / "cells.geojson"
    file.write_text(f"[{json.dumps(point())},{written},{json.dumps(point(3.5))}]")
    with pytest.raises(TableError, match=message) as caught:
        read_file(file, [IMAGE], classes=("normal",))
    assert str(caught.value).startswith("cells.geojson feature 2")
    imported = read_file(file, [IMAGE], classes=("normal",), skip_bad=True)
    assert [a.geometry for a in imported.annotations] == [(2, 1), (2, 3)]
    assert imported.refused == (str(caught.value),)


def test_ids_are_used_once(tmp_path: Path) -> None:
    """Within a file, for our objects as for those of others."""
    file = tmp_path / "cells.geojson"
    file.write_text(json.dumps([point(id="x"), point(3, 4, id="x")]))
    with pytest.raises(TableError, match="feature 2: its id was used before, by cells"):
        read_file(file, [IMAGE])
    made = cells(3)
    write_geojson(file, [made[0], made[0]], IMAGE)
    with pytest.raises(TableError, match="feature 2: its id was used before"):
        read_file(file, [IMAGE])


def test_a_hair_is_cut_off(tmp_path: Path) -> None:
    """A spike that napari could not draw goes; the outline stays."""
    file = tmp_path / "cells.geojson"
    ring = ((0, 0), (90, 0), (90, 90), (120, 120), (90, 90), (0, 90), (0, 0))
    file.write_text(json.dumps(polygon(*ring)))
    (mended,) = read_file(file, [IMAGE]).annotations
    assert mended.bounds == (0, 0, 90, 90)


BRACKETS = "[" * 200_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (BRACKETS.encode(), "is nested too deeply"),
        (('{"a":' * 200_000).encode(), "is nested too deeply"),
        (b'{"type":"FeatureCollection","features":{}}', "has no list of features"),
        (b'{"type":"FeatureCollection","features":[]}', "holds no objects"),
        (b"[]", "holds no objects"),
        (b'{"type":"FeatureCollection"', r"cells.geojson line 1: Expecting"),
        (b'{\n"type":\n}', "cells.geojson line 3: Expecting value; not JSON"),
        (b'{"type":"Topology"}', "holds no annotations; it is neither GeoJSON nor COCO"),
        (b'{"objects":[]}', "give the TIFF beside it"),
        (b'{"type":"FeatureCollection","crs":{"x":1},"features":[]}', "geographic coordinates"),
        (b'{"type":"FeatureCollection","cellpath":{"version":2},"features":[]}', "newer version"),
        (b'{"type":"FeatureCollection","cellpath":{"offset":["x",1]},"features":[]}', "its offset"),
        (b'[{"type":"\xff"}]', "is not text in UTF-8 or UTF-16"),
        (b"[" + b"1" * 5000 + b"]", "holds a number that is none"),
        (b"\x89PNG\r\n\x1a\nxxxx", r"is an image \(png\); labels are read from TIFF"),
        (b"II*\x00garbage", "is not a readable image"),
        (b"PK\x03\x04zip", "neither the columns row and col"),
        (b"\x00\x01\x02\x03", "neither the columns row and col"),
    ],
)
def test_a_bad_file_is_refused_as_a_whole(tmp_path: Path, content: bytes, message: str) -> None:
    """Also when the rest is asked for: there is none."""
    file = tmp_path / "cells.geojson"
    file.write_bytes(content)
    for skip in (False, True):
        with pytest.raises(CellpathError, match=message) as caught:
            read_file(file, [IMAGE], skip_bad=skip)
        assert str(caught.value).startswith("cells.geojson")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_text_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    """Byte-order marks and UTF-16 are no reason to refuse."""
    file = tmp_path / "cells.geojson"
    file.write_bytes(json.dumps([point(properties={"classification": "é"})],
                                ensure_ascii=False).encode(encoding))  # fmt: skip
    (read,) = read_file(file, [IMAGE]).annotations
    assert read.labels == ("é",)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    """Missing, a folder, too large: the size is looked at before anything is read."""
    with pytest.raises(MissingFileError, match="does not exist"):
        read_file(tmp_path / "none.csv", [IMAGE])
    with pytest.raises(TableError, match="is a folder"):
        read_file(tmp_path, [IMAGE])
    large = tmp_path / "large.geojson"
    with large.open("wb") as stream:
        os.truncate(stream.fileno(), (512 << 20) + 1)
    with pytest.raises(TableError, match=r"large\.geojson is larger than 512 MB; split it"):
        read_file(large, [IMAGE])


def test_too_many_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with `skip_bad`: the rest of five million is no rest."""
    for module in (intake, geojson, coco, table):
        monkeypatch.setattr(module, "MAX_OBJECTS", 3)
    made = [a for a in cells(9) if a.shape == "point"] + [
        Annotation("f" * 16, IMAGE.key, geometry=(250, 250))
    ]
    assert len(made) == 4
    write_geojson(tmp_path / "a", made, IMAGE)
    write_coco(tmp_path / "b", made, [IMAGE])
    write_csv(tmp_path / "c", made, [IMAGE])
    write_labels(tmp_path / "d", made, IMAGE)
    many = point() | {"geometry": {"type": "MultiPoint", "coordinates": [[1, 1]] * 4}}
    (tmp_path / "e").write_text(json.dumps(many))
    for name in "abcde":
        with pytest.raises(TableError, match=f"^{name} (holds|has) more than 3 "):
            read_file(tmp_path / name, [IMAGE], skip_bad=True)


def test_which_image(tmp_path: Path) -> None:
    """A file that names none needs one; another pixel size is no small thing."""
    file = tmp_path / "cells.geojson"
    file.write_text(json.dumps([point()]))
    with pytest.raises(TableError, match="does not say to which image it belongs; say it"):
        read_file(file, [IMAGE, OTHER])
    assert read_file(file, [IMAGE, OTHER], image=OTHER).annotations[0].image == OTHER.key
    odd = {"type": "FeatureCollection", "features": [], "cellpath": {"images": [{"key": []}]}}
    file.write_text(json.dumps(odd))
    with pytest.raises(TableError, match="does not say to which image it belongs"):
        read_file(file, [IMAGE, OTHER])
    write_geojson(file, cells(3), IMAGE)
    with pytest.raises(TableError, match=r"made on pixels of 0\.25 um, b\.tif has pixels of 0\.5"):
        read_file(file, [IMAGE, OTHER], image=OTHER)


FUZZED = 300


@pytest.mark.parametrize("form", ["geojson", "coco", "csv", "labels", "sidecar"])
@pytest.mark.parametrize("skip_bad", [False, True])
def test_damaged_bytes_raise_nothing_else(tmp_path: Path, form: str, skip_bad: bool) -> None:
    """Mutated files give sane annotations or one of our errors, never another one."""
    made = cells(15)
    if form == "csv":
        made = [a for a in made if a.shape != "polygon"]
    file = tmp_path / "cells.tif"
    write_labels(tmp_path / "cells.tif", made, IMAGE)
    target = tmp_path / "cells.labels.json" if form == "sidecar" else file
    if form == "geojson":
        write_geojson(file, made, IMAGE)
    elif form == "coco":
        write_coco(file, made, [IMAGE], ["normal", "abnormal"])
    elif form == "csv":
        write_csv(file, made, [IMAGE])
    if form == "sidecar":  # written by a program that leaves no mark in the TIFF
        tifffile.imwrite(file, tifffile.imread(file))
    original = target.read_bytes()
    rng = np.random.default_rng([ord(c) for c in form])
    raised = read = 0
    for _ in range(FUZZED // 2):
        target.write_bytes(_mutated(original, rng))
        try:
            imported = read_file(file, [IMAGE], classes=("normal", "abnormal"), skip_bad=skip_bad)
        except CellpathError as error:
            raised += "\n" not in str(error)  # one line, or the sum below is wrong
            continue
        read += 1
        for annotation in imported.annotations:
            check_geometry(annotation.shape, annotation.geometry, "", (IMAGE.height, IMAGE.width))
            again = Annotation.from_facts(annotation.uid, json.loads(json.dumps(
                annotation.to_facts(), allow_nan=False)))  # fmt: skip
            assert again == annotation
    assert raised + read == FUZZED // 2
    assert raised > 0


def _mutated(original: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes flipped, a piece cut out, doubled, or replaced by what hurts."""
    data = bytearray(original)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, len(data)))
        length = int(rng.integers(1, 40))
        kind = rng.integers(0, 6)
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            del data[at : at + length]
        elif kind == 2:
            data[at:at] = data[at : at + length]
        elif kind == 3:
            hurts = (b"NaN", b"1e999", b"null", b"[]", b"{}", b'"x"', b"-1", b"true", b"\\ud800")
            data[at : at + 1] = hurts[int(rng.integers(0, len(hurts)))]
        elif kind == 4:
            digits = [i for i, b in enumerate(data[:4000]) if 48 <= b < 58]
            if digits:
                place = digits[int(rng.integers(0, len(digits)))]
                data[place : place + 1] = (b"null", b"NaN", b"[]", b'"a"', b"99999")[
                    int(rng.integers(0, 5))
                ]
        else:
            del data[at:]
            data = data or bytearray(b" ")
    return bytes(data)
