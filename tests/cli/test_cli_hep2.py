"""``cellpath predict hep2``: columns, the roll-up, ways to say where the cells are, bad input."""

import csv
import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_cellpath.backend import connect
from napari_cellpath.cli import main
from napari_cellpath.core.requests import MemoryImage, PatternRequest
from napari_cellpath.core.vocabulary import PATTERNS
from napari_cellpath.models import Calibration
from napari_cellpath.samples import hep2_field
from napari_cellpath.systems.hep2.cells import boxes_in
from tests.support.models import write_pattern_model

MPP = 0.3225


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_pattern_model(tmp_path_factory.mktemp("models") / "random"))


@pytest.fixture(scope="module")
def truth():
    return hep2_field(shape=(520, 700), n_cells=12)


@pytest.fixture
def field(tmp_path, truth):
    """The generated field as a file, its labels, boxes and points."""
    Image.fromarray(truth.image).save(tmp_path / "f.png")
    tifffile.imwrite(tmp_path / "l.tif", truth.labels)
    lines = ["id,row0,col0,row1,col1"]
    lines += [f"c{c.uid},{c.row0},{c.col0},{c.row1},{c.col1}" for c in boxes_in(truth.labels)]
    (tmp_path / "b.csv").write_text("\n".join(lines))
    rows = [f"{row},{col}" for row, col in truth.centres]
    (tmp_path / "p.csv").write_text("\n".join(["row,col", *rows]))
    return tmp_path


@pytest.fixture
def run(field, model, capsys):
    """Runs the command on the field; gives code, text, error, rows, roll-up."""

    def command(*more, image="f.png", expect=0):
        out = field / "o.csv"
        code = main(
            [str(a) for a in ("predict", "hep2", field / image, "--out", out, "--model", model,
                              "--mpp", MPP, "--precision", "fp32", *more)]
        )  # fmt: skip
        captured = capsys.readouterr()
        assert code == expect, captured.err
        if code:
            assert not out.exists()
            assert captured.err.count("\n") == 1
            return captured.err
        with out.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        reading = json.loads((field / "o.specimen.json").read_text(encoding="utf-8"))
        return rows, reading, captured

    return command


def test_cells_are_found_and_the_columns_are_those_promised(run, truth):
    """image,id,row,col,pattern,p_PATTERN each,model, then flags; one roll-up beside it."""
    rows, reading, captured = run()
    assert list(rows[0]) == [
        "image", "id", "row", "col", "pattern", *(f"p_{p}" for p in PATTERNS), "model", "flags",
    ]  # fmt: skip
    assert len(rows) == 12
    assert [r["id"] for r in rows] == [str(n) for n in range(12)]
    for row in rows:
        probabilities = {p: float(row[f"p_{p}"]) for p in PATTERNS}
        assert sum(probabilities.values()) == pytest.approx(1)
        assert row["pattern"] == max(probabilities, key=probabilities.get)
        place = round(float(row["row"])), round(float(row["col"]))
        assert np.hypot(*(truth.centres - place).T).min() < 15  # the box of a Golgi has its ribbon
    assert (reading["cells"], reading["judged"]) == (12, 12)
    assert sum(reading["votes"].values()) == 12
    assert reading["images"]["f.png"]["votes"] == reading["votes"]
    assert reading["rule"]["confidence"] == 0.5
    assert "12 cells" in captured.out
    assert "colour" not in captured.err


def test_labels_boxes_points_and_python_agree(run, field, truth, model):
    """The same boxes by labels, by table and in Python: 1e-6; ids kept; points near them."""
    by_labels, _, _ = run("--labels", field / "l.tif")
    by_boxes, _, _ = run("--boxes", field / "b.csv")
    by_points, _, _ = run("--points", field / "p.csv", "--diameter", 18)
    assert [r["id"] for r in by_labels] == [str(n) for n in range(1, 13)]
    assert [r["id"] for r in by_boxes] == [f"c{n}" for n in range(1, 13)]
    assert [r["id"] for r in by_points] == [str(n) for n in range(12)]
    request = PatternRequest(
        MemoryImage(truth.image, mpp=MPP), tuple(boxes_in(truth.labels)), model
    )
    calls = connect(inline=True, precision="fp32").submit(request).result()
    for row, other, call in zip(by_labels, by_boxes, calls, strict=True):
        for pattern, probability in zip(PATTERNS, call.probabilities, strict=True):
            assert float(row[f"p_{pattern}"]) == float(other[f"p_{pattern}"])
            assert float(row[f"p_{pattern}"]) == pytest.approx(probability, abs=1e-6)
    assert {(r["row"], r["col"]) for r in by_points} != {(r["row"], r["col"]) for r in by_labels}


def test_twice_the_same_bytes_and_masks(run, field, truth):
    """Repeats differ in no byte; --masks writes the cells found, which give the same again."""
    found, _, _ = run("--masks", field / "m.tif")
    first = [(field / name).read_bytes() for name in ("o.csv", "o.specimen.json", "m.tif")]
    run("--masks", field / "m.tif")
    assert [(field / n).read_bytes() for n in ("o.csv", "o.specimen.json", "m.tif")] == first
    masks = tifffile.imread(field / "m.tif")
    assert masks.shape == truth.image.shape
    assert masks.max() == 12
    assert ((masks > 0) == (truth.labels > 0)).mean() > 0.97
    again, _, _ = run("--labels", field / "m.tif")
    for row, other in zip(found, again, strict=True):
        assert int(other["id"]) == int(row["id"]) + 1
        assert row["p_Golgi"] == other["p_Golgi"]


def test_d4_and_json_and_facts_of_the_specimen(run, model):
    """Other probabilities with --average d4; one JSON object; what the user says is written."""
    rows, _, _ = run()
    other, reading, captured = run(
        "--average", "d4", "--intensity", "intermediate", "--specimen", "S 12", "--json"
    )
    assert rows[0]["p_Golgi"] != other[0]["p_Golgi"]
    assert (reading["specimen"], reading["intensity"]) == ("S 12", "intermediate")
    printed = json.loads(captured.out)
    assert printed["specimen"] == reading
    assert len(printed["results"]) == 12


def test_single_cells_and_folders(run, field, truth):
    """Each image is one cell and seen whole; the roll-up is over all of them."""
    (field / "cells").mkdir()
    for n, box in enumerate(boxes_in(truth.labels)[:4]):
        crop = truth.image[box.row0 - 4 : box.row1 + 4, box.col0 - 4 : box.col1 + 4]
        Image.fromarray(crop).save(field / "cells" / f"{n}.png")
    Image.fromarray(np.zeros((78, 78), np.uint8)).save(field / "cells" / "black.png")
    rows, reading, captured = run("--single-cells", image="cells")
    assert [r["image"] for r in rows] == ["0.png", "1.png", "2.png", "3.png", "black.png"]
    assert [r["flags"] for r in rows] == ["", "", "", "", "blank"]
    assert rows[4]["pattern"] == rows[4]["p_Golgi"] == ""
    assert (reading["cells"], reading["judged"]) == (5, 4)
    assert reading["images"]["black.png"]["why"] == "No cell could be judged."
    assert "1 not judged" in captured.out


def test_specimens_named_by_the_table(run, field):
    """A specimen column gives a roll-up each."""
    lines = (field / "b.csv").read_text().splitlines()
    named = [lines[0] + ",specimen"]
    named += [f"{line},{'S1' if n < 8 else 'S2'}" for n, line in enumerate(lines[1:])]
    (field / "b.csv").write_text("\n".join(named))
    _, reading, _ = run("--boxes", field / "b.csv")
    assert {s: r["cells"] for s, r in reading["specimens"].items()} == {"S1": 8, "S2": 4}


def test_a_colour_image_says_which_channel_is_used(run, field, truth):
    """On stderr, by name; the chosen channel's cells are the grey image's."""
    grey, _, _ = run("--labels", field / "l.tif")
    rgb = np.random.default_rng(0).integers(0, 255, (*truth.image.shape, 3), dtype=np.uint8)
    rgb[..., 0] = truth.image
    Image.fromarray(rgb).save(field / "rgb.png")
    _, _, captured = run("--labels", field / "l.tif", image="rgb.png")
    assert captured.err.startswith("rgb.png: a colour image; its green channel is used")
    red, _, captured = run("--labels", field / "l.tif", "--channel", "red", image="rgb.png")
    assert "its red channel" in captured.err
    assert [r["p_Golgi"] for r in red] == [r["p_Golgi"] for r in grey]


def test_sixteen_bits_are_stated(run, field, truth):
    """12-bit values in a 16-bit file: the mapping is told, and cells are found."""
    tifffile.imwrite(field / "deep.tif", truth.image.astype(np.uint16) * 16)
    rows, _, captured = run(image="deep.tif")
    assert "read as 12-bit" in captured.err
    assert len(rows) == 12


def test_calibrated_probability_has_its_column(run, tmp_path_factory):
    """Of the pattern called, beside the raw ones."""
    calibration = Calibration(temperature=2.0)
    folder = tmp_path_factory.mktemp("models") / "calibrated"
    rows, reading, _ = run("--model", write_pattern_model(folder, calibration=calibration))
    assert list(rows[0])[-3:] == ["calibrated", "model", "flags"]
    assert 0 < float(rows[0]["calibrated"]) <= float(rows[0][f"p_{rows[0]['pattern']}"])
    assert reading["mean"]["calibrated"] is True


def test_the_same_box_twice_is_refused(field, capsys):
    """It would vote twice; the message names both lines."""
    lines = ("row0,col0,row1,col1", "10,10,60,60", "80,80,140,140", "10,10,60,60")
    (field / "twice.csv").write_text("\n".join(lines))
    arguments = ["predict", "hep2", str(field / "f.png"), "--boxes", str(field / "twice.csv")]
    assert main([*arguments, "--out", str(field / "o.csv")]) == 2
    assert "line 4: the same box stands in line 2" in capsys.readouterr().err
    assert not (field / "o.csv").exists()


def test_fields_without_cells_and_empty_masks(run, field, truth):
    """All black: no cells, no error, no reading; empty masks too; a pixel: tiny; ground: blank."""
    Image.fromarray(np.zeros((300, 400), np.uint8)).save(field / "black.png")
    rows, reading, captured = run(image="black.png")
    assert rows == []
    assert reading["reading"] is None
    assert "no cell was found" in captured.err
    tifffile.imwrite(field / "none.tif", np.zeros(truth.image.shape, np.uint16))
    rows, _, captured = run("--labels", field / "none.tif")
    assert rows == []
    assert "none.tif: no label" in captured.err
    pixel = np.zeros(truth.image.shape, np.uint16)
    pixel[100, 100] = 5
    pixel[0:50, 0:40] = 9
    tifffile.imwrite(field / "pixel.tif", pixel)
    rows, _, _ = run("--labels", field / "pixel.tif")
    assert [(r["id"], r["flags"]) for r in rows] == [("5", "tiny"), ("9", "border;blank")]
    assert {r["pattern"] for r in rows} == {""}


def bad_boxes():
    return [
        ("row0,col0,row1,col1\n5,5,2,9\n", "line 2 (rows 5 to 2, columns 5 to 9) is inverted"),
        ("row0,col0,row1,col1\n5,5,5,9\n", "has no area"),
        ("row0,col0,row1,col1\n5,5,20,20\n900,5,950,50\n", "line 3 (rows 900 to 950"),
        ("row0,col0,row1,col1\n5,5,nan,9\n", "line 2: row1 is not a finite number"),
        ("row,col\n1,1\n", "no column row0"),
        ("row0,col0,row1,col1\n", "no boxes"),
        ("image,row0,col0,row1,col1\nx.png,1,1,9,9\n", "'x.png' is not among"),
    ]


@pytest.mark.parametrize(("text", "word"), bad_boxes())
def test_bad_boxes_are_one_line(run, field, text, word):
    """Table, line and what is wrong; exit 2, nothing written."""
    (field / "bad.csv").write_text(text)
    assert word in run("--boxes", field / "bad.csv", expect=2)


def test_bad_inputs_are_one_line(run, field, truth):
    """Wrong label shape, NaN, several ways at once, an unknown channel, too many labels."""
    tifffile.imwrite(field / "small.tif", np.ones((5, 6), np.uint8))
    broken = (truth.image / 255).astype(np.float32)
    broken[3, 3] = np.nan
    tifffile.imwrite(field / "nan.tif", broken)
    both = ("--labels", field / "l.tif", "--boxes", field / "b.csv")
    for word, image, more in (
        ("small.tif has 5 x 6 pixels, f.png 520 x 700", "f.png", ("--labels", field / "small.tif")),
        ("not finite", "nan.tif", ()),
        ("not several", "f.png", both),
        ("yellow", "f.png", ("--channel", "yellow")),
        ("2 label images", "f.png", ("--labels", field / "l.tif", "--labels", field / "l.tif")),
        ("missing.tif does not exist", "f.png", ("--labels", field / "missing.tif")),
        ("--masks goes with", "f.png", ("--masks", field / "m.tif", *both[:2])),
        ("no label image", "f.png", ("--labels", field / "nan.tif")),
        ("no pixel size", "f.png", ("--mpp", 1e9)),
        ("cannot be searched", "f.png", ("--cell-um", 30, 8)),
        ("does not exist", "gone.png", ()),
    ):
        assert word in run(*more, image=image, expect=2), word


def test_models_show_prints_the_papers_counts(capsys):
    """``models show nin10 --json``: 891750; with other classes, theirs; lists name them."""
    for name, parameters in (("nin10", 891_750), ("nin-matconvnet", 956_614)):
        assert main(["models", "show", name, "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert (facts["parameters"], facts["classes"], facts["system"]) == (parameters, 6, "hep2")
        assert facts["input"]["size"] == 60
    assert main(["models", "show", "nin10", "--classes", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == 891_750 - 4 * 193


def test_models_commands_take_hep2(model, tmp_path, capsys):
    """Show, verify, export and import of a HEp-2 model folder."""
    assert main(["models", "show", model, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == list(PATTERNS)
    assert main(["models", "verify", model]) == 0
    assert main(["models", "export", model, "--out", str(tmp_path / "e")]) == 0
    assert main(["models", "import", str(tmp_path / "e"), "--out", str(tmp_path / "i")]) == 0
    assert main(["models", "verify", str(tmp_path / "i")]) == 0
