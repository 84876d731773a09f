"""The slide summary: bands, order, flags, and the same bytes for the same rows."""

import json

import pytest

from napari_cellpath.core.summary import MOST, band_of, summarise, summary_path, write_summary


def row(number, score=None, label="", flags=(), **more):
    base = {"image": "a.png", "id": str(number), "row": 1.0, "col": 2.0, "flags": flags}
    return base | ({} if score is None else {"score": score, "label": label}) | more


def test_bands_lie_round_the_threshold():
    """Within the review band a cell is doubtful, at its very edge too."""
    assert band_of(0.9, 0.5, 0.1) == "abnormal"
    assert band_of(0.6, 0.5, 0.1) == "doubtful"
    assert band_of(0.4, 0.5, 0.1) == "doubtful"
    assert band_of(0.1, 0.5, 0.1) == "normal"
    assert band_of(float("nan"), 0.5, 0.1) == ""


def test_summary_counts_and_sorts():
    """Most abnormal first; what has no score is counted, not sorted."""
    rows = [
        row(0, 0.2, "normal"),
        row(1, 0.97, "abnormal", ("crowded",)),
        row(2, flags=("blank",)),
        row(3, 0.55, "abnormal", ("crowded", "border")),
    ]
    found = summarise(rows, threshold=0.5, band=0.1, model="m@1")
    assert found["cells"] == 4
    assert found["not_scored"] == 1
    assert found["bands"] == {"abnormal": 1, "doubtful": 1, "normal": 1}
    assert found["labels"] == {"abnormal": 2, "normal": 1}
    assert found["flags"] == {"blank": 1, "border": 1, "crowded": 2}
    assert [r["id"] for r in found["most_abnormal"]] == ["1", "3", "0"]
    assert "seen" not in found


def test_seen_and_unseen_where_a_person_worked():
    """Only the viewer knows who was looked at."""
    rows = [row(0, 0.2, "normal", seen=True, correction="abnormal"), row(1, 0.9, "x", seen=False)]
    found = summarise(rows, threshold=0.5, band=0.1, model="m@1")
    assert found["seen"] == {"seen": 1, "unseen": 1}
    assert found["corrected"] == 1


def test_long_lists_are_cut_and_empty_ones_work(tmp_path):
    """A hundred cells list the first few; none list nothing; the file is plain JSON."""
    many = summarise([row(i, i / 100, "x") for i in range(100)], threshold=0.5, band=0, model="m")
    assert len(many["most_abnormal"]) == MOST
    assert many["most_abnormal"][0]["score"] == pytest.approx(0.99)
    nothing = summarise([], threshold=0.5, band=0.1, model="m")
    assert nothing["cells"] == 0
    out = tmp_path / "slide.csv"
    write_summary(out, many)
    assert summary_path(out) == tmp_path / "slide.summary.json"
    assert json.loads(summary_path(out).read_text()) == json.loads(json.dumps(many))


def test_a_persons_word_counts_instead_of_the_score():
    """Who was called normal by a person stands in no list of abnormal cells, and the reverse."""
    rows = [
        {"image": "a", "id": str(i), "row": 1.0, "col": 2.0, "flags": (), "score": score,
         "label": "abnormal" if score > 0.5 else "normal", "seen": True, "correction": said}
        for i, (score, said) in enumerate(((0.95, "normal"), (0.9, ""), (0.1, "abnormal")))
    ]  # fmt: skip
    found = summarise(rows, threshold=0.5, band=0.1, model="m", abnormal=["abnormal"])
    assert found["bands"] == {"abnormal": 2, "doubtful": 0, "normal": 1}
    assert found["labels"] == {"abnormal": 2, "normal": 1}
    assert [(c["id"], c["correction"]) for c in found["most_abnormal"]] == [
        ("1", ""), ("2", "abnormal"),
    ]  # fmt: skip
    assert found["corrected"] == 2
