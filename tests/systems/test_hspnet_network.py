"""HSP-Net's counts, shapes and switches (papers.md 3.10, facts 1 to 5 and 12)."""

import pytest
import torch
from torch import nn

from napari_cellpath.systems.catalogue import build
from napari_cellpath.systems.hspnet.network import (
    RATES,
    DSBlock,
    WideConv,
    load_imagenet,
    parameter_groups,
)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def resnet34():
    return build("hspnet-resnet34", n_classes=5).eval()


def test_the_papers_counts(resnet34):
    """67,654,085 with ResNet-101, with the classifier left out the 69.70 M printed."""
    with torch.device("meta"):
        resnet101 = build("hspnet-resnet101", n_classes=5)
    assert count(resnet101) == 67_654_085
    assert count(resnet101) + 2_049_000 == 69_703_085
    assert count(resnet34) == 31_293_637
    blocks = [count(block) for block in resnet101.stages]
    assert blocks == [243_072, 971_520, 3_884_544, 15_535_104]
    assert count(resnet101.head[1]) == 2_231_296


@pytest.mark.parametrize(("c", "out"), [(64, 32), (256, 256), (480, 256), (7, 3)])
def test_a_ds_block_has_as_many_parameters_as_its_formula(c, out):
    assert count(DSBlock(c, out)) == 29 * c * out + 5 * out**2 + 12 * out


@pytest.mark.parametrize(
    ("size", "sides"), [((400, 400), (100, 50, 25, 13)), ((224, 224), (56, 28, 14, 7))]
)
@pytest.mark.parametrize("name", ["hspnet-resnet18", "hspnet-squeezenet"])
def test_stages_have_the_papers_sizes(name, size, sides):
    """Also with SqueezeNet, whose poolings torchvision pads otherwise."""
    network = build(name, n_classes=5, width=0.125).eval()
    with torch.inference_mode():
        maps = network.encoder(torch.zeros(1, 3, *size))
    assert [m.shape[2] for m in maps] == list(sides)


@pytest.mark.parametrize("size", [(401, 333), (64, 33), (1, 1), (5, 70)])
def test_any_image_size_comes_back(size):
    """The answer has the image's size, to the pixel."""
    network = build("hspnet-squeezenet", n_classes=3, width=0.125).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, *size, dtype=torch.uint8)).shape[2:] == size


def test_joined_and_head_channels(resnet34):
    """32 + 64 + 128 + 256 = 480 channels at stride 4, 256 of which the head makes."""
    seen = []
    hook = resnet34.head[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    with torch.inference_mode():
        features = resnet34.features(torch.zeros(1, 3, 96, 96))
    hook.remove()
    assert seen == [(1, 480, 24, 24)]
    assert features.shape == (1, 256, 24, 24)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (13, 13), (25, 7)])
@pytest.mark.parametrize("clip", [False, True])
def test_a_ds_block_keeps_the_size(size, clip):
    block = DSBlock(4, 3, clip).eval()
    assert block(torch.zeros(2, 4, *size)).shape == (2, 3, *size)


def _live_taps(convolution: WideConv, side: int) -> int:
    gradient = torch.autograd.grad(
        convolution(torch.rand(1, 8, side, side)).sum(), convolution.weight
    )[0]
    return int((gradient.abs().sum(dim=(0, 1)) > 0).sum())


def test_dilation_18_is_dead_on_a_13_pixel_map():
    """Eight of nine taps get no gradient there (fact 4); clipped, all nine do."""
    assert _live_taps(WideConv(8, 4, 18, clip=False), 13) == 1
    assert _live_taps(WideConv(8, 4, 12, clip=False), 13) == 9
    assert all(_live_taps(WideConv(8, 4, rate, clip=False), 25) == 9 for rate in RATES)
    assert all(_live_taps(WideConv(8, 4, rate, clip=True), 13) == 9 for rate in RATES)


def test_a_wide_convolution_that_fits_is_torchs_own():
    convolution = WideConv(3, 4, 6, clip=True)
    plain = nn.Conv2d(3, 4, 3, padding=6, dilation=6, bias=False)
    plain.load_state_dict(convolution.state_dict())
    x = torch.rand(2, 3, 20, 21)
    assert torch.equal(convolution(x), plain(x))


def test_ablations_are_smaller_and_run():
    """Without DS-Blocks 1 to 4, without DS-Block 5, without any."""
    sizes = []
    for ds14, ds5 in ((True, True), (True, False), (False, True), (False, False)):
        network = build("hspnet-squeezenet", n_classes=4, width=0.125, ds14=ds14, ds5=ds5).eval()
        sizes.append(count(network))
        with torch.inference_mode():
            assert network(torch.zeros(2, 3, 40, 56)).shape == (2, 4, 40, 56)
    assert sizes[3] < sizes[2] < sizes[1] < sizes[0]


def test_images_are_normalised_inside():
    """Bytes and the same values as floats are one; ImageNet's mean colour becomes 0."""
    network = build("hspnet-squeezenet", n_classes=3, width=0.125).eval()
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(network(image), network(image.float()))
        mean = network.mean.expand(1, 3, 4, 4)
        assert network.normalise(mean).abs().max() == 0


def test_parameter_groups_split_encoder_and_rest():
    network = build("hspnet-squeezenet", n_classes=3, width=0.125)
    encoder, rest = parameter_groups(network, 1e-3)
    assert (encoder["lr"], rest["lr"]) == (1e-3, 1e-2)
    held = [*encoder["params"], *rest["params"]]
    assert len({id(p) for p in held}) == len(held) == len(list(network.parameters()))


@pytest.mark.parametrize("name", ["hspnet-squeezenet", "hspnet-resnet18"])
def test_torchvisions_weights_fit_the_encoder(name):
    """Every one of them is used; another network's are refused by name."""
    from torchvision import models as tv

    network = build(name, n_classes=3, width=0.125)
    state = (tv.squeezenet1_0 if "squeeze" in name else tv.resnet18)(weights=None).state_dict()
    load_imagenet(network, state)
    held = network.encoder.state_dict()
    kept = [k for k in state if not k.startswith(("fc.", "classifier."))]
    assert all(torch.equal(held[k], state[k]) for k in kept)
    del state[kept[0]]
    with pytest.raises(ValueError, match=kept[0]):
        load_imagenet(network, state)
