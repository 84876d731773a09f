"""The command line: what design.md promises, one line of error, exit codes."""

import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_cellpath.backend import connect
from napari_cellpath.cli import main
from napari_cellpath.core.requests import FileImage, MemoryImage, Nucleus, NucleusRequest
from napari_cellpath.core.vocabulary import Preset
from tests.support.models import write_random_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_random_model(tmp_path_factory.mktemp("models") / "random"))


@pytest.fixture
def field(tmp_path):
    """Two images and a table of nuclei in them."""
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        coarse = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((300, 280), Image.Resampling.BICUBIC).save(tmp_path / name)
    (tmp_path / "points.csv").write_text(
        "image,id,row,col\na.png,n1,120,130\nb.png,n2,60.5,200\na.png,n3,10,10\n"
    )
    return tmp_path


def run(*arguments, capsys):
    code = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def predict(field, model, capsys, *more):
    out = field / "out.csv"
    code, text, error = run(
        "predict", "deeppap", field / "a.png", field / "b.png", "--points", field / "points.csv",
        "--out", out, "--model", model, "--views", "fast", *more, capsys=capsys,
    )  # fmt: skip
    assert code == 0, error
    return read(out), text


def test_predict_writes_the_promised_columns(field, model, capsys):
    """image,id,row,col,score,std,n_views,label,model: ids kept, coordinates as given."""
    rows, text = predict(field, model, capsys)
    assert list(rows[0])[:9] == [
        "image", "id", "row", "col", "score", "std", "n_views", "label", "model",
    ]  # fmt: skip
    assert {(r["image"], r["id"], float(r["row"]), float(r["col"])) for r in rows} == {
        ("a.png", "n1", 120.0, 130.0),
        ("b.png", "n2", 60.5, 200.0),
        ("a.png", "n3", 10.0, 10.0),
    }
    assert all(0 <= float(r["score"]) <= 1 and r["n_views"] == "10" for r in rows)
    assert "3 cells" in text


def test_command_line_and_python_give_the_same_number(field, model, capsys):
    """From the file, from memory, through the command line: equal to the last digit."""
    rows, _ = predict(field, model, capsys, "--precision", "fp32")
    by_id = {r["id"]: float(r["score"]) for r in rows}
    pixels = np.asarray(Image.open(field / "a.png"))
    for image in (FileImage(str(field / "a.png")), MemoryImage(pixels)):
        backend = connect(inline=True, precision="fp32")
        request = NucleusRequest(
            image, (Nucleus(120, 130, "n1"), Nucleus(10, 10, "n3")), model, Preset.FAST
        )
        for call in backend.submit(request).result():
            assert call.score == pytest.approx(by_id[call.uid], abs=1e-6)


def test_the_same_command_twice_writes_the_same_bytes(field, model, capsys):
    """A repeat differs in no byte."""
    predict(field, model, capsys)
    first = (field / "out.csv").read_bytes()
    predict(field, model, capsys)
    assert (field / "out.csv").read_bytes() == first


def test_a_folder_is_taken_image_by_image(field, model, capsys):
    """A folder stands for the images in it, and --json prints one object."""
    out = field / "o.csv"
    code, text, _ = run(
        "predict", "deeppap", field, "--points", field / "points.csv", "--out", out,
        "--model", model, "--views", "fast", "--json", capsys=capsys,
    )  # fmt: skip
    assert code == 0
    summary = json.loads(text)
    assert summary["cells"] == 3
    assert len(summary["results"]) == 3


def bad_inputs(field):
    """(points text, other arguments, what the one line must say)."""
    (field / "text.tif").write_text("not an image")
    (field / "empty.png").write_bytes(b"")
    return [
        ("row,col\n1,1\n", [field / "missing.png"], "missing.png does not exist"),
        ("row,col\n1,1\n", [field / "text.tif"], "text.tif"),
        ("row,col\n1,1\n", [field / "empty.png"], "empty.png"),
        ("row,col\n1,5000\n", [field / "a.png"], "lies outside"),
        ("row,col\nnan,5\n", [field / "a.png"], "line 2"),
        ("row,col\n1e999,5\n", [field / "a.png"], "line 2"),
        ("x,y\n1,5\n", [field / "a.png"], "row"),
        ("", [field / "a.png"], "bad.csv"),
        ("row,col\n1,1\n", [field / "a.png", field / "b.png"], "image"),
        ("image,row,col\nc.png,1,1\n", [field / "a.png"], "c.png"),
        ("row,col\n1,1\n", [field / "a.png", "--model", "nonesuch"], "nonesuch"),
        ("row,col\n1,1\n", [field / "a.png", "--views", "many"], "many"),
        ("row,col\n1,1\n", [field / "a.png", "--threshold", "2"], "threshold"),
        ("row,col\n1,1\n", [field / "a.png", "--device", "mps"], "mps"),
        ("row,col\n1,1\n", [field / "a.png", "--mpp", "-1"], "pixel size"),
        ("row,col\n1,1\n", [field / "a.png", "--backend", "foo"], "--credentials"),
    ]


def test_bad_input_is_one_line_exit_2_and_nothing_written(field, model, capsys):
    """Whatever is wrong: one line that names it, exit 2, the old output untouched."""
    out = field / "out.csv"
    out.write_text("precious")
    table = field / "bad.csv"
    for text, arguments, expected in bad_inputs(field):
        table.write_text(text)
        chosen = [] if "--model" in arguments else ["--model", model]
        code, _, error = run(
            "predict", "deeppap", *arguments, "--points", table, "--out", out, "--views", "fast"
            if "--views" not in arguments else "many", *chosen, capsys=capsys,
        )  # fmt: skip
        assert code == 2, (arguments, error)
        assert error.startswith("cellpath: "), error
        assert error.count("\n") == 1, error
        assert expected in error, (expected, error)
        assert out.read_text() == "precious"


def test_an_output_that_cannot_be_written_is_one_line(field, model, capsys):
    """A folder that is no folder: exit 2 and the sentence names the path."""
    code, _, error = run(
        "predict", "deeppap", field / "a.png", "--points", field / "points.csv",
        "--out", field / "a.png" / "o.csv", "--model", model, "--views", "fast", capsys=capsys,
    )  # fmt: skip
    assert code == 2
    assert error.count("\n") == 1


def test_models_show_prints_the_parameter_count(capsys):
    """``cellpath models show convnet-t --json`` says 12035202; seven classes 12036487."""
    code, text, _ = run("models", "show", "convnet-t", "--json", capsys=capsys)
    assert code == 0
    assert json.loads(text)["parameters"] == 12_035_202
    _, text, _ = run("models", "show", "convnet-t", "--classes", "7", "--json", capsys=capsys)
    assert json.loads(text)["parameters"] == 12_036_487


def test_models_export_import_verify(model, tmp_path, capsys, monkeypatch):
    """A model can be carried to another place, is found there, and damage is named."""
    monkeypatch.setenv("CELLPATH_MODELS", str(tmp_path / "here"))
    assert run("models", "export", model, "--out", tmp_path / "pack", capsys=capsys)[0] == 0
    code, _, error = run(
        "models", "import", tmp_path / "pack", "--out", tmp_path / "here" / "random", capsys=capsys
    )
    assert code == 0, error
    assert "random" in run("models", "list", capsys=capsys)[1]
    assert run("models", "verify", "random", capsys=capsys)[0] == 0
    card = tmp_path / "here" / "random" / "card.md"
    card.write_text(card.read_text() + "!")
    code, text, error = run("models", "verify", "random", capsys=capsys)
    assert code == 2
    assert "card.md" in text
    code, _, error = run("models", "show", "no-such-thing", "--json", capsys=capsys)
    assert code == 2
    assert "convnet-t" in error


def test_help_and_version_need_no_torch():
    """The command answers --help without importing torch, so it is quick."""
    program = (
        "import sys; from napari_cellpath.cli import main\n"
        "code = main(['--help'])\n"
        "assert code == 0 and 'torch' not in sys.modules and 'napari' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "predict" in done.stdout


def test_an_input_or_a_device_is_never_overwritten(field, model, capsys):
    """--out naming the image, the points or a device node: exit 2, and all are as before."""
    for target in (field / "a.png", field / "points.csv"):
        before = target.read_bytes()
        code, _, error = run(
            "predict", "deeppap", field / "a.png", field / "b.png", "--points",
            field / "points.csv", "--out", target, "--model", model, "--views", "fast",
            capsys=capsys,
        )  # fmt: skip
        assert code == 2
        assert "is an input" in error
        assert target.read_bytes() == before
    fifo = field / "pipe"
    os.mkfifo(fifo)
    code, _, error = run(
        "predict", "deeppap", field / "a.png", field / "b.png", "--points", field / "points.csv",
        "--out", fifo, "--model", model, "--views", "fast", capsys=capsys,
    )  # fmt: skip
    assert code == 2
    assert fifo.is_fifo()


def test_an_imported_model_keeps_its_name_and_place(model, tmp_path, capsys):
    """A name that differs, or leads out of the models folder, is refused."""
    for name in ("other", "../evil"):
        code, _, error = run("models", "import", model, "--name", name, capsys=capsys)
        assert code == 2
        assert "cannot be renamed" in error


def test_what_cannot_be_scored_is_written_without_a_score(field, model, capsys):
    """Blank places and rows flagged outside keep their rows, are counted and have no number."""
    glass = np.full((300, 300, 3), 230, dtype=np.uint8)
    Image.fromarray(glass).save(field / "glass.png")
    (field / "points.csv").write_text(
        "image,id,row,col,flags\na.png,n1,120,130,\na.png,n2,900,130,stale;outside\n"
        "glass.png,n3,100,100,\n"
    )
    out = field / "out.csv"
    code, text, error = run(
        "predict", "deeppap", field / "a.png", field / "glass.png", "--points",
        field / "points.csv", "--out", out, "--model", model, "--views", "fast", capsys=capsys,
    )  # fmt: skip
    assert code == 0, error
    rows = {r["id"]: r for r in read(out)}
    assert rows["n1"]["score"] != ""
    assert rows["n2"]["score"] == rows["n2"]["label"] == rows["n3"]["score"] == ""
    assert rows["n2"]["flags"] == "outside"
    assert "blank" in rows["n3"]["flags"]
    assert "3 cells" in text
    assert "2 not scored" in text


def test_a_point_outside_names_table_line_and_image(field, model, capsys):
    """Which of a thousand points it is must not have to be searched."""
    table = field / "points.csv"
    table.write_text("image,row,col\na.png,1,1\nb.png,5,5000\n")
    code, _, error = run(
        "predict", "deeppap", field / "a.png", field / "b.png", "--points", table,
        "--out", field / "o.csv", "--model", model, capsys=capsys,
    )  # fmt: skip
    assert code == 2
    assert "points.csv line 3: (5, 5000) lies outside b.png of 280 x 300 pixels" in error


@pytest.mark.parametrize("arguments", [(), ("predict",), ("models",)])
def test_without_arguments_the_help_is_shown(arguments, capsys):
    """Only the help: no empty error after it."""
    code, text, error = run(*arguments, capsys=capsys)
    assert code == 2
    assert "Usage" in text + error
    assert "cellpath: " not in error


def test_show_refuses_a_damaged_model(model, tmp_path, capsys):
    """Facts are shown only of files that are what they say; long lists are counted."""
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    code, text, _ = run("models", "show", copy, capsys=capsys)
    assert code == 0
    assert "parameters" in text
    _, starter, _ = run("models", "show", "rbc-chula", capsys=capsys)
    (metrics,) = [line for line in starter.splitlines() if line.startswith("metrics")]
    assert "measures (the card, --json)" in metrics
    assert len(metrics) < 1500, "tables within tables are not for a line"
    weights = next(copy.glob("*.safetensors"))
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(bytes(damaged))
    code, text, error = run("models", "show", copy, capsys=capsys)
    assert code == 2
    assert weights.name in error
    assert text == ""


def test_cancelled_while_starting(monkeypatch, capsys):
    """Ctrl-C during the imports is a cancelled command, not a traceback."""

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_cellpath.cli._add_commands", interrupted)
    code, _, error = run("models", "list", capsys=capsys)
    assert code == 130
    assert error == "cellpath: cancelled.\n"


def test_what_was_done_to_an_image_is_said(field, model, capsys):
    """Only the first page of several is scored, and a line says so."""
    pages = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    tifffile.imwrite(field / "pages.tif", pages, photometric="rgb")
    (field / "p.csv").write_text("row,col\n30,30\n")
    code, _, error = run(
        "predict", "deeppap", field / "pages.tif", "--points", field / "p.csv",
        "--out", field / "o.csv", "--model", model, "--views", "fast", "--mpp", 0.201,
        capsys=capsys,
    )  # fmt: skip
    assert code == 0
    assert error == "pages.tif: The file holds 3 images; the first is read.\n"


@pytest.fixture
def dark_discs(tmp_path):
    """A pale image with two dark discs of 8 um at 0.2 um per pixel."""
    rows, cols = np.ogrid[:300, :400]
    image = np.full((300, 400, 3), (230, 215, 228), np.uint8)
    for row, col in ((100, 120), (190, 300)):
        image[(rows - row) ** 2 + (cols - col) ** 2 < 400] = (90, 70, 130)
    Image.fromarray(image).save(tmp_path / "discs.png")
    return tmp_path / "discs.png"


def test_find_nuclei_scores_what_it_finds_and_twice_the_same_bytes(dark_discs, model, capsys):
    """No points needed; a summary lies beside the table; two runs differ in no byte."""
    written = []
    for name in ("one", "two"):
        out = dark_discs.with_name(f"{name}.csv")
        code, text, error = run(
            "predict", "deeppap", dark_discs, "--find-nuclei", "--out", out, "--model", model,
            "--views", "fast", "--mpp", 0.2, capsys=capsys,
        )  # fmt: skip
        assert code == 0, error
        assert "2 cells" in text
        summary = dark_discs.with_name(f"{name}.summary.json")
        written.append((out.read_bytes(), summary.read_bytes()))
    assert written[0] == written[1]
    rows = read(dark_discs.with_name("one.csv"))
    assert [r["id"] for r in rows] == ["0", "1"]
    assert [round(float(r["row"]) / 10) for r in rows] == [10, 19]
    summary = json.loads(written[0][1])
    assert summary["cells"] == 2
    assert sum(summary["bands"].values()) == 2
    assert len(summary["most_abnormal"]) == 2


def test_find_nuclei_in_a_region(dark_discs, model, capsys):
    """Only what lies in ROW COL HEIGHT WIDTH; where nothing is found the table is empty."""
    out = dark_discs.with_name("out.csv")
    base = ["predict", "deeppap", dark_discs, "--find-nuclei", "--out", out, "--model", model,
            "--views", "fast", "--mpp", 0.2]  # fmt: skip
    code, text, _ = run(*base, "--region", 0, 0, 300, 200, capsys=capsys)
    assert code == 0
    assert "1 cell:" in text
    code, text, error = run(*base, "--region", 0, 0, 40, 40, capsys=capsys)
    assert code == 0
    assert "no nucleus was found" in error
    assert read(out) == []
    code, _, error = run(*base, "--region", 900, 0, 10, 10, capsys=capsys)
    assert code == 2
    assert "does not meet the image" in error


def test_two_images_of_one_name_are_refused(dark_discs, model, capsys):
    """Rows could not be told apart, found or given."""
    other = dark_discs.parent / "b" / dark_discs.name
    other.parent.mkdir()
    shutil.copy(dark_discs, other)
    out = dark_discs.with_name("out.csv")
    code, _, error = run(
        "predict", "deeppap", dark_discs, other, "--find-nuclei", "--out", out, "--model", model,
        capsys=capsys,
    )  # fmt: skip
    assert code == 2
    assert "Two of the images are called discs.png" in error
    assert not out.exists()


def test_points_or_find_nuclei_not_both_and_not_neither(field, model, capsys):
    """One of the two says where the nuclei are."""
    base = ["predict", "deeppap", field / "a.png", "--out", field / "o.csv", "--model", model]
    for more in ([], ["--points", field / "points.csv", "--find-nuclei"]):
        code, _, error = run(*base, *more, capsys=capsys)
        assert code == 2
        assert "--find-nuclei" in error
    code, _, error = run(
        *base, "--points", field / "points.csv", "--region", 0, 0, 5, 5, capsys=capsys
    )
    assert code == 2
    assert not (field / "o.csv").exists()


def test_a_summary_never_overwrites_an_input(dark_discs, model, capsys):
    """The sidecar's place is checked as the table's is."""
    points = dark_discs.with_name("o.summary.json")
    points.write_text("row,col\n100,120\n")
    code, _, error = run(
        "predict", "deeppap", dark_discs, "--points", points, "--out",
        dark_discs.with_name("o.csv"), "--model", model, capsys=capsys,
    )  # fmt: skip
    assert code == 2
    assert "input" in error
    assert points.read_text().startswith("row,col")


def test_reproduce_names_unknown_protocols(tmp_path, capsys):
    """One line, exit 2, nothing made."""
    code, _, error = run(
        "reproduce", "pap", "--data", tmp_path, "--out", tmp_path / "r", capsys=capsys
    )
    assert code == 2
    assert "herlev-jitter" in error
    assert not (tmp_path / "r").exists()


def test_calibrated_scores_have_a_column_of_their_own(field, model, tmp_path, capsys):
    """With a calibration in the model: beside the score, which is as before; without: no column."""
    from napari_cellpath.models import Calibration

    calibration = Calibration(temperature=2.0, bias=0.3, method="temperature+bias")
    other = write_random_model(tmp_path / "calibrated", calibration=calibration)
    raw, _ = predict(field, model, capsys)
    rows, _ = predict(field, str(other), capsys)
    assert list(rows[0])[4:8] == ["score", "std", "calibrated", "n_views"]
    assert "calibrated" not in raw[0]
    for row, before in zip(rows, raw, strict=True):
        assert (row["score"], row["label"]) == (before["score"], before["label"])
        assert float(row["calibrated"]) == calibration.apply(float(row["score"]))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--contrast", 3), "--nucleus-um and --contrast go with --find-nuclei"),
        (("--out", "no/such/x.csv"), "its folder does not exist; make no/such first."),
    ],
)
def test_predict_refuses_before_it_computes(field, model, capsys, monkeypatch, more, message):
    """What would be ignored, or could not be written, is said before a view is looked at."""
    monkeypatch.setattr("napari_cellpath.cli.predict.connect", lambda **_: pytest.fail("computed"))
    code, _, error = run(
        "predict", "deeppap", field / "a.png", "--points", field / "points.csv",
        "--out", field / "o.csv", "--model", model, *more, capsys=capsys,
    )  # fmt: skip
    assert code == 2
    assert message in error


def test_a_pixel_size_that_contradicts_the_file_is_said(field, model, capsys):
    """The user's is used, and the file's is named."""
    pixels = np.asarray(Image.open(field / "a.png"))
    per_cm = (1e4 / 0.2, 1e4 / 0.2)
    tifffile.imwrite(
        field / "a.tif", pixels, photometric="rgb", resolution=per_cm, resolutionunit=3
    )
    (field / "p.csv").write_text("row,col\n120,130\n")
    words = (
        "predict", "deeppap", field / "a.tif", "--points", field / "p.csv",
        "--out", field / "o.csv", "--model", model, "--views", "fast", "--mpp",
    )  # fmt: skip
    assert "pixel" not in run(*words, 0.201, capsys=capsys)[2]
    code, _, error = run(*words, 0.8, capsys=capsys)
    assert code == 0
    assert "a.tif itself says 0.2 um per pixel; --mpp 0.8 is used." in error


def test_predict_tells_what_makes_its_scores_doubtful(field, tmp_path, capsys):
    """An unknown pixel size and cells unlike the training's are said, not only flagged."""
    seen_sharp = {"domain": {"ranges": {"detail": [1e6, 2e6]}}}
    model = write_random_model(tmp_path / "sharp", input=seen_sharp)
    words = (
        "predict", "deeppap", field / "a.png", "--points", field / "points.csv",
        "--out", field / "out.csv", "--model", model, "--views", "fast",
    )  # fmt: skip
    (field / "points.csv").write_text("row,col\n120,130\n10,10\n")
    _, text, error = run(*words, capsys=capsys)
    assert "a.png does not say its pixel size; the model's 0.201 um was taken. Give --mpp." in error
    assert "2 unlike the cells the model was trained on (see flags)" in text
    _, text, error = run(*words, "--mpp", "0.201", capsys=capsys)
    assert "pixel size" not in error
    _, text, _ = run(*words, "--json", capsys=capsys)
    assert json.loads(text)["unlike"] == 2


def test_models_with_features_are_exported_whole(model, tmp_path, capsys):
    """Trunk features go with export and import, and `models verify` reads them."""
    from napari_cellpath.models import read_card, read_features, read_info, read_tensors, save_model
    from training.trunk_features import shipped_features

    features = np.random.default_rng(0).normal(size=(4, 2, 512)).astype(np.float32)
    shipped = shipped_features(features, [0, 1, 0, 1], [0, 1, 2, 3], list("abcd"))
    whole = tmp_path / "whole"
    save_model(whole, read_info(model), read_tensors(model), read_card(model), shipped)
    assert run("models", "export", whole, "--out", tmp_path / "copy", capsys=capsys)[0] == 0
    assert run("models", "verify", tmp_path / "copy", capsys=capsys)[0] == 0
    again = read_features(tmp_path / "copy")
    assert set(again) == {"features", "targets", "fine", "groups"}
    (tmp_path / "copy" / "features.safetensors").write_bytes(b"\0" * 100)
    code, text, _ = run("models", "verify", tmp_path / "copy", capsys=capsys)
    assert code == 2
    assert "DAMAGED" in text


def test_train_needs_a_recipe_or_a_parent(tmp_path, capsys):
    """Neither or both: one line, exit 2."""
    for more in ((), ("r.yaml", "--parent", "m", "--data", "p.cellpath"), ("--parent", "m")):
        code, _, error = run("train", "deeppap", *more, "--out", tmp_path / "o", capsys=capsys)
        assert code == 2
        assert "Give a recipe, or --parent with --data" in error
