"""Random views of cells for training, a whole batch at a time, on whatever device holds it.

Each cell lies in memory once, as a `CellWindow`: a square of uint8 pixels round the nucleus,
filled by reflection outside the image, and a mask that says what is image. One bilinear
sample of pixels and mask gives rotation, shift and scale together; the mask then lets every
view choose its own border (zero, reflection, background), so that the black frame of a tight
crop stops being a hint of the class (papers.md 1.13).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from napari_cellpath.core.geometry import edge_of_point
from napari_cellpath.systems.deeppap.presets import PATCH
from napari_cellpath.systems.deeppap.views import CROP, VIEW, enlarge
from training.deeppap_recipe import Augmentation

WINDOW = 248
"""Half of it exceeds sqrt(2) * (64 * 1.2 + 10), the farthest sample of any training view."""

# Ruifrok and Johnston's optical densities of haematoxylin, eosin and DAB (the Papanicolaou
# counterstains are nearer to eosin than to nothing): the axes along which stains vary.
_HED = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_HED = _HED / _HED.norm(dim=1, keepdim=True)
_HED_INVERSE = torch.linalg.inv(_HED)
_LUMA = torch.tensor([0.299, 0.587, 0.114])


class ColourSettings(Protocol):
    """How far stain and colour vary; the recipes of several systems have these keys."""

    @property
    def stain(self) -> float: ...  # noqa: D102
    @property
    def colour(self) -> float: ...  # noqa: D102
    @property
    def hue(self) -> float: ...  # noqa: D102
    @property
    def grey(self) -> float: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class CellWindow:
    """One cell in memory.

    ``pixels`` is (6, S, S) uint8: RGB, then 255 inside the image, on the nucleus, on the whole
    cell (the last two are zero where there is no mask). ``background`` is a colour.
    """

    pixels: NDArray[np.uint8]
    background: NDArray[np.float32]


def background_colour(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Median colour of the brightest quarter of an image, (3,)."""
    flat = image.reshape(-1, 3)
    brightness = flat.astype(np.uint16).sum(axis=1)
    chosen = flat[brightness >= np.quantile(brightness, 0.75)]
    return np.asarray(np.median(chosen, axis=0), dtype=np.float32)


def cut_window(
    image: NDArray[np.uint8],
    centre: tuple[float, float],
    size: int = WINDOW,
    mask: NDArray[np.uint8] | None = None,
) -> CellWindow:
    """Cut the square round a nucleus, reflecting the image beyond its edges.

    Parameters
    ----------
    image
        (H, W, 3) uint8.
    centre
        (row, col), napari point.
    size
        Side in pixels, even.
    mask
        (H, W): 1 cytoplasm, 2 nucleus, else background.
    """
    row, col = edge_of_point(*centre)
    index = []
    inside = []
    for middle, length in ((row, image.shape[0]), (col, image.shape[1])):
        wanted = np.arange(middle - size // 2, middle + size // 2)
        period = max(2 * (length - 1), 1)
        folded = np.abs(wanted) % period if length > 1 else np.zeros_like(wanted)
        folded = np.where(folded >= length, period - folded, folded)
        index.append(folded)
        inside.append((wanted >= 0) & (wanted < length))
    window = image[np.ix_(index[0], index[1])]
    planes = [inside[0][:, None] & inside[1][None, :]]
    if mask is None:
        planes += [np.zeros_like(planes[0])] * 2
    else:
        cut = mask[np.ix_(index[0], index[1])]
        planes += [cut == 2, (cut == 1) | (cut == 2)]
    pixels = np.concatenate([window, np.stack(planes, axis=2).astype(np.uint8) * 255], axis=2)
    pixels = pixels.transpose(2, 0, 1)
    return CellWindow(np.ascontiguousarray(pixels), background_colour(image))


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low


def sample_patches(
    windows: Tensor, angles: Tensor, shifts: Tensor, scales: Tensor, size: int = PATCH
) -> Tensor:
    """Sample one turned, shifted, scaled patch of each window.

    Parameters
    ----------
    windows
        (n, C, S, S) floating point, the nucleus at edge S/2.
    angles
        (n,) degrees, counter-clockwise on screen.
    shifts
        (n, 2) (down, right) in the turned frame, pixels.
    scales
        (n,) window pixels per patch pixel.
    size
        Side of the patch.

    Returns
    -------
    Tensor
        (n, C, size, size), bilinear.
    """
    n, side = angles.shape[0], windows.shape[-1]
    radians = torch.deg2rad(angles)
    cos, sin = radians.cos().view(n, 1, 1), radians.sin().view(n, 1, 1)
    steps = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    down = steps.view(1, size, 1) * scales.view(n, 1, 1) + shifts[:, 0].view(n, 1, 1)
    right = steps.view(1, 1, size) * scales.view(n, 1, 1) + shifts[:, 1].view(n, 1, 1)
    y = down * cos + right * sin
    x = right * cos - down * sin
    grid = (torch.stack([x, y], dim=-1) / (side / 2)).to(windows)
    return F.grid_sample(windows, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def jitter_stain(
    rgb: Tensor, settings: ColourSettings, generator: torch.Generator, n: int
) -> Tensor:
    """Vary stain amounts, brightness, contrast, saturation and hue of (n, 3, H, W) in 0..255."""
    if settings.stain > 0:
        s = settings.stain
        amounts = 1.0 + (torch.rand(n, 3, generator=generator) * 2 - 1) * s
        offsets = (torch.rand(n, 3, generator=generator) * 2 - 1) * s * 0.1
        # density' = density @ inverse @ diag(amounts) @ HED + offsets @ HED
        matrix = (_HED_INVERSE * amounts[:, None, :]) @ _HED  # (n, 3, 3), acting from the right
        shift = offsets @ _HED
        density = -((rgb + 1.0) / 256.0).log()
        turned = torch.einsum("nchw,ncd->ndhw", density, matrix.to(rgb))
        rgb = 256.0 * (-(turned + shift.to(rgb)[:, :, None, None])).exp() - 1.0
    c = settings.colour
    if c > 0:
        brightness = _uniform(n, 1 - c, 1 + c, generator).view(n, 1, 1)
        contrast = _uniform(n, 1 - c, 1 + c, generator).view(n, 1, 1)
        saturation = _uniform(n, 1 - c, 1 + c, generator).view(n, 1, 1)
        grey = torch.rand(n, generator=generator) < settings.grey
        saturation[grey] = 0.0
        angle = _uniform(n, -1, 1, generator) * settings.hue * 2 * math.pi
        matrix = _colour_matrices(saturation, angle) * contrast * brightness
        mean = rgb.mean(dim=(2, 3)) @ _LUMA.to(rgb)
        level = mean * (1 - contrast.view(n).to(rgb)) * brightness.view(n).to(rgb)
        rgb = torch.einsum("nchw,ndc->ndhw", rgb, matrix.to(rgb)) + level.view(n, 1, 1, 1)
    return rgb.clamp_(0.0, 255.0)


def vary_parts(rgb: Tensor, parts: Tensor, spread: float, generator: torch.Generator) -> Tensor:
    """Darken or lighten nucleus, cytoplasm and surroundings, each by a factor of its own.

    Parameters
    ----------
    rgb
        (n, 3, H, W) in 0..255.
    parts
        (n, 2, H, W) in 0..1: nucleus, and cell with its nucleus.
    spread
        Optical densities are multiplied by up to exp(+-spread).
    generator
        CPU generator.
    """
    n = len(rgb)
    amount = _uniform(3 * n, -spread, spread, generator).view(n, 3, 1, 1).to(rgb)
    nucleus, cell = parts[:, :1], parts.amax(dim=1, keepdim=True)
    areas = torch.cat([nucleus, cell - nucleus, 1.0 - cell], dim=1)
    power = (areas * amount).sum(dim=1, keepdim=True)
    for _ in range(2):  # no edge may be drawn where a hand once drew the mask
        power = mean_of_seven(power)
    power = power.exp()
    return (rgb / 255.0).clamp(min=0.0) ** power * 255.0


def mean_of_seven(maps: Tensor) -> Tensor:
    """Means over 7 x 7 places of (n, C, H, W), edges repeated.

    Shifted adds take a sixteenth of the time of avg_pool2d.
    """
    maps = F.pad(maps, (3, 3, 3, 3), mode="replicate")
    for along in (-1, -2):
        length = maps.shape[along]
        pairs = maps.narrow(along, 0, length - 1) + maps.narrow(along, 1, length - 1)
        first, second, third, last = (
            part.narrow(along, start, length - 6)
            for part, start in ((pairs, 0), (pairs, 2), (pairs, 4), (maps, 6))
        )
        maps = first + second + third + last
    return maps / 49.0


def blur_views(rgb: Tensor, sigmas: Tensor) -> Tensor:
    """Blur each of (n, C, H, W) by its own Gaussian; sigma 0 leaves it as it is."""
    n, channels = rgb.shape[:2]
    steps = torch.arange(-4, 5, dtype=torch.float32)
    kernels = torch.exp(-0.5 * (steps / sigmas.clamp(min=1e-3)[:, None]) ** 2)
    kernels = (kernels / kernels.sum(dim=1, keepdim=True)).to(rgb)
    kernels = kernels.repeat_interleave(channels, dim=0)
    flat = rgb.reshape(1, n * channels, *rgb.shape[2:])
    flat = F.pad(flat, (4, 4, 4, 4), mode="replicate")
    flat = F.conv2d(flat, kernels[:, None, :, None], groups=n * channels)
    flat = F.conv2d(flat, kernels[:, None, None, :], groups=n * channels)
    return flat.view_as(rgb)


def mix_styles(maps: Tensor) -> Tensor:
    """Give each of (n, C, H, W) part of another's channel means and deviations (MixStyle)."""
    mean = maps.mean(dim=(2, 3), keepdim=True).detach()
    deviation = maps.var(dim=(2, 3), keepdim=True).add(1e-6).sqrt().detach()
    share = torch.distributions.Beta(0.1, 0.1).sample((maps.shape[0], 1, 1, 1)).to(maps)
    other = torch.randperm(maps.shape[0])
    mixed_mean = share * mean + (1 - share) * mean[other]
    mixed_deviation = share * deviation + (1 - share) * deviation[other]
    return (maps - mean) / deviation * mixed_deviation + mixed_mean


def _colour_matrices(saturation: Tensor, angle: Tensor) -> Tensor:
    """(n, 3, 3) matrices that scale saturation about luma and turn hue about the grey axis."""
    n = angle.shape[0]
    grey = _LUMA.expand(n, 3, 3)
    mixed = saturation * torch.eye(3).expand(n, 3, 3) + (1 - saturation) * grey
    cos, sin = angle.cos().view(n, 1, 1), angle.sin().view(n, 1, 1)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    turn = cos * torch.eye(3) + sin * cross + (1 - cos) * torch.full((3, 3), 1 / 3)
    return mixed @ turn


def random_views(
    windows: Tensor,
    backgrounds: Tensor,
    settings: Augmentation,
    generator: torch.Generator,
    *,
    mirrored_parts: bool = True,
) -> Tensor:
    """One random training view of every cell (papers.md 1.3, 1.8).

    Parameters
    ----------
    windows
        (n, 6, S, S) uint8, see `CellWindow`.
    backgrounds
        (n, 3), 0..255.
    settings
        How far each kind of change goes.
    generator
        CPU generator; the same state gives the same crops on every device.
    mirrored_parts
        Whether nucleus and cell are told where a reflecting border repeats them. False: only
        inside the image, as they are.

    Returns
    -------
    Tensor
        (n, 5, 256, 256) float on the windows' device: RGB in 0..255, and how much of each
        pixel is nucleus and cell, in 0..1. Normalise the RGB, then cut with `random_crops`.
    """
    n = windows.shape[0]
    if settings.angles > 0:
        angles = torch.randint(settings.angles, (n,), generator=generator) * 360.0 / settings.angles
    else:
        angles = _uniform(n, 0, 360, generator)
    shifts = (torch.rand(n, 2, generator=generator) * 2 - 1) * settings.max_shift
    scales = torch.exp2(_uniform(n, -1, 1, generator) * math.log2(1 + settings.scale))
    sampled = sample_patches(windows.float(), angles, shifts, scales)
    rgb, mask, parts = sampled[:, :3], sampled[:, 3:4] / 255.0, sampled[:, 4:] / 255.0
    share = torch.tensor(settings.borders.shares())
    kind = torch.multinomial(share, n, replacement=True, generator=generator).to(rgb.device)
    # Outside the image the window holds a reflection: keep it (1), or put black (0) or the
    # background there. The stain varies before the border is drawn: black stays black.
    fill = (kind == 2).view(n, 1, 1, 1)
    inside = torch.where((kind == 1).view(n, 1, 1, 1), torch.ones_like(mask), mask)
    ground = backgrounds.to(rgb)[:, :, None, None].expand_as(rgb)
    rgb = torch.where(fill, rgb * inside + ground * (1 - inside), rgb)
    if settings.parts > 0:
        rgb = vary_parts(rgb, parts, settings.parts, generator)
    rgb = jitter_stain(rgb, settings, generator, n)
    if settings.blur > 0:
        sigmas = _uniform(n, 0, settings.blur, generator)
        rgb = blur_views(rgb, sigmas * (torch.rand(n, generator=generator) < 0.5))
    rgb = torch.where(fill, rgb, rgb * inside)
    told = inside if mirrored_parts else mask
    return enlarge(torch.cat([rgb, parts * told], dim=1))


def random_crops(
    views: Tensor, generator: torch.Generator, crop: int = CROP, *, at_random: bool = True
) -> Tensor:
    """Cut 227 x 227 of each (n, C, 256, 256) view at random and mirror every second.

    With ``at_random`` false: the middle, never mirrored.
    """
    n, room = views.shape[0], VIEW - crop
    if not at_random:
        middle = round(room / 2)
        piece = views[..., middle : middle + crop, middle : middle + crop]
        return piece.contiguous(memory_format=torch.channels_last)
    offsets = torch.randint(room + 1, (n, 2), generator=generator).tolist()
    mirrored = (torch.rand(n, generator=generator) < 0.5).tolist()
    out = torch.empty(
        (n, views.shape[1], crop, crop), dtype=views.dtype, device=views.device,
        memory_format=torch.channels_last,
    )  # fmt: skip
    for place, view, (top, left), flip in zip(out, views, offsets, mirrored, strict=True):
        piece = view[:, top : top + crop, left : left + crop]
        place.copy_(piece.flip(-1) if flip else piece)
    return out
