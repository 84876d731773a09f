"""What the benchmarks conclude from what they measured, and the table they write."""

import pytest

from benchmarks import verify
from benchmarks.measuring import interleave
from benchmarks.table import LINES, write_table


def cell(paper, adaptive, fp32=0.9, bf16=0.9, views=50):
    return {
        "paper": {"score": paper, "n_views": 1000},
        "adaptive": {"score": adaptive, "n_views": views},
        "short_fp32": {"score": fp32, "n_views": 100},
        "short_bf16": {"score": bf16, "n_views": 100},
    }


@pytest.mark.parametrize(
    ("spoilt", "key"),
    [
        (cell(0.9, 0.1), "adaptive_disagrees_on"),
        (cell(0.9, 0.9, fp32=0.9, bf16=0.88), None),
        (cell(0.9, 0.9, fp32=0.9, bf16=0.2), "bf16_decisions_changed_outside_band"),
    ],
)
def test_verify_holds_only_if_everything_does(spoilt, key):
    """A disagreement, a drift of bf16 or a flipped decision each break the promise."""
    good = [cell(0.9, 0.88), cell(0.1, 0.12, 0.1, 0.1)] * 10
    assert verify.compare(good, 0.5, 0.1)["holds"]
    report = verify.compare([*good, spoilt], 0.5, 0.1)
    assert not report["holds"]
    assert key is None or report[key] == 1


def test_verify_wants_fewer_views():
    """Agreement bought with nearly all views is none."""
    slow = [cell(0.9, 0.9, views=500)] * 5
    report = verify.compare(slow, 0.5, 0.1)
    assert report["adaptive_fewer_views_median"] == 2.0
    assert not report["holds"]


def test_rounds_are_interleaved_and_the_first_discarded():
    """Each kind runs once a round, the reference once more at the end."""
    order = []
    found = interleave(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, "a", 2, threads=1
    )
    assert order == ["a", "b"] * 3 + ["a"]
    assert set(found.best) == {"a", "b"}


def test_table_says_what_was_not_measured(tmp_path):
    """A column that lacks a benchmark says so, a contended ratio is marked."""
    found = {
        "whole_over_pure": 1.02, "loop_over_whole": 3.2, "whole_s": 11.0, "precision": "fp32",
        "steady": False,
    }  # fmt: skip
    write_table({"cpu: X": {"P4": found, "machine": {"date": "2026-01-01"}}}, tmp_path / "b.md")
    text = (tmp_path / "b.md").read_text()
    assert "1.02 (contended)" in text
    assert text.count("not measured") == sum(line.key != "P4" for line in LINES)
