"""COCO, out and in."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_cellpath.core.annotations import Annotation, Prediction, Shape
from napari_cellpath.core.errors import TableError
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project.interchange import read_file, write_coco
from tests.support.annotations import IMAGE, OTHER, annotations, cells, several


@settings(max_examples=120, deadline=None)
@given(
    made=several(annotations(), annotations(OTHER)),
    offset=st.tuples(st.floats(-50, 50), st.floats(-50, 50)) | st.just((0.0, 0.0)),
)
def test_everything_comes_back(
    tmp_path_factory: pytest.TempPathFactory, made: list[Annotation], offset: tuple[float, float]
) -> None:
    """Objects of two images are equal after a round trip, holes and complete regions included."""
    file = tmp_path_factory.getbasetemp() / "all.json"
    assert write_coco(file, made, [IMAGE, OTHER], ["normal"], offset=offset) == len(made)
    imported = read_file(file, [OTHER, IMAGE])
    assert imported.format == "coco"
    assert {a.uid: a for a in imported.annotations} == {a.uid: a for a in made}
    assert read_file(file, [OTHER, IMAGE], offset=offset) == imported


def test_what_other_programs_see(tmp_path: Path) -> None:
    """Boxes by edges, points as their pixel, score only beside a model's call."""
    called = Prediction("abnormal", 0.75)
    base = Annotation("0" * 16, IMAGE.key, System.RBC, geometry=(10, 20), prediction=called)
    made = [
        base,
        replace(base, uid="1" * 16, shape=Shape.BOX, geometry=(1, 2, 4, 8), labels=("a", "b")),
        replace(base, uid="2" * 16, shape=Shape.BOX, geometry=(0, 0, 50, 50), complete=True),
        replace(base, uid="3" * 16, prediction=None),
    ]
    file = tmp_path / "cells.json"
    write_coco(file, made, [IMAGE, OTHER], ["normal", "abnormal"], offset=(5, 10))
    document = json.loads(file.read_text())
    names = {c["id"]: c["name"] for c in document["categories"]}
    assert list(names.values()) == ["normal", "abnormal", "a", "unlabelled"]
    point, box, bare = document["annotations"]  # the complete region is no object
    assert (point["bbox"], point["attributes"]) == ([10, 5, 1, 1], {"point": [5, 10]})
    assert (names[point["category_id"]], point["score"]) == ("abnormal", 0.75)
    assert (box["bbox"], box["area"], box["segmentation"]) == ([-8, -4, 6, 3], 18, [])
    assert (names[box["category_id"]], box["attributes"]) == ("a", {"labels": ["a", "b"]})
    assert "score" not in box
    assert names[bare["category_id"]] == "unlabelled"
    assert [i["file_name"] for i in document["images"]] == ["a.tif", "b.tif"]


def foreign(**extra: Any) -> dict[str, Any]:
    """As a labelling tool writes it."""
    return {
        "images": [{"id": 7, "file_name": "scans/a.tif", "height": 300, "width": 400}],
        "categories": [{"id": 3, "name": "burr"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 20, 5, 4], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [10, 20, 5, 4], "area": 20,
             "segmentation": [[10, 20, 15, 20, 15, 24], [30, 30, 40, 30, 40, 36, 30, 36, 30, 30]]},
            {"id": 3, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5},
        ],
    } | extra  # fmt: skip


def read(tmp_path: Path, document: Any, **options: Any) -> tuple[Annotation, ...]:
    file = tmp_path / "cells.json"
    file.write_text(json.dumps(document))
    images = options.pop("images", [IMAGE, OTHER])
    return read_file(file, images, **options).annotations


def test_files_of_others(tmp_path: Path) -> None:
    """Boxes, outlines in pieces, detections; the image is found by its file name."""
    got = read(tmp_path, foreign())
    assert [(a.shape, a.labels, a.id) for a in got] == [
        (Shape.BOX, ("burr",), "1"), (Shape.POLYGON, ("burr",), "2"), (Shape.BOX, ("burr",), "2/2"),
        (Shape.BOX, (), "3"),
    ]  # fmt: skip
    assert got[0].geometry == (20, 10, 24, 15)
    assert got[1].geometry == (((20, 10), (20, 15), (24, 15)),)
    assert got[2].geometry == (30, 30, 36, 40)
    assert got[3].prediction == Prediction("burr", 0.5)
    assert {a.image for a in got} == {IMAGE.key}
    assert read(tmp_path, foreign()) == got
    scaled = read(tmp_path, foreign(), unit="um", offset=(1, 0))
    assert scaled[0].geometry == (81, 40, 97, 60)


def test_one_of_several_images(tmp_path: Path) -> None:
    """With an image asked for, the objects of the others stay where they are."""
    file = tmp_path / "all.json"
    made = cells(9)
    others = [replace(a, uid=f"f{a.uid[1:]}", image=OTHER.key) for a in made]
    write_coco(file, made + others, [IMAGE, OTHER])
    assert list(read_file(file, [IMAGE, OTHER], image=OTHER).annotations) == others
    renamed = replace(IMAGE, name="renamed.tif")
    with pytest.raises(TableError, match=r"names 2 images and none is renamed\.tif"):
        read_file(file, [renamed], image=renamed)
    assert len(read(tmp_path, foreign(), images=[renamed], image=renamed)) == 4


def test_a_changed_category_is_a_person_s(tmp_path: Path) -> None:
    """Edited in another program that kept our key."""
    file = tmp_path / "cells.json"
    made = [a for a in cells(3) if a.prediction]
    write_coco(file, made, [IMAGE], ["normal", "abnormal"])
    document = json.loads(file.read_text())
    document["annotations"][0]["category_id"] = 1
    document["annotations"][1]["bbox"] = [50, 60, 10, 20]
    got = read(tmp_path, document)
    assert got[0] == replace(made[0], labels=("normal",))
    assert got[1] == replace(made[1], geometry=(60, 50, 80, 60))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": 5}, "its annotations are no list"),
        ({"images": {}}, "its images are no list"),
        ({"categories": None}, "its categories are no list"),
        ({"annotations": [5]}, "annotation 1 is none"),
        ({"images": [{"file_name": "a.tif"}]}, "image 1 has no id"),
        ({"images": [{"id": 7, "file_name": "z.tif"}]}, r"image 'z\.tif' is not in the project"),
        ({"categories": [{"id": 4, "name": "x"}]}, "annotation 1: its category_id names no"),
    ],
)
def test_bad_documents(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """One line, with the file and what of it."""
    with pytest.raises(TableError, match=message) as caught:
        read(tmp_path, foreign(**change))
    assert str(caught.value).startswith("cells.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segmentation": {"counts": [1, 2], "size": [3, 4]}}, "is a run-length mask"),
        ({"bbox": [1, 2, 3]}, "its box is none"),
        ({"bbox": [1, 2, 0, 4]}, "the box has no area"),
        ({"bbox": [1, 2, "3", 4]}, "a coordinate is not a number"),
        ({"bbox": [390, 2, 30, 4]}, "lies outside its image of 300 x 400"),
        ({"segmentation": [[1, 2, 3]]}, "its place is none"),
        ({"segmentation": [[1, 2, 3, 4]]}, "at least three corners"),
        ({"image_id": 9}, "names no image of the file"),
        ({"id": 2}, "its id was used before, by annotation 1"),
        ({"score": 7}, "score is not between 0 and 1"),
        ({"attributes": {"point": [1, None]}}, "a coordinate is not a number"),
        ({"cellpath": {"labels": "abc"}}, "what stands under 'cellpath' is damaged"),
        ({"cellpath": {"seen": 1}}, "what stands under 'cellpath' is damaged"),
        ({"cellpath": {"prediction": {"score": "x"}}}, "a score is not a finite number"),
    ],
)
def test_bad_annotations_are_refused_by_number(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """Nothing is imported; with `skip_bad` the rest is, and the refused one is named."""
    document = foreign()
    good = {"id": 2, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]}
    document["annotations"] = [good, {**good, "id": 5, **change}]
    with pytest.raises(TableError, match=message) as caught:
        read(tmp_path, document)
    assert str(caught.value).startswith("cells.json annotation 2")
    imported = read_file(tmp_path / "cells.json", [IMAGE], skip_bad=True)
    assert len(imported.annotations) == 1
    assert imported.refused == (str(caught.value),)


def test_results_without_a_document_are_refused(tmp_path: Path) -> None:
    """A list of results names neither images nor classes."""
    with pytest.raises(TableError, match="a list of COCO results"):
        read(tmp_path, foreign()["annotations"])
