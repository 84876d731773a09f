"""Real data on this machine, public files by hash, sample commands."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from napari.layers import Image as ImageLayer
from napari.layers import Labels, Points
from PIL import Image

from napari_cellpath.core.errors import MissingFileError, TableError, UnreadableImageError
from napari_cellpath.core.geometry import centroids
from napari_cellpath.samples import contributions, data_folder, herlev, public
from napari_cellpath.samples.public import HERLEV_CELLS, SMALL_SLIDE, PublicFile


@pytest.fixture
def real_data() -> Path:
    """The folder of real images."""
    folder = data_folder()
    if folder is None or not (folder / "herlev" / "labels.csv").is_file():
        pytest.skip("needs herlev/labels.csv in the folder that CELLPATH_DATA names")
    return folder


def test_the_variable_decides_where_data_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set, it is used; set wrongly, that is an error and not a silent fallback."""
    monkeypatch.setenv("CELLPATH_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    monkeypatch.setenv("CELLPATH_DATA", str(tmp_path / "gone"))
    with pytest.raises(MissingFileError, match="CELLPATH_DATA names"):
        data_folder()


def test_herlev_centres_are_points_of_the_nuclei(real_data: Path) -> None:
    """The table's half-pixel is taken off: centres equal the masks' centroids as points."""
    cells = herlev(real_data)
    assert cells == herlev(real_data / "herlev")
    assert {cell.class_id for cell in cells} == set(range(1, 8))
    assert all(cell.abnormal == (cell.class_id >= 4) for cell in cells)
    offsets = []
    for cell in cells[::24]:
        assert cell.image.name.startswith(cell.slide_group)
        assert cell.mask is not None
        nucleus = np.asarray(Image.open(cell.mask)) == 2
        ((row, col),) = centroids(nucleus)
        offsets.append((cell.row - row, cell.col - col))
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.1
    assert np.abs(offsets).max() < 0.5


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg,x,1,0,g,nan,3", "line 2: the nucleus centre is not finite"),
        ("a.jpg,x,9,0,g,2,3", "line 2: class_id is 9"),
        ("a.jpg,x,1,0,g,2", "line 2: "),
        ("a.jpg,x,1,0,g,2,y", "line 2: could not convert"),
    ],
)
def test_a_damaged_table_is_told_by_line(tmp_path: Path, line: str, message: str) -> None:
    """Training on a shifted column would be worse than not training."""
    header = "file,class_name,class_id,abnormal,slide_group,nucleus_x,nucleus_y"
    (tmp_path / "labels.csv").write_text(f"{header}\n{line}\n")
    with pytest.raises(TableError, match=message):
        herlev(tmp_path)
    with pytest.raises(MissingFileError, match=r"labels\.csv does not exist"):
        herlev(tmp_path / "none")


def test_public_cells_agree_with_the_table(real_data: Path) -> None:
    """What the code states of each public cell is what labels.csv and the bytes say."""
    known = {cell.image.name: cell for cell in herlev(real_data)}
    assert [cell.class_id for cell in HERLEV_CELLS] == [1, 2, 3, 4, 5, 6, 7]
    assert len({cell.slide_group for cell in HERLEV_CELLS}) == 7
    for cell in HERLEV_CELLS:
        table = known[cell.file.name]
        ours = cell.at(table.image)
        assert (ours.class_name, ours.slide_group) == (table.class_name, table.slide_group)
        assert (ours.row, ours.col) == pytest.approx((table.row, table.col))
        data = table.image.read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (cell.file.size, cell.file.sha256)
        assert public.get(cell.file) == table.image


CONTENT = b"some bytes"
FILE = PublicFile(
    "x.jpg", "https://example.org/x.jpg", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT),
    "herlev/x.jpg", "none",
)  # fmt: skip


@pytest.fixture
def no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder, so that everything has to be downloaded."""
    (tmp_path / "data" / "herlev").mkdir(parents=True)
    monkeypatch.setenv("CELLPATH_DATA", str(tmp_path / "data"))
    return tmp_path


def test_a_download_is_kept_and_not_repeated(no_data: Path) -> None:
    """The second call needs no network."""
    asked: list[tuple[str, int]] = []

    def fetch(url: str, limit: int) -> bytes:
        asked.append((url, limit))
        return CONTENT

    for _ in range(2):
        path = public.get(FILE, cache=no_data / "cache", fetch=fetch)
        assert path.read_bytes() == CONTENT
    assert asked == [(FILE.url, len(CONTENT))]


def test_a_local_copy_comes_first_if_it_is_the_right_one(no_data: Path) -> None:
    """A changed local file is not used, and not touched."""
    local = no_data / "data" / "herlev" / "x.jpg"
    local.write_bytes(CONTENT)
    assert public.get(FILE, cache=no_data / "cache", fetch=None) == local
    local.write_bytes(b"SOME bytes")
    got = public.get(FILE, cache=no_data / "cache", fetch=lambda *_: CONTENT)
    assert got.parent == no_data / "cache"
    assert local.read_bytes() == b"SOME bytes"


def test_one_wrong_byte_is_refused_and_nothing_kept(no_data: Path) -> None:
    """A hash that differs leaves the cache as it was."""
    with pytest.raises(UnreadableImageError, match="SHA-256 differs"):
        public.get(FILE, cache=no_data / "cache", fetch=lambda *_: b"some bytez")
    assert [p for p in (no_data / "cache").rglob("*") if p.is_file()] == []


def test_offline_the_message_says_how_to_get_it(no_data: Path) -> None:
    """What is missing, its address, and where to put it."""

    def offline(*_: object) -> bytes:
        raise OSError("network is unreachable")

    with pytest.raises(MissingFileError) as caught:
        public.get(FILE, cache=no_data / "cache", fetch=offline)
    for part in ("x.jpg", "unreachable", FILE.url, "CELLPATH_DATA", "herlev/x.jpg"):
        assert part in str(caught.value)
    plain = PublicFile("x", "http://example.org/x", "0" * 64, 1, "x", "none")
    with pytest.raises(MissingFileError, match="not HTTPS"):
        public.get(plain, cache=no_data / "cache")


def test_downloads_are_capped_and_stay_encrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    """More bytes than the file has, or a redirect to HTTP, end the download."""

    class Answer:
        url = FILE.url

        def __enter__(self) -> Answer:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def geturl(self) -> str:
            return self.url

        def read(self, size: int) -> bytes:
            return bytes(size)

    monkeypatch.setattr(public.urllib.request, "urlopen", lambda *_, **__: Answer())
    with pytest.raises(OSError, match="more than the expected 10 bytes"):
        public._fetch(FILE.url, 10)
    monkeypatch.setattr(Answer, "url", "http://example.org/x.jpg")
    with pytest.raises(OSError, match="not HTTPS"):
        public._fetch(FILE.url, 10)


def test_every_public_file_is_pinned() -> None:
    """HTTPS, a full hash, a size, a fixed commit where it is a repository."""
    for file in (SMALL_SLIDE, *(cell.file for cell in HERLEV_CELLS)):
        assert file.url.startswith("https://")
        assert len(bytes.fromhex(file.sha256)) == 32
        assert 0 < file.size < 4 << 20
        if "githubusercontent" in file.url:
            assert len(file.url.split("/")[5]) == 40


def test_the_generated_sample_opens_as_layers() -> None:
    """Image in micrometres; the masks lie over it, hidden."""
    (image, image_options, _), (labels, label_options, _) = contributions.cytology_field_layers()
    layer, masks = ImageLayer(image, **image_options), Labels(labels, **label_options)
    np.testing.assert_allclose(layer.extent.world, masks.extent.world)
    assert str(layer.units[0]) == "micrometer"
    assert not masks.visible


def test_the_real_samples_open_as_layers(real_data: Path) -> None:
    """Cells with their labels, of both kinds; the small slide with its pixel size."""
    (image, image_options, _), (points, point_options, _) = contributions.herlev_cells_layers()
    layer, classes = ImageLayer(image, **image_options), Points(points, **point_options)
    assert set(classes.features["abnormal"]) == {True, False}
    assert layer.metadata["napari-cellpath"]["mpp"] == 0.201
    assert (points >= 0).all()
    assert (points < image.shape[:2]).all()
    if (real_data / SMALL_SLIDE.local).is_file():
        ((_, options, kind),) = contributions.small_slide_layers()
        assert (kind, options["scale"]) == ("image", (0.499, 0.499))
