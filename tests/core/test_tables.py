"""Points in, calls out."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_cellpath.core.errors import CellpathError, MissingFileError, OutputError, TableError
from napari_cellpath.core.tables import nucleus_columns, read_points, write_calls


def _points(tmp_path: Path, content: str | bytes, **options: int) -> list[tuple]:
    file = tmp_path / "points.csv"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return [(p.image, p.id, p.row, p.col, p.line) for p in read_points(file, **options)]


def test_ids_are_kept_or_else_count_rows_from_zero(tmp_path: Path) -> None:
    """Blank lines are no rows; an empty id falls back to the row's number."""
    assert _points(tmp_path, "row,col\n1,2\n\n3.5,-4e1\n") == [
        (None, "0", 1.0, 2.0, 2),
        (None, "1", 3.5, -40.0, 4),
    ]
    assert _points(tmp_path, "id,image,col,row\na,x.tif,2,1\n,x.tif,4,3\n") == [
        ("x.tif", "a", 1.0, 2.0, 2),
        ("x.tif", "1", 3.0, 4.0, 3),
    ]


@pytest.mark.parametrize(
    "content",
    [
        "row,col\r\n1.5,2\r\n",
        " Row ; COL \n1,5;2\n",
        "row\tcol\n1.5\t2\n",
        "\ufeffrow,col\n1.5,2\n",
        '"row","col"\n"1.5","2"\n',
        "\n\nrow,col\n1.5,2",
        "name,row,col,extra\nq,1.5,2\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be"])
def test_spreadsheets_may_write_as_they_like(tmp_path: Path, content: str, encoding: str) -> None:
    """Delimiters, byte-order marks, UTF-16, quotes and header case do not change the point."""
    assert [row[2:4] for row in _points(tmp_path, content.encode(encoding))] == [(1.5, 2.0)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "points.csv is empty"),
        ("row,col\n", "points.csv has a header but no points"),
        ("x,y\n1,2\n", "no column row and no column col; its header names: x, y"),
        ("row,x\n1,2\n", "has no column col; its header names: row, x"),
        ("row,col\n1,2\n1,nan\n", r"line 3: col is not a finite number \(nan\)"),
        ("row,col\n1e999,2\n", r"line 2: row is not a finite number \(1e999\)"),
        ("row,col\n-inf,2\n", "row is not a finite number"),
        ("row,col\n1_0,2\n", r"row is not a number \(1_0\)"),
        ("row,col\nabc,2\n", r"row is not a number \(abc\)"),
        ("row,col\n,2\n", "line 2: row is empty"),
        ("row,col\n1\n", "line 2: 1 fields where 2"),
        ("row,col\n1,5,2,5\n", "decimal commas need semicolons"),
        ("row,col,row\n1,2,3\n", "column row more than once"),
        ("id,row,col\na,1,2\na,3,4\n", r"line 3: id 'a' was used before, in line 2"),
        ("image,row,col\n,1,2\n", "line 2: the image name is empty"),
        (b"\xff\x00row", "is not text"),
        (b"row,col\n\xe9,1\n", "is not text"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is not text"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    """Whatever is wrong, the user learns where and what was found."""
    with pytest.raises(TableError, match=message) as caught:
        _points(tmp_path, content)
    assert str(caught.value).startswith("points.csv")


def test_equal_ids_in_different_images_are_two_cells(tmp_path: Path) -> None:
    """Ids only have to tell cells of one image apart."""
    rows = _points(tmp_path, "image,id,row,col\na.tif,1,0,0\nb.tif,1,0,0\n")
    assert [row[0] for row in rows] == ["a.tif", "b.tif"]


def test_row_limit_and_missing_files(tmp_path: Path) -> None:
    """Five million rows are a mistake; so is a path that is not there."""
    with pytest.raises(TableError, match="more than 2 rows"):
        _points(tmp_path, "row,col\n1,1\n2,2\n3,3\n", max_rows=2)
    with pytest.raises(MissingFileError, match="does not exist"):
        read_points(tmp_path / "none.csv")
    with pytest.raises(TableError, match="is a folder; give a CSV"):
        read_points(tmp_path)


@settings(max_examples=150, deadline=None)
@given(content=st.one_of(st.binary(max_size=200), st.text('row,col;\t\n"1.e-9 \0é', max_size=80)))
def test_no_table_raises_anything_but_our_errors(
    tmp_path_factory: pytest.TempPathFactory, content: bytes | str
) -> None:
    """Any bytes at all give points or a CellpathError."""
    file = tmp_path_factory.getbasetemp() / "any.csv"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    try:
        points = read_points(file)
    except CellpathError:
        return
    assert all(np.isfinite([point.row, point.col]).all() for point in points)


def test_columns_for_two_and_for_seven_classes() -> None:
    """Two classes need no p_ columns: the score is the probability of the second."""
    base = ["image", "id", "row", "col", "score", "std", "n_views", "label", "model"]
    assert list(nucleus_columns(["normal", "abnormal"])) == [*base, "flags"]
    seven = [f"c{i}" for i in range(7)]
    assert list(nucleus_columns(seven)) == [*base, *[f"p_{c}" for c in seven], "flags"]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_numbers_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, scores: list[float]
) -> None:
    """What is read back equals what was written, for doubles and for float32 scores."""
    file = tmp_path_factory.getbasetemp() / "calls.csv"
    write_calls(file, [{"id": str(i), "score": score} for i, score in enumerate(scores)])
    with file.open(newline="") as stream:
        assert [float(row["score"]) for row in csv.DictReader(stream)] == scores


def test_calls_are_written_in_order_and_can_be_read_as_points(tmp_path: Path) -> None:
    """A results table is a points table, names with commas and float32 tails included."""
    file = tmp_path / "calls.csv"
    row = {
        "image": "a, b.tif",
        "id": "7",
        "row": 1.5,
        "col": 2,
        "score": np.float32(0.1),
        "std": None,
        "n_views": 100,
        "label": "abnormal",
        "model": "m@1",
        "p_x": 0.25,
        "flags": ("border", "unknown-scale"),
    }
    write_calls(file, [row])
    header, line = file.read_text().splitlines()
    assert header == "image,id,row,col,score,std,n_views,label,model,p_x,flags"
    assert line == '"a, b.tif",7,1.5,2,0.1,,100,abnormal,m@1,0.25,border;unknown-scale'
    (point,) = read_points(file)
    assert (point.image, point.id, point.row, point.col) == ("a, b.tif", "7", 1.5, 2.0)


def test_a_result_that_is_no_number_is_never_written(tmp_path: Path) -> None:
    """NaN in a results table would be read as a score; the old table stays."""
    file = tmp_path / "calls.csv"
    file.write_text("old")
    with pytest.raises(OutputError, match="score of row 0 is nan"):
        write_calls(file, [{"score": float("nan")}])
    with pytest.raises(ValueError, match="no such column"):
        write_calls(file, [{"scores": 1}])
    assert file.read_text() == "old"
