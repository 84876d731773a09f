"""``cellpath predict rbc``: columns, detection, boxes, masks, GeoJSON, bad input."""

import csv
import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_cellpath.backend import connect
from napari_cellpath.cli import main
from napari_cellpath.core.requests import DetectRegionsRequest, LabelRegionsRequest, MemoryImage
from napari_cellpath.core.vocabulary import RBC_TYPES
from napari_cellpath.samples import smear_field
from napari_cellpath.systems.rbc.boxes import boxes_of_mask
from tests.support.models import write_region_model

COLUMNS = [
    "image", "id", "row0", "col0", "row1", "col1", "detection",
    *(f"p_{name}" for name in RBC_TYPES), "labels", "abnormal", "call", "n_views", "model", "flags",
]  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_region_model(tmp_path_factory.mktemp("models") / "random"))


@pytest.fixture(scope="module")
def truth():
    return smear_field(shape=(240, 320), n_regions=5)


@pytest.fixture
def field(tmp_path, truth):
    """The generated smear as a file, its mask and its boxes."""
    Image.fromarray(truth.image).save(tmp_path / "f.png")
    tifffile.imwrite(tmp_path / "m.tif", (truth.labels > 0).astype(np.uint8))
    lines = ["id,row0,col0,row1,col1"]
    lines += [f"c{n},{r0},{c0},{r1},{c1}" for n, (r0, c0, r1, c1) in enumerate(truth.boxes)]
    (tmp_path / "b.csv").write_text("\n".join(lines))
    return tmp_path


@pytest.fixture
def run(field, model, capsys):
    """Runs the command on the field; gives its output, rows and summary."""

    def command(*more, image="f.png", expect=0, out="o.csv"):
        written = field / out
        given = [image] if isinstance(image, str) else image
        code = main(
            [str(a) for a in ("predict", "rbc", *(field / i for i in given), "--out", written,
                              "--model", model, "--precision", "fp32", *more)]
        )  # fmt: skip
        captured = capsys.readouterr()
        assert code == expect, captured.err
        if code:
            assert not written.exists()
            assert captured.err.count("\n") == 1
            return captured.err
        rows = []
        if written.suffix == ".csv":
            with written.open(newline="") as file:
                reader = csv.DictReader(file)
                rows = list(reader)
            assert reader.fieldnames == COLUMNS
        summary = json.loads(written.with_name(f"{written.stem}.summary.json").read_text())
        return captured.out, rows, summary

    return command


def test_the_command_line_is_python(run, field, truth, model):
    """Every number in the file is the one Python gets, to the last digit; ids are kept."""
    out, rows, summary = run("--boxes", field / "b.csv")
    boxes = tuple(boxes_of_mask(truth.labels))
    request = LabelRegionsRequest(MemoryImage(truth.image), boxes, model)
    calls = connect(inline=True, device="cpu", precision="fp32").submit(request).result()
    assert [r["id"] for r in rows] == [f"c{n}" for n in range(5)]
    for row, box, call in zip(rows, boxes, calls, strict=True):
        assert [int(row[c]) for c in COLUMNS[2:6]] == [box.row0, box.col0, box.row1, box.col1]
        assert [float(row[f"p_{name}"]) for name in RBC_TYPES] == list(call.probabilities)
        assert float(row["abnormal"]) == call.abnormal
        assert (row["labels"], row["call"], row["model"]) == (
            ";".join(call.labels), call.label, call.model,
        )  # fmt: skip
        assert row["detection"] == ""
    assert summary["judged"] == 5
    assert "5 regions" in out
    assert "cells" not in out, "regions are never called cells"


def test_without_boxes_they_are_detected(run, field, truth, model):
    """Found and labelled in one go; the file can be given back and gives itself."""
    _, rows, summary = run()
    wanted = DetectRegionsRequest(MemoryImage(truth.image), model, score=0.5)
    found = connect(inline=True, device="cpu", precision="fp32").submit(wanted).result()
    assert [tuple(int(r[c]) for c in COLUMNS[2:6]) for r in rows] == [f.box for f in found]
    assert [float(r["detection"]) for r in rows] == [f.detection for f in found]
    assert summary["regions"] == len(found) > 0
    first = (field / "o.csv").read_bytes()
    run("--boxes", field / "o.csv", out="again.csv")
    assert (field / "again.csv").read_bytes() == first


def test_score_overlap_and_region(run):
    """Fewer with a higher score, fewer with less overlap, and those of a part."""
    everything = run("--score", 0.05, "--overlap", 0.9)[1]
    strict = run("--score", 0.9, "--overlap", 0.9)[1]
    apart = run("--score", 0.05, "--overlap", 0.1)[1]
    assert 0 < len(strict) < len(everything)
    assert 0 < len(apart) < len(everything)
    part = run("--score", 0.05, "--overlap", 0.9, "--region", 0, 0, 120, 320)[1]
    inside = [r for r in everything if int(r["row0"]) + int(r["row1"]) < 240]
    for column in ("row0", "col1", "detection", "labels", "abnormal", "flags"):
        assert [r[column] for r in part] == [r[column] for r in inside]
    ours, theirs = ([float(r["p_Oval"] or -1) for r in rows] for rows in (part, inside))
    assert ours == pytest.approx(theirs, abs=1e-12)
    assert max(ours) > 0


def test_nothing_found_writes_a_header(run, field):
    """No detection: a header, no rows, a summary of nothing; the file can be given back."""
    out, rows, summary = run("--score", 1)
    assert rows == []
    assert (summary["regions"], summary["types"]["Oval"]["share"]) == (0, None)
    assert out.startswith("0 regions")
    _, rows, _ = run("--boxes", field / "o.csv", out="again.csv")
    assert rows == []


def test_masks_give_boxes(run, field, truth):
    """A painted mask: touching cells are one region."""
    _, rows, _ = run("--masks", field / "m.tif")
    assert [[int(r[c]) for c in COLUMNS[2:6]] for r in rows] == truth.boxes.tolist()


def test_several_images(run, field, truth):
    """Boxes find their image by name; each image has its own counts."""
    Image.fromarray(truth.image[:, ::-1]).save(field / "g.png")
    row0, col0, row1, col1 = truth.boxes[0].tolist()
    lines = ["image,row0,col0,row1,col1", f"g.png,{row0},{320 - col1},{row1},{320 - col0}"]
    lines.append(f"f.png,{row0},{col0},{row1},{col1}")
    (field / "two.csv").write_text("\n".join(lines))
    _, rows, summary = run("--boxes", field / "two.csv", image=["f.png", "g.png"])
    assert [(r["image"], r["id"]) for r in rows] == [("f.png", "1"), ("g.png", "0")]
    assert rows[0]["p_Oval"] != rows[1]["p_Oval"]
    assert {name: told["judged"] for name, told in summary["images"].items()} == {
        "f.png": 1, "g.png": 1,
    }  # fmt: skip


def test_a_threshold_of_ones_own(run, field):
    """The call goes by it; the probability stays."""
    _, rows, _ = run("--boxes", field / "b.csv")
    least = min(float(r["abnormal"]) for r in rows)
    most = max(float(r["abnormal"]) for r in rows)
    assert {r["call"] for r in run("--boxes", field / "b.csv", "--threshold", most)[1]} == {
        "normal"
    }
    _, strict, summary = run("--boxes", field / "b.csv", "--threshold", least / 2)
    assert {r["call"] for r in strict} == {"abnormal"}
    assert [r["abnormal"] for r in strict] == [r["abnormal"] for r in rows]
    assert summary["abnormal_threshold"] == least / 2


def test_letterbox_is_another_look(run, field):
    """--fit changes what the heads see; the model's own is the default."""
    own, stretched, boxed = (
        [r["p_Oval"] for r in run("--boxes", field / "b.csv", *more)[1]]
        for more in ((), ("--fit", "stretch"), ("--fit", "letterbox"))
    )
    assert own == stretched
    assert own != boxed


def test_all_eight_ways_round_are_another_look(run, field):
    """--average d4 changes what the heads see; a model that does not say so looks once."""
    own, once, eight = (
        run("--boxes", field / "b.csv", *more)[1]
        for more in ((), ("--average", "none"), ("--average", "d4"))
    )
    assert own == once
    assert {r["n_views"] for r in own} == {"1"}
    assert {r["n_views"] for r in eight} == {"8"}
    assert [r["p_Oval"] for r in own] != [r["p_Oval"] for r in eight]


def test_geojson_is_qupaths(run, field, truth):
    """Polygons in pixel edges, the types as classification, probabilities as measurements."""
    run("--boxes", field / "b.csv", out="o.geojson")
    told = json.loads((field / "o.geojson").read_text())
    assert told["type"] == "FeatureCollection"
    assert len(told["features"]) == 5
    _, rows, _ = run("--boxes", field / "b.csv")
    for feature, row, box in zip(told["features"], rows, truth.boxes.tolist(), strict=True):
        ring = np.array(feature["geometry"]["coordinates"][0])
        assert ring.min(axis=0).tolist() == [box[1], box[0]]
        assert ring.max(axis=0).tolist() == [box[3], box[2]]
        properties = feature["properties"]
        assert properties["objectType"] == "detection"
        assert properties["name"] == row["id"]
        assert properties["measurements"]["score"] == float(row["abnormal"])
        assert properties["measurements"]["p_Echi"] == float(row["p_Echi"])
        if row["labels"]:
            assert properties["classification"]["name"] == row["labels"].replace(";", ": ")


def test_json_on_standard_output(run, field):
    """One object: model, counts, every row."""
    out, rows, summary = run("--boxes", field / "b.csv", "--json")
    told = json.loads(out)
    assert told["summary"] == summary
    assert [r["id"] for r in told["results"]] == [r["id"] for r in rows]
    assert told["regions"] == 5


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("x,5,5,5,9", r"b\.csv line 3.*no area"),
        ("x,9,5,5,9", r"b\.csv line 3.*inverted"),
        ("x,900,5,920,9", r"b\.csv line 3.*outside the image"),
        ("x,nan,5,20,9", r"b\.csv line 3.*not a finite number"),
        ("x,10,10,50,50", r"line 3.*same box stands in line 2"),
        ("a,11,10,50,50", r"id 'a' was used before, in line 2"),
    ],
)
def test_bad_boxes(run, field, line, said):
    """One sentence that names the line; nothing is written."""
    (field / "b.csv").write_text(f"id,row0,col0,row1,col1\na,10,10,50,50\n{line}\n")
    import re

    assert re.search(said, run("--boxes", field / "b.csv", expect=2))


def test_a_box_that_begins_beside_the_image(run, field):
    """Its part on the image is looked at and written, as in the window."""
    (field / "b.csv").write_text("id,row0,col0,row1,col1\na,-7,-3,40,50\n")
    _, [over], _ = run("--boxes", field / "b.csv")
    (field / "b.csv").write_text("id,row0,col0,row1,col1\na,0,0,40,50\n")
    _, [part], _ = run("--boxes", field / "b.csv", out="p.csv")
    assert over == part


def test_options_that_do_not_go_together(run, field):
    """Said before anything is computed."""
    assert "not both" in run("--boxes", field / "b.csv", "--masks", field / "m.tif", expect=2)
    assert "go with detection" in run("--boxes", field / "b.csv", "--score", 0.3, expect=2)
    assert "neither .csv nor .geojson" in run(out="o.txt", expect=2)
    assert "one image" in run(image=["f.png", "m.tif"], out="o.geojson", expect=2)
    assert "'--average': 'd5' is not one of" in run("--average", "d5", expect=2)
    assert "2 masks" in run("--masks", field / "m.tif", "--masks", field / "m.tif", expect=2)


def test_the_model_is_listed_shown_and_verified(model, capsys, monkeypatch, tmp_path):
    """An RBC folder is a model as any other; a changed booster is damage."""
    from pathlib import Path

    monkeypatch.setenv("CELLPATH_MODELS", str(Path(model).parent))
    assert main(["models", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert "random" in {m["name"] for m in listed["models"]}
    assert main(["models", "show", "random", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["system"], shown["classes"]) == ("rbc", list(RBC_TYPES))
    assert main(["models", "show", "rbc-heads", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == 6_297_606
    assert main(["models", "verify", "random"]) == 0
    damaged = tmp_path / "damaged"
    assert main(["models", "export", "random", "--out", str(damaged)]) == 0
    content = bytearray((damaged / "model.safetensors").read_bytes())
    content[-3] ^= 1
    (damaged / "model.safetensors").write_bytes(content)
    assert main(["models", "verify", str(damaged)]) == 2
