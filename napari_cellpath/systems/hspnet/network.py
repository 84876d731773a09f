"""HSP-Net: an ImageNet encoder, one DS-Block a stage, and a head over all of them (papers.md 3.2).

::

    image ─► stage 1 ─► stage 2 ─► stage 3 ─► stage 4        strides 4, 8, 16, 32
               │DS1       │DS2       │DS3       │DS4          32, 64, 128, 256 channels
               └──────────┴────┬─────┴──────────┘             up-sampled to stride 4, joined
                               ▼
                3x3 480→256 ─► DS5 ─► 3x3 ─► 3x3 ─► 1x1 ─► up-sampled to the image

This is reading B of the paper's text, the one that its parameter count identifies (papers.md 3.3);
the classifier of 1,000 classes that its count includes is not built.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models as tv
from torchvision.models.squeezenet import Fire

from napari_cellpath.systems.hspnet.tiles import TILE as TILE  # said here too: what training crops

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

RATES = (6, 12, 18)
"""Dilations of a DS-Block's three wide branches, whatever the stride."""
STAGE_CHANNELS = (32, 64, 128, 256)
"""Output channels of DS-Blocks 1 to 4."""
HEAD_CHANNELS = 256

Encoder = Literal["resnet18", "resnet34", "resnet101", "squeezenet1_0"]


class WideConv(nn.Conv2d):
    """A 3x3 convolution whose dilation may shrink to the map it is given.

    On a 13 x 13 map (stage 4 of a 400-pixel tile) a dilation of 18 reaches beyond the border from
    everywhere: eight of nine taps see zeros only (papers.md 3.10, fact 4). ``clip`` takes the
    widest dilation at which all nine see something; without it the paper's stays.
    """

    def __init__(self, inputs: int, outputs: int, rate: int, clip: bool) -> None:
        super().__init__(inputs, outputs, 3, padding=rate, dilation=rate, bias=False)
        self.rate, self.clip = rate, clip

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H, W)."""
        rate = (
            max(1, min(self.rate, *(side - 1 for side in x.shape[2:]))) if self.clip else self.rate
        )
        return F.conv2d(x, self.weight, self.bias, padding=rate, dilation=rate)


def _normalised(convolution: nn.Conv2d) -> nn.Sequential:
    """A convolution, its batch normalisation and ReLU."""
    return nn.Sequential(
        convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True)
    )


def _point(inputs: int, outputs: int) -> nn.Sequential:
    return _normalised(nn.Conv2d(inputs, outputs, 1, bias=False))


def _three(inputs: int, outputs: int) -> nn.Sequential:
    return _normalised(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))


class DSBlock(nn.Module):
    """Five views of one map, joined: its mean, itself, and itself at three dilations.

    ``29 c c' + 5 c'^2 + 12 c'`` parameters. Training needs a batch of two at least: the mean
    branch normalises over one number an image.
    """

    def __init__(self, inputs: int, outputs: int, clip_dilation: bool = False) -> None:
        super().__init__()
        self.mean = _point(inputs, outputs)
        self.same = _point(inputs, outputs)
        self.wide = nn.ModuleList(
            _normalised(WideConv(inputs, outputs, rate, clip_dilation)) for rate in RATES
        )
        self.join = _point((2 + len(RATES)) * outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H, W), for any H and W from 1 on."""
        mean = self.mean(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        joined: Tensor = self.join(
            torch.cat([mean, self.same(x), *(branch(x) for branch in self.wide)], dim=1)
        )
        return joined


class ResNetEncoder(nn.Module):
    """torchvision's ResNet without its classifier; its tensors keep torchvision's names."""

    def __init__(self, name: str) -> None:
        super().__init__()
        net = getattr(tv, name)(weights=None)
        for part in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            self.add_module(part, getattr(net, part))
        narrow = net.layer1[-1].conv1.out_channels
        widen = net.layer1[-1].expansion
        self.channels = tuple(narrow * widen * 2**stage for stage in range(4))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Outputs of the four stages, at strides 4, 8, 16 and 32 (sizes rounded up)."""
        for part in ("conv1", "bn1", "relu", "maxpool"):
            x = self.get_submodule(part)(x)
        stages = []
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            x = self.get_submodule(stage)(x)
            stages.append(x)
        return stages


class SqueezeNetEncoder(nn.Module):
    """torchvision's SqueezeNet 1.0 as four stages; not of the paper, small enough for a CPU.

    Its convolutions keep torchvision's names. The first one and the poolings are padded as
    ResNet's are, so that a map's pixels lie where up-sampling expects them and any image size
    works. Stage 4, a pooling and a fire module, is new: SqueezeNet itself ends at stride 16.
    """

    channels = (256, 512, 512, 512)
    _ENDS = (6, 11, 13)  # of stages 1, 2 and 3 in torchvision's list of layers

    def __init__(self) -> None:
        super().__init__()
        layers = list(tv.squeezenet1_0(weights=None).features)
        for at, layer in enumerate(layers):
            if isinstance(layer, nn.MaxPool2d):
                layers[at] = nn.MaxPool2d(3, 2, padding=1)
        first = layers[0]
        if isinstance(first, nn.Conv2d):
            first.padding = (3, 3)
        self.features = nn.Sequential(*layers)
        self.last = nn.Sequential(nn.MaxPool2d(3, 2, padding=1), Fire(512, 64, 256, 256))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Outputs of the four stages, at strides 4, 8, 16 and 32 (sizes rounded up)."""
        stages, begin = [], 0
        for end in self._ENDS:
            x = self.features[begin:end](x)
            stages.append(x)
            begin = end
        return [*stages, self.last(x)]


def _encoder(name: Encoder) -> ResNetEncoder | SqueezeNetEncoder:
    return SqueezeNetEncoder() if name == "squeezenet1_0" else ResNetEncoder(name)


class HSPNet(nn.Module):
    """The whole network, with the normalisation that its encoder was trained with.

    Parameters
    ----------
    encoder
        Which ImageNet network the stages are taken from.
    n_classes
        Classes, background included where there is one.
    ds14, ds5
        The paper's ablations: without, a 1x1 convolution stands in the DS-Blocks' place.
    clip_dilation
        See `WideConv`.
    width
        Scales the channels of everything behind the encoder; 1 is the paper.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        encoder: Encoder,
        n_classes: int,
        *,
        ds14: bool = True,
        ds5: bool = True,
        clip_dilation: bool = False,
        width: float = 1.0,
    ) -> None:
        super().__init__()

        def block(deep: bool, inputs: int, outputs: int) -> nn.Module:
            return DSBlock(inputs, outputs, clip_dilation) if deep else _point(inputs, outputs)

        def scaled(channels: int) -> int:
            return max(4, round(channels * width / 4) * 4)

        outputs, head = [scaled(c) for c in STAGE_CHANNELS], scaled(HEAD_CHANNELS)
        self.encoder = _encoder(encoder)
        self.stages = nn.ModuleList(
            block(ds14, c, out) for c, out in zip(self.encoder.channels, outputs, strict=True)
        )
        self.head = nn.Sequential(
            _three(sum(outputs), head),
            block(ds5, head, head),
            _three(head, head),
            _three(head, head),
            nn.Conv2d(head, n_classes, 1),
        )
        self._initialise_new()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1) * 255)

    def _initialise_new(self) -> None:
        for part in (self.stages, self.head):
            for layer in part.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                    if layer.bias is not None:
                        nn.init.zeros_(layer.bias)

    def normalise(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in 0..255, of any type, to what the encoder was trained on."""
        return (images.to(self.mean.dtype) - self.mean) / self.std

    def features(self, normalised: Tensor) -> Tensor:
        """What the last 1x1 convolution sees of normalised images: (N, C, H/4, W/4)."""
        maps = [
            block(stage) for block, stage in zip(self.stages, self.encoder(normalised), strict=True)
        ]
        size = maps[0].shape[2:]
        spread = [
            m if m.shape[2:] == size else F.interpolate(m, size, mode="bilinear") for m in maps
        ]
        seen: Tensor = self.head[:-1](torch.cat(spread, dim=1))
        return seen

    def classify(self, normalised: Tensor) -> Tensor:
        """Logits (N, n_classes, H, W) of normalised images."""
        logits = self.head[-1](self.features(normalised))
        return F.interpolate(logits, normalised.shape[2:], mode="bilinear")

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, n_classes, H, W) of images (N, 3, H, W) in 0..255, for any H and W."""
        return self.classify(self.normalise(images))


def hspnet_resnet101(n_classes: int = 5, **options: bool | float) -> HSPNet:
    """The paper's network: 67,654,085 parameters for its five classes; options of `HSPNet`."""
    return HSPNet("resnet101", n_classes, **options)  # type: ignore[arg-type]


def hspnet_resnet34(n_classes: int = 5, **options: bool | float) -> HSPNet:
    """The paper's smaller one: 31,293,637 parameters for five classes; options of `HSPNet`."""
    return HSPNet("resnet34", n_classes, **options)  # type: ignore[arg-type]


def hspnet_resnet18(n_classes: int = 5, **options: bool | float) -> HSPNet:
    """The same over ResNet-18; not of the paper; options of `HSPNet`."""
    return HSPNet("resnet18", n_classes, **options)  # type: ignore[arg-type]


def hspnet_squeezenet(n_classes: int = 5, **options: bool | float) -> HSPNet:
    """The same over SqueezeNet 1.0; not of the paper; options of `HSPNet`."""
    return HSPNet("squeezenet1_0", n_classes, **options)  # type: ignore[arg-type]


def load_imagenet(network: HSPNet, state: dict[str, Tensor]) -> None:
    """Load torchvision's ImageNet weights of the encoder's own architecture into it.

    Parameters
    ----------
    network
        Any of the above.
    state
        ``tv.ResNet34_Weights.IMAGENET1K_V1.get_state_dict()`` and the like, classifier included
        or not.

    Raises
    ------
    ValueError
        Tensors of the encoder are missing or of another shape; those new to it keep their values.
    """
    kept = {k: v for k, v in state.items() if not k.startswith(("fc.", "classifier."))}
    expected = network.encoder.state_dict()
    wrong = [k for k in expected if k not in kept and not k.startswith("last.")]
    wrong += [k for k, v in kept.items() if k not in expected or v.shape != expected[k].shape]
    if wrong:
        raise ValueError(f"the weights do not fit the encoder: {', '.join(sorted(wrong)[:5])}")
    network.encoder.load_state_dict(kept, strict=False)


def imagenet_weights(architecture: str) -> dict[str, Tensor]:
    """Torchvision's ImageNet weights for an architecture of the catalogue; downloads them once.

    The hash in torchvision's file name is checked.
    """
    names: dict[str, str] = {
        "hspnet-resnet101": "ResNet101_Weights",
        "hspnet-resnet34": "ResNet34_Weights",
        "hspnet-resnet18": "ResNet18_Weights",
        "hspnet-squeezenet": "SqueezeNet1_0_Weights",
    }
    weights = getattr(tv, names[architecture]).IMAGENET1K_V1
    state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    return state


def parameter_groups(network: HSPNet, encoder_rate: float, ratio: float = 10.0) -> Sequence[dict]:
    """Parameters in the paper's two groups: the encoder's, and all others at ``ratio`` its rate."""
    return [
        {"params": list(network.encoder.parameters()), "lr": encoder_rate},
        {
            "params": [*network.stages.parameters(), *network.head.parameters()],
            "lr": ratio * encoder_rate,
        },
    ]
