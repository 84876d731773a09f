"""CSV, out and in."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_cellpath.core.annotations import Annotation, Prediction, Shape
from napari_cellpath.core.errors import OutputError, TableError
from napari_cellpath.core.tables import read_points
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project.interchange import read_file, write_csv
from tests.support.annotations import IMAGE, OTHER, annotations, cells, several

POINT, BOX = (Shape.POINT,), (Shape.BOX,)


@settings(max_examples=120, deadline=None)
@given(
    made=several(
        *(
            annotations(image, shapes, binary=True)
            for image in (IMAGE, OTHER)
            for shapes in (POINT, BOX)
        )
    ),
    offset=st.tuples(st.integers(-50, 50), st.integers(-50, 50)),
)
def test_everything_comes_back(
    tmp_path_factory: pytest.TempPathFactory, made: list[Annotation], offset: tuple[int, int]
) -> None:
    """Points and boxes of two images in one table, with all that is said of them."""
    file = tmp_path_factory.getbasetemp() / "all.csv"
    assert write_csv(file, made, [IMAGE, OTHER], offset=offset) == len(made)
    imported = read_file(file, [IMAGE, OTHER], offset=offset)
    assert imported.format == "csv"
    # The columns p_ have one order for all rows.
    assert [_in_order(a) for a in imported.annotations] == [_in_order(a) for a in made]


def _in_order(annotation: Annotation) -> Annotation:
    prediction = annotation.prediction
    if prediction is None:
        return annotation
    ordered = tuple(sorted(prediction.probabilities))
    return replace(annotation, prediction=replace(prediction, probabilities=ordered))


def read(tmp_path: Path, content: str, **options: object) -> tuple[Annotation, ...]:
    file = tmp_path / "cells.csv"
    file.write_text(content, encoding="utf-8")
    images = options.pop("images", [IMAGE])
    return read_file(file, images, **options).annotations  # type: ignore[arg-type]


def test_our_points_can_be_predicted_again(tmp_path: Path) -> None:
    """A table of points is one for ``cellpath predict --points``."""
    made = [a for a in cells() if a.shape is Shape.POINT]
    file = tmp_path / "cells.csv"
    write_csv(file, made, [IMAGE])
    assert [(p.row, p.col, p.id, p.image) for p in read_points(file)] == [
        (*a.geometry, a.id, "a.tif") for a in made
    ]
    with file.open(newline="") as stream:
        header = next(csv.reader(stream))
    assert header[:9] == ["image", "id", "row", "col", "score", "std", "n_views", "label", "model"]


def test_whose_label_it_is(tmp_path: Path) -> None:
    """A person's in a table without scores; the model's beside a score, where corrections are."""
    (labelled,) = read(tmp_path, "row,col,label\n1,2,normal\n")
    assert (labelled.labels, labelled.prediction, labelled.seen) == (("normal",), None, True)
    called, corrected, bare = read(
        tmp_path,
        "image,id,row,col,score,std,n_views,label,model,p_a,p_B,flags,correction\n"
        "a.tif,0,1,2,0.75,0.5,100,abnormal,m@1,0.25,0.75,crowded;stale,\n"
        "a.tif,1,3,4,0.75,0.5,100,abnormal,m@1,0.25,0.75,,normal\n"
        "a.tif,2,5,6,,,,,,,,,\n",
    )
    said = Prediction("abnormal", 0.75, 0.5, 100, (("a", 0.25), ("B", 0.75)), None, "m@1")
    assert called.labels == ()
    assert called.prediction == replace(said, flags=("crowded",))  # of another place: no `at`
    assert corrected.labels == ("normal",)
    assert corrected.prediction == replace(said, at=(3, 4))
    assert (bare.labels, bare.prediction) == ((), None)


def test_boxes_of_others(tmp_path: Path) -> None:
    """Edges as they are; several labels where the system gives several."""
    content = "image,row0,col0,row1,col1,labels\nx/a.tif,1,2,3.5,4,burr;teardrop\n"
    (box,) = read(tmp_path, content, images=[IMAGE, OTHER], system=System.RBC)
    assert (box.shape, box.geometry) == (Shape.BOX, (1, 2, 3.5, 4))
    assert box.labels == ("burr", "teardrop")
    (one,) = read(tmp_path, content)
    assert one.labels == ("burr;teardrop",)


def test_micrometres_and_offsets(tmp_path: Path) -> None:
    """By the pixel size; the offset is in pixels of level 0."""
    (point,) = read(tmp_path, "row,col\n2.5,5\n", unit="um", offset=(100, 0))
    assert point.geometry == (110, 20)
    (box,) = read(tmp_path, "row0;col0;row1;col1\n0;0;2,5;5\n", unit="um")
    assert box.geometry == (0, 0, 10, 20)


def test_one_of_several_images(tmp_path: Path) -> None:
    """A renamed image takes a table that names one; of several it takes its own."""
    several_named = "image,row,col\na.tif,1,2\nb.tif,3,4\n"
    assert [a.image for a in read(tmp_path, several_named, images=[IMAGE, OTHER])] == [
        IMAGE.key, OTHER.key,
    ]  # fmt: skip
    (mine,) = read(tmp_path, several_named, images=[IMAGE, OTHER], image=OTHER)
    assert (mine.image, mine.geometry) == (OTHER.key, (3, 4))
    (renamed,) = read(tmp_path, "image,row,col\nold.tif,1,2\n", image=IMAGE)
    assert renamed.image == IMAGE.key


def test_outlines_do_not_fit(tmp_path: Path) -> None:
    """Said before anything is written."""
    with pytest.raises(OutputError, match="of the objects are outlines"):
        write_csv(tmp_path / "cells.csv", cells(), [IMAGE])
    assert not (tmp_path / "cells.csv").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x,y\n1,2\n", "cells.csv has neither the columns row and col nor row0"),
        ("row,col\n", "cells.csv holds no objects"),
        ("row,col\n1,nan\n", "cells.csv line 2: col is not a finite number"),
        ("row,col\n1,2\n300,2\n", "cells.csv line 3 lies outside its image of 300 x 400"),
        ("row,col,label\n1,2,x\n", "cells.csv line 2: unknown class 'x'; known are normal"),
        ("id,row,col\n7,1,2\n7,3,4\n", "cells.csv line 3: id '7' was used before, in line 2"),
        ("row,col,row\n1,2,3\n", "names the column row more than once"),
        ("row0,col0,row1,col1\n5,5,5,9\n", "line 2: the box has no area"),
        ("image,row,col\nz.tif,1,2\n", r"line 2: the image 'z\.tif' is not in the project"),
        ("image,row,col\n,1,2\n", "line 2: the image name is empty"),
        ("row,col,score\n1,2,x\n", "line 2: score is not a number"),
        ("row,col,n_views\n1,2,1.5\n", "line 2: n_views is no whole number"),
        ("uid,row,col,correction,system\nu,1,2,,nose\n", "line 2: there is no system 'nose'"),
        ("uid,row,col,correction,system,seen\nu,1,2,,,yes\n", "seen is neither true nor false"),
        ("uid,row,col,correction,system\nu,1,2,,\nu,1,3,,\n", "line 3: its id was used before"),
        ("row,col,correction\n1,2,[{\n", "line 2: correction cannot be read"),
    ],
)
def test_bad_tables(tmp_path: Path, content: str, message: str) -> None:
    """One line, with the file and its line."""
    with pytest.raises(TableError, match=message):
        read(tmp_path, content, classes=("normal",))


def test_the_rest_of_a_bad_table(tmp_path: Path) -> None:
    """Refused lines are listed, the others are there."""
    (tmp_path / "cells.csv").write_text("row,col\n1,2\nx,2\n1\n3,4\n")
    imported = read_file(tmp_path / "cells.csv", [IMAGE], skip_bad=True)
    assert [a.geometry for a in imported.annotations] == [(1, 2), (3, 4)]
    assert imported.refused == (
        "cells.csv line 3: row is not a number (x).",
        "cells.csv line 4: 1 fields where 2 are needed.",
    )
