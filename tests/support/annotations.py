"""Annotations of every kind, as hypothesis makes them up."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from napari_cellpath.core.annotations import Annotation, ImageFacts, Prediction, Shape
from napari_cellpath.core.vocabulary import System

HEIGHT, WIDTH = 300, 400
IMAGE = ImageFacts("key-a", "a.tif", "/slides/a.tif", HEIGHT, WIDTH, 0.25, "slide 1")
OTHER = ImageFacts("key-b", "b.tif", "/slides/b.tif", HEIGHT, WIDTH, 0.5, "slide 2")

words = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8)
lines = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8)
shares = st.floats(0, 1)
uids = st.one_of(st.text("0123456789abcdef", min_size=16, max_size=16), words)


def numbers(end: int, *, binary: bool = False) -> st.SearchStrategy[float]:
    """Coordinates from 0 to ``end``; with ``binary`` such as arithmetic with offsets keeps."""
    if binary:
        return st.integers(0, end * 64).map(lambda n: n / 64)
    return st.one_of(st.floats(0, end), st.integers(0, end))


@st.composite
def geometries(draw: st.DrawFn, shape: Shape, *, binary: bool = False) -> Any:
    """On the image, with area where the shape has one."""
    rows, cols = numbers(HEIGHT - 1, binary=binary), numbers(WIDTH - 1, binary=binary)
    if shape is Shape.POINT:
        return draw(rows), draw(cols)
    row, col = draw(rows), draw(cols)
    far_row = draw(st.floats(row + 0.5, HEIGHT)) if not binary else min(row + 8.25, HEIGHT)
    far_col = draw(st.floats(col + 0.5, WIDTH)) if not binary else min(col + 3.5, WIDTH)
    if shape is Shape.BOX:
        return row, col, far_row, far_col
    third = draw(st.floats(row, far_row))
    outline = [(row, col), (far_row, col), (third, far_col)]
    if draw(st.booleans()):
        return (((row, col), (row, far_col), (far_row, far_col), (far_row, col)),)
    holes = draw(st.lists(st.just(((row, col), (third, col), (row, far_col))), max_size=1))
    return tuple(outline), *holes


@st.composite
def predictions(draw: st.DrawFn, geometry: Any) -> Prediction:
    """With any of its fields, or next to none."""
    maybe = st.none() | shares
    names = draw(st.sampled_from([(), ("normal", "abnormal"), ("a", "b", "c")]))
    return Prediction(
        draw(st.sampled_from(["normal", "abnormal", "a: b", ""])),
        draw(maybe),
        draw(maybe),
        draw(st.integers(0, 1000)),
        tuple((name, draw(shares)) for name in names),
        draw(maybe),
        draw(st.sampled_from(["", "deeppap-herlev@1f0c92ab"])),
        draw(st.sampled_from(["fp32", "bf16"])),
        draw(st.sampled_from([(), ("crowded",), ("crowded", "out-of-focus")])),
        draw(st.sampled_from([(), geometry, (1.5, 2.25)])),
        draw(maybe),
    )


@st.composite
def annotations(
    draw: st.DrawFn,
    image: ImageFacts = IMAGE,
    shapes: tuple[Shape, ...] = tuple(Shape),
    *,
    binary: bool = False,
) -> Annotation:
    """Of any kind, on the image."""
    system = draw(st.sampled_from([System.DEEPPAP, System.RBC]))
    shape = draw(st.sampled_from(shapes))
    geometry = draw(geometries(shape, binary=binary))
    several = 3 if system is System.RBC else 1
    readers = draw(st.dictionaries(words, words, max_size=2))
    return Annotation(
        draw(uids), image.key, system, shape, geometry,
        tuple(draw(st.lists(words, max_size=several, unique=True))),
        complete=shape is Shape.BOX and draw(st.booleans()),
        id=draw(lines),
        seen=draw(st.booleans()),
        readings=tuple(readers.items()),
        author=draw(lines),
        at=draw(st.sampled_from(["", "2026-01-02T03:04:05Z"])),
        prediction=draw(st.none() | predictions(geometry)),
    )  # fmt: skip


def several(
    *of: st.SearchStrategy[Annotation], size: int = 5
) -> st.SearchStrategy[list[Annotation]]:
    """At least one, each with a uid of its own."""
    return st.lists(st.one_of(*of), min_size=1, max_size=size, unique_by=lambda a: a.uid)


def cells(count: int = 40) -> list[Annotation]:
    """A fixed set of points, boxes and outlines, some labelled, some called, some both."""
    made = []
    for n in range(count):
        row, col = 5.0 + 7 * (n // 10), 5.25 + 9 * (n % 10)
        shape = list(Shape)[n % 3]
        geometry: Any = (row, col)
        if shape is Shape.BOX:
            geometry = (row, col, row + 5, col + 6.5)
        elif shape is Shape.POLYGON:
            geometry = (((row, col), (row + 5, col), (row + 4, col + 6)),)
        made.append(
            Annotation(
                f"{n:016x}", IMAGE.key, System.DEEPPAP, shape, geometry,
                ("normal",) if n % 2 else (), id=f"cell {n}", seen=bool(n % 2),
                prediction=Prediction("abnormal", 0.75, 0.125, 100, at=geometry, model="m@1")
                if n % 4 < 3 else None,
            )
        )  # fmt: skip
    return made
