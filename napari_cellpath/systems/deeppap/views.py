"""The views of a cell: rotations about the nucleus, shifts, ten crops (papers.md 1.3, 1.4).

Geometry in one place. A *window* is a square of 212 x 212 pixels (`presets.WINDOW`) at the
model's scale whose middle edge is the nucleus centre; it holds every pixel any view can touch
(a 128-px patch shifted by 10 px and turned by any angle stays within 106 px of the centre).

All coordinates are edge coordinates, so right-angle turns permute pixels exactly and are done
by ``rot90``; other angles are one bilinear affine warp to 128 x 128 with zeros outside,
followed by a bilinear resize to 256 x 256 (half-pixel centres).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_cellpath.systems.deeppap.presets import CROP, PATCH, VIEW, ViewSpec


def rotate_patch(window: Tensor, angle: float, shift: tuple[int, int]) -> Tensor:
    """Rotate the window by ``angle`` degrees about its middle and crop the shifted 128 patch.

    Parameters
    ----------
    window
        (3, WINDOW, WINDOW), floating point.
    angle
        Degrees; the content turns counter-clockwise as seen on screen, like ``np.rot90``.
    shift
        (down, right) offset of the patch centre in the rotated frame, whole pixels.

    Returns
    -------
    Tensor
        (3, 128, 128). Exact (a permutation of pixels) for multiples of 90 degrees.
    """
    middle = window.shape[-1] // 2
    top, left = middle - PATCH // 2 + shift[0], middle - PATCH // 2 + shift[1]
    quarter, rest = divmod(angle % 360.0, 90.0)
    if rest == 0.0:
        turned = torch.rot90(window, int(quarter), (-2, -1))
        return turned[..., top : top + PATCH, left : left + PATCH]
    return warp(window, torch.tensor([angle]), torch.tensor([shift]))[0]


def warp(window: Tensor, angles: Tensor, shifts: Tensor) -> Tensor:
    """Sample 128 x 128 patches of one window for many angles at once.

    Parameters
    ----------
    window
        (3, S, S), floating point; S even, the nucleus at edge S/2.
    angles
        (n,) degrees.
    shifts
        (n, 2) (down, right) in the rotated frame.

    Returns
    -------
    Tensor
        (n, 3, 128, 128); zero where a sample lies outside the window.
    """
    n, size = angles.shape[0], window.shape[-1]
    dtype, device = window.dtype, window.device
    radians = torch.deg2rad(angles.to(torch.float64))
    cos, sin = radians.cos().view(n, 1, 1), radians.sin().view(n, 1, 1)
    steps = torch.arange(PATCH, dtype=torch.float64) - (PATCH - 1) / 2  # pixel centres
    down = steps.view(1, PATCH, 1) + shifts[:, 0].to(torch.float64).view(n, 1, 1)
    right = steps.view(1, 1, PATCH) + shifts[:, 1].to(torch.float64).view(n, 1, 1)
    # Where in the unturned window the turned pixel comes from; the y axis points down, so
    # np.rot90's counter-clockwise turn takes (down, right) to (down cos - ..., ...) like this:
    y = down * cos + right * sin
    x = right * cos - down * sin
    grid = torch.stack([x, y], dim=-1) / (size / 2)  # grid_sample's -1..1, align_corners False
    return F.grid_sample(
        window.unsqueeze(0).expand(n, -1, -1, -1),
        grid.to(device=device, dtype=dtype),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )


def patches(window: Tensor, specs: list[ViewSpec]) -> Tensor:
    """Cut the 128-px patch of each view, (n, 3, 128, 128)."""
    out = window.new_empty((len(specs), 3, PATCH, PATCH))
    oblique = [i for i, spec in enumerate(specs) if spec.angle % 90.0 != 0.0]
    for i, spec in enumerate(specs):
        if spec.angle % 90.0 == 0.0:
            out[i] = rotate_patch(window, spec.angle, spec.shift)
    if oblique:
        out[oblique] = warp(
            window,
            torch.tensor([specs[i].angle for i in oblique]),
            torch.tensor([specs[i].shift for i in oblique]),
        )
    return out


def enlarge(small: Tensor) -> Tensor:
    """Resize (n, 3, 128, 128) patches to (n, 3, 256, 256), bilinear, half-pixel centres."""
    return F.interpolate(small, size=(VIEW, VIEW), mode="bilinear", align_corners=False)


def views(window: Tensor, specs: list[ViewSpec]) -> Tensor:
    """The 256 x 256 views of a window, (n, 3, 256, 256), values as in the window."""
    return enlarge(patches(window, specs))


def ten_crops(images: Tensor) -> Tensor:
    """Cut Krizhevsky's ten crops: four corners, centre (14, 14), and their mirrors.

    Parameters
    ----------
    images
        (n, 3, 256, 256).

    Returns
    -------
    Tensor
        (10 n, 3, 227, 227), channels last in memory; the ten crops of view 0 first. Crops 6-10
        of a view are those of the mirrored view, in ``torchvision.transforms.TenCrop``'s order.
    """
    low, high = 0, VIEW - CROP
    middle = round(high / 2)  # Python rounds 14.5 to 14, as torchvision does
    corners = ((low, low), (low, high), (high, low), (high, high), (middle, middle))
    rows_first = images.permute(0, 2, 3, 1).contiguous()
    # Each crop is copied once, into the order in memory that convolutions want.
    crops = images.new_empty((len(images), 10, CROP, CROP, images.shape[1]))
    for half, source in enumerate((rows_first, rows_first.flip(2))):
        for number, (top, left) in enumerate(corners):
            crops[:, 5 * half + number] = source[:, top : top + CROP, left : left + CROP]
    return crops.flatten(0, 1).permute(0, 3, 1, 2)
