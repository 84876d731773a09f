"""Damaged and hostile files: our errors only, quickly, without allocating what they claim."""

from __future__ import annotations

import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_cellpath.core.errors import CellpathError, ImageTooLargeError, UnreadableImageError
from napari_cellpath.slides import open_slide
from tests.slides.conftest import picture


def _tiff(tags: list[tuple[int, int, int, int]], tail: bytes = b"", following: int = 0) -> bytes:
    """A TIFF with one directory at byte 8, entries (tag, type, count, value)."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", len(tags)) + entries + struct.pack(
        "<I", following
    ) + tail  # fmt: skip


def _claiming(height: int, width: int, tile: tuple[int, int] | None) -> bytes:
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 8),
            (262, 3, 1, 1), (277, 3, 1, 1)]  # fmt: skip
    if tile:
        tags += [(322, 4, 1, tile[1]), (323, 4, 1, tile[0]), (324, 4, 1, 200), (325, 4, 1, 9000)]
    else:
        tags += [(273, 4, 1, 200), (278, 4, 1, height), (279, 4, 1, 9000)]
    return _tiff(tags, bytes(12_000))


def _png_bomb() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(4_000_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def _refused(path: Path, kind: type[CellpathError], limit_s: float) -> str:
    """Open a file that must be refused; its message, after checking time and memory."""
    # Once for the imports that only the first file pays.
    with pytest.raises(kind):
        open_slide(path)
    tracemalloc.start()
    took = []
    try:
        for _ in range(3):  # the best of three: other programs run here too
            start = time.perf_counter()
            with pytest.raises(kind) as caught:
                open_slide(path)
            took.append(time.perf_counter() - start)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20
    assert min(took) <= limit_s
    assert path.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("strip.tif", _claiming(60_000, 60_000, None)),
        ("tile.tif", _claiming(60_000, 60_000, (60_000, 60_000))),
        ("bomb.png", _png_bomb()),
    ],
)
def test_size_claims_are_refused_before_anything_is_allocated(
    tmp_path: Path, name: str, data: bytes
) -> None:
    """12 KiB that claim 60,000 x 60,000 pixels cost a tenth of a second, not 10 GB."""
    (tmp_path / name).write_bytes(data)
    message = _refused(tmp_path / name, ImageTooLargeError, 0.1)
    assert "60000 x 60000 pixels" in message
    assert "budget is 2.1 GB" in message


def test_the_budget_is_the_caller_s(tmp_path: Path) -> None:
    """A small budget refuses a small image; a sufficient one opens it."""
    Image.fromarray(picture(100, 100)).save(tmp_path / "x.png")
    with pytest.raises(ImageTooLargeError):
        open_slide(tmp_path / "x.png", memory_budget_bytes=29_999)
    open_slide(tmp_path / "x.png", memory_budget_bytes=30_000).close()


def test_directories_that_loop_are_refused(tmp_path: Path) -> None:
    """A directory that follows itself, at once and after one step."""
    whole = _claiming(10, 10, None)
    entries = struct.unpack("<H", whole[8:10])[0]
    at = 10 + 12 * entries
    (tmp_path / "self.tif").write_bytes(whole[:at] + struct.pack("<I", 8) + whole[at + 4 :])
    assert "directory loops" in _refused(tmp_path / "self.tif", UnreadableImageError, 1.0)


def test_a_million_directories_are_refused(tmp_path: Path) -> None:
    """Counting stops long before the end."""
    count = 1_000_000
    start = np.arange(count, dtype=np.uint32) * 18 + 8
    record = np.zeros(count, [("n", "<u2"), ("tag", "<u2"), ("type", "<u2"), ("count", "<u4"),
                              ("value", "<u4"), ("next", "<u4")])  # fmt: skip
    record["n"], record["tag"], record["type"], record["count"] = 1, 256, 4, 1
    record["next"][:-1] = start[1:]
    (tmp_path / "many.tif").write_bytes(b"II*\x00\x08\x00\x00\x00" + record.tobytes())
    assert "4096 directories" in _refused(tmp_path / "many.tif", UnreadableImageError, 1.0)


@pytest.mark.parametrize("tile", [(0, 16), (16, 0)])
def test_tiles_without_size_are_refused(tmp_path: Path, tile: tuple[int, int]) -> None:
    """Division by a tile size of 0 is the reader's problem, not the user's."""
    (tmp_path / "zero.tif").write_bytes(_claiming(64, 64, tile))
    message = _refused(tmp_path / "zero.tif", UnreadableImageError, 1.0)
    assert "damaged structure" in message


@pytest.mark.parametrize("codec", ["jpeg", "jpeg2000"])
def test_a_tile_that_claims_more_than_its_size_is_refused(tmp_path: Path, codec: str) -> None:
    """Codecs believe the stream: a 32-pixel tile may hold one of 30,000 x 30,000."""
    path = tmp_path / "t.tif"
    tifffile.imwrite(path, picture(1024, 1024), photometric="rgb", tile=(32, 32), compression=codec)
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[0].dataoffsets[0], tif.pages[0].databytecounts[0]
    data = bytearray(path.read_bytes())
    if codec == "jpeg":
        at = data.index(b"\xff\xc0", offset, offset + count) + 5
        data[at : at + 4] = struct.pack(">HH", 30_000, 30_000)
    else:
        at = data.index(b"\xff\x4f\xff\x51", offset, offset + count) + 8
        data[at : at + 8] = struct.pack(">II", 30_000, 30_000)
    path.write_bytes(data)
    with open_slide(path) as slide, pytest.raises(UnreadableImageError, match="900000000 pixels"):
        slide.read_region(0, 0, 8, 8)


def test_truncation_names_the_byte(tmp_path: Path) -> None:
    """A tiled file that was cut off is found when it is opened, not when somebody pans there."""
    tifffile.imwrite(tmp_path / "t.tif", picture(600, 600), photometric="rgb", tile=(64, 64))
    data = (tmp_path / "t.tif").read_bytes()
    (tmp_path / "t.tif").write_bytes(data[:500_000])
    assert "truncated at byte 500000" in _refused(tmp_path / "t.tif", UnreadableImageError, 1.0)


def _seeds(folder: Path) -> dict[str, bytes]:
    """One small file of every kind that is read by other code."""
    rgb = picture(96, 128)
    deep = rgb.astype(np.uint16) * 16
    writers: dict[str, Callable[[Path], object]] = {
        "rgb.png": lambda p: Image.fromarray(rgb).save(p),
        "palette.png": lambda p: Image.fromarray(rgb).quantize(16).save(p),
        "deep.png": lambda p: p.write_bytes(imagecodecs.png_encode(deep)),
        "rgb.jpg": lambda p: Image.fromarray(rgb).save(p),
        "progressive.jpg": lambda p: Image.fromarray(rgb).save(p, progressive=True),
        "rgb.bmp": lambda p: Image.fromarray(rgb).save(p),
        "strips.tif": lambda p: tifffile.imwrite(p, rgb, photometric="rgb"),
        "zlib.tif": lambda p: tifffile.imwrite(p, rgb, photometric="rgb", compression="zlib"),
        "lzw.tif": lambda p: tifffile.imwrite(p, rgb, photometric="rgb", compression="lzw"),
        "deep.tif": lambda p: tifffile.imwrite(p, deep[..., 0], tile=(32, 32)),
        "float.tif": lambda p: tifffile.imwrite(p, rgb[..., 0] / np.float32(255)),
        "jpeg.tif": lambda p: tifffile.imwrite(
            p, rgb, photometric="rgb", tile=(32, 32), compression="jpeg"
        ),
        "j2k.tif": lambda p: tifffile.imwrite(
            p, rgb, photometric="rgb", tile=(32, 32), compression="jpeg2000"
        ),
        "ome.tif": lambda p: tifffile.imwrite(p, rgb, photometric="rgb", ome=True, tile=(32, 32)),
    }
    files = {}
    for name, write in writers.items():
        write(folder / name)
        files[name] = (folder / name).read_bytes()
    pyramid = folder / "pyramid.tif"
    with tifffile.TiffWriter(pyramid) as writer:
        options = {"photometric": "rgb", "tile": (32, 32), "compression": "zlib"}
        writer.write(rgb, subifds=1, **options)
        writer.write(rgb[::2, ::2], subfiletype=1, **options)
    return files | {"pyramid.tif": pyramid.read_bytes()}


def _mutations(seed: int, files: dict[str, bytes], count: int) -> Iterator[tuple[str, bytes]]:
    """Flipped bits, random and extreme bytes, cuts, copies and gaps, mostly near the header."""
    rng = np.random.default_rng(seed)
    names = sorted(files)
    extremes = [b"\x00", b"\xff", b"\x7f", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x80"]
    for number in range(count):
        name = names[number % len(names)]
        data = bytearray(files[name])
        for _ in range(int(rng.integers(1, 6))):
            reach = len(data) if rng.random() < 0.4 else min(len(data), 512)
            # TIFF directories may stand at the end as well as at the start.
            at = int(rng.integers(0, max(reach, 1)))
            if rng.random() < 0.3:
                at = max(len(data) - 1 - at, 0)
            kind = rng.integers(6)
            if kind == 0 and at < len(data):
                data[at] ^= 1 << int(rng.integers(8))
            elif kind == 1:
                piece = extremes[rng.integers(len(extremes))]
                data[at : at + len(piece)] = piece
            elif kind == 2:
                data[at : at + 4] = rng.bytes(4)
            elif kind == 3:
                del data[at : at + int(rng.integers(1, 64))]
            elif kind == 4:
                data[at:at] = data[at : at + int(rng.integers(1, 64))]
            elif rng.random() < 0.3:
                del data[max(at, 1) :]
        yield name, bytes(data)


def _fuzz(folder: Path, seed: int, count: int) -> tuple[int, float, list[str]]:
    """Files refused, slowest seconds, and whatever escaped that is not ours."""
    files = _seeds(folder)
    refused, slowest, escaped = 0, 0.0, []
    for number, (name, data) in enumerate(_mutations(seed, files, count)):
        path = folder / f"mutated-{name}"
        path.write_bytes(data)
        start = time.perf_counter()
        try:
            with open_slide(path, memory_budget_bytes=64 << 20) as slide:
                for level in range(len(slide.levels)):
                    size = slide.levels[level]
                    slide.read_region(0, 0, min(size.height, 256), min(size.width, 256), level)
        except CellpathError as error:
            refused += 1
            if path.name not in str(error):
                escaped.append(f"{number} {name}: no file name in {error}")
        except Exception as error:
            escaped.append(f"{number} {name}: {type(error).__name__} {error}")
        slowest = max(slowest, time.perf_counter() - start)
    return refused, slowest, escaped


@pytest.mark.filterwarnings("ignore")
def test_mutated_files_raise_only_our_errors(tmp_path: Path) -> None:
    """450 damaged images of fifteen kinds: an image or a CellpathError naming it, within 10 s."""
    refused, slowest, escaped = _fuzz(tmp_path, seed=20, count=450)
    assert escaped == []
    assert slowest < 10
    assert refused > 100  # else the mutations would be too tame to test anything


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_thousands_of_mutated_files(tmp_path: Path, seed: int) -> None:
    """1,500 more for each seed."""
    refused, slowest, escaped = _fuzz(tmp_path, seed, count=1500)
    print(f"seed {seed}: {refused} of 1500 refused, slowest {slowest:.2f} s")
    assert escaped == []
    assert slowest < 10
