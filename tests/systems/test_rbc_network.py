"""The networks of RBC: exact sizes, heads that are separate, features that never change."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models as tv

from napari_cellpath.core.errors import ModelError
from napari_cellpath.core.vocabulary import System
from napari_cellpath.systems import catalogue
from napari_cellpath.systems.catalogue import DETECTORS, build
from napari_cellpath.systems.loading import load_network
from napari_cellpath.systems.rbc import imagenet
from napari_cellpath.systems.rbc.network import LabelHeads
from tests.support.models import small_booster, write_region_model


def parameters(architecture, **arguments):
    """Counted without memory: the meta device makes shapes and no numbers."""
    with torch.device("meta"):
        return sum(p.numel() for p in build(architecture, **arguments).parameters())


@pytest.mark.parametrize(
    ("architecture", "count"),
    [
        ("rbc-heads", 6_297_606),
        ("resnet50-features", 23_508_032),
        ("resnet101-fpn", 60_239_065),
        ("resnet101-c4", 51_930_389),
    ],
)
def test_parameters(architecture, count):
    """papers.md 2.9, fact 1: as many as the paper's networks have."""
    assert parameters(architecture) == count
    if architecture == "rbc-heads":
        assert parameters(architecture, n_classes=1) == 1_049_601


def test_every_architecture_says_what_it_tells_apart():
    """Detectors find one thing on a background, whatever the paper's six types."""
    row = catalogue.SYSTEMS[System.RBC]
    assert set(DETECTORS) <= set(row.architectures)
    assert {row.classes_of.get(name, row.n_classes) for name in DETECTORS} == {2}
    assert row.classes_of.get("rbc-heads", row.n_classes) == 6


def test_six_heads_in_one_are_six_heads():
    """The batched heads give what six networks of two layers give, and the same gradients."""
    torch.manual_seed(0)
    separate = [(nn.Linear(40, 16), nn.Linear(16, 1)) for _ in range(6)]
    together = LabelHeads.of(separate)
    features = torch.randn(9, 40)
    apart = torch.cat([two(torch.relu(one(features))) for one, two in separate], dim=1)
    joined = together(features)
    torch.testing.assert_close(joined, apart, rtol=0, atol=1e-6)
    assert sum(p.numel() for p in together.parameters()) == sum(
        p.numel() for pair in separate for layer in pair for p in layer.parameters()
    )
    (apart**2).sum().backward()
    (joined**2).sum().backward()
    for i, (one, two) in enumerate(separate):
        torch.testing.assert_close(together.weight1.grad[i], one.weight.grad, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            together.weight2.grad[i], two.weight.grad[0], rtol=1e-5, atol=1e-6
        )


def test_no_head_sees_another():
    """A change to one type's weights changes that type alone."""
    torch.manual_seed(0)
    heads = build("rbc-heads", n_features=20, hidden=8)
    features = torch.randn(5, 20)
    with torch.inference_mode():
        before = heads.probabilities(features)
        heads.weight1[2] += 1.0
        changed = (heads.probabilities(features) != before).any(dim=0)
    assert changed.tolist() == [False, False, True, False, False, False]


def test_shapes_and_no_patches():
    """Fact 2: (N, 3, 224, 224) to features to N x 6 in 0..1; none at all works."""
    heads = build("rbc-heads", n_features=512)
    trunk = build("resnet18-features")
    with torch.inference_mode():
        for n in (0, 2):
            features = trunk(torch.rand(n, 3, 224, 224))
            assert features.shape == (n, 512)
            found = heads.probabilities(features)
            assert found.shape == (n, 6)
            assert ((found >= 0) & (found <= 1)).all()
        assert build("resnet50-features")(torch.rand(1, 3, 64, 64)).shape == (1, 2048)
        assert build("squeezenet-features")(torch.rand(1, 3, 64, 64)).shape == (1, 512)


@pytest.mark.parametrize("architecture", ["resnet18-features", "resnet50-features"])
def test_features_never_change(architecture):
    """Fact 12: no gradient, batch normalisation as in evaluation, in training mode too."""
    trunk = build(architecture)
    assert not any(p.requires_grad for p in trunk.parameters())
    patches = torch.rand(2, 3, 64, 64)
    before = {k: v.clone() for k, v in trunk.state_dict().items()}
    evaluated = trunk.eval()(patches)
    nn.Sequential(trunk).train()
    assert not any(m.training for m in trunk.modules())
    assert torch.equal(trunk(patches), evaluated)
    assert all(torch.equal(v, before[k]) for k, v in trunk.state_dict().items())


@pytest.mark.parametrize("architecture", ["resnet18-fpn", "mobilenetv3-fpn", "squeezenet-fpn"])
def test_a_detector_detects(architecture):
    """Boxes and scores of an image; losses in training; its cap is what was asked for."""
    torch.manual_seed(0)
    detector = build(architecture, min_size=96, max_size=128, detections=7)
    image = torch.rand(3, 96, 128)
    box = torch.tensor([[10.0, 10.0, 60.0, 60.0]])
    losses = detector.train()([image], [{"boxes": box, "labels": torch.ones(1, dtype=torch.long)}])
    assert all(torch.isfinite(loss) for loss in losses.values())
    with torch.inference_mode():
        (found,) = detector.eval()([image])
    assert set(found) == {"boxes", "labels", "scores"}
    assert found["boxes"].shape == (len(found["scores"]), 4)
    assert len(found["scores"]) <= 7


def test_the_c4_detector_runs():
    """One level, the last stage on each region."""
    detector = build("resnet101-c4", min_size=64, max_size=64).eval()
    detector.rpn._post_nms_top_n = {"training": 5, "testing": 5}
    with torch.inference_mode():
        (found,) = detector([torch.rand(3, 64, 64)])
    assert found["boxes"].shape[1] == 4


def test_the_squeezenet_levels_lie_true():
    """Every level's stride is exact: an anchor lies where its place looks."""
    for finest, strides in ((8, (8, 16, 32)), (4, (4, 8, 16, 32))):
        backbone = build("squeezenet-fpn", finest=finest).backbone
        with torch.inference_mode():
            maps = backbone(torch.zeros(1, 3, 64, 128))
        assert [tuple(m.shape[2:]) for m in maps.values()] == [(64 // s, 128 // s) for s in strides]


def test_imagenet_weights_are_torchvisions(monkeypatch):
    """``weights="torchvision"`` goes through its weights door, here with another's numbers."""
    torch.manual_seed(1)
    theirs = {
        "squeezenet1_0": tv.squeezenet1_0(weights=None).state_dict(),
        "resnet18": tv.resnet18(weights=None).state_dict(),
    }
    asked = []

    class Door:
        def __init__(self, name):
            self.name = name

        def __getitem__(self, version):
            assert version == "IMAGENET1K_V1"
            return self

        def get_state_dict(self, **options):
            assert options["check_hash"]
            asked.append(self.name)
            return theirs[self.name]

    monkeypatch.setattr(imagenet.tv, "get_model_weights", Door)
    trunk = build("squeezenet-features", weights="torchvision")
    first = theirs["squeezenet1_0"]["features.0.weight"]
    assert torch.equal(trunk.body[0].weight, first)
    detector = build("squeezenet-fpn", weights="torchvision")
    assert torch.equal(detector.backbone.body["0"].weight, first)
    residual = build("resnet18-fpn", weights="torchvision")
    mean = theirs["resnet18"]["bn1.running_mean"]
    assert torch.equal(residual.backbone.body["bn1"].running_mean, mean)
    assert asked == ["squeezenet1_0", "squeezenet1_0", "resnet18"]


def test_weights_of_another_network_are_refused():
    """Missing or misshapen: the name and the file are said, nothing is half loaded."""
    body = tv.resnet18(weights=None)
    state = body.state_dict()
    with pytest.raises(ModelError, match=r"w\.pth has no 'layer1\.0\.conv1\.weight'"):
        imagenet.load_body(
            body, {k: v for k, v in state.items() if k != "layer1.0.conv1.weight"}, "w.pth"
        )
    with pytest.raises(ModelError, match=r"'conv1\.weight' is"):
        imagenet.load_body(body, state | {"conv1.weight": torch.zeros(1)}, "w.pth")
    with pytest.raises(ModelError, match="neither None nor 'torchvision'"):
        build("resnet18-features", weights="imagenet.pth")


def test_a_booster_lies_beside_the_network(tmp_path):
    """The folder's booster arrays fill no network, and nothing else may lie there unread."""
    folder = write_region_model(tmp_path / "whole")
    network, info = load_network(folder)
    assert info.architecture == "rbc-cascade"
    assert network.heads.n_types == 6
    assert not any(name.startswith("booster") for name in network.state_dict())
    stray = small_booster().tensors() | {"boosted.roots": np.zeros(3, np.int32)}
    with pytest.raises(ModelError, match=r"boosted\.roots is not part of it"):
        load_network(write_region_model(tmp_path / "stray", beside=stray))
