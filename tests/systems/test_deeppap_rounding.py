"""Kernels rounded to bfloat16 keep their sums, and the networks computed with them their scores."""

import pytest
import torch
from torch import nn

from napari_cellpath.systems.catalogue import build
from napari_cellpath.systems.deeppap.inference import inference_form
from napari_cellpath.systems.deeppap.rounding import EntryConvolution, rounded_kernels


@pytest.fixture
def convolution():
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 32, 7, stride=2)
    nn.init.normal_(layer.weight)
    with torch.no_grad():  # as edge filters: an even image is answered with almost nothing
        layer.weight -= layer.weight.mean((2, 3), keepdim=True)
    return layer


def low():
    return torch.autocast("cpu", dtype=torch.bfloat16)


def test_rounded_kernels_are_bfloat16_and_keep_their_sums(convolution):
    """What is left of a kernel's errors is at most half a step of its last weight."""
    weight = convolution.weight.detach()
    rounded = rounded_kernels(weight)
    assert rounded.dtype is torch.float32
    assert torch.equal(rounded, rounded.bfloat16().float())
    assert (rounded - weight).abs().max() < 2**-6, "each weight moves by steps, not more"
    plain = (weight.bfloat16().float() - weight).sum((2, 3)).abs()
    kept = (rounded - weight).sum((2, 3)).abs()
    # The last weight of the zigzag is rounded too: half a step, 2**-9 of it.
    last = rounded[..., -1, -1].abs()
    assert (kept <= last * 2**-8 + 1e-6).all()
    assert kept.mean() < plain.mean() / 4


def test_even_colour_is_answered_truly_in_bfloat16(convolution):
    """The error left on an even image is that of rounding the answer, not of the weights."""
    entry = EntryConvolution(convolution)
    images = torch.tensor([1.5, -0.75, 2.0]).view(1, 3, 1, 1).expand(1, 3, 31, 31)
    with torch.inference_mode():
        wanted = convolution(images)
        assert torch.equal(entry(images), wanted), "in float32 it is the layer itself"
        with low():
            off, plain = (entry(images) - wanted).abs(), (convolution(images) - wanted).abs()
    assert off.mean() < plain.mean() / 2


@pytest.mark.parametrize("name", ["squeezenet1_0", "squeezenet1_0-measured"])
def test_scores_are_given_in_float32(name):
    """The classifier's sums are not rounded to bfloat16."""
    torch.manual_seed(0)
    form = inference_form(build(name, n_classes=2).eval()).eval()
    with torch.inference_mode(), low():
        logits = form(torch.randn(2, 3, 227, 227))
    assert logits.dtype is torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())
