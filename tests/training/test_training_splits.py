"""A slide is never on two sides, every class is on all of them, and a seed fixes it all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_cellpath.core.errors import CellpathError, RecipeError
from training.splits import check_no_leak, make_split


@st.composite
def labelled(draw: st.DrawFn) -> tuple[list[str], list[int]]:
    """Cells of 8 to 40 slides; a slide has one to six cells and mostly one class."""
    groups, classes = [], []
    for g in range(draw(st.integers(8, 40))):
        label = draw(st.integers(0, 2)) if g > 1 else g
        for _ in range(draw(st.integers(1, 6))):
            groups.append(f"slide {g}")
            classes.append(label)
    return groups, classes


@settings(max_examples=60)
@given(labelled(), st.integers(2, 4), st.sampled_from([0.0, 0.1, 0.2]), st.integers(0, 99))
def test_grouped_split_holds_everything_once(
    cells: tuple[list[str], list[int]], folds: int, reserve: float, seed: int
) -> None:
    """Every cell is in exactly one part, and no slide is in two."""
    groups, classes = cells
    plan = make_split(groups, classes, reserve=reserve, folds=folds, seed=seed)
    parts = [*plan.folds, plan.reserve]
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(groups)))
    sides = [{groups[i] for i in part} for part in parts]
    assert sum(len(s) for s in sides) == len(set(groups))
    for fold in range(folds):
        assert not set(plan.training(fold)) & (set(plan.folds[fold]) | set(plan.reserve))


@settings(max_examples=20)
@given(labelled(), st.integers(0, 99), st.randoms(use_true_random=False))
def test_split_depends_on_seed_not_on_order(
    cells: tuple[list[str], list[int]], seed: int, random: object
) -> None:
    """The same slides land in the reserve whatever the order of the rows."""
    groups, classes = cells
    order = list(range(len(groups)))
    random.shuffle(order)  # type: ignore[attr-defined]
    first = make_split(groups, classes, folds=3, seed=seed)
    second = make_split([groups[i] for i in order], [classes[i] for i in order], folds=3, seed=seed)
    assert {groups[i] for i in first.reserve} == {groups[order[i]] for i in second.reserve}


def test_split_keeps_the_shares_of_classes() -> None:
    """With many small slides each fold has about its share of every class."""
    groups = [f"s{i // 2}" for i in range(400)]
    classes = [0 if i % 10 < 2 else 1 for i in range(400)]
    plan = make_split(groups, classes, reserve=0.1, folds=4, seed=3)
    assert len(plan.reserve) == pytest.approx(40, abs=4)
    for part in plan.folds:
        assert np.mean([classes[i] == 0 for i in part]) == pytest.approx(0.2, abs=0.03)


def test_cell_split_may_part_a_slide() -> None:
    """The paper's split by cell deals out cells, not slides."""
    groups, classes = ["a"] * 20 + ["b"] * 20, [0] * 20 + [1] * 20
    plan = make_split(groups, classes, mode="cell", reserve=0.0, folds=5, seed=0)
    assert [len(f) for f in plan.folds] == [8] * 5
    assert all({classes[i] for i in f} == {0, 1} for f in plan.folds)


def test_a_slide_on_two_sides_is_named() -> None:
    """The refusal names the slide and both sides, in one line."""
    with pytest.raises(RecipeError, match=r"'b'.*training.*validation") as refusal:
        check_no_leak(["a", "b", "b"], {"training": np.array([0, 1]), "validation": np.array([2])})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("groups", "classes", "says"),
    [
        ([], [], "no labelled cells"),
        (["a", "b", "c"], [1, 1, 1], "one class only"),
        (["a", "a", "b"], [0, 0, 1], "2 slide groups, too few for 5 parts"),
    ],
)
def test_hopeless_data_are_refused(groups: list[str], classes: list[int], says: str) -> None:
    """No cells, one class, or too few slides: one sentence that says which."""
    with pytest.raises(CellpathError, match=says):
        make_split(groups, classes, folds=4)
