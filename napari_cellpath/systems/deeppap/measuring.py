"""A SqueezeNet that also measures: how large the nucleus is, and how much cell the crop shows.

Not a network of the paper. A trunk fine-tuned on a few hundred cells calls a cell of an unseen
slide partly by its stain. Two numbers of the published twenty (Jantzen et al. 2005) carry most of
what is left, the areas of nucleus and cytoplasm, and where a nucleus ends is learnt from few
slides. So a second, small network that was taught outlines alone measures both, and the two
logarithms go to the head as two maps beside the trunk's. Colours and shapes read off the same
outlines were worse than the areas on slides never seen: they bring the stain back in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models as tv

from napari_cellpath.systems.deeppap.network import DeepPapNetwork, squeezenet1_0
from napari_cellpath.systems.deeppap.squeeze_inference import (
    SqueezeFeatures,
    flat_classifier,
    weigh,
)

N_MEASURES = 2
GRID = 54
"""Places a side of an outline for a crop of 227: one to about two pixels of the patch."""
USUAL_NUCLEUS, USUAL_CYTOPLASM = 400.0, 900.0
"""Places; the measures are logarithms of ratios to these, so that they lie near nought."""


class _Up(nn.Module):
    """Coarse maps brought to the size of finer ones and mixed with them."""

    def __init__(self, coarse: int, fine: int, width: int) -> None:
        super().__init__()
        self.coarse, self.fine = nn.Conv2d(coarse, width, 1), nn.Conv2d(fine, width, 1)
        self.mix = nn.Conv2d(2 * width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        laid = F.interpolate(
            self.coarse(coarse), size=fine.shape[-2:], mode="bilinear", align_corners=False
        )
        mixed = self.mix(torch.cat([laid, self.fine(fine)], dim=1))
        return F.relu(self.norm(mixed), inplace=True)


class Measurer(nn.Module):
    """Outlines nucleus and cell of crops and measures them.

    SqueezeNet's layers at half the resolution of the crops (the patch's own), and a decoder.
    """

    def __init__(self) -> None:
        super().__init__()
        layers = tv.squeezenet1_0(weights=None).features
        self.entry, self.first = layers[:2], layers[2:6]
        self.second, self.third = layers[6:11], layers[11:]
        self.up2, self.up1, self.up0 = _Up(512, 512, 64), _Up(64, 256, 48), _Up(48, 96, 24)
        self.out = nn.Conv2d(24, 2, 1)

    def take_trunk(self, state: Mapping[str, Tensor]) -> None:
        """Start from the layers of a SqueezeNet: tensors named as in torchvision's ``features``."""
        own = self.state_dict()
        parts = ("entry.", "first.", "second.", "third.")
        taken = {name: state[name.partition(".")[2]] for name in own if name.startswith(parts)}
        self.load_state_dict({**own, **taken})

    def decoder_parameters(self) -> list[nn.Parameter]:
        """What does not come from SqueezeNet."""
        layers = (self.up2, self.up1, self.up0, self.out)
        return [parameter for layer in layers for parameter in layer.parameters()]

    def outlines(self, crops: Tensor) -> Tensor:
        """Logits (N, 2, 54, 54) of normalised crops (N, 3, 227, 227): nucleus; cell with it."""
        entry = self.entry(F.avg_pool2d(crops, 2))
        first = self.first(entry)
        second = self.second(first)
        up = self.up1(self.up2(self.third(second), second), first)
        logits: Tensor = self.out(self.up0(up, entry))
        return logits

    def forward(self, crops: Tensor) -> Tensor:
        """Logarithms (N, 2) of the areas of nucleus and cytoplasm, of the usual ones."""
        return areas(self.outlines(crops).float().sigmoid())


def areas(parts: Tensor) -> Tensor:
    """Logarithms (N, 2) of the areas of nucleus and cytoplasm of outlines (N, 2, h, w) in 0..1."""
    nucleus, cell = parts[:, 0], parts.amax(dim=1)
    of_nucleus, of_rest = nucleus.sum((1, 2)), (cell - nucleus).sum((1, 2))
    return torch.stack(
        [
            ((of_nucleus + 4.0) / USUAL_NUCLEUS).log(),
            ((of_rest + 4.0) / USUAL_CYTOPLASM).log(),
        ],
        dim=1,
    )


class MeasuredTrunk(nn.Module):
    """A trunk whose maps have two more channels, the measures, the same at every place.

    Whatever reads the maps, the head, fine-tuning, disagreement between neighbours, reads the
    measures with them.
    """

    def __init__(self, look: nn.Module, measurer: Measurer) -> None:
        super().__init__()
        self.look, self.measurer = look, measurer
        self.measurer.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> MeasuredTrunk:
        """Set the mode of the look; the measurer stays as it was taught."""
        super().train(mode)
        self.measurer.eval()
        return self

    def forward(self, crops: Tensor) -> Tensor:
        """Maps (N, 512 + 2, 13, 13) of normalised crops (N, 3, 227, 227)."""
        maps = self.look(crops)
        return beside(maps, self.measurer(crops))


def beside(maps: Tensor, measures: Tensor) -> Tensor:
    """Maps (N, C, h, w) with measures (N, m) as m more channels."""
    flat = measures.to(maps.dtype)[:, :, None, None].expand(-1, -1, *maps.shape[-2:])
    return torch.cat([maps, flat], dim=1)


def squeezenet1_0_measured(n_classes: int = 2) -> DeepPapNetwork:
    """SqueezeNet 1.0 with a `Measurer`, 1.6 M parameters for two classes."""
    base = squeezenet1_0(n_classes)
    return measured(base, Measurer())


def measured(look: DeepPapNetwork, measurer: Measurer) -> DeepPapNetwork:
    """A trained SqueezeNet and a trained measurer as one network; it says what the first says.

    The measures have no weight yet; `fuse` gives them theirs.
    """
    old = final_layer(look.head)
    final = nn.Conv2d(old.in_channels + N_MEASURES, old.out_channels, 1)
    with torch.no_grad():
        final.weight.zero_()
        final.weight[:, : old.in_channels] = old.weight
        final.get_parameter("bias").copy_(old.get_parameter("bias"))
    head = nn.Sequential(nn.Dropout(0.5), final, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return DeepPapNetwork(MeasuredTrunk(look.trunk, measurer), head, look.mean, look.std)


def fuse(network: DeepPapNetwork, scale: float, weights: Sequence[float], bias: float) -> None:
    """Have a two-class `measured` network weigh its measures, in place.

    Where it gave logits whose difference is z, it then gives ones whose difference is
    ``scale * z + weights @ measures + bias``.

    Raises
    ------
    ValueError
        The network tells other than two classes apart.
    """
    final = final_layer(network.head)
    if final.out_channels != 2:
        raise ValueError(f"measures are weighed for two classes, not {final.out_channels}")
    given = final.get_parameter("bias")
    with torch.no_grad():
        final.weight.mul_(scale)
        given.mul_(scale)
        final.weight[1, -N_MEASURES:, 0, 0] += torch.tensor(list(weights))
        given[1] += bias


def final_layer(head: nn.Module) -> nn.Conv2d:
    """The 1 x 1 convolution of a SqueezeNet head."""
    return next(layer for layer in head.modules() if isinstance(layer, nn.Conv2d))


class MeasuredInference(nn.Module):
    """Inference form of a `measured` network; (N, 3, 227, 227) to logits."""

    def __init__(self, trunk: MeasuredTrunk, head: nn.Module) -> None:
        super().__init__()
        assert isinstance(trunk.look, nn.Sequential)  # noqa: S101
        self.look = SqueezeFeatures(trunk.look)
        self.measurer = trunk.measurer
        self.classifier = flat_classifier(final_layer(head))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, n_classes)."""
        seen = self.look(x)
        features = torch.cat([seen, self.measurer(x).to(seen.dtype)], dim=1)
        return weigh(self.classifier, features)
