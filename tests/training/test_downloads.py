"""Downloads of Herlev and GlaS become the layouts that recipes and protocols read."""

import numpy as np
import pytest
from PIL import Image

from napari_cellpath.core.errors import (
    MissingFileError,
    OutputError,
    TableError,
    UnreadableImageError,
)
from training.cells import Cells
from training.datasets import read_cells
from training.deeppap_recipe import Data
from training.downloads import (
    CLASS_FOLDERS,
    CYTOPLASM,
    NUCLEUS,
    main,
    prepare_glas,
    prepare_herlev,
)
from training.hspnet.data import read_regions
from training.hspnet.recipe import HspData


@pytest.fixture
def download(tmp_path):
    """Two cells of every class as the download has them; the nucleus is rows 20 to 29."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(CLASS_FOLDERS):
        (tmp_path / name).mkdir()
        for slide in (100 + number, 200):
            stem = f"{slide}-{slide + 7}-00{number}"
            image = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / name / f"{stem}.BMP")
            drawn = np.full((60, 80, 3), (128, 0, 0), np.uint8)
            drawn[10:50, 10:70] = CYTOPLASM
            drawn[20:30, 30:44] = NUCLEUS
            Image.fromarray(drawn).save(tmp_path / name / f"{stem}-d.bmp")
    return tmp_path


def test_it_is_read_as_the_layout(download):
    """Class by folder, slide by name, the nucleus' middle as a point, parts as masks."""
    assert prepare_herlev(download) == 14
    data = read_cells(Data(layout="herlev", folder=str(download)))
    assert len(data.records) == 14
    assert data.labels.tolist() == sorted([0, 1, 2, 3, 4, 5, 6] * 2)
    assert data.abnormal.tolist() == [False] * 6 + [True] * 8
    assert set(data.groups) == {"200", *(str(100 + n) for n in range(7))}
    assert {(r.row, r.col) for r in data.records} == {(24.5, 36.5)}
    mask = np.asarray(Image.open(data.records[0].mask))
    assert [(mask == part).sum() for part in (1, 2)] == [40 * 60 - 140, 140]
    cells = Cells.load(data, 2)
    assert cells.has_masks
    assert cells.features.shape == (14, 0)


def test_what_is_wrong_is_named_and_nothing_is_listed(download, capsys):
    """A part that is missing or shows nothing; a folder that is none; a table that is there."""
    with pytest.raises(MissingFileError, match="New database pictures"):
        prepare_herlev(download / CLASS_FOLDERS[0])
    drawn = sorted((download / CLASS_FOLDERS[3]).glob("*-d.bmp"))[0]
    Image.new("RGB", (80, 60), (128, 0, 0)).save(drawn)
    with pytest.raises(UnreadableImageError, match=f"{drawn.name} shows no nucleus"):
        prepare_herlev(download)
    Image.new("RGB", (8, 6), NUCLEUS).save(drawn)
    with pytest.raises(UnreadableImageError, match="6 x 8 pixels"):
        prepare_herlev(download)
    drawn.unlink()
    assert main(["herlev", str(download)]) == 2
    assert f"{drawn.name} is missing" in capsys.readouterr().err
    assert not (download / "labels.csv").exists()
    assert not (download / "masks").exists()
    with pytest.raises(MissingFileError, match=r"python -m training\.downloads herlev"):
        read_cells(Data(layout="herlev", folder=str(download)))
    (download / "labels.csv").write_text("")
    with pytest.raises(OutputError, match="already"):
        prepare_herlev(download)


def test_glands_get_the_grade_of_their_image(tmp_path):
    """Blanks in the table and numbers of glands as the download has them."""
    lines = ["name, patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"]
    glands = np.zeros((300, 280), np.uint8)
    glands[10:60, 10:90], glands[100:200, 50:250] = 1, 2
    for name, patient, grade in (("train_1", 5, "benign"), ("testA_1", 2, "malignant")):
        lines.append(f"{name}, {patient}, {grade}, x")
        Image.new("RGB", (280, 300), (200, 90, 160)).save(tmp_path / f"{name}.bmp")
        Image.fromarray(glands).save(tmp_path / f"{name}_anno.bmp")
    (tmp_path / "Grade.csv").write_text("\n".join(lines) + "\n")
    assert main(["glas", str(tmp_path)]) == 0
    data = read_regions(HspData(layout="glas", folder=str(tmp_path)))
    assert data.groups == ["5", "2"]
    for record, number in zip(data.records, (1, 2), strict=True):
        mask = np.asarray(Image.open(record.mask))
        assert (mask == number).sum() == 50 * 80 + 100 * 200
        assert set(np.unique(mask)) == {0, number}
    (tmp_path / "labels.csv").unlink()
    (tmp_path / "Grade.csv").write_text(lines[0] + "\ntrain_1, 5, odd, x\n")
    with pytest.raises(TableError, match="line 2: the grade 'odd'"):
        prepare_glas(tmp_path)
    (tmp_path / "Grade.csv").write_text("who, what\ntrain_1, 5\n")
    with pytest.raises(TableError, match="no column 'name'"):
        prepare_glas(tmp_path)
    (tmp_path / "Grade.csv").unlink()
    with pytest.raises(MissingFileError, match=r"Grade\.csv"):
        prepare_glas(tmp_path)
