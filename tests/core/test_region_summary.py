"""What a smear amounts to: regions counted as regions, intervals that hold, one cell's size."""

import numpy as np
import pytest
from scipy.stats import binomtest

from napari_cellpath.core.region_summary import summarise_regions, wilson
from napari_cellpath.core.region_table import region_columns, region_record
from napari_cellpath.core.results import RegionCall

TYPES = ("Oval", "Echi", "Stom")


def record(image, number, labels, *, side=40, abnormal=None, flags=(), top=10):
    chance = float("nan") if labels is None else abnormal or float(set(labels) != {"Oval"})
    call = RegionCall(
        uid=str(number), row=0.0, col=0.0, labels=labels or (),
        probabilities=() if labels is None else tuple(float(t in labels) for t in TYPES),
        thresholds=(0.5,) * 3, abnormal=chance, abnormal_threshold=0.5,
        label="" if labels is None else "abnormal" if chance > 0.5 else "normal",
        model="m@12345678", flags=flags,
    )  # fmt: skip
    return region_record(image, str(number), (top, 10, top + side, 10 + side), TYPES, call)


def summary(records, **more):
    return summarise_regions(
        records, TYPES, model="m@12345678", thresholds=[0.5] * 3, abnormal_threshold=0.5, **more
    )


def test_a_row_has_every_column():
    """What is written is what the columns say; without an answer the numbers stay empty."""
    row = record("a.png", 0, ("Oval", "Stom"))
    assert set(row) <= set(region_columns(TYPES))
    assert (row["p_Oval"], row["p_Echi"], row["labels"]) == (1.0, 0.0, ("Oval", "Stom"))
    blank = record("a.png", 1, None, flags=("blank",))
    assert "abnormal" not in blank
    assert "p_Oval" not in blank
    assert blank["flags"] == ("blank",)


def test_a_region_counts_once_for_each_type():
    """However many cells it holds; what was not judged counts for nothing and is said."""
    told = summary(
        [
            record("a.png", 0, ("Oval", "Echi")),
            record("a.png", 1, ("Oval",)),
            record("b.png", 2, ()),
            record("b.png", 3, None, flags=("tiny",)),
        ]
    )
    assert (told["regions"], told["judged"]) == (4, 3)
    assert {n: t["regions"] for n, t in told["types"].items()} == {"Oval": 2, "Echi": 1, "Stom": 0}
    assert told["types"]["Oval"]["share"] == pytest.approx(2 / 3)
    assert told["without_a_type"]["regions"] == 1
    assert told["abnormal"]["regions"] == 2
    assert told["flags"] == {"tiny": 1}
    assert "not cells" in told["counted"]
    assert told["images"]["b.png"]["judged"] == 1


@pytest.mark.parametrize(("k", "n"), [(0, 5), (3, 7), (50, 50), (20, 300)])
def test_wilson_is_scipys(k, n):
    """One image: Wilson's interval."""
    theirs = binomtest(k, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson(k, n), theirs, atol=1e-12)


def test_several_images_are_drawn_as_images():
    """Regions of one image resemble each other: the interval by image is wider than by region."""
    rows = [
        record(f"{image}.png", n, ("Echi",) if image < 4 else ("Oval",))
        for image in range(8)
        for n in range(30)
    ]
    told = summary(rows)
    low, high = told["types"]["Echi"]["interval"]
    alone = wilson(120, 240)
    assert low < alone[0]
    assert high > alone[1]
    assert "images drawn again" in told["interval"]["method"]
    assert summary(rows[::-1])["types"] == told["types"], "the order of rows does not matter"


def test_regions_of_one_cell_are_told_by_the_commonest_size():
    """Single cells are alike and clumps are not; the edge cuts, and is left out."""
    rng = np.random.default_rng(0)
    single = [record("a.png", n, ("Echi",), side=int(rng.integers(39, 43))) for n in range(15)]
    clumps = [
        record("a.png", 100 + n, ("Oval",), side=int(rng.integers(60, 160))) for n in range(20)
    ]
    cut = [record("a.png", 200, ("Stom",), side=40, flags=("border",))]
    told = summary(single + clumps + cut)["of_one_cell"]
    assert "1600" in told["criterion"] or "16" in told["criterion"]
    assert told["judged"] == 15
    assert told["types"]["Echi"] == {
        "regions": 15, "share": 1.0, "interval": pytest.approx(wilson(15, 15)),
    }  # fmt: skip


def test_too_few_regions_tell_no_size():
    """Then nothing is counted as one cell, and it is said why."""
    told = summary([record("a.png", n, ("Oval",)) for n in range(5)])["of_one_cell"]
    assert set(told) == {"criterion"}
    assert told["criterion"].startswith("Not told")


def test_no_region_at_all():
    """An empty smear is summed up too: zeros, no shares, the images that were looked at."""
    told = summary([], images=["a.png"])
    assert told["regions"] == 0
    assert told["types"]["Oval"] == {"regions": 0, "share": None, "interval": None}
    assert set(told["images"]) == {"a.png"}
