"""The networks DeepPap can run: ConvNet-T of the paper, and two other ImageNet backbones.

Every network takes 227 x 227 RGB crops in 0..255 that have already been normalised by its own
`DeepPapNetwork.normalise`, and gives one logit a class.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision import models as tv

from napari_cellpath.systems.deeppap.presets import CROP as CROP
from napari_cellpath.systems.deeppap.presets import VIEW as VIEW

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class AcrossChannelLRN(nn.Module):
    """Local response normalisation across channels, as Caffe and ``nn.LocalResponseNorm``.

    ``x / (k + alpha / n * sum of x^2 over n neighbouring channels) ** beta``. Written with
    shifted adds: torch's own goes through ``avg_pool3d``, is five times slower on a CPU and has
    no bfloat16 kernel there.
    """

    def __init__(self, n: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.n, self.alpha, self.beta, self.k = n, alpha, beta, k

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W); the sum over channels is taken in at least float32."""
        half = self.n // 2
        squares = x.float().square() if x.dtype in (torch.bfloat16, torch.float16) else x.square()
        total = squares.clone()
        for shift in range(1, half + 1):
            total[:, shift:] += squares[:, :-shift]
            total[:, :-shift] += squares[:, shift:]
        scale = total.mul_(self.alpha / self.n).add_(self.k)
        if self.beta == 0.75:  # two square roots cost a fraction of pow
            root = scale.sqrt_()
            scale = root * root.sqrt()
        else:
            scale = scale.pow_(self.beta)
        return x / scale.to(x.dtype)


class DeepPapNetwork(nn.Module):
    """A trunk, a head, and the normalisation they were trained with.

    Parameters
    ----------
    trunk
        Maps (N, 3, 227, 227) to features.
    head
        Maps features to (N, n_classes) logits.
    mean, std
        (3, 1, 1) or, for the paper's mean image, (3, 256, 256); in 0..255. They are buffers:
        they travel with the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, trunk: nn.Module, head: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def normalise(self, views: Tensor) -> Tensor:
        """Subtract the mean and divide by the deviation, (N, 3, 256, 256) in 0..255.

        Done on whole views, before cropping, so that the mean image is cropped at the same
        offset as the patch (Caffe's semantics).
        """
        return (views - self.mean) / self.std

    def forward(self, crops: Tensor) -> Tensor:
        """Logits (N, n_classes) of normalised crops (N, 3, 227, 227)."""
        logits: Tensor = self.head(self.trunk(crops))
        return logits


def _head_of_three(n_features: int, n_classes: int) -> nn.Sequential:
    """Build fc6-fc7-fc8: 9216-1024-256-K with ReLU and dropout (papers.md Table II)."""
    fc6, fc7, fc8 = nn.Linear(n_features, 1024), nn.Linear(1024, 256), nn.Linear(256, n_classes)
    # CaffeNet's train_val.prototxt: Gaussian of 0.005 (fc6, fc7) and 0.01 (fc8).
    for layer, deviation in ((fc6, 0.005), (fc7, 0.005), (fc8, 0.01)):
        nn.init.normal_(layer.weight, std=deviation)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(
        nn.Flatten(),
        fc6, nn.ReLU(inplace=True), nn.Dropout(0.5),
        fc7, nn.ReLU(inplace=True), nn.Dropout(0.5),
        fc8,
    )  # fmt: skip


class ConvNetTTrunk(nn.Sequential):
    """conv1..pool5 of CaffeNet: conv, ReLU, max-pool, then LRN (papers.md 1.6).

    CaffeNet pools before it normalises, AlexNet after; the weights are CaffeNet's. Pooling
    rounds up as Caffe does. Named children ``conv1`` .. ``conv5`` so that a state dict reads
    like the prototxt. ``width`` scales the channels, for tests.
    """

    def __init__(self, groups: int = 2, width: float = 1.0) -> None:
        def w(channels: int) -> int:
            return max(groups * 2, int(channels * width) // groups * groups)

        def pool() -> nn.MaxPool2d:
            return nn.MaxPool2d(3, 2, ceil_mode=True)

        c1, c2, c3, c4, c5 = w(96), w(256), w(384), w(384), w(256)
        layers: dict[str, nn.Module] = {
            "conv1": nn.Conv2d(3, c1, 11, stride=4),
            "relu1": nn.ReLU(inplace=True),
            "pool1": pool(),
            "norm1": AcrossChannelLRN(),
            "conv2": nn.Conv2d(c1, c2, 5, padding=2, groups=groups),
            "relu2": nn.ReLU(inplace=True),
            "pool2": pool(),
            "norm2": AcrossChannelLRN(),
            "conv3": nn.Conv2d(c2, c3, 3, padding=1),
            "relu3": nn.ReLU(inplace=True),
            "conv4": nn.Conv2d(c3, c4, 3, padding=1, groups=groups),
            "relu4": nn.ReLU(inplace=True),
            "conv5": nn.Conv2d(c4, c5, 3, padding=1, groups=groups),
            "relu5": nn.ReLU(inplace=True),
            "pool5": pool(),
        }
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.out_features = c5 * 6 * 6


def convnet_t(
    n_classes: int = 2,
    groups: int = 2,
    width: float = 1.0,
    mean: Sequence[float] | str = (128.0, 128.0, 128.0),
) -> DeepPapNetwork:
    """ConvNet-T: 12,035,202 parameters for two classes (papers.md 1.6).

    Parameters
    ----------
    n_classes
        Two, or Herlev's seven.
    groups
        Of conv2, conv4 and conv5; 2 is needed to load CaffeNet.
    width
        Channel multiplier of the trunk, for tests.
    mean
        Mean pixel in 0..255, or ``"image"`` for a (3, 256, 256) mean image that the training
        or the weights file fills in (the paper's).
    """
    trunk = ConvNetTTrunk(groups, width)
    shape = torch.zeros(3, VIEW, VIEW) if mean == "image" else torch.tensor(mean).view(3, 1, 1)
    return DeepPapNetwork(
        trunk, _head_of_three(trunk.out_features, n_classes), shape, torch.ones(3, 1, 1)
    )


def _imagenet_statistics() -> tuple[Tensor, Tensor]:
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1) * 255
    return mean, torch.tensor(IMAGENET_STD).view(3, 1, 1) * 255


def alexnet_tv(n_classes: int = 2) -> DeepPapNetwork:
    """Torchvision's AlexNet trunk under the paper's 9216-1024-256-K head.

    Not CaffeNet: 64/192/384/256/256 channels, no LRN, no groups (papers.md 1.7). Its feature
    map of a 227 crop is also 256 x 6 x 6.
    """
    trunk = tv.alexnet(weights=None).features
    return DeepPapNetwork(trunk, _head_of_three(256 * 6 * 6, n_classes), *_imagenet_statistics())


def squeezenet1_0(n_classes: int = 2) -> DeepPapNetwork:
    """SqueezeNet 1.0, 0.74 M parameters for two classes: small enough for any laptop.

    Not a backbone of the paper. The head is SqueezeNet's own: dropout, 1x1 convolution, global
    average.
    """
    trunk = tv.squeezenet1_0(weights=None).features
    final = nn.Conv2d(512, n_classes, 1)
    nn.init.normal_(final.weight, std=0.01)
    nn.init.constant_(final.get_parameter("bias"), 0.0)
    head = nn.Sequential(nn.Dropout(0.5), final, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return DeepPapNetwork(trunk, head, *_imagenet_statistics())


def parameter_count(module: nn.Module) -> int:
    """Count learnable numbers; buffers (means, running statistics) do not count."""
    return sum(p.numel() for p in module.parameters())
