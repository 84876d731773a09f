"""papers.md 1.12, facts 1, 2, 5 and 12: what the networks are made of."""

import numpy as np
import pytest
import torch

from napari_cellpath.core.errors import ModelError, UnsafeModelError
from napari_cellpath.systems.catalogue import build
from napari_cellpath.systems.deeppap import caffenet
from napari_cellpath.systems.deeppap.inference import inference_form
from napari_cellpath.systems.deeppap.network import (
    AcrossChannelLRN,
    convnet_t,
    parameter_count,
)


def layer_counts(network):
    return {
        name: sum(p.numel() for p in module.parameters())
        for name, module in [*network.trunk.named_children(), *network.head.named_children()]
        if any(True for _ in module.parameters())
    }


@pytest.mark.parametrize(
    ("arguments", "total"),
    [({}, 12_035_202), ({"n_classes": 7}, 12_036_487), ({"groups": 1}, 13_448_322)],
)
def test_convnet_t_has_the_papers_parameter_count(arguments, total):
    """Fact 1: totals for two classes, seven classes, and ungrouped convolutions."""
    assert parameter_count(convnet_t(**arguments)) == total


def test_convnet_t_counts_layer_by_layer():
    """Fact 1: every layer of Table II has its number, the convolutional part 2,334,080."""
    network = convnet_t()
    assert list(layer_counts(network).values()) == [
        34_944, 307_456, 885_120, 663_936, 442_624, 9_438_208, 262_400, 514,
    ]  # fmt: skip
    assert parameter_count(network.trunk) == 2_334_080


def test_feature_maps_shrink_as_in_the_table():
    """Fact 2: 55, 27, 27, 13, 13, 13, 13, 6 and a flattened 9216."""
    x = torch.zeros(1, 3, 227, 227)
    sides = []
    network = convnet_t().eval()
    with torch.inference_mode():
        for name, layer in network.trunk.named_children():
            x = layer(x)
            if name.startswith(("conv", "pool")):
                sides.append(x.shape[-1])
    assert sides == [55, 27, 27, 13, 13, 13, 13, 6]
    assert x.flatten(1).shape == (1, 9216)


def test_lrn_values():
    """Fact 5: a constant map of 100 (or 2) over five channels gives the known values."""
    lrn = AcrossChannelLRN()
    out = lrn(torch.full((1, 5, 1, 1), 100.0)).flatten().tolist()
    assert out == pytest.approx([70.2927, 64.3496, 59.4604, 64.3496, 70.2927], abs=1e-4)
    assert lrn(torch.full((1, 5, 1, 1), 2.0))[0, 2].item() == pytest.approx(1.99940, abs=1e-5)


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("beta", [0.75, 0.5])
def test_lrn_equals_torchs_own(n, beta):
    """The fast normalisation and ``nn.LocalResponseNorm`` agree on random maps."""
    x = torch.randn(2, 12, 7, 7) * 50
    expected = torch.nn.LocalResponseNorm(n, 1e-4, beta, 1.0)(x)
    assert torch.allclose(AcrossChannelLRN(n, 1e-4, beta, 1.0)(x), expected, rtol=1e-5, atol=1e-5)


def test_lrn_runs_in_bfloat16():
    """Torch's own has no bfloat16 kernel on the CPU; ours does, to its precision."""
    x = torch.randn(1, 16, 5, 5) * 20
    low = AcrossChannelLRN()(x.bfloat16())
    assert low.dtype is torch.bfloat16
    assert torch.allclose(low.float(), AcrossChannelLRN()(x), rtol=0.02, atol=0.1)


@pytest.mark.parametrize("name", ["convnet-t", "alexnet-tv", "squeezenet1_0"])
@pytest.mark.parametrize("n_classes", [2, 7])
def test_every_backbone_gives_one_logit_a_class(name, n_classes):
    """227-px crops in, (N, n_classes) out, for two and for seven classes."""
    network = build(name, n_classes=n_classes).eval()
    with torch.inference_mode():
        assert network(torch.rand(2, 3, 227, 227)).shape == (2, n_classes)


def test_inference_form_equals_the_network():
    """What the predictor computes with differs from the trained module by rounding only."""
    torch.manual_seed(0)
    network = build("squeezenet1_0", n_classes=3).eval()
    crops = torch.randn(3, 3, 227, 227)
    with torch.inference_mode():
        expected = network(crops)
        assert torch.allclose(inference_form(network).eval()(crops), expected, atol=1e-5, rtol=1e-5)
        assert expected.std() > 1e-3, "logits that are all alike would prove nothing"
    other = build("convnet-t", width=0.125)
    assert inference_form(other) is other


def fake_caffenet(prefix=""):
    rng = np.random.default_rng(0)
    state = {}
    for layer, shape in caffenet.CONVOLUTIONS.items():
        state[f"{prefix}{layer}.weight"] = rng.standard_normal(shape).astype(np.float32)
        state[f"{prefix}{layer}.bias"] = rng.standard_normal(shape[0]).astype(np.float32)
    state["classifier.fc6.weight"] = np.zeros((4, 4), np.float32)
    return state


@pytest.mark.parametrize("prefix", ["", "features.", "module.features."])
def test_caffenet_import_flips_the_colour_channels(prefix):
    """Fact 12: ``conv1.weight[:, 0]`` is CaffeNet's channel 2; the rest is unchanged."""
    state = fake_caffenet(prefix)
    trunk = caffenet.trunk_from_caffenet(state, "fake")
    network = convnet_t()
    missing, unexpected = network.load_state_dict(
        {k: torch.from_numpy(v) for k, v in trunk.items()}, strict=False
    )
    assert not unexpected
    assert all(name.startswith("head") or name in ("mean", "std") for name in missing)
    weight = network.trunk.conv1.weight.detach().numpy()
    for ours, theirs in ((0, 2), (1, 1), (2, 0)):
        np.testing.assert_array_equal(weight[:, ours], state[f"{prefix}conv1.weight"][:, theirs])
    np.testing.assert_array_equal(network.trunk.conv5.bias.detach(), state[f"{prefix}conv5.bias"])


def test_flipped_weights_see_rgb_as_caffe_saw_bgr():
    """Convolving RGB with imported weights equals convolving BGR with the original ones."""
    state = fake_caffenet()
    trunk = caffenet.trunk_from_caffenet(state, "fake")
    rgb = torch.rand(1, 3, 227, 227)
    ours = torch.conv2d(rgb, torch.from_numpy(trunk["trunk.conv1.weight"]), stride=4)
    theirs = torch.conv2d(rgb.flip(1), torch.from_numpy(state["conv1.weight"]), stride=4)
    assert torch.allclose(ours, theirs, atol=1e-3)


def test_a_state_dict_of_another_network_is_refused_by_layer():
    """The error names the convolutions that do not fit."""
    state = fake_caffenet()
    del state["conv4.bias"]
    state["conv2.weight"] = state["conv2.weight"][:, :10]
    with pytest.raises(
        ModelError, match=r"conv2\.weight is .* instead of .*conv4\.bias is missing"
    ):
        caffenet.trunk_from_caffenet(state, "fake")


def test_pth_is_read_as_tensors_only(tmp_path):
    """A .pth of tensors is imported; one that would run code is refused and does not run it."""
    torch.save({"state_dict": {"conv1.weight": torch.ones(2)}}, tmp_path / "good.pth")
    assert caffenet.read_state_dict(tmp_path / "good.pth")["conv1.weight"].tolist() == [1, 1]

    canary = tmp_path / "canary"
    torch.save({"x": RunsCode(str(canary))}, tmp_path / "bad.pth")
    with pytest.raises(UnsafeModelError, match=r"bad\.pth"):
        caffenet.read_state_dict(tmp_path / "bad.pth")
    assert not canary.exists()


class RunsCode:
    """Unpickling this would create the canary file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))
