"""Losses of class maps: papers.md 3.5 and 3.10, fact 10."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from training.hspnet.losses import (
    IGNORE,
    cdw_ce,
    cross_entropy,
    grade_distances,
    make_pixel_loss,
    ordinal_elastic,
)
from training.hspnet.recipe import Loss


def pixel(values: list[float], wanted: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One pixel with these logits."""
    return torch.tensor(values).view(1, -1, 1, 1), torch.full((1, 1, 1), wanted)


def test_fact_10_the_energy_of_a_uniform_answer() -> None:
    """The five values of the reconstruction, and the distances from normal."""
    expected = [2.249438, 2.018327, 1.876105, 1.876105, 2.018327]
    for wanted, value in enumerate(expected):
        assert float(ordinal_elastic(*pixel([0.0] * 5, wanted))) == pytest.approx(value, abs=1e-6)
    assert grade_distances(5)[1].tolist() == pytest.approx([1, 0, 1 / 9, 4 / 9, 1])


def test_elasticity_zero_is_cross_entropy() -> None:
    """With and without class weights, ignored pixels left out."""
    torch.manual_seed(0)
    logits, classes = torch.randn(2, 5, 6, 7), torch.randint(0, 5, (2, 6, 7))
    classes[0, :3] = IGNORE
    weights = torch.tensor([0.5, 1.0, 2.0, 1.5, 0.7])
    for w in (None, weights):
        wanted = F.cross_entropy(logits, classes, weight=w, ignore_index=IGNORE)
        assert torch.allclose(ordinal_elastic(logits, classes, w, 0.0), wanted)
        assert torch.allclose(cross_entropy(logits, classes, w), wanted)


def test_a_farther_grade_costs_more() -> None:
    """With the same probability of the truth, mass on a farther grade; a right answer is free."""
    near = ordinal_elastic(*pixel([-9.0, 2.0, 1.0, -9.0, -9.0], 1))
    far = ordinal_elastic(*pixel([-9.0, 2.0, -9.0, -9.0, 1.0], 1))
    assert float(far) > float(near) + 0.01
    assert float(cdw_ce(*pixel([-9.0, 2.0, -9.0, -9.0, 1.0], 1))) > float(
        cdw_ce(*pixel([-9.0, 2.0, 1.0, -9.0, -9.0], 1))
    )
    assert float(ordinal_elastic(*pixel([-60.0, 60.0, -60.0, -60.0, -60.0], 1))) < 1e-6


@pytest.mark.parametrize("name", ["cross_entropy", "ordinal_elastic", "cdw_ce"])
def test_saturated_logits_give_finite_gradients(name: str) -> None:
    """Also where the network is sure of the wrong thing, and where no pixel counts."""
    loss = make_pixel_loss(Loss(name=name))  # type: ignore[arg-type]
    logits = torch.zeros(1, 5, 2, 2)
    logits[:, 4] = 1e4
    logits.requires_grad_()
    for wanted in (1, IGNORE):
        value = loss(logits, torch.full((1, 2, 2), wanted), None)
        (gradient,) = torch.autograd.grad(value, logits)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()


def test_cdw_ce_of_one_pixel() -> None:
    """Each wrong class by its distance to the power: -sum |c - t|^2 log(1 - p_c)."""
    logits = torch.tensor([0.0, 1.0, 0.5, -1.0])
    p = logits.softmax(0)
    wanted = -(1 * torch.log(1 - p[0]) + 1 * torch.log(1 - p[1]) + 1 * torch.log(1 - p[3]))
    assert float(cdw_ce(*pixel(logits.tolist(), 2), power=2.0)) == pytest.approx(float(wanted))
    shifted = -(torch.log(1 - p[0]) + torch.log(1 - p[2]) + 4 * torch.log(1 - p[3]))
    assert float(cdw_ce(*pixel(logits.tolist(), 1), power=2.0)) == pytest.approx(float(shifted))
