"""SqueezeNet that also finds the nucleus and its cell, and measures them.

Not a network of the paper. A trunk fine-tuned on a few hundred cells calls a small dark nucleus
of an unseen slide by its stain; its area, outline and colours tell better, and where a nucleus
ends is learnt from few slides. So a light decoder over the trunk's maps outlines nucleus and
cell, a fixed and differentiable arithmetic measures them (the quantities of Jantzen et al. 2005
that an outline gives), and a small head reads the measures. Its logits are added to those of
the usual head.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.squeezenet import Fire

from napari_cellpath.systems.deeppap.network import DeepPapNetwork, squeezenet1_0
from napari_cellpath.systems.deeppap.squeeze_inference import SqueezeInference

TAPS = {4: 128, 9: 384, 12: 512}
"""Places in torchvision's ``features`` whose maps are read, and their channels: 55 x 55, 27 x 27
and 13 x 13 for a crop of 227."""

STRIDE, OFFSET, GRID = 4, 3, 55
"""Pixel 4 i + 5 of a crop lies under place i of the finest maps: bins of four from pixel 3."""

N_MEASURES = 21


class Seen(NamedTuple):
    """What the network makes of a batch of crops.

    Attributes
    ----------
    maps
        (N, 512, 13, 13), the trunk's last.
    by_look, by_measure
        (N, n_classes) logits of either head.
    parts
        (N, 2, 55, 55) logits: how much of each place is nucleus, and cell with its nucleus.
    """

    maps: Tensor
    by_look: Tensor
    by_measure: Tensor
    parts: Tensor


class Outliner(nn.Module):
    """A light decoder: three of the trunk's maps to the logits of nucleus and cell."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(n, width, 1) for n in TAPS.values())
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.out = nn.Conv2d(width, 2, 1)
        for layer in (*self.lateral, self.mix):
            nn.init.kaiming_normal_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.constant_(self.out.get_parameter("bias"), -1.0)

    def forward(self, taps: list[Tensor]) -> Tensor:
        """Logits (N, 2, 55, 55) from the maps of `TAPS`, finest first."""
        laid: list[Tensor] = [layer(tap) for layer, tap in zip(self.lateral, taps, strict=True)]
        total = laid[0]
        for coarse in laid[1:]:
            total = total + F.interpolate(
                coarse, size=total.shape[-2:], mode="bilinear", align_corners=True
            )
        result: Tensor = self.out(F.relu(total + self.mix(F.relu(total))))
        return result


def on_grid(crops: Tensor) -> Tensor:
    """Means over the places of the outline, (N, C, 227, 227) to (N, C, 55, 55)."""
    stop = OFFSET + STRIDE * GRID
    return F.avg_pool2d(crops[..., OFFSET:stop, OFFSET:stop], STRIDE)


def measures(parts: Tensor, colours: Tensor) -> Tensor:
    """Measure outlined nuclei and cells.

    Parameters
    ----------
    parts
        (N, 2, 55, 55) in 0..1: nucleus, and cell with its nucleus.
    colours
        (N, 3, 55, 55), normalised.

    Returns
    -------
    Tensor
        (N, 21): logarithms of nuclear area, cell area and their ratio; colour means and
        deviations in nucleus and cytoplasm; logarithms of the nucleus' long and short axis and
        outline; blur of its outline; its distance from the cell's centre; share of the cell's
        outline that leaves the view. All near 1 in size.
    """
    parts, colours = parts.float(), colours.float()
    nucleus, cell = parts[:, :1], parts.amax(dim=1, keepdim=True)
    cytoplasm = cell - nucleus
    of_nucleus, of_cell = nucleus.sum((2, 3)) + 1.0, cell.sum((2, 3)) + 1.0
    columns = [
        torch.log(of_nucleus / 300.0),
        torch.log(of_cell / 1000.0),
        torch.log(of_nucleus / of_cell) + 1.0,
        *_colour(nucleus, colours),
        *_colour(cytoplasm, colours),
    ]
    axis = torch.linspace(-1.0, 1.0, parts.shape[-1], device=parts.device)
    down, right = axis.view(1, 1, -1, 1), axis.view(1, 1, 1, -1)

    def mean(part: Tensor, of: Tensor, value: Tensor) -> Tensor:
        return (part * value).sum((2, 3)) / of

    y, x = mean(nucleus, of_nucleus, down), mean(nucleus, of_nucleus, right)
    from_y, from_x = down - y[..., None, None], right - x[..., None, None]
    yy = mean(nucleus, of_nucleus, from_y**2) + 1e-4
    xx = mean(nucleus, of_nucleus, from_x**2) + 1e-4
    xy = mean(nucleus, of_nucleus, from_y * from_x)
    middle, spread = (yy + xx) / 2, torch.sqrt((yy - xx) ** 2 / 4 + xy**2 + 1e-8)
    columns += [torch.log(middle + spread) + 4.0, torch.log(middle - spread + 1e-4) + 4.0]
    steps = (nucleus.diff(dim=2).abs().sum((2, 3)) + nucleus.diff(dim=3).abs().sum((2, 3))) + 1.0
    columns.append(torch.log(steps / 70.0))
    columns.append(4.0 * (nucleus * (1.0 - nucleus)).sum((2, 3)) / of_nucleus)
    cell_y, cell_x = mean(cell, of_cell, down), mean(cell, of_cell, right)
    columns.append(2.0 * torch.sqrt((cell_y - y) ** 2 + (cell_x - x) ** 2 + 1e-6))
    frame = cell[..., 0, :].mean(2) + cell[..., -1, :].mean(2)
    columns.append((frame + cell[..., 0].mean(2) + cell[..., -1].mean(2)) / 4.0)
    return torch.cat(columns, dim=1)


def _colour(part: Tensor, colours: Tensor) -> tuple[Tensor, Tensor]:
    total = part.sum((2, 3)) + 1.0
    mean = (part * colours).sum((2, 3)) / total
    variance = (part * (colours - mean[..., None, None]) ** 2).sum((2, 3)) / total
    return mean, torch.sqrt(variance + 1e-4) * 2.0


class PartsNetwork(DeepPapNetwork):
    """A SqueezeNet with an outliner and a second head that reads measures.

    Parameters
    ----------
    base
        The SqueezeNet; its trunk and head keep their names.
    n_classes
        Classes.
    """

    def __init__(self, base: DeepPapNetwork, n_classes: int) -> None:
        super().__init__(base.trunk, base.head, base.mean, base.std)
        self.outliner = Outliner()
        self.reader = nn.Sequential(
            nn.Linear(N_MEASURES, 32), nn.ReLU(inplace=True), nn.Dropout(0.2),
            nn.Linear(32, n_classes),
        )  # fmt: skip

    def see(self, crops: Tensor) -> Seen:
        """Everything about normalised crops (N, 3, 227, 227)."""
        maps, taps = crops, []
        for place, layer in enumerate(self.trunk.children()):
            maps = layer(maps)
            if place in TAPS:
                taps.append(maps)
        parts = self.outliner(taps)
        # Not to be pulled by the classes: an outline that suits a call measures nothing.
        read = self.reader(measures(parts.detach().sigmoid(), on_grid(crops)))
        return Seen(maps, self.head(maps), read, parts)

    def forward(self, crops: Tensor) -> Tensor:
        """Logits (N, n_classes) of normalised crops (N, 3, 227, 227)."""
        seen = self.see(crops)
        return seen.by_look + seen.by_measure


def squeezenet_parts(n_classes: int = 2) -> PartsNetwork:
    """SqueezeNet 1.0 that also measures nucleus and cell, 0.77 M parameters for two classes."""
    base = squeezenet1_0(n_classes)
    assert isinstance(list(base.trunk.children())[4], Fire)  # noqa: S101
    return PartsNetwork(base, n_classes)


class PartsInference(nn.Module):
    """Inference form of a `PartsNetwork`: see `SqueezeInference`."""

    def __init__(self, network: PartsNetwork) -> None:
        super().__init__()
        trunk, head = network.trunk, network.head
        assert isinstance(trunk, nn.Sequential)  # noqa: S101
        assert isinstance(head, nn.Sequential)  # noqa: S101
        final = next(m for m in head if isinstance(m, nn.Conv2d))
        self.look = SqueezeInference(trunk, final)
        fires = [place for place, layer in enumerate(trunk) if isinstance(layer, Fire)]
        self.taps = tuple(fires.index(place) for place in TAPS)
        self.outliner, self.reader = network.outliner, network.reader

    def forward(self, crops: Tensor) -> Tensor:
        """Logits (N, n_classes) of normalised crops (N, 3, 227, 227)."""
        taps = []
        for place, (a, b) in enumerate(self.look.branches(crops)):
            if place in self.taps:
                taps.append(torch.cat([a, b], dim=1))
        parts = self.outliner(taps).sigmoid()
        read: Tensor = self.reader(measures(parts, on_grid(crops)))
        return self.look.classify(a, b) + read
