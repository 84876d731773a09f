"""HEp-2 cells on a points layer: boxes, patterns, masks, and where cells come from."""

import numpy as np
import pytest
from napari.layers import Image, Labels, Points, Shapes

from napari_cellpath.bridge import held
from napari_cellpath.bridge.cell_sources import cells_of_layer, layers_with_cells, new_boxes
from napari_cellpath.bridge.cells import CellsLayer
from napari_cellpath.bridge.conventions import PENDING_COLOUR, facts_of
from napari_cellpath.bridge.kinds import CELLS, NUCLEI, create_layer, kind_of
from napari_cellpath.bridge.masks import Masks, create_masks_layer, with_cells
from napari_cellpath.bridge.recording import ObjectRecorder
from napari_cellpath.bridge.scheme import Scheme
from napari_cellpath.bridge.specimen import reading_of
from napari_cellpath.core.annotations import Shape
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.requests import CellBox
from napari_cellpath.core.results import FoundCell, PatternCall
from napari_cellpath.core.vocabulary import CLASS_COLOURS, PATTERNS, System
from napari_cellpath.project import Project
from napari_cellpath.project.images import add_image

SETTINGS = ("hep2-test@00000000", "none", "green")
SCHEME = Scheme(
    model="hep2-test", classes=PATTERNS, colours=CLASS_COLOURS[:6], abnormal=(False,) * 6,
    band=0.2, settings=SETTINGS,
)  # fmt: skip
BOXES = np.array([[10, 20, 30, 50], [60, 70, 90, 95], [100, 100, 140, 130]])


def call(uid: str, pattern: str, p: float = 0.7, **changes) -> PatternCall:
    rest = (1.0 - p) / 5
    values = {
        "uid": uid, "row": 0.0, "col": 0.0, "label": pattern, "n_views": 1,
        "probabilities": tuple(p if name == pattern else rest for name in PATTERNS),
        "model": "hep2-test@00000000",
    }  # fmt: skip
    return PatternCall(**(values | changes))


@pytest.fixture
def image():
    return Image(np.zeros((200, 300), np.uint8), name="field", scale=(0.3, 0.3))


@pytest.fixture
def cells(image):
    controller = CellsLayer(create_layer(CELLS, image), image, SCHEME)
    yield controller
    controller.close()


def frame(cells):
    return cells.layer.features


def test_boxes_stand_in_the_features_and_in_requests(cells):
    """A cell keeps its box; its point is the middle; the request names the same box."""
    uids = cells.add_boxes(BOXES, score=False)
    np.testing.assert_allclose(cells.layer.data[0], (19.5, 34.5))
    assert frame(cells).loc[0, ["row0", "col0", "row1", "col1"]].tolist() == [10, 20, 30, 50]
    assert cells.wanted(uids[:1]) == (CellBox(10, 20, 30, 50, uids[0]),)


def test_answer_fills_pattern_probabilities_and_margin(cells):
    """Pattern, probability, margin and each p_PATTERN are written by uid."""
    a, b, c = cells.add_boxes(BOXES, score=False)
    cells.layer.remove([0])
    cells.write([call(c, "Golgi", 0.6), call(a, "Speckled")], SETTINGS)
    row = frame(cells).iloc[1]
    assert (row["uid"], row["call"], row["n_views"]) == (c, "Golgi", 1)
    assert row["score"] == row["p_Golgi"] == pytest.approx(0.6)
    assert row["margin"] == pytest.approx(0.6 - 0.08)
    assert row["p_NuMem"] == pytest.approx(0.08)
    assert frame(cells)["call"][0] == ""
    assert b == frame(cells)["uid"][0]


def test_clicked_cell_inherits_nothing_and_gets_a_box(cells):
    """A click beside a classified, corrected cell is blank, with a square of the side set."""
    (uid,) = cells.add_boxes(BOXES[:1], score=False)
    cells.write([call(uid, "Golgi")], SETTINGS)
    cells.correct([uid], "NuMem")
    asked = []
    cells.scoring_requested.connect(asked.append)
    cells.table.side = 20
    cells.layer.selected_data = {0}
    cells.layer.add([100.0, 150.0])
    row = frame(cells).iloc[1]
    assert row["uid"] not in ("", uid)
    assert row["call"] == row["correction"] == row["model"] == ""
    assert np.isnan(row["p_Golgi"])
    assert row[["row0", "col0", "row1", "col1"]].tolist() == [90, 140, 110, 160]
    assert asked == [[row["uid"]]]


def test_dragged_cell_takes_its_box_along_and_is_stale(cells):
    """The box moves by whole pixels with the point; the old pattern is marked stale."""
    (uid,) = cells.add_boxes(BOXES[:1], score=False)
    cells.write([call(uid, "Golgi")], SETTINGS)
    data = np.array(cells.layer.data)
    data[0] += (5.4, -3.0)
    cells.layer.data = data
    assert cells.table.boxes[0].tolist() == [15, 17, 35, 47]
    assert frame(cells)["stale"][0]


def test_box_beyond_the_edge_is_asked_for_as_far_as_it_lies_on_the_image(cells):
    """A square round a point near the corner is clipped where it leaves the image."""
    cells.table.side = 30
    uids = cells.add(np.array([[3.0, 298.0]]), score=False)
    (box,) = cells.wanted(uids)
    assert (box.row0, box.col0, box.row1, box.col1) == (0, 284, 18, 300)


def test_answer_never_overwrites_a_correction_and_doubt_goes_by_margin(cells):
    """A person's word stays; a cell of small margin is a ring until somebody decides."""
    a, b, _ = cells.add_boxes(BOXES, score=False)
    cells.correct([a], "NuMem")
    cells.write([call(a, "Golgi"), call(b, "Golgi", 0.25)], SETTINGS)
    assert frame(cells)["correction"][0] == "NuMem"
    assert cells.doubtful().tolist() == [1]
    cells.correct([b], "Golgi")
    assert not len(cells.doubtful())
    assert cells.counts() == [0, 0, 0, 0, 1, 1]


def test_no_answer_is_an_answer(cells):
    """A blank cell is not asked for again, and counts as not assessable."""
    (uid,) = cells.add_boxes(BOXES[:1], score=False)
    blank = call(uid, "", probabilities=(), n_views=0, flags=("blank",))
    cells.write([blank], SETTINGS)
    assert cells.unscored() == []
    assert cells.table.unassessable.all()


def test_faces_show_the_pattern(cells):
    """Each point has its pattern's colour; without a pattern it is gray."""
    a, _, _ = cells.add_boxes(BOXES, score=False)
    cells.write([call(a, "Nucleolar")], SETTINGS)
    colours = [
        "#" + "".join(f"{round(255 * v):02x}" for v in c[:3]) for c in cells.layer.face_color
    ]
    assert colours[:2] == [CLASS_COLOURS[PATTERNS.index("Nucleolar")], PENDING_COLOUR]


def test_another_models_classes_get_columns_of_their_own(cells):
    """With another model the old probabilities stay, under their own names, and are stale."""
    (uid,) = cells.add_boxes(BOXES[:1], score=False)
    cells.write([call(uid, "Golgi")], SETTINGS)
    cells.read_with(Scheme("two", ("pos", "neg"), CLASS_COLOURS[:2], (False, False),
                           settings=("two",)))  # fmt: skip
    assert frame(cells)["stale"][0]
    assert frame(cells)["p_Golgi"][0] == pytest.approx(0.7)
    cells.write([PatternCall(uid, 0, 0, "neg", (0.1, 0.9), 1, "two@1")], ("two",))
    assert np.isnan(frame(cells)["p_Golgi"][0])
    assert frame(cells)["p_neg"][0] == pytest.approx(0.9)


def test_layer_is_taken_up_again_with_everything(cells, image):
    """A controller made anew on the same layer knows boxes, patterns and probabilities."""
    uids = cells.add_boxes(BOXES, score=False)
    cells.write([call(uids[1], "Golgi", 0.6)], SETTINGS)
    cells.close()
    again = held.take(cells.layer, image, SCHEME)
    assert isinstance(again.objects, CellsLayer)
    assert again.objects.table.boxes.tolist() == BOXES.tolist()
    assert again.objects.table.calls[uids[1]].probabilities[5] == pytest.approx(0.6)
    assert again.objects.table.margins[1] == pytest.approx(0.52)
    again.release()


def test_kinds_are_told_by_metadata(image):
    """Nuclei and cells are told apart by their facts, whatever they are called."""
    layer = create_layer(CELLS, image)
    layer.name = "nuclei"
    assert kind_of(layer) is CELLS
    assert kind_of(create_layer(NUCLEI, image)) is NUCLEI
    assert kind_of(Points(np.zeros((1, 2)))) is None


# Masks.


def found(row: int, col: int) -> FoundCell:
    mask = np.ones((4, 6), bool)
    mask[0, 0] = False
    return FoundCell(row + 1.5, col + 2.5, (row, col, row + 4, col + 6), mask)


def test_masks_are_coloured_by_what_a_cell_stands_for(cells, image):
    """Gray without a pattern, then the pattern's colour, then the correction's; gone: not seen."""
    uids = cells.add_boxes(BOXES, score=False)
    data = with_cells(None, (200, 300), [found(10, 20), found(60, 70), found(100, 100)], 1)
    layer = create_masks_layer(image, data, uids)
    assert layer.data.dtype == np.int32
    assert facts_of(layer)["uids"] == uids
    masks = Masks(layer)
    cells.write([call(uids[0], "Golgi"), call(uids[1], "Golgi")], SETTINGS)
    cells.correct([uids[1]], "NuMem")
    assert masks.recolour(cells.table)
    shown = [layer.colormap.map(i)[:3] for i in (1, 2, 3)]
    for colour, wanted in zip(shown, (CLASS_COLOURS[5], CLASS_COLOURS[4], PENDING_COLOUR),
                              strict=True):  # fmt: skip
        np.testing.assert_allclose(colour, [int(wanted[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    assert not masks.recolour(cells.table), "nothing changed: the table is not made again"
    cells.take_away([uids[0]])
    assert masks.recolour(cells.table)
    assert layer.colormap.map(1)[3] == 0


def test_masks_of_known_cells_stay_on_top():
    """A second search adds masks beside and below those that are there."""
    first = with_cells(None, (50, 50), [found(10, 10)], 1)
    both = with_cells(first, (50, 50), [found(12, 12), found(30, 30)], 2)
    assert both[12, 13] == 1
    assert both[15, 17] == 2
    assert both[31, 31] == 3
    assert first.max() == 1


# Sources.


def test_cells_of_labels_layer(image):
    """Every value is one cell, with its box, its name, and masks numbered from 1."""
    labels = np.zeros((200, 300), int)
    labels[10:30, 20:50] = 7
    labels[60:61, 70:71] = 900  # one pixel
    given = cells_of_layer(Labels(labels, scale=image.scale), image, 20)
    assert given.boxes.tolist() == [[10, 20, 30, 50], [60, 70, 61, 71]]
    assert given.names == ("7", "900")
    assert given.masks is not None
    assert (given.masks[20, 30], given.masks[60, 70], given.masks[0, 0]) == (1, 2, 0)


def test_cells_of_labels_at_another_scale_come_without_masks(image):
    """Labels of half the resolution give boxes in the image's pixels."""
    labels = np.zeros((100, 150), int)
    labels[5:15, 10:25] = 1
    layer = Labels(labels, scale=(0.6, 0.6), translate=(0.15, 0.15))
    given = cells_of_layer(layer, image, 20)
    assert given.boxes.tolist() == [[10, 20, 30, 50]]
    assert given.masks is None


def test_cells_of_rectangles_and_points(image):
    """Rectangles are boxes on pixel edges; points get squares; what is off the image is not."""
    corners = np.array([[9.5, 19.5], [9.5, 49.5], [29.5, 49.5], [29.5, 19.5]])
    shapes = Shapes([corners], shape_type="rectangle", scale=image.scale)
    assert cells_of_layer(shapes, image, 20).boxes.tolist() == [[10, 20, 30, 50]]
    points = Points([[100.0, 150.0], [-90.0, 4.0]], scale=image.scale)
    assert cells_of_layer(points, image, 20).boxes.tolist() == [[90, 140, 110, 160]]


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (Labels(np.zeros((200, 300), int), name="empty"), "'empty' marks no cells"),
        (Points(np.zeros((1, 3)), name="deep"), "'deep' is a stack"),
        (Points([[5000.0, 5.0]], name="far"), "Nothing that 'far' marks lies on 'field'"),
    ],
)
def test_layers_that_mark_nothing_are_refused(layer, sentence, image):
    """An empty mask, a stack, or cells off the image: one sentence that names the layer."""
    with pytest.raises(CellpathError, match=sentence):
        cells_of_layer(layer, image, 20)


def test_our_own_layers_are_no_sources(image):
    """The cells and masks layers do not offer themselves."""
    own = [
        create_layer(CELLS, image),
        create_masks_layer(image, np.zeros((200, 300), np.int32), []),
    ]
    theirs = Labels(np.zeros((5, 5), int))
    assert layers_with_cells([image, *own, theirs]) == [theirs]


def test_known_cells_are_not_taken_twice():
    """A box whose middle lies in a known one is that cell."""
    known = np.array([[10, 10, 30, 30]])
    boxes = np.array([[12, 12, 34, 34], [40, 40, 60, 60], [29, 10, 49, 30]])
    assert new_boxes(boxes, known).tolist() == [False, True, True]


# The project, and the specimen.


@pytest.fixture
def project(tmp_path):
    with Project.create(tmp_path / "cells") as project:
        add_image(project, "k", "field.png", (200, 300))
        yield project


def test_cells_are_boxes_in_the_project_and_come_back(cells, image, project):
    """Boxes, patterns and corrections are kept, undone, and put on a fresh layer again."""
    recorder = ObjectRecorder(cells, project, "k")
    uids = cells.add_boxes(BOXES, score=False)
    cells.write([call(uids[0], "Golgi", 0.6)], SETTINGS)
    cells.correct(uids[:2], "NuMem")
    first = next(project.annotations("k", System.HEP2))
    assert (first.shape, first.geometry, first.labels) == (Shape.BOX, (10, 20, 30, 50), ("NuMem",))
    assert first.prediction is not None
    assert dict(first.prediction.probabilities)["Golgi"] == pytest.approx(0.6)
    recorder.replay([project.undo().event])
    assert list(frame(cells)["correction"]) == ["", "", ""]
    recorder.replay([project.redo().event])
    recorder.close()
    other = CellsLayer(create_layer(CELLS, image), image, SCHEME)
    ObjectRecorder(other, project, "k").close()
    assert other.table.boxes.tolist() == BOXES.tolist()
    assert list(other.layer.features["correction"]) == ["NuMem", "NuMem", ""]
    assert other.layer.features["p_Golgi"][0] == pytest.approx(0.6)
    assert not other.layer.features["stale"].any()
    other.close()


def test_undone_move_brings_the_box_back(cells, project):
    """Moving is one gesture; taking it back restores the box and the validity of the pattern."""
    recorder = ObjectRecorder(cells, project, "k")
    uids = cells.add_boxes(BOXES, score=False)
    cells.write([call(uid, "Golgi") for uid in uids], SETTINGS)
    data = np.array(cells.layer.data)
    data[1] += (7, 7)
    cells.layer.data = data
    assert project.state.objects[uids[1]]["geometry"] == [67.0, 77.0, 97.0, 102.0]
    recorder.replay([project.undo().event])
    assert cells.table.boxes.tolist() == BOXES.tolist()
    assert not frame(cells)["stale"].any()


def test_nuclei_and_cells_of_one_image_do_not_mix(cells, image, project):
    """Each layer takes its own system's objects only."""
    recorder = ObjectRecorder(cells, project, "k")
    cells.add_boxes(BOXES, score=False)
    hold = held.take(create_layer(NUCLEI, image), image, Scheme())
    nuclei = ObjectRecorder(hold.objects, project, "k")
    assert len(hold.objects) == 0
    hold.objects.add(np.array([[5.0, 5.0]]), score=False)
    assert len(cells) == 3
    assert len(list(project.annotations("k", System.DEEPPAP))) == 1
    nuclei.close()
    recorder.close()
    hold.release()


def test_specimen_counts_corrections_and_leaves_stale_cells_out(cells):
    """A person's word goes before the model's; stale patterns do not count."""
    uids = cells.add_boxes(BOXES, score=False)
    cells.write([call(uid, "Golgi") for uid in uids], SETTINGS)
    cells.correct([uids[0]], "NuMem")
    reading = reading_of([cells], "positive")()
    assert reading["votes"]["Golgi"] == 2
    assert reading["votes"]["NuMem"] == 1
    assert reading["intensity"] == "positive"
    data = np.array(cells.layer.data)
    data[1] += 9
    cells.layer.data = data
    assert reading_of([cells])()["judged"] == 2
