"""Regions of red cells: sets of types, verdicts that follow, detections, boxes to change."""

from dataclasses import replace

import numpy as np
import pytest
from napari.layers import Image, Points, Shapes

from napari_cellpath.bridge import held
from napari_cellpath.bridge.box_recording import corners_of
from napari_cellpath.bridge.bring import Bringer
from napari_cellpath.bridge.conventions import facts_of
from napari_cellpath.bridge.detections import Detections, overlapping
from napari_cellpath.bridge.edited import EditedBoxes, create_edited_layer
from napari_cellpath.bridge.kinds import RED_CELLS, create_layer, kind_of
from napari_cellpath.bridge.outlines import Outlines, create_outlines_layer
from napari_cellpath.bridge.recording import ObjectRecorder
from napari_cellpath.bridge.red_cells import RedCellsLayer, RegionScheme
from napari_cellpath.bridge.region_export import region_rows, summary_of
from napari_cellpath.bridge.regions import Area
from napari_cellpath.bridge.truth import Truth, by_own_word, compared, truth_of_layer
from napari_cellpath.core.annotations import Shape
from napari_cellpath.core.requests import CellBox
from napari_cellpath.core.results import FoundRegion, RegionCall
from napari_cellpath.core.vocabulary import (
    ABNORMAL,
    CLASS_COLOURS,
    NO_TYPE,
    NORMAL,
    RBC_TYPES,
    System,
)
from napari_cellpath.project import Project
from napari_cellpath.project.images import add_image
from napari_cellpath.systems.rbc.boxes import overlap, suppress
from napari_cellpath.systems.rbc.verdict import Verdict
from tests.support.models import small_booster

SETTINGS = ("rbc-test@00000000", "stretch")
VERDICT = Verdict(RBC_TYPES, np.array([False] + [True] * 5), np.full(6, 0.5), 0.5, small_booster())
SCHEME = RegionScheme(
    model="rbc-test", classes=RBC_TYPES, colours=CLASS_COLOURS[:6], abnormal=(False,) + (True,) * 5,
    band=0.1, settings=SETTINGS, thresholds=(0.5,) * 6, judge=VERDICT.probability_of_abnormal,
)  # fmt: skip
BOXES = np.array([[10, 20, 30, 50], [60, 70, 90, 95], [100, 100, 140, 130]])


def call(uid: str, *held: str, sure: float = 0.95) -> RegionCall:
    """What the tiny booster says of regions that hold these types."""
    p = tuple(sure if name in held else 1 - sure for name in RBC_TYPES)
    chance = float(VERDICT.probability_of_abnormal([p])[0])
    return RegionCall(
        uid=uid, row=0.0, col=0.0, labels=VERDICT.labels(p), probabilities=p,
        thresholds=(0.5,) * 6, abnormal=chance, abnormal_threshold=0.5,
        label=VERDICT.word(chance), model="rbc-test@00000000",
    )  # fmt: skip


@pytest.fixture
def image():
    return Image(np.zeros((200, 300, 3), np.uint8), name="smear", scale=(0.3, 0.3))


@pytest.fixture
def regions(image):
    controller = RedCellsLayer(create_layer(RED_CELLS, image), image, SCHEME)
    yield controller
    controller.close()


def frame(regions):
    return regions.layer.features


# Sets of types and the verdict.


def test_answer_is_a_set_of_types_with_a_verdict(regions):
    """Types, verdict, probability of abnormal and each p_TYPE are written by uid."""
    a, b, c = regions.add_boxes(BOXES, score=False)
    regions.layer.remove([0])
    regions.write([call(c, "Oval", "Stom"), call(a, "Elon"), call(b, "Oval")], SETTINGS)
    row = frame(regions).iloc[1]
    assert (row["uid"], row["call"], row["verdict"]) == (c, "Oval; Stom", ABNORMAL)
    assert row["score"] == row["abnormal"] == call(c, "Oval", "Stom").abnormal
    assert row["p_Stom"] == pytest.approx(0.95)
    assert frame(regions)["verdict"].tolist() == [NORMAL, ABNORMAL]
    assert regions.counts() == [2, 0, 0, 0, 0, 1]


def test_flip_keeps_the_call_and_recomputes_the_verdict_with_the_booster(regions):
    """A flipped type counts as certain, the others as the model gave them; the score stays."""
    (uid,) = regions.add_boxes(BOXES[:1], score=False)
    given = call(uid, "Oval", "Elon")
    regions.write([given], SETTINGS)
    regions.toggle([uid], "Elon")
    row = frame(regions).iloc[0]
    assert (row["call"], row["correction"]) == ("Oval; Elon", "Oval")
    assert row["score"] == given.abnormal
    _, expected = VERDICT.revised(given.probabilities, {"Elon": False})
    assert row["abnormal"] == expected < 0.5
    assert row["verdict"] == NORMAL
    regions.toggle([uid], "Stom")
    assert frame(regions)["correction"][0] == "Oval; Stom"
    assert frame(regions)["verdict"][0] == ABNORMAL
    regions.correct_each({uid: ""})
    assert frame(regions)["verdict"][0] == ABNORMAL
    assert frame(regions)["abnormal"][0] == given.abnormal


def test_no_type_at_all_is_a_word_of_its_own(regions):
    """The last type flipped away leaves "none", not silence; a type put back replaces it."""
    (uid,) = regions.add_boxes(BOXES[:1], score=False)
    regions.write([call(uid, "Elon")], SETTINGS)
    regions.toggle([uid], "Elon")
    assert frame(regions)["correction"][0] == NO_TYPE
    assert frame(regions)["verdict"][0] == NORMAL
    assert regions.types_of(uid) == ()
    regions.toggle([uid], "Oval")
    assert frame(regions)["correction"][0] == "Oval"


def test_toggling_several_makes_them_agree_before_it_takes_away(regions):
    """Of two regions of which one holds the type, both hold it; then none does."""
    a, b, _ = regions.add_boxes(BOXES, score=False)
    regions.write([call(a, "Oval", "Elon"), call(b, "Oval")], SETTINGS)
    told = []
    regions.happened.connect(lambda gesture, uids: told.append(uids))
    regions.toggle([a, b], "Elon")
    assert frame(regions)["correction"].tolist()[:2] == ["Oval; Elon", "Oval; Elon"]
    regions.toggle([a, b], "Elon")
    assert frame(regions)["correction"].tolist()[:2] == ["Oval", "Oval"]
    assert told == [[a, b], [a, b]], "each is one gesture, to be undone at once"


def test_without_a_call_the_verdict_follows_from_the_types(regions):
    """A region that only a person labelled is abnormal if one of its types is."""
    a, b, _ = regions.add_boxes(BOXES, score=False)
    regions.toggle([a], "Oval")
    regions.toggle([b], "Gran")
    assert frame(regions)["verdict"].tolist() == [NORMAL, ABNORMAL, ""]


def test_doubt_is_reckoned_from_each_types_own_threshold(regions):
    """A type that is certainly absent is no doubt, however low its threshold."""
    (a, b, c) = regions.add_boxes(BOXES, score=False)
    low = (0.05,) * 6
    clear = replace(call(a, "Oval"), probabilities=(0.99, *[0.001] * 5), thresholds=low)
    near = replace(clear, uid=b, probabilities=(0.99, 0.045, *[0.001] * 4))
    above = replace(clear, uid=c, probabilities=(0.99, 0.2, *[0.001] * 4))
    regions.write([clear, near, above], SETTINGS)
    assert regions.doubtful().tolist() == [1, 2]
    assert near.margin == pytest.approx(0.05)
    assert above.margin == pytest.approx(0.5 * 0.15 / 0.95)
    assert replace(clear, probabilities=(), abnormal=float("nan")).margin != clear.margin


def test_answer_never_overwrites_a_correction(regions):
    """A person's word stays whatever comes back; doubt is over once somebody decided."""
    a, b, _ = regions.add_boxes(BOXES, score=False)
    regions.toggle([a], "Stom")
    regions.write([call(u, "Oval", sure=0.55) for u in (a, b)], SETTINGS)
    assert frame(regions)["correction"].tolist() == ["Stom", "", ""]
    assert regions.doubtful().tolist() == [1]


def test_accepting_is_one_gesture_and_takes_no_types_for_a_word(regions):
    """What was called nothing is accepted as "none"; what was not assessed is left alone."""
    a, b, c = regions.add_boxes(BOXES, score=False)
    blank = RegionCall(c, 0.0, 0.0, (), (), (0.5,) * 6, float("nan"), 0.5, "",
                       "rbc-test@00000000", flags=("blank",))  # fmt: skip
    regions.write([call(a, "Oval", "Elon"), call(b), blank], SETTINGS)
    assert regions.accept([a, b, c]) == 2
    assert frame(regions)["correction"].tolist() == ["Oval; Elon", NO_TYPE, ""]


def test_drawn_region_inherits_nothing(regions):
    """A box added beside a labelled one is blank."""
    (uid,) = regions.add_boxes(BOXES[:1], score=False)
    regions.write([call(uid, "Elon")], SETTINGS)
    regions.toggle([uid], "Stom")
    asked = []
    regions.scoring_requested.connect(asked.append)
    (new,) = regions.add_boxes(BOXES[1:2])
    row = frame(regions).iloc[1]
    assert row["call"] == row["correction"] == row["verdict"] == row["model"] == ""
    assert np.isnan(row["abnormal"])
    assert np.isnan(row["p_Elon"])
    assert asked == [[new]]


def test_a_thousand_and_one_are_read_as_one_is(regions):
    """Many rows go another way through the table and come to the same."""
    corners = np.random.default_rng(0).integers(0, 150, (1001, 2))
    uids = regions.add_boxes(np.hstack([corners, corners + 20]), score=False)
    sets = [("Oval",), ("Elon", "Stom"), ()]
    regions.write([call(u, *sets[i % 3]) for i, u in enumerate(uids)], SETTINGS)
    before = frame(regions)[["call", "verdict", "abnormal", "stale"]].copy()
    regions.read_with(SCHEME)
    after = frame(regions)[["call", "verdict", "abnormal", "stale"]]
    assert after.equals(before)
    assert after["verdict"].tolist()[:3] == [NORMAL, ABNORMAL, NORMAL]


# Boxes.


def test_reshaped_box_is_stale_and_asked_for_again(regions):
    """A box whose middle stays where it was is another box all the same."""
    a, b, _ = regions.add_boxes(BOXES, score=False)
    regions.write([call(a, "Oval"), call(b, "Oval")], SETTINGS)
    asked, told = [], []
    regions.scoring_requested.connect(asked.append)
    regions.happened.connect(lambda gesture, uids: told.append((str(gesture), uids)))
    regions.reshape({a: (5, 15, 35, 55)})
    assert regions.table.boxes.tolist() == [[5, 15, 35, 55], *BOXES[1:].tolist()]
    assert frame(regions)["stale"].tolist() == [True, False, False]
    assert (asked, told) == ([[a]], [("moved", [a])])
    regions.reshape({b: (0, 0, 10, 12)})
    np.testing.assert_allclose(regions.layer.data[1], (4.5, 5.5))
    assert regions.wanted([b]) == (CellBox(0, 0, 10, 12, b),)


@pytest.fixture
def edited(regions, image):
    boxes = EditedBoxes(create_edited_layer(image), regions)
    yield boxes
    boxes.close()


def test_selected_boxes_are_rectangles_with_their_features(edited, regions):
    """The rectangles carry uid, types, verdict and probabilities, in the verdict's colour."""
    a, b, c = regions.add_boxes(BOXES, score=False)
    regions.write([call(a, "Oval"), call(c, "Elon", "Stom")], SETTINGS)
    edited.show([c, a])
    features = edited.layer.features
    assert features["uid"].tolist() == [c, a]
    assert features["labels"].tolist() == ["Elon, Stom", "Oval"]
    assert features["verdict"].tolist() == [ABNORMAL, NORMAL]
    assert features["p_Stom"][0] == pytest.approx(0.95)
    np.testing.assert_allclose(edited.layer.data[0], corners_of(BOXES[2]))
    assert not np.array_equal(edited.layer.edge_color[0], edited.layer.edge_color[1])
    regions.toggle([a], "Gran")
    assert edited.layer.features["labels"].tolist()[1] == "Oval, Gran"
    assert edited.layer.features["said"][1].startswith(ABNORMAL)
    regions.toggle([c], "Gran")
    lines = edited.layer.features["said"][0].splitlines()[1:]
    assert [line.count(", ") for line in lines] == [1, 0], "two types a line"
    assert kind_of(edited.layer) is None, "only the points are the objects"
    assert b not in edited.uids


def test_rectangle_drawn_becomes_a_region_of_its_own(edited, regions):
    """It has a fresh uid and inherits nothing, though napari copies the last one's features."""
    (a,) = regions.add_boxes(BOXES[:1], score=False)
    regions.write([call(a, "Elon")], SETTINGS)
    regions.toggle([a], "Stom")
    edited.show([a])
    drawn, asked = [], []
    edited.drawn.connect(drawn.append)
    regions.scoring_requested.connect(asked.append)
    edited.layer.add_rectangles(np.array([[80.2, 90.1], [80.2, 120.4], [110.6, 120.4],
                                          [110.6, 90.1]]))  # fmt: skip
    ((new,),) = drawn
    assert asked == [[new]]
    assert new != a
    assert regions.table.boxes[1].tolist() == [81, 91, 111, 121]
    assert frame(regions)["correction"].tolist() == ["Elon; Stom", ""]
    edited.show([new])
    assert edited.layer.features["said"].tolist() == ["…"]


@pytest.mark.parametrize(
    ("corners", "box"),
    [
        ([[50, 60], [50, 61], [51, 61], [51, 60]], None),  # a click
        ([[-60, -60], [-60, -20], [-20, -20], [-20, -60]], None),  # off the image
        ([[150, 250], [150, 400], [260, 400], [260, 250]], [150, 250, 200, 300]),  # half off
        ([[120, 140], [120, 100], [90, 100], [90, 140]], [90, 100, 120, 140]),  # drawn backwards
    ],
)
def test_odd_rectangles_are_refused_in_words_or_cut_to_the_image(edited, regions, corners, box):
    """No area and outside are refused; what leaves the image is cut; inverted is turned round."""
    refused, doubted = [], []
    edited.refused.connect(refused.append)
    edited.doubted.connect(lambda: doubted.append(True))
    edited.layer.add_rectangles(np.array(corners, dtype=float) - 0.5)
    if box is None:
        assert len(regions) == 0
        assert len(refused) == 1
    else:
        assert regions.table.boxes.tolist() == [box]
        assert not refused
    assert doubted
    edited.show([])
    assert edited.layer.nshapes == 0, "what is no region does not stay"


def test_dragged_and_deleted_rectangles_change_their_regions(edited, regions):
    """The region keeps its uid; deleting the rectangle deletes it."""
    a, b, _ = regions.add_boxes(BOXES, score=False)
    edited.show([a, b])
    data = [np.array(d) for d in edited.layer.data]
    data[1] += (3.0, -7.0)
    edited.layer.data = data
    assert regions.table.boxes[1].tolist() == [63, 63, 93, 88]
    edited.show([a, b])
    edited.layer.selected_data = {0}
    edited.layer.remove_selected()
    assert frame(regions)["uid"].tolist()[0] == b
    assert edited.uids == [b]


def test_outlines_of_none_one_and_many(image):
    """A frame is eight corners inside its box, half a pixel before its first pixel's centre."""
    layer = create_outlines_layer(image)
    outlines = Outlines(layer)
    red = np.array([[1.0, 0.0, 0.0, 1.0]])
    assert outlines.show(BOXES[:1], red, np.array([False]))
    vertices, faces, _ = layer.data
    assert vertices[:4].tolist() == [[9.5, 19.5], [9.5, 49.5], [29.5, 49.5], [29.5, 19.5]]
    assert len(faces) == 8
    assert (layer.vertex_colors == red).all()
    assert not outlines.show(BOXES[:1], red, np.array([False]))
    assert outlines.show(BOXES, np.tile(red, (3, 1)), np.array([True, False, False]))
    assert len(layer.data[0]) == 24
    assert outlines.show(BOXES[:0], red[:0], np.zeros(0, bool))
    assert (layer.vertex_colors[:, 3] == 0).all()
    assert facts_of(layer)["role"] == "field-regions"


# Detections.


def random_boxes(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    corners, sides = rng.integers(0, 260, (count, 2)), rng.integers(8, 60, (count, 2))
    scores = rng.choice(np.linspace(0.05, 1, 40), count)
    return np.hstack([corners, corners + sides]), scores


def found_of(boxes, scores) -> list[FoundRegion]:
    return [FoundRegion(tuple(b), float(s)) for b, s in zip(boxes.tolist(), scores, strict=True)]


def test_sliders_decide_as_the_command_line_does():
    """At every setting the same candidates stay as `suppress` keeps among those of that score."""
    boxes, scores = random_boxes(300)
    known = Detections()
    known.take(found_of(boxes, scores), None)
    for score in (0.05, 0.3, 0.71, 0.99):
        for most in (0.0, 0.2, 0.5, 0.8, 1.0):
            strong = np.flatnonzero(scores >= score)
            kept = strong[suppress(boxes[strong], scores[strong], most)]
            assert np.flatnonzero(known.accepted(score, most)).tolist() == sorted(kept.tolist())


def test_neighbours_are_all_that_meet():
    """Every pair that overlaps is found, with the ratio of the definition."""
    boxes, _ = random_boxes(80)
    others, _ = random_boxes(60, seed=1)
    left, right, ratio = overlapping(boxes, others)
    table = np.zeros((80, 60))
    table[left, right] = ratio
    np.testing.assert_allclose(table, overlap(boxes[:, None], others[None]))


def test_detecting_again_keeps_uids_and_replaces_only_the_area():
    """The same box is the same region; what lies outside the area looked at stays."""
    known = Detections()
    known.take(found_of(BOXES, [0.9, 0.8, 0.7]), None)
    first = list(known.uids)
    known.take(found_of(BOXES[:1], [0.9]), Area((0, 0, 50, 300)))
    assert sorted(known.uids) == sorted(first)
    known.take([], Area((50, 50, 60, 80)))
    assert known.uids == [first[2], first[0]] or set(known.uids) == {first[0], first[2]}
    known.take([], None)
    assert len(known) == 0
    assert known.accepted(0.5, 0.5).shape == (0,)


@pytest.fixture
def bringer(regions):
    made = Bringer(regions)
    made.detections.take(found_of(BOXES, [0.9, 0.6, 0.3]), None)
    yield made
    made.close()


def test_regions_come_and_go_with_the_score_and_keep_their_answers(bringer, regions):
    """What comes back has its uid and its answer, and nobody is asked again."""
    assert len(bringer.bring(0.5, 0.5)) == 2
    regions.write([call(u, "Elon") for u in regions.table.uids], SETTINGS)
    before = frame(regions)[["uid", "call", "abnormal", "detection"]].copy()
    assert bringer.bring(0.8, 0.5) == []
    assert len(regions) == 1
    hidden, coming = bringer.preview(0.5, 0.5)
    assert hidden.tolist() == [False]
    assert coming.tolist() == [BOXES[1].tolist()]
    (back,) = bringer.bring(0.5, 0.5)
    after = frame(regions)[["uid", "call", "abnormal", "detection"]]
    assert after.equals(before)
    assert back == before["uid"][1]
    assert regions.unscored() == []
    assert before["detection"].tolist() == [0.9, 0.6]


def test_what_a_person_touched_stays_and_what_was_deleted_stays_away(bringer, regions):
    """A labelled and a moved region survive any slider; a deleted one does not return."""
    bringer.bring(0.05, 0.5)
    a, b, c = regions.table.uids.tolist()
    regions.toggle([a], "Oval")
    regions.reshape({b: (61, 71, 91, 96)})
    regions.remove([c])
    bringer.bring(0.99, 0.5)
    assert regions.table.uids.tolist() == [a, b]
    bringer.bring(0.05, 0.5)
    assert regions.table.uids.tolist() == [a, b], "the moved one is not doubled, c stays away"


def test_detection_of_a_region_that_was_drawn_is_not_doubled(bringer, regions):
    """The box of a person goes before the detector's."""
    regions.add_boxes(BOXES[:1] + np.array([1, 0, 0, -1]), score=False)
    assert len(bringer.bring(0.05, 0.5)) == 2
    assert len(regions) == 3


# Truth.


def test_truth_in_the_papers_colours():
    """Right with all types, wrong with others or without a true box, missed without a region."""
    truth = Truth(np.vstack([BOXES, [[150, 10, 180, 40]]]), ("Elon; Oval", "Oval", "", "Stom"))
    boxes = np.vstack([BOXES + 1, BOXES[:1] + 3, [[150, 200, 180, 230]]])
    calls = np.array(["Oval; Elon", "Stom", "Gran", "Oval; Elon", "Oval"], dtype=object)
    judged = compared(boxes, calls, np.array([0.9, 0.8, 0.7, 0.99, np.nan]), truth)
    assert judged.right.tolist() == [False, False, True, True, False], "the stronger double is it"
    assert judged.wrong.tolist() == [True, True, False, False, True]
    assert judged.missed.tolist() == [False, False, False, True]
    assert judged.sentence() == "2 right, 3 wrong, 1 missed"


def test_own_word_as_truth():
    """Calls beside one's own labels; what was drawn by hand was missed by the detector."""
    calls = np.array(["Oval", "Elon", "", "Oval"], dtype=object)
    words = np.array(["Oval", "Oval", NO_TYPE, ""], dtype=object)
    judged = by_own_word(calls, words, np.array([True, True, True, True]))
    assert judged.right.tolist() == [True, False, True, False]
    assert judged.wrong.tolist() == [False, True, False, False]
    assert by_own_word(calls, words, np.zeros(4, bool)).missed.tolist() == [True, True, True, False]


def test_truth_of_a_shapes_layer_takes_its_labels(image):
    """Rectangles with a feature ``labels``; without one only places are known."""
    layer = Shapes([corners_of(b) for b in BOXES], shape_type="rectangle", scale=(0.3, 0.3),
                   features={"labels": ["Stom; Oval", "", "Elon"]})  # fmt: skip
    truth = truth_of_layer(layer, image)
    assert truth.boxes.tolist() == BOXES.tolist()
    assert truth.labels == ("Oval; Stom", "", "Elon")


# Kept, and given out.


@pytest.fixture
def project(tmp_path, image):
    with Project.create(tmp_path / "smears") as project:
        add_image(project, "smear-key", "smear.tif", (200, 300), path="", mpp=None)
        yield project


def test_regions_are_kept_with_all_their_labels_and_undone(project, regions, image):
    """Boxes, several labels and the prediction lie in the journal and come back from it."""
    recorder = ObjectRecorder(regions, project, "smear-key")
    a, b, _ = regions.add_boxes(BOXES, score=False)
    regions.write([call(a, "Oval", "Elon")], SETTINGS)
    regions.toggle([a], "Stom")
    regions.toggle([b], "Oval")
    regions.toggle([b], "Oval")
    kept = {x.uid: x for x in project.annotations(system=System.RBC)}
    assert kept[a].shape is Shape.BOX
    assert kept[a].geometry == (10.0, 20.0, 30.0, 50.0)
    assert kept[a].labels == ("Oval", "Elon", "Stom")
    assert kept[b].labels == (NO_TYPE,)
    assert kept[a].prediction.label == "Oval: Elon"
    assert dict(kept[a].prediction.probabilities)["Elon"] == pytest.approx(0.95)
    other = RedCellsLayer(create_layer(RED_CELLS, image), image, SCHEME)
    again = ObjectRecorder(other, project, "smear-key")
    for column in ("uid", "call", "correction", "verdict", "abnormal", "row0", "p_Elon"):
        assert frame(other)[column].equals(frame(regions)[column]), column
    again.close()
    other.close()
    for words in (["Oval; Elon; Stom", "Oval", ""], ["Oval; Elon; Stom", "", ""], ["", "", ""]):
        recorder.replay([project.undo().event])
        assert frame(regions)["correction"].tolist() == words
    recorder.replay([project.undo().event])
    assert len(regions) == 0
    recorder.close()


def test_rows_name_what_the_command_names(regions):
    """The call stands as the model gave it; a person's word and the verdict beside it."""
    a, b, _ = regions.add_boxes(BOXES, score=False)
    regions.note_detections({a: 0.75})
    regions.write([call(a, "Oval", "Elon")], SETTINGS)
    regions.toggle([a], "Elon")
    first, second, _ = region_rows(regions, "smear.tif")
    assert (first["image"], first["id"], first["row0"], first["col1"]) == ("smear.tif", "0", 10, 50)
    assert first["labels"] == ("Oval", "Elon")
    assert first["call"] == ABNORMAL
    assert (first["correction"], first["verdict"]) == ("Oval", NORMAL)
    assert first["detection"] == 0.75
    assert "detection" not in second
    assert "labels" not in second
    assert b


def test_summary_counts_regions_by_a_persons_word_first(regions):
    """A flipped region counts as it was flipped; one without an answer does not count."""
    a, b, _ = regions.add_boxes(BOXES, score=False)
    regions.write([call(a, "Oval", "Elon"), call(b, "Oval")], SETTINGS)
    regions.toggle([b], "Stom")
    summary = summary_of(regions, "smear.tif")()
    assert (summary["regions"], summary["judged"]) == (3, 2)
    assert {n: t["regions"] for n, t in summary["types"].items()} == {
        "Oval": 2, "Elon": 1, "Reti": 0, "Gran": 0, "Echi": 0, "Stom": 1,
    }  # fmt: skip
    assert summary["abnormal"]["regions"] == 2


def test_layer_opened_again_has_its_facts(regions, image):
    """A saved layer keeps boxes, types and verdicts; its controller is found by its kind."""
    a, _, _ = regions.add_boxes(BOXES, score=False)
    regions.write([call(a, "Oval", "Elon")], SETTINGS)
    regions.toggle([a], "Stom")
    data, attributes, _ = regions.layer.as_layer_data_tuple()
    regions.close()
    copy = Points(data, **attributes)
    assert kind_of(copy) is RED_CELLS
    hold = held.take(copy, image, SCHEME)
    table = hold.objects.table
    assert table.features["correction"][0] == "Oval; Elon; Stom"
    assert table.features["verdict"][0] == ABNORMAL
    assert table.calls[a].labels == ("Oval", "Elon")
    hold.release()
