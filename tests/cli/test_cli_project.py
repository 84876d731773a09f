"""``cellpath project`` as a user types it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_cellpath.cli import main
from napari_cellpath.project import Project


@pytest.fixture
def slides(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"slide{n}.png" for n in range(3)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8)).save(path)
    return paths


def cellpath(capsys, *words: object) -> tuple[int, str, str]:
    code = main([str(w) for w in words])
    out, err = capsys.readouterr()
    return code, out, err


def table(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(rows) + "\n")
    return path


def test_the_whole_way(tmp_path, slides, capsys):
    """Make, import, export, import elsewhere, log, replay, split: one truth all the way."""
    p = tmp_path / "p.cellpath"
    code, out, _ = cellpath(capsys, "project", "create", tmp_path / "p", "--classes", "no,yes")
    assert (code, out) == (0, f"{p} made.\n")
    cells = table(tmp_path / "cells.csv", "row,col,label", "10,20,yes", "30.5,40,no", "50,60,")
    code, out, _ = cellpath(capsys, "project", "import", p, cells, "--image", slides[0])
    assert (code, "3 added, 0 changed, 0 as they were." in out) == (0, True)
    code, out, _ = cellpath(capsys, "project", "import", p, cells, "--image", "slide0.png")
    assert "0 added, 0 changed, 3 as they were." in out

    for form, name in (("geojson", "o.geojson"), ("coco", "o.json"), ("csv", "o.csv")):
        code, out, _ = cellpath(
            capsys, "project", "export", p, "--format", form, "--out", tmp_path / name,
            "--image", "slide0.png",
        )  # fmt: skip
        assert (code, out) == (0, f"3 objects written to {tmp_path / name}.\n")
        q = tmp_path / f"{form}.cellpath"
        assert cellpath(capsys, "project", "create", q)[0] == 0
        code, out, err = cellpath(
            capsys, "project", "import", q, tmp_path / name, "--image", slides[0]
        )
        assert code == 0, err
        with Project.open(p, read_only=True) as one, Project.open(q, read_only=True) as two:
            ours, theirs = ({a.centre: a.labels for a in x.annotations()} for x in (one, two))
        assert ours == theirs
        assert ours[(30.5, 40.0)] == ("no",)

    assert cellpath(capsys, "project", "add", p, *slides[1:])[0] == 0
    code, out, _ = cellpath(capsys, "project", "split", p, "--json")
    sides = {g["group"]: g["side"] for g in json.loads(out)["groups"]}
    assert sides == {"slide0": "train", "slide1": "frozen", "slide2": "train"}
    assert (
        cellpath(capsys, "project", "split", p, "--group", "slide2", "--to", "validation")[0] == 0
    )
    code, out, _ = cellpath(capsys, "project", "log", p, "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert [e["kind"] for e in events].count("import") == 1
    code, out, _ = cellpath(capsys, "project", "log", p)
    assert "import   3 objects ['no'], ['yes']" in out
    code, out, _ = cellpath(capsys, "project", "replay", p, "--out", tmp_path / "r")
    assert (code, out) == (0, f"{len(events)} events replayed: 3 objects.\n")


def test_a_folder_of_class_folders(tmp_path, slides, capsys):
    for path, name in zip(slides, ("normal", "abnormal", "abnormal"), strict=True):
        (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
        path.rename(tmp_path / "set" / name / path.name)
    p = tmp_path / "p.cellpath"
    cellpath(capsys, "project", "create", p)
    code, out, _ = cellpath(capsys, "project", "import", p, tmp_path / "set")
    assert (code, "3 added" in out) == (0, True)
    with Project.open(p, read_only=True) as project:
        found = sorted(a.labels[0] for a in project.annotations())
        assert len(project.state.images) == 3
    assert found == ["abnormal", "abnormal", "normal"]


def test_predictions_and_corrections_of_an_exported_table_stay_apart(tmp_path, slides, capsys):
    cells = table(
        tmp_path / "nuclei.csv",
        "image,id,row,col,score,std,n_views,label,model,flags,correction",
        "slide0.png,0,10.0,20.0,0.9,0.1,100,abnormal,m@1,,normal",
        "slide0.png,1,30.0,40.0,0.2,0.1,100,normal,m@1,,",
    )
    p = tmp_path / "p.cellpath"
    cellpath(capsys, "project", "create", p)
    assert cellpath(capsys, "project", "import", p, cells, "--image", slides[0])[0] == 0
    with Project.open(p, read_only=True) as project:
        first, second = project.annotations()
    assert (first.labels, first.prediction.label) == (("normal",), "abnormal")
    assert (second.labels, second.prediction.label) == ((), "normal")
    out = tmp_path / "out.csv"
    cellpath(capsys, "project", "export", p, "--format", "csv", "--out", out)
    with out.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [r["correction"] for r in rows] == ["normal", ""]
    assert [r["label"] for r in rows] == ["abnormal", "normal"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("10,90,yes", "line 2 lies outside its image of 60 x 80 pixels"),
        ("10,20,odd", "unknown class 'odd'"),
        ("nan,20,yes", "line 2"),
    ],
)
def test_refused_with_one_line_and_nothing_changed(tmp_path, slides, capsys, row, says):
    p = tmp_path / "p.cellpath"
    cellpath(capsys, "project", "create", p, "--classes", "no,yes")
    cells = table(tmp_path / "cells.csv", "row,col,label", row, "5,5,no")
    code, out, err = cellpath(capsys, "project", "import", p, cells, "--image", slides[0])
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "cells.csv" in err
    assert says in err
    with Project.open(p, read_only=True) as project:
        assert not project.state.objects
    code, _, err = cellpath(
        capsys, "project", "import", p, cells, "--image", slides[0], "--skip-bad"
    )
    assert code == 0
    assert "refused: cells.csv" in err
    with Project.open(p, read_only=True) as project:
        assert len(project.state.objects) == 1


def test_other_refusals(tmp_path, slides, capsys):
    p = tmp_path / "p.cellpath"
    cells = table(tmp_path / "cells.csv", "row,col", "5,5")
    assert "is no project" in cellpath(capsys, "project", "import", p, cells)[2]
    cellpath(capsys, "project", "create", p)
    assert "exists already" in cellpath(capsys, "project", "create", p)[2]
    assert (
        "one class twice"
        in cellpath(capsys, "project", "create", tmp_path / "q", "--classes", "a,a")[2]
    )
    assert (
        "holds no image 'x.png'"
        in cellpath(capsys, "project", "import", p, cells, "--image", "x.png")[2]
    )
    assert (
        "holds no objects"
        in cellpath(capsys, "project", "export", p, "--format", "csv", "--out", tmp_path / "o.csv")[
            2
        ]
    )
    for slide in slides[:2]:
        cellpath(capsys, "project", "import", p, cells, "--image", slide)
    assert (
        "give one with --image"
        in cellpath(capsys, "project", "export", p, "--format", "geojson", "--out", tmp_path / "o")[
            2
        ]
    )
    assert "go together" in cellpath(capsys, "project", "split", p, "--group", "slide0")[2]


def test_images_of_one_file_name_stay_apart(tmp_path, capsys):
    """Two patients' 001.png: two names, two groups, and an export that comes back."""
    rng = np.random.default_rng(0)
    p = tmp_path / "p.cellpath"
    cellpath(capsys, "project", "create", p)
    cells = table(tmp_path / "cells.csv", "row,col,label", "10,20,yes")
    for patient in ("anna", "bert"):
        path = tmp_path / patient / "001.png"
        path.parent.mkdir()
        Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8)).save(path)
        assert cellpath(capsys, "project", "import", p, cells, "--image", path)[0] == 0
    with Project.open(p, read_only=True) as project:
        assert [i["name"] for i in project.state.images.values()] == ["001.png", "bert/001.png"]
        assert len(project.state.groups) == 2
    for form, name in (("csv", "o.csv"), ("coco", "o.json")):
        out = tmp_path / name
        assert cellpath(capsys, "project", "export", p, "--format", form, "--out", out)[0] == 0
        code, said, err = cellpath(capsys, "project", "import", p, out)
        assert code == 0, err
        assert "0 added" in said
    code, _, err = cellpath(capsys, "project", "add", p, tmp_path / "anna/001.png",
                            "--group", "anna")  # fmt: skip
    assert code == 0
    with Project.open(p, read_only=True) as project:
        assert "anna" in {i["group"] for i in project.state.images.values()}
