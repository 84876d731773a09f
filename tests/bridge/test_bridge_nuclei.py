"""The controller of a nuclei layer against everything napari and its users do to points."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from napari.layers import Image, Points
from napari.utils.notifications import notification_manager

from napari_cellpath.bridge import timing
from napari_cellpath.bridge.appearance import RING, score_colours, symbols
from napari_cellpath.bridge.conventions import PENDING_COLOUR, create_nuclei_layer, facts_of
from napari_cellpath.bridge.followed import Gesture
from napari_cellpath.bridge.nuclei import NucleiLayer
from napari_cellpath.bridge.scheme import Scheme
from napari_cellpath.core.results import NucleusCall
from napari_cellpath.widgets import wording

SETTINGS = ("deeppap-test", "balanced", "zero", 0, None)
SCHEME = Scheme(
    model="deeppap-test",
    classes=("normal", "abnormal"),
    colours=("#0072b2", "#d55e00"),
    abnormal=(False, True),
    threshold=0.5,
    band=0.1,
    settings=SETTINGS,
)


def call(uid: str, score: float, **changes: object) -> NucleusCall:
    values: dict = {
        "uid": uid, "row": 0.0, "col": 0.0, "score": score, "std": 0.05, "n_views": 100,
        "label": "abnormal" if score > 0.5 else "normal", "probabilities": (1 - score, score),
        "threshold": 0.5, "model": "deeppap-test@00000000",
    }  # fmt: skip
    return NucleusCall(**(values | changes))


class Heard:
    """Everything a nuclei layer said."""

    def __init__(self, nuclei: NucleiLayer) -> None:
        self.asked: list[list[str]] = []
        self.gone: list[list[str]] = []
        self.notices: list[str] = []
        nuclei.scoring_requested.connect(self.asked.append)
        nuclei.answer_unwanted.connect(self.gone.append)
        nuclei.notice.connect(self.notices.append)


@pytest.fixture
def image() -> Image:
    return Image(np.zeros((200, 300, 3), dtype=np.uint8), name="field", scale=(0.5, 0.5))


@pytest.fixture
def nuclei(image: Image):
    controller = NucleiLayer(create_nuclei_layer(image), image, SCHEME)
    yield controller
    controller.close()


@pytest.fixture
def heard(nuclei: NucleiLayer) -> Heard:
    return Heard(nuclei)


def scored(nuclei: NucleiLayer, *scores: float) -> list[str]:
    uids = nuclei.add(np.array([[10.0 * (i + 1), 20.0] for i in range(len(scores))]))
    nuclei.write([call(u, s) for u, s in zip(uids, scores, strict=True)], SETTINGS)
    return uids


def features(nuclei: NucleiLayer) -> pd.DataFrame:
    return nuclei.layer.features


def test_layer_lies_over_its_image(nuclei, image):
    """A point's data coordinates are the image's pixels, whatever the image's scale."""
    np.testing.assert_allclose(nuclei.layer.scale, image.scale)
    assert nuclei.layer.data_to_world((10, 20)) == image.data_to_world((10, 20))
    assert facts_of(nuclei.layer)["role"] == "nuclei"


def test_layer_follows_image(nuclei, image):
    """When the image is moved or rescaled, its nuclei move with it."""
    image.scale, image.translate = (2.0, 2.0), (5.0, 7.0)
    assert nuclei.layer.data_to_world((10, 20)) == image.data_to_world((10, 20))


def test_new_point_inherits_no_diagnosis(nuclei, heard):
    """A click beside a scored, corrected and selected nucleus starts blank, with its own uid."""
    (first,) = scored(nuclei, 0.9)
    nuclei.correct([first], "normal")
    nuclei.layer.selected_data = {0}
    nuclei.layer.add([50, 60])
    row = features(nuclei).iloc[1]
    assert row["uid"] not in ("", first)
    assert row["call"] == row["correction"] == row["model"] == ""
    assert np.isnan(row["score"])
    assert row["n_views"] == 0
    assert heard.asked[-1] == [row["uid"]]


def test_new_point_looks_pending(nuclei):
    """A new point is a gray disc with a plain border from the start, whatever was selected."""
    (first,) = scored(nuclei, 0.52)
    nuclei.correct([first], "abnormal")
    nuclei.layer.selected_data = {0}
    nuclei.layer.add([50, 60])
    gray = int(PENDING_COLOUR[1:3], 16) / 255
    np.testing.assert_allclose(nuclei.layer.face_color[1][:3], gray)
    assert str(nuclei.layer.symbol[1]) == "disc"
    assert not np.array_equal(nuclei.layer.border_color[0], nuclei.layer.border_color[1])


def test_answers_find_their_nucleus_after_rows_shift(nuclei):
    """An answer is written to the nucleus that asked, though rows before it were deleted."""
    a, b, c = nuclei.add(np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]))
    nuclei.layer.remove([0])
    nuclei.write([call(c, 0.8), call(a, 0.1)], SETTINGS)
    frame = features(nuclei)
    assert list(frame["uid"]) == [b, c]
    assert np.isnan(frame["score"][0])
    assert frame["score"][1] == 0.8
    assert frame["call"][1] == "abnormal"


def test_answer_never_overwrites_correction(nuclei):
    """A later answer changes the call and leaves the person's word alone."""
    (uid,) = scored(nuclei, 0.9)
    nuclei.correct([uid], "normal")
    nuclei.write([call(uid, 0.95)], SETTINGS)
    assert features(nuclei)["correction"][0] == "normal"
    assert features(nuclei)["call"][0] == "abnormal"


def test_drag_rescans_and_keeps_correction(nuclei, heard):
    """A moved nucleus is stale until answered, keeps uid and correction, and is asked for."""
    (uid,) = scored(nuclei, 0.9)
    nuclei.correct([uid], "normal")
    layer = nuclei.layer
    layer.selected_data = {0}
    layer.events.data(value=layer.data, action="changing", data_indices=(0,), vertex_indices=((),))
    layer.data[0] += 3
    layer.events.data(value=layer.data, action="changed", data_indices=(0,), vertex_indices=((),))
    assert heard.asked[-1] == [uid]
    assert features(nuclei)["stale"][0]
    assert features(nuclei)["correction"][0] == "normal"
    assert nuclei.nuclei([uid])[0].row == 13.0
    nuclei.write([call(uid, 0.2)], SETTINGS)
    assert not features(nuclei)["stale"][0]


def test_delete_all_forgets_all(nuclei, heard):
    """Selecting everything and deleting it leaves nothing behind, and later answers do nothing."""
    uids = scored(nuclei, 0.1, 0.5, 0.9)
    nuclei.layer.selected_data = {0, 1, 2}
    nuclei.layer.remove_selected()
    assert sorted(heard.gone[-1]) == sorted(uids)
    assert len(nuclei) == len(features(nuclei)) == 0
    nuclei.write([call(uids[0], 0.4)], SETTINGS)
    nuclei.layer.add([5, 5])
    assert np.isnan(features(nuclei)["score"][0])


def test_data_setter_to_empty(nuclei, heard):
    """Setting no points at all forgets every nucleus, and points set later are new ones."""
    uids = scored(nuclei, 0.1, 0.9)
    nuclei.layer.data = np.zeros((0, 2))
    assert heard.gone == [uids]
    nuclei.layer.data = np.array([[10.0, 20.0], [20.0, 20.0]])
    assert set(features(nuclei)["uid"]).isdisjoint([*uids, ""])
    assert features(nuclei)["score"].isna().all()


def test_data_setter_that_drops_a_middle_row(nuclei, heard):
    """``layer.data = np.delete(...)`` keeps each nucleus' facts though napari shifts the rows."""
    a, b, c = scored(nuclei, 0.1, 0.2, 0.9)
    nuclei.correct([c], "abnormal")
    nuclei.layer.data = np.delete(nuclei.layer.data, 0, axis=0)
    assert list(features(nuclei)["uid"]) == [b, c]
    assert list(features(nuclei)["score"]) == [0.2, 0.9]
    assert list(features(nuclei)["correction"]) == ["", "abnormal"]
    assert heard.gone == [[a]]


def test_data_setter_that_shuffles(nuclei, heard):
    """Reordered points keep their own facts, and nothing is scored again."""
    a, b, c = scored(nuclei, 0.1, 0.2, 0.9)
    heard.asked.clear()
    nuclei.layer.data = nuclei.layer.data[[2, 0, 1]]
    assert list(features(nuclei)["uid"]) == [c, a, b]
    assert list(features(nuclei)["score"]) == [0.9, 0.1, 0.2]
    assert heard.asked == []


def test_data_setter_that_moves_and_adds(nuclei, heard):
    """All points shifted are moves; a longer array adds nuclei and blanks their rows."""
    uids = scored(nuclei, 0.1, 0.9)
    nuclei.layer.data = nuclei.layer.data + 1.0
    assert heard.asked[-1] == uids
    assert features(nuclei)["stale"].all()
    nuclei.layer.data = np.vstack([nuclei.layer.data, [[70.0, 70.0]]])
    assert list(features(nuclei)["uid"][:2]) == uids
    assert heard.asked[-1] == [features(nuclei)["uid"][2]]
    assert np.isnan(features(nuclei)["score"][2])


def test_pasted_points_are_new_nuclei(nuclei, heard):
    """Copy and paste gives a nucleus of its own to be scored, not a second one of that uid."""
    (uid,) = scored(nuclei, 0.9)
    nuclei.correct([uid], "abnormal")
    nuclei.layer.selected_data = {0}
    nuclei.layer._copy_data()
    nuclei.layer._paste_data()
    frame = features(nuclei)
    assert len(frame) == len(nuclei) == 2
    assert len(set(frame["uid"])) == 2
    assert frame["uid"][0] == uid
    assert frame["correction"][1] == ""
    assert np.isnan(frame["score"][1])
    assert heard.asked[-1] == [frame["uid"][1]]


def test_duplicated_layer_gets_its_own_uids(nuclei, image):
    """A duplicated layer keeps calls and corrections under new uids: answers never cross over."""
    uids = scored(nuclei, 0.1, 0.9)
    nuclei.correct(uids[:1], "abnormal")
    copy = Points(nuclei.layer.data, features=nuclei.layer.features.copy(), scale=(0.5, 0.5))
    twin = NucleiLayer(copy, image, SCHEME, taken=uids)
    assert set(twin.table.uids).isdisjoint(uids)
    assert list(copy.features["score"]) == [0.1, 0.9]
    assert copy.features["correction"][0] == "abnormal"
    twin.close()


def test_replaced_features_are_restored(nuclei):
    """A plugin that replaces the feature table adds its columns and takes away none of ours."""
    uids = scored(nuclei, 0.1, 0.9)
    nuclei.layer.features = {"area": np.array([7.0, 8.0])}
    frame = features(nuclei)
    assert list(frame["area"]) == [7.0, 8.0]
    assert list(frame["uid"]) == uids
    assert list(frame["score"]) == [0.1, 0.9]
    nuclei.write([call(uids[1], 0.7)], SETTINGS)
    assert frame["score"][1] == 0.7


def test_correction_from_a_script_is_taken(nuclei):
    """A correction that arrives with a replaced table is the user's own word."""
    scored(nuclei, 0.1, 0.9)
    frame = nuclei.layer.features.copy()
    frame["correction"] = ["abnormal", ""]
    nuclei.layer.features = frame
    assert nuclei.counts() == [0, 2]


def test_outside_is_marked_not_scored(nuclei, heard):
    """A click beside the image is refused in words, is not scored, and counts once dragged in."""
    nuclei.layer.add([500, 10])
    assert heard.asked == []
    assert "outside 'field' (200 x 300 pixels)" in heard.notices[0]
    assert nuclei.unscored() == []
    nuclei.layer.data = np.array([[100.0, 10.0]])
    assert len(heard.asked) == 1


def test_threshold_moves_calls_without_scoring(nuclei, heard):
    """Another threshold changes calls and counts at once and asks for nothing."""
    scored(nuclei, 0.3, 0.45, 0.9)
    heard.asked.clear()
    assert nuclei.counts() == [2, 1]
    from dataclasses import replace

    nuclei.read_with(replace(SCHEME, threshold=0.4))
    assert nuclei.counts() == [1, 2]
    assert list(features(nuclei)["call"]) == ["normal", "abnormal", "abnormal"]
    assert heard.asked == []


def test_doubtful_is_a_ring_until_decided(nuclei):
    """In the review band a nucleus is hollow; a decision fills it and colours the border."""
    (uid,) = scored(nuclei, 0.55)
    assert nuclei.layer.symbol[0] == symbols()[RING]
    nuclei.correct([uid], "abnormal")
    assert str(nuclei.layer.symbol[0]) == "disc"
    np.testing.assert_allclose(
        nuclei.layer.border_color[0][:3], [0xD5 / 255, 0x5E / 255, 0], atol=1e-6
    )


def test_other_settings_make_calls_stale_and_back(nuclei):
    """Calls of another model are stale, keep their label, and are fresh when it returns."""
    from dataclasses import replace

    uids = scored(nuclei, 0.3, 0.9)
    nuclei.read_with(replace(SCHEME, model="other", settings=("other",), threshold=0.2))
    assert nuclei.stale() == uids
    assert list(features(nuclei)["call"]) == ["normal", "abnormal"]
    nuclei.read_with(SCHEME)
    assert nuclei.stale() == []


def test_correction_of_another_model_still_shows(nuclei):
    """A correction to a class that the current model lacks keeps a border of its own."""
    from dataclasses import replace

    uids = scored(nuclei, 0.9, 0.9)
    nuclei.correct(uids[:1], "abnormal")
    nuclei.read_with(replace(SCHEME, classes=("a", "b", "c"), colours=("#000000",) * 3,
                             abnormal=(False, True, True), model="x", settings=("x",)))  # fmt: skip
    np.testing.assert_allclose(nuclei.layer.border_color[0], 1.0)
    assert nuclei.layer.border_width[0] > nuclei.layer.border_width[1]


def test_accept_takes_each_call(nuclei):
    """Accepting several nuclei writes each one's own call as its correction."""
    uids = scored(nuclei, 0.1, 0.9)
    assert nuclei.accept(uids) == 2
    assert list(features(nuclei)["correction"]) == ["normal", "abnormal"]


def test_users_own_colouring_is_kept(nuclei):
    """A layer the user coloured by a feature keeps that colouring when answers arrive."""
    uids = scored(nuclei, 0.1, 0.9)
    nuclei.layer.face_color = "n_views"
    before = nuclei.layer.face_color.copy()
    nuclei.write([call(uids[0], 0.99)], SETTINGS)
    np.testing.assert_array_equal(nuclei.layer.face_color, before)


def test_score_colours_meet_at_the_threshold():
    """The map's middle sits at the threshold, it is monotonic, and no score is gray."""
    np.testing.assert_allclose(score_colours(np.array([0.3]), 0.3), score_colours(np.array([0.5])))
    ramp = score_colours(np.linspace(0, 1, 50))
    assert (np.diff(ramp[:, 2]) <= 1e-9).sum() > 25
    assert ramp[0, 2] > ramp[0, 0]
    assert ramp[-1, 0] > ramp[-1, 2]
    assert len(set(score_colours(np.array([np.nan]))[0, :3])) == 1


def test_close_lets_go(nuclei, heard):
    """After closing, whatever happens to the layer is no business of ours."""
    scored(nuclei, 0.1)
    heard.asked.clear()
    nuclei.close()
    nuclei.layer.add([5, 5])
    nuclei.layer.data = np.zeros((0, 2))
    assert heard.asked == heard.gone == []


@pytest.mark.parametrize(("count", "limit_ms"), [(1_000, 16.0), (100_000, 40.0)])
def test_callbacks_are_cheap(image, count, limit_ms):
    """Our own CPU time a callback stays under 16 ms at 1,000 nuclei and bearable at 100,000."""
    rng = np.random.default_rng(0)
    big = Image(np.zeros((2000, 2000), dtype=np.uint8))
    nuclei = NucleiLayer(create_nuclei_layer(big), big, SCHEME)
    uids = nuclei.add(rng.uniform(0, 1999, (count, 2)))
    nuclei.write([call(u, s) for u, s in zip(uids, rng.uniform(size=count), strict=True)], SETTINGS)
    timing.reset()
    for i in range(30 if count == 1_000 else 6):
        nuclei.layer.add([i, i])
        nuclei.write([call(uids[i], 0.3), call(uids[-i], 0.7)], SETTINGS)
        nuclei.correct(uids[i : i + 2], "abnormal")
    worst = {
        name: row["p99"] for name, row in timing.report().items() if name not in timing.NOT_OURS
    }
    nuclei.close()
    assert max(worst.values()) <= limit_ms, worst


def test_a_score_survives_a_cancelled_rescoring(nuclei):
    """A first estimate that replaced a finished score gives it back when nothing more comes."""
    (uid,) = scored(nuclei, 0.8)
    other = (*SETTINGS[:1], "paper", *SETTINGS[2:])
    nuclei.mark_pending([uid])
    for n_views in (10, 300):
        nuclei.write([call(uid, 0.3, n_views=n_views, final=False)], other)
        assert features(nuclei)["score"][0] == 0.3
    nuclei.mark_pending([uid], pending=False)
    row = features(nuclei).iloc[0]
    assert (row["score"], row["n_views"], row["call"], row["stale"]) == (
        0.8,
        100,
        "abnormal",
        False,
    )
    assert nuclei.table.final[0]


def test_a_cancelled_first_scoring_is_unfinished(nuclei):
    """Ten inputs of a hundred are not the answer: stale, and offered again."""
    (uid,) = nuclei.add(np.array([[10.0, 20.0]]))
    nuclei.mark_pending([uid])
    nuclei.write([call(uid, 0.3, n_views=10, final=False)], SETTINGS)
    assert not features(nuclei)["stale"][0]
    nuclei.mark_pending([uid], pending=False)
    assert features(nuclei)["score"][0] == 0.3
    assert features(nuclei)["stale"][0]
    assert nuclei.stale() == [uid]
    nuclei.mark_pending([uid])
    nuclei.write([call(uid, 0.35)], SETTINGS)
    assert not features(nuclei)["stale"][0]


def test_a_moved_nucleus_does_not_get_its_old_score_back(nuclei):
    """The finished score of another place is no answer for this one."""
    (uid,) = scored(nuclei, 0.8)
    nuclei.layer.data = np.array([[50.0, 60.0]])
    nuclei.mark_pending([uid])
    nuclei.write([call(uid, 0.3, n_views=10, final=False)], SETTINGS)
    nuclei.mark_pending([uid], pending=False)
    assert features(nuclei)["score"][0] == 0.3
    assert features(nuclei)["stale"][0]


def test_a_nucleus_dragged_off_waits_for_no_answer(nuclei, heard):
    """Whoever scores it where it was is stopped; its call is stale and it is a cross."""
    (uid,) = scored(nuclei, 0.8)
    nuclei.layer.data = np.array([[5000.0, 60.0]])
    assert heard.gone == [[uid]]
    assert "outside" in heard.notices[-1]
    assert features(nuclei)["stale"][0]


def test_nothing_seen_is_no_call(nuclei):
    """A blank place has no score, no class, no doubt, and counts for nothing, many or few."""
    for count in (1, 1200):
        uids = nuclei.add(np.full((count, 2), 30.0))
        blank = {"label": "", "probabilities": (np.nan, np.nan), "flags": ("blank",)}
        nuclei.write([call(uid, np.nan, **blank) for uid in uids], SETTINGS)
    nuclei.read_with(replace(SCHEME, threshold=0.2))
    assert nuclei.counts() == [0, 0]
    assert set(features(nuclei)["call"]) == {""}
    assert set(features(nuclei)["flags"]) == {"blank"}
    assert len(nuclei.doubtful()) == 0
    assert nuclei.stale() == nuclei.unscored() == []
    assert "1,201 not assessable" in wording.summary(nuclei, 0, 0)
    assert "Not assessable" in wording.detail(nuclei, uids[:1], None)


def test_a_decision_is_not_inherited_while_nothing_follows(nuclei, image):
    """Napari gives a new point the features of the selected one: a new one knows nothing."""
    uids = scored(nuclei, 0.1, 0.9)
    nuclei.correct(uids[1:], "normal")
    layer = nuclei.layer
    nuclei.close()
    layer.selected_data = {1}
    layer.add([50.0, 50.0])
    assert layer.features["correction"].iloc[2] == "normal", "napari copies features"
    again = NucleiLayer(layer, image, SCHEME)
    assert list(again.table.uids[:2]) == uids
    assert again.table.uids[2] not in uids
    assert list(again.table.features["correction"]) == ["", "normal", ""]
    assert list(again.table.has_call) == [True, True, False]
    assert np.isnan(layer.features["score"].iloc[2])
    again.close()


def test_calls_places_and_settings_outlive_the_dock(nuclei, image):
    """A nucleus dragged in between is stale, one scored with other settings stays stale."""
    uids = scored(nuclei, 0.1, 0.9, 0.8)
    nuclei.write([call(uids[2], 0.8)], ("deeppap-test", "fast", "zero", 0, None))
    calls = [nuclei.table.calls[uid] for uid in uids]
    layer = nuclei.layer
    nuclei.close()
    moved = layer.data.copy()
    moved[0] += 7.0
    layer.data = moved
    again = NucleiLayer(layer, image, SCHEME)
    assert [again.table.calls[uid] for uid in uids] == calls
    assert list(again.table.features["stale"]) == [True, False, True]
    again.close()


@pytest.mark.parametrize("bad", [[np.nan, 5.0], [5.0, np.inf]])
def test_points_without_a_place_are_refused(nuclei, heard, image, bad):
    """Nobody could see them, a journal could not hold them and a table not be written."""
    uids = scored(nuclei, 0.1)
    told = []
    nuclei.happened.connect(lambda gesture, of: told.append((gesture, of)))
    nuclei.layer.add([bad, [30.0, 30.0]])
    assert notification_manager.records[-1].message.startswith("1 nucleus of 'nuclei")
    assert len(nuclei.layer.data) == len(nuclei) == 2
    assert nuclei.table.uids[0] == uids[0]
    assert np.isfinite(nuclei.table.positions).all()
    assert [len(of) for gesture, of in told if gesture is Gesture.ADDED] == [1]
    layer = Points([bad, [30.0, 30.0]], scale=(0.5, 0.5))
    other = NucleiLayer(layer, image, SCHEME)
    assert notification_manager.records[-1].message == (
        f"1 nucleus of '{layer.name}' had no position (nan) and was left out."
    )
    assert layer.data.tolist() == [[30.0, 30.0]]
    other.close()


def test_a_correction_that_is_no_class_is_refused(nuclei, heard):
    """It is said, and the layer's table shows again what was decided before."""
    scored(nuclei, 0.1, 0.9)
    frame = nuclei.layer.features.copy()
    frame["correction"] = ["foo", "normal"]
    nuclei.layer.features = frame
    assert list(nuclei.table.features["correction"]) == ["", ""]
    assert list(nuclei.layer.features["correction"]) == ["", ""]
    assert heard.notices == ["'foo' is no class; a correction is normal or abnormal."]


def test_a_nucleus_moved_to_nowhere_goes_back(nuclei):
    """A script's NaN moves nothing; what else it moved is moved."""
    uids = scored(nuclei, 0.1, 0.9)
    before = nuclei.layer.data.copy()
    nuclei.layer.data = np.array([[np.nan, 5.0], before[1] + 3.0])
    assert nuclei.layer.data.tolist() == [before[0].tolist(), (before[1] + 3.0).tolist()]
    assert list(nuclei.table.uids) == uids
    assert list(nuclei.table.moved) == [False, True]
