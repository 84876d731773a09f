"""Features of a cell are what its head sees; what a model carries is balanced and fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_cellpath.core.errors import JobCancelledError, ModelError
from napari_cellpath.models import read_features, read_info, read_tensors, save_model, verify
from napari_cellpath.models.format import FEATURES, MAX_FEATURES_BYTES
from napari_cellpath.systems.catalogue import build
from tests.support.models import write_random_model
from training.datasets import read_cells
from training.deeppap_recipe import Data
from training.finetune_head import drawn_as_often
from training.scoring import score_cells
from training.trunk_features import (
    FeatureCache,
    choose_views,
    merged_features,
    probabilities,
    shipped_features,
)


@pytest.mark.parametrize(
    ("architecture", "arguments"), [("squeezenet1_0", {}), ("convnet-t", {"width": 0.05})]
)
def test_features_through_the_head_are_the_scores(
    cells_folder: Path, architecture: str, arguments: dict[str, float]
) -> None:
    """Pooled before or flattened: the same probabilities as of the whole network."""
    network = build(architecture, n_classes=2, **arguments).eval()
    records = read_cells(Data(folder=str(cells_folder))).records[:3]
    features = FeatureCache(network).of(records)
    whole = score_cells(network, records, looked_at="rotations")
    np.testing.assert_allclose(probabilities(network.head, features), whole, atol=1e-6)


def test_features_are_computed_once(cells_folder: Path, tmp_path: Path) -> None:
    """Kept by trunk, image content and centre; a cancelled run keeps what it has."""
    network = build("convnet-t", n_classes=2, width=0.05).eval()
    records = read_cells(Data(folder=str(cells_folder))).records[:3]
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2

    with pytest.raises(JobCancelledError):
        FeatureCache(network, tmp_path, stop).of(records)
    assert len(list(tmp_path.glob("*.npy"))) == 2
    first = FeatureCache(network, tmp_path).of(records)
    # With another head nothing is computed anew: asked to stop at once, it never asks.
    network.head[1].weight.data += 1.0
    again = FeatureCache(network, tmp_path, lambda: True).of(records)
    np.testing.assert_array_equal(first, again)
    next(network.trunk.parameters()).data += 1.0
    with pytest.raises(JobCancelledError):
        FeatureCache(network, tmp_path, lambda: True).of(records)


def test_chosen_views_are_balanced_over_classes_and_groups() -> None:
    """A rare class and a small slide have as many turns as the others while they last."""
    fine = [0] * 20 + [1] * 4
    groups = ["a"] * 18 + ["b"] * 2 + ["c"] * 2 + ["d"] * 2
    chosen = choose_views(fine, groups, 3, 16)
    cells = [cell for cell, _ in chosen]
    assert len(set(chosen)) == 16
    assert sum(fine[c] == 0 for c in cells) == 8
    assert {groups[c] for c in cells[:4]} == {"a", "b", "c", "d"}
    assert len(choose_views(fine, groups, 3, 10**6)) == 72


def _shipped(n: int = 30, d: int = 512) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, 2, d)).astype(np.float32)
    targets = [i % 2 for i in range(n)]
    return shipped_features(features, targets, targets, [f"s{i // 3}" for i in range(n)])


def test_features_travel_with_a_model(tmp_path: Path) -> None:
    """Written, read, verified; a model without them reads as before."""
    bare = write_random_model(tmp_path / "bare")
    assert read_features(bare) is None
    whole = tmp_path / "whole"
    save_model(whole, read_info(bare), read_tensors(bare), "# card\n", _shipped())
    found = read_features(whole)
    assert found is not None
    for key, values in _shipped().items():
        np.testing.assert_array_equal(found[key], values)
    assert verify(whole).files[FEATURES]


def test_tampered_features_are_refused(tmp_path: Path) -> None:
    """A flipped bit, a missing file, wrong shapes, too many: refused, whoever asks."""
    bare = write_random_model(tmp_path / "bare")
    info, tensors = read_info(bare), read_tensors(bare)
    whole = tmp_path / "whole"
    save_model(whole, info, tensors, "", _shipped())
    content = bytearray((whole / FEATURES).read_bytes())
    content[-1] ^= 1
    (whole / FEATURES).write_bytes(content)
    for reading in (verify, read_features, read_tensors):
        with pytest.raises(ModelError, match=rf"{FEATURES} is damaged"):
            reading(whole)
    (whole / FEATURES).unlink()
    with pytest.raises(ModelError, match=f"{FEATURES} is missing"):
        verify(whole)
    bad = {
        "must hold features, targets, fine and groups": {"features": _shipped()["features"]},
        "NaN": {**_shipped(), "features": np.full((60, 512), np.nan, np.float16)},
        "one whole number a row": {**_shipped(), "groups": np.zeros(3, np.int32)},
        "not among the model's 2 classes": {**_shipped(), "targets": np.full(60, 2, np.int16)},
        "stands_for must be one float32 a row": {**_shipped(), "stands_for": np.ones(60)},
        "stands_for must be finite and above nought": {
            **_shipped(),
            "stands_for": np.zeros(60, np.float32),
        },
        "out_of_fold must be float16 of rows x classes": {
            **_shipped(),
            "out_of_fold": np.zeros((60, 3), np.float16),
        },
        "out_of_fold must lie between 0 and 1": {
            **_shipped(),
            "out_of_fold": np.full((60, 2), 1.5, np.float16),
        },
        "larger than 3 MB": _shipped(MAX_FEATURES_BYTES // 2048),
    }
    bad["larger than 3 MB"] = {
        k: np.concatenate([v, v]) for k, v in bad["larger than 3 MB"].items()
    }
    for sentence, features in bad.items():
        with pytest.raises(ModelError, match=sentence):
            save_model(tmp_path / "bad", info, tensors, "", features)
        assert not (tmp_path / "bad").exists()


def test_merged_features_keep_both_and_fit() -> None:
    """Parent's and child's classes and groups stay apart; no more than a folder may carry."""
    parent, own = _shipped(3000), _shipped(40)
    both = merged_features(parent, own)
    size = sum(v.nbytes for v in both.values())
    assert size <= MAX_FEATURES_BYTES
    assert set(both["fine"]) == {0, 1, 2, 3}
    assert (both["fine"] >= 2).sum() == 80
    assert both["groups"][both["fine"] >= 2].min() > parent["groups"].max()


def test_rows_that_stay_stand_for_those_that_do_not() -> None:
    """Each class keeps its number of training cells when rows have to go."""
    parent, own = _shipped(3000), _shipped(40)
    for carried, share in ((parent, 2.0), (own, 1.0)):
        carried["stands_for"] = np.full(len(carried["fine"]), share, np.float32)
    both = merged_features(parent, own)
    assert len(both["fine"]) < len(parent["fine"]) + len(own["fine"])
    old, new = np.bincount(parent["fine"]) * 2.0, np.bincount(own["fine"])
    np.testing.assert_allclose(
        np.bincount(both["fine"], both["stands_for"]), [*old, *new], rtol=1e-5
    )
    older = merged_features({k: v for k, v in parent.items() if k != "stands_for"}, own)
    assert set(older) == {"features", "targets", "fine", "groups"}


def test_carried_cells_are_drawn_evenly_or_half_as_often_as_they_occurred() -> None:
    """Without `stands_for` classes are even; with it half of the draws are at their share."""
    shipped = {"fine": np.array([0, 0, 0, 1], np.int16)}
    np.testing.assert_allclose(drawn_as_often(shipped), [1 / 6, 1 / 6, 1 / 6, 1 / 2])
    shipped["stands_for"] = np.array([3, 3, 3, 1], np.float32)
    half, even, fair = 1 / 2, np.array([1 / 6, 1 / 6, 1 / 6, 1 / 2]), np.array([0.3, 0.3, 0.3, 0.1])
    np.testing.assert_allclose(drawn_as_often(shipped), half * even + half * fair)
