"""What the tissue dock says of a region."""

from types import SimpleNamespace

import pytest

from napari_cellpath.widgets import tissue_words


def reading(**shares: float) -> dict:
    """A summary of a region of 100 by 100 pixels without a lesion of size."""
    classes = {
        name: {"pixels": round(share * 10_000), "share": share, "abnormal": name == "malignant"}
        for name, share in shares.items()
    }
    return {
        "mpp": 0.5, "classified": {"pixels": 10_000}, "classes": classes, "worst_grade": None,
        "least_lesion_mm2": 0.01, "corrected": {"pixels": 0}, "complete": True,
        "skipped": {"pixels": 0}, "unreadable": {"pixels": 0},
    }  # fmt: skip


def test_worst_class_says_how_many_pieces_count() -> None:
    """One piece or several, and from which size on they count."""
    region = SimpleNamespace(
        facts=SimpleNamespace(class_names=("background", "malignant"), abnormal=(False, True))
    )
    for count, says in ((1, "(1 piece of 0.01 mm² or more, "), (3, "(3 pieces of 0.01 mm² or ")):
        found = reading(background=0.4, malignant=0.6)
        found["worst_grade"] = {"class": "malignant", "lesions": count, "largest_pixels": 4000}
        assert says in tissue_words.summary(found, region)


@pytest.mark.parametrize(
    ("malignant", "says"),
    [(0.0, "nothing abnormal"), (0.632, "malignant 63.2 %, no single lesion of 0.01 mm²")],
)
def test_small_lesions_are_not_hidden(malignant: float, says: str) -> None:
    """Where no piece is large enough the share is said all the same."""
    region = SimpleNamespace(
        facts=SimpleNamespace(class_names=("background", "malignant"), abnormal=(False, True))
    )
    text = tissue_words.summary(reading(background=1 - malignant, malignant=malignant), region)
    assert text == f"<b>2,500 µm²</b> assessed · {says}"
